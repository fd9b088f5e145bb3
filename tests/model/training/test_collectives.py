"""Both columns call the same collectives with the same shapes in the same order: NCCL, which checks nothing, hangs.

A real run in two processes over gloo: steps forward and backward, log lines, checkpoints, an evaluation.
"""

import pytest
import tiny
import torch
import torch.distributed as dist
from alexnet_dali.model.nets import alexnet
from alexnet_dali.model.training.distributed import Team
from alexnet_dali.model.training.trainer import Trainer
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from ranks import together

CALLS = ("all_gather", "all_reduce", "batch_isend_irecv", "broadcast", "broadcast_object_list", "all_gather_object")


def described(value):
    """What must be the same in all processes: the shapes and dtypes of tensors, in their order in memory."""
    if isinstance(value, torch.Tensor):
        assert value.is_contiguous(), "NCCL requires it"
        return [f"{value.dtype} {tuple(value.shape)}"]
    if isinstance(value, dist.P2POp):
        return described(value.tensor)
    if isinstance(value, list | tuple):
        return [each for one in value for each in described(one)]
    return []


def recorded(rank, shards, run, parallel):
    """The collectives of one process of a run, by stage, in the order of their calls."""
    alexnet.HIDDEN = tiny.HIDDEN
    calls, stage = [], ["start"]

    def watch(owner, name, note):
        real = getattr(owner, name)

        def watched(*given, **more):
            note(name, given)
            try:
                return real(*given, **more)
            finally:
                stage[0] = "between"

        setattr(owner, name, watched)

    for name in CALLS:
        real = getattr(dist, name)

        def called(*given, _real=real, _name=name, **more):
            calls.append((stage[0], _name, described(given)))
            return _real(*given, **more)

        setattr(dist, name, called)
    for name in ("_update", "_log_step", "_save", "_evaluate"):
        watch(Trainer, name, lambda name, _: stage.__setitem__(0, name))
    watch(torch.Tensor, "backward", lambda name, _: stage.__setitem__(0, name))
    shard_set = open_shard_set(shards)
    config = tiny.config(
        shard_set, epochs=1, batch_size=3, processes=2, parallel=parallel, log_every=1, save_every=1, decode="threads"
    )
    trainer = Trainer(config, shard_set, stats.load_stats(shard_set), run, team=Team(rank, 2, rank, 2))
    assert trainer.train() and trainer.steps_done == 2
    return calls


@pytest.mark.parametrize("parallel", ["columns", "data"])
def test_both_processes_call_the_same_collectives_in_the_same_order(tmp_path, parallel):
    shard_set = tiny.few_shards(tmp_path)
    (tmp_path / "run").mkdir()
    first, second = together(recorded, shard_set.root, tmp_path / "run", parallel)
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        assert one == other, f"call {number}"
    stages = {stage for stage, _, shapes in first if shapes}
    assert {"_save", "between"} <= stages
    if parallel == "columns":  # conv3, fc6, fc7 and the logits; their gradients
        assert {"_update", "backward"} <= stages
        assert sum(name == "batch_isend_irecv" for _, name, _ in first) == 3 * 2
