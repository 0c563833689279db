"""Receives a webhook of espalier and checks it with the library of Standard Webhooks. Creates the webhook with the command line, runs a
job and a test, and sends a delivery again.

Usage: receiver.py PROGRAM (ESPALIER_SERVER names the server)
"""

import json
import queue
import re
import subprocess
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from standardwebhooks import Webhook, WebhookVerificationError

calls: queue.Queue = queue.Queue()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()
        calls.put(({name.lower(): value for name, value in self.headers.items()}, body))

    def log_message(self, *_):
        pass


def command(*arguments: str) -> str:
    return subprocess.run([sys.argv[1], *arguments], check=True, capture_output=True, text=True).stdout


def receive(secret: str, event: str) -> dict:
    headers, body = calls.get(timeout=60)
    payload = Webhook(secret).verify(body, headers)
    assert payload["type"] == event, payload
    for changed_headers, changed_body in [(headers, body + b" "), ({**headers, "webhook-id": "other"}, body)]:
        try:
            Webhook(secret).verify(changed_body, changed_headers)
        except WebhookVerificationError:
            continue
        raise AssertionError("a changed message was accepted")
    return {**payload, "webhook-id": headers["webhook-id"]}


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/hooks"

created = command("webhooks", "create", url, "--events", "job.succeeded")
webhook = re.search(r"webhook (\S+)", created)[1]
secret = re.search(r"secret +(\S+)", created)[1]
assert url in command("webhooks", "list") and secret not in command("webhooks", "list")

command("webhooks", "test", webhook)
receive(secret, "webhook.test")

with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    file.write("text,label\n" + "my card is lost,card\nwhat is the rate,rate\n" * 8)
    file.flush()
    command("train", file.name, "--name", "hooked", "--epochs", "1", "--validation-fraction", "0")
job = receive(secret, "job.succeeded")
assert job["data"]["adapter"]["name"] == "hooked", job
assert "card is lost" not in json.dumps(job), job

assert "delivered" in command("webhooks", "deliveries", webhook)
command("webhooks", "resend", webhook, job["webhook-id"])
assert receive(secret, "job.succeeded") == job
command("webhooks", "delete", webhook)
print("webhooks: 3 messages verified by standardwebhooks, and one sent again")
