"""alexnet-train on a GPU that is not there (fake_cuda.py): --deterministic, and precisions that a GPU lacks."""

import pytest
import tiny
import torch
from alexnet_dali.model.recipes.config import config_command
from alexnet_dali.model.training import checkpoint
from alexnet_dali.model.training.trainer import Trainer
from alexnet_dali.pipeline.errors import DeviceError, UsageError
from alexnet_dali.tools.train.cli import train
from click.testing import CliRunner
from fake_cuda import one_gpu  # noqa: F401

pytestmark = pytest.mark.usefixtures("small_nets")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return tiny.few_shards(tmp_path_factory.mktemp("few"))


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # so that it is removed again
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


def run(*arguments):
    """What the command prints; errors are raised."""
    done = CliRunner().invoke(train, [str(each) for each in arguments], standalone_mode=False)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_deterministic_is_kept_and_a_resume_without_it_is_told(cuda, few, tmp_path):
    options = ("--shards", few.root, "--decode", "threads", "--batch-size", "2", "--epochs", "1", "--steps", "1")
    plain, exact = tmp_path / "plain", tmp_path / "exact"
    told = "without --deterministic the results on a GPU differ by rounding from those without the stop"
    assert told not in run(*options, "--run", plain)
    assert told in run("--run", plain, "--resume", "--steps", "2") and not torch.are_deterministic_algorithms_enabled()
    assert told not in run("--run", plain, "--resume", "--steps", "3", "--deterministic")
    assert told not in run(*options, "--run", exact, "--deterministic")
    assert torch.are_deterministic_algorithms_enabled()
    assert told not in run("--run", exact, "--resume", "--steps", "2")
    saved = checkpoint.load(exact / "last.pt")["config"]
    assert saved["deterministic"] is True and config_command(saved)[-1] == "--deterministic"
    assert "--deterministic" not in config_command({**saved, "deterministic": False})


def test_a_net_without_such_operations_is_named(cuda, few, tmp_path, monkeypatch):
    def fails(trainer, batch):
        raise RuntimeError(
            "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. ..."
        )

    monkeypatch.setattr(Trainer, "_update", fails)
    with pytest.raises(DeviceError) as caught:
        run("--shards", few.root, "--run", tmp_path / "run", "--decode", "threads", "--deterministic")
    assert "a layer of alexnet has no such operation on a GPU (adaptive_avg_pool2d_backward_cuda)" in str(caught.value)
    assert caught.value.hint == "start the run without --deterministic"


def test_a_card_without_bf16_is_told_before_the_first_step(cuda, few, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    with pytest.raises(DeviceError, match="--precision bf16: no GPU cannot compute in it"):
        run("--shards", few.root, "--run", tmp_path / "run", "--precision", "bf16", "--decode", "threads")
    with pytest.raises(UsageError, match="tf32 needs a GPU"):
        run("--shards", few.root, "--run", tmp_path / "run", "--precision", "tf32", "--device", "cpu")
