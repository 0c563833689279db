"""1,000 adapters in memory: what one takes, what it costs to switch between them, and a cold one's first answer.

    python3 benches/resident.py [--adapters 1000] [--rounds 10] [--requests 500] [--from-disk]

Random adapters (adapters.py) are imported, and the server is started anew on their folder. A few are asked first, with
texts of every length, so that what a server takes once is not counted. Then each of the others is asked for the first
time (cold), and the server's memory is looked at before and after. At last one adapter is asked again and again, and
beside it a random one each time, by turns. All is asked over one connection. Prints a table.
"""

import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import adapters
import common
from client import Client

WARM = 16
MIB = 1024 * 1024


def forget(folder):
    """Asks the system to drop what it keeps of the files in memory: reading them again goes to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fdatasync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def ask(client, text, adapter):
    """Milliseconds to the answer."""
    start = time.perf_counter()
    client.predict([text], adapter)
    return (time.perf_counter() - start) * 1000


def bring(server, folder, options):
    """The names of the adapters, and the bytes that they have in files, on average."""
    with common.Server(server, folder=folder) as running:
        client = Client(running.address)
        views = []
        for number in range(options.adapters + WARM):
            views.append(adapters.upload(client, number))
            if (number + 1) % 100 == 0:
                common.note(f"{number + 1} adapters imported")
    return [view["name"] for view in views], statistics.mean(view["bytes"] for view in views)


def warm_up(client, texts, names):
    for text in texts[:200]:
        client.predict([text])
    for name in names:
        for start in range(0, 96, 32):
            client.predict(texts[start : start + 32], name)


def alternate(client, texts, names, options):
    """The same texts for one adapter again and again, and each for a random one: milliseconds of both."""
    chosen = random.Random(2)
    rounds = []
    for number in range(options.rounds):
        asked = [(chosen.choice(texts), chosen.choice(names)) for _ in range(options.requests)]
        kinds = {"same": [(text, names[0]) for text, _ in asked], "walked": asked}
        order = sorted(kinds, reverse=number % 2 == 1)
        rounds.append({kind: [ask(client, text, name) for text, name in kinds[kind]] for kind in order})
    return rounds


def p50(values):
    return statistics.median(values)


def p99(values):
    return sorted(values)[int(len(values) * 0.99)]


def show(file_bytes, before, after, cold, rounds):
    common.header(f"{len(cold)} resident adapters", "", "")
    common.row("an adapter's files, KiB", f"{file_bytes / 1024:.1f}", "")
    for name, what in (("RssAnon", "memory of its own"), ("VmRSS", "memory in all")):
        each = (after[name] - before[name]) / len(cold)
        grown = f"from {before[name] / MIB:.1f} to {after[name] / MIB:.1f} MiB"
        share = f"{each / file_bytes:.3f} of its files; {grown}"
        common.row(f"{what} for each ({name}), KiB", f"{each / 1024:.1f}", share)
    for which, of in (("p50", p50), ("p99", p99)):
        same, walked = ([of(one[kind]) for one in rounds] for kind in ("same", "walked"))
        more = common.spread((one - other for one, other in zip(walked, same, strict=True)), 3)
        common.row(f"one adapter again and again, {which}, ms", common.middle(same, 3), "")
        common.row(f"a random one each time, {which}, ms", common.middle(walked, 3), f"{more} more")
    warm = p50([value for one in rounds for value in one["same"]])
    for which, of in (("p50", p50), ("p99", p99), ("longest", max)):
        more = f"{of(cold) - warm:.3f} more than the p50 of a warm one"
        common.row(f"the first answer of a cold one, {which}, ms", f"{of(cold):.3f}", more)


def main():
    parser = common.arguments(__doc__, 10, "espalier")
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=500, help="of each kind in a round [500]")
    parser.add_argument("--csv", default=common.TEST, help="texts to ask")
    parser.add_argument("--from-disk", action="store_true", help="first drop the files from the system's memory")
    options = parser.parse_args()
    server, texts = common.server_program(options.espalier), common.texts(options.csv)
    chosen = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="espalier-bench-") as folder:
        names, file_bytes = bring(server, Path(folder) / "data", options)
        if options.from_disk:
            forget(Path(folder) / "data")
        with common.Server(server, "--adapter-cache-size", "16GiB", folder=Path(folder) / "data") as running:
            client = Client(running.address)
            first, others = names[:WARM], names[WARM:]
            warm_up(client, texts, first)
            before = running.memory()
            cold = [ask(client, chosen.choice(texts), name) for name in others]
            after = running.memory()
            common.note(f"{len(cold)} adapters asked for the first time")
            show(file_bytes, before, after, cold, alternate(client, texts, others, options))


if __name__ == "__main__":
    main()
