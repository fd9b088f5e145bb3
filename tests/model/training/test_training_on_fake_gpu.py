"""Training and evaluation on a GPU that is not there (fake_cuda.py): what waits for it, and on which device all is."""

import pytest
import tiny
import torch
from alexnet_dali.model.nets import alexnet
from alexnet_dali.model.training import checkpoint, metrics
from alexnet_dali.model.training import evaluate as evaluation
from alexnet_dali.model.training.evaluate import EvalOptions, evaluate
from alexnet_dali.model.training.trainer import Trainer
from alexnet_dali.pipeline.shards import stats
from fake_cuda import one_gpu  # noqa: F401
from tiny import trainer_of

pytestmark = pytest.mark.usefixtures("small_nets")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Six photos to train on, three to test: three steps of two are an epoch."""
    return tiny.few_shards(tmp_path_factory.mktemp("few"))


@pytest.mark.parametrize("name, precision", [("source2012", "bf16"), ("paper", "fp32"), ("modern", "bf16")])
def test_a_step_that_prints_nothing_waits_for_nothing(cuda, few, tmp_path, monkeypatch, name, precision):
    steps, update = [], Trainer._update

    def watched(trainer, batch):
        steps.append(len(cuda.waits))
        return update(trainer, batch)

    monkeypatch.setattr(Trainer, "_update", watched)
    run = trainer_of(
        few, tmp_path / "run", recipe=name, precision=precision, device="cuda", decode="threads", epochs=1, log_every=99
    )
    assert run.train() and run.device == torch.device("cuda", 0)
    assert steps[0] == steps[-1], cuda.waits  # from the first step to the last
    assert cuda.mixed == []
    assert len(metrics.read(tmp_path / "run" / "metrics.jsonl")) == 1


def test_a_run_is_the_cpus_and_its_stall_is_measured(cuda, few, tmp_path):
    options = {"decode": "threads", "precision": "fp32", "log_every": 1}
    on_gpu = trainer_of(few, tmp_path / "gpu", device="cuda", **options)
    lines = []
    assert on_gpu.train(lines.append)
    assert trainer_of(few, tmp_path / "cpu", device="cpu", **options).train()
    assert cuda.mixed == []
    saved, expected = (checkpoint.load(tmp_path / name / "last.pt") for name in ("gpu", "cpu"))
    assert (saved["steps_done"], saved["in_epoch"]) == (6, expected["in_epoch"])
    for name, weight in expected["model"].items():  # normalisation may have another form: equal but for rounding
        torch.testing.assert_close(saved["model"][name], weight, rtol=1e-3, atol=1e-5, msg=name)
    steps = [line for line in lines if line["kind"] == "step"]
    assert len(steps) == 6 and all(0 <= line["stall_percent"] <= 100 for line in steps)
    assert on_gpu.meter.batches == 6 and on_gpu.meter.total().seconds > 0 < on_gpu.meter.startup_seconds
    resumed = trainer_of(few, tmp_path / "gpu", resume=True, device="cuda", epochs=3, **options)
    assert resumed.train() and resumed.steps_done == 9 and cuda.mixed == []


@pytest.mark.parametrize("views", [1, 10])
def test_an_evaluation_is_the_cpus_and_waits_at_its_end_alone(cuda, few, monkeypatch, views):
    monkeypatch.setattr(evaluation, "PICTURES_AT_ONCE", views)  # one photo a batch
    net, measured = alexnet.AlexNet(4, seed=5).to(memory_format=torch.channels_last), stats.load_stats(few)
    waits = []

    def on(device):
        options = EvalOptions(views=views, device=device, decode="threads")
        return evaluate([net], few, measured, "val", options, see=lambda *_: waits.append(len(cuda.waits)))

    expected = on("cpu")
    net.to("cuda")
    waits.clear()
    found = on("cuda")
    assert cuda.mixed == []
    assert len(waits) == found.images == expected.images == 3 and waits[0] == waits[-1], cuda.waits
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    assert (found.top1_error, found.top5_error) == (expected.top1_error, expected.top5_error)
