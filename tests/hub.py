"""A hub on the loopback address that takes uploads, and notes what it was sent."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_canary"


@dataclass
class Hub:
    """What a hub has been sent.

    Attributes:
        url: where it is.
        created: bodies of the requests to make repositories.
        files: path -> content.
        refuses: status to answer uploads with, instead of taking them.
    """

    url: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    refuses: int | None = None


@contextmanager
def running_hub(refuses: int | None = None) -> Iterator[Hub]:
    hub = Hub(refuses=refuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self._answer({"error": "no such token"}, 401)
            if self.path == "/api/repos/create":
                hub.created.append(json.loads(body))
                return self._answer({"url": f"{hub.url}/me/model", "id": "me/model"})
            if self.path == "/api/validate-yaml":
                return self._answer({"errors": [], "warnings": []})
            if hub.refuses:
                return self._answer({"error": "not today"}, hub.refuses)
            if "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                modes = [{"path": e["path"], "uploadMode": "regular"} for e in asked]
                return self._answer({"files": [{**e, "shouldIgnore": False} for e in modes]})
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    value = item["value"]
                    hub.files[value["path"]] = base64.b64decode(value["content"])
            return self._answer({"commitUrl": f"{hub.url}/me/model/commit/1", "commitOid": "1"})

        def do_GET(self) -> None:
            self._answer({"id": "me/model", "sha": "1", "siblings": []})

        def _answer(self, value: object, status: int = 200) -> None:
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
