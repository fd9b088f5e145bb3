"""fp32, tf32, bf16: what torch is told, and what a device has not."""

import pytest
import torch
from alexnet_dali.model.recipes.config import PRECISIONS, check_precision
from alexnet_dali.model.training.precision import autocast, set_precision
from alexnet_dali.pipeline.errors import UsageError


@pytest.fixture(autouse=True)
def put_back():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tf32_is_allowed_where_asked_for_alone(precision):
    """cuDNN's convolutions take it unless told not to: fp32 has to say so."""
    for before in (True, False):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = before
        set_precision(precision)
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
