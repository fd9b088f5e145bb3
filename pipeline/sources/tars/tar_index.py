"""Where the members of a tar lie, so that they can be read in place; nothing is unpacked.

In:  a tar, or a tar within a tar, which is a window of the outer file.  Out: name, offset and size of every regular
file in it.  Reads headers only, one block of 512 bytes per member, in 5 us; of a gzipped tar all, in order.

At a damaged header Python's `tarfile` stops as if the archive ended there, and the photos after it would be lost
silently. Here a tar without a valid end is an error.
"""

import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...errors import SourceError
from ..photo import TAR_GZ, is_photo
from ..sequential import Stream
from .passed_over import PassedOver
from .tar_header import BLOCK, Header, parse_header

MD5SUMS = {  # of the originals of 2012
    "ILSVRC2012_img_train.tar": "1d675b47d978889d74fa0da5fadfb00e",
    "ILSVRC2012_img_val.tar": "29b22e2961454d5413ddabcf34fc5622",
    "ILSVRC2012_devkit_t12.tar.gz": "fa75699e90414af021442c21a62c3abf",
}
_ZEROS = bytes(BLOCK)
_UNKNOWN_END = 1 << 62  # of a gzipped tar
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


class Archive:
    """An open tar. A gzipped one, `x.tar.gz`, passes once: what lies before the last member read cannot be read."""

    def __init__(self, path: Path, read: _Read, end: int):
        """Initialize; `open_tar` opens a file."""
        self._path, self._read, self._end = path, read, end

    def members(self, inside: Member | None = None, skipped: PassedOver | None = None) -> Iterator[Member]:
        """Yield the regular files of the tar, or of a tar in it; hidden ones, as macOS's `._` twins, are left out.

        Of several with one name, the last is what extracting would leave on disk.

        Args:
            inside: the member that is a tar; None for the archive itself. A member's offset counts from the beginning
                of the archive.
            skipped: receives links, folders and devices, which are not followed.
        Raises:
            SourceError: the file cannot be read, is not a tar, is compressed, truncated or damaged.
        """
        start, end = (inside.offset, inside.offset + inside.bytes) if inside else (0, self._end)
        return _regular_files(_Tar(self._read, start, end, self._path, inside.name if inside else ""), skipped)

    def read(self, member: Member, most: int) -> bytes:
        """Return a member's bytes, at most `most`.

        Raises:
            SourceError: the file cannot be read.
        """
        return self._read(member.offset, min(member.bytes, most))


@contextmanager
def open_tar(path: Path) -> Iterator[Archive]:
    """Open a tar, gzipped if it is called so.

    Raises:
        SourceError: the file cannot be opened.
    """
    if path.name.lower().endswith(TAR_GZ):
        stream = Stream(path)
        try:
            yield Archive(path, stream.read, _UNKNOWN_END)
        finally:
            stream.close()
        return
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", "make the archives readable, or choose another folder") from None

    def read(offset: int, count: int) -> bytes:
        try:
            return os.pread(handle, count, offset)
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}", "when it can be read again, run the same command") from None

    try:
        yield Archive(path, read, os.fstat(handle).st_size)
    finally:
        os.close(handle)


def members(
    path: Path, *, offset: int = 0, size: int | None = None, inner: str = "", skipped: PassedOver | None = None
) -> list[Member]:
    """List the regular files of a tar as `Archive.members` does, but of several with one name only the last.

    Args:
        path: the file that is, or contains, the tar.
        offset, size: the tar's window in the file, in bytes; by default the whole file.
        inner: name of the window, for error messages.
        skipped: receives links, folders and devices, and the number of replaced photos.
    Raises:
        SourceError: as `Archive.members`.
    """
    with open_tar(path) as tar:
        return _last_of_each_name(tar.members(None if size is None else Member(inner, offset, size), skipped), skipped)


def members_in_memory(data: bytes, path: Path) -> list[Member]:
    """List the regular files of a tar in memory, as `members`; `path` is its name in error messages."""
    return _last_of_each_name(Archive(path, lambda start, count: data[start : start + count], len(data)).members())


def original_hint(path: Path) -> str:
    """Return the hint for an archive that differs from the original."""
    known = MD5SUMS.get(path.name)
    compare = f"compare its size with the original's and run: md5sum {path}"
    return f"{compare}  (the original: {known})" if known else compare


def _last_of_each_name(some: Iterator[Member], skipped: PassedOver | None = None) -> list[Member]:
    found: dict[str, Member] = {}
    for member in some:
        if found.pop(member.name, None) and skipped is not None:
            skipped.replaced += is_photo(member.name)
        found[member.name] = member
    return list(found.values())


def _regular_files(tar: _Tar, skipped: PassedOver | None) -> Iterator[Member]:
    for member, kind in _entries(tar):
        if kind == tarfile.GNUTYPE_SPARSE:
            _refuse_sparse(f"{tar.where}: {member.name}")
        if kind not in _REGULAR:
            if skipped is not None:
                skipped.add(member.name, kind)
        elif not member.name.rsplit("/", 1)[-1].startswith("."):
            yield member


def _entries(tar: _Tar) -> Iterator[tuple[Member, bytes]]:
    """Yield every member with its type, whatever that is, after applying the extension headers before it."""
    place = tar.start
    extension = _Extension()
    previous = ""
    while (block := tar.read(place, max(0, min(BLOCK, tar.end - place)))) != _ZEROS:
        info = parse_header(block)
        if info is None or info.size < 0:
            if place == tar.start:
                _refuse(block, tar)
            what = "is damaged" if len(block) == BLOCK else "is truncated: no end marker"
            raise tar.error(f"{what} at byte {place:,}, after {previous or 'a header'}")
        data = place + BLOCK
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
    return data + -(-size // BLOCK) * BLOCK


def _extended(tar: _Tar, extension: _Extension, info: Header, data: int) -> _Extension:
    """Return what the next member gets from this extension header and those before it."""
    if info.size > _LONGEST_EXTENSION:
        raise tar.error(f"is damaged: a name of {info.size:,} bytes at byte {data:,}")
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return extension._replace(name=_text(tar.read(data, info.size).rstrip(b"\0")))
    if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
        return _pax(tar, extension, tar.read(data, info.size), data)
    return extension


def _check_end(tar: _Tar, place: int) -> None:
    """Check that only padding follows the end marker: a hole left by an interrupted download looks like one."""
    rest = tar.end - place
    if tar.end == _UNKNOWN_END:
        rest = BLOCK + len(padding := tar.read(place + BLOCK, _MOST_PADDING))
    elif rest <= _MOST_PADDING:
        padding = tar.read(place + BLOCK, rest - BLOCK)
    if rest > _MOST_PADDING:
        raise tar.error(f"is damaged: zeros at byte {place:,}, but {rest:,} bytes follow")
    if padding.strip(b"\0"):
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
