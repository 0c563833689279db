"""Fills a server and writes what it answers as JSON. Called by release-fixture.sh with the file to write."""

import json
import os
import sys
import time
import urllib.request

SERVER = os.environ["ESPALIER_SERVER"]
INPUTS = ["when will it arrive a transfer number 2", "why was I charged cash", "how can I change it"]
SUBJECTS = ["my card", "the new card", "a transfer", "this payment", "my account", "cash"]
KINDS = [("arrival", "when will it arrive"), ("fee", "why was I charged"), ("help", "how can I change it")]
# Long enough to be paused in its middle.
LONG = {"epochs": 300, "seed": 7}


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", "accept": "application/json"}
    request = urllib.request.Request(SERVER + path, data=data, method=method, headers=headers)
    with urllib.request.urlopen(request) as response:
        return json.loads(response.read() or "null")


def examples(count):
    rows = []
    for index in range(count):
        label, question = KINDS[index % len(KINDS)]
        rows.append({"text": f"{question} {SUBJECTS[index % len(SUBJECTS)]} number {index}", "label": label})
    return rows


def submit(**fields):
    job = {"examples": examples(60), "method": {"type": "lora"}, **fields}
    return call("POST", "/jobs", job)["id"]


def wait(job, condition):
    for _ in range(6000):
        state = call("GET", f"/jobs/{job}")
        if condition(state):
            return state
        time.sleep(0.02)
    sys.exit(f"the job {job} did not get there: {state}")


def is_over(state):
    return state["status"] in ("succeeded", "failed", "cancelled", "paused")


def fill():
    quick = {"epochs": 2}
    jobs = [
        submit(name="intents", hyperparameters={**quick, "seed": 1}, metadata={"team": "support"}),
        submit(name="intents", hyperparameters={**quick, "seed": 2}),
        submit(method={"type": "ia3"}, hyperparameters=quick),
        submit(name="uninterrupted", hyperparameters=LONG),
    ]
    for job in jobs:
        wait(job, is_over)
    cancelled = submit(name="cancelled", hyperparameters=LONG)
    wait(cancelled, lambda state: state["status"] == "running")
    call("POST", f"/jobs/{cancelled}/cancel", {})
    wait(cancelled, is_over)
    paused = submit(name="paused", hyperparameters=LONG)
    wait(paused, lambda state: (state["progress"] or {}).get("step", 0) >= 20)
    call("POST", f"/jobs/{paused}/pause", {})
    state = wait(paused, is_over)
    if state["status"] != "paused":
        sys.exit("the job was too short to be paused: raise LONG")
    return jobs + [cancelled, paused]


def main():
    jobs = fill()
    adapters = call("GET", "/adapters?limit=100")
    answers = {path: call("GET", path) for path in ["/jobs?limit=100", "/adapters?limit=100", "/datasets?limit=100"]}
    for job in jobs:
        for path in [f"/jobs/{job}", f"/jobs/{job}/events?after=0"]:
            answers[path] = call("GET", path)
    predictions = {}
    for adapter in ["intents", *(adapter["id"] for adapter in adapters["data"])]:
        predictions[adapter] = call("POST", f"/predict?adapter={adapter}", {"inputs": INPUTS})
    states = sorted(answers[f"/jobs/{job}"]["status"] for job in jobs)
    print(f"{len(jobs)} jobs ({', '.join(states)}), {len(adapters['data'])} adapters", file=sys.stderr)
    with open(sys.argv[1], "w") as file:
        json.dump({"inputs": INPUTS, "answers": answers, "predictions": predictions}, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
