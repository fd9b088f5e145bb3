"""One behaviour in every locale: names of files are UTF-8, and bytes that are not are kept as they are.

In:  this process.  Out: the same command in Python's UTF-8 mode; nothing, where names are UTF-8 already.
Python takes names by the locale: under `LC_ALL=C` with its own ways out of that switched off, or in a Latin-1 locale,
the same photos would have other names, and so make another set; and what is written for people could not be encoded.
"""

import os
import sys

MODE = "PYTHONUTF8"  # Python's own: the worker processes and the other ranks have it too


def ensure() -> None:
    """Start this command once more, in UTF-8 mode, where the locale has names in another encoding."""
    there = sys.getfilesystemencoding().lower() == "utf-8"
    if there or not sys.executable or os.environ.get(MODE) == "1":  # once: `-E` and `-X utf8=0` are stronger
        return
    os.environ[MODE] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
