"""A proxy between an S3 client and a server that does to requests what networks do.

One request a connection. `fault_of` is asked for each request; what it names happens:
refuse         an answer of 503 SlowDown; the server sees nothing
drop_request   the connection ends in the middle of the request's body
lose_answer    the server does its work, and the client never hears of it
truncate       half of the answer's body, then the connection ends
trickle        the answer in small pieces
stall          no answer until the proxy is released, then none
flip_request   one bit of the request's body is turned over on its way
flip_answer    one bit of the answer's body is turned over on its way
"""

import dataclasses
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

PIECE_BYTES, PIECE_S = 2**16, 0.002
PATIENCE_S = 60.0
SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code>"
    b"<Message>Please reduce your request rate</Message></Error>"
)


@dataclasses.dataclass(frozen=True)
class Request:
    method: str
    path: str  # with the query
    range: str | None
    body_bytes: int

    @property
    def is_part(self) -> bool:
        return self.method == "PUT" and "partNumber=" in self.path

    @property
    def is_data(self) -> bool:
        return self.method == "GET" and self.range is not None


class FaultyProxy(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, upstream_url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        parts = urlsplit(upstream_url)
        self.upstream = (parts.hostname, parts.port)
        self.requests: list[Request] = []
        self.fault_of: Callable[[Request], str | None] = lambda request: None
        self.released = threading.Event()
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    def times(self, fault: str, count: int, which: Callable[[Request], bool]) -> None:
        """Let a fault befall the first so many requests of a kind."""
        left = [count]

        def fault_of(request: Request) -> str | None:
            if which(request) and left[0] > 0:
                left[0] -= 1
                return fault
            return None

        self.fault_of = fault_of

    def noted(self, request: Request) -> str | None:
        with self.lock:
            self.requests.append(request)
            return self.fault_of(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no news."""


class _Connection(socketserver.StreamRequestHandler):
    server: FaultyProxy

    def handle(self) -> None:
        head = self._head()
        if not head:
            return
        dropped = (b"connection:", b"expect:")
        lines = [line for line in head if not line.lower().startswith(dropped)]
        if b"expect: 100-continue" in (line.lower() for line in head):
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        headers = dict(line.decode("latin-1").lower().split(": ", 1) for line in lines[1:])
        method, path, _ = lines[0].decode("latin-1").split(" ", 2)
        size = int(headers.get("content-length", 0))
        request = Request(method, path, headers.get("range"), size)
        fault = self.server.noted(request)
        if fault == "drop_request":
            self.rfile.read(size // 2)
            return
        body = self.rfile.read(size)
        if fault == "refuse":
            self._say(b"HTTP/1.1 503 Slow Down", SLOW_DOWN)
            return
        if fault == "stall":
            self.server.released.wait(PATIENCE_S)
            return
        if fault == "flip_request":
            body = _flipped(body)
        sent = b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body
        self._answer(self._ask(sent), fault)

    def _answer(self, answer: bytes, fault: str | None) -> None:
        if fault == "lose_answer":
            return
        head, _, body = answer.partition(b"\r\n\r\n")
        if fault == "truncate":
            body = body[: len(body) // 2]
        if fault == "flip_answer":
            body = _flipped(body)
        whole = head + b"\r\n\r\n" + body
        pieces = [whole]
        if fault == "trickle":
            pieces = [whole[at : at + PIECE_BYTES] for at in range(0, len(whole), PIECE_BYTES)]
        for piece in pieces:
            self.wfile.write(piece)
            time.sleep(PIECE_S if fault == "trickle" else 0)

    def _head(self) -> list[bytes]:
        lines = []
        while line := self.rfile.readline().rstrip(b"\r\n"):
            lines.append(line)
        return lines

    def _ask(self, sent: bytes) -> bytes:
        with socket.create_connection(self.server.upstream, timeout=PATIENCE_S) as upstream:
            upstream.sendall(sent)
            return b"".join(iter(lambda: upstream.recv(2**20), b""))

    def _say(self, status: bytes, body: bytes) -> None:
        length = str(len(body)).encode()
        self.wfile.write(
            status + b"\r\nConnection: close\r\nContent-Length: " + length + b"\r\n\r\n" + body
        )


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data
