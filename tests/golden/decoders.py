"""Small decoders with their language models' heads, and golden numbers for crates/core/tests/engine/decoders.rs: `decoders.py OUT_FOLDER [MODEL_TYPE …]`.

Writes OUT_FOLDER/MODEL_TYPE/{config.json,model.safetensors,tokenizer.json,tokenizer_config.json}: random models with a byte-level
tokenizer and a chat template, and expected.safetensors, by transformers and the real PEFT:

- `ids.N` and `logits.N` of some texts;
- with LoRA of those values against the bare base, direct preference optimisation of TRIPLES, β = 0.1, written out in PyTorch:
  `dpo.loss`, the mean, and `dpo.gradient.OUR_NAME`;
- for LoRA on all linear maps and for IA3 every trained tensor as `METHOD.value.OUR_NAME`, `METHOD.loss`, the mean cross entropy of
  the tokens behind the prompts of PAIRS, and `METHOD.gradient.OUR_NAME`.

The words of Llama's and Mistral's heads are their own, those of Qwen's and GPT-2's the embeddings'.
"""

import json
import re
import sys
from pathlib import Path

import torch
import transformers
from architectures import MODELS, draw
from decoder_gradients import METHODS, PARTS, SITES
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"]
TEXTS = ["Where is my card?", "a", "An order of 3 items costs 3 * 12 = 36 dollars; é and 你 too."]
PAIRS = [("What is 2 + 3?", " 5"), ("Say hello", ": hello, how are you today?"), ("x", "y")]
TRIPLES = [
    ("What is 2 + 3?", " 5", " I do not know"),
    ("Say hello", ": hello, how are you today?", ": no"),
]
CORPUS = [
    "Where is my card? I ordered a new card over a week ago, and it still has not arrived.",
    "What is the sum of 12 and 30? The sum of 12 and 30 is 42.",
    "hello, how are you today? I am fine, and how are you?",
]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=sorted(alphabet), show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


# GPT-2's maps are Conv1Ds, whose weights lie as (input, output).
CONV_SITES = {
    "attn.c_attn": "query_key_value",
    "attn.c_proj": "attention_output",
    "mlp.c_fc": "feed_forward_in",
    "mlp.c_proj": "feed_forward_out",
}
CONV_METHODS = {
    "lora": LoraConfig(r=4, lora_alpha=8, target_modules=list(CONV_SITES), fan_in_fan_out=True),
    "ia3": IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True),
}


def ours(name):
    layer, rest = re.search(r"\.(?:layers|h)\.(\d+)\.(.*)", name).groups()
    sites = SITES | CONV_SITES
    module = next(module for module in sites if rest.startswith(module + "."))
    return f"layer.{layer}.{sites[module]}.{PARTS[rest[len(module) + 1:]]}"


def gradients(model, tokens, tensors):
    methods = CONV_METHODS if model.config.model_type == "gpt2" else METHODS
    for method, config in methods.items():
        torch.manual_seed(18)
        adapted = get_peft_model(model, config).eval()
        trained = {ours(name): tensor for name, tensor in adapted.named_parameters() if tensor.requires_grad}
        with torch.no_grad():
            for tensor in trained.values():
                tensor += torch.randn(tensor.shape) * 0.1
        loss, count = torch.zeros(()), 0
        for prompt, completion in PAIRS:
            asked = tokens.encode(prompt).ids
            ids = tokens.encode(prompt + completion).ids + [0]
            assert ids[: len(asked)] == asked
            labels = torch.tensor([[-100] * len(asked) + ids[len(asked) :]])
            logits = adapted(input_ids=torch.tensor([ids])).logits[0, :-1]
            loss = loss + torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum")
            count += len(ids) - len(asked)
        loss = loss / count
        loss.backward()
        # A scale is a column or a row in PEFT, and a vector here.
        plain = lambda name, tensor: (tensor.flatten() if name.endswith(".ia3") else tensor).contiguous()
        if method == "lora":
            preferences(adapted, tokens, trained, tensors)
        tensors[f"{method}.loss"] = loss.detach().reshape(1)
        for name, tensor in trained.items():
            tensors[f"{method}.value.{name}"] = plain(name, tensor.detach())
            tensors[f"{method}.gradient.{name}"] = plain(name, tensor.grad)
        model = adapted.unload()
        model.requires_grad_(False)


def logprob(model, tokens, prompt, completion):
    asked, ids = tokens.encode(prompt).ids, tokens.encode(prompt + completion).ids + [0]
    assert ids[: len(asked)] == asked
    logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return logits.gather(1, torch.tensor(ids[1:])[:, None])[len(asked) - 1 :].sum()


def preferences(adapted, tokens, trained, tensors):
    kept = {name: tensor.grad for name, tensor in trained.items()}
    loss = torch.zeros(())
    for prompt, chosen, rejected in TRIPLES:
        now = [logprob(adapted, tokens, prompt, answer) for answer in (chosen, rejected)]
        with torch.no_grad(), adapted.disable_adapter():
            before = [logprob(adapted, tokens, prompt, answer) for answer in (chosen, rejected)]
        loss = loss - torch.nn.functional.logsigmoid(0.1 * ((now[0] - before[0]) - (now[1] - before[1])))
    loss = loss / len(TRIPLES)
    gradients = torch.autograd.grad(loss, list(trained.values()))
    tensors["dpo.loss"] = loss.detach().reshape(1)
    for name, gradient in zip(trained, gradients):
        tensors[f"dpo.gradient.{name}"] = gradient.contiguous()
    for name, tensor in trained.items():
        tensor.grad = kept[name]


def make(model_type, config, out):
    torch.manual_seed(22)
    tokens = tokenizer()
    config = config(tokens.get_vocab_size())
    config.tie_word_embeddings = model_type.startswith(("qwen", "gpt2"))
    config.bos_token_id, config.pad_token_id, config.eos_token_id = None, 1, 0
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    draw(model)
    model.generation_config = transformers.GenerationConfig(eos_token_id=[0, 3])
    model.save_pretrained(out)
    tokens.save(str(out / "tokenizer.json"), pretty=False)
    settings = {"eos_token": SPECIAL[0], "pad_token": SPECIAL[1], "chat_template": TEMPLATE}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    tensors = {}
    for index, text in enumerate(TEXTS):
        ids = tokens.encode(text).ids
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0]
        tensors[f"ids.{index}"] = torch.tensor(ids, dtype=torch.float32)
        tensors[f"logits.{index}"] = logits.contiguous()
    gradients(model, tokens, tensors)
    save_file(tensors, out / "expected.safetensors")
    (out / "expected.safetensors").chmod(0o644)
    print(model_type, f"largest {logits.abs().max():.2f}", {name: float(tensors[f"{name}.loss"]) for name in METHODS})


def main():
    out = Path(sys.argv[1])
    for model_type in sys.argv[2:] or ("llama", "mistral", "qwen2", "qwen3", "gpt2"):
        folder = out / model_type
        folder.mkdir(parents=True, exist_ok=True)
        make(model_type, MODELS[model_type][0], folder)


main()
