"""The manners of the commands: what ends in two lines and a code, what counts for a rate, how numbers are said."""

import subprocess
import sys
import textwrap
from importlib.metadata import entry_points

import click
import pytest
from alexnet_dali.pipeline.errors import ShardError, UsageError
from alexnet_dali.pipeline.files import NotWrittenError
from alexnet_dali.tools import console
from alexnet_dali.tools.bench.cli import bench
from alexnet_dali.tools.figures.cli import figures
from alexnet_dali.tools.prep.cli import prep


def ended(body) -> int:
    """The exit code of a command with this body."""
    with pytest.raises(SystemExit) as caught:
        console.run(click.command()(body), [])
    return caught.value.code


def raises(error):
    def body():
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (UsageError("no such thing", "take another"), 2, ["error: no such thing", "  try: take another"]),
        (ShardError("broken"), 1, ["error: broken"]),
        (ModuleNotFoundError("No module named 'cv2'", name="cv2"), 1, ["error: cv2 cannot be imported", "doctor"]),
        (RuntimeError("CUDA out of memory. Tried to"), 1, ["error: out of memory (CUDA", "a smaller --batch-size"]),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), 1, ["error: out of memory", "--batch-size"]),
        (MemoryError(), 1, ["error: out of memory", "--batch-size"]),
        (PermissionError(13, "Permission denied", "out/x"), 1, ["error: out/x: Permission denied"]),
        (click.exceptions.Abort(), 130, ["stopped; run the same command again to continue"]),
        (click.exceptions.Exit(143), 143, []),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_end_in_their_lines_and_code(capfd, error, code, lines):
    assert ended(raises(error)) == code
    said = capfd.readouterr().err.splitlines()
    assert len(said) == len(lines)
    for line, part in zip(said, lines, strict=True):
        assert part in line


def test_a_bug_of_ours_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="a bug"):
        console.run(click.command()(raises(RuntimeError("a bug"))), [])


def test_a_rate_counts_what_this_run_did(capfd, monkeypatch):
    clock = iter([0.0, 1.0, 10.0, 10.0, 10.0, 20.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.progress("building", 1000) as advance:
        advance(600, fresh=False)
        advance(100)
    assert capfd.readouterr().err == "building: 700 of 1,000 images, 10 images/s, 30 s left\n"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (99.4, "99 s"), (100, "1 min 40 s"), (3599, "59 min 59 s"), (7620, "2 h 07 min")],
)
def test_durations(seconds, said):
    assert console.duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (31_900, "31.9 kB"), (1_200_000_000, "1.2 GB"), (3e12, "3.0 TB")]
)
def test_sizes(count, said):
    assert console.size(count) == said


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (NotWrittenError(28, "No space left on device", "set/a.npz"), ["make room, then run the same command again"]),
        (NotWrittenError(27, "File too large", "set/stats.npz"), ["make room, then"]),
        (NotWrittenError(13, "Permission denied", "set/stats.npz"), ["check that you have write permission, then"]),
        (NotWrittenError(30, "Read-only file system", "set/stats.npz"), ["check that you have write permission, then"]),
        (NotWrittenError(5, "Input/output error", "set/stats.npz"), ["check the disk, then"]),
        (OSError(28, "No space left on device"), ["make room, then run the same command again"]),
        (PermissionError(13, "Permission denied", "set/stats.npz"), []),  # perhaps it was only read
    ],
    ids=str,
)
def test_what_could_not_be_written_has_a_remedy(capfd, error, lines):
    assert ended(raises(error)) == 1
    first, *rest = capfd.readouterr().err.splitlines()
    named = f"{error.filename}: " if error.filename else ""
    assert first == f"error: {named}{error.strerror}"
    assert len(rest) == len(lines) and all(part in line for part, line in zip(lines, rest, strict=True))
    assert not any("kept" in line for line in rest)


STRANGE = "cat\x1b[2J\x07 dog\r\x9b31m\u202eexe\u2028\n"
SHOWN = r"cat\x1b[2J\x07 dog\r\x9b31m\u202eexe\u2028\n"


@pytest.mark.parametrize(
    "error",
    [UsageError(STRANGE, STRANGE), OSError(28, "no room", STRANGE), ImportError(STRANGE, name=STRANGE)],
    ids=lambda error: type(error).__name__,
)
def test_a_terminal_obeys_nothing_of_a_stranger_s_file(capfd, error):
    ended(raises(error))
    said = capfd.readouterr().err
    assert SHOWN in said and len(said.splitlines()) == 2
    assert not any(sign in said for sign in "\x1b\x07\r\x9b\u202e\u2028")


def test_what_people_call_their_classes_is_shown_as_it_is():
    for name in ("Siamese cat", "chat siamois été", "猫", "قط", "\U0001f408\u200d\u2b1b", "a\\x1b", "no\u00a0break"):
        assert console.plain(name) == name
    assert console.plain(STRANGE) == SHOWN


@pytest.mark.parametrize("group", [prep, bench, figures], ids=lambda group: group.name)
def test_a_group_lists_the_commands_as_click_does_without_importing_them(group):
    with click.Context(group, info_name=group.name, terminal_width=100) as context:
        ours, clicks = click.HelpFormatter(width=100), click.HelpFormatter(width=100)
        group.format_commands(context, ours)
        click.Group.format_commands(group, context, clicks)
    assert ours.getvalue() == clicks.getvalue() and ours.getvalue().count("\n") > 4


@pytest.mark.parametrize("command", ["prep", "train", "eval", "bench", "weights", "figures", "demo"])
def test_help_imports_neither_torch_nor_dali(command):
    """The first takes a second and a half, the second half of one."""
    module, name = entry_points(group="console_scripts")[f"alexnet-{command}"].value.split(":")
    code = f"""
        import sys
        from {module} import {name}
        sys.argv = ["alexnet-{command}", "--help"]
        try:
            {name}()
        except SystemExit:
            print([each for each in ("torch", "nvidia.dali") if each in sys.modules])
        """
    printed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert printed.stdout.startswith("Usage:") and printed.stdout.endswith("\n[]\n")
