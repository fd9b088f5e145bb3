"""The sections of a layer or parameter file of 2012, and values of a kind in them; errors name file, line and section.

In:  a text.  Out: its sections, `key=value` by key.  The rules are those of Python's old ConfigParser, which the
program used, except that a key with two values is refused: there the last counted.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ....pipeline.errors import UsageError

Values = dict[str, tuple[str, int]]  # value and line, by key in lower case
NEEDED = object()  # for a default: there is none


def read_sections(text: str, file: str) -> dict[str, tuple[int, Values]]:
    """Split a text into sections: their line, and each key's value and line."""
    found: dict[str, tuple[int, Values]] = {}
    values: Values | None = None
    for line, raw in enumerate(text.splitlines(), 1):
        row = re.split(r"\s;", raw)[0].strip()
        if not row or row[0] in "#;" or row.lower().startswith("rem "):
            continue
        if row[0] == "[" and row[-1] == "]":
            values = found.setdefault(row[1:-1].strip(), (line, {}))[1]
            continue
        key, mark, value = (
            (part.strip() for part in re.split(r"([=:])", row, maxsplit=1)) if re.search("[=:]", row) else (row, "", "")
        )
        if values is None or not mark:
            raise UsageError(f"{file}, line {line}: {row[:60]!r} is neither [a section] nor key=value")
        key = key.lower()
        if key in values and values[key][0] != value:
            raise UsageError(
                f"{file}, line {line}: {key} has another value in line {values[key][1]}", "delete one of them"
            )
        values[key] = value, line
    if not found:
        raise UsageError(f"{file}: no [section] found", "name a layer file and a parameter file of 2012")
    return found


@dataclass(frozen=True)
class Section:
    """A section of a file; `line` is 0 if the file has no such section."""

    file: str
    name: str
    line: int
    values: Values

    def error(self, what: str, hint: str = "", key: str = "") -> UsageError:
        line = self.values[key][1] if key in self.values else self.line
        return UsageError(f"{self.file}{f', line {line}' if line else ''}: [{self.name}] {what}", hint)

    def value(self, key: str, kind: str, default: Any, count: int = 1) -> Any:
        """Return a value as its kind says; a list has `count` elements."""
        if key not in self.values:
            if default is NEEDED:
                raise self.error(f"has no {key}")
            return (default,) * count if kind.endswith("s") else default
        text = self.values[key][0]
        try:
            if kind == "word":
                return text
            parts = tuple(_CONVERT[kind.removesuffix("s")](part.strip()) for part in text.split(","))
        except ValueError:
            raise self.error(f"{key}={text} is not {_WORDS[kind.removesuffix('s')]}", key=key) from None
        wanted = count if kind.endswith("s") else 1
        if len(parts) != wanted:
            raise self.error(f"{key}={text} has {len(parts)} values, not {wanted}", "one for each input", key)
        return parts if kind.endswith("s") else parts[0]


def _bool(text: str) -> bool:
    if text.lower() not in ("0", "1", "true", "false", "yes", "no", "on", "off"):
        raise ValueError
    return text.lower() in ("1", "true", "yes", "on")


_CONVERT: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": _bool}
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
