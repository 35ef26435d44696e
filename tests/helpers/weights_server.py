"""A server of weight files on this machine, and small files to serve."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


def onnx_bytes(outputs: int, padding_bytes: int = 0) -> bytes:
    """The skeleton of an ONNX file: version, padding as one weight, that many outputs."""

    def field(number: int, content: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(content)) + content

    def varint(value: int) -> bytes:
        low = [value >> shift & 0x7F | 0x80 for shift in range(0, 35, 7)]
        return bytes([*low[:-1], low[-1] & 0x7F])

    graph = field(5, bytes(padding_bytes)) + b"".join(field(12, b"out") for _ in range(outputs))
    return b"\x08\x07" + field(7, graph)


class Server:
    """What the server answers, by path, and what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[tuple[str, str | None]] = []
        """Path and Range of every request."""
        self.url = ""

    def serve(
        self,
        path: str,
        content: bytes,
        *,
        cut_after_bytes: list[int] | None = None,
        ranges: bool = True,
        content_type: str = "application/octet-stream",
        announced_bytes: int | None = None,
    ) -> str:
        """`cut_after_bytes`: one number per request that breaks; later ones are whole."""
        cuts = iter(cut_after_bytes or ())
        etag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'

        def answer(request: BaseHTTPRequestHandler) -> None:
            wanted = request.headers.get("Range") if ranges else None
            if wanted and request.headers.get("If-Range", etag) == etag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                request.send_response(206)
                span = f"bytes {start}-{len(content) - 1}/{len(content)}"
                request.send_header("Content-Range", span)
            else:
                start = 0
                request.send_response(200)
            request.send_header("Content-Type", content_type)
            request.send_header("ETag", etag)
            request.send_header("Content-Length", str(announced_bytes or len(content) - start))
            request.end_headers()
            request.wfile.write(content[start : start + next(cuts, len(content))])

        self.answers[path] = answer
        return self.url + path


@contextmanager
def serving(patch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server in a thread of its own, which is joined at the end."""
    patch.setenv("no_proxy", "*")
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Range")))
            if self.path not in state.answers:
                return self.send_error(404)
            with suppress(ConnectionError):  # a client that has read enough hangs up
                state.answers[self.path](self)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = False  # so that closing joins them and no socket outlives the test
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
