"""What the HTTP layer costs at saturation, on the base model: /v1/embeddings against /predict with the same texts, and with --before the
answers of an older program against this one's, whose requests have an Origin that --cors-origins lists and accept compression. Prints
a table of medians of alternating runs.

    python3 benches/http_overhead.py [--before PROGRAM] [--rounds 7] [--seconds 6]

Cases are 1 text over 64 connections and 32 texts over 8. The answers to 32 texts are larger than --compress-from. A ratio is the
time of the second over that of the first, of runs next to each other.
"""

import json
import random

import adapters
import common
from client import Client, load

ORIGIN = "https://app.example.com"
HEADERS = f"\torigin: {ORIGIN}\taccept-encoding: gzip, deflate, br, zstd"
# Inputs in a request, connections.
CASES = [(1, 64), (32, 8)]


def requests(texts, batch, path, body, headers="", count=500):
    chosen = random.Random(1)
    return [f"{path}\t{json.dumps(body(chosen.choices(texts, k=batch)))}{headers}\n" for _ in range(count)]


def predict(path):
    return path, lambda inputs: {"inputs": inputs}


def compare(options, program, name, sides):
    """`sides` are two pairs of an address and a function from the number of texts to requests."""
    for batch, connections in CASES:
        rates = ([], [])
        for number in range(options.rounds):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            for side in order:
                address, lines = sides[side]
                found = load(program, address, options.seconds, connections, lines(batch))
                rates[side].append(found["requests_per_second"])
        first, second = (common.middle(side) for side in rates)
        ratios = common.spread((one / other for one, other in zip(*rates, strict=True)), 3)
        common.row(name, batch, connections, first, second, ratios)


def main():
    parser = common.arguments(__doc__, 7, "espalier", "load")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--before", help="an older program")
    options = parser.parse_args()
    server, program = common.server_program(options.espalier), common.bench_program(options.load, "load")
    texts = common.texts(common.TEST)
    common.header("compared", "texts", "connections", "first, requests/s", "second, requests/s", "time of the second over the first")
    with common.Server(server, "--cors-origins", ORIGIN) as after:
        model = Client(after.address).call("/base")["name"]
        embeddings = "/v1/embeddings", lambda inputs: {"model": model, "input": inputs}
        lines = lambda call, headers="": lambda batch: requests(texts, batch, *call, headers)
        sides = (after.address, lines(predict("/predict"))), (after.address, lines(embeddings))
        compare(options, program, "/predict, /v1/embeddings", sides)
        if options.before:
            with common.Server(common.existing(options.before)) as before:
                for which, path in (("base", "/predict"), ("77 labels", None)):
                    paths = [path, path]
                    if path is None:
                        uploads = (adapters.upload(Client(one.address), 1, 77) for one in (before, after))
                        paths = [f"/predict?adapter={upload['id']}" for upload in uploads]
                    sides = (before.address, lines(predict(paths[0]))), (after.address, lines(predict(paths[1]), HEADERS))
                    compare(options, program, f"before, after: /predict, {which}", sides)


if __name__ == "__main__":
    main()
