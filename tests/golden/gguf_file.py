"""A small Llama in a GGUF file, and golden numbers for crates/core/tests/engine/gguf.rs, by transformers on what the file's numbers mean.

    gguf_file.py OUT_FOLDER

Needs the packages of tests/peft/requirements.txt and `gguf` (llama.cpp's own). Writes OUT_FOLDER/model.gguf, whose matrices have
every form that is read, and expected.safetensors, which holds the ids of each text as `ids.N`, by a tokenizer like SmolLM2's,
and its hidden states as `hidden.N`. What llama.cpp's package cannot quantise (k-quants) is drawn block by block.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy
import torch
import transformers
from gguf import GGMLQuantizationType as Form
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HIDDEN, WIDE, HEADS, KEY_HEADS, LAYERS, LONGEST = 32, 256, 4, 2, 5, 128
TEXTS = ["Where is my card?", "hi", "<|im_start|>user\nRefund 120 of 1,500, please: it's not my fee.<|im_end|>\n", " please  pay 7"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SMALL = {
    "attn_q": [Form.Q4_0, Form.Q4_1, Form.Q5_0, Form.Q5_1, Form.Q8_0],
    "attn_k": [Form.Q4_1, Form.F16, Form.Q8_0, Form.F32, Form.BF16],
    "attn_v": [Form.Q5_1] * 5,
    "attn_output": [Form.F16] * 5,
    "ffn_gate": [Form.Q8_0] * 5,
    "ffn_up": [Form.BF16, Form.Q5_0, Form.Q4_0, Form.Q8_0, Form.F16],
}
THEIRS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Bytes of a block: of scales of half precision (at which places), and of signed scales.
K_QUANTS = {
    Form.Q2_K: (84, [80, 82], None),
    Form.Q3_K: (110, [108], None),
    Form.Q4_K: (144, [0, 2], None),
    Form.Q5_K: (176, [0, 2], None),
    Form.Q6_K: (210, [208], slice(192, 208)),
}
DOWN = list(K_QUANTS)


def tokenizer():
    made = Tokenizer(models.BPE())
    digits, level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, level])
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=352, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(TEXTS * 4 + ["the card is my own", "a refund of the fee"] * 4, trainer)
    return made


def pairs(weight, heads):
    """transformers' rows in llama.cpp's order: the two that turn together side by side."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def halves(weight, heads):
    rows = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def drawn_blocks(random, form, rows):
    size, scales, signed = K_QUANTS[form]
    blocks = random.integers(0, 256, (rows, size), dtype=numpy.uint8)
    for place in scales:
        small = random.uniform(0.0005, 0.002, (rows, 1)).astype(numpy.float16)
        blocks[:, place : place + 2] = small.view(numpy.uint8)
    if signed:
        blocks[:, signed] = random.integers(-32, 32, (rows, 16), dtype=numpy.int8).view(numpy.uint8)
    return blocks


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    tokens = tokenizer()
    size = tokens.get_vocab_size()
    config = transformers.LlamaConfig(
        vocab_size=size, hidden_size=HIDDEN, intermediate_size=WIDE, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS, max_position_embeddings=LONGEST, rms_norm_eps=1e-5,
        rope_parameters=dict(rope_theta=1000.0, rope_type="default"),
    )
    torch.manual_seed(7)
    random = numpy.random.default_rng(7)
    model = transformers.LlamaModel(config).eval()
    state = model.state_dict()
    writer = gguf.GGUFWriter(out / "model.gguf", "llama")
    describe(writer, tokens, size)

    def put(name, theirs, form, heads=None):
        weight = torch.randn(state[theirs].shape).mul(0.2).numpy()
        if name.endswith("_norm"):
            weight = weight + 1
        if form in K_QUANTS:
            stored = drawn_blocks(random, form, weight.shape[0])
        else:
            stored = gguf.quants.quantize(pairs(weight, heads) if heads else weight, form)
        writer.add_tensor(f"{name}.weight", stored, raw_dtype=form)
        meant = torch.from_numpy(gguf.quants.dequantize(stored, form).astype(numpy.float32).copy())
        state[theirs] = halves(meant, heads) if heads else meant

    put("token_embd", "embed_tokens.weight", Form.Q8_0)
    for layer in range(LAYERS):
        own = f"layers.{layer}"
        put(f"blk.{layer}.attn_norm", f"{own}.input_layernorm.weight", Form.F32)
        put(f"blk.{layer}.ffn_norm", f"{own}.post_attention_layernorm.weight", Form.F32)
        for part, forms in SMALL.items():
            heads = {"attn_q": HEADS, "attn_k": KEY_HEADS}.get(part)
            put(f"blk.{layer}.{part}", f"{own}.{THEIRS[part]}.weight", forms[layer], heads)
        put(f"blk.{layer}.ffn_down", f"{own}.{THEIRS['ffn_down']}.weight", DOWN[layer])
    put("output_norm", "norm.weight", Form.F32)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        write()
    model.load_state_dict(state)
    tensors = {}
    for index, text in enumerate(TEXTS):
        ids = tokens.encode(text).ids
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        tensors[f"ids.{index}"] = torch.tensor(ids, dtype=torch.float32)
        tensors[f"hidden.{index}"] = hidden.contiguous()
        print(len(ids), f"largest {hidden.abs().max():.2f}")
    save_file(tensors, out / "expected.safetensors")


def describe(writer, tokens, size):
    writer.add_context_length(LONGEST)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(size)
    names = [tokens.id_to_token(index) for index in range(size)]
    merges = json.loads(tokens.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(names)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if name in SPECIAL else normal for name in names])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)


if __name__ == "__main__":
    main()
