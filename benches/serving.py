"""/predict at saturation: espalier against transformers + PEFT behind FastAPI (serving_peer.py). Prints a table.

    python3 benches/serving.py [--rounds 3] [--seconds 10] [--adapters 64] [--csv FILE] [--only 8] [--merged]

Both serve the same random adapters (adapters.py: rank 8 on query and value, mean pooling, 77 labels) and are asked the
same texts; that they answer alike is checked first. All servers run, and each measurement asks one of them: by single
inputs over one connection, and by requests of 1, 8 and 32 inputs over many. With several adapters, each request picks
one at random. The peer runs as one process of two threads (1x2) and as two of one (2x1), and computes several adapters
in two ways (serving_peer.py): the best of these counts, and is named. The last columns set espalier's requests/s beside
its own with one adapter, and with none, where it answers embeddings: 384 numbers each.
"""

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import adapters
import common
from client import Client, lines, load
from peers import Peer, check_alike

# Inputs in a request, connections.
CASES = [(1, 1), (1, 64), (8, 16), (32, 8)]
COLUMNS = [
    "inputs",
    "connections",
    "adapters",
    "espalier, requests/s",
    "peer, requests/s",
    "ratio",
    "espalier p50 / p99, ms",
    "peer p50 / p99, ms",
    "the peer's way",
    "espalier: of one adapter",
    "of none",
]


def measure(options, program, address, peers, texts, names, batch, connections):
    """A list of all rounds by who was asked, for which adapters, and how."""
    one, many = names[:1], names
    asked_of_us = (("none", [None]), ("one", one), ("many", many))
    plan = [("espalier", which, "", address, asked) for which, asked in asked_of_us]
    for peer in peers:
        ways = [("one", "", one), ("many", " mixed", many), ("many", " grouped", many)]
        ways += [("merged", " merged", one)] if options.merged else []
        plan += [("peer", which, peer.shape + mode, peer.address, asked) for which, mode, asked in ways]
    measured = {}
    for number in range(options.rounds):
        for who, which, how, asked_address, asked in plan:
            _, _, mode = how.partition(" ")
            requests = lines(texts, asked, batch, extra=f"&mode={mode}" if mode else "")
            found = load(program, asked_address, options.seconds, connections, requests)
            measured.setdefault((who, which), {}).setdefault(how, []).append(found)
            said = f"{batch} inputs, {connections} connections, round {number + 1}: {who} {which} {how}"
            common.note(f"{said}: {found['requests_per_second']:.1f} requests/s, p99 {found['p99_ms']:.1f} ms")
    return measured


def rates(found):
    return [one["requests_per_second"] for one in found]


def latencies(found):
    return " / ".join(common.middle((one[which] for one in found), 2) for which in ("p50_ms", "p99_ms"))


def against(found, other):
    return common.spread(one / another for one, another in zip(rates(found), rates(other), strict=True))


def show(batch, connections, measured, count):
    ours = {which: found[""] for (who, which), found in measured.items() if who == "espalier"}
    none = (common.middle(rates(ours["none"])), "", "", latencies(ours["none"]))
    common.row(batch, connections, "none", *none, *[""] * 4)
    for which, name in (("one", "1"), ("merged", "1, merged by the peer"), ("many", count)):
        if ("peer", which) not in measured:
            continue
        found = ours["one" if which == "merged" else which]
        how, theirs = max(measured["peer", which].items(), key=lambda item: statistics.median(rates(item[1])))
        both = (common.middle(rates(found)), common.middle(rates(theirs)), against(found, theirs))
        itself = (against(found, ours["one"]) if which == "many" else "", against(found, ours["none"]))
        common.row(batch, connections, name, *both, latencies(found), latencies(theirs), how, *itself)


def main():
    parser = common.arguments(__doc__, 3, "espalier", "load")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement [10]")
    parser.add_argument("--adapters", type=int, default=64)
    parser.add_argument("--csv", default=common.TEST, help="texts to ask")
    parser.add_argument("--only", type=int, help="only requests of so many inputs")
    parser.add_argument("--merged", action="store_true", help="also one adapter that the peer has merged into the base")
    parser.add_argument("--shapes", default="1x2,2x1", help="the peer's processes x threads [1x2,2x1]")
    parser.add_argument("--peer", default="", help="more of the peer's flags, in one text")
    options = parser.parse_args()
    server, program = common.server_program(options.espalier), common.bench_program(options.load, "load")
    texts = common.texts(options.csv)
    names = [adapters.name(number) for number in range(options.adapters)]
    flags = options.peer.split() + (["--merge", names[0]] if options.merged else [])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="espalier-bench-")))
        for number, name in enumerate(names):
            adapters.write(number, folder / "adapters" / name)
        shapes = options.shapes.split(",")
        peers = [stack.enter_context(Peer(shape, folder, folder / "adapters", flags)) for shape in shapes]
        address = stack.enter_context(common.Server(server)).address
        client = Client(address)
        for number in range(options.adapters):
            adapters.upload(client, number)
        for mode, asked in (("mixed", names), ("grouped", names), *([("merged", names[:1])] if options.merged else [])):
            check_alike(address, peers, texts, asked, mode)
        common.header(*COLUMNS)
        for batch, connections in CASES:
            if options.only in (None, batch):
                measured = measure(options, program, address, peers, texts, names, batch, connections)
                show(batch, connections, measured, options.adapters)


if __name__ == "__main__":
    main()
