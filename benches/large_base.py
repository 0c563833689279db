"""A base of 1.17 billion parameters: load, first requests, LoRA training against PyTorch + PEFT, its memory with long texts, decoding against
llama.cpp. Prints tables.

    python3 benches/large_base.py [--rounds 3] [--parts load,train,long,decode] [--steps 3] [--tokens 64] [--layers 22]
                                 [--llama-server PROGRAM]

The weights are random (random_llama.py), in bf16 (a folder) and in Q4_0, Q4_K_M and Q2_K (GGUF files). Training is a classification job on 96 rows of 8 labels,
batches of 32, three epochs; PEFT trains in f32, where bf16 is far slower on CPUs without bf16 products. Memory is the peak of the process (VmHWM).
Decoding is greedy, one text; the bandwidth is what two threads read in dot products of vectors that no cache holds, measured in each round.
"""

import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import common  # before numpy: starts again under the Python of .venv
import decoder
import gguf
import numpy as np
import random_llama
from client import Client
from peers import Llama

ROWS_PER_LABEL, LABELS, EPOCHS = 12, 8, 3
MIB = 1024 * 1024
INT8 = ["--activation-quantization", "int8"]
VECTOR_BYTES = 512 * MIB
LONG_ROWS, LONG_TOKENS = 4, 512
# Of a server by default, and with gradient checkpointing.
ACTIVATION_MEMORY = ["4GiB", "256MiB"]


def rows():
    """96 rows: 12 of each of 8 labels."""
    found = common.rows(common.SAMPLE)
    kept = sorted({row["category"] for row in found})[:LABELS]
    return [row for label in kept for row in [row for row in found if row["category"] == label][:ROWS_PER_LABEL]]


def measure_load(program, bases, rounds):
    common.header("base", "listens after, s", "memory then, MiB", "peak, MiB", "first request, ms", "median of ten, ms", "rounds")
    for name, (path, flags) in bases.items():
        seconds, first, others = [], [], []
        for _ in range(rounds):
            start = time.perf_counter()
            with common.Server(program, *flags, model=path) as server:
                seconds.append(time.perf_counter() - start)
                loaded, client = server.memory(), Client(server.address)
                body = {"model": client.call("/base")["name"], "prompt": "When does my new card arrive?", "max_tokens": 1, "temperature": 0}
                times = []
                for number in range(11):
                    start = time.perf_counter()
                    client.call("/v1/completions", body | {"prompt": f"{number} {body['prompt']}"})
                    times.append(1000 * (time.perf_counter() - start))
                first.append(times[0])
                others += times[1:]
        memory = f"{loaded['VmRSS'] / MIB:.0f}", f"{loaded['VmHWM'] / MIB:.0f}"
        common.row(name, common.middle(seconds), *memory, common.middle(first, 0), common.middle(others, 0), rounds)


def train(program, path, flags, hyperparameters):
    """Seconds from the claim to the first step and to the end, examples/s of the steps, and the peak of memory."""
    # Steps are seen at heartbeats.
    with common.Server(program, "--heartbeat-interval", "200ms", *flags, model=path) as server:
        client = Client(server.address)
        examples = [{"text": row["text"], "label": row["category"]} for row in rows()]
        body = {"name": "a", "examples": examples, "method": {"type": "lora"}, "task": {"type": "sequence_classification", "pooling": "last"}}
        start = time.monotonic()
        job = client.call("/jobs", body | {"hyperparameters": {"epochs": EPOCHS, "batch_size": 32, **hyperparameters}})["id"]
        seen = []

        def note_step(view):
            step = (view["progress"] or {}).get("step", 0)
            if step > (seen[-1][1] if seen else 0):
                seen.append((time.monotonic(), step))

        view = client.await_job(job, note_step, every=0.02)
        (first, one), (last, count) = seen[0], seen[-1]
        per_step, examples_per_step = (last - first) / (count - one), EPOCHS * view["metrics"]["training_examples"] / count
        return {
            # The first step is seen at its end, and takes as long as the others.
            "to_first": first - start - per_step, "total": time.monotonic() - start, "rate": examples_per_step / per_step,
            "peak": server.memory()["VmHWM"] / MIB,
        }  # fmt: skip


def measure_training(program, bases, options, folder):
    ours, theirs = {name: [] for name in bases}, []
    with tempfile.TemporaryDirectory(prefix="espalier-bench-") as temporary:
        path = common.write_rows(Path(temporary) / "rows.csv", rows())
        for _ in range(options.rounds):
            peer = ["benches/large_base_peer.py", folder, path, options.steps, 2, 64]
            theirs.append(common.run(sys.executable, *map(str, peer)))
            for name, (base, flags, hyperparameters) in bases.items():
                ours[name].append(train(program, base, flags, hyperparameters))
                common.note(f"{name}: {ours[name][-1]}; PEFT: {theirs[-1]}")
    common.header("job", "examples/s", "PEFT in f32", "ratio", "peak, MiB", "PEFT", "share", "claim to first step, s", "share of the job", "rounds")
    for name, found in ours.items():
        rates = [one["rate"] for one in found]
        ratio = common.spread(one / other["examples_per_second"] for one, other in zip(rates, theirs, strict=True))
        peak, peer_peak = max(one["peak"] for one in found), max(one["peak_mib"] for one in theirs)
        first = common.middle([one["to_first"] for one in found])
        share = common.middle([one["to_first"] / one["total"] for one in found], 2)
        peer_rates = common.middle([one["examples_per_second"] for one in theirs], 2)
        common.row(name, common.middle(rates, 2), peer_rates, ratio, f"{peak:.0f}", f"{peer_peak:.0f}", f"{peak / peer_peak:.2f}", first, share, options.rounds)


def measure_long_texts(program, bases):
    """The peak of memory of jobs whose texts all have LONG_TOKENS tokens, without and with gradient checkpointing."""
    common.header("base", "--activation-memory", "task", "loaded, MiB", "peak, MiB", "ratio", "seconds")
    prompts = decoder.Prompts()
    texts = [prompts.tokenizer.decode(prompts.next(LONG_TOKENS)) for _ in range(LONG_ROWS)]
    tasks = {
        "classification": ({"type": "sequence_classification", "pooling": "last"}, [{"text": text, "label": str(number % 2)} for number, text in enumerate(texts)]),
        "language modelling": ({"type": "causal_language_model"}, [{"text": text} for text in texts]),
    }
    for name, (base, flags, hyperparameters) in bases.items():
        for budget, (task_name, (task, examples)) in product(ACTIVATION_MEMORY, tasks.items()):
            with common.Server(program, "--activation-memory", budget, *flags, model=base) as server:
                client, loaded, start = Client(server.address), server.memory()["VmRSS"], time.perf_counter()
                shape = {"epochs": 1, "batch_size": LONG_ROWS, "max_length": LONG_TOKENS, **hyperparameters}
                body = {"name": "a", "examples": examples, "method": {"type": "lora"}, "task": task, "hyperparameters": shape, "validation": {"fraction": 0}}
                client.await_job(client.call("/jobs", body)["id"], lambda view: view["adapter_id"], every=0.2)
                peak, seconds = server.memory()["VmHWM"], time.perf_counter() - start
                common.row(name, budget, task_name, f"{loaded / MIB:.0f}", f"{peak / MIB:.0f}", f"{peak / loaded:.2f}", f"{seconds:.0f}")


def bandwidth():
    """Bytes/s that two threads read."""
    vectors = [np.ones(VECTOR_BYTES // 4, dtype=np.float32) for _ in range(2)]
    halves = [vector.reshape(2, -1) for vector in vectors]
    best = 0.0
    for _ in range(3):
        threads = [threading.Thread(target=np.dot, args=(halves[0][half], halves[1][half])) for half in range(2)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, 2 * VECTOR_BYTES / (time.perf_counter() - start))
    return best


def bytes_per_token(file):
    """Bytes of the weights that a token reads: all but the table of embeddings."""
    return sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(file).tensors if tensor.name != "token_embd.weight")


def measure_decoding(program, files, options):
    common.header("file", "activations", "tokens/s", "llama.cpp", "ratio", "of the bandwidth", "rounds")
    for file_type, file in files.items():
        measure_decoding_of(program, file_type, file, options)


def measure_decoding_of(program, file_type, file, options):
    prompts, weights = decoder.Prompts(), bytes_per_token(file)
    with ExitStack() as stack:
        enter = lambda *flags: stack.enter_context(common.Server(program, "--prompt-lookup-tokens", "0", *flags, model=file))
        servers = {"f32": enter(), "int8": enter(*INT8)}
        llama = stack.enter_context(Llama(file, 1, 64 + options.tokens + 64, program=options.llama_server))
        sides = {name: (Client(server.address), decoder.base_name(Client(server.address))) for name, server in servers.items()}
        sides["llama"] = (Client(llama.address), "base")
        found, read = {name: [] for name in sides}, []
        for number in range(options.rounds + 1):
            ids = prompts.next(64)
            rates = {name: decoder.answer(client, base, ids, options.tokens, prompts.kept_out).rate() for name, (client, base) in sides.items()}
            if number:
                read.append(bandwidth())
                for name, rate in rates.items():
                    found[name].append(rate)
        for name in servers:
            ratio = common.spread(one / other for one, other in zip(found[name], found["llama"], strict=True))
            share = common.spread(rate * weights / limit for rate, limit in zip(found[name], read, strict=True))
            common.row(file_type, name, common.middle(found[name]), common.middle(found["llama"]), ratio, share, options.rounds)
        common.note(f"{llama.name}; {weights / 1e6:.0f} MB per token, bandwidth {common.middle([one / 1e9 for one in read])} GB/s")


def main():
    parser = common.arguments(__doc__, 3, "espalier")
    parser.add_argument("--parts", default="load,train,long,decode")
    parser.add_argument("--steps", type=int, default=3, help="of PEFT [3]")
    parser.add_argument("--tokens", type=int, default=64, help="of each text [64]")
    parser.add_argument("--llama-server", type=Path, help="in place of the wheel's")
    parser.add_argument("--jobs", help="rows of the tables of training, separated by semicolons; all by default")
    parser.add_argument("--layers", type=int, default=random_llama.LAYERS, help=f"of the base [{random_llama.LAYERS}]; 66 have 3.1 billion parameters")
    options = parser.parse_args()
    program, parts = common.server_program(options.espalier), options.parts.split(",")
    folder, files = random_llama.write(common.ROOT / "models", options.layers)
    file = files["Q4_0"]
    if "load" in parts:
        served = {
            "bf16": (folder, []), "bf16, int8": (folder, INT8), "Q4_0": (file, []), "Q4_0, int8": (file, INT8),
            "Q4_K_M": (files["Q4_K_M"], []), "Q4_K_M, int8": (files["Q4_K_M"], INT8),
            "Q2_K": (files["Q2_K"], []), "Q2_K, int8": (files["Q2_K"], INT8),
        }  # fmt: skip
        measure_load(program, served, options.rounds)
    int8, held_in_8_bits, few_activations = {"precision": "int8"}, ["--weight-format", "q8_0"], ["--activation-memory", "384MiB"]
    jobs = {
        "bf16": (folder, [], {}), "bf16, int8": (folder, [], int8), "bf16, int8, --activation-memory 384MiB": (folder, few_activations, int8),
        "held as Q8_0, int8": (folder, held_in_8_bits, int8),
        "Q4_0": (file, [], {}), "Q4_0, int8": (file, [], int8), "Q4_K_M, int8": (files["Q4_K_M"], [], int8),
    }  # fmt: skip
    jobs = {name: jobs[name] for name in (options.jobs.split(";") if options.jobs else jobs)}
    if "train" in parts:
        measure_training(program, jobs, options, folder)
    if "long" in parts:
        measure_long_texts(program, {name: job for name, job in jobs.items() if job[1] is not few_activations})
    if "decode" in parts:
        measure_decoding(program, files, options)


if __name__ == "__main__":
    main()
