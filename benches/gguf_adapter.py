"""A LoRA adapter in PEFT's form, written as llama.cpp reads one, for a base of llama's architecture.

The order of a head's rows is llama.cpp's: pairs that turn together stand beside each other there, and half a head apart
in PyTorch, so the rows of the queries' and of the keys' B are moved.
"""

import json
import re

import gguf
from safetensors.numpy import load_file

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TENSOR = re.compile(r".*\blayers\.(\d+)\.(\w+\.\w+)\.lora_([AB])\.weight")


def paired(rows, heads):
    """From halves to neighbours, head by head."""
    return rows.reshape(heads, 2, len(rows) // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def write(folder, base, path):
    """`folder` is the adapter's, `base` the base's config.json."""
    config, settings = json.loads((folder / "adapter_config.json").read_text()), json.loads(base.read_text())
    heads = {"attn_q": settings["num_attention_heads"], "attn_k": settings["num_key_value_heads"]}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(config["lora_alpha"]))
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        layer, module, which = TENSOR.fullmatch(name).groups()
        site = NAMES[module]
        if which == "B" and site in heads:
            tensor = paired(tensor, heads[site])
        writer.add_tensor(f"blk.{layer}.{site}.weight.lora_{which.lower()}", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
