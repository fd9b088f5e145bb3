"""metrics.jsonl: appended at once, read though torn, cut at a checkpoint; running sums."""

import json
import os
import stat

import pytest
import torch
from alexnet_dali.model.training import metrics
from alexnet_dali.model.training.metrics import Metrics, Sums, cut
from alexnet_dali.pipeline.errors import TrainingError
from hypothesis import given
from hypothesis import strategies as st
from waiting import waiting_at_most


def line(kind, epoch, step):
    return {"kind": kind, "epoch": epoch, "step": step, "loss": 0.1 + step}


LINES = [
    line("step", 1, 2),
    line("step", 1, 4),
    line("epoch", 1, 5),
    line("step", 2, 6),
    line("step", 2, 8),
    line("step", 2, 10),
    line("epoch", 2, 10),
]


def written(run, lines=LINES):
    log = Metrics(run)
    for each in lines:
        log.write(each)
    log.close()
    return run / "metrics.jsonl"


def test_a_line_is_in_the_file_when_write_returns(tmp_path):
    log, path = Metrics(tmp_path), tmp_path / "metrics.jsonl"
    for count, each in enumerate(LINES, 1):
        log.write(each)
        assert metrics.read(path) == LINES[:count]
    log.sync()
    log.close()
    assert [json.loads(text) for text in path.read_text().splitlines()] == LINES


def test_without_a_run_nothing_is_written(tmp_path, monkeypatch):
    """As in all processes of a run but the first."""
    monkeypatch.chdir(tmp_path)
    log = Metrics(None)
    log.write(LINES[0])
    log.sync()
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_a_second_log_appends(tmp_path):
    written(tmp_path, LINES[:3])
    assert metrics.read(written(tmp_path, LINES[3:])) == LINES


def test_a_torn_last_line_is_left_out(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    start = len(whole) - len(json.dumps(LINES[-1])) - 1
    for end in range(start, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert metrics.read(path) == LINES[:-1]


def test_no_file_no_lines(tmp_path):
    assert metrics.read(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize(
    "epochs, step, kept",
    [
        (0, 0, 0),
        (0, 3, 1),
        (0, 5, 2),  # all steps of the epoch, its evaluation not done
        (1, 5, 3),
        (1, 7, 4),
        (1, 10, 6),
        (2, 10, 7),
    ],
)
def test_what_lies_beyond_the_checkpoint_is_cut(tmp_path, epochs, step, kept):
    path = written(tmp_path)
    cut(path, epochs, step)
    assert metrics.read(path) == LINES[:kept]
    assert path.read_text().count("\n") == kept and [each.name for each in tmp_path.iterdir()] == ["metrics.jsonl"]
    cut(path, epochs, step)
    assert metrics.read(path) == LINES[:kept]


def test_cutting_mends_a_torn_line(tmp_path):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    cut(path, 2, 10)
    assert metrics.read(written(tmp_path, LINES[-1:])) == LINES


def test_cutting_begins_a_file_where_there_is_none(tmp_path):
    cut(tmp_path / "metrics.jsonl", 0, 0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_sums_add_up_in_float64():
    sums = Sums()
    losses = [16_777_216.0, 1.0, 1.0, 0.5]  # float32 would drop the ones
    for loss in losses:
        sums.add(torch.tensor(loss), torch.tensor(3), 8)
    assert sums.values() == [16_777_218.5, 12.0, 32, 4]


def test_sums_go_on_from_their_values():
    """As a resumed run does: the same bits as without the stop."""
    losses = torch.rand(9, generator=torch.Generator().manual_seed(0)) / 3
    whole, parts = Sums(), Sums()
    for k, loss in enumerate(losses):
        whole.add(loss, torch.tensor(k % 3), 2)
        parts.add(loss, torch.tensor(k % 3), 2)
        parts = Sums(*json.loads(json.dumps(parts.values())))
    assert parts.values() == whole.values()


STRANGE = [
    b"\xff\xfe",
    b"\xff" * 99 + b"\n",
    b'{"kind": "step", "epoch": 1, "step": "y"}\n',
    b'{"kind": "step", "epoch": 1, "step": null}\n',
    b'{"kind": "step", "epoch": null, "step": 1}\n',
    b'{"kind": ["step"], "epoch": 1, "step": 1}\n',
    b'{"kind": "step", "epoch": true, "step": 1}\n',
    b'{"kind": "step", "epoch": 1, "step": -1}\n',
    b'{"kind": "step", "epoch": 1, "step": 1.5}\n',
    b'{"kind": "step", "epoch": 1, "step": 1e400}\n',
    b'{"kind": "step", "epoch": 1, "step": 1' + b"0" * 400 + b"}\n",
    b'{"kind": "step", "epoch": 1, "step": 1' + b"0" * 9999 + b"}\n",
    b'{"kind": "step", "epoch": 1, "step": 1, "loss": "\x1b[2J"}\n',
    b'{"kind": "step", "epoch": 1, "step": 1, "loss": {"a": 1}}\n',
    b'{"kind": "step", "epoch": 1, "step": 1, "loss": 1' + b"0" * 400 + b"}\n",
    b"[" * 200_000 + b"\n",
    b'{"a":' * 200_000 + b"\n",
    b"[1, 2]\n",
    b"\0\n",
    b"\n",
]


@pytest.mark.parametrize("strange", STRANGE, ids=lambda value: repr(value[:44]))
def test_whatever_else_is_in_it_a_run_s_own_lines_are_read(tmp_path, strange):
    path = written(tmp_path)
    whole = path.read_bytes()
    places = (whole + strange,) if strange == b"\xff\xfe" else (whole + strange, strange + whole)
    for content in places:
        path.write_bytes(content)
        assert metrics.read(path) == LINES
        told: list[dict] = []
        cut(path, 2, 10, told.append)
        assert path.read_bytes() == whole
        torn = not strange.endswith(b"\n")  # as a killed run leaves it, so nobody need be told
        said = f"{path}: 1 line is damaged or foreign, and removed"
        assert told == ([] if torn else [{"kind": "warning", "text": said}])
    cut(path, 2, 10, told.append)
    assert len(told) <= 1


def test_how_many_are_dropped_is_said_once(tmp_path):
    path = written(tmp_path)
    path.write_bytes(b"".join(each if each.endswith(b"\n") else each + b"\n" for each in STRANGE) + path.read_bytes())
    told: list[dict] = []
    cut(path, 0, 3, told.append)
    assert metrics.read(path) == LINES[:1]
    assert [line["text"] for line in told] == [f"{path}: 20 lines are damaged or foreign, and removed"]


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_between_its_lines(tmp_path_factory, between):
    run = tmp_path_factory.mktemp("run")
    whole = written(run).read_bytes().splitlines(keepends=True)
    noise = [bytes(each).replace(b'"', b"'") + b"\n" for each in between]  # of quotes a line of ours could be made
    mixed = [part for pair in zip(whole, noise + [b""] * len(whole), strict=False) for part in pair]
    (run / "metrics.jsonl").write_bytes(b"".join(mixed))
    assert metrics.read(run / "metrics.jsonl") == LINES


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "metrics.jsonl"
    os.mkfifo(path)
    for call in (metrics.read, lambda path: cut(path, 0, 0), lambda path: Metrics(path.parent)):
        with waiting_at_most(20), pytest.raises(TrainingError) as caught:
            call(path)
        assert caught.value.message == f"{path}: a pipe or a device, not a file" and caught.value.hint
    assert stat.S_ISFIFO(path.lstat().st_mode)


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: cannot be read: Is a directory"):
        metrics.read(tmp_path / "metrics.jsonl")
