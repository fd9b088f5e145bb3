"""A run remembers the form of its response normalisation, and goes on by it where that is there."""

from types import SimpleNamespace

import pytest
import tiny
import torch
from alexnet_dali.model.nets import lrn
from alexnet_dali.model.nets.alexnet import AlexNet
from alexnet_dali.model.nets.lrn import COMPILED, TORCH
from alexnet_dali.model.training import checkpoint, run_state
from alexnet_dali.model.training.distributed import Team
from alexnet_dali.model.training.parallel import ColumnParallel
from alexnet_dali.model.training.run_state import RunState
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.tools.train.run import facts
from tiny import assert_same_run, trainer_of

pytestmark = [
    pytest.mark.usefixtures("small_nets"),
    pytest.mark.skipif(lrn._kernel is None, reason="not compiled, so there is one form"),
]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return tiny.few_shards(tmp_path_factory.mktemp("few"), val=0)


def trained(few, run, form, monkeypatch, without=False, **options):
    """Train as where the compiled part is, or without it; check the form throughout and return the notes."""
    notes = []
    with monkeypatch.context() as patch:
        if without:
            patch.setattr(lrn, "_kernel", None)
        part = trainer_of(few, run, epochs=1, **options)
        assert part.state.lrn == part.net.norm.form == part.net.norm_within.form == form
        assert part.train(lambda line: notes.append(line["text"]) if line["kind"] == "note" else None)
    assert checkpoint.load(run / "last.pt")["lrn"] == form
    return [note for note in notes if "normalisation" in note]


def test_a_run_begun_by_torch_goes_on_by_it(few, tmp_path, monkeypatch):
    """With the same operations the runs are equal bit for bit: the rest of them does not depend on the form."""
    options = {"batch_size": 3}
    assert trained(few, tmp_path / "whole", TORCH, monkeypatch, without=True, **options) == []
    run = tmp_path / "run"
    assert trained(few, run, TORCH, monkeypatch, without=True, steps=1, **options) == []
    (note,) = trained(few, run, TORCH, monkeypatch, resume=True, **options)
    assert note.startswith("this run used the torch form") and "the compiled form of a new run is faster" in note
    assert_same_run(run, tmp_path / "whole")


def test_a_checkpoint_of_an_earlier_version_is_torchs(few, tmp_path, monkeypatch):
    run = tmp_path / "run"
    trained(few, run, COMPILED, monkeypatch, steps=1)
    saved = checkpoint.load(run / "last.pt")
    del saved["lrn"]
    checkpoint.save(run / "last.pt", saved)
    assert len(trained(few, run, TORCH, monkeypatch, resume=True)) == 1


def test_a_run_begun_compiled_goes_on_compiled_or_says_that_it_cannot(few, tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert trained(few, run, COMPILED, monkeypatch, steps=1) == []
    assert trained(few, run, COMPILED, monkeypatch, steps=2, resume=True) == []
    (note,) = trained(few, run, TORCH, monkeypatch, without=True, resume=True)
    assert "used the compiled form" in note and "continues with the torch form" in note


def test_a_net_without_normalisation_has_no_form(few, tmp_path):
    assert trainer_of(few, tmp_path / "run", recipe="no-lrn", steps=1).train()
    part = trainer_of(few, tmp_path / "run", recipe="no-lrn", resume=True)
    assert part.state.lrn == part.state.note == "" and checkpoint.load(tmp_path / "run" / "last.pt")["lrn"] == ""


def test_processes_with_different_forms_are_told_apart(few, monkeypatch):
    def of(saved=None, **changes):
        return facts(tiny.config(few, **changes), few, stats.load_stats(few), saved, None)

    name = "form of response normalisation"
    begun = {"model": {}, "lrn": COMPILED}
    assert of()[name] == of(begun)[name] == COMPILED and of({"model": {}})[name] == TORCH
    assert name not in of(model="resnet18", crop=64)
    monkeypatch.setattr(lrn, "_kernel", None)
    assert of()[name] == of(begun)[name] == TORCH
    Team().check_same(of())  # one process has nothing to compare


def test_two_columns_are_evaluated_in_the_form_of_their_training(monkeypatch):
    net = AlexNet(4)
    lrn.set_form(net, TORCH)
    work = ColumnParallel(net)
    monkeypatch.setattr(work, "whole", lambda tensors: tensors)
    whole = work.whole_net()
    assert whole.norm.form == whole.norm_within.form == TORCH
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 30
    torch.testing.assert_close(whole.eval()(x), net.eval()(x))


def test_a_gpu_without_triton_is_noted(monkeypatch):
    """With the reason: training takes longer, and the table of the doctor has the remedy."""
    net = torch.nn.Linear(1, 1)
    monkeypatch.setattr(run_state, "set_form", lambda net: TORCH)
    monkeypatch.setattr(run_state, "triton_trouble", lambda device: "RuntimeError: Failed to find C compiler")
    parts = dict.fromkeys(("optimizer", "schedule", "early_stop", "epoch_steps", "decode"))
    assert RunState(work=SimpleNamespace(net=net), **parts).note == ""
    cuda = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=torch.device("cuda", 0))]))
    assert RunState(work=SimpleNamespace(net=cuda), **parts).note == (
        "response normalisation runs by torch's operations, several times slower than by Triton: "
        "RuntimeError: Failed to find C compiler"
    )
