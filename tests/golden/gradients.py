"""Gradients for crates/core/tests/engine/gradients.rs, by PyTorch: `gradients.py <tiny-bert folder> <out folder>`.

What a method trains but does not save: P-tuning's network and a prefix's projection, by the real PEFT, and all biases of the
base (BitFit), by transformers alone. Writes for each OUT_FOLDER/NAME.safetensors, which holds every trained tensor after a
short training as `value.OUR_NAME` and the gradient of the summed cross entropy by it, in evaluation mode, as
`gradient.OUR_NAME`; and `texts.json` with the texts and labels.
"""

import json
import re
import sys
from pathlib import Path

import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

sys.path.insert(0, str(Path(__file__).parent.parent / "peft"))
from common import TEXTS, encode, load_tokenizer, train  # noqa: E402

LENGTH = 64
SITES = {
    "attention.self.query": "query",
    "attention.self.value": "value",
    "attention.output.dense": "attention_output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed_forward_in",
    "output.dense": "feed_forward_out",
    "output.LayerNorm": "feed_forward_norm",
}


def p_tuning(base):
    config = PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=4, encoder_hidden_size=16)
    model = get_peft_model(base, config)
    encoder = model.prompt_encoder["default"]
    tensors = {"encoder.embedding": encoder.embedding.weight}
    for index in range(3):
        tensors[f"encoder.{index}.weight"] = encoder.mlp_head[2 * index].weight
        tensors[f"encoder.{index}.bias"] = encoder.mlp_head[2 * index].bias
    return model, tensors, lambda name, tensor: {name: tensor}


def prefix_projected(base):
    config = PrefixTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=12
    )
    model = get_peft_model(base, config)
    encoder = model.prompt_encoder["default"]
    tensors = {
        "encoder.embedding": encoder.embedding.weight,
        "encoder.0.weight": encoder.transform[0].weight,
        "encoder.0.bias": encoder.transform[0].bias,
        "weight": encoder.transform[2].weight,
        "bias": encoder.transform[2].bias,
    }

    def split(name, tensor):
        """The last layer holds keys and values of all layers, one after the other."""
        if name not in ["weight", "bias"]:
            return {name: tensor}
        parts = tensor.chunk(2 * model.config.num_hidden_layers)
        places = [f"layer.{index // 2}.prefix_{['key', 'value'][index % 2]}.{name}" for index in range(len(parts))]
        return {place: part.contiguous() for place, part in zip(places, parts, strict=True)}

    return model, tensors, split


def bias(base):
    base.requires_grad_(False)
    tensors = {}
    for path, parameter in base.bert.named_parameters():
        place = path.removesuffix(".bias")
        found = re.fullmatch(r"encoder\.layer\.(\d+)\.(.*)", place)
        if place == path:
            continue
        if place == "embeddings.LayerNorm":
            tensors["embedding_norm.bias"] = parameter
        elif place == "pooler.dense":
            tensors["pooler.bias"] = parameter
        elif found[2] in SITES:
            tensors[f"layer.{found[1]}.{SITES[found[2]]}.bias"] = parameter
    for parameter in [*tensors.values(), *base.classifier.parameters()]:
        parameter.requires_grad_(True)
    return base, tensors, lambda name, tensor: {name: tensor}


METHODS = {"p-tuning": p_tuning, "prefix-projected": prefix_projected, "bias": bias}


def classifier(model):
    """The head that is trained: PEFT keeps a copy of its own."""
    found = {name: parameter for name, parameter in model.named_parameters() if "classifier" in name and parameter.requires_grad}
    weight, bias = sorted(found.values(), key=lambda parameter: -parameter.dim())
    return {"head.weight": weight, "head.bias": bias}


def main(model_folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(model_folder)
    for name, build in METHODS.items():
        torch.manual_seed(13)
        base = AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=3)
        model, tensors, split = build(base)
        tensors.update(classifier(model))
        train(model, tokenizer, 20, LENGTH)
        model.eval()
        model.zero_grad()
        batch = encode(tokenizer, [(text, None) for text, _ in TEXTS], LENGTH)
        labels = torch.tensor([label for _, label in TEXTS])
        torch.nn.functional.cross_entropy(model(**batch).logits, labels, reduction="sum").backward()
        found = {}
        for tensor_name, tensor in tensors.items():
            values, gradients = split(tensor_name, tensor.detach()), split(tensor_name, tensor.grad)
            found.update({f"value.{key}": value for key, value in values.items()})
            found.update({f"gradient.{key}": gradient for key, gradient in gradients.items()})
        save_file({key: value.contiguous() for key, value in found.items()}, out / f"{name}.safetensors")
        (out / f"{name}.safetensors").chmod(0o644)
    (out / "texts.json").write_text(json.dumps(TEXTS, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
