"""Opens a folder of ours with the real PEFT: `open_ours.py <model folder> <adapter folder> <inputs.json>`.

Prints `{"logits": [[…], …]}`. A `SEQ_CLS` adapter opens on transformers' classification model, adapter and head
together. A `FEATURE_EXTRACTION` one (mean pooling) opens on the encoder; the mean and the head, which PEFT cannot hold,
are applied here from the same file. Fails where PEFT warns of a missing or unexpected tensor.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from common import classify, encode, load_tokenizer, read_inputs
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

HEAD = "base_model.model.classifier."


@torch.no_grad()
def classify_by_mean(model, tokenizer, inputs, max_length: int, tensors) -> list[list[float]]:
    batch = encode(tokenizer, inputs, max_length)
    states = model.eval()(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).float()
    pooled = (states * mask).sum(1) / mask.sum(1)
    return (pooled @ tensors[HEAD + "weight"].T + tensors[HEAD + "bias"]).tolist()


def main(model_folder: str, adapter: Path, inputs_file: Path) -> None:
    warnings.filterwarnings("error", message=".*missing adapter keys.*")
    config = json.loads((adapter / "adapter_config.json").read_text())
    card = json.loads((adapter / "espalier.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    tokenizer = load_tokenizer(Path(model_folder))
    inputs = read_inputs(inputs_file)
    if config["task_type"] == "SEQ_CLS":
        base = AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=len(card["labels"]))
        model = PeftModel.from_pretrained(base, adapter)
        logits = classify(model, tokenizer, inputs, card["max_length"])
    else:
        model = PeftModel.from_pretrained(AutoModel.from_pretrained(model_folder), adapter)
        logits = classify_by_mean(model, tokenizer, inputs, card["max_length"], tensors)
    print(json.dumps({"logits": logits}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
