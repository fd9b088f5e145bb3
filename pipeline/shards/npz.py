"""Arrays out of an .npz from a stranger: those that are asked for, of the shape they must have, and no byte more.

In:  a file, and what must be in it.  Out: the arrays. `np.load` unpacks first: 8 MB may become 13 GB.
"""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_OVERHEAD = 1 << 16  # bytes of headers; a handful of arrays has 3 kB


def read_arrays(
    path: Path, wanted: Mapping[str, tuple[tuple[int, ...], str]], most_bytes: int
) -> dict[str, np.ndarray]:
    """Read some arrays of a file that `np.savez` wrote.

    Args:
        wanted: by name, shape and kinds of dtype: `f` floats, `iu` whole numbers, `U` text.
        most_bytes: of all arrays in the file.
    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, compressed, or an array is missing or another; or what zipfile raises at damage.
    """
    if path.stat().st_size > most_bytes + _OVERHEAD:
        raise ValueError(
            f"{path.stat().st_size:,} bytes are more than the {most_bytes + _OVERHEAD:,} that it can have at most"
        )
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name, (shape, kinds) in wanted.items():
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > most_bytes + _OVERHEAD:
                raise ValueError(f"{name} is compressed, which nobody writes: {member.file_size:,} bytes unpacked")
            with archive.open(member) as file:
                if (version := np.lib.format.read_magic(file)) != (1, 0):
                    raise ValueError(f"{name} is of format {version}")
                there, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
                if there != shape or dtype.kind not in kinds:
                    raise ValueError(f"{name} is {dtype} of shape {there}, not of shape {shape}")
                count = math.prod(shape) * dtype.itemsize
                if (
                    count > most_bytes or len(data := file.read(count + 1)) != count
                ):  # to its end, where its CRC is checked
                    raise ValueError(f"{name} has not the {count:,} bytes that it says")
            arrays[name] = np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")
    return arrays
