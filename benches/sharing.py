"""Serving and training on one machine: /predict at a fifth of the saturating rate with and without a job. Prints a table.

    python3 benches/sharing.py [--rounds 3] [--seconds 20] [--share 0.2] [--int8] [--train FILE] [--csv FILE]

The saturating rate is measured first: single inputs for one adapter, each sent when the one before is answered. A round then sends requests at a
share of that rate, runs a LoRA job alone, and does both at once. The speed of the job is that of its steps, which are polled.
"""

import sys
import threading
import time

import adapters
import common
from client import Client, lines, load

# Long enough for every window; cancelled at the end.
EPOCHS = 10_000
# The job's first steps.
WARM_STEPS = 10


class Watch(threading.Thread):
    """Sees a job's steps while `with` lasts."""

    def __init__(self, address, job):
        super().__init__(daemon=True)
        self.client, self.job, self.seen, self.over = Client(address), job, [], threading.Event()

    def __enter__(self):
        self.start()
        return self

    def run(self):
        while not self.over.wait(0.05):
            view = self.client.call(f"/jobs/{self.job}")
            if view["status"] != "running":
                self.seen = []
                return
            step = view["progress"]["step"]
            if not self.seen or self.seen[-1][1] != step:
                self.seen.append((time.monotonic(), step))
            self.batch = view["hyperparameters"]["batch_size"]

    def __exit__(self, *_):
        self.over.set()
        self.join()

    def speed(self):
        """Examples/s between the first and the last word that came within the time: the very first one is of before."""
        words = self.seen[1:]
        if len(words) < 3:
            sys.exit("error: the job was not heard of often enough: make --seconds longer")
        (start, first), (end, last) = words[0], words[-1]
        return (last - first) * self.batch / (end - start)


def round_of(options, program, server, asking, rate):
    """Requests alone; the job alone; both."""
    client = Client(server.address)
    ask = lambda: load(program, server.address, options.seconds, options.connections, asking, rate)
    alone = ask()
    precision = "int8" if options.int8 else "f32"
    fields = {"method": {"type": "lora"}, "hyperparameters": {"epochs": EPOCHS, "precision": precision}, "validation": {"fraction": 0}}
    job = client.start_job(fields, common.ROOT / options.train)
    client.await_job(job, lambda view: view["progress"] and view["progress"]["step"] >= WARM_STEPS)
    with Watch(server.address, job) as solo:
        time.sleep(options.seconds)
    with Watch(server.address, job) as beside:
        shared = ask()
    client.call(f"/jobs/{job}/cancel", b"", "")
    while client.call(f"/jobs/{job}")["status"] == "running":
        time.sleep(0.05)
    return {"alone": alone, "shared": shared, "solo": solo.speed(), "beside": beside.speed()}


def main():
    parser = common.arguments(__doc__, 3, "espalier", "load")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement [20]")
    parser.add_argument("--share", type=float, default=0.2, help="of saturation [0.2]")
    parser.add_argument("--rate", type=float, help="requests/s, in place of a share of saturation")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--int8", action="store_true", help="int8 for requests and the job")
    parser.add_argument("--train", default=common.SAMPLE, help="what the job trains on")
    parser.add_argument("--csv", default=common.TEST, help="texts to ask")
    options = parser.parse_args()
    server, program = common.server_program(options.espalier), common.bench_program(options.load, "load")
    asking = lines(common.texts(options.csv), [adapters.name(0)], 1)
    # Often enough to see the job's speed within a window; its default is 5 s.
    flags = ["--activation-quantization", "int8"] if options.int8 else []
    with common.Server(server, "--heartbeat-interval", "500ms", *flags) as server:
        adapters.upload(Client(server.address), 0)
        rate = options.rate
        if not rate:
            most = load(program, server.address, options.seconds, options.connections, asking)["requests_per_second"]
            rate = most * options.share
            common.note(f"saturation: {most:.1f} requests/s")
        found = []
        for number in range(options.rounds):
            found.append(round_of(options, program, server, asking, rate))
            common.note(f"round {number + 1}: {found[-1]}")
    show(found, rate)


def show(found, rate):
    common.header("", "alone", "together", "ratio", "rounds")
    for which in ("p50_ms", "p90_ms", "p99_ms"):
        alone, shared = ([one[case][which] for one in found] for case in ("alone", "shared"))
        ratio = common.spread(one / other for one, other in zip(shared, alone, strict=True))
        name = f"/predict at {rate:.0f} requests/s, {which.removesuffix('_ms')}, ms"
        common.row(name, common.middle(alone, 2), common.middle(shared, 2), ratio, len(found))
    solo, beside = ([one[case] for one in found] for case in ("solo", "beside"))
    ratio = common.spread(one / other for one, other in zip(beside, solo, strict=True))
    common.row("the job, examples/s", common.middle(solo), common.middle(beside), ratio, len(found))


if __name__ == "__main__":
    main()
