"""Files are old or new and never between, and a CSV gives back what was put into it, whatever a file is called."""

import csv
import errno
import fcntl
import gc
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alexnet_dali.pipeline.csv_files import read_csv, write_csv
from alexnet_dali.pipeline.errors import ShardError, UsageError
from alexnet_dali.pipeline.files import (
    LOCK,
    NotWrittenError,
    begin_or_resume,
    locked,
    remedy,
    write_atomically,
    write_json,
)
from hypothesis import given
from hypothesis import strategies as st


def fail_at(monkeypatch, number, *calls):
    """Make the number-th of these calls of `os` fail as a full disk does. Returns a list that grows with each call."""
    seen: list[str] = []
    for name in calls:

        def failing(*args, _real=getattr(os, name), _name=name, **kwargs):
            seen.append(_name)
            if len(seen) == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return _real(*args, **kwargs)

        monkeypatch.setattr(os, name, failing)
    return seen


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    assert path.read_bytes() == b"old"
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_whatever_call_fails_the_file_is_old_or_new(tmp_path, monkeypatch, number):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        fail_at(patch, number, "fsync", "replace")
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, b"new")
    assert path.read_bytes() == (b"new" if number == 3 else b"old")  # the third call syncs the folder
    assert os.listdir(tmp_path) == ["file"]
    write_atomically(path, b"newest")
    assert path.read_bytes() == b"newest"


def test_a_file_is_synced_before_it_gets_its_name_and_its_name_after(tmp_path, monkeypatch):
    calls = fail_at(monkeypatch, 0, "fsync", "replace")
    write_atomically(tmp_path / "file", b"new")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_a_stopped_writer_leaves_the_old_file(tmp_path, stop):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"ne")
        raise stop

    with pytest.raises(stop):
        write_atomically(path, half)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_json_is_for_people_too(tmp_path):
    write_json(tmp_path / "x.json", {"b": [1], "a": "\udcff"})
    assert (tmp_path / "x.json").read_bytes() == b'{\n  "b": [\n    1\n  ],\n  "a": "\\udcff"\n}\n'


def test_csv_bytes(tmp_path):
    write_csv(tmp_path / "x.csv", ("source_path", "reason"), [("a,b.jpg", 'say "no"'), (os.fsdecode(b"\xe9.jpg"), 7)])
    assert (tmp_path / "x.csv").read_bytes() == b'source_path,reason\n"a,b.jpg","say ""no"""\n\xe9.jpg,7\n'
    write_csv(tmp_path / "empty.csv", ("source_path", "reason"), [])
    assert (tmp_path / "empty.csv").read_bytes() == b"source_path,reason\n"
    assert read_csv(tmp_path / "empty.csv") == []


FILE_NAMES = st.binary(min_size=1, max_size=12).map(lambda name: os.fsdecode(name.replace(b"\0", b"\r")))


@given(st.lists(st.tuples(FILE_NAMES, FILE_NAMES), max_size=5))
def test_csv_gives_back_every_file_name(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    write_csv(path, ("source_path", "reason"), rows)
    assert [tuple(row) for row in read_csv(path)] == rows
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:  # as anybody's program reads it
        assert [tuple(row) for row in csv.reader(file)] == [("source_path", "reason"), *rows]


def test_a_lock_is_held_once_and_dies_with_its_process(tmp_path):
    folder = tmp_path / "new" / "out"
    code = (
        "import os, sys; from pathlib import Path; from alexnet_dali.pipeline.files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(ShardError) as caught, locked(folder):
            pytest.fail("two hold the lock")
        assert str(caught.value) == f"{folder}: another process is at work there; wait for it, or stop it"
    finally:
        holder.kill()
        holder.communicate()
    with locked(folder):
        assert os.listdir(folder) == []  # the lock is the folder's own: no file to be left behind
    with locked(folder):
        pass


def test_no_file_stays_open(tmp_path):
    gc.collect()  # of other tests, what is lost in a cycle
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        write_atomically(tmp_path / "file", b"new")
        with locked(tmp_path):
            pass
        with locked(tmp_path), pytest.raises(ShardError), locked(tmp_path):
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(ValueError), locked(tmp_path):
        raise ValueError
    with locked(tmp_path):
        pass


def test_where_folders_cannot_be_locked_a_file_in_it_is(tmp_path, monkeypatch):
    """NFS locks only what is open for writing."""
    real = fcntl.flock

    def as_on_nfs(handle, operation):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return real(handle, operation)

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    second = locked(tmp_path / "out")
    with locked(tmp_path / "out"), pytest.raises(ShardError, match="another process is at work there"), second:
        raise AssertionError("never here")
    with locked(tmp_path / "out"):  # free again
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_where_nothing_can_be_locked_one_works_alone(tmp_path, monkeypatch):
    def never(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", never)
    with locked(tmp_path / "out"):
        pass


@pytest.mark.parametrize("mark", [None, "1f2e\n"])
def test_a_job_is_begun_resumed_and_recognised_when_finished(tmp_path, mark):
    finished, started = tmp_path / "whole.json", tmp_path / ".job" / "job.json"
    (tmp_path / LOCK).write_bytes(b"")  # of NFS
    for _ in range(2):
        assert not begin_or_resume(tmp_path, "an export", finished, started, {"size": 64}, mark)
        assert sorted(os.listdir(tmp_path)) == [".job", LOCK]
    with pytest.raises(UsageError, match="holds another export; choose another folder, or remove that one"):
        begin_or_resume(tmp_path, "an export", finished, started, {"size": 32}, mark and "of another\n")
    write_json(finished, {"size": 64})
    assert begin_or_resume(tmp_path, "an export", finished, started, {"size": 64}, mark)
    for text in ('{"size": 32}', "{", ""):
        finished.write_text(text)
        with pytest.raises(UsageError, match="holds another export"):
            begin_or_resume(tmp_path, "an export", finished, started, {"size": 64}, mark)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "thesis.tex").write_bytes(b"")
    with pytest.raises(UsageError, match="holds something that is not an export; choose an empty folder"):
        begin_or_resume(tmp_path / "new", "an export", tmp_path / "new/a", tmp_path / "new/b", {}, mark)


def pipe(folder):
    """A pipe with a name, and a handle to read from it that waits for nothing."""
    os.mkfifo(folder / "pipe")
    return folder / "pipe", os.open(folder / "pipe", os.O_RDWR | os.O_NONBLOCK)


CONTENTS = [b"new", lambda file: file.write(b"n") and file.seek(1) and file.write(b"ew")]


@pytest.mark.parametrize("content", CONTENTS, ids=["bytes", "a function that seeks"])
def test_a_pipe_is_written_into_and_stays(tmp_path, content):
    path, reader = pipe(tmp_path)
    write_atomically(path, content)
    assert stat.S_ISFIFO(path.lstat().st_mode) and os.read(reader, 99) == b"new"
    assert os.listdir(tmp_path) == ["pipe"]
    os.close(reader)


def test_nothing_of_a_content_that_fails_goes_into_a_pipe(tmp_path):
    path, reader = pipe(tmp_path)

    def half(file):
        file.write(b"ne")
        raise ValueError

    with pytest.raises(ValueError):
        write_atomically(path, half)
    with pytest.raises(BlockingIOError):
        os.read(reader, 99)
    assert stat.S_ISFIFO(path.lstat().st_mode)
    os.close(reader)


def test_a_device_is_written_into_and_stays():
    """A terminal of our own, which is one and needs no rights."""
    master, slave = os.openpty()
    try:
        device = Path(os.ttyname(slave))
        write_atomically(device, b"new")
        assert os.read(master, 99) == b"new" and stat.S_ISCHR(device.lstat().st_mode)
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("name", ["real", "not there yet"])
def test_a_symbolic_link_is_followed(tmp_path, name):
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    (folder / "real").write_bytes(b"old")
    link.symlink_to(f"folder/{name}")
    write_atomically(link, b"new")
    assert link.is_symlink() and (folder / name).read_bytes() == b"new"
    assert sorted(os.listdir(folder)) == sorted({"real", name}) and sorted(os.listdir(tmp_path)) == ["folder", "link"]


def test_a_link_to_itself_and_a_folder_are_refused_and_stay(tmp_path):
    link, folder = tmp_path / "link", tmp_path / "folder"
    link.symlink_to("link")
    folder.mkdir()
    for path, number in ((link, errno.ELOOP), (folder, errno.EISDIR)):
        with pytest.raises(NotWrittenError) as caught:
            write_atomically(path, b"new")
        assert (caught.value.errno, caught.value.filename) == (number, str(path))
        assert remedy(number) == "check what is at that path, or choose another"
    assert link.is_symlink() and folder.is_dir() and sorted(os.listdir(tmp_path)) == ["folder", "link"]


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_what_goes_to_our_own_output_comes_after_what_is_there(tmp_path, kind):
    """As `--json /dev/stdout`, and that of a shell's `> file`; by a link of our own, which a mistake may replace."""
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    code = (
        "import sys; from pathlib import Path; from alexnet_dali.pipeline.files import write_atomically\n"
        "print('first', flush=True); write_atomically(Path(sys.argv[1]), b'second\\n'); print('third')"
    )
    command = [sys.executable, "-c", code, tmp_path / "stdout"]
    if kind == "pipe":
        said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    else:
        with open(tmp_path / "said", "wb") as output:
            subprocess.run(command, stdout=output, check=True)
        said = (tmp_path / "said").read_bytes()
    assert said == b"first\nsecond\nthird\n" and (tmp_path / "stdout").is_symlink()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_what_could_not_be_written_is_named_as_it_will_be_called(tmp_path, monkeypatch, number):
    path = tmp_path / "stats.npz"
    with monkeypatch.context() as patch, pytest.raises(NotWrittenError) as caught:
        fail_at(patch, number, "fsync", "replace")
        write_atomically(path, b"new")
    assert str(caught.value) == f"[Errno 28] No space left on device: '{path}'"
    back = pickle.loads(pickle.dumps(caught.value))  # as it comes from a worker
    assert type(back) is NotWrittenError and back.filename == str(path) and back.errno == errno.ENOSPC


def test_the_system_s_own_refusals_have_the_final_name_too(tmp_path):
    path = tmp_path / "none" / "stats.npz"
    with pytest.raises(NotWrittenError) as caught:
        write_atomically(path, b"new")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(path))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="file: not a folder"), locked(tmp_path / "file"):
        pytest.fail("it is none")
    with pytest.raises(UsageError, match="not a folder"), locked(tmp_path / "file" / "below"):
        pytest.fail("it is none")


def test_a_file_may_be_written_by_two_processes(tmp_path):
    path = tmp_path / "figure.png"

    def draw(file):
        write_atomically(path, b"the other's", part="2.part")
        file.write(b"ours")

    write_atomically(path, draw, part="1.part")
    assert path.read_bytes() == b"ours" and os.listdir(tmp_path) == ["figure.png"]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EFBIG, "make room"),
        (errno.EACCES, "check that you have write permission"),
        (errno.EROFS, "check that you have write permission"),
        (errno.ENOENT, "check what is at that path, or choose another"),
        (errno.EIO, "check the disk"),
        (None, "check the disk"),
    ],
)
def test_remedies(number, said):
    assert remedy(number) == said
