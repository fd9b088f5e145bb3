"""An output overwrites no checkpoint, part of a shard set or file of another kind; checked before the work."""

import os

import pytest
from alexnet_dali.pipeline.errors import UsageError
from alexnet_dali.tools.bench.cli import bench
from alexnet_dali.tools.figures.report.report import report
from alexnet_dali.tools.output_guard import check_folder, check_output, check_outputs, check_run_folder
from alexnet_dali.tools.prep.cli import prep


@pytest.fixture
def place(tmp_path):
    """A run, a shard set and a result of an earlier call, as far as their names tell."""
    for name in (
        *("run/last.pt", "run/best.pt", "run/metrics.jsonl", "run/config.json", "run/kernels/00000.npy"),
        *("run/index/index.json", "run/index/vectors.npy", "run/index/codes.json", "run/figures/curves.png"),
        *("set/dataset.json", "set/stats.json", "set/stats.npz", "set/rejected.csv", "set/train/00000.csv"),
        *(
            "set/train/00000.lmdb/data.mdb",
            "export/export.json",
            "export/train/00000.tar",
            "result.json",
            "classes.csv",
            "lines.txt",
        ),
        *("classes.csv", "lines.txt", "photo.jpg", "bare"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"kept")
    return tmp_path


def refused(call, *arguments, **keywords):
    with pytest.raises(UsageError) as caught:
        call(*arguments, **keywords)
    assert caught.value.hint
    return caught.value.message


OURS = ["run/config.json", "set/dataset.json", "set/stats.json", "set/rejected.csv", "set/train/00000.csv"]
OURS += ["run/index/index.json", "run/index/codes.json", "export/export.json"]
OTHERS = ["run/last.pt", "run/best.pt", "run/metrics.jsonl", "run/kernels/00000.npy", "run/index/vectors.npy"]
OTHERS += ["set/stats.npz", "photo.jpg", "bare"]


@pytest.mark.parametrize("suffix", [".json", ".csv", ".txt", ".html", ".png"])
def test_what_is_not_an_earlier_result_is_not_written_over(place, suffix):
    for name in OURS:
        assert refused(check_output, place / name, suffix) == (
            f"{place / name}: exists and has the name of a file of a shard set or a run; refusing to overwrite"
        )
    for name in OTHERS:
        assert refused(check_output, place / name, suffix) == (
            f"{place / name}: exists and is not a {suffix} file; refusing to overwrite"
        )
    for name in ("set/train/00000.lmdb/data.mdb", f"set/train/00000.lmdb/new{suffix}"):
        assert refused(check_output, place / name, suffix) == f"{place / name}: lies in a shard"
    assert "a folder, not a file" in refused(check_output, place / "run", suffix)
    assert "its folder does not exist" in refused(check_output, place / "none" / f"a{suffix}", suffix)
    check_output(place / "none" / f"a{suffix}", suffix, make=True)
    check_output(place / f"new{suffix}", suffix)
    check_output(place / "new name", suffix)


@pytest.mark.parametrize("suffix", [".json", ".csv", ".txt", ".html", ".png"])
def test_force_overwrites_another_kind_of_file_but_no_data(place, suffix):
    for name in ("photo.jpg", "bare"):
        check_output(place / name, suffix, force=True)
        check_outputs([(place / name, suffix)], force=True)
    for name in (*OURS, *OTHERS[:-2]):
        with pytest.raises(UsageError, match="refusing to overwrite") as caught:
            check_output(place / name, suffix, force=True)
        assert caught.value.hint.startswith("choose another name") and "--force" not in caught.value.hint
    (place / "link.json").symlink_to(place / "run/last.pt")
    assert f"a link to {place / 'run/last.pt'}, exists" in refused(check_output, place / "link.json", ".json")
    for name in ("set/train/00000.lmdb/data.mdb", f"set/train/00000.lmdb/new{suffix}"):
        assert refused(check_output, place / name, suffix, force=True) == f"{place / name}: lies in a shard"
    assert "a folder, not a file" in refused(check_output, place / "run", suffix, force=True)
    assert "its folder does not exist" in refused(check_output, place / "none" / "a", suffix, force=True)
    same = [(place / "bare", suffix), (place / "bare", suffix)]
    assert "two results" in refused(check_outputs, same, force=True)


def test_an_earlier_result_is(place, monkeypatch):
    for name, suffix in [("result.json", ".json"), ("classes.csv", ".csv"), ("lines.txt", ".txt")]:
        check_output(place / name, suffix)
    (place / "PAGE.HTML").write_bytes(b"")
    check_output(place / "PAGE.HTML", ".html", ".htm")
    monkeypatch.chdir(place)
    check_outputs([(None, ".json"), (place / "result.json", ".json"), (place / "lines.txt", ".txt")])
    again = place / "run" / ".." / "result.json"
    assert "two results" in refused(check_outputs, [(place / "result.json", ".json"), (again, ".json")])


@pytest.mark.parametrize("suffix", [".json", ".csv", ".txt", ".png", ".html"])
def test_the_suffix_alone_says_that_a_file_is_an_earlier_result(place, suffix):
    """Not its content: a result under a name of another suffix, or none, needs --force the second time."""
    for name in ("result", "out.dat", "run/result", f"one{suffix}x"):
        for content in (b"", b"3", b"{}", b"3 1 2\n", b"a,b\n", b"\xff\x00", b"<!DOCTYPE html>"):
            (place / name).write_bytes(content)
            assert "refusing to overwrite" in refused(check_output, place / name, suffix)
            check_output(place / name, suffix, force=True)
    (place / f"any{suffix}").write_bytes(b"{")
    check_output(place / f"any{suffix}", suffix)


def test_names_of_ours_are_kept_wherever_they_are(place):
    names = ["config.json", "stats.json", "index.json", "settings.json", "sample.json", "dataset.json", "rejected.csv"]
    (place / "results").mkdir()
    for name in (*names, "export.json", "job.json", "begun.json", "codes.json"):
        check_output(place / "results" / name, f".{name.split('.')[1]}")
        (place / "results" / name).write_bytes(b"{}")
        assert "has the name of a file of" in refused(check_output, place / "results" / name, f".{name.split('.')[1]}")
        assert "has the name of" in refused(check_output, place / "results" / name, ".csv", force=True)
    (place / "set/train/classes.csv").write_bytes(b"")
    check_output(place / "set/train/classes.csv", ".csv")
    (place / "folder.lmdb").mkdir()
    check_output(place / "folder.lmdb" / "a.json", ".json")
    check_output(place / "b.lmdb", ".json")
    check_folder(place / "folder.lmdb", [])
    check_run_folder(place / "folder.lmdb", False)


@pytest.mark.parametrize(
    ("name", "neighbour"),
    [
        *[("config.json", each) for each in ("last.pt", "best.pt", "metrics.jsonl")],
        *[("dataset.json", each) for each in ("val/00000.lmdb/data.mdb", "stats.npz", "rejected.csv")],
        *[("stats.json", each) for each in ("dataset.json", "stats.npz")],
        *[("rejected.csv", each) for each in ("dataset.json", "val/00000.lmdb/data.mdb", ".build/job.json")],
        *[(each, "begun.npy") for each in ("begun.json", "index.json")],
        *[("codes.json", "codes.npy"), ("settings.json", "tanh/0.01.pt"), ("sample.json", "train/a/1.jpg")],
        *[(".build/job.json", "train"), (".export/job.json", "train"), ("export.json", "train/00000.tar")],
        *[("00003.csv", "00000.lmdb/data.mdb"), ("odd.csv", "odd.lmdb/data.mdb")],
    ],
)
def test_names_of_ours_beside_what_is_ours(tmp_path, name, neighbour):
    for each in (name, neighbour):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).write_bytes(b"{}")
    assert "has the name of a file of" in refused(check_output, tmp_path / name, f".{name.split('.')[-1]}")


def test_of_a_link_what_it_leads_to_counts(place):
    for name in ("run/last.pt", "set/dataset.json", "set/train/00000.lmdb/data.mdb"):
        link = place / "link.json"
        link.symlink_to(place / name)
        assert str(link) in refused(check_output, link, ".json")
        link.unlink()
    (place / "link.json").symlink_to(place / "result.json")
    check_output(place / "link.json", ".json")


def test_pipes_and_devices_are_written_into(place):
    os.mkfifo(place / "pipe")
    check_outputs([(place / "pipe", ".json"), (place / "pipe", ".csv")])
    master, slave = os.openpty()
    try:
        check_output(type(place)(os.ttyname(slave)), ".json")
    finally:
        os.close(master)
        os.close(slave)


def test_folders(place):
    check_folder(place / "run", ["README.md"])
    check_folder(place / "none", ["README.md"])
    assert refused(check_folder, place / "run", ["last.pt"]) == f"{place / 'run'}: already holds a last.pt"
    assert refused(check_folder, place / "result.json", []) == f"{place / 'result.json'}: a file, not a folder"
    assert "lies in a shard" in refused(check_folder, place / "set" / "train" / "00000.lmdb", [])


def test_a_run_is_not_put_into_a_shard_set(place):
    for name in ("set", "set/train"):
        message = refused(check_run_folder, place / name, False)
        assert message == f"{place / name}: is a shard set or a part of one"
    assert "lies in a shard" in refused(check_run_folder, place / "set" / "train" / "00000.lmdb", False)
    assert "already holds a run" in refused(check_run_folder, place / "run", False)
    check_run_folder(place / "run", True)
    check_run_folder(place / "new", False)


@pytest.mark.parametrize(
    ("group", "arguments"),
    [
        (prep, ["info", "--shards", "nowhere", "--contact-sheet", "set/train/00000.lmdb/a.png"]),
        (prep, ["doctor", "--json", "run/last.pt"]),
        (bench, ["prep", "nowhere", "--json", "run/last.pt"]),
        (bench, ["loader", "--shards", "nowhere", "--json", "run/last.pt"]),
        (bench, ["loader", "--shards", "nowhere", "--plot", "run/last.pt"]),
        (bench, ["train", "--shards", "nowhere", "--json", "run/last.pt"]),
        (bench, ["table", "nowhere", "--json", "run/last.pt"]),
        (bench, ["table", "nowhere", "--json", "run/config.json"]),
        (report, ["nowhere", "--out", "run/last.pt"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_command_says_so_before_its_work(place, monkeypatch, in_process, group, arguments):
    """What it would work on is not there, and would be missed first."""
    monkeypatch.chdir(place)
    code, _, err = in_process(group, *arguments)
    assert code == 2 and arguments[-1] in err and ("refusing to overwrite" in err or "lies in a shard" in err)
    assert (place / "run" / "last.pt").read_bytes() == b"kept"
