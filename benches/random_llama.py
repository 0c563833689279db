"""Writes a Llama model of 1.17 billion random parameters (the shape of TinyLlama): a folder in bf16, and GGUF files in Q4_0, Q4_K_M and Q2_K.

    python3 benches/random_llama.py [--layers 22] [--out models]

It is for measurements of time and memory at a size for which there is no checkpoint here. All have the same weights, and the vocabulary and
tokenizer of SmolLM2-135M-Instruct. Q4_K_M has Q4_K, and Q6_K for the output projection and in every other layer for the maps of values and
`ffn_down`. Q2_K has Q2_K, Q6_K for the output projection, and Q3_K for the maps of values, `attn_output` and `ffn_down`. Files that exist are kept.
"""

import argparse
import json
import shutil
from pathlib import Path

import common  # before torch: starts again under the Python of .venv
import decoder
import gguf
import k_quants
import numpy as np
import torch
from gguf_adapter import NAMES, paired
from safetensors.torch import save_file

HIDDEN, INTERMEDIATE, HEADS, KEY_VALUE_HEADS, VOCABULARY = 2048, 5632, 32, 4, 49152
CONTEXT, EPSILON, ROPE_THETA = 2048, 1e-5, 10000.0
DEVIATION, LAYERS = 0.02, 22
HEAD = HIDDEN // HEADS
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEY_VALUE_HEADS * HEAD, HIDDEN),
    "self_attn.v_proj": (KEY_VALUE_HEADS * HEAD, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
KIND = gguf.GGMLQuantizationType
QUANTIZE = {
    KIND.Q4_0: lambda rows: gguf.quants.quantize(rows, KIND.Q4_0),
    KIND.Q2_K: k_quants.quantize_q2_k, KIND.Q3_K: k_quants.quantize_q3_k, KIND.Q4_K: k_quants.quantize_q4_k, KIND.Q6_K: k_quants.quantize_q6_k,
}  # fmt: skip
FILE_TYPES = {
    "Q4_0": gguf.LlamaFileType.MOSTLY_Q4_0, "Q4_K_M": gguf.LlamaFileType.MOSTLY_Q4_K_M, "Q2_K": gguf.LlamaFileType.MOSTLY_Q2_K,
}  # fmt: skip


def tensors(layers):
    """Name and weight of each tensor, the same in every run."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return (torch.randn(*shape, generator=generator) * DEVIATION).to(torch.bfloat16)

    yield "model.embed_tokens.weight", normal(VOCABULARY, HIDDEN)
    for layer in range(layers):
        for module, shape in SHAPES.items():
            yield f"model.layers.{layer}.{module}.weight", normal(*shape)
        for module in NORMS:
            yield f"model.layers.{layer}.{module}.weight", torch.ones(HIDDEN, dtype=torch.bfloat16)
    yield "model.norm.weight", torch.ones(HIDDEN, dtype=torch.bfloat16)
    yield "lm_head.weight", normal(VOCABULARY, HIDDEN)


def config(layers):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": KEY_VALUE_HEADS, "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": EPSILON, "rope_theta": ROPE_THETA, "hidden_act": "silu",
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip


def write_folder(folder, layers):
    folder.mkdir(parents=True)
    save_file(dict(tensors(layers)), folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(decoder.FOLDER / name, folder)
    # Last, because a folder with it counts as complete.
    (folder / "config.json").write_text(json.dumps(config(layers)))


def gguf_name(name):
    renamed = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    path = name.removesuffix(".weight")
    if path in renamed:
        return renamed[path], 0
    _, _, layer, module = path.split(".", 3)
    target = (NAMES | NORMS)[module]
    return f"blk.{layer}.{target}", {"attn_q": HEADS, "attn_k": KEY_VALUE_HEADS}.get(target, 0)


def copy_tokenizer(writer):
    """The tokenizer's fields of SmolLM2's file."""
    for field in gguf.GGUFReader(decoder.FILE).fields.values():
        if field.name.startswith("tokenizer."):
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, sub_type=field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)


def kind_of(file_type, name):
    """The format of a tensor in a file of this type."""
    if file_type == "Q4_0":
        return KIND.Q4_0
    _, _, rest = name.partition("blk.")
    layer, _, module = rest.partition(".")
    if file_type == "Q2_K":
        return KIND.Q6_K if name == "output" else KIND.Q3_K if module in ("attn_v", "attn_output", "ffn_down") else KIND.Q2_K
    is_precise = name == "output" or module in ("attn_v", "ffn_down") and int(layer) % 2 == 0
    return KIND.Q6_K if is_precise else KIND.Q4_K


def write_gguf(path, file_type, layers):
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    writer.add_name(path.stem)
    writer.add_block_count(layers)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(ROPE_THETA)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(VOCABULARY)
    writer.add_file_type(FILE_TYPES[file_type])
    copy_tokenizer(writer)
    for name, tensor in tensors(layers):
        renamed, heads = gguf_name(name)
        values = tensor.to(torch.float32).numpy()
        if values.ndim == 1:
            writer.add_tensor(f"{renamed}.weight", values)
            continue
        rows = np.ascontiguousarray(paired(values, heads)) if heads else values
        kind = kind_of(file_type, renamed)
        writer.add_tensor(f"{renamed}.weight", QUANTIZE[kind](rows), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(path)


def write(folder, layers=LAYERS):
    """The folder, and the GGUF files by their types, written where they do not exist."""
    decoder.fetch()
    name = "random-llama-1b" if layers == LAYERS else f"random-llama-{layers}-layers"
    made = folder / name
    files = {file_type: folder / f"{name}.{file_type}.gguf" for file_type in FILE_TYPES}
    if not (made / "config.json").is_file():
        shutil.rmtree(made, ignore_errors=True)
        write_folder(made, layers)
    for file_type, file in files.items():
        if not file.is_file():
            write_gguf(file, file_type, layers)
    return made, files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--out", type=Path, default=common.ROOT / "models")
    options = parser.parse_args()
    folder, files = write(options.out, options.layers)
    print(folder, *files.values(), sep="\n")


if __name__ == "__main__":
    main()
