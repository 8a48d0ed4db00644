"""A model hub on this machine: one repository, as huggingface_hub's client asks for it."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

REPOSITORY = "plant/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `files` by name under REPOSITORY and remembers which were handed out."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.files = files
        self.handed_out: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        self.server_close()


class _Asked(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = urlsplit(self.path).path
        if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            self._send(json.dumps(self._tree()).encode(), body=body)
        elif path.startswith(f"/api/models/{REPOSITORY}"):
            self._send(json.dumps({"id": REPOSITORY, "sha": COMMIT}).encode(), body=body)
        elif path.startswith(f"/{REPOSITORY}/resolve/"):
            self._hand_out(path.split("/resolve/")[1].partition("/")[2], body=body)
        else:
            self._refuse("RepoNotFound")

    def _tree(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in self.server.files.items()
        ]

    def _hand_out(self, name: str, *, body: bool) -> None:
        if name not in self.server.files:
            self._refuse("EntryNotFound")
            return
        data = self.server.files[name]
        if body:
            self.server.handed_out.add(name)
        self._send(data, body=body, etag=hashlib.sha1(data).hexdigest())

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, data: bytes, *, body: bool, etag: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        if etag:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if body:
            self.wfile.write(data)
