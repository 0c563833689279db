"""Compares a running server with the real `adapters` package: `compare.py <server> <model folder> <dataset.csv> <work folder>`.

Both ways, over HTTP alone: bottlenecks that the server trains are downloaded in AdapterHub's form and opened by `adapters`, and
what `make.py` trains is uploaded. Each time the logits of both sides are compared; fails where they differ by more than 1e-4.
"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import torch
from adapters import AutoAdapterModel

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "peft"))
from common import classify, load_tokenizer  # noqa: E402
from compare import INPUTS, TOLERANCE, Server, all_here, difference  # noqa: E402

MAX_LENGTH = 64
# Placement, pooling, and the head.
CASES = {
    "houlsby": ("houlsby", "first", {"type": "linear"}),
    "pfeiffer": ("pfeiffer", "cls", {"type": "linear"}),
    "parallel": ("parallel", "first", {"type": "dense", "activation": "tanh"}),
}


@torch.no_grad()
def there(model_folder: str, adapter: Path) -> list[list[float]]:
    model = AutoAdapterModel.from_pretrained(model_folder)
    name = model.load_adapter(str(adapter), use_safetensors=True)
    model.set_active_adapters(name)
    assert model.active_head == name, "the head came with it"
    inputs = [(item, None) if isinstance(item, str) else (item["text"], item["text_pair"]) for item in INPUTS]
    return classify(model, load_tokenizer(Path(model_folder)), inputs, MAX_LENGTH)


def ours_there(server: Server, model: str, dataset: Path, work: Path, name: str) -> float:
    placement, pooling, head = CASES[name]
    job = {
        "name": f"hub-{name}",
        "task": {"type": "sequence_classification", "pooling": pooling, "head": head},
        "method": {"type": "bottleneck", "placement": placement},
        "hyperparameters": {"epochs": 1, "max_length": MAX_LENGTH},
        "columns": {"label": "category"},
    }
    job = server.train(dataset, job)
    archive = work / f"hub-{name}.zip"
    archive.write_bytes(server.call(f"/adapters/{job['adapter_id']}/download?format=adapterhub"))
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(work / f"hub-{name}")
    return difference(server.logits(job["adapter_id"], INPUTS), there(model, work / f"hub-{name}"))


def theirs(server: Server, model: str, work: Path):
    """Names and differences."""
    name = json.loads(server.call("/base"))["name"]
    subprocess.run([sys.executable, HERE / "make.py", model, work / "theirs", "--name", name], check=True)
    yield from all_here(server, work / "theirs")


def main(address: str, model: str, dataset: Path, work: Path) -> None:
    server = Server(address)
    worst = 0.0
    for name in CASES:
        found = ours_there(server, model, dataset, work, name)
        print(f"{name}, trained here, opened by adapters: largest difference of a logit {found:.1e}", flush=True)
        worst = max(worst, found)
    for name, found in theirs(server, model, work):
        print(f"{name}, trained by adapters, served here: largest difference of a logit {found:.1e}", flush=True)
        worst = max(worst, found)
    if worst > TOLERANCE:
        sys.exit(f"error: more than {TOLERANCE:.0e}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
