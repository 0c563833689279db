"""Requests of the benchmarks: single ones over one connection that is kept open, and those of the load generator."""

import http.client
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BOUNDARY = "a-boundary-that-no-file-holds"
JSON = "application/json"


def form(part, fields, field, name, content):
    """The body of a form of a JSON part and a file, and its content type."""
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{part}"\r\ncontent-type: {JSON}\r\n\r\n'
    between = f'\r\n--{BOUNDARY}\r\ncontent-disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    before, after = head + json.dumps(fields) + between, f"\r\n--{BOUNDARY}--\r\n"
    return before.encode() + content + after.encode(), f"multipart/form-data; boundary={BOUNDARY}"


class Client:
    """One connection to an espalier or to its peer. A refusal ends the script with the reason."""

    def __init__(self, address):
        self.address = address
        self.connection = http.client.HTTPConnection(address, timeout=600)

    def call(self, path, body=None, content_type=JSON):
        return json.loads(self.read(path, body, content_type))

    def read(self, path, body=None, content_type=JSON):
        """The bytes of an answer."""
        return self.answered(path, body, content_type).read()

    def answered(self, path, body, content_type):
        """An answer that is no refusal, and is still to be read."""
        body = json.dumps(body).encode() if content_type == JSON and body is not None else body
        try:
            answer = self.send(path, body, content_type)
        except (ConnectionError, http.client.HTTPException):
            # A connection that was idle for long is closed by the server.
            self.connection.close()
            answer = self.send(path, body, content_type)
        if answer.status >= 400:
            said = answer.read().decode(errors="replace")
            sys.exit(f"error: {path} was answered {answer.status}: {said[:2000]}")
        return answer

    def send(self, path, body, content_type):
        headers = {"content-type": content_type} if body else {}
        self.connection.request("GET" if body is None else "POST", path, body, headers)
        return self.connection.getresponse()

    def post_file(self, path, part, fields, field, name, content):
        return self.call(path, *form(part, fields, field, name, content))

    def events(self, path, body):
        """What a stream of server-sent events says, each with the time at which it came."""
        answer, said = self.answered(path, body, JSON), False
        while line := answer.readline():
            now = time.perf_counter()
            field, _, data = line.decode().strip().partition(": ")
            if field == "error" or (field == "data" and data.startswith('{"error"')):
                sys.exit(f"error: {path} failed on the way: {data[:2000]}")
            if field == "data" and data == "[DONE]":
                said = True
            elif field == "data":
                yield now, json.loads(data)
        if not said:
            sys.exit(f"error: {path} was cut off")

    def start_job(self, job, file):
        file = Path(file)
        job = {"columns": {"text": "text", "label": "category"}, **job}
        return self.post_file("/jobs", "job", job, "dataset", file.name, file.read_bytes())["id"]

    def await_job(self, job, done, every=0.05):
        """Polls until `done(job)`, or until the job is over; how it is then."""
        while True:
            view = self.call(f"/jobs/{job}")
            if view["status"] in ("failed", "cancelled"):
                sys.exit(f"error: the job {view['status']}: {view['error']}")
            if done(view) or view["status"] == "succeeded":
                return view
            time.sleep(every)

    def predict(self, texts, adapter=None, **fields):
        path = f"/predict?adapter={adapter}" if adapter else "/predict"
        return self.call(path, {"inputs": texts, **fields})["predictions"]


def lines(texts, adapters, batch, count=1000, seed=1, extra=""):
    """Requests for the load generator: so many random texts each, for a random one of the adapters (None: the base)."""
    chosen = random.Random(seed)

    def line():
        adapter = chosen.choice(adapters)
        path = f"/predict?adapter={adapter}{extra}" if adapter else "/predict"
        return f"{path}\t{json.dumps({'inputs': chosen.choices(texts, k=batch)})}\n"

    return [line() for _ in range(count)]


def load(program, address, seconds, connections, requests, rate=None):
    """What the load generator measured. One request that fails is one too many."""
    with tempfile.NamedTemporaryFile("w", suffix=".requests") as file:
        file.writelines(requests)
        file.flush()
        command = [program, address, str(seconds), str(connections), file.name, *([str(rate)] if rate else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    measured = json.loads(done.stdout) if done.returncode == 0 else {"errors": 1}
    if measured["errors"]:
        sys.exit(f"error: requests to {address} failed:\n{done.stderr[-3000:]}")
    return measured
