"""Compares a running server with the real PEFT: `compare.py <server> <model folder> <dataset.csv> <work folder>`.

Both ways, over HTTP alone, for every method that PEFT has. Ours: an adapter with a `cls` head is trained by the server,
downloaded, and opened by PEFT (`open_ours.py`). Theirs: what PEFT trains (`make_methods.py`) is uploaded.
Each time the logits of both sides are compared; fails where they differ by more than 1e-4.
"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

from server import Server

HERE = Path(__file__).parent
TOLERANCE = 1e-4
INPUTS = [
    "I am still waiting for my card to arrive",
    "why was I charged a fee",
    "Ich möchte mein Geld zurück 💶",
    {"text": "a transfer was declined", "text_pair": "and the money is gone all the same"},
    "please " * 200 + "help",
]


def script(name: str, *arguments) -> str:
    command = [sys.executable, HERE / name, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def difference(one: list[list[float]], other: list[list[float]]) -> float:
    pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
    return max(abs(a - b) for a, b in pairs)


METHODS = {
    "lora": {"type": "lora", "rank": 8, "target_modules": "all-linear"},
    "dora": {"type": "lora", "dora": True, "bias": "lora_only", "rank_pattern": {"value": 4}},
    "ia3": {"type": "ia3"},
    "layer_norm": {"type": "layer_norm"},
    "vera": {"type": "vera"},
    "prompt_tuning": {"type": "prompt_tuning"},
    "p_tuning": {"type": "p_tuning"},
    "prefix_tuning": {"type": "prefix_tuning"},
    "prefix_projected": {"type": "prefix_tuning", "projection_hidden_size": 64},
}

# transformers' DistilBERT takes no keys and values from before.
WITHOUT_PREFIX = ["distilbert"]


def ours_there(server: Server, model: str, dataset: Path, work: Path, name: str) -> float:
    job = {
        "name": f"ours-{name}".replace("_", "-"),
        "task": {"type": "sequence_classification", "pooling": "cls"},
        "method": METHODS[name],
        "hyperparameters": {"epochs": 1, "max_length": 64},
        "columns": {"label": "category"},
    }
    job = server.train(dataset, job)
    adapter = work / f"ours-{name}"
    archive = work / f"ours-{name}.zip"
    archive.write_bytes(server.call(f"/adapters/{job['adapter_id']}/download"))
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(adapter)
    inputs = work / "inputs-ours.json"
    inputs.write_text(json.dumps(INPUTS))
    there = json.loads(script("open_ours.py", model, adapter, inputs))["logits"]
    return difference(server.logits(job["adapter_id"], INPUTS), there)


def theirs_here(server: Server, name: str, archive: Path, expected: dict, inputs: list) -> float:
    options = {"name": name, "max_length": expected["max_length"]}
    server.post_file("/adapters", "options", options, "adapter", archive)
    cases = zip(inputs, expected["logits"], strict=True)
    # The server refuses an input without text.
    inputs, logits = zip(*[case for case in cases if case[0]["text"]])
    return difference(server.logits(name, list(inputs)), list(logits))


def all_here(server: Server, made: Path):
    """Names and differences of all the adapters that a script has made in a folder."""
    for folder in sorted(made.iterdir()):
        expected = json.loads((folder / "expected.json").read_text())
        inputs = [{"text": text} if pair is None else {"text": text, "text_pair": pair} for text, pair in expected["inputs"]]
        yield folder.name, theirs_here(server, f"theirs-{folder.name}", folder / "adapter.zip", expected, inputs)


def theirs(server: Server, model: str, work: Path):
    """Names and differences."""
    name = ["--name", json.loads(server.call("/base"))["name"]]
    script("make_methods.py", model, work / "methods", *name)
    yield from all_here(server, work / "methods")


def main(address: str, model: str, dataset: Path, work: Path) -> None:
    server = Server(address)
    worst = 0.0
    model_type = json.loads(server.call("/base"))["model_type"]
    for name in METHODS:
        if model_type in WITHOUT_PREFIX and name.startswith("prefix"):
            continue
        found = ours_there(server, model, dataset, work, name)
        print(f"{model_type}: {name}, trained here, opened by PEFT: largest difference of a logit {found:.1e}", flush=True)
        worst = max(worst, found)
    for name, found in theirs(server, model, work):
        print(f"{model_type}: {name}, trained by PEFT, served here: largest difference of a logit {found:.1e}", flush=True)
        worst = max(worst, found)
    if worst > TOLERANCE:
        sys.exit(f"error: more than {TOLERANCE:.0e}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
