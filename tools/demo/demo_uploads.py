"""Photos that were sent to alexnet-demo and are not read yet.

In:  names of files, as Gradio gives them to what was sent.  Out: their bytes; a file goes when its last reader has it.
Gradio (6.31) calls a file by its bytes' digest and its name: two people who send one photo at once share one file.
"""

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
