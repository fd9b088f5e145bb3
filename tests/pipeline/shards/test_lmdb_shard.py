"""One shard: LMDB's format 1, keys without gaps, old or new but never half, refused in words when damaged."""

import errno
import fnmatch
import hashlib
import os
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import lmdb
import pytest
from alexnet_dali.pipeline.errors import ShardError
from alexnet_dali.pipeline.shards import lmdb_shard
from alexnet_dali.pipeline.shards.lmdb_shard import (
    Shard,
    ShardFile,
    check_format,
    key,
    repair_hint,
    sha256_of,
    write_shard,
)

VALUES = [b"record %d " % k * (k % 7 * 100 + 1) for k in range(40)]
AGAIN = "copy or build the shard set again"


def refusal(call, *arguments):
    with pytest.raises(ShardError) as caught:
        call(*arguments)
    return caught.value.message, caught.value.hint


def entries(path):
    """All keys and values, by a cursor, as Caffe and DALI read them."""
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [(bytes(name), bytes(value)) for name, value in transaction.cursor()]


def test_keys_are_eight_digits_in_order(tmp_path):
    write_shard(tmp_path / "a.lmdb", VALUES)
    assert entries(tmp_path / "a.lmdb") == [(b"%08d" % k, value) for k, value in enumerate(VALUES)]
    assert [key(0), key(9), key(99_999_999)] == [b"00000000", b"00000009", b"99999999"]


def test_what_is_written_is_told(tmp_path):
    path = tmp_path / "deep" / "a.lmdb"
    written = write_shard(path, iter(VALUES))
    data = (path / "data.mdb").read_bytes()
    assert written == ShardFile(40, len(data), hashlib.sha256(data).hexdigest())
    assert sha256_of(path / "data.mdb") == written.sha256
    assert os.listdir(path) == ["data.mdb"] and os.listdir(path.parent) == ["a.lmdb"]  # no lock file, nothing beside


def test_the_file_is_lmdb_format_1(tmp_path):
    write_shard(tmp_path / "a.lmdb", VALUES)
    page = (tmp_path / "a.lmdb" / "data.mdb").read_bytes()[:4096]
    assert struct.unpack_from("=QHH", page) == (0, 0, 0x08)  # page 0, a meta page
    assert struct.unpack_from("=II", page, 16) == (0xBEEFC0DE, 1)


def test_equal_values_make_equal_files(tmp_path):
    assert write_shard(tmp_path / "a.lmdb", VALUES) == write_shard(tmp_path / "b.lmdb", VALUES)


def test_more_records_than_one_transaction_holds(tmp_path, monkeypatch):
    many = [b"%d" % k for k in range(2 * lmdb_shard.COMMIT_EVERY + 1)]
    file = write_shard(tmp_path / "a.lmdb", many)
    assert file.records == len(many)
    assert [value for _, value in entries(tmp_path / "a.lmdb")] == many
    monkeypatch.setattr(lmdb_shard, "COMMIT_EVERY", 20)
    exactly = write_shard(tmp_path / "b.lmdb", VALUES)
    assert exactly.records == 40 and [value for _, value in entries(tmp_path / "b.lmdb")] == VALUES


def test_reading_by_index(tmp_path):
    file = write_shard(tmp_path / "a.lmdb", VALUES)
    shard = Shard(tmp_path / "a.lmdb", file)
    assert [bytes(shard.value(k)) for k in (39, 0, 17)] == [VALUES[39], VALUES[0], VALUES[17]]
    assert refusal(shard.value, 40) == (f"{tmp_path}/a.lmdb: no record 40", AGAIN)
    assert refusal(shard.value, -1)[0] == f"{tmp_path}/a.lmdb: no record -1"


def test_a_shard_may_be_empty(tmp_path):
    file = write_shard(tmp_path / "a.lmdb", [])
    assert file.records == 0
    assert refusal(Shard(tmp_path / "a.lmdb", file).value, 0)[0] == f"{tmp_path}/a.lmdb: no record 0"


def test_a_folder_whose_name_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9") / "a.lmdb"
    file = write_shard(path, VALUES)
    assert bytes(Shard(path, file).value(1)) == VALUES[1]


def handles_of(path):
    """How many files below a folder this process holds open."""
    names = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return sum(name.startswith(f"{path}/") for name in names)


def test_any_number_of_readers_beside_lmdb_s_own_and_each_closes_with_its_last_user(tmp_path):
    path = tmp_path / "a.lmdb"
    file = write_shard(path, VALUES)
    first, second = Shard(path, file), Shard(path, file, in_order=False)
    with lmdb.open(str(path), readonly=True, lock=False) as environment:
        assert environment.stat()["entries"] == 40
    assert first.value(17) == second.value(17) == VALUES[17]
    assert handles_of(path) == 2
    del first, second
    assert handles_of(path) == 0


def test_it_may_be_read_after_a_fork_and_in_threads(tmp_path):
    shard = Shard(tmp_path / "a.lmdb", write_shard(tmp_path / "a.lmdb", VALUES))
    with ThreadPoolExecutor(4) as pool:
        assert [bytes(value) for value in pool.map(shard.value, [*range(40)] * 20)] == VALUES * 20
    child = os.fork()
    if child == 0:
        os._exit(0 if [bytes(shard.value(k)) for k in range(40)] == VALUES else 1)
    assert [bytes(shard.value(k)) for k in range(40)] == VALUES
    assert os.waitpid(child, 0)[1] == 0


def test_a_file_system_that_gives_less_than_was_asked_for(tmp_path, monkeypatch):
    shard, whole = Shard(tmp_path / "a.lmdb", write_shard(tmp_path / "a.lmdb", VALUES)), os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: whole(file, [buffers[0][:7]], offset))
    assert [bytes(shard.value(k)) for k in range(40)] == VALUES


def test_a_disk_that_fails_and_a_file_that_ends_are_named(tmp_path, monkeypatch):
    path = tmp_path / "a.lmdb"
    shard = Shard(path, write_shard(path, VALUES))

    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fails)
        message, hint = refusal(shard.value, 17)
    assert message == f"{path}, record 17: Input/output error" and hint == repair_hint(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", lambda *_: 0)  # as a file that is shorter than it says
        assert refusal(shard.value, 17)[0] == f"{path}, record 17: the file ends within it"
    os.truncate(path / "data.mdb", 4096)
    assert refusal(shard.value, 17)[0].startswith(f"{path}/data.mdb: changed while it was being read: 4,096 bytes, ")


def test_a_shard_that_is_written_again_is_opened_again(tmp_path):
    path = tmp_path / "a.lmdb"
    first = Shard(path, write_shard(path, [b"old"]))
    second = Shard(path, write_shard(path, [b"new"]))
    assert (bytes(first.value(0)), bytes(second.value(0))) == (b"old", b"new")


def test_reading_changes_nothing(tmp_path):
    path = tmp_path / "a.lmdb"
    file = write_shard(path, VALUES)
    (path / "data.mdb").chmod(0o444)
    before = (path / "data.mdb").stat()
    shard = Shard(path, file)
    assert sum(len(shard.value(k)) for k in range(40)) == sum(map(len, VALUES))
    after = (path / "data.mdb").stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    assert os.listdir(path) == ["data.mdb"]


@pytest.mark.parametrize("pages", [0, 1, 2, 5, -1])
def test_a_truncated_shard_is_refused_at_once(tmp_path, pages):
    path = tmp_path / "a.lmdb"
    file = write_shard(path, VALUES)
    size = 4096 * pages if pages >= 0 else file.bytes - 4096
    os.truncate(path / "data.mdb", size)
    message = (
        f"{path}/data.mdb: {size:,} bytes, but dataset.json says {file.bytes:,}"
        if size
        else f"{path}/data.mdb: not an LMDB file: 0 bytes"
    )
    assert message in refusal(Shard, path, file)


def test_a_shard_with_other_records_is_refused_and_not_kept_open(tmp_path):
    path = tmp_path / "a.lmdb"
    file = write_shard(path, VALUES)
    with pytest.raises(ShardError) as caught:
        Shard(path, ShardFile(41, file.bytes, file.sha256))
    assert str(caught.value) == f"{path}/data.mdb: 40 records, but dataset.json says 41; {AGAIN}"
    assert Shard(path, file).records == 40  # though the error, and so its traceback, is still held


def test_a_missing_shard(tmp_path):
    file = write_shard(tmp_path / "a.lmdb", VALUES)
    message, hint = refusal(Shard, tmp_path / "b.lmdb", file)
    assert message == f"{tmp_path}/b.lmdb/data.mdb: No such file or directory" and "copy it completely" in hint
    message, hint = refusal(check_format, tmp_path / "b.lmdb" / "data.mdb")
    assert message == f"{tmp_path}/b.lmdb/data.mdb: No such file or directory"
    assert hint == "build the shard set again, or copy it completely"


def head_of(number, at=16):
    return bytes(at) + number + bytes(100)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (head_of(struct.pack("=II", 0xBEEFC0DE, 3), at=24), "LMDB format 3, which DALI and Caffe cannot read"),
        (head_of(struct.pack("=I", 0xBEEFC0DE)[::-1]), "an LMDB file of a machine with the other byte order"),
        (head_of(struct.pack("=II", 0xBEEFC0DE, 2)), "not an LMDB file of format 1"),
        (b"SQLite format 3\0" * 8, "not an LMDB file of format 1"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path, head, what):
    (tmp_path / "data.mdb").write_bytes(head)
    assert refusal(check_format, tmp_path / "data.mdb") == (
        f"{tmp_path}/data.mdb: {what}",
        "build the shard set again with alexnet-prep build-lmdb",
    )
    assert refusal(Shard, tmp_path, ShardFile(1, len(head), ""))[0] == f"{tmp_path}/data.mdb: {what}"


def test_an_environment_of_another_version_is_not_opened(tmp_path):
    """What py-lmdb 3 writes when asked for its new format."""
    with lmdb.open(str(tmp_path), lock=False, lib_version=1) as environment, environment.begin(write=True) as writing:
        writing.put(key(0), b"value")
    assert "LMDB format 3" in refusal(check_format, tmp_path / "data.mdb")[0]


def test_a_shard_that_was_written_in_another_format_gets_no_name(tmp_path, monkeypatch):
    """As a py-lmdb would whose default is the newest format."""
    head = head_of(struct.pack("=II", 0xBEEFC0DE, 3), at=24)
    monkeypatch.setattr(lmdb_shard, "_write_environment", lambda folder, _: (folder / "data.mdb").write_bytes(head))
    assert "LMDB format 3" in refusal(write_shard, tmp_path / "a.lmdb", VALUES)[0]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt, ShardError])
@pytest.mark.parametrize("after", [0, 3, 25])
def test_a_stopped_writer_leaves_the_old_shard_and_nothing_beside_it(tmp_path, monkeypatch, stop, after):
    monkeypatch.setattr(lmdb_shard, "COMMIT_EVERY", 10)
    path = tmp_path / "a.lmdb"
    old = write_shard(path, [b"old"])

    def values():
        yield from VALUES[:after]
        raise stop("stopped")

    with pytest.raises(stop, match="stopped"):
        write_shard(path, values())
    assert os.listdir(tmp_path) == ["a.lmdb"]
    assert bytes(Shard(path, old).value(0)) == b"old"
    assert write_shard(path, VALUES).records == 40


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    (tmp_path / ".a.lmdb.part").mkdir()
    (tmp_path / ".a.lmdb.part" / "data.mdb").write_bytes(b"half a shard")
    (tmp_path / ".a.lmdb.part" / "more").mkdir()
    write_shard(tmp_path / "a.lmdb", VALUES)
    assert os.listdir(tmp_path) == ["a.lmdb"] and os.listdir(tmp_path / "a.lmdb") == ["data.mdb"]


def test_a_shard_gets_its_name_when_it_is_durable(tmp_path, monkeypatch):
    path, calls = tmp_path / "a.lmdb", []
    real_rename = os.rename

    def rename(old, new):
        calls.append(("rename", new))
        real_rename(old, new)

    monkeypatch.setattr(lmdb_shard, "sync_folder", lambda folder: calls.append(("sync", folder)))
    monkeypatch.setattr(os, "rename", rename)
    write_shard(path, VALUES)
    assert [name for name, _ in calls] == ["sync", "rename", "sync"]
    assert fnmatch.fnmatch(calls[0][1].name, ".a.lmdb.????????.part") and [calls[1][1], calls[2][1]] == [path, tmp_path]


def test_the_records_are_durable_before_the_name(tmp_path, monkeypatch):
    """LMDB writes without a sync; one comes before the rename, or a power cut could leave a name without content."""
    order = []
    real_open, real_rename = lmdb.open, os.rename

    class Watched:
        def __init__(self, environment):
            self._environment = environment

        def __getattr__(self, name):
            return getattr(self._environment, name)

        def sync(self, force=False):
            order.append(("sync", force))
            self._environment.sync(force)

    monkeypatch.setattr(lmdb, "open", lambda *folder, **options: Watched(real_open(*folder, **options)))
    monkeypatch.setattr(os, "rename", lambda *names: order.append(("rename", None)) or real_rename(*names))
    write_shard(tmp_path / "a.lmdb", VALUES)
    assert order == [("sync", True), ("rename", None)]


def test_a_full_map_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_shard, "MAP_BYTES", 1 << 16)
    message, hint = refusal(write_shard, tmp_path / "a.lmdb", [bytes(40_000)] * 3)
    assert message == f"{tmp_path}/a.lmdb: the shard is larger than 0 GiB"
    assert hint == "build with a smaller --shard-records"
    assert os.listdir(tmp_path) == []


def test_what_lmdb_refuses_is_told(tmp_path, monkeypatch):
    def full(*_, **__):
        raise lmdb.DiskError("mdb_txn_commit: No space left on device")

    monkeypatch.setattr(lmdb, "open", full)
    message, hint = refusal(write_shard, tmp_path / "a.lmdb", VALUES)
    said = "cannot be written: the disk is full (mdb_txn_commit: No space left on device)"
    assert message == f"{tmp_path}/a.lmdb: {said}"
    assert hint.startswith("make room, then run the same command again")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("free", [0, 100_000, 1 << 30])
def test_a_full_disk_is_told_though_lmdb_takes_it_for_a_broken_one(tmp_path, monkeypatch, free):
    def short(*_, **__):
        raise lmdb.Error("mdb_txn_commit: Input/output error")

    monkeypatch.setattr(lmdb, "open", short)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free // 4096, f_frsize=4096))
    message, hint = refusal(write_shard, tmp_path / "a.lmdb", VALUES)
    assert ("the disk is full" in message and "make room" in hint) is (free < 1 << 20)
    assert f"{tmp_path}/a.lmdb: cannot be written: " in message and "Input/output error" in message


LIMITED = """
import resource, sys
from pathlib import Path
from alexnet_dali.pipeline.errors import ShardError
from alexnet_dali.pipeline.shards.lmdb_shard import write_shard
resource.setrlimit(resource.RLIMIT_AS, (1 << 34, resource.RLIM_INFINITY))
try:
    write_shard(Path(sys.argv[1]), [b"value"])
except ShardError as error:
    print(error.message, error.hint, sep="\\n")
"""


def test_too_few_addresses_are_told_as_memory(tmp_path):
    command = [sys.executable, "-c", LIMITED, tmp_path / "a.lmdb"]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=180)
    message, hint = said.stdout.splitlines()
    assert message.startswith(f"{tmp_path}/a.lmdb: cannot be written: ") and "Cannot allocate memory" in message
    assert hint == "LMDB reserves 64 GiB of address space: raise the limit (ulimit -v)"
    assert os.listdir(tmp_path) == []


def test_a_disk_that_cannot_say_how_full_it_is_hides_no_error(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def refuses(*_, **__):
        raise lmdb.Error("mdb_env_open: Input/output error")

    monkeypatch.setattr(lmdb_shard.lmdb, "open", refuses)
    monkeypatch.setattr(lmdb_shard.os, "statvfs", fails)
    with pytest.raises(ShardError) as caught:
        write_shard(tmp_path / "a.lmdb", [b"value"])
    assert caught.value.message == f"{tmp_path}/a.lmdb: cannot be written: mdb_env_open: Input/output error"
