"""Golden numbers for crates/core/tests/engine/golden.rs: logits, loss and every gradient of LoRA and a head, by PyTorch and PEFT.

    make.py MODEL_FOLDER OUT_FOLDER

Writes OUT_FOLDER/{mean,cls}.safetensors (parameters as `value.NAME`, gradients as `gradient.NAME` by espalier's names,
`logits`) and OUT_FOLDER/cases.json. A fresh LoRA's B is zero, which would hide half of the arithmetic, so B is drawn.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

TEXTS = [
    "Where is my card?",
    "hi",
    "I ordered a new card over a week ago, and it still has not arrived. Can you tell me where it is?",
    "Why was I charged a fee for a transfer to my own account",
    "hello there",
    "My top up is pending: what can I do about it?",
]
LABELS = [0, 1, 2, 1, 0, 2]
MODULES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention_output",
    "intermediate.dense": "feed_forward_in",
    "output.dense": "feed_forward_out",
}


def our_name(name):
    """base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.default.weight → layer.0.query.lora_A"""
    if ".classifier." in name:
        return "head." + name.rsplit(".", 1)[1]
    which = "lora_A" if ".lora_A." in name else "lora_B"
    path = name.split(f".{which}.")[0]
    if path.endswith("pooler.dense"):
        return f"pooler.{which}"
    layer, module = path.split("encoder.layer.")[1].split(".", 1)
    return f"layer.{layer}.{MODULES[module]}.{which}"


def mean_pooled(model, inputs):
    bert, head = model.base_model.model.bert, model.base_model.model.classifier
    hidden = bert(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).float()
    return head((hidden * mask).sum(1) / mask.sum(1))


def case(folder, pooling, out):
    torch.manual_seed(7)
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    targets = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
    if pooling == "cls":
        targets.append("pooler.dense")
    config = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=6, target_modules=targets, modules_to_save=["classifier"])
    model = get_peft_model(base, config).eval()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    for name, value in trained.items():
        if ".lora_B." in name or ".classifier." in name:
            torch.nn.init.normal_(value, std=0.1)
    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, truncation=True, max_length=64, return_tensors="pt")
    logits = model(**inputs).logits if pooling == "cls" else mean_pooled(model, inputs)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))
    loss.backward()
    tensors = {"logits": logits.detach()}
    for name, value in trained.items():
        tensors[f"value.{our_name(name)}"] = value.detach().contiguous()
        tensors[f"gradient.{our_name(name)}"] = value.grad.contiguous()
    save_file(tensors, out / f"{pooling}.safetensors")
    lengths = inputs["attention_mask"].sum(1).tolist()
    return {"pooling": pooling, "loss": loss.item(), "ids": [row[:n] for row, n in zip(inputs["input_ids"].tolist(), lengths)]}


def main():
    folder, out = sys.argv[1], Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    cases = [case(folder, pooling, out) for pooling in ("mean", "cls")]
    (out / "cases.json").write_text(json.dumps({"texts": TEXTS, "labels": LABELS, "cases": cases}, indent=1))


main()
