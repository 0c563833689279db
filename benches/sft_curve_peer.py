"""PyTorch + PEFT's side of sft_curve.py.

    sft_curve_peer.py draw FOLDER ADAPTER SETTINGS_JSON
    sft_curve_peer.py train FOLDER ADAPTER SETTINGS_JSON TRAIN_JSONL HELD_OUT_JSONL

draw   writes a fresh LoRA, whose B is small and not 0, so that the start is no bare base.
train  goes on from it in espalier's order, and prints the losses on the held-out rows, before the first step and after each
       epoch, as one JSON line.
"""

import json
import math
import sys

import order
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from sft_peer import LINEAR, judge, read, updating
from transformers import AutoModelForCausalLM, AutoTokenizer


def draw(base, adapter, settings):
    lora = {"r": settings["rank"], "lora_alpha": settings["alpha"], "lora_dropout": 0.0, "target_modules": LINEAR}
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **lora))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1e-3)
    model.save_pretrained(adapter)


def train(base, folder, adapter, settings, files):
    model, tokenizer = PeftModel.from_pretrained(base, adapter, is_trainable=True), AutoTokenizer.from_pretrained(folder)
    sequences, judged = (read(file, tokenizer, settings["max_length"]) for file in files)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings["learning_rate"], weight_decay=settings["weight_decay"])
    epochs = list(order.batches(len(sequences), settings["epochs"], settings["batch_size"], settings["seed"]))
    update = updating(model, optimizer, sequences, settings["max_grad_norm"])
    total = sum(map(len, epochs))
    rise = math.ceil(settings["warmup_ratio"] * total)
    share = lambda done: done / rise if done < rise else (total - done) / max(total - rise, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    losses = [judge(model, judged, settings["batch_size"])]
    for batches in epochs:
        model.train()
        for indices in batches:
            update(indices)
            schedule.step()
        losses.append(judge(model, judged, settings["batch_size"]))
    return losses


def main():
    what, folder, adapter, settings, *files = sys.argv[1:]
    torch.manual_seed(1)
    settings, base = json.loads(settings), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if what == "draw":
        draw(base, adapter, settings)
    else:
        print(json.dumps(train(base, folder, adapter, settings, files)))


if __name__ == "__main__":
    main()
