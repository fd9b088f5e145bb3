"""Versions of installed packages, as manifests, model cards and reports record them."""

import importlib.metadata
from collections.abc import Iterable
from contextlib import suppress


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of each package by its distribution name; packages that are not installed are left out."""
    found = {}
    for name in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
