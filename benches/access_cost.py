"""What keys, limits and the counting of usage cost on /predict at saturation: an older program with a key of the settings against this
one with a key of the database, whose key and owner have limits that are not reached. Prints a table of medians of alternating runs.

    python3 benches/access_cost.py --before PROGRAM [--rounds 7] [--seconds 6]

Cases are 1 text over 64 connections and 32 texts over 8, on the base model. A ratio is the time of this program over that of the older
one, of runs next to each other. The older program runs beside itself as well: that ratio is the noise.
"""

import json
import urllib.request

import common
from http_overhead import compare, predict, requests

KEY = "a-key-of-the-settings-for-both"
LIMITS = {"requests_per_minute": 4_000_000_000, "tokens_per_minute": 4_000_000_000, "concurrent_requests": 10_000}


def call(address, method, path, body):
    request = urllib.request.Request(f"http://{address}{path}", json.dumps(body).encode(), method=method)
    request.add_header("authorization", f"Bearer {KEY}")
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def new_key(address):
    """Key of an owner with limits."""
    call(address, "PUT", "/owners/bench", LIMITS)
    return call(address, "POST", "/keys", {"owner": "bench", "name": "bench", "scopes": ["predict"], "limits": LIMITS})["key"]


def main():
    parser = common.arguments(__doc__, 7, "espalier", "load")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--before", required=True, help="an older program")
    options = parser.parse_args()
    server, program = common.server_program(options.espalier), common.bench_program(options.load, "load")
    texts = common.texts(common.TEST)
    with_key = lambda key: lambda batch: requests(texts, batch, *predict("/predict"), f"\tauthorization: Bearer {key}")
    old = common.existing(options.before)
    common.header("compared", "texts", "connections", "first, requests/s", "second, requests/s", "time of the second over the first")
    with common.Server(old, "--api-keys", KEY) as before, common.Server(old, "--api-keys", KEY) as again:
        sides = (before.address, with_key(KEY)), (again.address, with_key(KEY))
        compare(options, program, "the older one twice", sides)
    with common.Server(old, "--api-keys", KEY) as before, common.Server(server, "--admin-keys", KEY) as after:
        sides = (before.address, with_key(KEY)), (after.address, with_key(new_key(after.address)))
        compare(options, program, "before, after", sides)


if __name__ == "__main__":
    main()
