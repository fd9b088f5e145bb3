"""`alexnet-bench train` measures the nets that it names: small runs of the real command; no figure is judged."""

import json
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from types import SimpleNamespace

import pytest
import tiny
import torch
from alexnet_dali.model.nets.lrn import AcrossMaps
from alexnet_dali.pipeline.plan.plan import Plan
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream.streams import train_stream
from alexnet_dali.tools.bench.cli import bench
from alexnet_dali.tools.bench.train import NAMES, ratios
from alexnet_dali.tools.bench.train_cases import Case, Steps, TorchNorm, make
from fake_cuda import one_gpu  # noqa: F401

CPU = torch.device("cpu")
FAST = ["paper", "paper-torch-lrn", "paper-data"]


@pytest.fixture
def call(in_process, monkeypatch):
    """Run alexnet-bench on small nets."""
    tiny.shrink(monkeypatch)
    return partial(in_process, bench)


@pytest.mark.parametrize(
    ("precisions", "names"),
    [(["fp32"], FAST), pytest.param(["fp32", "bf16"], NAMES, marks=pytest.mark.slow)],
    ids=["three", "all"],
)
def test_every_case_is_measured(call, shards, tmp_path, precisions, names):
    file = tmp_path / "train.json"
    options = ["--batch-size", 2, "--steps", 1, "--repeats", 1, "--json", file]
    if names is FAST:
        options += ["--cases", ",".join(names), "--precision", *precisions]
    code, said, aside = call("train", "--shards", shards.root, *options)
    assert code == 0, aside
    found = json.loads(file.read_text())
    rows = {row["case"]: row for row in found["rows"]}
    assert list(rows) == [f"{name}-{precision}" for precision in precisions for name in names]
    for name, row in rows.items():
        assert 0 < row["min"] <= row["images_per_second"] <= row["max"]
        assert said.count(f"\n{name} ") == 1
    assert "batches of 2, 1 steps per round, 1 rounds" in found["machine"]
    for precision in precisions:
        paper = rows[f"paper-{precision}"]["images_per_second"]
        assert found["ratios"]["to torch's LRN"][f"paper-{precision}"] == pytest.approx(
            paper / rows[f"paper-torch-lrn-{precision}"]["images_per_second"]
        )
        assert found["ratios"]["data to resident"][f"paper-data-{precision}"] == pytest.approx(
            rows[f"paper-data-{precision}"]["images_per_second"] / paper
        )


def test_ratios_are_of_the_same_round_precision_and_way():
    cases = [Case(net, "bf16", way) for way in ("eager", "compile") for net in ("paper", "paper-no-lrn")]
    rates = {
        "paper-bf16": [7.0, 14.0, 60.0],
        "paper-no-lrn-bf16": [10.0, 20.0, 30.0],
        "paper-bf16-compile": [3.0, 4.0, 5.0],
        "paper-no-lrn-bf16-compile": [6.0, 8.0, 10.0],
    }
    assert ratios(cases, rates) == {"to no LRN": {"paper-bf16": 0.7, "paper-bf16-compile": 0.5}}


def test_torchs_norm_is_ours_but_for_speed(monkeypatch, shards):
    """Columns, constant, scale: else the ratio compared two different things."""
    x = 30 * torch.randn(2, 96, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(TorchNorm(1e-4, 5, 2.0, 2)(x), AcrossMaps(1e-4)(x), rtol=1e-12, atol=0)

    tiny.shrink(monkeypatch)
    images = 60 * torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    logits = {}
    for name in ("paper", "paper-torch-lrn", "paper-no-lrn"):
        net, _ = make(name, 4, stats.load_stats(shards), CPU)
        net.conv1.weight.data.mul_(3)  # responses that the normalisation changes
        logits[name] = net.eval()(images)
    torch.testing.assert_close(logits["paper"], logits["paper-torch-lrn"], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits["paper"], logits["paper-no-lrn"], rtol=1e-2, atol=1e-4)


def test_a_round_trains_the_net(monkeypatch, shards):
    """Weights move, and the images of the steps are counted."""
    tiny.shrink(monkeypatch)
    net, optimizer = make("paper", 4, stats.load_stats(shards), CPU)
    before = {name: each.detach().clone() for name, each in net.named_parameters()}
    plan = Plan(shards.split("train").records, 2, size=shards.size)
    with train_stream(shards, stats.load_stats(shards), plan) as stream:
        steps = Steps(Case("paper", "bf16"), net, optimizer, repeat(next(iter(stream))), 2, CPU)
        assert steps() == 4
    moved = {name for name, each in net.named_parameters() if not torch.equal(each, before[name])}
    assert moved >= {name for name in before if name.endswith("weight")}  # a bias of one may not feel so small a rate


@pytest.mark.parametrize(
    "options, message",
    [
        (["--cases", "paper,alexnet"], "unknown case 'alexnet'"),
        (["--precision", "fp16"], "unknown precision 'fp16'"),
        (["--precision", "tf32", "--device", "cpu"], "--precision tf32 needs a GPU"),
        (["--batch-size", "100", "--device", "cpu"], "60 training records, fewer than a batch of 100"),
        (["--json", "none/train.json"], "none/train.json: its folder does not exist"),
    ],
)
def test_what_cannot_be_meant(call, shards, options, message):
    code, _, aside = call("train", "--shards", shards.root, *options)
    assert code == 2 and message in aside


def test_graphs_need_a_gpu(call, shards):
    code, _, aside = call("train", "--shards", shards.root, "--graphs", "--device", "cpu")
    assert code == 1 and "--graphs needs a GPU" in aside


def test_a_graph_is_captured_while_other_threads_free_memory(cuda, shards, monkeypatch):
    """As DALI's threads do, and the default mode of a capture forbids. The GPU is not there (fake_cuda.py)."""
    modes = []

    @contextmanager
    def capture(graph, **options):
        modes.append(options)
        yield

    tiny.shrink(monkeypatch)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: None))
    monkeypatch.setattr(torch.cuda, "graph", capture)
    measured = stats.load_stats(shards)
    plan = Plan(shards.split("train").records, 2, size=shards.size)
    gpu = torch.device("cuda", 0)
    with train_stream(shards, measured, plan, device=gpu, decode="threads") as stream:
        resident = next(stream)
        steps = Steps(Case("paper", "bf16", "graph"), *make("paper", 4, measured, gpu), repeat(resident), 2, gpu)
        assert steps() == 4 and modes == [{"capture_error_mode": "thread_local"}] and cuda.mixed == []
