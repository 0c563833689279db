"""Sixteen texts at the same time, each with its own adapter: espalier against llama.cpp and PEFT, on two threads. Prints a table.

    python3 benches/streams.py [--rounds 3] [--streams 16] [--tokens 64] [--llama-server PROGRAM] [--without-peft]

SmolLM2-135M-Instruct from the same GGUF file; LoRA adapters of rank 16 on all linear maps, trained by espalier for two steps each. Measured are the
tokens/s of all texts together, from the first request to the last token, with prompts of 64 tokens:

espalier    a stream of each adapter over HTTP; and as many of the base alone
llama.cpp   the same over HTTP (peers.py): its server processes texts of different adapters one after another, those of the base in one batch
PEFT        `generate` with `adapter_names`: one batch of all texts (streams_peer.py); the faster one of one and two threads

In each round all of them decode greedily after the same new prompts. The first round checks for each adapter of espalier that a text beside others
is the same as alone.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import common  # before decoder: it goes on under the Python of .venv
import decoder
import gguf_adapter
from client import Client
from peers import Llama

PROMPT = 64
OURS, BARE = "espalier, adapters", "espalier, base"
LLAMA, LLAMA_BARE = "adapters", "base"
THREADS = 1, 2


class Peft:
    """streams_peer.py, which answers a line with a line; `with` stops it."""

    def __init__(self, adapters):
        self.adapters = adapters

    def __enter__(self):
        command = [sys.executable, "benches/streams_peer.py", decoder.FOLDER, *self.adapters]
        self.process = subprocess.Popen(
            command, cwd=common.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def rate(self, **asked):
        """Tokens/s."""
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit("error: PEFT's side ended")
        told = json.loads(line)
        return told["tokens"] / told["seconds"]

    def __exit__(self, *_):
        common.stop(self.process)


def check(client, names, ids, together, options, kept_out):
    """That each says alone what it said beside the others."""
    for name, prompt, beside in zip(names, ids, together, strict=True):
        alone = decoder.answer(client, name, prompt, options.tokens, kept_out).text
        if alone != beside.text:
            sys.exit(f"error: {name} says alone {alone!r}, and beside others {beside.text!r}")
    common.note(f"{len(names)} streams say what each says alone")


def round_of(options, client, names, llama, peft, prompts, is_first):
    """Tokens/s by who was asked."""
    ids = [prompts.next(PROMPT) for _ in names]
    ask = lambda address, asked: decoder.at_once(address, asked, options.tokens, prompts.kept_out)
    base, rates = decoder.base_name(client), {}
    ours = ask(client.address, [(name, prompt, {}) for name, prompt in zip(names, ids, strict=True)])
    rates[OURS] = decoder.together(ours)
    # Other prompts: those of before are still known.
    bare = [prompts.next(PROMPT) for _ in names]
    answers = ask(client.address, [(base, prompt, {}) for prompt in bare])
    rates[BARE] = decoder.together(answers)
    only = lambda place: {"lora": [{"id": other, "scale": float(other == place)} for other in range(len(names))]}
    for who, which in ((LLAMA, only), (LLAMA_BARE, lambda _: only(None))):
        asked = [("any", prompt, which(place)) for place, prompt in enumerate(ids if who == LLAMA else bare)]
        rates[f"{llama.name}, {who}"] = decoder.together(ask(llama.address, asked))
    for threads in THREADS if peft else ():
        asked = {"threads": threads, "ids": ids, "tokens": options.tokens, "kept_out": prompts.kept_out}
        rates[f"PEFT, adapters, threads: {threads}"] = peft.rate(**asked)
    if is_first:
        check(client, names, ids, ours, options, prompts.kept_out)
    return rates


def show(found):
    common.header("", "tokens/s", "espalier with adapters is faster by", "rounds")
    slower = [f"PEFT, adapters, threads: {threads}" for threads in THREADS]
    median = lambda who: statistics.median(one[who] for one in found)
    worse = min(slower, key=median) if slower[0] in found[0] else None
    for who in found[0]:
        if who != worse:
            ratio = common.spread(one[OURS] / one[who] for one in found)
            common.row(who, common.middle(one[who] for one in found), "" if who == OURS else ratio, len(found))


def main():
    parser = decoder.arguments(__doc__, 3)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="of each text [64]")
    parser.add_argument("--llama-server", type=Path, help="in place of the wheel's")
    parser.add_argument("--without-peft", action="store_true")
    options = parser.parse_args()
    decoder.fetch()
    prompts, names = decoder.Prompts(), [f"a{number}" for number in range(options.streams)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="espalier-bench-")))
        server = stack.enter_context(decoder.server(options))
        client = Client(server.address)
        decoder.train_few(client, names)
        adapters = [decoder.download(client, name, folder / name) for name in names]
        config = decoder.FOLDER / "config.json"
        written = [gguf_adapter.write(one, config, folder / f"{one.parent.name}-{one.name}.gguf") for one in adapters]
        context = PROMPT + options.tokens + 64
        llama = Llama(decoder.FILE, len(names), context, written, program=options.llama_server)
        llama = stack.enter_context(llama)
        peft = None if options.without_peft else stack.enter_context(Peft(adapters))
        found = []
        for number in range(options.rounds):
            found.append(round_of(options, client, names, llama, peft, prompts, number == 0))
            common.note(f"round {number + 1}: {found[-1]}")
    show(found)


if __name__ == "__main__":
    main()
