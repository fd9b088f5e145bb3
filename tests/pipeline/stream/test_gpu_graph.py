"""The graphs for a GPU where there is none: serialised in every combination; their values on CPU kernels are the CPU's.

A serialised graph shows unknown arguments, inputs on the wrong device and types of arguments; on CPU kernels the same
nodes show shapes, dtypes and values. Neither runs a CUDA kernel: tests/gpu does.
"""

from itertools import product

import numpy as np
import pytest
from alexnet_dali.pipeline.plan.views import views_of
from alexnet_dali.pipeline.stream.dali_graph import train_graph, views_graph
from alexnet_dali.pipeline.stream.dali_ops import DTYPES, LAYOUTS
from graphs import gpu_branch_on_cpu, jpeg, picture, pictures_of, run, serialized

SIZE, CROP, COUNT = 64, 56, 3
RESIDUAL = np.random.default_rng(1).normal(0, 20, (CROP, CROP, 3)).astype(np.float32)
KINDS = ("train", "cut by threads", "resized", "one view", "ten views", "ten views by threads")
# Where threads decode and cut, the graph gets square raw pictures.
FORMS = [
    (kind, encoded, square)
    for kind, encoded, square in product(KINDS, (False, True), (False, True))
    if "threads" not in kind or (square and not encoded)
]


def described(kind, encoded, square, residual):
    mean_image = None if kind == "resized" or not residual else RESIDUAL
    std = np.array([57.0, 58, 61])
    mean = [120.0, 115, 100]
    return pictures_of(SIZE, CROP, encoded=encoded, square=square, mean_rgb=mean, residual=mean_image, std_rgb=std)


def built(kind, source, pictures, device_id, **options):
    """The graph of one kind."""
    if "view" in kind:
        windows = views_of(10 if "ten" in kind else 1, SIZE, CROP)
        return views_graph(source, pictures, windows, COUNT, device_id, 2, **options)
    options |= {"resized": kind == "resized", "cut": kind == "cut by threads"}
    return train_graph(source, pictures, COUNT, device_id, 2, **options)


def inputs(kind, encoded, square, dtype):
    """What the source returns for one batch."""
    side = CROP if kind == "cut by threads" else SIZE
    data = [picture(side, side if square else side + 9 * k + 1, seed=k) for k in range(COUNT)]
    arrays = [[jpeg(pixels) for pixels in data] if encoded else np.stack(data) if "threads" in kind else data]
    flip = np.array([0, 1, 1], np.int32)
    corners = np.array([(0, (pixels.shape[1] - side) // 2) for pixels in data], np.int32)
    if kind == "resized":
        arrays += [
            np.array([(3, 5), (0, 0), (20, 1)], np.int32),
            np.array([(40, 50), (64, 64), (9, 31)], np.int32),
            flip,
        ]
    elif kind != "cut by threads":
        arrays += [] if square else [corners]
        offsets = np.array([0, 3, 8], np.float32) / pictures_of(SIZE, CROP).far
        arrays += [offsets, offsets[::-1].copy(), flip] if kind == "train" else []
    if "view" not in kind and dtype != "uint8":
        means = np.array([[120, 115, 100], [121.5, 114, 99], [80, 90, 95]], np.float32)
        arrays += [means, np.array([1, 1 / 1.1, 0.5], np.float32).reshape(-1, 1, 1, 1)]
    return arrays


@pytest.mark.parametrize("residual", [False, True], ids=["mean colour", "mean image"])
@pytest.mark.parametrize("kind, encoded, square", FORMS)
def test_every_graph_is_serialised_for_a_gpu(monkeypatch, kind, encoded, square, residual):
    pictures = described(kind, encoded, square, residual)
    for dtype, layout in product(DTYPES, LAYOUTS):
        options = {"dtype": dtype, "layout": layout, "page_locked": "threads" in kind}
        text, operators = serialized(monkeypatch, lambda o=options: built(kind, lambda: [], pictures, 0, **o))
        assert text and operators[-1][1] == "gpu"
        for name, device, spec in operators:
            # Beside the inputs only the divisor is computed on the CPU: three numbers a picture.
            on_cpu = name.startswith(("__ExternalSource", "__Constant", "__Reshape", "___ArithmeticGenericOp"))
            assert device == "gpu" or on_cpu, name
            if name.startswith("__ExternalSource"):
                assert "no_copy: True" in str(spec)
            if name.startswith("__Image"):
                # A share between 0 and 1 would let a picture's place in the batch decide who decodes it.
                assert "device: mixed" in str(spec) and "hw_decoder_load: 1.0" in str(spec)
        assert any(name.startswith("__Image") for name, *_ in operators) == encoded


@pytest.mark.parametrize("residual", [False, True], ids=["mean colour", "mean image"])
@pytest.mark.parametrize("kind, encoded, square", FORMS)
def test_the_gpu_s_branch_computes_what_the_cpu_s_does(monkeypatch, kind, encoded, square, residual):
    """uint8 is equal, because nothing is computed; float32 differs by the rounding of other operations on values of up
    to 255 / 57; float16 by one step of its 11 bits besides."""
    gpu_branch_on_cpu(monkeypatch)
    pictures = described(kind, encoded, square, residual)
    limits = {"uint8": (0, 0), "float32": (0, 1e-5), "float16": (2**-10, 2**-14)}
    for dtype, layout in product(DTYPES, LAYOUTS):
        options, arrays = {"dtype": dtype, "layout": layout}, inputs(kind, encoded, square, dtype)
        one, other = (
            run(lambda source, d=device, o=options: built(kind, source, pictures, d, **o), *arrays)
            for device in (None, 0)
        )
        assert one.dtype == other.dtype == np.dtype(dtype) and one.shape == other.shape
        rtol, atol = limits[dtype]
        np.testing.assert_allclose(other, one, rtol=rtol, atol=atol, err_msg=f"{dtype} {layout}")
