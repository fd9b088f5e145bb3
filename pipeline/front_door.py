"""Public names of a package, imported when they are first used; import paths of version 0.1 that still work.

In:  a table of names, by the module that defines them.  Out: the package's `__getattr__`, `__dir__` and `__all__`.
Importing a package that uses this imports none of its modules: neither torch nor DALI before a name needs them.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any, NamedTuple


class OldModule(NamedTuple):
    """A module of version 0.1: the modules that hold its names now, below the package; names that have changed."""

    now: tuple[str, ...]
    renamed: Mapping[str, str] = {}


def offer(
    package: str, names: Mapping[str, str], old: Mapping[str, OldModule] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Offer public names lazily (PEP 562).

    Args:
        package: its `__name__`.
        names: the public names, separated by spaces, by the module below the package that defines them.
        old: modules of version 0.1 that can still be imported, with a DeprecationWarning.
    Returns:
        `__getattr__`, `__dir__` and `__all__` of the package.
    """
    module_of = {name: module for module, defined in names.items() for name in defined.split()}
    if old:
        sys.meta_path.append(_OldPaths(package, old))

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)  # from now on a plain attribute
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *module_of}), sorted(module_of)


def old_name(package: str, module: str, entry: OldModule, name: str) -> Any:
    """Return what a name of an old module is now; of `__all__`, the names that `import *` takes.

    Raises:
        AttributeError: the module had no such name, or it is gone.
    """
    modules = [importlib.import_module(f"{package}.{now}") for now in entry.now] if name[:2] != "__" else []
    for module_now in modules:
        if hasattr(module_now, entry.renamed.get(name, name)):
            return getattr(module_now, entry.renamed.get(name, name))
    if name == "__all__":
        first = vars(importlib.import_module(f"{package}.{entry.now[0]}"))
        return [*entry.renamed, *(n for n, v in first.items() if getattr(v, "__module__", "") == first["__name__"])]
    raise AttributeError(f"module {package + '.' + module!r} has no attribute {name!r}")


class _OldPaths(MetaPathFinder, Loader):
    """Finds the old modules of one package, after every other finder has failed to."""

    def __init__(self, package: str, old: Mapping[str, OldModule]):
        self.package, self.old = package, old

    def find_spec(self, fullname, path=None, target=None):
        """Return a spec for an old module; None for any other."""
        package, _, name = fullname.rpartition(".")
        return ModuleSpec(fullname, self) if package == self.package and name in self.old else None

    def exec_module(self, module):
        """Warn, and let the module look up its names where they are now."""
        name = module.__name__.rpartition(".")[2]
        message = f"{module.__name__} has moved: import its public names from {self.package} (docs/migration.md)"
        warnings.warn(message, DeprecationWarning, stacklevel=2)  # the importing line: importlib's frames do not count
        module.__getattr__ = lambda wanted: old_name(self.package, name, self.old[name], wanted)
