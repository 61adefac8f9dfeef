"""A real HTTP server on 127.0.0.1 that can break, refuse, redirect, lie and change its files."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class Site:
    """What the server has, how it behaves, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.ranges = True
        self.validators = True
        self.honours_if_range = True
        self.chunked = False
        self.silent_length = False
        self.statuses: list[int] = []
        """Answers to the next GETs, before it works."""
        self.cuts: list[int] = []
        """Bytes of the body after which the next GETs are cut off."""
        self.declared: int | None = None
        """A length that it claims instead of the true one."""
        self.stall_after: int | None = None
        self.go_on = threading.Event()
        self.asked: list[tuple[str, str, str]] = []
        """Method, path and Range of each request."""
        self.address = ""

    def bodies(self) -> list[tuple[str, str]]:
        """Path and Range of each GET."""
        return [(path, span) for method, path, span in self.asked if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, format, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        site, path = self.site, unquote(self.path)
        span = self.headers.get("Range", "")
        site.asked.append((self.command, path, span))
        self.close_connection = True
        if body and site.statuses:
            return self.send_error(site.statuses.pop(0))
        if path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[path])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if path not in site.files:
            return self.send_error(404)
        content = site.files[path]
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        same = not site.honours_if_range or self.headers.get("If-Range") in (None, tag)
        start = int(span[6:-1]) if span and site.ranges and same else 0
        if start >= len(content) > 0:
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            whole = len(content)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        if site.validators:
            self.send_header("ETag", tag)
        if site.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif not site.silent_length:
            self.send_header("Content-Length", str(site.declared or len(content) - start))
        self.end_headers()
        if body:
            self.send_body(content[start:])

    def send_body(self, content):
        site = self.site
        if site.stall_after is not None:
            self.wfile.write(content[: site.stall_after])
            self.wfile.flush()
            site.go_on.wait(20)
            return
        if site.cuts:
            content = content[: site.cuts.pop(0)]
        if site.chunked:
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content))
        else:
            self.wfile.write(content)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A client that leaves in the middle is nothing to print."""


@contextmanager
def serving() -> Iterator[Site]:
    site = Site()
    handler = type("BoundHandler", (Handler,), {"site": site})
    server = Server(("127.0.0.1", 0), handler)
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        site.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[str, int, int | None]] = []
        self.errands: list = []

    def fetching(self, step, done, total):
        self.steps.append((step, done, total))

    def fetch_note(self, text):
        self.notes.append(text)

    def to_fetch(self, errand):
        self.errands.append(errand)
