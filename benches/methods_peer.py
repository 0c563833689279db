"""PyTorch + PEFT's side of methods.py, as one JSON line: a method with PEFT's own defaults, trained by the tuned loop of peer.py.

    methods_peer.py MODEL CSV TEST_CSV METHOD RATE EPOCHS THREADS MAX_LENGTH

Mean pooling, as the base has it: where PEFT puts virtual tokens in front of a text, their rows are pooled too. What PEFT
has no default for is ours: 5 virtual tokens, and all norms. The seconds are those of tokenising and of the steps.
"""

import json
import sys

import torch
from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from transformers import AutoTokenizer

import peer

VIRTUAL = {"num_virtual_tokens": 5}
CONFIGS = {
    "lora": lambda: LoraConfig(task_type="SEQ_CLS"),
    "ia3": lambda: IA3Config(task_type="SEQ_CLS"),
    "prompt_tuning": lambda: PromptTuningConfig(task_type="SEQ_CLS", **VIRTUAL),
    "prefix_tuning": lambda: PrefixTuningConfig(task_type="SEQ_CLS", **VIRTUAL),
    "p_tuning": lambda: PromptEncoderConfig(task_type="SEQ_CLS", **VIRTUAL),
    "layer_norm": lambda: LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"]),
    "vera": lambda: VeraConfig(task_type="SEQ_CLS"),
}


def main():
    folder, file, test, method, rate, epochs, threads, length = sys.argv[1:]
    epochs, length = int(epochs), int(length)
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    tokenizer, clock = AutoTokenizer.from_pretrained(folder), peer.Clock()
    with clock:
        tokens, labels, names = peer.read(file, tokenizer, length)
    model = get_peft_model(peer.base(folder, len(names), "mean", "tuned"), CONFIGS[method]())
    model.train()
    step, optimizer = peer.stepper(model, tokenizer, tokens, labels, float(rate), fused=True)
    step = peer.scheduled(step, optimizer, epochs * -(-len(tokens) // peer.BATCH))
    for _ in peer.train(step, [len(ids) for ids in tokens], epochs, clock):
        pass
    test = peer.read(test, tokenizer, length, names)[:2]
    told = {"accuracy": peer.accuracy_of(model, tokenizer, *test), "parameters": model.get_nb_trainable_parameters()[0]}
    told |= {"seconds": clock.seconds, "processor_seconds": clock.processor_seconds, "peak_mib": peer.peak_mib()}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
