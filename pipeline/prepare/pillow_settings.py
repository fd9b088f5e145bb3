"""Pillow's global settings, changed for the threads that decode photos here and for no others.

In:  whether truncated photos are accepted.  Out: a context in which Pillow decodes so, without a pixel limit or
warnings.  Pillow takes these settings as module globals only. While at least one thread is in the context, the globals
are objects with one value per thread; then the program's own values return. (Warning filters have no such objects:
warnings are ignored in all threads for as long.)
"""

import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from PIL import Image, ImageFile

_lock = threading.Lock()
_threads: dict[int, bool] = {}  # in the context, by thread: whether it accepts truncated photos
_restore = ExitStack()


class _PixelLimit(int):
    """A MAX_IMAGE_PIXELS that no picture exceeds in the context, by Pillow's check `pixels > 2 * MAX_IMAGE_PIXELS`."""

    def __rmul__(self, factor: int) -> "_PixelLimit":
        return _PixelLimit(factor * int(self))

    def __lt__(self, pixels: int) -> bool:
        return threading.get_ident() not in _threads and int(self) < pixels


class _TruncatedFlag:
    """A LOAD_TRUNCATED_IMAGES that is each thread's own in the context."""

    def __init__(self, value: object):
        self._value = bool(value)

    def __bool__(self) -> bool:
        return _threads.get(threading.get_ident(), self._value)


@contextmanager
def pillow_settings(*, truncated: bool) -> Iterator[None]:
    """Let Pillow decode in this thread without its pixel limit and without warnings. Not reentrant.

    The limit may be lower than what `decode.MAX_PIXELS` is set to; the caller checks the size before it decodes pixels.
    Warnings are about damaged metadata, which does not concern the pixels.

    Args:
        truncated: the thread's LOAD_TRUNCATED_IMAGES: decode what there is of a truncated file.
    """
    thread = threading.get_ident()
    with _lock:
        if not _threads:
            _restore.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        limit, flag = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        if limit is not None and not isinstance(limit, _PixelLimit):
            _replace(Image, "MAX_IMAGE_PIXELS", _PixelLimit(limit) if math.isfinite(limit) else None)
        if not isinstance(flag, _TruncatedFlag):
            _replace(ImageFile, "LOAD_TRUNCATED_IMAGES", _TruncatedFlag(flag))
        _threads[thread] = truncated
    try:
        yield
    finally:
        with _lock:
            del _threads[thread]
            if not _threads:
                _restore.close()


def _replace(module: Any, name: str, stand_in: object) -> None:
    """Replace a global until `_restore` is closed, which leaves it alone if the program has set it anew meanwhile."""
    own = getattr(module, name)

    def restore() -> None:
        if getattr(module, name) is stand_in:
            setattr(module, name, own)

    _restore.callback(restore)
    setattr(module, name, stand_in)


def _after_fork() -> None:
    """Return to the program's own values: the threads that were decoding do not exist in the child."""
    global _lock  # noqa: PLW0603, the old one may be locked for ever
    _lock = threading.Lock()
    _threads.clear()
    _restore.close()


os.register_at_fork(after_in_child=_after_fork)
