"""A Hub on this machine, for the tests of what is fetched: the few answers that are asked for."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

REPOSITORY = "someone/small"
COMMIT = "a" * 40


def _handler(folder: Path, refusal: tuple[int, str] | None, asked: list[str]) -> type:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            if body:  # what is fetched; a HEAD asks for the size alone
                asked.append(path)
            if refusal is not None:
                status, code = refusal
                self._send(status, b"{}", {"X-Error-Code": code} if code else {}, body=body)
            elif path.startswith(f"/api/models/{REPOSITORY}/tree/"):
                files = [
                    {
                        "type": "file",
                        "path": file.name,
                        "size": file.stat().st_size,
                        "oid": _sha(file),
                    }
                    for file in sorted(folder.iterdir())
                ]
                self._send(200, json.dumps(files).encode(), {}, body=body)
            elif path.startswith(f"/api/models/{REPOSITORY}"):
                about = {"id": REPOSITORY, "sha": COMMIT, "siblings": []}
                self._send(200, json.dumps(about).encode(), {}, body=body)
            else:
                file = folder / path.rpartition("/")[2]
                headers = {"ETag": f'"{_sha(file)}"', "X-Repo-Commit": COMMIT}
                self._send(200, file.read_bytes(), headers, body=body)

        def _send(
            self, status: int, content: bytes, headers: dict[str, str], *, body: bool
        ) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

    return Handler


def _entry(file: Path) -> dict[str, object]:
    size = file.stat().st_size
    return {"type": "file", "path": file.name, "size": size, "oid": _sha(file)}


def _sha(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@contextmanager
def hub(folder: Path, refusal: tuple[int, str] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder as `REPOSITORY`; yields the address and the list of paths that are asked for.

    Args:
        folder: A model's files.
        refusal: Status and error code to answer everything with instead.
    """
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(folder, refusal, asked))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
