"""Read the arrays of a large JSON object element by element, so that millions of elements need little memory.

In:  a file such as `{"images": [{...}, ...], "annotations": [...]}`.  Out: its elements, each with its array's key.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from ...errors import SourceError

_BLOCK_BYTES = 1 << 20
_MOST_ELEMENT_BYTES = 64 << 20
_ENDS = ",:]} \t\r\n"  # what may follow a value


def elements(path: Path) -> Iterator[tuple[str, object]]:
    """Yield the elements of the arrays in a JSON object, one at a time, with the array's key; skip other values.

    Raises:
        SourceError: the file cannot be read, or is not a JSON object.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from _Reader(file).elements()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", "make the file readable") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: not valid JSON ({error})", "copy the file again") from None


class _Reader:
    """Decodes a JSON object from a file in blocks."""

    def __init__(self, file):
        self._file, self._text, self._place, self._ended = file, "", 0, False
        self._decode = json.JSONDecoder().raw_decode

    def elements(self) -> Iterator[tuple[str, object]]:
        """Yield the elements of the object's arrays."""
        self._expect("{")
        while self._peek() != "}":
            key = self._value()
            self._expect(":")
            if self._peek() == "[":
                self._expect("[")
                while self._peek() != "]":
                    yield str(key), self._value()
                    self._comma("]")
                self._expect("]")
            else:
                self._value()
            self._comma("}")

    def _peek(self) -> str:
        while True:
            while self._place < len(self._text) and self._text[self._place] in " \t\r\n":
                self._place += 1
            if self._place < len(self._text) or not self._more():
                return self._text[self._place : self._place + 1]

    def _expect(self, mark: str) -> None:
        if self._peek() != mark:
            raise ValueError(f"no {mark} where it should be")
        self._place += 1

    def _comma(self, end: str) -> None:
        if self._peek() != end:
            self._expect(",")

    def _value(self) -> object:
        self._peek()
        while True:
            try:
                value, end = self._decode(self._text, self._place)
            except json.JSONDecodeError:
                if not self._more():
                    raise
            else:
                mark = self._text[end : end + 1]
                if (mark and mark in _ENDS) or not self._more():  # a number may go on in the next block
                    self._place = end
                    return value

    def _more(self) -> bool:
        """Read as much again as is not yet decoded, at least a block; return whether there was more."""
        rest = self._text[self._place :]
        if len(rest) > _MOST_ELEMENT_BYTES:
            raise ValueError(f"an element has more than {_MOST_ELEMENT_BYTES >> 20} MiB")
        block = "" if self._ended else self._file.read(max(_BLOCK_BYTES, len(rest)))
        self._ended = not block
        self._text, self._place = rest + block, 0
        return bool(block)
