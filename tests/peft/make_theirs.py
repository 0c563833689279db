"""Trains a LoRA with a classifier by the real PEFT: `make_theirs.py <model folder> <out folder>`.

Writes `adapter/` (as save_pretrained does), `adapter.zip`, `inputs.json` and `expected.json` with PEFT's logits on the
inputs. The training is short and seeded; it only has to leave every tensor different from its start.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from common import INPUTS, classify, train, zip_folder
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", help="base_model_name_or_path to write, instead of the folder's path")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--alpha", type=int, default=8)
    parser.add_argument("--rslora", action="store_true")
    parser.add_argument("--targets", default="query,value", help='names separated by commas, or "all-linear"')
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--max-length", type=int, default=64)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.manual_seed(7)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    base = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=3)
    targets = options.targets if options.targets == "all-linear" else options.targets.split(",")
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=0.1,
        use_rslora=options.rslora,
        target_modules=targets,
    )
    model = get_peft_model(base, config)
    train(model, tokenizer, options.steps, options.max_length)
    if options.name:
        model.peft_config["default"].base_model_name_or_path = options.name

    adapter = options.out / "adapter"
    shutil.rmtree(adapter, ignore_errors=True)
    model.save_pretrained(adapter)
    sort_targets(adapter / "adapter_config.json")
    (adapter / "README.md").unlink()
    for path in adapter.iterdir():
        path.chmod(0o644)
    zip_folder(adapter, options.out / "adapter.zip")
    inputs = [{"text": text} if pair is None else {"text": text, "text_pair": pair} for text, pair in INPUTS]
    (options.out / "inputs.json").write_text(json.dumps(inputs, indent=1) + "\n")
    logits = classify(model, tokenizer, INPUTS, options.max_length)
    expected = {"max_length": options.max_length, "logits": logits}
    (options.out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def sort_targets(path: Path) -> None:
    """PEFT keeps them in a set, whose order differs from run to run."""
    config = json.loads(path.read_text())
    config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
