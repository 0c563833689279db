"""What saturates first when a deployment grows: a model of the queue, the database and the caches with measured costs. Prints Markdown tables.

    python3 benches/scaling.py [--adapters 100000] [--requests 10000] [--workers 1000] [--job-seconds 60] …

Costs are milliseconds of one core of the database for a call, and of one core of a replica for a request; `--help` says which benchmark measured
each default, or that it is assumed. Requests choose adapters by Zipf's law. The caches are simulated: a replica gets the requests of its adapters (consistent hashing), and
evicts the least recently used one. A lookup of a name is repeated after a second.
"""

import argparse
import bisect
import itertools
import random
from collections import OrderedDict

# Sizes and limits that are settings of espalier or defaults of PostgreSQL.
HEARTBEAT_SECONDS, POLL_SECONDS, NAME_SECONDS = 5, 2, 1
CONNECTIONS_PER_PROCESS, MAX_CONNECTIONS = 3, 100


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = lambda name, default, text: parser.add_argument(f"--{name}", type=float, default=default, help=f"{text} [{default}]")
    add("adapters", 100_000, "adapters")
    add("requests", 10_000, "predictions per second")
    add("workers", 1000, "worker processes, all busy")
    add("job-seconds", 60, "time of a job")
    add("zipf", 1.0, "exponent of Zipf's law")
    add("request-ms", 3.4, "time of a prediction of one text on a core of a replica; replicas.py")
    add("adapter-kib", 413, "size of an adapter: LoRA of rank 8 on MiniLM and a head")
    add("memory-gib", 1, "memory for adapters of a replica: --adapter-cache-size")
    add("cold-ms", 5.8, "time of loading an adapter from the folder; cold_adapters.py")
    add("claim-ms", 4.0, "a claim, one at a time, 100 owners; cargo bench --bench claims")
    add("poll-ms", 0.8, "a poll by an idle worker; measured by cargo bench --bench claims")
    add("heartbeat-ms", 0.7, "a heartbeat with progress; measured by cargo bench --bench claims")
    add("event-ms", 0.7, "a row of metrics; assumed, as heartbeats")
    add("lookup-ms", 0.2, "a lookup of a name; measured by cargo bench --bench claims")
    add("database-cores", 8, "cores of the database")
    return parser.parse_args()


def simulate_caches(options, replicas, requests=400_000):
    """Share of the requests that find their adapter in memory, and lookups of names per second."""
    count, random_source = int(options.adapters), random.Random(1)
    weights = list(itertools.accumulate(1 / rank**options.zipf for rank in range(1, count + 1)))
    capacity = int(options.memory_gib * 2**20 / options.adapter_kib)
    caches = [OrderedDict() for _ in range(replicas)]
    looked_up, hits, counted, lookups = {}, 0, 0, 0
    for number in range(requests):
        adapter = bisect.bisect(weights, random_source.random() * weights[-1])
        cache, now = caches[adapter % replicas], number / options.requests
        # The first half fills the caches.
        is_counted = number >= requests // 2
        counted += is_counted
        if adapter in cache:
            cache.move_to_end(adapter)
            hits += is_counted
        else:
            cache[adapter] = None
            if len(cache) > capacity:
                cache.popitem(last=False)
        if now - looked_up.get(adapter, -NAME_SECONDS) >= NAME_SECONDS:
            looked_up[adapter] = now
            lookups += is_counted
    return hits / counted, lookups / (counted / options.requests)


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def main():
    options = arguments()
    replicas = max(1, round(options.requests * options.request_ms / 1000 / 0.7))
    hit_rate, lookups = simulate_caches(options, replicas)
    cold = options.requests * (1 - hit_rate)
    claims = options.workers / options.job_seconds
    heartbeats = options.workers / HEARTBEAT_SECONDS
    print(f"{options.adapters:.0f} adapters, {options.requests:.0f} requests/s, {options.workers:.0f} workers with jobs of {options.job_seconds:.0f} s\n")
    row("part", "load", "capacity", "use")
    row("---", "---", "---", "---")
    parts = [
        ("replicas at 70 %", f"{options.requests:.0f} requests/s", f"{replicas} replicas of one core", 0.7),
        ("adapters in memory", f"{100 * hit_rate:.0f} % of the requests", f"{options.memory_gib:g} GiB per replica", None),
        ("downloads from the bucket", f"{cold:.0f}/s, {cold * options.adapter_kib / 2**20:.1f} GiB/s", "10 Gbit/s", cold * options.adapter_kib * 8192 / 1e10),
        ("loading adapters", f"{cold * options.cold_ms / 1000:.1f} cores", f"{replicas} cores", cold * options.cold_ms / 1000 / replicas),
        ("claims, one at a time", f"{claims:.0f}/s", f"{1000 / options.claim_ms:.0f}/s", claims * options.claim_ms / 1000),
    ]
    calls = {
        "claims": (claims, options.claim_ms),
        "heartbeats": (heartbeats, options.heartbeat_ms),
        "rows of metrics": (heartbeats, options.event_ms),
        "lookups of names": (lookups, options.lookup_ms),
    }
    total = sum(rate * cost for rate, cost in calls.values()) / 1000
    for name, (rate, cost) in calls.items():
        parts.append((f"database: {name}", f"{rate:.0f}/s, {rate * cost / 1000:.2f} cores", "", None))
    processes = options.workers + replicas
    parts += [
        ("database: all calls", f"{total:.1f} cores", f"{options.database_cores:.0f} cores", total / options.database_cores),
        ("database: connections", f"{processes * CONNECTIONS_PER_PROCESS:.0f}", f"{MAX_CONNECTIONS}", processes * CONNECTIONS_PER_PROCESS / MAX_CONNECTIONS),
    ]
    for name, load, capacity, use in parts:
        row(name, load, capacity, "" if use is None else f"{100 * use:.0f} %")
    print("\nIf all workers are idle:\n")
    row("part", "load", "cores of the database")
    row("---", "---", "---")
    polls = options.workers / POLL_SECONDS
    row("polls", f"{polls:.0f}/s", f"{polls * options.poll_ms / 1000:.2f}")
    row("a job that is queued wakes every idle worker", f"{options.workers:.0f} polls per job", f"{options.workers * options.poll_ms / 1000:.2f} per job and second")


if __name__ == "__main__":
    main()
