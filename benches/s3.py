"""An S3 server on a temporary folder: s3s-fs, which cargo builds into target/tools once."""

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

import common

VERSION = "0.14.1"
ROOT = common.ROOT / "target/tools"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key-of-the-benchmarks", "AWS_SECRET_ACCESS_KEY": "secret-of-the-benchmarks"}


def program():
    found = ROOT / "bin/s3s-fs"
    if not found.exists():
        common.note("building an S3 server")
        install = ["cargo", "install", "--quiet", "--locked", "--root", ROOT, f"s3s-fs@{VERSION}", "--features", "binary"]
        subprocess.run(install, check=True)
    return found


@contextlib.contextmanager
def server(port):
    """Serves the bucket `espalier`; the URL for --blob-store. Servers of this process get the credentials in their environment."""
    os.environ.update(CREDENTIALS)
    with tempfile.TemporaryDirectory(prefix="espalier-s3-") as folder:
        objects = Path(folder) / "objects"
        (objects / "espalier").mkdir(parents=True)
        log = Path(folder) / "log"
        keys = ["--access-key", CREDENTIALS["AWS_ACCESS_KEY_ID"], "--secret-key", CREDENTIALS["AWS_SECRET_ACCESS_KEY"]]
        with log.open("w") as opened:
            process = subprocess.Popen([program(), "--host", "127.0.0.1", "--port", str(port), *keys, objects], stdout=opened, stderr=opened)
        try:
            # It refuses a request without a signature.
            common.until(lambda: common.http_status(f"http://127.0.0.1:{port}/"), process, log)
            yield f"s3://espalier/blobs?endpoint=http://127.0.0.1:{port}&region=us-east-1"
        finally:
            common.stop(process)
