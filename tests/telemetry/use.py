"""Uses a server, so that its metrics have values: predictions, generated text, jobs, adapters and errors.

    use.py SERVER KEY
"""

import json
import sys
import time
import urllib.error
import urllib.request

server, key = sys.argv[1:3]


def ask(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(server + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


rows = [{"text": f"where is my {('card', 'refund')[number % 2]} number {number}", "label": ("lost", "fee")[number % 2]} for number in range(40)]
method = {"type": "lora", "target_modules": "all-linear"}
pairs = [{"prompt": f"fruit {color}", "completion": f" {fruit}"} for color, fruit in [("red", "apple"), ("green", "pear")] * 12]
for name, examples in (("classes", rows), ("fruit", pairs)):
    status, job = ask("POST", "/jobs", {"name": name, "examples": examples, "method": method, "hyperparameters": {"epochs": 2}})
    assert status == 202, job
    while job["status"] not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.2)
        _, job = ask("GET", f"/jobs/{job['id']}")
    assert job["status"] == "succeeded", job
for _ in range(20):
    status, answer = ask("POST", "/predict?adapter=classes", {"inputs": ["where is my card", "where is my refund"]})
    assert status == 200, answer
    status, answer = ask("POST", "/generate?adapter=fruit", {"inputs": ["fruit red"], "max_tokens": 6})
    assert status == 200, answer
# A long job is left running, for the metrics of running jobs.
status, job = ask("POST", "/jobs", {"examples": rows, "method": method, "hyperparameters": {"epochs": 100000}})
assert status == 202, job
for path, body in (("/predict", {"inputs": []}), ("/predict?adapter=nobody", {"inputs": ["a"]})):
    assert ask("POST", path, body)[0] >= 400
