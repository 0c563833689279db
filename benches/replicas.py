"""API replicas behind nginx and HAProxy with the configurations of deploy/gateway, on one database and one folder of blobs. Prints two tables.

    scripts/postgres.sh run python3 benches/replicas.py [--rounds 3] [--seconds 8] [--adapters 100]

1. The share of lookups that find their adapter in memory, with consistent hashing by adapter and with replicas in turn. The memory of a replica
   holds 60 % of the adapters. Every answer must equal that of one replica.
2. Texts per second of one replica and of two, with a core each, behind nginx. Needs two cores; the client runs beside them.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import common
import adapters
from client import Client, lines, load

GATEWAY = common.ROOT / "deploy/gateway"
BATCH, CONNECTIONS = 32, 8


def installed(program):
    if not shutil.which(program):
        subprocess.run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", program], check=True, stdout=sys.stderr)
    return program


@contextlib.contextmanager
def gateway(kind, servers):
    """A proxy in front of these addresses; its address. `kind` is nginx, haproxy, or "in turn" for nginx without hashing."""
    port, folder = common.free_port(), tempfile.TemporaryDirectory(prefix="espalier-gateway-")
    file = GATEWAY / ("haproxy.cfg" if kind == "haproxy" else "nginx.conf")
    text = file.read_text()
    text = re.sub(r"(listen|bind) (:?)8080", rf"\1 127.0.0.1:{port}", text).replace("/tmp/nginx", f"{folder.name}/nginx")
    line = re.compile(r"^.*api-2:8080.*\n", re.MULTILINE)
    text = line.sub("", text) if len(servers) == 1 else text
    for number, server in enumerate(servers, 1):
        text = text.replace(f"api-{number}:8080", server)
    if kind == "in turn":
        text = text.replace("hash $adapter_key consistent;", "")
    path = Path(folder.name) / file.name
    path.write_text(text)
    command = ["haproxy", "-f", path] if kind == "haproxy" else ["nginx", "-c", path, "-g", "daemon off;"]
    with folder, open(Path(folder.name) / "log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            ready = lambda: common.http_status(f"http://127.0.0.1:{port}/health/live") == 200
            common.until(ready, process, Path(folder.name) / "log")
            yield f"127.0.0.1:{port}"
        finally:
            common.stop(process)


def lookups(servers):
    """Hits and misses of the caches of adapters."""
    text = "".join(urllib.request.urlopen(f"http://{server}/metrics").read().decode() for server in servers)
    total = lambda name: sum(map(int, re.findall(rf"^espalier_adapter_cache_{name}_total (\d+)", text, re.MULTILINE)))
    return total("hits"), total("misses")


def hit_rate(options, program, address, servers, requests):
    load(program, address, options.seconds, CONNECTIONS, requests)
    before = lookups(servers)
    load(program, address, options.seconds, CONNECTIONS, requests)
    hits, misses = (after - first for after, first in zip(lookups(servers), before, strict=True))
    return hits / (hits + misses)


def main():
    parser = common.arguments(__doc__, 3, "espalier", "load")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--adapters", type=int, default=100)
    options = parser.parse_args()
    program, generator = common.server_program(options.espalier), common.bench_program(options.load, "load")
    database = os.environ.get("ESPALIER_TEST_POSTGRES") or sys.exit("error: run this by scripts/postgres.sh run")
    for proxy in "nginx", "haproxy":
        installed(proxy)
    texts = common.texts(common.TEST)
    names = [adapters.name(number) for number in range(options.adapters)]
    size = sum(map(len, adapters.files(0).values()))
    with tempfile.TemporaryDirectory(prefix="espalier-blobs-") as blobs, contextlib.ExitStack() as stack:
        flags = ["--role", "api", "--database-url", database, "--blob-store", f"file://{blobs}", "--serving-threads", "1",
                 "--adapter-cache-size", f"{options.adapters * size * 6 // 10}"]
        replicas = [stack.enter_context(common.Server(program, *flags, core=core)) for core in (0, 1)]
        servers = [replica.address for replica in replicas]
        for number in range(options.adapters):
            adapters.upload(Client(servers[0]), number)
        requests = lines(texts, names, 1)
        common.header("gateway", "adapters found in memory", "share of different answers")
        expected = [Client(servers[0]).predict(texts[:2], name) for name in names]
        for kind in "nginx", "haproxy", "in turn":
            with gateway(kind, servers) as address:
                client = Client(address)
                different = sum(client.predict(texts[:2], name) != answer for name, answer in zip(names, expected, strict=True))
                rates = [hit_rate(options, generator, address, servers, requests) for _ in range(options.rounds)]
                common.row(kind, common.spread([100 * rate for rate in rates], 1) + " %", f"{different / len(names):.2f}")
        common.note("")
        common.header("replicas", "texts/s", "ratio")
        requests, measured = lines(texts, names[: options.adapters // 10], BATCH), {1: [], 2: []}
        for _ in range(options.rounds):
            for count in 1, 2:
                with gateway("nginx", servers[:count]) as address:
                    load(generator, address, 2, CONNECTIONS, requests)
                    done = load(generator, address, options.seconds, CONNECTIONS, requests)
                    measured[count].append(done["requests_per_second"] * BATCH)
        ratios = [two / one for one, two in zip(measured[1], measured[2], strict=True)]
        common.row(1, common.spread(measured[1], 0), "")
        common.row(2, common.spread(measured[2], 0), common.spread(ratios))


if __name__ == "__main__":
    main()
