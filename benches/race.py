"""A race of eight methods against the eight as jobs, one after another: what it costs, and whether it picks the same one.

    python3 benches/race.py [--train FILE] [--texts 2500] [--race JSON] [--job JSON] [--rounds 1]

The files have the columns text and category; --texts draws so many of the training texts by a seed, but keeps all labels.
--race adds fields to the method ({"candidates": […], "budget": {…}}), --job to the job. The eight jobs are what the race
shows of its candidates, on one server of their own, where they share what the frozen base computed. The two sides alternate,
each round on new servers. Prints a table: seconds and processor seconds from POST to the last adapter, of either side.
"""

import csv
import json
import os
import random
import tempfile
import time
from pathlib import Path

import common
from client import Client

TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds(pid):
    """User's and system's, of all threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def drawn(rows, count, seed=1):
    """So many rows, of every label at least one, in their order."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    first = {}
    for index in order:
        first.setdefault(rows[index]["category"], index)
    kept = list(first.values())
    kept += [index for index in order if index not in set(kept)][: max(0, count - len(kept))]
    return [rows[index] for index in sorted(kept)]


def write(rows, file):
    with open(file, "w", newline="") as opened:
        writer = csv.DictWriter(opened, ["text", "category"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def measured(program, jobs, train):
    """Jobs one after another on a new server: how they ended, and what all of them cost."""
    with common.Server(program) as server:
        client = Client(server.address)
        before, start = processor_seconds(server.process.pid), time.perf_counter()
        ids = [client.start_job(job, train) for job in jobs]
        # By the last one: jobs are trained in the order in which they came.
        client.await_job(ids[-1], lambda view: view["adapter_id"], every=0.2)
        seconds = time.perf_counter() - start
        used = processor_seconds(server.process.pid) - before
        views = [client.await_job(one, lambda view: view["adapter_id"]) for one in ids]
        for view in views:
            view["version"] = view["adapter"]["version"]
        return views, seconds, used


def alone(race, fields):
    """The job of each candidate, as the race shows it."""
    for candidate in race["method"]["candidates"]:
        settings = dict(candidate)
        hyperparameters = settings.pop("hyperparameters")
        yield {**fields, "method": settings, "hyperparameters": hyperparameters}


def best(views):
    """Who would be picked of full runs: by accuracy, then by loss, on the same validation examples."""
    figures = [view["metrics"]["validation"] for view in views]
    return max(range(len(views)), key=lambda index: (figures[index]["accuracy"], -figures[index]["loss"]))


def main():
    parser = common.arguments(__doc__, 1, "espalier")
    parser.add_argument("--train", default=common.SAMPLE)
    parser.add_argument("--texts", type=int, help="so many of the training texts")
    parser.add_argument("--race", type=json.loads, default={}, metavar="JSON", help="more fields of the method")
    parser.add_argument("--job", type=json.loads, default={}, metavar="JSON", help="more fields of the job")
    options = parser.parse_args()
    program = common.server_program(options.espalier)
    rows = common.rows(str(common.existing(common.ROOT / options.train)))
    common.header("side", "seconds", "of the eight's", "processor seconds", "of the eight's", "picks")
    with tempfile.TemporaryDirectory(prefix="espalier-race-") as folder:
        train = Path(folder) / "train.csv"
        write(drawn(rows, options.texts) if options.texts else rows, train)
        for _ in range(options.rounds):
            one_round(program, options, train)


def one_round(program, options, train):
    asked = {**options.job, "method": {"type": "auto", **options.race}}
    (race,), seconds, used = measured(program, [asked], train)
    views, their_seconds, their_used = measured(program, list(alone(race, options.job)), train)
    table, pick = race["metrics"]["race"], best(views)
    for row in table["table"]:
        common.note(json.dumps(row))
    for index, view in enumerate(views):
        figures = view["metrics"]["validation"]
        common.note(f"{index}: {view['method']['type']}: {figures['accuracy']:.4f}, loss {figures['loss']:.4f}")
    winner = table["winner"]
    same = "the version of its own job" if race["version"] == views[winner]["version"] else "ANOTHER VERSION"
    names = [candidate["type"] for candidate in race["method"]["candidates"]]
    # As in a race, the loss tells equal accuracies apart.
    figures = [view["metrics"]["validation"] for view in views]
    place = sorted(range(len(views)), key=lambda index: (-figures[index]["accuracy"], figures[index]["loss"])).index(winner)
    ratios = f"{seconds / their_seconds:.2f}", f"{used / their_used:.2f}"
    picked = f"{winner}: {names[winner]} ({same}; place {place + 1} of {len(views)} full runs)"
    common.row("race", f"{seconds:.1f}", ratios[0], f"{used:.1f}", ratios[1], picked)
    common.row("the eight", f"{their_seconds:.1f}", "1", f"{their_used:.1f}", "1", f"{pick}: {names[pick]}")


if __name__ == "__main__":
    main()
