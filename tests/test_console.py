"""The manners of the commands: what ends in two lines and a code, what counts for a rate, how numbers are said."""

import click
import pytest
from alexnet_dali.pipeline.errors import ShardError, UsageError
from alexnet_dali.tools import console


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
        (click.exceptions.Abort(), 130, ["stopped; run the same command again to go on"]),
        (click.exceptions.Exit(143), 143, []),
        (BrokenPipeError(), 0, []),
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
