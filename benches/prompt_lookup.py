"""Generation with prompt lookup against without, on texts that repeat their prompt and on texts that do not. Prints a table.

    python3 benches/prompt_lookup.py [--rounds 3] [--tokens 128] [--model FILE] [--int8]

Both servers run, and rounds alternate between them; a request is alone. The prompts of the first kind ask for a given text again with small
changes, as summaries, corrections and extractions do; those of the second kind ask open questions. Texts have to be equal.
"""

import statistics
import sys
import time

import common
from client import Client

PASSAGE = (
    "The parcel with the router was sent on Monday from the warehouse in Lisbon. The courier tried to deliver it on Wednesday and on Thursday, but "
    "nobody was at home. It is now kept at the post office in Rua Augusta until the end of the month. To collect it, the customer needs the number "
    "of the parcel and an identity card. After that date it goes back to the warehouse, and the price of the router is refunded to the account "
    "within five working days. The cost of the transport is not refunded."
)
KINDS = {
    "repeats its prompt": [
        f"Repeat the following text word by word, with every number written as a digit:\n\n{PASSAGE}",
        f"Correct the spelling of this text and return all of it:\n\n{PASSAGE.replace('parcel', 'parsel')}",
        f"Quote the sentences of this text that say where the parcel is:\n\n{PASSAGE}",
    ],
    "does not": [
        "Write a short story about a lighthouse keeper who finds a letter in a bottle.",
        "Explain in your own words how a bicycle stays upright while it moves.",
        "What should a good recipe for vegetable soup contain?",
    ],
}


def generate(client, prompt, tokens):
    """Text, number of tokens and seconds of one greedy answer."""
    request = {"inputs": [{"messages": [{"role": "user", "content": prompt}]}], "max_tokens": tokens, "temperature": 0}
    start = time.perf_counter()
    output = client.call("/generate", request)["generations"][0]
    return output["text"], output["usage"]["completion_tokens"], time.perf_counter() - start


def main():
    parser = common.arguments(__doc__, 3, "espalier")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--model", default=str(common.ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--int8", action="store_true", help="with --activation-quantization int8")
    options = parser.parse_args()
    program = common.server_program(options.espalier)
    flags = ["--activation-quantization", "int8"] if options.int8 else []
    common.header("text", "without, tokens/s", "with prompt lookup, tokens/s", "ratio", "rounds")
    with (
        common.Server(program, *flags, "--prompt-lookup-tokens", "0", model=options.model) as plain,
        common.Server(program, *flags, model=options.model) as lookup,
    ):
        clients = [Client(server.address) for server in (plain, lookup)]
        for kind, prompts in KINDS.items():
            rates = ([], [])
            # The first round fills the prefix caches and is not counted.
            for number in range(options.rounds + 1):
                seconds, tokens, texts = [0.0, 0.0], [0, 0], ([], [])
                for prompt in prompts:
                    for side, client in enumerate(clients):
                        text, count, elapsed = generate(client, prompt, options.tokens)
                        seconds[side] += elapsed
                        tokens[side] += count
                        texts[side].append(text)
                if texts[0] != texts[1]:
                    sys.exit(f"error: texts differ: {texts}")
                if number > 0:
                    for side in (0, 1):
                        rates[side].append(tokens[side] / seconds[side])
            ratio = common.spread(one / other for one, other in zip(rates[1], rates[0], strict=True))
            common.row(kind, *(f"{statistics.median(side):.1f}" for side in rates), ratio, options.rounds)


if __name__ == "__main__":
    main()
