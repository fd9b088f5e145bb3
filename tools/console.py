"""What all commands share: UTF-8 mode, exit codes, error messages, groups, progress, sizes and durations.

A user's error ends in two lines on standard error, what is wrong and what to do, and exit code 2 (usage) or 1.
A traceback is a bug of this program. Results go to standard output, everything else to standard error.
"""

import ast
import errno
import importlib
import io
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from ..pipeline.errors import AlexnetError
from ..pipeline.files import FULL, NotWrittenError, remedy

PLAIN_LINE_SECONDS = 5  # between progress lines without a terminal
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # in messages of torch's allocators, CUDA and CPU
INTERRUPTED = 130  # 128 + SIGINT, as shells expect it
UTF8_MODE = "PYTHONUTF8"  # a variable, so that worker processes and the other ranks have the mode too
# What a terminal executes instead of showing: control characters, line separators, changes of writing direction.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def ensure_utf8() -> None:
    """Restart this command in Python's UTF-8 mode if the locale encodes file names differently."""
    is_utf8 = sys.getfilesystemencoding().lower() == "utf-8"
    # The variable is set already where `-E` or `-X utf8=0` override it: no second restart.
    if is_utf8 or not sys.executable or os.environ.get(UTF8_MODE) == "1":
        return
    os.environ[UTF8_MODE] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def run(command: click.Command, arguments: list[str] | None = None) -> None:
    """Run a click command and exit the process with its code; never returns."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: no encoding has some file names
    outputs = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (None if output is None else PipeOutput(output) for output in outputs)
    try:
        sys.exit(_exit_code(command, arguments))
    finally:
        sys.stdout, sys.stderr = outputs


class PipeOutput:
    """An output stream whose reader may exit (`| head`): later output is discarded, and the command continues."""

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text and return its length."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            return self._discard(len(text))

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self, count: int = 0) -> int:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())  # also for the buffer, and for the interpreter's flush at exit
        os.close(null)
        return count


def _exit_code(command: click.Command, arguments: list[str] | None) -> int:
    """Run a command, print its error if there is one, and return the exit code."""
    try:
        code = command.main(args=arguments, standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except click.exceptions.Abort:
        click.echo("stopped; run the same command again to continue", err=True)
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.exceptions.Exit as request:
        code = request.exit_code
    except AlexnetError as error:
        show_error(error)
        code = error.exit_code
    except ImportError as error:
        _print_error(f"{error.name or error} cannot be imported", "alexnet-prep doctor, which shows what to install")
        code = 1
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in OUT_OF_MEMORY):
            raise
        message = f"out of memory ({' '.join(str(error).split())[:160]})"
        _print_error(message, "a smaller --batch-size; saved checkpoints are kept")
        code = 1
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        if not name and not _current_folder_exists():
            name = "the current folder no longer exists: "
        # Other errors do not tell reading from writing, and have no hint.
        writing = isinstance(error, NotWrittenError) or error.errno in (*FULL, errno.EROFS)
        hint = f"{remedy(error.errno)}, then run the same command again" if writing else ""
        _print_error(f"{name}{error.strerror or error}", hint)
        code = 1
    return code if isinstance(code, int) else 0


def plain(text: str) -> str:
    """Escape control characters in text from a file, such as a class name, so that a terminal only shows them."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def show_error(error: AlexnetError) -> None:
    """Print a user's error on standard error: what is wrong, and what to do."""
    _print_error(error.message, error.hint, error.details)


def _print_error(message: str, hint: str = "", details: Sequence[str] = ()) -> None:
    click.echo(f"error: {plain(message)}", err=True)
    for detail in details:
        click.echo(f"  {plain(detail)}", err=True)
    if hint:
        click.echo(f"  try: {plain(hint)}", err=True)


def _current_folder_exists() -> bool:
    """Whether the current folder was not deleted; errors of a deleted one have no file name."""
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
        try:
            body = ast.parse(file.read_text("utf-8")).body
        except OSError:  # installed without its sources
            return ""
        (function,) = (node for node in body if isinstance(node, ast.FunctionDef) and node.name == name)
        return ast.get_docstring(function) or ""


def is_live(stream: IO[str] | None) -> bool:
    """Whether a stream is a terminal that can overwrite its last line; a closed stream is None."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress(label: str, total: int, unit: str = "images"):
    """Show a bar with rate and remaining time on a terminal; elsewhere print a line every few seconds.

    Args:
        total: number of units.
    Yields:
        A function to call with the number of units done since the last call; `fresh=False` for units of an earlier
        run, which count for the bar but not for the rate.
    """
    started = time.monotonic()
    done, before, printed = 0, 0, started  # before: units of an earlier run; printed: time of the last line

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
        nonlocal done, before, printed
        done, before = done + count, before if fresh else before + count
        now = time.monotonic()
        if now - printed >= PLAIN_LINE_SECONDS and done < total:
            printed = now
            left = (total - done) * (now - started) / max(done - before, 1)
            click.echo(f"{label}: {done:,} of {total:,} {unit}, {rate()}, {duration(left)} left", err=True)

    yield advance_plainly


def duration(seconds: float) -> str:
    """Format a time span in seconds: `42 s`, `3 min 05 s`, `2 h 07 min`."""
    seconds = round(seconds)
    if seconds < 100:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def size(count: int) -> str:
    """Format a number of bytes in decimal units: `31.9 kB`, `1.2 GB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
