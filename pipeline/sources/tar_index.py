"""Where the members of a tar lie, so that they can be read in place; nothing is unpacked.

In:  a tar, or a tar within a tar, which is a window of the outer file.  Out: name, offset and size of every regular
file in it.  Reads headers only, one block of 512 bytes per member: 14 us and 200 bytes of memory per member.

Headers are parsed by Python's `tarfile`, but the iteration is our own: at a damaged header `tarfile` stops as if the
archive ended there, and the photos after it would be lost silently. Here a tar without a valid end is an error.
"""

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
_MOST_PADDING = 128 << 10  # bytes from the end marker on; tar pads to 10 KiB, with --blocking-factor to more
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

_EXTENSIONS = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE),
)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes

_Read = Callable[[int, int], bytes]  # (offset, bytes), as os.pread


class Member(NamedTuple):
    """A regular file in a tar: its name (never used as a path to write to), and its offset and size in bytes."""

    name: str
    offset: int
    bytes: int


@dataclass(frozen=True)
class _Tar:
    """A tar that is a window of a file or of bytes in memory: `start` to `end`, with its names for error messages."""

    read: _Read
    start: int
    end: int
    path: Path
    inner: str = ""

    @property
    def where(self) -> str:
        return f"{self.path}: {self.inner}" if self.inner else f"{self.path}"

    def error(self, what: str) -> SourceError:
        return SourceError(f"{self.where}: {what}", original_hint(self.path))


class _Extension(NamedTuple):
    """Name and size that extension headers set for the next member; None: its own header's apply."""

    name: str | None = None
    size: int | None = None


def members(
    path: Path, *, offset: int = 0, size: int | None = None, inner: str = "", skipped: list[str] | None = None
) -> list[Member]:
    """List the regular files of a tar; of several with one name the last, as extracting would leave on disk.

    Hidden files, such as the `._` twins that macOS adds, are left out.

    Args:
        path: the file that is, or contains, the tar.
        offset, size: the tar's window in the file, in bytes; by default the whole file. Offsets of members count
            from the beginning of the file.
        inner: name of the window, for error messages.
        skipped: receives the names of links, folders and devices, which are not followed.
    Raises:
        SourceError: the file cannot be read, is not a tar, is compressed, truncated or damaged.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", "make the archives readable, or choose another folder") from None
    try:
        end = os.fstat(handle).st_size if size is None else offset + size
        tar = _Tar(lambda start, count: os.pread(handle, count, start), offset, end, path, inner)
        return _regular_files(tar, skipped)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", "when it can be read again, run the same command") from None
    finally:
        os.close(handle)


def members_in_memory(data: bytes, path: Path) -> list[Member]:
    """List the regular files of a tar in memory, as `members`; `path` is its name in error messages."""
    return _regular_files(_Tar(lambda start, count: data[start : start + count], 0, len(data), path), None)


def original_hint(path: Path) -> str:
    """Return the hint for an archive that differs from the original."""
    known = MD5SUMS.get(path.name)
    compare = f"compare its size with the original's and run: md5sum {path}"
    return f"{compare}  (the original: {known})" if known else compare


def _regular_files(tar: _Tar, skipped: list[str] | None) -> list[Member]:
    found: dict[str, Member] = {}
    for member, kind in _entries(tar):
        if kind == tarfile.GNUTYPE_SPARSE:
            _refuse_sparse(f"{tar.where}: {member.name}")
        if kind not in _REGULAR:
            if skipped is not None:
                skipped.append(member.name)
        elif not member.name.rsplit("/", 1)[-1].startswith("."):
            found.pop(member.name, None)
            found[member.name] = member
    return list(found.values())


def _entries(tar: _Tar) -> Iterator[tuple[Member, bytes]]:
    """Yield every member with its type, whatever that is, after applying the extension headers before it."""
    place = tar.start
    extension = _Extension()
    previous = ""
    while (block := tar.read(place, max(0, min(_BLOCK, tar.end - place)))) != _ZEROS:
        info = _header(block)
        if info is None or info.size < 0:
            if place == tar.start:
                _refuse(block, tar)
            what = "is damaged" if len(block) == _BLOCK else "is truncated: no end marker"
            raise tar.error(f"{what} at byte {place:,}, after {previous or 'a header'}")
        data = place + _BLOCK
        name = extension.name or info.name
        if info.type in _EXTENSIONS:
            place = _end_of_data(tar, name, data, info.size)
            extension = _extended(tar, extension, info, data)
            continue
        size = info.size if extension.size is None else extension.size
        if info.type in _WITHOUT_DATA:  # a link's size is that of its target
            size = 0
        place = _end_of_data(tar, name, data, size)
        yield Member(name, data, size), info.type
        extension = _Extension()
        previous = name
    _check_end(tar, place)


def _end_of_data(tar: _Tar, name: str, data: int, size: int) -> int:
    """Return the offset of the header after `size` bytes of data."""
    if data + size > tar.end:
        raise tar.error(
            f"is truncated within {name}: it has {size:,} bytes from byte {data:,} on, "
            f"but the archive ends at byte {tar.end:,}"
        )
    return data + -(-size // _BLOCK) * _BLOCK


def _extended(tar: _Tar, extension: _Extension, info: tarfile.TarInfo, data: int) -> _Extension:
    """Return what the next member gets from this extension header and those before it."""
    if info.size > _LONGEST_EXTENSION:
        raise tar.error(f"is damaged: a name of {info.size:,} bytes at byte {data:,}")
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return extension._replace(name=_text(tar.read(data, info.size).rstrip(b"\0")))
    if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
        return _pax(tar, extension, tar.read(data, info.size), data)
    return extension


def _header(block: bytes) -> tarfile.TarInfo | None:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None


def _check_end(tar: _Tar, place: int) -> None:
    """Check that only padding follows the end marker: a hole left by an interrupted download looks like one."""
    rest = tar.end - place
    if rest > _MOST_PADDING:
        raise tar.error(f"is damaged: zeros at byte {place:,}, but {rest:,} bytes follow")
    if tar.read(place, rest).strip(b"\0"):
        raise tar.error(f"is damaged: more data after the end marker at byte {place:,}")


def _refuse(block: bytes, tar: _Tar) -> None:
    """Raise the error for a file that does not begin with a tar header."""
    for magic, program in _COMPRESSED.items():
        if block.startswith(magic):
            raise SourceError(
                f"{tar.where}: is compressed with {program}: its members cannot be read in place",
                f"unpack it first: {program} -dc {tar.path} > {tar.path}.new && mv {tar.path}.new {tar.path}",
            )
    raise tar.error(f"is not a tar: it begins with {block[:16]!r}")


def _refuse_sparse(where: str) -> None:
    raise SourceError(f"{where}: is stored as a sparse file", "create the archive again without tar's --sparse")


def _pax(tar: _Tar, extension: _Extension, data: bytes, place: int) -> _Extension:
    """Apply a PAX header, records of `LENGTH KEY=VALUE` and a newline, where LENGTH counts the whole record."""
    where = f"{tar.where}: byte {place:,}"
    while data.strip(b"\0"):
        length, blank, _ = data.partition(b" ")
        count = int(length) if length.isdigit() and len(length) < 8 else 0
        key, equals, value = data[len(length) + 1 : count].partition(b"=")
        if not blank or not equals or not value.endswith(b"\n") or count > len(data):
            raise SourceError(f"{where}: a damaged PAX header", original_hint(tar.path))
        if key.startswith(b"GNU.sparse."):
            _refuse_sparse(where)
        if key == b"path":
            extension = extension._replace(name=_text(value[:-1]))
        elif key == b"size":
            if not value[:-1].isdigit() or len(value) > 20:
                raise SourceError(f"{where}: a PAX header with the size {value[:-1]!r}", original_hint(tar.path))
            extension = extension._replace(size=int(value))
        data = data[count:]
    return extension


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
