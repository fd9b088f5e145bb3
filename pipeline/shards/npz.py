"""Read arrays from an untrusted .npz: only those requested, only of the required shape, and within a size limit.

In:  a file, and the required arrays.  Out: the arrays. `np.load` would unpack first: 8 MB can become 13 GB.
"""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_OVERHEAD = 1 << 16  # bytes of headers; a few arrays have 3 kB


def read_arrays(
    path: Path, wanted: Mapping[str, tuple[tuple[int, ...], str]], most_bytes: int
) -> dict[str, np.ndarray]:
    """Read some arrays of a file that `np.savez` wrote.

    Args:
        wanted: by name, shape and allowed kinds of dtype: `f` floats, `iu` integers, `U` text.
        most_bytes: upper limit of all arrays in the file.
    Raises:
        OSError: the file cannot be read.
        KeyError: an array is missing.
        ValueError: it is larger or compressed, or an array has another type or shape; zipfile raises others for damage.
    """
    if path.stat().st_size > most_bytes + _OVERHEAD:
        raise ValueError(f"{path.stat().st_size:,} bytes are more than the possible {most_bytes + _OVERHEAD:,}")
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for name, (shape, kinds) in wanted.items():
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > most_bytes + _OVERHEAD:
                raise ValueError(f"{name} is compressed: {member.file_size:,} bytes unpacked")
            with archive.open(member) as file:
                if (version := np.lib.format.read_magic(file)) != (1, 0):
                    raise ValueError(f"{name} is of format {version}")
                stored, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
                if stored != shape or dtype.kind not in kinds:
                    raise ValueError(f"{name} is {dtype} of shape {stored}, not of shape {shape}")
                count = math.prod(shape) * dtype.itemsize
                # Read to the member's end, where zipfile checks its CRC.
                if count > most_bytes or len(data := file.read(count + 1)) != count:
                    raise ValueError(f"{name} does not have the {count:,} bytes in its header")
            arrays[name] = np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")
    return arrays
