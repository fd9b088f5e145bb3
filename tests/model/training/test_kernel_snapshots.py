"""The first layer's kernels, kept after each epoch: what they hold, and what is beyond a checkpoint goes."""

import numpy as np
import pytest
import tiny
import torch
from alexnet_dali.model.training import checkpoint, kernel_snapshots
from alexnet_dali.pipeline.errors import TrainingError

pytestmark = pytest.mark.usefixtures("small_nets")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return tiny.few_shards(tmp_path_factory.mktemp("few"))


def test_before_the_first_step_and_after_each_epoch(few, tmp_path):
    trainer = tiny.trainer_of(few, tmp_path / "run")
    before = trainer.net.conv1.weight.detach().clone()
    trainer.train()
    kept = kernel_snapshots.read(tmp_path / "run")
    assert list(kept) == [0, 1, 2]
    assert np.array_equal(kept[0], before.numpy())
    assert np.array_equal(kept[2], checkpoint.load(tmp_path / "run" / "last.pt")["model"]["conv1.weight"].numpy())
    assert kept[1].shape == (96, 3, 11, 11) and kept[1].dtype == np.float32 and kept[1].flags.c_contiguous
    assert not np.array_equal(kept[1], kept[2])


def test_a_stop_within_an_epoch_keeps_none_and_resuming_drops_what_is_beyond(few, tmp_path):
    run = tmp_path / "run"
    whole = tmp_path / "whole"
    tiny.trainer_of(few, whole).train()
    tiny.trainer_of(few, run, steps=4).train()
    assert list(kernel_snapshots.read(run)) == [0, 1]
    kernel_snapshots.keep(run, 2, {"conv1.weight": torch.zeros(1, 3, 2, 2)})  # as a killed run leaves it
    kernel_snapshots.keep(run, 3, {"conv1.weight": torch.zeros(1, 3, 2, 2)})
    tiny.trainer_of(few, run, resume=True, steps=0).train()
    for epoch, values in kernel_snapshots.read(whole).items():
        assert np.array_equal(kernel_snapshots.read(run)[epoch], values), epoch
    assert list(kernel_snapshots.read(run)) == [0, 1, 2]


def test_a_net_that_looks_at_no_colours_keeps_none(tmp_path):
    kernel_snapshots.keep(tmp_path, 1, {"fc.weight": torch.zeros(3, 4), "conv.weight": torch.zeros(4, 1, 3, 3)})
    assert kernel_snapshots.read(tmp_path) == {} and not (tmp_path / kernel_snapshots.FOLDER).exists()


def test_damaged_and_foreign_files_are_left_out(tmp_path):
    kernel_snapshots.keep(tmp_path, 1, {"conv1.weight": torch.ones(2, 3, 2, 2)})
    (tmp_path / kernel_snapshots.FOLDER / "00002.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / kernel_snapshots.FOLDER / "best.npy").write_bytes(b"")
    assert list(kernel_snapshots.read(tmp_path)) == [1]


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / kernel_snapshots.FOLDER).write_text("in the way")
    with pytest.raises(TrainingError, match=r"00001\.npy: cannot be written"):
        kernel_snapshots.keep(tmp_path, 1, {"conv1.weight": torch.ones(2, 3, 2, 2)})
