"""A running espalier, over HTTP alone. Whatever it refuses ends the script with the reason."""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


class Server:
    def __init__(self, address: str):
        self.address = address

    def call(self, path: str, body: bytes | None = None, content_type: str = "application/json", accept="*/*") -> bytes:
        headers = {"content-type": content_type, "accept": accept}
        request = urllib.request.Request(self.address + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            sys.exit(f"{path} was answered {error.code}: {error.read().decode()}")

    def post(self, path: str, body: dict) -> dict:
        return json.loads(self.call(path, json.dumps(body).encode()))

    def post_file(self, path: str, part: str, fields: dict, field: str, file: Path) -> dict:
        boundary = "a-boundary-that-no-file-holds"
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="{part}"\r\ncontent-type: application/json\r\n\r\n'
        middle = f'--{boundary}\r\ncontent-disposition: form-data; name="{field}"; filename="{file.name}"\r\n\r\n'
        body = [head.encode(), json.dumps(fields).encode(), b"\r\n", middle.encode(), file.read_bytes()]
        body.append(f"\r\n--{boundary}--\r\n".encode())
        return json.loads(self.call(path, b"".join(body), f"multipart/form-data; boundary={boundary}"))

    def logits(self, adapter: str, inputs: list) -> list[list[float]]:
        answer = self.post(f"/predict?adapter={adapter}", {"inputs": inputs, "logits": True})
        return [prediction["logits"] for prediction in answer["predictions"]]

    def train(self, dataset: Path, job: dict) -> dict:
        job = self.post_file("/jobs", "job", job, "dataset", dataset)
        # The stream of events ends with the job.
        self.call(f"/jobs/{job['id']}/events", accept="text/event-stream")
        job = json.loads(self.call(f"/jobs/{job['id']}"))
        if job["status"] != "succeeded":
            sys.exit(f"the job did not succeed: {job['error']}")
        return job
