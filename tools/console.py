"""The manners of every command: errors to exit codes, sizes and durations in words, a progress bar.

A user's mistake ends in two lines on stderr, what is wrong and what to do, and exit code 2 (usage) or 1.
A traceback means a bug of ours. Standard output carries results, standard error everything else.
"""

import ast
import errno
import importlib
import io
import os
import re
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from ..pipeline.errors import AlexnetError
from ..pipeline.files import FULL, NotWrittenError, remedy

PLAIN_LINE_SECONDS = 5  # between progress lines where there is no terminal
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # as CUDA and the CPU's allocator have it in torch
INTERRUPTED = 130  # 128 + SIGINT, as shells expect it
# What a terminal obeys instead of showing it: control characters, line separators, what turns the direction of writing.
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def run(command: click.Command, arguments: list[str] | None = None) -> None:
    """Run a click command as a process would and exit with its code; never returns."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is: a file may be called what no encoding has
    outputs = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (None if output is None else Lasting(output) for output in outputs)
    try:
        sys.exit(_code_of(command, arguments))
    finally:
        sys.stdout, sys.stderr = outputs


class Lasting:
    """An output whose reader may leave (`| head`): what is written then goes nowhere, and the work goes on."""

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text; its length."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            return self._leave(len(text))

    def flush(self) -> None:
        """Hand on what was written."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def _leave(self, count: int = 0) -> int:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # what is buffered still, and what the interpreter says at its end
        os.close(nowhere)
        return count


def _code_of(command: click.Command, arguments: list[str] | None) -> int:
    """Run a command and say what went wrong; its exit code."""
    try:
        code = command.main(args=arguments, standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except click.exceptions.Abort:
        click.echo("stopped; run the same command again to go on", err=True)
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.exceptions.Exit as request:
        code = request.exit_code
    except AlexnetError as error:
        _tell(error.message, error.hint)
        code = error.exit_code
    except ImportError as error:
        _tell(f"{error.name or error} cannot be imported", "alexnet-prep doctor, which says what to install")
        code = 1
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in OUT_OF_MEMORY):
            raise
        said = f"out of memory ({' '.join(str(error).split())[:160]})"
        _tell(said, "a smaller --batch-size; what was saved is kept")
        code = 1
    except OSError as error:
        name = f"{error.filename}: " if error.filename else "" if _here() else "the present folder is gone: "
        # Of other errors it is not known whether something was read or written.
        written = isinstance(error, NotWrittenError) or error.errno in (*FULL, errno.EROFS)
        hint = f"{remedy(error.errno)}, then run the same command again" if written else ""
        _tell(f"{name}{error.strerror or error}", hint)
        code = 1
    return code if isinstance(code, int) else 0


def plain(text: str) -> str:
    """A line with what is in a stranger's file, a class's name say: shown by a terminal, and not obeyed."""
    return OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _tell(message: str, hint: str = "") -> None:
    click.echo(f"error: {plain(message)}", err=True)
    if hint:
        click.echo(f"  try: {plain(hint)}", err=True)


def _here() -> bool:
    """Whether the present folder is still there: a deleted one is an error without a name."""
    try:
        return bool(os.getcwd())
    except OSError:
        return False


class LazyGroup(click.Group):
    """Imports a command when it is called: it runs where another's libraries are missing, and `--help` is fast."""

    def __init__(self, *args, commands_at: dict[str, str], **kwargs):
        super().__init__(*args, **kwargs)
        self._commands_at = commands_at  # by the command's name: `module:function`, in the order of --help

    def list_commands(self, ctx):
        """Return the commands' names."""
        return list(self._commands_at)

    def get_command(self, ctx, cmd_name):
        """Import and return a command; None for an unknown name."""
        if cmd_name not in self._commands_at:
            return None
        module, name = self._commands_at[cmd_name].split(":")
        return getattr(importlib.import_module(f".{module}", __package__), name)

    def format_commands(self, ctx, formatter):
        """Write the commands' summaries, from their docstrings in the source: importing torch would take a second."""
        limit = formatter.width - 6 - max(map(len, self._commands_at))
        summaries = [click.Command(name, help=self._docstring(name)) for name in self._commands_at]
        with formatter.section("Commands"):
            formatter.write_dl([(each.name, each.get_short_help_str(limit)) for each in summaries])

    def _docstring(self, cmd_name: str) -> str:
        module, name = self._commands_at[cmd_name].split(":")
        file = Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
        (function,) = (node for node in ast.parse(file.read_text("utf-8")).body if getattr(node, "name", "") == name)
        return ast.get_docstring(function) or ""


def is_live(stream: IO[str] | None) -> bool:
    """Whether a line can be written over: a terminal that knows how; an output that was closed is None."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress(label: str, total: int, unit: str = "images"):
    """Show a bar with rate and time left on a terminal, a plain line now and then elsewhere.

    Yields:
        A function to call with the number of units done since the last call; `fresh=False` for those of an earlier
        run, which count for the bar but not for the rate.
    """
    started = time.monotonic()
    done, before, said = 0, 0, started  # before: done by an earlier run

    def rate() -> str:
        value = (done - before) / max(time.monotonic() - started, 1e-9)
        return f"{value:,.0f} {unit}/s" if value >= 10 or value == 0 else f"{value:.1g} {unit}/s"

    if is_live(sys.stderr):
        bar: Any
        with click.progressbar(
            length=total, label=label, file=sys.stderr, show_pos=True, item_show_func=lambda _: rate()
        ) as bar:

            def advance(count: int, fresh: bool = True) -> None:
                nonlocal done, before
                done, before = done + count, before if fresh else before + count
                bar.update(count)

            yield advance
        return

    def advance_plainly(count: int, fresh: bool = True) -> None:
        nonlocal done, before, said
        done, before = done + count, before if fresh else before + count
        now = time.monotonic()
        if now - said >= PLAIN_LINE_SECONDS and done < total:
            said = now
            left = (total - done) * (now - started) / max(done - before, 1)
            click.echo(f"{label}: {done:,} of {total:,} {unit}, {rate()}, {duration(left)} left", err=True)

    yield advance_plainly


def duration(seconds: float) -> str:
    """Say a span of time as a person would: `42 s`, `3 min 05 s`, `2 h 07 min`."""
    seconds = round(seconds)
    if seconds < 100:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def size(count: int) -> str:
    """Say a number of bytes in decimal units: `31.9 kB`, `1.2 GB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


# --- from tools/utf8.py

MODE = "PYTHONUTF8"  # Python's own: the worker processes and the other ranks have it too


def ensure_utf8() -> None:
    """Start this command once more, in UTF-8 mode, where the locale has names in another encoding."""
    there = sys.getfilesystemencoding().lower() == "utf-8"
    if there or not sys.executable or os.environ.get(MODE) == "1":  # once: `-E` and `-X utf8=0` are stronger
        return
    os.environ[MODE] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
