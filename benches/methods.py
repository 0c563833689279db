"""Every method with nothing but its name: a job's accuracy on test texts, its parameters, file, processor time and memory.

    python3 benches/methods.py [--train FILE] [--test FILE] [--share 1] [--seed 1] [--only NAMES] [--keep FILE] [--peer]

The files have the columns text and category; --share trains with that share of the texts, drawn by --seed. --peer trains
each method that PEFT has too, with PEFT's defaults at two learning rates and as many epochs as the job (methods_peer.py).
Every job gets a new server. Processor seconds are of all threads, from POST to the adapter, or of the peer's tokenising
and steps: on a busy machine they say more than seconds do. --keep writes what was measured into a file, a JSON line each,
and what such a file has already is not measured again. Prints a table.
"""

import io
import json
import math
import random
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import common
from accuracy import MIB, NAME, accuracy_of
from client import Client

HEAD = "head"
METHODS = (HEAD, "lora", "ia3", "prompt_tuning", "prefix_tuning", "p_tuning", "bottleneck", "bias", "layer_norm", "vera")
# The peer's learning rates, chosen without a search: high ones, as its head starts from random numbers and has few steps.
RATES = {
    "lora": ("2e-3", "5e-3"),
    "ia3": ("1e-2", "2e-2"),
    "prompt_tuning": ("1e-2", "3e-2"),
    "prefix_tuning": ("1e-2", "3e-2"),
    "p_tuning": ("5e-3", "1e-2"),
    "layer_norm": ("5e-3", "1e-2"),
    "vera": ("1e-2", "3e-2"),
}
TENSORS, FROZEN = "adapter_model.safetensors", ("vera_A", "vera_B")


def draw(file, share, seed, folder):
    """A file with so many of the rows; the file itself where that is all."""
    if share == 1:
        return file
    rows = common.rows(file)
    drawn = random.Random(seed).sample(rows, int(share * len(rows)))
    if len({row["category"] for row in drawn}) < len({row["category"] for row in rows}):
        sys.exit(f"error: seed {seed} draws no text of some label: take another")
    return common.write_rows(Path(folder) / "drawn.csv", drawn)


def file_of(client, adapter):
    """The bytes of the tensors' file and the numbers in it that were learned."""
    with zipfile.ZipFile(io.BytesIO(client.read(f"/adapters/{adapter}/download"))) as archive:
        content = archive.read(next(name for name in archive.namelist() if name.endswith(TENSORS)))
    length = int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8 : 8 + length])
    shapes = [one["shape"] for name, one in tensors.items() if name != "__metadata__" and not name.endswith(FROZEN)]
    return {"bytes": len(content), "parameters": sum(map(math.prod, shapes))}


def train(program, file, test, method, fields):
    with common.Server(program) as server:
        client, before, start = Client(server.address), server.processor_seconds(), time.perf_counter()
        job = client.start_job({"name": NAME, "method": {"type": method}, **fields}, file)
        view = client.await_job(job, lambda view: view["adapter_id"])
        told = {"seconds": time.perf_counter() - start, "processor_seconds": server.processor_seconds() - before}
        told |= {"peak_mib": server.memory()["VmHWM"] / MIB, "hyperparameters": view["hyperparameters"]}
        return told | {"accuracy": accuracy_of(client, test)} | file_of(client, view["adapter_id"])


def train_peer(options, file, method, rate, epochs):
    command = [sys.executable, "benches/methods_peer.py", common.MODEL, file, options.test, method, rate]
    return common.run(*command, str(epochs), str(options.threads), "128")


class Kept:
    """What was measured, by a name; in a file too, where there is one."""

    def __init__(self, file):
        self.file = file
        there = file.read_text().splitlines() if file and file.exists() else []
        self.told = dict(json.loads(line) for line in there)

    def measured(self, name, measure):
        if name not in self.told:
            self.told[name] = measure()
            common.note(f"{name}: {self.told[name]}")
            if self.file:
                with self.file.open("a") as opened:
                    print(json.dumps([name, self.told[name]]), file=opened)
        return self.told[name]


def main():
    parser = common.arguments(__doc__, None, "espalier")
    parser.add_argument("--train", default=common.SAMPLE)
    parser.add_argument("--test", default=common.TEST)
    parser.add_argument("--share", type=float, default=1, help="of the training texts")
    parser.add_argument("--seed", type=int, default=1, help="by which they are drawn")
    parser.add_argument("--only", type=lambda names: adapter_names.split(","), default=METHODS, help="methods, by commas")
    parser.add_argument("--job", type=json.loads, default={}, metavar="JSON", help="more fields of the job")
    parser.add_argument("--keep", type=Path, help="a file for what was measured")
    parser.add_argument("--peer", action="store_true", help="compare with PyTorch + PEFT")
    # With two, one of the peer's spins while it waits for the other, which is processor time too.
    parser.add_argument("--threads", type=int, default=1, help="the peer's")
    options = parser.parse_args()
    options.train, options.test = (str(common.existing(common.ROOT / file)) for file in (options.train, options.test))
    test, program, kept = common.rows(options.test), common.server_program(options.espalier), Kept(options.keep)
    with tempfile.TemporaryDirectory() as folder:
        file = draw(options.train, options.share, options.seed, folder)
        ours, theirs = {}, {}
        for method in options.only:
            ours[method] = kept.measured(method, lambda: train(program, file, test, method, options.job))
        for method in options.only if options.peer else ():
            epochs = ours[method]["hyperparameters"]["epochs"]
            for rate in RATES.get(method, ()):
                measure = lambda: train_peer(options, file, method, rate, epochs)
                theirs[method, rate] = kept.measured(f"peer: {method} {rate}", measure)
    show(ours)
    if options.peer:
        print()
        show_peer(ours, theirs)


def cells(told):
    return f"{told['processor_seconds']:.0f}", f"{told['seconds']:.0f}", f"{told['peak_mib']:.0f}"


def show(ours):
    times = "processor seconds", "seconds", "peak memory, MiB"
    common.header("method", "learning rate", "epochs", "accuracy", "learned numbers", "file, KiB", *times)
    for method, told in ours.items():
        set_to = told["hyperparameters"]
        file = f"{told['parameters']:,}", f"{told['bytes'] / 1024:.0f}"
        rate, accuracy = f"{set_to['learning_rate']:g}", f"{told['accuracy']:.4f}"
        common.row(f"`{method}`", rate, set_to["epochs"], accuracy, *file, *cells(told))


def show_peer(ours, theirs):
    times = "processor seconds", "seconds", "peak memory, MiB"
    common.header("PEFT", "learning rate", "accuracy", "espalier's less the best", "learned numbers", *times)
    for (method, rate), told in theirs.items():
        best = max(other["accuracy"] for (of, _), other in theirs.items() if of == method)
        less = f"{100 * (ours[method]['accuracy'] - best):+.2f}" if told["accuracy"] == best else ""
        common.row(f"`{method}`", rate, f"{told['accuracy']:.4f}", less, f"{told['parameters']:,}", *cells(told))


if __name__ == "__main__":
    main()
