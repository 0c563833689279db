"""The client of compose-scale.sh: GATEWAY PROMETHEUS KEY_FILE CONTAINER …. Trains, predicts, and kills the process of each container under load."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.append("benches")
from client import form

CLIENTS, SECONDS, KILL_EVERY = 8, 30, 10
TEXTS = ["where is my card", "why was I charged a fee", "how do I change my pin"]


class Api:
    """Retries what the server or a proxy asks to retry."""

    def __init__(self, address, key):
        self.address, self.key, self.retries = address, key, 0

    def call(self, path, body=None, content_type="application/json", patience=120):
        data = json.dumps(body).encode() if body is not None and content_type == "application/json" else body
        end = time.monotonic() + patience
        while True:
            request = urllib.request.Request(self.address + path, data)
            request.add_header("authorization", f"Bearer {self.key}")
            if data:
                request.add_header("content-type", content_type)
                request.add_header("idempotency-key", f"{path}-{hash(data)}")
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                wait = error.headers.get("retry-after")
                if not wait or time.monotonic() > end:
                    raise RuntimeError(f"{path}: {error.code} {error.read()[:500]}") from error
                delay = float(wait)
            except OSError:
                if time.monotonic() > end:
                    raise
                delay = 0.2
            self.retries += 1
            time.sleep(delay)


def wait_until(ready, what, patience=120):
    end = time.monotonic() + patience
    while not ready():
        if time.monotonic() > end:
            sys.exit(f"error: {what}")
        time.sleep(0.5)


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


def main():
    gateway, prometheus, key_file, *containers = sys.argv[1:]
    key = Path(key_file).read_text().split()[0]
    wait_until(lambda: answers(f"{gateway}/health/ready"), "the gateway reaches no replica")
    api = Api(gateway, key)
    sample = Path("examples/banking77-sample.csv")
    body, content_type = form("job", {"name": "intents", "columns": {"label": "category"}}, "dataset", sample.name, sample.read_bytes())
    job = api.call("/jobs", body, content_type)["id"]
    started = time.monotonic()
    while (view := api.call(f"/jobs/{job}"))["status"] in ("queued", "running"):
        time.sleep(0.5)
    assert view["status"] == "succeeded", view
    print(f"trained through the gateway in {time.monotonic() - started:.0f} s")
    expected = api.call("/predict?adapter=intents", {"inputs": TEXTS})["predictions"]
    counts, failures, clients, end = [0] * CLIENTS, [], [Api(gateway, key) for _ in range(CLIENTS)], time.monotonic() + SECONDS

    def predict(number):
        try:
            while time.monotonic() < end:
                found = clients[number].call("/predict?adapter=intents", {"inputs": TEXTS})["predictions"]
                assert found == expected, found
                counts[number] += 1
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=predict, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    # One of them has the adapter in memory and gets all requests.
    for container in containers:
        time.sleep(KILL_EVERY)
        process = subprocess.run(["docker", "inspect", "--format", "{{.State.Pid}}", container], check=True, stdout=subprocess.PIPE, text=True)
        os.kill(int(process.stdout), signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert not failures, failures
    print(f"{sum(counts)} predictions, {sum(client.retries for client in clients)} retries, no failure; each replica was killed once")

    def is_scraped():
        query = f"{prometheus}/api/v1/query?query=up%7Bjob%3D%22espalier%22%7D"
        results = json.load(urllib.request.urlopen(query))["data"]["result"] if answers(query) else []
        return any(result["value"][1] == "1" for result in results)

    wait_until(is_scraped, "Prometheus does not scrape the server")
    print("Prometheus scrapes the server")


if __name__ == "__main__":
    main()
