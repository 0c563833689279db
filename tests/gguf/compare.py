"""The bare base's answers beside transformers' on the same GGUF file; fails where one differs by more than 1e-4.

    compare.py SERVER FOLDER FILE
"""

import json
import sys
import urllib.request

import torch
from transformers import AutoModel, AutoTokenizer

TEXTS = [
    "Where is my card?",
    "I ordered 2 new cards over a week ago, and they still have not arrived. Can you tell me where they are?",
    "<|im_start|>user\nWhat is 1,250 * 4?<|im_end|>\n<|im_start|>assistant\n",
    "Übergröße: 3,5 %, naïve café ☕ and   some   spaces\n\n",
    "def double(x):\n    return 2 * x",
]
TOLERANCE = 1e-4


def answers(server, texts):
    body = json.dumps({"inputs": texts}).encode()
    request = urllib.request.Request(f"{server}/predict", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return [torch.tensor(one["embedding"]) for one in json.load(answer)["predictions"]]


def main():
    server, folder, file = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModel.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    worst = 0.0
    for text, found in zip(TEXTS, answers(server, TEXTS), strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, -1]
        difference = float((found - expected).abs().max() / expected.abs().max())
        print(f"{difference:.1e}  {text!r}")
        worst = max(worst, difference)
    if worst > TOLERANCE:
        sys.exit(f"error: {worst:.1e} is more than {TOLERANCE}")


if __name__ == "__main__":
    main()
