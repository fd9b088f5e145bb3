"""The compiled parts of the product: C called through ctypes, each beside the module that calls it.

In:  a module's package and name.  Out: its library, or None where it was not compiled.

Each part is optional: its module computes the same without it, slower. `compiled.h` has what the C files share. They
are compiled when the package is installed, if there is a C compiler (pyproject.toml, docs/install.md).
"""

import ctypes
import importlib.util


def load(package: str | None, name: str) -> ctypes.CDLL | None:
    """Load a compiled part.

    Args:
        package: the caller's `__package__`.
        name: of the part in it, such as `_area`.
    Returns:
        The library; None where it was not compiled, or for another kind of processor.
    """
    found = importlib.util.find_spec(f".{name}", package)
    if found is None or found.origin is None:
        return None
    try:
        return ctypes.CDLL(found.origin)
    except OSError:
        return None
