"""Makes broken variants of a PEFT adapter as zips: `damage.py <adapter folder> <out folder>`.

Writes `<name>.zip` for each and `expected.json`: the code of the refusal it must meet and words that its detail must hold.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from common import zip_folder
from safetensors.torch import load_file, save_file

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query."
HEAD = "base_model.model.classifier."


def edit_config(folder: Path, **fields) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}, indent=2, sort_keys=True) + "\n")


def edit_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / TENSORS)
    change(tensors)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / TENSORS, {"format": "pt"})


def cut(folder: Path, keep: float) -> None:
    path = folder / TENSORS
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])


def pickle(folder: Path) -> None:
    torch.save(load_file(folder / TENSORS), folder / "adapter_model.bin")
    (folder / TENSORS).unlink()


def no_effect(tensors: dict) -> None:
    for key in tensors:
        if "lora_B" in key:
            tensors[key] = torch.zeros_like(tensors[key])


def not_a_number(tensors: dict) -> None:
    tensors[QUERY + "lora_A.weight"][0, 0] = float("nan")


# name: (what is done to the folder, code, words)
VARIANTS = {
    "missing-tensor": (
        lambda folder: edit_tensors(folder, lambda tensors: tensors.pop(QUERY + "lora_B.weight")),
        "adapter_tensors",
        QUERY + "lora_B.weight is missing",
    ),
    "missing-head": (
        lambda folder: edit_tensors(folder, lambda tensors: tensors.pop(HEAD + "weight")),
        "adapter_tensors",
        HEAD + "weight is missing",
    ),
    "extra-tensor": (
        lambda folder: edit_tensors(folder, lambda tensors: tensors.update({"prompt_embeddings": torch.ones(2, 2)})),
        "adapter_tensors",
        "prompt_embeddings is not a tensor of the method lora",
    ),
    "other-layer": (
        lambda folder: edit_tensors(
            folder,
            lambda tensors: tensors.update({(QUERY + "lora_A.weight").replace("layer.0", "layer.99"): torch.ones(2, 2)}),
        ),
        "adapter_tensors",
        "a module that this base does not have",
    ),
    "wrong-shape": (
        lambda folder: edit_tensors(
            folder, lambda tensors: tensors.update({QUERY + "lora_A.weight": tensors[QUERY + "lora_A.weight"][:, 1:]})
        ),
        "adapter_tensors",
        QUERY + "lora_A.weight has the shape",
    ),
    "integers": (
        lambda folder: edit_tensors(
            folder, lambda tensors: tensors.update({HEAD + "bias": tensors[HEAD + "bias"].to(torch.int64)})
        ),
        "adapter_tensors",
        HEAD + "bias is stored as I64",
    ),
    "not-a-number": (
        lambda folder: edit_tensors(folder, not_a_number),
        "adapter_tensors",
        QUERY + "lora_A.weight holds values that are not finite",
    ),
    "cut-off": (lambda folder: cut(folder, 0.9), "unreadable_adapter", "was the upload cut off?"),
    "cut-in-header": (lambda folder: cut(folder, 0.02), "unreadable_adapter", "ends inside its header"),
    "pickle": (pickle, "unsupported_adapter", "safe_serialization=True"),
    "no-tensors": (lambda folder: (folder / TENSORS).unlink(), "unreadable_adapter", "it holds no " + TENSORS),
    "no-config": (lambda folder: (folder / CONFIG).unlink(), "unreadable_adapter", "it holds no " + CONFIG),
    "other-base": (
        lambda folder: edit_config(folder, base_model_name_or_path="bert-base-uncased"),
        "other_base",
        "bert-base-uncased",
    ),
    "unnamed-base": (
        lambda folder: edit_config(folder, base_model_name_or_path=None),
        "other_base",
        "names no base model",
    ),
    "dora": (lambda folder: edit_config(folder, use_dora=True), "adapter_tensors", "lora_magnitude_vector is missing"),
    "bias": (lambda folder: edit_config(folder, bias="lora_only"), "adapter_tensors", "base_layer.bias is missing"),
    "ia3": (lambda folder: edit_config(folder, peft_type="IA3"), "unsupported_adapter", "lora_alpha is set and not known here"),
    "ranks": (lambda folder: edit_config(folder, rank_pattern={"query": 2}), "adapter_tensors", "expected [2, "),
    "pissa": (lambda folder: edit_config(folder, init_lora_weights="pissa"), "unsupported_adapter", "pissa"),
    "token-task": (lambda folder: edit_config(folder, task_type="TOKEN_CLS"), "unsupported_adapter", "TOKEN_CLS"),
    "other-rank": (lambda folder: edit_config(folder, r=2), "adapter_tensors", "expected [2, "),
    "other-targets": (
        lambda folder: edit_config(folder, target_modules=["key", "value"]),
        "adapter_tensors",
        "attention.self.key.lora_A.weight is missing",
    ),
    "no-effect": (lambda folder: edit_tensors(folder, no_effect), "adapter_without_effect", "changes nothing"),
}


def main(adapter: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    expected = {}
    for name, (damage, code, words) in VARIANTS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "adapter"
            shutil.copytree(adapter, folder)
            damage(folder)
            zip_folder(folder, out / f"{name}.zip")
        expected[name] = {"code": code, "words": words}
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
