"""Opens page.html in headless Chromium and prints what the page got from the server, as JSON.

    python3 tests/browser/run.py CHROMIUM PORT SERVER KEY CHAT

The page has the origin http://localhost:PORT.
"""

import http.server
import pathlib
import subprocess
import sys
import tempfile
import threading
import urllib.parse

PAGE = pathlib.Path(__file__).with_name("page.html").read_bytes()
TIMEOUT_SECONDS = 120


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the page and takes its result."""

    def do_GET(self):
        self.send_response(200 if self.path.startswith("/?") else 404)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.end_headers()
        if self.path.startswith("/?"):
            self.wfile.write(PAGE)

    def do_POST(self):
        self.server.result = self.rfile.read(int(self.headers["content-length"])).decode()
        self.send_response(204)
        self.end_headers()
        self.server.has_result.set()

    def log_message(self, *_):
        pass


def main():
    chromium, port, server, key, chat = sys.argv[1:]
    pages = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    pages.has_result = threading.Event()
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    query = urllib.parse.urlencode({"server": server, "key": key, "chat": chat})
    with tempfile.TemporaryDirectory() as profile:
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        command = [chromium, *arguments, f"--user-data-dir={profile}", f"http://localhost:{port}/?{query}"]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        has_result = pages.has_result.wait(TIMEOUT_SECONDS)
        browser.terminate()
        browser.wait()
    if not has_result:
        sys.exit(f"the page sent no result within {TIMEOUT_SECONDS} seconds")
    print(pages.result)


if __name__ == "__main__":
    main()
