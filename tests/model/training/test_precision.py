"""fp32, tf32, bf16: what torch is told, and what a device has not."""

import os

import pytest
import torch
from alexnet_dali.model.recipes.config import PRECISIONS, check_precision
from alexnet_dali.model.training.precision import autocast, lacks, set_precision
from alexnet_dali.pipeline.errors import DeviceError, UsageError


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is removed again
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


def card(monkeypatch, capability):
    """A GPU of this compute capability, as far as torch is asked."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    return torch.device("cuda", 0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tf32_is_allowed_where_asked_for_alone(precision):
    """cuDNN's convolutions take it unless told not to: fp32 has to say so."""
    for before in (True, False):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = before
        set_precision(precision, torch.device("cpu"))
        allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        assert allowed == (precision == "tf32",) * 2


@pytest.mark.parametrize(
    "precision, dtype", [("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_products_are_computed_in_it(precision, dtype):
    with autocast(torch.device("cpu"), precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_a_cpu_has_no_tf32():
    for device, precision in (("cpu", "fp32"), ("cpu", "bf16"), ("cuda", "tf32"), ("cuda", "fp32")):
        check_precision(precision, device)
    with pytest.raises(UsageError) as caught:
        check_precision("tf32", "cpu")
    assert (caught.value.message, caught.value.hint) == (
        "--precision tf32 needs a GPU",
        "on the CPU choose fp32 or bf16",
    )
    with pytest.raises(UsageError, match="--precision fp8 is not one of fp32, tf32, bf16"):
        check_precision("fp8", "cuda")


@pytest.mark.parametrize("capability, has", [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_older_gpus_have_no_bf16(monkeypatch, capability, has):
    device = card(monkeypatch, capability)
    assert [name for name in PRECISIONS if lacks(name, device)] == ["bf16"] * (not has)
    assert not lacks("bf16", torch.device("cpu"))
    for name in PRECISIONS if has else ("fp32", "tf32"):
        set_precision(name, device)
    if not has:
        with pytest.raises(DeviceError) as caught:
            set_precision("bf16", device)
        assert caught.value.message == (
            "--precision bf16: Tesla T4 cannot compute in it "
            f"(compute capability {capability[0]}.{capability[1]}; 8.0 or later can)"
        )
        assert caught.value.hint == "choose --precision fp32"


def test_deterministic_is_of_a_gpu_and_lasts(monkeypatch):
    set_precision("fp32", torch.device("cpu"), deterministic=True)  # a CPU needs nothing
    assert not torch.are_deterministic_algorithms_enabled() and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    device = card(monkeypatch, (9, 0))
    set_precision("fp32", device)
    assert not torch.are_deterministic_algorithms_enabled()
    set_precision("fp32", device, deterministic=True)
    set_precision("fp32", device)  # of an evaluation, or of a caller who has set it
    assert torch.are_deterministic_algorithms_enabled() and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
