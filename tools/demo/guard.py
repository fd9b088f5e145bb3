"""The requests that alexnet-demo's server accepts, and the deletion of uploads.

In:  requests and responses of an ASGI application.  Out: the same, or a 4xx response.
Gradio (6.31) checks the paths in requests only when its own `launch` serves it, and it fetches URLs in requests; so
requests with a foreign path or a URL are rejected here.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .crop import read_upload

AGE = 600  # seconds until Gradio deletes an upload that was not read


class Uploads:
    """The folder of uploads, and the number of outstanding reads of each file."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic):
        self.folder = folder.resolve()
        self._clock = clock
        self._lock = threading.Lock()
        self._sent: dict[Path, list[float]] = {}  # upload times of each file's outstanding reads

    def register(self, files: Iterable[str]) -> None:
        """Register uploaded files; each upload is read once."""
        now = self._clock()
        with self._lock:
            waiting = {file: [when for when in sent if now - when < AGE] for file, sent in self._sent.items()}
            self._sent = {file: sent for file, sent in waiting.items() if sent}
            for file in files:
                self._sent.setdefault(Path(file).resolve(), []).append(now)

    def take(self, file: Path, most: int) -> bytes:
        """Read a file of at most `most` bytes and delete it, unless another read of it is outstanding.

        Raises:
            UsageError: see `read_upload`.
        """
        file = file.resolve()
        try:
            return read_upload(file, most)
        finally:
            with self._lock:
                others = self._sent.pop(file, [])[1:]
                if others:
                    self._sent[file] = others
                elif self.folder in file.parents:
                    file.unlink(missing_ok=True)


LONGEST = 1 << 20  # most bytes of a request without a file; it is held in memory
# The browser blocks whatever Gradio's page or its libraries request from other hosts.
POLICY = "; ".join(
    [
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:",
        "object-src 'none'",
        "frame-ancestors 'self'",
        "form-action 'self'",
    ]
)


def guard(app, uploads: Uploads) -> None:
    """Check all requests of an application and register its uploads.

    Args:
        app: a FastAPI application.
        uploads: the only folder whose files a request may name.
    """
    from fastapi import Request, Response

    @app.middleware("http")
    async def checked(request: Request, call_next):
        length = request.headers.get("content-length", "")
        sends_files = request.headers.get("content-type", "").startswith("multipart/form-data")
        if request.method == "POST" and not sends_files and not (length.isdecimal() and int(length) <= LONGEST):
            return Response("the request is too long, or its length is unknown", status_code=413)
        if request.method == "POST" and not sends_files and names_foreign_files(await request.body(), uploads.folder):
            return Response("only uploaded files can be processed", status_code=403)
        uploading = request.method == "POST" and request.url.path.endswith("/upload")
        if uploading:  # the response is parsed below, so it must not be compressed
            request.scope["headers"] = [one for one in request.scope["headers"] if one[0] != b"accept-encoding"]
        response = await call_next(request)
        if uploading and response.status_code == 200:
            body = b"".join([part async for part in response.body_iterator])
            uploads.register(json.loads(body))
            response = Response(body, headers=dict(response.headers))
        if response.status_code == 404 and request.url.path.endswith("/upload_progress"):
            # Gradio (6.31) requests the progress of uploads that it has rejected; a 404 would appear in the console.
            response = Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response


def names_foreign_files(body: bytes, uploads: Path) -> bool:
    """Return whether a request's JSON names a file outside the folder of uploads, or a URL."""
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):
        return False  # not JSON: Gradio cannot parse it either
    inside = uploads.resolve()
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            path = one.get("path")
            try:
                if isinstance(path, str) and inside not in Path(path).resolve().parents:
                    return True
            except (OSError, ValueError):  # not a valid path: a zero byte, a name that is too long
                return True
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return False
