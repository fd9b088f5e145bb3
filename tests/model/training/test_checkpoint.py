"""Checkpoints: old or new and never between, nothing run from a file, no wrong weight loaded in silence."""

import errno
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from alexnet_dali.model.nets.alexnet import AlexNet
from alexnet_dali.model.recipes.recipe import paper, source2012
from alexnet_dali.model.training import checkpoint
from alexnet_dali.model.training.checkpoint import (
    check_classes,
    hard_link,
    load,
    run_checkpoint,
    save,
    stats_to_save,
)
from alexnet_dali.model.training.run_files import write_errors
from alexnet_dali.model.weights.trained import Trained, load_trained
from alexnet_dali.pipeline import files
from alexnet_dali.pipeline.errors import TrainingError, UsageError
from alexnet_dali.pipeline.shards import stats
from waiting import waiting_at_most


def state(seed=0):
    """A small checkpoint: tensors of several types, names, numbers and nothing."""
    random = torch.Generator().manual_seed(seed)
    return {
        "config": {"recipe": "source2012", "rate": 0.1},
        "model": {f"layer{k}": torch.randn(40, 7, generator=random) for k in range(3)},
        "velocity": {"layer0": torch.randn(40, 7, generator=random), "layer1": None},
        "stats": {"mean": torch.randn(5, generator=random, dtype=torch.float64)},
        "classes": ["café", "b"],
        "best_error": float("inf"),
        "step": 2**40,
    }


def same(one, two):
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and list(one) == list(two) and all(same(one[name], two[name]) for name in one)
    return type(one) is type(two) and one == two


def refused(path):
    """Load what must not load; return the error."""
    with pytest.raises(TrainingError) as caught:
        load(path)
    assert str(path) in caught.value.message and caught.value.hint
    return caught.value


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path):
    save(tmp_path / "last.pt", state())
    expected = {"format": "alexnet-dali checkpoint", "version": 1, **state()}
    assert same(load(tmp_path / "last.pt"), expected)
    assert names(tmp_path) == ["last.pt"]


class Failing:
    """A file whose n-th write meets a full disk."""

    def __init__(self, file, left):
        self.file, self.left = file, left

    def write(self, data):
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.left -= 1
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_full_disk_at_any_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    save(path, state(0))
    write = torch.save
    failures = 0
    while True:
        monkeypatch.setattr(torch, "save", lambda value, file, n=failures: write(value, Failing(file, n)))
        try:
            save(path, state(1))
            break
        except TrainingError as error:
            assert error.message.startswith(f"{path}: cannot be written: ")
            assert error.hint == "make room; then continue with --resume from the last checkpoint"
            assert names(tmp_path) == ["last.pt"] and same(load(path)["model"], state(0)["model"])
            failures += 1
    assert failures > 5  # header, parts and directory are written one by one
    assert same(load(path)["model"], state(1)["model"])


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "last.pt"
    save(path, state(0))

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(TrainingError, match="Input/output error"):
        save(path, state(1))
    assert names(tmp_path) == ["last.pt"] and same(load(path)["model"], state(0)["model"])


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    calls = []

    def noted(name, operation):
        def call(*arguments):
            calls.append(name)
            return operation(*arguments)

        return call

    monkeypatch.setattr(files.os, "fsync", noted("sync", os.fsync))
    monkeypatch.setattr(files.os, "replace", noted("rename", os.replace))
    save(tmp_path / "last.pt", state())
    assert calls == ["sync", "rename", "sync"]  # the file, its name, the folder


def test_a_broken_off_write_of_a_killed_process_is_in_nobodys_way(tmp_path):
    (tmp_path / ".last.pt.part").write_bytes(b"half")
    save(tmp_path / "last.pt", state())
    assert names(tmp_path) == ["last.pt"]


def test_no_file_names_what_to_name(tmp_path):
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "last.pt")
    assert caught.value.message == f"{tmp_path / 'last.pt'}: no such checkpoint"
    assert "folder that alexnet-train wrote" in caught.value.hint


def test_a_truncated_file_is_refused_and_another_named(tmp_path):
    path, best = tmp_path / "last.pt", tmp_path / "best.pt"
    save(path, state())
    whole = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        error = refused(path)
        assert "damaged, or not a checkpoint" in error.message
        assert error.hint == "use another checkpoint of that run: none found"
    path.write_bytes(whole[:-1])
    best.write_bytes(whole)
    assert refused(path).hint == f"use another checkpoint of that run: {best}"
    assert same(load(best)["model"], state()["model"])


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    """torch.load does not look at the checksums: without a look a flipped bit would be a wrong weight."""
    path = tmp_path / "last.pt"
    save(path, state())
    whole, expected = path.read_bytes(), load(path)
    weights = whole.index(state()["model"]["layer1"].numpy().tobytes())
    places = set(np.random.default_rng(0).integers(0, 8 * len(whole), 1000).tolist())
    places |= {8 * (weights + k) + k % 8 for k in range(0, 1100, 50)}
    harmless = 0
    for place in places:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert same(load(path), expected), f"bit {place}"
            assert not weights <= place // 8 < weights + 1120
            harmless += 1
        except TrainingError as error:
            assert "damaged, or not a checkpoint" in error.message or "not a checkpoint of" in error.message
    assert harmless < 250  # in the padding between the parts; the rest were refused


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 500000000 bytes"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lack_of_memory_is_not_damage(tmp_path, monkeypatch, error):
    def fails(*_, **__):
        raise error

    save(tmp_path / "last.pt", state())
    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(type(error)) as caught:
        load(tmp_path / "last.pt")
    assert caught.value is error


def test_a_part_called_a_folder_is_refused(tmp_path):
    """Found by flipping every bit: with this one torch reads nothing of the part, and says nothing."""
    path = tmp_path / "last.pt"
    save(path, state())
    with zipfile.ZipFile(path) as archive:
        name = next(part.filename for part in archive.infolist() if part.file_size == 1120)
    entry = bytearray(path.read_bytes())
    at = entry.index(b"PK\x01\x02", entry.index(b"PK\x01\x02"))
    while entry[at + 46 : at + 46 + len(name)] != name.encode():
        at = entry.index(b"PK\x01\x02", at + 4)
    entry[at + 38] |= 0x10  # the directory bit of the external attributes
    path.write_bytes(entry)
    assert f"{name} does not match its checksum" in refused(path).message


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("kind", ["pickle", "torch", "torch, among tensors"])
def test_a_pickle_bomb_does_not_go_off(tmp_path, kind):
    path, crater = tmp_path / "last.pt", tmp_path / "crater"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb(crater)))
    elif kind == "torch":
        torch.save(Bomb(crater), path)
    else:
        save(path, {**state(), "extra": [Bomb(crater)]})
    assert "damaged, or not a checkpoint" in refused(path).message
    assert not crater.exists()
    if kind != "pickle":  # the bomb is live
        torch.load(path, weights_only=False)
        assert crater.is_dir()


@pytest.mark.parametrize(
    "value", [{"model": {}}, {"format": "another program's", "version": 1}, [1, 2], torch.zeros(3)], ids=str
)
def test_a_foreign_file_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "net.pt")
    error = refused(tmp_path / "net.pt")
    assert error.message.endswith("not a checkpoint of alexnet-train") and "run's folder" in error.hint


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04", b"not a zip file at all" * 99])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    assert "damaged, or not a checkpoint" in refused(tmp_path / "last.pt").message


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "last.pt").mkdir()
    assert "damaged, or not a checkpoint" in refused(tmp_path / "last.pt").message


@pytest.mark.parametrize("version", [2, None, "1"])
def test_another_version_is_refused(tmp_path, version):
    torch.save({"format": checkpoint.FORMAT, "version": version, **state()}, tmp_path / "last.pt")
    error = refused(tmp_path / "last.pt")
    assert error.message.endswith(f"version {version}, this program reads version 1")
    assert error.hint == "update alexnet-dali"


@pytest.mark.parametrize("links", [True, False], ids=["hard link", "copy"])
def test_the_best_survives_the_next_save(tmp_path, monkeypatch, links):
    last, best = tmp_path / "last.pt", tmp_path / "best.pt"
    if not links:

        def refuse(*_):
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(checkpoint.os, "link", refuse)
    save(best, state(0))
    hard_link(best, last)
    assert last.samefile(best) is links and same(load(last), load(best))
    save(last, state(1))
    assert same(load(best)["model"], state(0)["model"]) and same(load(last)["model"], state(1)["model"])
    save(best, state(2))
    (tmp_path / ".last.pt.part").write_bytes(b"left by a killed process")
    hard_link(best, last)
    assert last.samefile(best) is links and same(load(last)["model"], state(2)["model"])
    assert names(tmp_path) == ["best.pt", "last.pt"]


def test_of_a_run_the_best_is_used_else_the_last(tmp_path):
    assert run_checkpoint(tmp_path) == tmp_path / "last.pt"
    save(tmp_path / "last.pt", state())
    assert run_checkpoint(tmp_path) == tmp_path / "last.pt"
    save(tmp_path / "best.pt", state())
    assert run_checkpoint(tmp_path) == tmp_path / "best.pt"
    assert run_checkpoint(tmp_path / "last.pt") == tmp_path / "last.pt"
    assert run_checkpoint(tmp_path / "nowhere") == tmp_path / "nowhere"


@pytest.fixture
def measured(shards):
    return stats.load_stats(shards)


@pytest.fixture
def whole(monkeypatch, shards, measured):
    """What the trainer saves, of a net of few hidden units."""
    tiny.shrink(monkeypatch)
    return {
        "config": {"recipe": "paper", "shards": str(shards.root)},
        "recipe": paper().described(),
        "model": AlexNet(4, paper().net, seed=3).state_dict(),
        "classes": list(shards.classes),
        "stats": stats_to_save(measured),
    }


def test_a_trained_net_comes_with_all_it_needs(tmp_path, whole, shards, measured):
    save(tmp_path / "best.pt", whole)
    trained = load_trained(tmp_path / "best.pt")
    assert trained.file == tmp_path / "best.pt" and trained.shards == shards.root
    assert trained.recipe == paper() and trained.net.options == paper().net
    assert trained.classes == list(shards.classes)
    for name, tensor in whole["model"].items():
        assert torch.equal(trained.net.state_dict()[name], tensor)
    assert (trained.stats.images, trained.stats.fingerprint) == (measured.images, measured.fingerprint)
    for name in checkpoint.STATS:
        ours = getattr(trained.stats, name)
        assert ours.dtype == np.float64 and np.array_equal(ours, getattr(measured, name)), name
    trained.check_set(shards)


@pytest.mark.parametrize(
    "spoil, text",
    [
        (lambda whole: whole["model"].pop("conv3.bias"), "conv3.bias"),
        (lambda whole: whole["model"].update({"conv6.weight": torch.zeros(1)}), "conv6.weight"),
        (lambda whole: whole["model"].update({"fc7.weight": torch.zeros(2, 2)}), "size mismatch for fc7.weight"),
        (lambda whole: whole["recipe"]["net"].update({"columns": 1}), "size mismatch for conv1.weight"),
        (lambda whole: whole["recipe"]["net"].update({"rows": 1}), "rows"),
        (lambda whole: whole.update(classes=[*whole["classes"], "one more"]), "size mismatch for fc8"),
        (lambda whole: whole.pop("stats"), "stats"),
        (lambda whole: whole.update(stats={**whole["stats"], "mean_rgb": 3.0}), "numpy"),
    ],
    ids=[
        "a layer missing",
        "a layer more",
        "another width",
        "one column",
        "an option more",
        "classes",
        "no stats",
        "a number",
    ],
)
def test_another_net_is_refused(tmp_path, whole, spoil, text):
    spoil(whole)
    save(tmp_path / "last.pt", whole)
    with pytest.raises(TrainingError) as caught:
        load_trained(tmp_path / "last.pt")
    assert (
        caught.value.message.startswith(f"{tmp_path / 'last.pt'}: does not fit this net: ")
        and text in caught.value.message
    )
    assert caught.value.hint == "use the version of alexnet-dali that wrote it"


def test_other_classes_are_refused(shards):
    with pytest.raises(TrainingError) as caught:
        check_classes(["ant", "bee", "cow", "dog", "elk"], shards, Path("runs/a/last.pt"))
    first = ", ".join(shards.classes[:3])
    assert caught.value.message == (
        f"runs/a/last.pt: trained on 5 classes (ant, bee, cow, ...), but {shards.root} has 4 ({first}, ...)"
    )
    assert "shard set of the training" in caught.value.hint
    with pytest.raises(TrainingError):  # another order is another meaning
        check_classes(list(reversed(shards.classes)), shards, Path("runs/a/last.pt"))


def test_pictures_of_another_size_are_refused(shards, measured):
    """The mean image's central window would be cut at another place, or not fit at all."""
    smaller = replace(measured, mean_image=measured.mean_image[:240, :240])
    with pytest.raises(TrainingError) as caught:
        Trained(Path("a.pt"), None, source2012(), smaller, list(shards.classes), shards.root).check_set(shards)
    assert caught.value.message == f"a.pt: trained on pictures of 240x240, but {shards.root} has 256x256"
    assert caught.value.hint == "use the shard set of the training, or one built with --size 240"


@pytest.mark.parametrize("change", ["statistics", "mean", "crop", "nothing"])
def test_nets_that_want_other_pictures_are_refused(measured, change):
    one = Trained(Path("a.pt"), None, source2012(), measured, ["x"], Path("out"))
    two = replace(
        one,
        file=Path("b.pt"),
        stats=replace(measured, fingerprint="else") if change == "statistics" else measured,
        recipe=replace(paper(), mean="rgb" if change == "mean" else "image", crop=192 if change == "crop" else 224),
    )
    if change == "nothing":
        two.check_pictures(one)
        return
    with pytest.raises(TrainingError) as caught:
        two.check_pictures(one)
    assert caught.value.message == "b.pt: trained on other photos, with another mean or another crop than a.pt"
    assert caught.value.hint == "average runs that were trained on one shard set with the same input"


def test_a_run_s_own_checkpoints_win_over_an_export_of_it(tmp_path):
    """Exported once and trained on: what was exported is stale."""
    (tmp_path / "model.safetensors").write_bytes(b"of an earlier day")
    assert run_checkpoint(tmp_path) == tmp_path / "model.safetensors"
    save(tmp_path / "last.pt", state())
    assert run_checkpoint(tmp_path) == tmp_path / "last.pt"
    save(tmp_path / "best.pt", state())
    assert run_checkpoint(tmp_path) == tmp_path / "best.pt"


@pytest.mark.parametrize("name", ["last.pt", "model.safetensors"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with waiting_at_most(20):
        error = refused(tmp_path / name)
    assert error.message == f"{tmp_path / name}: a pipe or a device, not a file"


def test_a_device_is_refused_and_not_read():
    """Of /dev/zero a reader comes to no end; a terminal of our own is a device as well."""
    master, slave = os.openpty()
    try:
        with waiting_at_most(20):
            assert "a pipe or a device" in refused(Path(os.ttyname(slave))).message
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize(("part", "name"), [("model", "conv2.weight"), ("stats", "mean_image"), ("stats", "mean_rgb")])
def test_values_that_are_no_numbers_are_refused_by_name(tmp_path, whole, part, name, value):
    whole[part][name] = whole[part][name].clone()
    whole[part][name].view(-1)[-1] = value
    save(tmp_path / "best.pt", whole)
    with pytest.raises(TrainingError) as caught:
        load_trained(tmp_path / "best.pt")
    assert caught.value.message == f"{tmp_path / 'best.pt'}: {part}.{name} has values that are not finite"
    assert caught.value.hint == "use another checkpoint"


def test_more_classes_than_it_has_weights_for_are_refused_before_anything_is_made(tmp_path, whole, monkeypatch):
    """A million classes would be 16 GB of fc8, of a file of 30 MB."""
    made = []
    monkeypatch.setattr("alexnet_dali.model.weights.trained.create_net", lambda *arguments: made.append(arguments))
    save(tmp_path / "last.pt", {**whole, "classes": ["a"] * 1_000_000})
    with pytest.raises(TrainingError) as caught:
        load_trained(tmp_path / "last.pt")
    assert "does not fit this net: 1,000,000 classes, but no layer has more than 384 outputs" in caught.value.message
    assert not made


def test_a_view_that_claims_to_be_large_costs_no_memory(tmp_path, whole):
    """Saved by one number; looked at as what it claims to be, it would take 400 GB."""
    whole["model"]["fc8.bias"] = torch.zeros(1).expand(10**11)
    save(tmp_path / "last.pt", whole)
    with pytest.raises(TrainingError, match=r"does not fit this net: .*size mismatch for fc8\.bias"):
        load_trained(tmp_path / "last.pt")


def test_the_hint_names_no_checkpoint_where_there_is_none(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    for name in ("last.pt", "kernels/00000.npy", "config.json"):
        for begun in (False, True):
            run = tmp_path / name.replace("/", "-") / str(begun)
            (run / name).parent.mkdir(parents=True)
            if begun:
                (run / "last.pt").write_bytes(b"")
            with pytest.raises(TrainingError) as caught, write_errors(run / name):
                files.write_atomically(run / name, b"new")
            assert caught.value.message == f"{run / name}: cannot be written: No space left on device"
            again = "continue with --resume from the last checkpoint" if begun else "run the same command again"
            assert caught.value.hint == f"make room; then {again}"


def test_a_truth_is_no_number():
    """Found by exchanging values: torch takes no seed of True."""
    for kind in (int, float):
        with pytest.raises(TypeError, match="its seed has type bool"):
            checkpoint.check_kind("seed", True, kind)
    checkpoint.check_kind("waited", True, bool)
