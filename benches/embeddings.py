"""Embeddings and classification over HTTP, in f32 and int8, with ONNX Runtime, OpenVINO, fastembed and PyTorch in process. Prints tables.

    python3 benches/embeddings.py [--rounds 3] [--seconds 10] [--train FILE] [--test FILE]

espalier is asked over HTTP by a load generator on the same cores (requests of 32 texts over 8 connections, and single
texts over one connection); the peers (embeddings_peer.py) embed the same texts in process, in batches of 32, in the order
in which they come and sorted by length. Rounds alternate between all sides. Then the embeddings of all test texts are
compared by cosine with those in f32, and an adapter of each method, trained in f32, classifies the test texts with both.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import common
from accuracy import accuracy_of
from client import Client, lines, load

PEERS = ["onnxruntime", "onnxruntime-int8", "openvino", "fastembed", "torch", "torchao-int8"]
ORDERS = ["sorted", "arrival"]
METHODS = ["head", "lora"]
INT8 = ["--activation-quantization", "int8"]
BATCH, CONNECTIONS = 32, 8


def cosine(one, other):
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def embeddings(client, texts):
    found = []
    for start in range(0, len(texts), BATCH):
        answer = client.call("/predict", {"inputs": texts[start : start + BATCH]})["predictions"]
        found += [one["embedding"] for one in answer]
    return found


def measure_peer(options, texts, peer, order):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(texts, file)
        file.flush()
        script = common.ROOT / "benches/embeddings_peer.py"
        return common.run(sys.executable, script, peer, order, str(options.seconds), str(options.threads), file.name)


def train(client, options, method):
    job = client.start_job({"name": method, "method": {"type": method}}, options.train)
    view = client.await_job(job, lambda view: view["adapter_id"])
    return view["adapter_id"]


def copy_adapter(source, target, adapter, name):
    archive = source.read(f"/adapters/{adapter}/download")
    target.post_file("/adapters", "options", {"name": name}, "adapter", "adapter.zip", archive)


def main():
    parser = common.arguments(__doc__, 3, "espalier", "load")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement [10]")
    parser.add_argument("--threads", type=int, default=2, help="of the peers [2]")
    parser.add_argument("--train", default=common.SAMPLE, help="training rows of the adapters")
    parser.add_argument("--test", default=common.TEST, help="texts to embed and to classify")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"[{','.join(PEERS)}]")
    options = parser.parse_args()
    program, generator = common.server_program(options.espalier), common.bench_program(options.load, "load")
    rows = common.rows(options.test)
    texts = [row["text"] for row in rows]
    cases = {"32 texts, 8 connections": (BATCH, CONNECTIONS), "1 text, 1 connection": (1, 1)}
    rates, latencies, peers = {}, {}, {}
    with common.Server(program) as f32, common.Server(program, *INT8) as int8:
        sides = {"f32": f32, "int8": int8}
        clients = {name: Client(server.address) for name, server in sides.items()}
        for method in METHODS:
            copy_adapter(clients["f32"], clients["int8"], train(clients["f32"], options, method), method)
        for number in range(options.rounds):
            for adapter in (None, "lora"):
                for case, (batch, connections) in cases.items():
                    for side, server in sides.items():
                        requests = lines(texts, [adapter], batch)
                        found = load(generator, server.address, options.seconds, connections, requests)
                        key = (adapter or "embedding", case, side)
                        rates.setdefault(key, []).append(found["requests_per_second"] * batch)
                        latencies.setdefault(key, []).append(found["p50_ms"])
                        common.note(f"round {number + 1}: {key}: {rates[key][-1]:.1f} texts/s, p50 {found['p50_ms']:.2f} ms")
            for peer in options.peers.split(","):
                for order in ORDERS:
                    found = measure_peer(options, texts, peer, order)
                    peers.setdefault((peer, order), []).append(found)
                    common.note(f"round {number + 1}: {peer}, {order}: {found['texts_per_second']:.1f} texts/s")
        show_rates(rates, latencies, cases)
        show_peers(rates, peers)
        exact = embeddings(clients["f32"], texts)
        show_accuracy(clients, rows, texts, exact, peers)


def show_rates(rates, latencies, cases):
    common.header("answer", "requests", "f32, texts/s", "int8, texts/s", "ratio", "f32, p50 in ms", "int8, p50 in ms")
    for answer in ("embedding", "lora"):
        for case in cases:
            f32, int8 = (rates[answer, case, side] for side in ("f32", "int8"))
            ratio = common.spread(one / other for one, other in zip(int8, f32, strict=True))
            times = (common.middle(latencies[answer, case, side], 2) for side in ("f32", "int8"))
            common.row(answer, case, common.middle(f32), common.middle(int8), ratio, *times)


def show_peers(rates, peers):
    print()
    common.header("peer, in process", "order", "texts/s", "espalier int8 over HTTP is faster by", "f32 by")
    case = f"{BATCH} texts, {CONNECTIONS} connections"
    for (peer, order), found in peers.items():
        theirs = [one["texts_per_second"] for one in found]

        def ratio(side, theirs=theirs):
            ours = rates["embedding", case, side]
            return common.spread(one / other for one, other in zip(ours, theirs, strict=True))

        common.row(peer, order, common.middle(theirs), ratio("int8"), ratio("f32"))


def show_accuracy(clients, rows, texts, exact, peers):
    print()
    common.header("embeddings of the test texts", "cosine with f32, mean", "least")
    compared = {"espalier int8": embeddings(clients["int8"], texts)}
    for (peer, order), found in peers.items():
        if order == ORDERS[0]:
            compared[peer] = [found[0]["embeddings"][text] for text in texts]
    for side, found in compared.items():
        cosines = [cosine(one, other) for one, other in zip(found, exact, strict=True)]
        common.row(side, f"{sum(cosines) / len(cosines):.5f}", f"{min(cosines):.5f}")
    print()
    common.header("adapter, trained in f32", "accuracy in f32", "in int8")
    for method in METHODS:
        common.row(method, *(f"{accuracy_of(client, rows, method):.4f}" for client in clients.values()))


if __name__ == "__main__":
    main()
