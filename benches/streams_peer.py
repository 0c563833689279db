"""PyTorch + PEFT's side of streams.py: a batch of texts, each for another adapter. A line of JSON is asked and answered.

    streams_peer.py FOLDER ADAPTER_FOLDER …

A line has the threads, the prompts' ids (as many as adapters, of one length), the tokens of each text, and which tokens are
left out. The answer has the seconds and the number of tokens.
"""

import json
import sys
import time

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

KEPT_OUT = "suppress_tokens"


def load(folder, adapters):
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    names = [f"a{number}" for number in range(len(adapters))]
    model = PeftModel.from_pretrained(base, adapters[0], adapter_name=names[0])
    for name, adapter in zip(names[1:], adapters[1:], strict=True):
        model.load_adapter(adapter, name)
    return model.eval(), names


@torch.inference_mode()
def main():
    folder, *adapters = sys.argv[1:]
    model, names = load(folder, adapters)
    for line in sys.stdin:
        asked = json.loads(line)
        torch.set_num_threads(asked["threads"])
        ids = torch.tensor(asked["ids"])
        settings = {"max_new_tokens": asked["tokens"], "min_new_tokens": asked["tokens"], "do_sample": False}
        settings |= {KEPT_OUT: asked["kept_out"], "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
        start = time.perf_counter()
        said = model.generate(input_ids=ids, adapter_names=names, **settings)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "tokens": said.numel() - ids.numel()}), flush=True)


if __name__ == "__main__":
    main()
