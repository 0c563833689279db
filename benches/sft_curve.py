"""The loss on held-out rows after each epoch, of espalier and of PyTorch + PEFT, from the same start in the same order.

    python3 benches/sft_curve.py --train FILE [--rows 96] [--held-out 24] [--epochs 3] [--flags FLAGS]

As sft.py, but that both sides begin with the same LoRA, which PEFT draws, and that the peer (sft_curve_peer.py) sees espalier's
examples in espalier's batches (order.py). Prints a table of the losses; nothing is timed.
"""

import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import common  # before decoder: it goes on under the Python of .venv
import decoder
import sft
from client import Client

SEED = 7


def peer(*arguments):
    done = subprocess.run(
        [sys.executable, "benches/sft_curve_peer.py", *map(str, arguments)], cwd=common.ROOT, stdout=subprocess.PIPE, text=True
    )
    return done.stdout if done.returncode == 0 else sys.exit(f"error: the peer ended with {done.returncode}")


def zipped(folder):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return packed.getvalue()


def curve(asked, start, files, settings):
    """Espalier's losses: before the first step, and after each epoch."""
    with decoder.server(asked) as server:
        client = Client(server.address)
        # What the peer calls its base is another name for the same weights.
        options = {"name": "start", "base": decoder.base_name(client)}
        client.post_file("/adapters", "options", options, "adapter", "start.zip", zipped(start))
        job = {"name": sft.NAME, "task": decoder.TASK, "method": decoder.METHOD, "from_adapter": "start", "columns": {}}
        job |= {"hyperparameters": settings, "validation": {"dataset_id": sft.upload(client, files["held-out"])}}
        id = client.start_job(job, files["train"])
        client.await_job(id, lambda view: view["adapter_id"], every=0.5)
        client.connection.request("GET", f"/jobs/{id}/events", headers={"accept": "application/json"})
        events = json.loads(client.connection.getresponse().read())["data"]
    rows = [event["data"] for event in events if event["kind"] == "metrics"]
    return [row["metrics"]["loss"] for row in rows if row["split"] == "validation"]


def main():
    parser = decoder.arguments(__doc__, 1)
    parser.add_argument("--train", required=True, help="JSONL with question and answer, or prompt and completion")
    parser.add_argument("--rows", type=int, default=96, help="to train on [96]")
    parser.add_argument("--held-out", type=int, default=24, help="rows behind them [24]")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    options.train = Path(options.train).resolve()
    decoder.fetch()
    pairs = decoder.pairs(options.train)[: options.rows + options.held_out]
    settings = sft.HYPERPARAMETERS | {"epochs": options.epochs, "seed": SEED}
    with tempfile.TemporaryDirectory(prefix="espalier-bench-") as folder:
        folder = Path(folder)
        files = {"train": sft.write(folder / "train.jsonl", pairs[: options.rows])}
        files["held-out"] = sft.write(folder / "held-out.jsonl", pairs[options.rows :])
        start = folder / "start"
        shape = json.dumps(settings | {"rank": decoder.METHOD["rank"], "alpha": decoder.METHOD["alpha"]})
        peer("draw", decoder.FOLDER, start, shape)
        ours = curve(options, start, files, settings)
        theirs = json.loads(peer("train", decoder.FOLDER, start, shape, files["train"], files["held-out"]).splitlines()[-1])
    common.header("after epoch", "espalier", "PyTorch + PEFT", "ratio")
    for epoch, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        common.row(epoch, f"{mine:.5f}", f"{other:.5f}", f"{mine / other:.5f}")


if __name__ == "__main__":
    main()
