"""A stand-in for the Hugging Face hub on this machine: takes what its client uploads, and notes every request."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What the stand-in got.

    Attributes:
        address: its URL.
        requests: method and path of each request.
        created: what new repositories were created with.
        files: contents of the committed files, by path.
        tokens: the authorisation of each request.
        refuses: status of the answer to every upload; 0 accepts.
    """

    def __init__(self) -> None:
        self.address = ""
        self.requests: list[str] = []
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.refuses = 0
        self._large: dict[str, bytes] = {}

    def answer(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        path = path.partition("?")[0]
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            name = "/".join(filter(None, (self.created[-1].get("organization"), self.created[-1]["name"])))
            return {"url": f"{self.address}/{name}"}
        if "/preupload/" in path:
            mode = lambda name: "lfs" if name.endswith(".safetensors") else "regular"  # noqa: E731
            names = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": n, "uploadMode": mode(n), "shouldIgnore": False} for n in names]}
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            upload = lambda oid: {"upload": {"href": f"{self.address}/large/{oid}"}}  # noqa: E731
            return {"transfer": "basic", "objects": [{**o, "actions": upload(o["oid"])} for o in objects]}
        if path.startswith("/large/"):
            self._large[path.removeprefix("/large/")] = body
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    self.files[value["path"]] = self._large[value["oid"]]
            return {"commitUrl": f"{self.address}/someone/net/commit/abc", "commitOid": "abc"}
        return {}


@contextmanager
def hub() -> Iterator[Hub]:
    """Starts a stand-in; set HF_ENDPOINT to its address."""
    here = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            here.requests.append(f"{self.command} {self.path}")
            here.tokens.add(self.headers.get("Authorization"))
            text = json.dumps(here.answer(self.command, self.path, body)).encode()
            self.send_response(here.refuses or 200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_HEAD = _any

        def log_message(self, *_: Any) -> None:
            """Prints nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield here
    finally:
        server.shutdown()
