"""Generation with int8 activations against f32: time to the first token of a long prompt, and tokens/s after it. Prints a table.

    python3 benches/prefill.py [--rounds 5] [--prompt 512] [--tokens 64] [--models PATH,…]

Both servers run, and rounds alternate between them with the same new prompts of random tokens; a request is alone.
"""

import random
import time

import common
from client import Client

FLAGS = {"f32": [], "int8": ["--activation-quantization", "int8"]}


def measure(client, model, ids, tokens):
    """Seconds to the first token, and tokens/s after it."""
    body = {"model": model, "prompt": ids, "max_tokens": tokens, "temperature": 0, "stream": True}
    start = time.perf_counter()
    times = [at for at, event in client.events("/v1/completions", body) if event.get("choices")]
    # A text may end early.
    return times[0] - start, (len(times) - 1) / (times[-1] - times[0]) if len(times) > 8 else None


def main():
    parser = common.arguments(__doc__, 5, "espalier")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of a prompt [512]")
    parser.add_argument("--tokens", type=int, default=64, help="generated tokens [64]")
    parser.add_argument("--models", default=str(common.ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"), help="separated by commas")
    options = parser.parse_args()
    program = common.server_program(options.espalier)
    common.header("base", "f32, ms to the first token", "int8", "ratio", "f32, tokens/s", "int8", "ratio", "rounds")
    for path in options.models.split(","):
        # Prompt lookup is off: random prompts repeat nothing, and what is measured is one token per step.
        servers = [common.Server(program, "--prompt-lookup-tokens", "0", *flags, model=path) for flags in FLAGS.values()]
        with servers[0] as f32, servers[1] as int8:
            clients = {"f32": Client(f32.address), "int8": Client(int8.address)}
            base = clients["f32"].call("/base")
            chosen = random.Random(1)
            first, rates = {name: [] for name in FLAGS}, {name: [] for name in FLAGS}
            for number in range(options.rounds + 1):
                ids = [chosen.randrange(100, base["vocabulary_size"] - 100) for _ in range(options.prompt)]
                for name, client in clients.items():
                    seconds, rate = measure(client, base["name"], ids, options.tokens)
                    if number > 0:
                        first[name].append(1000 * seconds)
                        rates[name].append(rate)
            times = common.spread(one / other for one, other in zip(first["f32"], first["int8"], strict=True))
            speeds = common.spread(one / other for one, other in zip(rates["int8"], rates["f32"], strict=True))
            name = path.rstrip("/").rpartition("/")[2]
            figures = (common.middle(first["f32"]), common.middle(first["int8"]), times)
            common.row(name, *figures, common.middle(rates["f32"]), common.middle(rates["int8"]), speeds, options.rounds)


if __name__ == "__main__":
    main()
