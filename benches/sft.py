"""Fine-tuning a decoder on prompts and completions: espalier against PyTorch + PEFT (sft_peer.py). Prints a table.

    python3 benches/sft.py --train FILE [--rows 1000] [--held-out 100] [--rounds 3] [--threads 1,2] [--flags FLAGS]

FILE is a JSONL with question and answer, such as GSM8K's, or with prompt and completion; the first rows train, those
behind them are held out. Both sides: SmolLM2-135M-Instruct from the same GGUF file, in f32; LoRA of rank 16 and alpha 32 on
all linear maps of the layers, 1 epoch, batches of 8, 512 tokens at most, a learning rate of 2e-4 that rises for 6 % of the
steps and falls to 0, weight decay 0.01, gradients cut to norm 1; learned are the completions and the end behind them, of
the same tokens. Espalier's batches are random; the peer's are of like length, since it pads. The peer has the thread count
that is faster on a few rows.

Seconds: of espalier from POST to the adapter, of the peer of tokenising, training and judging the held-out rows, without
the loading of anything; both judge the same rows once. Tokens are the learned ones. Each round starts new processes, whose
peak memory is told.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import common  # before decoder: it goes on under the Python of .venv
import decoder
from client import Client

MIB = 1024 * 1024
NAME, LENGTH, PROBED = "sft", 512, 48
HYPERPARAMETERS = {
    "epochs": 1,
    "batch_size": 8,
    "max_length": LENGTH,
    "learning_rate": 2e-4,
    "schedule": "linear",
    "warmup_ratio": 0.06,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
}


def train(options, files):
    with decoder.server(options) as server:
        client = Client(server.address)
        start, job = time.perf_counter(), {"name": NAME, "task": decoder.TASK, "method": decoder.METHOD}
        held_out = upload(client, files["held-out"])
        job |= {"hyperparameters": HYPERPARAMETERS, "validation": {"dataset_id": held_out}, "columns": {}}
        view = client.await_job(client.start_job(job, files["train"]), lambda view: view["adapter_id"], every=0.2)
        seconds, loss = time.perf_counter() - start, view["metrics"]["validation"]["loss"]
        return {"seconds": seconds, "loss": loss, "peak_mib": server.memory()["VmHWM"] / MIB}


def upload(client, file):
    return client.post_file("/datasets", "options", {"task": decoder.TASK}, "dataset", file.name, file.read_bytes())["id"]


def train_peer(files, threads):
    settings = json.dumps(HYPERPARAMETERS | {"rank": decoder.METHOD["rank"], "alpha": decoder.METHOD["alpha"]})
    command = [sys.executable, "benches/sft_peer.py", decoder.FOLDER, files["train"], files["held-out"]]
    return common.run(*command, str(threads), settings)


def fastest(files, choices):
    """The thread count with which the peer trains on a few rows in the least time."""
    if len(choices) == 1:
        return choices[0]
    seconds = {threads: train_peer(files, threads)["seconds"] for threads in choices}
    common.note(f"the peer by threads, {PROBED} rows: {seconds} s")
    return min(seconds, key=seconds.get)


def write(path, pairs):
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


def show(ours, theirs, threads):
    common.header("", "espalier", f"PyTorch + PEFT, {threads} threads", "ratio", "rounds")
    figures = [
        ("learned tokens/s", 1, lambda one: one["tokens"] / one["seconds"]),
        ("seconds", 1, lambda one: one["seconds"]),
        ("peak memory, MiB", 0, lambda one: one["peak_mib"]),
        ("loss on the held-out rows", 4, lambda one: one["loss"]),
    ]
    for name, digits, figure in figures:
        mine, other = ([figure(one) for one in side] for side in (ours, theirs))
        ratio = common.spread(one / another for one, another in zip(mine, other, strict=True))
        common.row(name, common.middle(mine, digits), common.middle(other, digits), ratio, len(mine))


def main():
    parser = decoder.arguments(__doc__, 3)
    parser.add_argument("--train", required=True, help="JSONL with question and answer, or prompt and completion")
    parser.add_argument("--rows", type=int, default=1000, help="to train on [1000]")
    parser.add_argument("--held-out", type=int, default=100, help="rows behind them [100]")
    parser.add_argument("--threads", type=lambda text: text.split(","), default=["1", "2"], help="the peer's [1,2]")
    options = parser.parse_args()
    options.train = Path(options.train).resolve()
    decoder.fetch()
    pairs = decoder.pairs(options.train)[: options.rows + options.held_out]
    if len(pairs) < options.rows + options.held_out:
        sys.exit(f"error: {options.train} has {len(pairs)} rows: give fewer --rows")
    with tempfile.TemporaryDirectory(prefix="espalier-bench-") as folder:
        folder = Path(folder)
        files = {"train": write(folder / "train.jsonl", pairs[: options.rows])}
        files["held-out"] = write(folder / "held-out.jsonl", pairs[options.rows :])
        few = {"train": write(folder / "few.jsonl", pairs[:PROBED]), "held-out": write(folder / "one.jsonl", pairs[:1])}
        threads = fastest(few, options.threads)
        ours, theirs = [], []
        for number in range(options.rounds):
            one, other = train(options, files), train_peer(files, threads)
            ours.append(one | {"tokens": other["tokens"]})
            theirs.append(other)
            common.note(f"round {number + 1}: espalier: {one}; the peer: {other}")
    show(ours, theirs, threads)


if __name__ == "__main__":
    main()
