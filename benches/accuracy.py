"""A job with nothing but its data: seconds from POST to the adapter, its accuracy on test texts, the server's memory.

    python3 benches/accuracy.py [--train FILE] [--test FILE] [--job JSON] [--peer] [--rounds 1]

The files have the columns text and category. --job adds fields to the job, for example {"method": {"type": "head"}}.
--peer also trains with PyTorch + PEFT, by the tuned loop of peer.py with as many epochs as the job; its seconds are
those of tokenising and of the steps, without the loading of anything. Each round starts a new server. Prints a table.
"""

import json
import statistics
import sys
import time

import common
from client import Client

BATCH = 32
MIB = 1024 * 1024
NAME = "accuracy"


def accuracy_of(client, rows, adapter=NAME):
    right = 0
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        predicted = client.predict([row["text"] for row in part], adapter)
        right += sum(one["label"] == row["category"] for one, row in zip(predicted, part, strict=True))
    return right / len(rows)


def train(program, options, fields, test):
    with common.Server(program) as server:
        client = Client(server.address)
        start = time.perf_counter()
        job = client.start_job({"name": NAME, **fields}, options.train)
        view = client.await_job(job, lambda view: view["adapter_id"])
        seconds = time.perf_counter() - start
        epochs, accuracy = view["hyperparameters"]["epochs"], accuracy_of(client, test)
        # As the peer's: of training and answering.
        peak = server.memory()["VmHWM"] / MIB
        return {"seconds": seconds, "accuracy": accuracy, "epochs": epochs, "peak_mib": peak}


def train_peer(options, epochs):
    numbers = (str(epochs), str(options.threads), "128")
    command = [sys.executable, "benches/peer.py", common.MODEL, options.train, "mean", *numbers]
    return common.run(*command, "whole", options.test)


def median(values):
    return statistics.median(list(values))


def main():
    parser = common.arguments(__doc__, 1, "espalier")
    parser.add_argument("--train", default=common.SAMPLE)
    parser.add_argument("--test", default=common.TEST)
    parser.add_argument("--job", type=json.loads, default={}, metavar="JSON", help="more fields of the job")
    parser.add_argument("--peer", action="store_true", help="compare with PyTorch + PEFT")
    parser.add_argument("--epochs", type=int, help="the peer's; by default the job's")
    parser.add_argument("--threads", type=int, default=2, help="the peer's")
    options = parser.parse_args()
    options.train, options.test = (str(common.existing(common.ROOT / file)) for file in (options.train, options.test))
    common.rows(options.train)
    test = common.rows(options.test)
    program = common.server_program(options.espalier)
    ours, theirs = [], []
    for number in range(options.rounds):
        ours.append(train(program, options, options.job, test))
        common.note(f"round {number + 1}: espalier: {ours[-1]}")
        if options.peer:
            theirs.append(train_peer(options, options.epochs or ours[-1]["epochs"]))
            common.note(f"round {number + 1}: the peer: {theirs[-1]}")
    show(ours, theirs)


def show(ours, theirs):
    names = ("seconds", "accuracy on the test texts", "peak memory, MiB")
    common.header("side", *names, "seconds, times espalier's", "memory, times espalier's", "rounds")
    seconds, memory = (median(one[which] for one in ours) for which in ("seconds", "peak_mib"))
    told = f"{seconds:.2f}", f"{median(one['accuracy'] for one in ours):.4f}", f"{memory:.0f}"
    common.row(f"espalier, {ours[0]['epochs']} epochs, POST to adapter", *told, "1.00", "1.00", len(ours))
    for number in range(len(theirs[0]["epochs"]) if theirs else 0):
        after = [one["epochs"][number] for one in theirs]
        longer = common.spread(other["seconds"] / one["seconds"] for one, other in zip(ours, after, strict=True))
        larger = common.spread(other["peak_mib"] / one["peak_mib"] for one, other in zip(ours, theirs, strict=True))
        told = f"{median(one['seconds'] for one in after):.2f}", f"{median(one['accuracy'] for one in after):.4f}"
        peak = f"{median(one['peak_mib'] for one in theirs):.0f}"
        common.row(f"PyTorch + PEFT, after epoch {number + 1}", *told, peak, longer, larger, len(theirs))


if __name__ == "__main__":
    main()
