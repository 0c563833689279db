"""Trains an adapter of every method that PEFT has, by the real PEFT: `make_methods.py <model folder> <out folder> [--name BASE]`.

Writes for each a folder with `adapter.zip` (as save_pretrained leaves it), `expected.json` with the logits on INPUTS, and
`gradients.safetensors`: of the summed cross entropy over TEXTS by each tensor of the file, in evaluation mode, after the
training. What PEFT makes of a network in training (P-tuning's encoder, a projected prefix) has no gradient by a tensor of the
file, and no such file.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from common import classify, encode, inputs_of, load_tokenizer, texts_of, train, zip_folder
from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForSequenceClassification

LENGTH = 64
COMMON = {"task_type": "SEQ_CLS"}
# What the architectures call their modules.
BERT = {
    "query": "query",
    "value": "value",
    "wide": "intermediate.dense",
    "one": "layer.1.attention.self.query",
    "scaled": ["key", "value", "output.dense"],
    "narrow": ["output.dense"],
    "norms": ["LayerNorm"],
    "sizes": {},
}
DISTILBERT = {
    "query": "q_lin",
    "value": "v_lin",
    "wide": "ffn.lin1",
    "one": "layer.1.attention.q_lin",
    "scaled": ["k_lin", "v_lin", "lin2"],
    "narrow": ["lin2"],
    "norms": ["LayerNorm", "sa_layer_norm", "output_layer_norm"],
    # PEFT does not know this architecture's words for them.
    "sizes": {"token_dim": 32, "num_layers": 2, "num_attention_heads": 4},
}
GPT2 = {
    "query": "c_attn",
    "value": "attn.c_proj",
    "wide": "c_fc",
    "one": "h.1.attn.c_attn",
    "scaled": ["c_attn", "mlp.c_proj"],
    "narrow": ["mlp.c_proj"],
    "norms": ["ln_1", "ln_2", "ln_f"],
    "sizes": {},
}
LLAMA = {
    "query": "q_proj",
    "value": "v_proj",
    "wide": "up_proj",
    "one": "layers.1.self_attn.q_proj",
    "scaled": ["k_proj", "v_proj", "down_proj"],
    "narrow": ["down_proj"],
    "norms": ["input_layernorm", "post_attention_layernorm", "norm"],
    "sizes": {},
}
NAMES = {"distilbert": DISTILBERT, "gpt2": GPT2, "llama": LLAMA}
METHODS = {
    "lora-patterns": lambda names: LoraConfig(
        **COMMON,
        r=4,
        lora_alpha=8,
        use_dora=True,
        bias="lora_only",
        target_modules=[names["query"], names["value"], names["wide"]],
        rank_pattern={names["one"]: 2},
        alpha_pattern={names["value"]: 3},
    ),
    "ia3": lambda names: IA3Config(**COMMON, target_modules=names["scaled"], feedforward_modules=names["narrow"]),
    "layer-norm": lambda names: LNTuningConfig(**COMMON, target_modules=names["norms"]),
    "vera": lambda names: VeraConfig(
        **COMMON, r=8, target_modules=[names["query"], names["value"], names["wide"]], d_initial=0.3
    ),
    "prompt-tuning": lambda names: PromptTuningConfig(**COMMON, **names["sizes"], num_virtual_tokens=5),
    "p-tuning": lambda names: PromptEncoderConfig(
        **COMMON, **names["sizes"], num_virtual_tokens=4, encoder_hidden_size=16
    ),
    "prefix-tuning": lambda names: PrefixTuningConfig(**COMMON, num_virtual_tokens=6),
    "prefix-projected": lambda names: PrefixTuningConfig(
        **COMMON, num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=12
    ),
}
# transformers' DistilBERT and ESM-2 take no keys and values from before, and ESM-2 drops the embeddings of masked tokens by
# their ids, which embedded prompts have none of. Of embedded prompts transformers' decoders read the last row, padding or not.
WITHOUT = {
    "gpt2": ["prompt-tuning", "p-tuning"],
    "llama": ["prompt-tuning", "p-tuning"],
    "distilbert": ["prefix-tuning", "prefix-projected"],
    "esm": ["prompt-tuning", "p-tuning", "prefix-tuning", "prefix-projected"],
}
ENCODED = ["p-tuning", "prefix-projected"]


def gradients(model, tokenizer) -> dict[str, torch.Tensor]:
    """By the keys of the adapter's file."""
    texts = texts_of(model)
    batch = encode(tokenizer, [(text, None) for text, _ in texts], LENGTH)
    labels = torch.tensor([label for _, label in texts])
    model.eval()
    model.zero_grad()
    logits = model(**batch).logits
    torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    # The file's keys are found by saving the gradients in the parameters' place.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.copy_(parameter.grad)
            elif parameter.requires_grad:
                parameter.zero_()
        found = {key: value.clone() for key, value in get_peft_model_state_dict(model).items()}
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
    return found


def make(name: str, model_folder: Path, out: Path, base_name: str | None) -> None:
    torch.manual_seed(11)
    tokenizer = load_tokenizer(model_folder)
    base = AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=3)
    names = NAMES.get(base.config.model_type, BERT)
    model = get_peft_model(base, METHODS[name](names))
    train(model, tokenizer, 20, LENGTH)
    if base_name:
        model.peft_config["default"].base_model_name_or_path = base_name
    adapter = out / name / "adapter"
    shutil.rmtree(adapter, ignore_errors=True)
    model.save_pretrained(adapter)
    (adapter / "README.md").unlink()
    tidy(adapter / "adapter_config.json")
    zip_folder(adapter, out / name / "adapter.zip")
    shutil.rmtree(adapter)
    inputs = inputs_of(model)
    expected = {"max_length": LENGTH, "inputs": inputs, "logits": classify(model, tokenizer, inputs, LENGTH)}
    if name not in ENCODED:
        expected["texts"] = texts_of(model)
        save_file(gradients(model, tokenizer), out / name / "gradients.safetensors")
    (out / name / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def tidy(path: Path) -> None:
    """PEFT keeps some lists in sets, whose order differs from run to run."""
    config = json.loads(path.read_text())
    for field in ["target_modules", "feedforward_modules", "modules_to_save"]:
        if config.get(field):
            config[field] = sorted(set(config[field]))
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", help="base_model_name_or_path to write, instead of the folder's path")
    options = parser.parse_args()
    model_type = AutoConfig.from_pretrained(options.model).model_type
    for name in [name for name in METHODS if name not in WITHOUT.get(model_type, [])]:
        print(name, end=": ")
        make(name, options.model, options.out, options.name)


if __name__ == "__main__":
    main()
