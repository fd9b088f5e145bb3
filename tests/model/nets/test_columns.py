"""Two processes with a column each are the net on one device: outputs, every gradient, every collective."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from alexnet_dali.model.nets import alexnet
from alexnet_dali.model.nets.alexnet import AlexNet, NetOptions
from alexnet_dali.model.nets.columns import Column, WholeNet, gather
from alexnet_dali.model.training.distributed import Team
from alexnet_dali.model.training.metrics import Sums
from alexnet_dali.model.training.parallel import ColumnParallel
from alexnet_dali.pipeline.plan.plan import Plan
from alexnet_dali.pipeline.stream.stream import Batch
from ranks import together

HIDDEN = 64
NETS = {
    "program": NetOptions(),
    "text": NetOptions(pool_before_relu=False, lrn_scale=1e-4, within_map=False, deep_std=0.01),
    "six-conv": NetOptions(conv6=True),
    "six-conv-2011": NetOptions(conv6=True, low=32),
    "no-lrn": NetOptions(norm="none"),
    "pool-2x2": NetOptions(pool=2),
    "no-talk": NetOptions(talk=False),
    "no-dropout": NetOptions(dropout=False),
    "tanh": NetOptions(activation="tanh"),
    "modern": NetOptions(norm="batch", within_map=False, pool_before_relu=False, init="kaiming"),
}
FAST = ["program", "modern"]  # which differ in every layer


def made(options, place=WholeNet()):
    """A net of few hidden units, in float64 so that what differs is not rounding; and what it looks at."""
    alexnet.HIDDEN = HIDDEN
    net = AlexNet(5, options, seed=3, place=place).double().to(memory_format=torch.channels_last)
    random = torch.Generator().manual_seed(1)
    x = 60 * torch.randn(3, 3, 224, 224, generator=random, dtype=torch.float64)
    keep = torch.rand(3, (2 if options.talk else 3) * HIDDEN, generator=random) < 0.5
    return net, x.to(memory_format=torch.channels_last), keep, torch.tensor([0, 3, 4])


def learned(net, x, keep, labels):
    """Logits, and the gradient of each parameter."""
    logits = net(x, keep)
    F.cross_entropy(logits, labels, reduction="sum").backward()
    return logits.detach(), {name: parameter.grad for name, parameter in net.named_parameters()}


def columns_of(rank, names):
    found = {}
    for name in names:
        place = Column()
        net, *given = made(NETS[name], place)
        logits, gradients = learned(net, *given)
        state = {key: place.whole(key, tensor) for key, tensor in net.state_dict().items()}
        found[name] = logits, {key: place.whole(key, tensor) for key, tensor in gradients.items()}, state
    return found


@pytest.fixture(scope="module")
def both_columns():
    """What each of two processes has found of a net, by name; the slow ones together."""
    found = {}

    def of(name):
        if name not in found:
            names = FAST if name in FAST else [name for name in NETS if name not in FAST]
            both = together(columns_of, names)
            found.update({name: [one[name] for one in both] for name in names})
        return found[name]

    return of


def collectives(rank):
    """All that needs no net, in one launch."""
    return [function(rank) for function in (differences, formats, shared_batches, agreed, different)]


@pytest.fixture(scope="module")
def both():
    """What each of two processes has found of the collectives, by function."""
    functions = ("differences", "formats", "shared_batches", "agreed", "different")
    return dict(zip(functions, zip(*together(collectives), strict=True), strict=True))


@pytest.fixture(autouse=True)
def few_units(monkeypatch):
    monkeypatch.setattr(alexnet, "HIDDEN", HIDDEN)


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in NETS if name not in FAST)]
)
def test_outputs_and_every_gradient_are_the_one_device_nets(name, both_columns):
    net, *given = made(NETS[name])
    state = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    logits, gradients = learned(net, *given)
    for column_logits, column_gradients, column_state in both_columns(name):
        torch.testing.assert_close(column_logits, logits, rtol=1e-9, atol=1e-9)
        assert column_gradients.keys() == gradients.keys() and column_state.keys() == state.keys()
        for key, gradient in gradients.items():
            assert gradient.abs().max() > 0 or key.endswith("bias"), key
            torch.testing.assert_close(column_gradients[key], gradient, rtol=1e-7, atol=1e-9, msg=key)
        if name != "modern":  # whose running statistics have moved
            # Bit for bit: every process draws the whole net by the same generator; parts are only copied.
            unequal = [key for key in state if not torch.equal(column_state[key], state[key])]
            assert not unequal


def differences(rank):
    """The gradient of what both have, by autograd and by moving one number of one process at a time."""
    place = Column()
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(rank), dtype=torch.float64, requires_grad=True)
    weight = torch.arange(1.0, 13.0, dtype=torch.float64).view(2, 6)

    def loss(x):
        # What each makes of both parts is its own; the sum is what all have, and all have the same loss of it.
        return place.add((place.meet(x) * weight * (rank + 1)).pow(2).sum(dim=1, keepdim=True)).tanh().sum()

    scale, step = 0.02, 1e-5
    (gradient,) = torch.autograd.grad(loss(x * scale), x)
    measured = torch.zeros_like(x)
    for owner in range(2):
        for k in range(x.numel()):
            moved = torch.zeros_like(x)
            moved.view(-1)[k] = step * (rank == owner)
            with torch.no_grad():
                slope = (loss((x + moved) * scale) - loss((x - moved) * scale)) / (2 * step)
            if rank == owner:
                measured.view(-1)[k] = slope
    return gradient, measured


def test_gradients_of_the_collectives(both):
    """A loss that both have counts once: torch's own collectives would count it twice."""
    for gradient, measured in both["differences"]:
        assert measured.abs().max() > 1e-9
        torch.testing.assert_close(gradient, measured, rtol=1e-5, atol=1e-9)


def formats(rank):
    last = torch.full((2, 3, 4, 5), float(rank)).to(memory_format=torch.channels_last)
    met = Column().meet(last)
    parts = gather(torch.full((3,), rank, dtype=torch.int64))
    bf16 = Column().add(torch.full((2, 2), 1.0 + rank, dtype=torch.bfloat16))
    return met, met.is_contiguous(memory_format=torch.channels_last), parts, bf16


def test_memory_formats_and_types(both):
    for met, channels_last, parts, bf16 in both["formats"]:
        assert channels_last and met.shape == (2, 6, 4, 5)
        assert met[:, :3].eq(0).all() and met[:, 3:].eq(1).all()
        assert [part.tolist() for part in parts] == [[0, 0, 0], [1, 1, 1]]
        assert bf16.dtype == torch.bfloat16 and bf16.eq(3).all()


def shared_batch(rank, batch_size):
    plan = next(Plan(11, batch_size, rank=rank, ranks=2, seed=4).batches(0, 1 if batch_size < 6 else 0))
    whole = next(Plan(11, batch_size, seed=4).batches(0, 1 if batch_size < 6 else 0))
    images = torch.from_numpy(plan.records).float().view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    alexnet.HIDDEN = HIDDEN
    columns = ColumnParallel(AlexNet(5, place=Column()))
    given = Batch(
        images.contiguous(memory_format=torch.channels_last), torch.from_numpy(plan.records), False, plan.records, plan
    )
    batch = columns.batch(given)
    (keep,) = columns.masks(4, plan, torch.device("cpu"))
    return batch.images[:, 0, 0, 0].tolist(), batch.labels.tolist(), whole.records.tolist(), keep.shape


def shared_batches(rank):
    return [shared_batch(rank, batch_size) for batch_size in (2, 5, 11)]


def test_each_decodes_half_and_both_see_the_whole_batch(both):
    for found in both["shared_batches"]:
        for batch_size, (images, labels, records, shape) in zip((2, 5, 11), found, strict=True):
            assert images == labels == records
            assert shape == (batch_size, 2 * HIDDEN)


def agreed(rank):
    team = Team(rank, 2, rank, 2)
    heard = [team.previous_vote(rank == 1 and step >= 2) for step in range(5)]
    return heard, team.sum([1.0, rank]), team.broadcast({"rank": rank}), dist.get_world_size()


def test_what_one_wishes_all_hear_a_call_later(both):
    for heard, total, told, _ in both["agreed"]:
        assert heard == [False, False, False, True, False]
        assert total == [2.0, 1.0] and told == {"rank": 0}


def different(rank):
    team = Team(rank, 2, rank, 2)
    try:
        team.check_same({"--seed": rank, "statistics": "a"})
    except Exception as error:
        return str(error)
    return ""


def test_processes_of_different_runs_are_told_apart(both):
    first, second = both["different"]
    assert "rank 1 belongs to another run than rank 0: --seed 1, not 0" in first
    assert "rank 0 belongs to another run than rank 1: --seed 0, not 1" in second


def test_alone_there_is_nobody_to_ask():
    team = Team()
    assert (
        team.previous_vote(True)
        and not team.previous_vote(False)
        and team.sum([3.0]) == [3.0]
        and team.broadcast(1) == 1
    )
    assert Sums(1.0, 2.0, 3, 4).values() == [1.0, 2.0, 3, 4]
