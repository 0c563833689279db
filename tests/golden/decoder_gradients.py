"""Gradients on decoders for crates/core/tests/engine/gradients.rs, by the real PEFT: `decoder_gradients.py ARCHITECTURES_FOLDER OUT_FOLDER`.

LoRA on all linear maps and IA3 on the small Llama, Qwen 2 and Qwen 3 that architectures.py made, whose heads of queries share keys
and values, with a linear head on the last token. Writes for each OUT_FOLDER/MODEL-METHOD.safetensors, which holds every trained
tensor as `value.OUR_NAME` and the gradient of the summed cross entropy by it as `gradient.OUR_NAME`.
"""

import re
import sys
from pathlib import Path

import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModel

sys.path.insert(0, str(Path(__file__).parent.parent / "peft"))
from common import TEXTS  # noqa: E402

MODELS = ("llama", "qwen2", "qwen3")
SITES = {
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.o_proj": "attention_output",
    "mlp.gate_proj": "feed_forward_gate",
    "mlp.up_proj": "feed_forward_in",
    "mlp.down_proj": "feed_forward_out",
}
METHODS = {
    "lora": LoraConfig(r=4, lora_alpha=8, target_modules=[site.split(".")[1] for site in SITES]),
    "ia3": IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
}
PARTS = {"lora_A.default.weight": "lora_A", "lora_B.default.weight": "lora_B", "ia3_l.default": "ia3"}


def ours(name):
    layer, site, part = re.fullmatch(r"base_model\.model\.layers\.(\d+)\.(\w+\.\w+)\.(.*)", name).groups()
    return f"layer.{layer}.{SITES[site]}.{PARTS[part]}"


def main(architectures, out):
    out.mkdir(parents=True, exist_ok=True)
    for model_type in MODELS:
        tokenizer = Tokenizer.from_file(str(architectures / model_type / "tokenizer.json"))
        for method, config in METHODS.items():
            torch.manual_seed(17)
            base = AutoModel.from_pretrained(architectures / model_type, attn_implementation="eager")
            model = get_peft_model(base, config).eval()
            tensors = {ours(name): tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
            width = model.config.hidden_size
            weight, bias = torch.randn(3, width) * 0.2, torch.randn(3) * 0.2
            tensors |= {"head.weight": weight.requires_grad_(), "head.bias": bias.requires_grad_()}
            with torch.no_grad():
                for tensor in tensors.values():
                    tensor += torch.randn(tensor.shape) * 0.1
            loss = torch.zeros(())
            for text, label in TEXTS:
                ids = torch.tensor([tokenizer.encode(text).ids])
                last = model(input_ids=ids).last_hidden_state[0, -1]
                logits = torch.nn.functional.linear(last, weight, bias)
                loss = loss + torch.nn.functional.cross_entropy(logits, torch.tensor(label))
            loss.backward()
            # A scale is a column or a row in PEFT, and a vector here.
            plain = lambda name, tensor: tensor.flatten() if name.endswith(".ia3") else tensor
            found = {f"value.{name}": plain(name, tensor.detach()) for name, tensor in tensors.items()}
            found |= {f"gradient.{name}": plain(name, tensor.grad) for name, tensor in tensors.items()}
            path = out / f"{model_type}-{method}.safetensors"
            save_file({name: tensor.contiguous() for name, tensor in found.items()}, path)
            path.chmod(0o644)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
