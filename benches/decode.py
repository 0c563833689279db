"""One text at a time: espalier against llama.cpp on the same GGUF file, both over HTTP on two threads. Prints a table.

    python3 benches/decode.py [--rounds 5] [--tokens 128] [--llama-server PROGRAM] [--flags FLAGS]

SmolLM2-135M-Instruct in Q4_1: the base, and a LoRA adapter of rank 16 on all linear maps, trained by espalier for two steps and written as a GGUF
file for llama.cpp. Measured are tokens/s after the first token of greedy decoding, streamed, after a prompt of 64 tokens; and the time to the first
token of a prompt of 512. Both sides get the same new prompts in turn, so that no prefix is cached. Tokens that end a text are excluded on both.

llama.cpp is the server of a wheel (llama_peer.py), which uses AVX2 at most, or one built for the machine (scripts/llama-server.sh). It quantizes
activations to 8 bits, so the texts differ from where two tokens are about equally likely on; the length of the common prefix is printed. With
--llama-server the differences of the log-probabilities of the most likely tokens after some prompts are printed, too.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import common  # before decoder: it goes on under the Python of .venv
import decoder
import gguf_adapter
from client import Client
from peers import Llama

NAME = "few-steps"
PROMPT, LONG = 64, 512
LIKELIEST, COMPARED = 5, 20
MIB = 1024 * 1024


def in_common(one, other):
    """Characters with which both texts begin."""
    return next((place for place, both in enumerate(zip(one, other)) if both[0] != both[1]), min(len(one), len(other)))


class Side:
    """A server that is asked for the base or for the adapter."""

    def __init__(self, address, asked):
        self.client, self.asked = Client(address), asked

    def answer(self, which, ids, count, kept_out):
        model, fields = self.asked[which]
        return decoder.answer(self.client, model, ids, count, kept_out, **fields)


def likeliest(side, which, ids):
    """The log-probabilities of the likeliest tokens behind a prompt, by token."""
    model, fields = side.asked[which]
    if fields:
        body = {"prompt": ids, "n_predict": 1, "n_probs": LIKELIEST, "temperature": 0, "cache_prompt": False, **fields}
        told = side.client.call("/completion", body)["completion_probabilities"][0]["top_logprobs"]
        return {one["token"]: one["logprob"] for one in told}
    body = {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": LIKELIEST}
    return side.client.call("/v1/completions", body)["choices"][0]["logprobs"]["top_logprobs"][0]


def compare(sides, prompts):
    """Notes how far apart both are, on tokens that are among the likeliest of both."""
    for which in ("base", "adapter"):
        apart, first = [], 0
        for _ in range(COMPARED):
            ids = prompts.next(PROMPT)
            ours, theirs = (likeliest(sides[name], which, ids) for name in ("espalier", "llama"))
            apart += [abs(ours[token] - theirs[token]) for token in ours.keys() & theirs.keys()]
            first += max(ours, key=ours.get) == max(theirs, key=theirs.get)
        told = f"{max(apart):.3f} at most, {sum(apart) / len(apart):.4f} on average; the likeliest is the same {first} times"
        common.note(f"{which}: log-probabilities of {len(apart)} tokens behind {COMPARED} prompts differ by {told}")


def measure(sides, prompts, options):
    """For each round, by which, what and side."""
    rounds = []
    for number in range(options.rounds + 1):
        one = {}
        for which in ("base", "adapter"):
            short, long = prompts.next(PROMPT), prompts.next(LONG)
            texts = []
            for name, side in sides.items():
                said = side.answer(which, short, options.tokens, prompts.kept_out)
                one[which, "rate", name] = said.rate()
                texts.append(said.text)
                one[which, "wait", name] = side.answer(which, long, 1, prompts.kept_out).wait()
            told = {f"{what} of {side}": f"{found:.3f}" for (of, what, side), found in one.items() if of == which}
            alike = in_common(*texts)
            common.note(f"round {number}: {which}: {told}; {alike} of {len(texts[0])} characters are alike")
        rounds.append(one)
    # The first warms both up.
    return rounds[1:]


def show(found, name, memory):
    common.header("", "espalier", name, "espalier is faster by", "rounds")
    for which in ("base", "adapter"):
        for what, said, digits in (
            ("rate", "tokens/s", 1),
            ("wait", f"time to the first token of {LONG}, s", 3),
        ):
            ours, theirs = ([one[which, what, side] for one in found] for side in ("espalier", "llama"))
            pairs = zip(ours, theirs, strict=True)
            ratio = common.spread(one / other if what == "rate" else other / one for one, other in pairs)
            common.row(f"{which}, {said}", common.middle(ours, digits), common.middle(theirs, digits), ratio, len(found))
    ours, theirs = (f"{one['VmHWM'] / MIB:.0f}" for one in memory)
    common.row("peak memory, MiB (espalier's has trained)", ours, theirs, "", "")


def main():
    parser = decoder.arguments(__doc__, 5)
    parser.add_argument("--tokens", type=int, default=128, help="of each text [128]")
    parser.add_argument("--llama-server", type=Path, help="in place of the wheel's")
    options = parser.parse_args()
    decoder.fetch()
    prompts = decoder.Prompts()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="espalier-bench-")))
        server = stack.enter_context(decoder.server(options))
        client = Client(server.address)
        decoder.train_few(client, [NAME])
        peft = decoder.download(client, NAME, folder / NAME)
        written = gguf_adapter.write(peft, decoder.FOLDER / "config.json", folder / "adapter.gguf")
        context = max(LONG, PROMPT + options.tokens) + 64
        llama = stack.enter_context(Llama(decoder.FILE, 1, context, [written], program=options.llama_server))
        asked = {"base": (decoder.base_name(client), {}), "adapter": (NAME, {})}
        off, on = ({"lora": [{"id": 0, "scale": scale}]} for scale in (0.0, 1.0))
        sides = {"espalier": Side(server.address, asked)}
        sides["llama"] = Side(llama.address, {"base": ("base", off), "adapter": (NAME, on)})
        if options.llama_server:
            compare(sides, prompts)
        found = measure(sides, prompts, options)
        show(found, llama.name, (server.memory(), llama.memory()))


if __name__ == "__main__":
    main()
