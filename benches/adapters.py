"""Random LoRA adapters as PEFT writes them, each with a head of 77 labels, that PEFT and espalier both read.

PEFT loads one onto the bare encoder (FEATURE_EXTRACTION); the mean over the tokens and the head are left to its caller.
"""

import io
import json
import zipfile

from common import MODEL  # first: it goes on under the Python that has the packages below

import numpy
from safetensors.numpy import save

RANK, ALPHA, LABELS = 8, 16, 77
TARGETS = ["query", "value"]
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
HEAD = "base_model.model.classifier."
MAX_LENGTH = 128


def name(number):
    return f"random-{number:04}"


def files(number, labels=LABELS):
    """The two files of a PEFT folder by name; equal numbers give equal bytes."""
    base = json.loads((MODEL / "config.json").read_text())
    width, random = base["hidden_size"], numpy.random.default_rng(number)

    def normal(*shape, scale):
        return (random.standard_normal(shape) * scale).astype(numpy.float32)

    tensors = {HEAD + "weight": normal(labels, width, scale=0.3), HEAD + "bias": normal(labels, scale=0.1)}
    for layer in range(base["num_hidden_layers"]):
        for target in TARGETS:
            module = f"base_model.model.encoder.layer.{layer}.attention.self.{target}."
            tensors[module + "lora_A.weight"] = normal(RANK, width, scale=0.05)
            # Not zero, as it would be before any training: the adapter must have an effect.
            tensors[module + "lora_B.weight"] = normal(width, RANK, scale=0.05)
    config = {
        "base_model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2",
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": TARGETS,
        "task_type": "FEATURE_EXTRACTION",
    }
    return {CONFIG: json.dumps(config, indent=2).encode(), TENSORS: save(tensors, {"format": "pt"})}


def write(number, folder):
    folder.mkdir(parents=True)
    for file, content in files(number).items():
        (folder / file).write_bytes(content)


def upload(client, number, labels=LABELS):
    """Imports an adapter into espalier and returns the server's answer."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for file, content in files(number, labels).items():
            archive.writestr(file, content)
    options = {"name": name(number), "pooling": "mean", "max_length": MAX_LENGTH}
    return client.post_file("/adapters", "options", options, "adapter", "adapter.zip", zipped.getvalue())
