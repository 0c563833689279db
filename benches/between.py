"""Time between two tokens of eight streams, with and without a job that trains on the same server. Prints a table.

    python3 benches/between.py [--rounds 3] [--seconds 60] [--streams 8] [--tokens 64] [--train FILE] [--flags FLAGS]

SmolLM2-135M-Instruct from a GGUF file. Each stream asks the base for a text behind a new prompt of 64 tokens, and for the next
one when it is over; what counts is the time between a token and the next of its text, so a text's first token, which waits for
its prompt, does not, but others wait for that too. A round asks alone, lets a LoRA job (rank 16 on all linear maps) train
alone, and asks while the job goes on. The job's speed is that of its steps, seen by polling it: by default, of short ones.
"""

import threading
import time

import common  # before decoder: it goes on under the Python of .venv
import decoder
from client import Client
from sharing import EPOCHS, Watch

PROMPT, WARM_STEPS = 64, 3


class Streams:
    """So many texts at any time, for some seconds; the gaps of those that came to their end."""

    def __init__(self, options, address, prompts):
        self.options, self.address, self.prompts = options, address, prompts
        self.lock = threading.Lock()

    def gaps(self):
        options, found, over = self.options, [], time.perf_counter() + self.options.seconds
        model = decoder.base_name(Client(self.address))

        def ask():
            client = Client(self.address)
            while time.perf_counter() < over:
                with self.lock:
                    ids = self.prompts.next(PROMPT)
                said = decoder.answer(client, model, ids, options.tokens, self.prompts.kept_out)
                found.append(said.gaps())

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(options.streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [1000 * gap for gaps in found for gap in gaps]


def share(values, part):
    """The value below which so many of them are."""
    return sorted(values)[min(int(part * len(values)), len(values) - 1)]


def round_of(options, server, streams):
    client = Client(server.address)
    alone = streams.gaps()
    settings = {"epochs": EPOCHS, "batch_size": options.batch, "max_length": 512}
    job = {"task": decoder.TASK, "method": decoder.METHOD, "validation": {"fraction": 0}}
    job |= {"hyperparameters": settings, "examples": decoder.pairs(options.train)[:1000]}
    job = client.call("/jobs", job)["id"]
    client.await_job(job, lambda view: view["progress"] and view["progress"]["step"] >= WARM_STEPS)
    with Watch(server.address, job) as solo:
        time.sleep(options.seconds)
    with Watch(server.address, job) as beside:
        shared = streams.gaps()
    client.call(f"/jobs/{job}/cancel", b"", "")
    while client.call(f"/jobs/{job}")["status"] == "running":
        time.sleep(0.05)
    figures = {"p50": 0.5, "p99": 0.99, "most": 1.0}
    told = {name: [share(alone, part), share(shared, part)] for name, part in figures.items()}
    rates = [1000 * options.streams * len(gaps) / sum(gaps) for gaps in (alone, shared)]
    return told | {"rate": rates, "job": [solo.speed(), beside.speed()]}


def show(found, streams):
    common.header("", "alone", "together", "ratio", "rounds")
    named = {"p50": "between two tokens, p50, ms", "p99": "p99, ms", "most": "the longest, ms"}
    named |= {"rate": f"tokens/s behind the first of {streams} streams", "job": "the job, examples/s"}
    for which, name in named.items():
        alone, together = zip(*(one[which] for one in found), strict=True)
        ratio = common.spread(one / other for one, other in zip(together, alone, strict=True))
        common.row(name, common.middle(alone, 2), common.middle(together, 2), ratio, len(found))


def main():
    parser = decoder.arguments(__doc__, 3)
    parser.add_argument("--seconds", type=float, default=60, help="of each measurement [60]")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="of each text [64]")
    parser.add_argument("--batch", type=int, default=8, help="the job's batch size [8]")
    parser.add_argument("--train", default=common.SAMPLE, help="what the job trains on, as for sft.py")
    options = parser.parse_args()
    decoder.fetch()
    prompts, found = decoder.Prompts(), []
    # Often enough to see the job's speed within a window; its default is 5 s.
    with decoder.server(options, "--heartbeat-interval", "500ms") as server:
        streams = Streams(options, server.address, prompts)
        for number in range(options.rounds):
            found.append(round_of(options, server, streams))
            common.note(f"round {number + 1}: {found[-1]}")
    show(found, options.streams)


if __name__ == "__main__":
    main()
