"""Where the members of a tar lie, so that they can be read in place: nothing is ever unpacked.

In:  a tar, or a tar within a tar, which is a window of the outer file.  Out: name, offset and size of every file in
it. Reads headers only, one block of 512 bytes a member, and keeps no other objects: 14 us and 200 bytes a member.

Python's `tarfile` parses the headers, but does not walk: at a damaged header it stops as if the tar ended there,
and half of the photos would be gone without a word. Here a tar that does not end as tars end is an error.
"""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import SourceError

MD5SUMS = {  # of the originals of 2012
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
    "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
}
_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_LONGEST_EXTENSION = 1 << 20  # bytes of a long name; real ones have hundreds
_MOST_PADDING = 128 << 10  # bytes from the end mark on; tar pads to 10 KiB, with --blocking-factor to more
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

_EXTENSIONS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE),
)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes

_Read = Callable[[int, int], bytes]  # (offset, bytes), as os.pread


class Member(NamedTuple):
    """A regular file in a tar: its name as it stands there, a label and never a path to write to; where it lies."""

    name: str
    offset: int
    bytes: int


def members(
    path: Path, *, offset: int = 0, size: int | None = None, inner: str = "", skipped: list[str] | None = None
) -> list[Member]:
    """List the regular files of a tar; of two with one name the last, as tar itself would leave it on disk.

    Hidden files, such as the `._` twins that a Mac adds, are left out.

    Args:
        offset, size: the window of the file that is the tar; by default all of it. Offsets of members count from
            the file's beginning.
        inner: what the window is called, for messages.
        skipped: gets the names of links, folders and devices, which are not followed.
    Raises:
        SourceError: it cannot be read, is no tar, is compressed, ends too early, or is damaged.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", "name a folder whose archives can be read") from None
    try:
        end = os.fstat(handle).st_size if size is None else offset + size
        return _members(lambda start, count: os.pread(handle, count, start), offset, end, path, inner, skipped)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", "when it can be read again, run the same command") from None
    finally:
        os.close(handle)


def members_in_memory(data: bytes, path: Path) -> list[Member]:
    """List the regular files of a tar that lies in memory; `path` is what messages call it."""
    return _members(lambda start, count: data[start : start + count], 0, len(data), path, "", None)


def original_hint(path: Path) -> str:
    """What to do about an archive that is not as it was made."""
    known = MD5SUMS.get(path.name)
    compare = f"compare its size with the original's and run: md5sum {path}"
    return f"{compare}  (the original: {known})" if known else compare


def _members(read: _Read, start: int, end: int, path: Path, inner: str, skipped: list[str] | None) -> list[Member]:
    found: dict[str, Member] = {}
    where = f"{path}: {inner}" if inner else f"{path}"
    hint = original_hint(path)
    place = start
    last = ""  # the member before
    name: str | None = None  # what extension headers say of the member after them
    long_size: int | None = None
    while True:
        block = read(place, max(0, min(_BLOCK, end - place)))
        if block == _ZEROS:
            _check_end(read, place, end, where, hint)
            return list(found.values())
        info = _header(block)
        if info is None or info.size < 0:
            if place == start:
                _refuse(block, where, path)
            what = "is damaged" if len(block) == _BLOCK else "is cut short: it has no end mark"
            raise SourceError(f"{where}: {what} at byte {place:,}, after {last or 'a header'}", hint)
        is_extension = info.type in _EXTENSIONS
        size = info.size if long_size is None or is_extension else long_size
        if info.type in _WITHOUT_DATA:  # a link's size is its target's
            size = 0
        data = place + _BLOCK
        if data + size > end:
            raise SourceError(
                f"{where}: is cut short within {name or info.name}: it has {size:,} bytes from byte {data:,} on, "
                f"but the archive ends at byte {end:,}",
                hint,
            )
        place = data + -(-size // _BLOCK) * _BLOCK
        if is_extension:
            if size > _LONGEST_EXTENSION:
                raise SourceError(f"{where}: is damaged: a name of {size:,} bytes at byte {data:,}", hint)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = _text(read(data, size).rstrip(b"\0"))
            elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                name, long_size = _pax(read(data, size), name, long_size, f"{where}: byte {data:,}", hint)
            continue
        last = name or info.name
        name = long_size = None
        if info.type == tarfile.GNUTYPE_SPARSE:
            _refuse_sparse(f"{where}: {last}")
        if info.type not in _REGULAR:
            if skipped is not None:
                skipped.append(last)
        elif not last.rsplit("/", 1)[-1].startswith("."):
            found.pop(last, None)
            found[last] = Member(last, data, size)


def _header(block: bytes) -> tarfile.TarInfo | None:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None


def _check_end(read: _Read, place: int, end: int, where: str, hint: str) -> None:
    """After the end mark there is padding only: a hole that a stopped download left looks like an end mark, too."""
    rest = end - place
    if rest > _MOST_PADDING:
        raise SourceError(f"{where}: is damaged: zeros at byte {place:,}, but {rest:,} bytes follow", hint)
    if read(place, rest).strip(b"\0"):
        raise SourceError(f"{where}: is damaged: more data after the end mark at byte {place:,}", hint)


def _refuse(block: bytes, where: str, path: Path) -> None:
    """Say what a file is that does not begin as a tar does."""
    for magic, program in _COMPRESSED.items():
        if block.startswith(magic):
            raise SourceError(
                f"{where}: is compressed with {program}, so photos cannot be read from the middle of it",
                f"unpack it first: {program} -dc {path} > {path}.new && mv {path}.new {path}",
            )
    raise SourceError(f"{where}: is not a tar: it begins with {block[:16]!r}", original_hint(path))


def _refuse_sparse(where: str) -> None:
    raise SourceError(f"{where}: is stored with holes (sparse)", "pack the archive again without tar's --sparse")


def _pax(data: bytes, name: str | None, size: int | None, where: str, hint: str) -> tuple[str | None, int | None]:
    """Name and size from the records of a PAX header: `LENGTH KEY=VALUE` and a new line, LENGTH counting all of it."""
    while data.strip(b"\0"):
        length, blank, _ = data.partition(b" ")
        count = int(length) if length.isdigit() and len(length) < 8 else 0
        key, equals, value = data[len(length) + 1 : count].partition(b"=")
        if not blank or not equals or not value.endswith(b"\n") or count > len(data):
            raise SourceError(f"{where}: a damaged PAX header", hint)
        if key.startswith(b"GNU.sparse."):
            _refuse_sparse(where)
        if key == b"path":
            name = _text(value[:-1])
        elif key == b"size":
            if not value[:-1].isdigit() or len(value) > 20:
                raise SourceError(f"{where}: a PAX header with the size {value[:-1]!r}", hint)
            size = int(value)
        data = data[count:]
    return name, size


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
