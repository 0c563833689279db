"""Trains bottleneck adapters by the real `adapters` package: `make.py <model folder> <out folder>`.

Writes for each a folder with `adapter.zip` (as save_adapter leaves it with safetensors), `expected.json` with the logits on
INPUTS, and `gradients.safetensors`: of the summed cross entropy over TEXTS by each tensor of the two files, in evaluation
mode, after the training.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch
from adapters import AutoAdapterModel, DoubleSeqBnConfig, ParBnConfig, SeqBnConfig
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent.parent / "peft"))
from common import INPUTS, TEXTS, classify, encode, load_tokenizer, train, zip_folder  # noqa: E402

LENGTH = 64
LABELS = {0: "card", 1: "refund", 2: "top-up"}
# The bottleneck, and the head.
CASES = {
    "houlsby": (DoubleSeqBnConfig(reduction_factor=4), {}),
    "pfeiffer": (SeqBnConfig(reduction_factor=5, non_linearity="gelu"), {"layers": 1, "id2label": LABELS}),
    "parallel": (ParBnConfig(), {"layers": 1, "use_pooler": True}),
    "upper": (
        SeqBnConfig(leave_out=[0], scaling=0.5, reduction_factor=4, non_linearity="tanh"),
        {"activation_function": "relu", "use_pooler": True, "id2label": LABELS},
    ),
}


def save(model, name: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save_adapter(folder, name, with_head=True, use_safetensors=True)


def gradients(model, tokenizer, name: str, folder: Path) -> dict[str, torch.Tensor]:
    """By the keys of the two files: these are found by saving the gradients in the parameters' place."""
    batch = encode(tokenizer, [(text, None) for text, _ in TEXTS], LENGTH)
    labels = torch.tensor([label for _, label in TEXTS])
    model.eval()
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(**batch).logits, labels, reduction="sum").backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.copy_(parameter.grad)
    save(model, name, folder)
    return {**load_file(folder / "adapter.safetensors"), **load_file(folder / "model_head.safetensors")}


def make(name: str, model_folder: Path, out: Path, base_name: str | None) -> None:
    torch.manual_seed(11)
    tokenizer = load_tokenizer(model_folder)
    model = AutoAdapterModel.from_pretrained(model_folder)
    config, head = CASES[name]
    model.add_adapter(name, config=config)
    model.add_classification_head(name, num_labels=3, **head)
    model.train_adapter(name)
    train(model, tokenizer, 20, LENGTH)
    if base_name:
        model.config._name_or_path = base_name
    adapter = out / name / "adapter"
    save(model, name, adapter)
    for path in adapter.iterdir():
        path.chmod(0o644)
    zip_folder(adapter, out / name / "adapter.zip")
    expected = {"max_length": LENGTH, "inputs": INPUTS, "texts": TEXTS}
    expected["logits"] = classify(model, tokenizer, INPUTS, LENGTH)
    gradient_file = out / name / "gradients.safetensors"
    save_file(gradients(model, tokenizer, name, adapter), gradient_file)
    gradient_file.chmod(0o644)
    shutil.rmtree(adapter)
    (out / name / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", nargs="+", default=list(CASES), help="of these alone")
    parser.add_argument("--name", help="model_name to write, instead of the folder's path")
    options = parser.parse_args()
    for name in options.cases:
        print(name, end=": ")
        make(name, options.model, options.out, options.name)


if __name__ == "__main__":
    main()
