"""What one owner gets beside a flood of another owner's requests and jobs. Prints a table.

    python3 benches/fairness.py [--rounds 3] [--seconds 20] [--decoder models/FOLDER] [--parts predict,short-jobs,long-jobs,generate]

The flood sends 1.5 times the capacity of the server, which is measured first, and 100 times as much as the other owner. Runs of the other
owner alone and beside the flood alternate. Goodput is what both complete in a second, divided by the capacity; requests of both are equal.
For jobs the flood has 100 jobs in the queue, short ones and then long ones, on one training slot; the time from the creation of a job to its end
counts.
"""

import contextlib
import itertools
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path

import common
from client import Client

ADMIN_KEY = "the-key-of-the-administrator"
SCOPES = ["predict", "generate", "train", "adapters:read", "adapters:write"]
# Times the capacity, and the other owner's part of it.
FLOOD, PART = 1.5, 0.01
CONNECTIONS = {"flood": 128, "other": 8}
# Of the other owner's job; the long ones of the flood have a hundred times as many.
EPOCHS = 6
# Between two jobs of the other owner; at least the time slice of a job.
FLOOD_SECONDS = 15, 45


class OwnerClient(Client):
    """A client with a key."""

    def __init__(self, address, key):
        super().__init__(address)
        self.key = key

    def send(self, path, body, content_type):
        headers = {"authorization": f"Bearer {self.key}", **({"content-type": content_type} if body else {})}
        self.connection.request("GET" if body is None else "POST", path, body, headers)
        return self.connection.getresponse()


def owner_client(admin, owner):
    key = admin.call("/keys", {"owner": owner, "name": "fairness", "scopes": SCOPES})["key"]
    return OwnerClient(admin.address, key)


def clients(address):
    admin = OwnerClient(address, ADMIN_KEY)
    return {owner: owner_client(admin, owner) for owner in CONNECTIONS}


class Load:
    """A load generator with an owner's key, in the background. Without a rate each connection sends when it is answered."""

    def __init__(self, program, client, owner, seconds, requests, rate=None):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".requests")
        self.file.writelines(f"{request}\tauthorization: Bearer {client.key}\n" for request in requests)
        self.file.flush()
        command = [program, client.address, str(seconds), str(CONNECTIONS[owner]), self.file.name]
        command += [str(rate)] if rate else []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def measured(self):
        output, _ = self.process.communicate()
        self.file.close()
        return json.loads(output)


def compare_requests(name, options, program, address, requests):
    """Rows of the other owner's latencies, and of the goodput."""
    by_owner = clients(address)
    load = lambda owner, seconds, rate=None: Load(program, by_owner[owner], owner, seconds, requests, rate)
    load("flood", options.seconds / 2).measured()
    capacity = load("flood", options.seconds).measured()["completed_per_second"]
    rates = {"flood": FLOOD * capacity, "other": FLOOD * capacity * PART}
    alone, beside, goodput = [], [], []
    for _ in range(options.rounds):
        alone.append(load("other", options.seconds, rates["other"]).measured())
        flood = load("flood", options.seconds, rates["flood"])
        other = load("other", options.seconds, rates["other"]).measured()
        beside.append(other)
        goodput.append((flood.measured()["completed_per_second"] + other["completed_per_second"]) / capacity)
    for quantile in ("p50_ms", "p99_ms"):
        times = [[measured[quantile] for measured in runs] for runs in (alone, beside)]
        ratios = common.spread((other / one for one, other in zip(*times, strict=True)), 2)
        common.row(name, quantile, common.middle(times[0]), common.middle(times[1]), ratios)
    errors = sum(measured["errors"] for measured in alone + beside)
    common.row(name, "goodput; refused requests of the other owner", f"{capacity:.1f} requests/s", errors, common.spread(goodput, 3))


def job_seconds(client, job, file):
    """Seconds from the creation of a job to its end."""
    started = time.monotonic()
    client.await_job(client.start_job(job, file), lambda view: False, every=0.02)
    return time.monotonic() - started


def cancel(client, id):
    with contextlib.suppress(SystemExit):
        client.call(f"/jobs/{id}/cancel", {})


def compare_jobs(options, address):
    """Every job of the other owner is one of a new owner, whose jobs have not used the slot before."""
    admin, file = OwnerClient(address, ADMIN_KEY), common.ROOT / common.SAMPLE
    numbers = itertools.count()
    new_owner = lambda: owner_client(admin, f"owner-{next(numbers)}")
    lora = lambda epochs: {"hyperparameters": {"epochs": epochs}, "method": {"type": "lora"}}
    alone = [job_seconds(new_owner(), lora(EPOCHS), file) for _ in range(options.rounds)]
    head = {"hyperparameters": {"epochs": 1, "max_length": 16}, "method": {"type": "head"}}
    for name, job in ("short", head), ("long", lora(100 * EPOCHS)):
        if f"{name}-jobs" not in options.parts:
            continue
        flood_client, beside = new_owner(), []
        flood = [flood_client.start_job(job, file) for _ in range(100)]
        for _ in range(options.rounds):
            # Jobs of the flood run for a random time before the other owner's job is created.
            time.sleep(random.uniform(*FLOOD_SECONDS))
            beside.append(job_seconds(new_owner(), lora(EPOCHS), file))
        queued = flood_client.call("/jobs?status=queued&limit=100")["data"]
        ratio = common.spread((other / one for one, other in zip(alone, beside, strict=True)), 2)
        common.row(f"jobs beside {name} ones ({len(queued)} of them wait at the end)", "s", common.middle(alone), common.middle(beside), ratio)
        for id in flood:
            cancel(flood_client, id)


def main():
    parser = common.arguments(__doc__, 3, "espalier", "load")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--parts", default="predict,short-jobs,long-jobs,generate", help="what is measured, separated by commas")
    parser.add_argument("--decoder", type=Path, help="a base that generates; without it generation is left out")
    options = parser.parse_args()
    server, program = common.server_program(options.espalier), common.bench_program(options.load, "load")
    texts, chosen = common.texts(common.SAMPLE), random.Random(1)
    common.header("measured", "figure", "alone", "beside the flood", "ratio")
    with common.Server(server, "--admin-keys", ADMIN_KEY) as encoder:
        requests = [f"/predict\t{json.dumps({'inputs': [chosen.choice(texts)]})}" for _ in range(1000)]
        if "predict" in options.parts:
            compare_requests("predict", options, program, encoder.address, requests)
        if "jobs" in options.parts:
            compare_jobs(options, encoder.address)
    if options.decoder and "generate" in options.parts:
        with common.Server(server, "--admin-keys", ADMIN_KEY, model=options.decoder) as decoder:
            model = clients(decoder.address)["other"].call("/base")["name"]
            body = lambda: json.dumps({"model": model, "prompt": chosen.choice(texts), "max_tokens": 32, "temperature": 0})
            requests = [f"/v1/completions\t{body()}" for _ in range(1000)]
            compare_requests("generate", options, program, decoder.address, requests)


if __name__ == "__main__":
    main()
