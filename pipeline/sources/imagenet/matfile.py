"""Read an array of structs, of numbers or of strings from a MATLAB file of version 5 to 7.2, such as `meta.mat`.

In:  bytes.  Out: strings and numbers.  SciPy's reader (1.17) can crash the interpreter on a file with one flipped bit.
Here every length is checked before use, damaged files raise MatError, values of other types (functions, objects) are
skipped, and nothing in a file is executed.

A file is a header of 128 bytes and elements: type, length, data, padded to 8 bytes. An array is an element whose data
are again elements: flags, dimensions, name, and its values (MathWorks, "MAT-File Format", chapter 1).
"""

import zlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

Value = str | float
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR, _DOUBLE, _UINT64 = 1, 2, 4, 6, 15


class MatError(ValueError):
    """The file is damaged or of another format."""


class _Array(NamedTuple):
    """An array whose values are not read yet: their number, and the offset in `data` where they begin."""

    kind: int
    size: int
    name: str
    data: memoryview
    place: int


def read_structs(data: bytes, name: str, fields: tuple[str, ...], most_bytes: int) -> list[tuple[Value, ...]]:
    """Read some fields of an array of structs, or of a cell array of structs.

    Args:
        data: the content of the file.
        name: name of the variable.
        fields: names of the fields; each must be a string or a single number; empty arrays are empty strings.
        most_bytes: maximum size of the unpacked variable.
    Returns:
        A tuple of the fields' values for each struct, in the array's order.
    Raises:
        MatError: the file is damaged, of another version or too large, or lacks the variable or a field.
    """
    reader, array = _variable(data, name, most_bytes)
    structs = reader.arrays(array) if array.kind == _CELL else iter([array])
    return [row for struct in structs for row in reader.rows(struct, fields)]


def read_numbers(data: bytes, name: str, most_bytes: int) -> list[float]:
    """Read an array of numbers, in the order of the file; otherwise as `read_structs`."""
    reader, array = _variable(data, name, most_bytes)
    return reader.numbers(array, name)


def read_texts(data: bytes, name: str, most_bytes: int) -> list[str]:
    """Read a cell array of strings, in the order of the file; otherwise as `read_structs`."""
    reader, array = _variable(data, name, most_bytes)
    cells = list(reader.arrays(array)) if array.kind == _CELL else []
    if array.kind != _CELL or any(cell.kind != _CHAR for cell in cells):
        raise MatError(f"{name} is not a cell array of strings")
    return [reader.text(cell) if cell.size else "" for cell in cells]


def _variable(data: bytes, name: str, most_bytes: int) -> "tuple[_Reader, _Array]":
    """Return a variable of a file, and the reader for its parts."""
    if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
        raise MatError("not a MATLAB file of version 5")
    reader = _Reader("little" if data[126:128] == b"IM" else "big")
    if int.from_bytes(data[124:126], reader.order) != 0x0100:
        raise MatError("not a MATLAB file of version 5, but of another")
    for array in reader.variables(memoryview(data)[128:], name, most_bytes):
        return reader, array
    raise MatError(f"no variable {name}")


class _Reader:
    """Reads elements in a given byte order."""

    def __init__(self, order: Literal["little", "big"]):
        self.order = order
        self.prefix = "<" if order == "little" else ">"

    def variables(self, data: memoryview, name: str, most_bytes: int) -> Iterator[_Array]:
        """Yield the variables with this name; of other compressed ones only the first kilobyte is unpacked."""
        place = 0
        while place < len(data):
            kind, part, place = self.element(data, place)
            if kind == _COMPRESSED:
                start = memoryview(_unpack(part, 1024))
                if len(start) < 8 or self.array(start[8:]).name != name:
                    continue
                unpacked = _unpack(part, most_bytes + 1)
                if len(unpacked) > most_bytes:
                    raise MatError(f"{name} unpacks to more than {most_bytes >> 20} MiB")
                kind, part, _ = self.element(memoryview(unpacked), 0)
            if kind == _MATRIX and (array := self.array(part)).name == name:
                yield array

    def rows(self, struct: _Array, fields: tuple[str, ...]) -> Iterator[tuple[Value, ...]]:
        """Yield the fields' values of every struct in an array."""
        if struct.kind != _STRUCT:
            raise MatError(f"{struct.name or 'a value'} is not an array of structs")
        _, width, place = self.element(struct.data, struct.place)
        _, names, place = self.element(struct.data, place)
        each = int.from_bytes(width, self.order)
        if not names or each < 1 or len(names) % each:
            raise MatError("field names are damaged")
        existing = [
            bytes(names[k : k + each]).partition(b"\0")[0].decode("latin-1") for k in range(0, len(names), each)
        ]
        if missing := [field for field in fields if field not in existing]:
            raise MatError(f"no field {', '.join(missing)}")
        for _ in range(struct.size):
            row: dict[str, Value] = {}
            for field in existing:
                part, place = self.matrix(struct.data, place)
                if field in fields:
                    row[field] = self.value(part, field)
            yield tuple(row[field] for field in fields)

    def arrays(self, cells: _Array) -> Iterator[_Array]:
        """Yield the arrays in a cell array."""
        place = cells.place
        for _ in range(cells.size):
            part, place = self.matrix(cells.data, place)
            yield self.array(part)

    def value(self, part: memoryview, field: str) -> Value:
        """Return an array as a string or number."""
        if not part:
            return ""
        array = self.array(part)
        if array.size == 0:
            return ""
        if array.kind == _CHAR:
            return self.text(array)
        if not _DOUBLE <= array.kind <= _UINT64 or array.size != 1:
            raise MatError(f"the field {field} is neither a string nor a single number")
        return self.numbers(array, field)[0]

    def numbers(self, array: _Array, name: str) -> list[float]:
        """Return an array of numbers."""
        if not _DOUBLE <= array.kind <= _UINT64:
            raise MatError(f"{name} is not an array of numbers")
        kind, data, _ = self.element(array.data, array.place)
        number = np.dtype(self.prefix + _NUMBERS[kind]) if kind in _NUMBERS else None
        if number is None or len(data) != number.itemsize * array.size:
            raise MatError(
                f"the number{'s' * (array.size != 1)} in {name} {'is' if array.size == 1 else 'are'} damaged"
            )
        return np.frombuffer(data, number).astype(float).tolist()

    def text(self, array: _Array) -> str:
        """Return a character array of one row as a string."""
        kind, data, _ = self.element(array.data, array.place)
        encoding = _TEXTS.get(kind, "")
        if not encoding:
            raise MatError("a string is damaged")
        order = "" if "-8" in encoding or encoding == "latin-1" else f"-{self.order[0]}e"
        return bytes(data).decode(encoding + order, "replace")

    def array(self, part: memoryview) -> _Array:
        """Read the header of an array: type, dimensions and name."""
        _, flags, place = self.element(part, 0)
        kind, dimensions, place = self.element(part, place)
        _, name, place = self.element(part, place)
        if len(flags) != 8 or kind != 5 or len(dimensions) % 4 or len(dimensions) < 8:
            raise MatError("an array's header is damaged")
        count = 1
        for dimension in np.frombuffer(dimensions, f"{self.prefix}i4").tolist():
            if dimension < 0:
                raise MatError("an array's dimensions are damaged")
            count *= dimension
        flag = int.from_bytes(flags[:4], self.order)
        return _Array(flag & 0xFF, count, bytes(name).decode("latin-1"), part, place)

    def matrix(self, data: memoryview, place: int) -> tuple[memoryview, int]:
        """Return the data of the element at `place`, which must be an array, and the offset of the next one."""
        kind, part, place = self.element(data, place)
        if kind != _MATRIX:
            raise MatError("a value is not an array")
        return part, place

    def element(self, data: memoryview, place: int) -> tuple[int, memoryview, int]:
        """Return type and data of the element at `place`, and the offset of the next one."""
        if place + 8 > len(data):
            raise MatError("it is truncated")
        kind = int.from_bytes(data[place : place + 4], self.order)
        if small := kind >> 16:  # up to four bytes are stored in the tag itself
            if small > 4:
                raise MatError("an element is damaged")
            return kind & 0xFFFF, data[place + 4 : place + 4 + small], place + 8
        size = int.from_bytes(data[place + 4 : place + 8], self.order)
        end = place + 8 + size
        if end > len(data):
            raise MatError("it is truncated")
        return kind, data[place + 8 : end], end if kind == _COMPRESSED else end + -size % 8


def _unpack(data: memoryview, most_bytes: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, most_bytes)
    except zlib.error as error:
        raise MatError(f"it cannot be unpacked ({error})") from None
