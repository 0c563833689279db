"""Adapters in object storage: the first prediction of an adapter that a host has never seen, and many adapters through small caches. Prints two
tables.

    python3 benches/cold_adapters.py [--rounds 3] [--adapters 1000] [--seconds 20]

One process uploads LoRA adapters (rank 8 on query and value) to an S3 server on this machine. Another one with an empty folder predicts one text:

1. with an adapter that is in the bucket only, in its folder only (after a restart), and in memory. Medians over 100 adapters in each round.
2. with a random adapter of all of them, uniformly and by Zipf's law (exponent 1), while its memory holds a tenth of them and its folder three
   tenths.
"""

import random
import statistics
import tempfile
import time
from pathlib import Path

import common
import adapters
import s3
from client import Client, lines, load

COLD = 100
CONNECTIONS = 8


def milliseconds(client, text, names):
    """Of one prediction with each adapter."""
    took = []
    for name in names:
        started = time.perf_counter()
        client.predict([text], name)
        took.append((time.perf_counter() - started) * 1e3)
    return took


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def measure_first_predictions(options, program, flags, text, names):
    measured = {"bucket": [], "folder": [], "memory": []}
    for number in range(options.rounds):
        chosen = random.Random(number).sample(names, COLD)
        with tempfile.TemporaryDirectory(prefix="espalier-cold-") as folder:
            for place in "bucket", "folder":
                with common.Server(program, *flags, folder=Path(folder)) as server:
                    client = Client(server.address)
                    client.predict([text])
                    measured[place] += milliseconds(client, text, chosen)
                    if place == "folder":
                        measured["memory"] += milliseconds(client, text, chosen)
    common.header("the adapter is in", "median, ms", "p99, ms", "median over memory, ms")
    warm = statistics.median(measured["memory"])
    for place, took in measured.items():
        median = statistics.median(took)
        common.row(place, f"{median:.1f}", f"{quantile(took, 0.99):.1f}", f"{median - warm:.1f}")


def counters(server):
    text = Client(server.address).read("/metrics").decode()
    value = lambda name: sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))
    return value("espalier_adapter_cache_hits_total"), value("espalier_adapter_cache_misses_total"), value("espalier_object_storage_calls_total{operation=\"download\"")


def zipf(names, count=4000):
    shuffled = random.Random(5).sample(names, len(names))
    return random.Random(6).choices(shuffled, [1 / rank for rank in range(1, len(names) + 1)], k=count)


def measure_small_caches(options, program, generator, flags, texts, names):
    size = sum(map(len, adapters.files(0).values()))
    limits = ["--adapter-cache-size", str(size * len(names) // 10), "--blob-cache-size", str(size * len(names) * 3 // 10)]
    cases = {"all in memory": (names[: len(names) // 20], limits), "uniform": (names, limits), "Zipf": (zipf(names), limits)}
    common.header("adapters", "requests/s", "p50, ms", "p99, ms", "in memory", "downloads per second")
    for name, (chosen, limits) in cases.items():
        with common.Server(program, *flags, *limits) as server:
            requests = lines(texts, chosen, 1, count=4000)
            load(generator, server.address, options.seconds, CONNECTIONS, requests)
            before = counters(server)
            done = load(generator, server.address, options.seconds, CONNECTIONS, requests)
            hits, misses, downloads = (after - first for after, first in zip(counters(server), before, strict=True))
            rate = f"{100 * hits / (hits + misses):.0f} %"
            common.row(name, f"{done['requests_per_second']:.0f}", f"{done['p50_ms']:.1f}", f"{done['p99_ms']:.1f}", rate, f"{downloads / options.seconds / 3:.0f}")


def main():
    parser = common.arguments(__doc__, 3, "espalier", "load")
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    program, generator = common.server_program(options.espalier), common.bench_program(options.load, "load")
    texts = common.texts(common.TEST)
    names = [adapters.name(number) for number in range(options.adapters)]
    with tempfile.TemporaryDirectory(prefix="espalier-database-") as folder, s3.server(common.free_port()) as bucket:
        flags = ["--role", "api", "--blob-store", bucket, "--database-url", f"sqlite://{folder}/espalier.db"]
        with common.Server(program, *flags) as server:
            client = Client(server.address)
            for number in range(options.adapters):
                adapters.upload(client, number)
        measure_first_predictions(options, program, flags, texts[0], names)
        common.note("")
        measure_small_caches(options, program, generator, flags, texts, names)


if __name__ == "__main__":
    main()
