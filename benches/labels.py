"""/predict of an adapter with 5,000 labels against one with 2, in alternating runs. Prints a table of medians.

    python3 benches/labels.py [--labels 5000] [--rounds 5] [--seconds 6]

Both are random adapters of rank 8 (adapters.py) on all-MiniLM-L6-v2, called with one text and `top_k` 1: over one connection for the
latency, over 64 for the throughput.
"""

import json
import random

import adapters
import common
from client import Client, load


def requests(texts, adapter, count=1000):
    chosen = random.Random(1)
    body = lambda: json.dumps({"inputs": [chosen.choice(texts)], "top_k": 1})
    return [f"/predict?adapter={adapter}\t{body()}\n" for _ in range(count)]


def main():
    parser = common.arguments(__doc__, 5, "espalier", "load")
    parser.add_argument("--labels", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=6)
    options = parser.parse_args()
    program, load_program = common.server_program(options.espalier), common.bench_program(options.load, "load")
    texts = common.texts(common.SAMPLE)
    with common.Server(program) as server:
        client = Client(server.address)
        few, many = (adapters.upload(client, number, labels)["id"] for number, labels in ((1, 2), (2, options.labels)))
        common.header("connections", "figure", "2 labels", f"{options.labels} labels", "ratio")
        for connections, figure, digits in ((1, "p50_ms", 2), (64, "requests_per_second", 1)):
            found = {few: [], many: []}
            for _ in range(options.rounds):
                for adapter in found:
                    measured = load(load_program, server.address, options.seconds, connections, requests(texts, adapter))
                    found[adapter].append(measured[figure])
            ratio = common.spread(other / one for one, other in zip(found[few], found[many], strict=True))
            common.row(connections, figure, common.middle(found[few], digits), common.middle(found[many], digits), ratio)


if __name__ == "__main__":
    main()
