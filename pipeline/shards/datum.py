"""One record: the bytes of a Caffe `Datum`, encoded and parsed without a library.

    message Datum { int32 channels = 1; int32 height = 2; int32 width = 3; bytes data = 4; int32 label = 5;
                    repeated float float_data = 6; bool encoded = 7; }

In:  a picture's bytes, size in pixels and label.  Out: protobuf wire bytes, and back without a copy.
No files, no lmdb, no protobuf package: a record takes four microseconds to parse, and a damaged one must end in a
message. Fields 5 and 7 are always written, even if zero: to DALI's Caffe reader a missing `encoded` means true, and a
missing label silently shifts its outputs.
"""

from dataclasses import dataclass

import numpy as np
import simplejpeg

from ..errors import ShardError

NO_LABEL = -1

CHANNELS = 3  # red, green, blue; greyscale photos are stored as RGB too

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf wire types; 3 and 4, groups, are rejected
_WIRE_TYPES = {1: _VARINT, 2: _VARINT, 3: _VARINT, 4: _BYTES, 5: _VARINT, 7: _VARINT}
_LONGEST_VARINT, _LONGEST_TAG = 10, 5  # bytes of a 64-bit and of a 32-bit number, seven bits each


@dataclass(frozen=True)
class Datum:
    """One record; its payload is a view of the parsed bytes.

    Attributes:
        height, width: pixels, 1 or more.
        label: class index, or -1 for none.
        encoded: True, `data` is a JPEG file; False, raw uint8 pixels in (height, width, RGB) order.
        data: the payload, a view of the parsed bytes, valid as long as they are.
    """

    height: int
    width: int
    label: int
    encoded: bool
    data: memoryview


def encode(data: bytes, *, height: int, width: int, label: int, encoded: bool) -> bytes:
    """Encode one record.

    Args:
        data: a JPEG file, or raw uint8 pixels in (height, width, RGB) order.
        height, width: pixels.
        label: class index, -1 for none.
        encoded: whether `data` is a JPEG file.
    Returns:
        a serialised Datum.
    """
    head = b"\x08" + _varint(CHANNELS) + b"\x10" + _varint(height) + b"\x18" + _varint(width)
    return b"".join((head, b"\x22", _varint(len(data)), data, b"\x28", _varint(label), b"\x38", _varint(int(encoded))))


def parse(value: bytes | memoryview) -> Datum:
    """Parse one record without copying its payload.

    As in protobuf, fields may be in any order, unknown ones are skipped, and of repeated ones the last counts.

    Raises:
        ShardError: not a Datum, a field is missing, or its size contradicts its bytes.
    """
    view = memoryview(value)
    fields: dict[int, int | memoryview] = {}
    position, end = 0, len(view)
    while position < end:
        tag, position = _read_varint(view, position, _LONGEST_TAG)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29 or _WIRE_TYPES.get(number, wire) != wire:
            raise ShardError(f"not a Datum: field {number} has wire type {wire}")
        if wire == _VARINT:
            fields[number], position = _read_varint(view, position)
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _BYTES:
            length, position = _read_varint(view, position)
        if length is None:
            raise ShardError(f"not a Datum: field {number} has wire type {wire}")
        if length > end - position:
            raise ShardError(f"not a Datum: field {number} claims {length} bytes, {end - position} are left")
        fields[number] = view[position : position + length]
        position += length
    return _checked(fields)


def _checked(fields: dict) -> Datum:
    missing = [
        name
        for number, name in ((1, "channels"), (2, "height"), (3, "width"), (4, "data"), (5, "label"), (7, "encoded"))
        if number not in fields
    ]
    if missing:
        raise ShardError(f"incomplete Datum: no {', '.join(missing)}")
    channels, height, width, label = (_int32(fields[number]) for number in (1, 2, 3, 5))
    if channels != CHANNELS or not (0 < height < 1 << 16 and 0 < width < 1 << 16):
        raise ShardError(f"not an RGB picture: a Datum of {channels} channels, {height}x{width}")
    data = fields[4]
    encoded = bool(fields[7])
    if encoded and bytes(data[:2]) != b"\xff\xd8":
        raise ShardError("the Datum says JPEG, but its data does not begin like one")
    if not encoded and len(data) != height * width * CHANNELS:
        raise ShardError(
            f"the Datum says raw {height}x{width} RGB, {height * width * CHANNELS} bytes, but holds {len(data)}"
        )
    return Datum(height, width, label, encoded, data)


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1  # protobuf writes a negative int32 as its 64-bit two's complement, ten bytes
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _int32(number: int) -> int:
    """Reduce to the low 32 bits, signed, as protobuf, and so DALI and Caffe, do with a longer number."""
    return (number + (1 << 31) & (1 << 32) - 1) - (1 << 31)


def _read_varint(view: memoryview, position: int, longest: int = _LONGEST_VARINT) -> tuple[int, int]:
    number = shift = 0
    for byte in view[position : position + longest]:
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & (1 << 64) - 1, position
        shift += 7
    raise ShardError("not a Datum: unterminated number")


def record_pixels(value: bytes | memoryview) -> np.ndarray:
    """Decode a record's value to pixels, uint8 (height, width, 3), RGB.

    Raises:
        ShardError: the Datum is invalid.
        ValueError: its JPEG does not decode.
    """
    record = parse(value)
    if record.encoded:
        return simplejpeg.decode_jpeg(record.data, colorspace="RGB")
    return np.frombuffer(record.data, dtype=np.uint8).reshape(record.height, record.width, CHANNELS)


def central_square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return a view of the central size x size pixels, offsets floored.

    Args:
        pixels: uint8 (height, width, 3).
    Raises:
        ShardError: the picture is smaller.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < size:
        raise ShardError(f"{width}x{height} pixels in a set of size {size}")
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size]
