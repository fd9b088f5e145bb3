"""What a browser may ask of alexnet-demo's server, and what it may load: nothing that is not the page's own.

In:  requests and answers of an ASGI application.  Out: the same, or a refusal.
Gradio checks the paths of files that it is told to look at only where its own `launch` serves it, and of addresses
fetches what is there (6.31); so both are refused here.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .crop import read_upload

AGE = 600  # seconds until a file that nobody came to read is taken away, by Gradio


class Uploads:
    """The folder of uploads, and how many still want to read each."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic):
        self.folder = folder.resolve()
        self._clock = clock
        self._lock = threading.Lock()
        self._sent: dict[Path, list[float]] = {}  # when, for each that was not read

    def came(self, files: Iterable[str]) -> None:
        """Files were sent, each by somebody who will want it read."""
        now = self._clock()
        with self._lock:
            waiting = {file: [when for when in sent if now - when < AGE] for file, sent in self._sent.items()}
            self._sent = {file: sent for file, sent in waiting.items() if sent}
            for file in files:
                self._sent.setdefault(Path(file).resolve(), []).append(now)

    def take(self, file: Path, most: int) -> bytes:
        """Read a file of at most so many bytes, and delete it: it alone, and not where another waits for it.

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


LONGEST = 1 << 20  # bytes of a request that is no upload: all of it is held in memory
# Whatever Gradio's page or a library in it might want from elsewhere, the browser refuses.
POLICY = "; ".join(
    [
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:",
        "object-src 'none'",
        "frame-ancestors 'self'",
        "form-action 'self'",
    ]
)


def guard(app, uploads: Uploads) -> None:
    """Put the guard before all of an application's answers.

    Args:
        app: a FastAPI application.
        uploads: whose files a browser may name; is told of each that has come.
    """
    from fastapi import Request, Response

    @app.middleware("http")
    async def checked(request: Request, call_next):
        length = request.headers.get("content-length", "")
        sends_files = request.headers.get("content-type", "").startswith("multipart/form-data")
        if request.method == "POST" and not sends_files and not (length.isdecimal() and int(length) <= LONGEST):
            return Response("too long, or of unknown length", status_code=413)
        if request.method == "POST" and not sends_files and names_foreign_files(await request.body(), uploads.folder):
            return Response("only uploads can be looked at", status_code=403)
        uploading = request.method == "POST" and request.url.path.endswith("/upload")
        if uploading:  # the answer is read here, so it must not come compressed
            request.scope["headers"] = [one for one in request.scope["headers"] if one[0] != b"accept-encoding"]
        response = await call_next(request)
        if uploading and response.status_code == 200:
            body = b"".join([part async for part in response.body_iterator])
            uploads.came(json.loads(body))
            response = Response(body, headers=dict(response.headers))
        if response.status_code == 404 and request.url.path.endswith("/upload_progress"):
            # Gradio's page asks after uploads that it has refused itself, and shows a 404 in the console (6.31).
            response = Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response


def names_foreign_files(body: bytes, uploads: Path) -> bool:
    """Whether a request's JSON names a file, or an address, outside the folder of uploads."""
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):
        return False  # not JSON: Gradio does not read it either
    inside = uploads.resolve()
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            path = one.get("path")
            try:
                if isinstance(path, str) and inside not in Path(path).resolve().parents:
                    return True
            except (OSError, ValueError):  # no path at all: a zero byte, a name too long
                return True
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return False
