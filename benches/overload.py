"""Short, long and hostile requests together, at many times the capacity of the server. Prints a table.

    python3 benches/overload.py [--seconds 60] [--short 64] [--long 32] [--hostile 8]

Three phases, in each of which --short connections send requests with one text of the sample, each the next as soon as the last one is
answered:

1. alone: the capacity;
2. while a flood goes to another server, which refuses all of it by its size (--max-json): what sending and receiving the flood costs on the
   same machine;
3. while the flood goes to the same server.

The flood: --long connections send eight texts of 2 MB, with a second between an answer and the next request, and --hostile connections send
one text of 15 MB, malformed JSON or unknown fields, with 0.2 seconds between. The goodput of the short requests, the latency of
/health/live, the memory of the server, and the time until a request was refused are measured.
"""

import http.client
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import adapters
import common
from client import Client

REFUSED = (413, 422, 400, 503)


def short_requests(texts, adapter):
    chosen = random.Random(1)
    return [f"/predict?adapter={adapter}\t{json.dumps({'inputs': [chosen.choice(texts)]})}\n" for _ in range(1000)]


def start_load(program, address, seconds, connections, requests):
    file = tempfile.NamedTemporaryFile("w", suffix=".requests", delete=False)
    file.writelines(requests)
    file.close()
    command = [program, address, str(seconds), str(connections), file.name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish_load(process):
    output, errors = process.communicate()
    if process.returncode != 0:
        sys.exit(f"error: the load generator failed:\n{errors[-2000:]}")
    return json.loads(output)


class Senders:
    """Threads that send requests until the end and record each status with its time in seconds."""

    def __init__(self, address, bodies, count, end, pause):
        self.answers = []
        self.threads = [
            threading.Thread(target=self.send, args=(address, bodies[number % len(bodies)], end, pause), daemon=True)
            for number in range(count)
        ]
        for thread in self.threads:
            thread.start()

    def send(self, address, body, end, pause):
        while time.monotonic() < end:
            started = time.monotonic()
            try:
                connection = http.client.HTTPConnection(address, timeout=60)
                connection.request("POST", "/predict", body, {"content-type": "application/json"})
                status = connection.getresponse().status
            except OSError:
                status = 0
            self.answers.append((status, time.monotonic() - started))
            connection.close()
            time.sleep(pause)

    def counts(self):
        counts = {}
        for status, _ in self.answers:
            counts[status] = counts.get(status, 0) + 1
        return counts


class Health:
    """Polls the liveness check."""

    def __init__(self, address, end):
        self.times = []
        self.thread = threading.Thread(target=self.poll, args=(address, end), daemon=True)
        self.thread.start()

    def poll(self, address, end):
        connection = http.client.HTTPConnection(address, timeout=60)
        while time.monotonic() < end:
            started = time.monotonic()
            connection.request("GET", "/health/live")
            connection.getresponse().read()
            self.times.append(time.monotonic() - started)
            time.sleep(0.02)

    def p99(self):
        self.thread.join()
        return statistics.quantiles(self.times, n=100)[98] * 1e3


def main():
    parser = common.arguments(__doc__, None, "espalier", "load")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--short", type=int, default=64)
    parser.add_argument("--long", type=int, default=32)
    parser.add_argument("--hostile", type=int, default=8)
    options = parser.parse_args()
    program, load_program = common.server_program(options.espalier), common.bench_program(options.load, "load")
    texts = common.texts(common.SAMPLE)
    word = "where is my card and when will it arrive "
    long_text = json.dumps({"inputs": [word * (2_000_000 // len(word))] * 8}).encode()
    huge_text = json.dumps({"inputs": [word * (15_000_000 // len(word))]}).encode()
    hostile = [huge_text, b'{"inputs": [' + b"[" * 100_000, json.dumps({"inputs": ["a"], "unknown": ["x" * 1_000_000]}).encode()]
    def flood(address, end):
        return {"long": Senders(address, [long_text], options.long, end, 1.0), "hostile": Senders(address, hostile, options.hostile, end, 0.2)}

    with common.Server(program) as server, common.Server(program, "--max-json", "1KiB") as other:
        client = Client(server.address)
        short = short_requests(texts, adapters.upload(client, 1)["id"])

        def goodput(seconds):
            return finish_load(start_load(load_program, server.address, seconds, options.short, short))

        alone = goodput(options.seconds / 4)
        before = server.memory()["VmRSS"]
        flood(other.address, time.monotonic() + options.seconds / 2)
        elsewhere = goodput(options.seconds / 2)
        time.sleep(2)
        end = time.monotonic() + options.seconds
        health, senders_by_kind = Health(server.address, end), flood(server.address, end)
        together = goodput(options.seconds)
        common.header("figure", "value")
        for name, load in {"alone": alone, "flood to another server": elsewhere, "flood to the same server": together}.items():
            ratio = load["requests_per_second"] / alone["requests_per_second"]
            common.row(f"short requests/s, {name}", f"{load['requests_per_second']:.1f} ({ratio:.2f}), p99 {load['p99_ms']:.0f} ms")
        common.row("same / another", f"{together['requests_per_second'] / elsewhere['requests_per_second']:.2f}")
        common.row("/health/live p99, ms", f"{health.p99():.1f}")
        common.row("memory before, at most, MiB", f"{before >> 20}, {server.memory()['VmHWM'] >> 20}")
        for name, senders in senders_by_kind.items():
            refused = [seconds for status, seconds in senders.answers if status in REFUSED]
            slowest = max(refused, default=0)
            p99 = statistics.quantiles(refused, n=100)[98] if len(refused) > 1 else slowest
            common.row(f"{name}: answers by status", senders.counts())
            common.row(f"{name}: refused within, s (p99, longest)", f"{p99:.2f}, {slowest:.2f}")


if __name__ == "__main__":
    main()
