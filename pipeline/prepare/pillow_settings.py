"""Pillow's global settings, changed for the threads that decode photos here and for no others.

In:  whether truncated photos are accepted.  Out: a context in which Pillow decodes so, without a pixel limit or
warnings.  Pillow takes these settings as module globals only. While at least one thread is in the context, the globals
are objects with one value per thread; then the program's own values return. (Warning filters have no such objects:
warnings are ignored in all threads for as long.)
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

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

    Its limit is lower than `decode.MAX_PIXELS` may be set; the caller checks the size before a pixel is decoded.
    Warnings are about damaged metadata, which does not concern the pixels.

    Args:
        truncated: the thread's LOAD_TRUNCATED_IMAGES: decode what there is of a truncated file.
    """
    thread = threading.get_ident()
    with _lock:
        if not _threads:
            _replace()
        _threads[thread] = truncated
    try:
        yield
    finally:
        with _lock:
            del _threads[thread]
            if not _threads:
                _restore.close()


def _replace() -> None:
    _restore.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    limit = Image.MAX_IMAGE_PIXELS
    for module, name, value in (
        (Image, "MAX_IMAGE_PIXELS", None if limit is None else _PixelLimit(limit)),
        (ImageFile, "LOAD_TRUNCATED_IMAGES", _TruncatedFlag(ImageFile.LOAD_TRUNCATED_IMAGES)),
    ):
        _restore.callback(setattr, module, name, getattr(module, name))
        setattr(module, name, value)
