"""Runs the DALI graphs on arrays, as the loader does, and makes pictures of which no two windows are alike.

Two ways to see the GPU's graph where there is no GPU:

    serialized          the graph as it is built for device 0: unknown arguments, wrong devices of inputs
    gpu_branch_on_cpu   the same nodes on CPU kernels: shapes, dtypes, values
"""

import io

import numpy as np
import pytest
import torch
from alexnet_dali.pipeline.stream import dali_graph
from alexnet_dali.pipeline.stream.dali_graph import Pictures, train_graph, views_graph
from alexnet_dali.pipeline.stream.dali_ops import Operators
from nvidia.dali import Pipeline, fn, pipeline_def, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.tensors import TensorListCPU
from PIL import Image

BLACK = np.zeros(3)


def assert_close(found, expected, where=""):
    """Equal but for float32 arithmetic on grey levels of up to 255, of which five digits count."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4, err_msg=where)


def picture(height, width=None, seed=0):
    """uint8 (height, width, 3): red is the column, green the row, blue noise, so no two windows are alike."""
    width = width or height
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[:, :, 0] = np.arange(width) % 256
    pixels[:, :, 1] = (np.arange(height) % 256)[:, None]
    return pixels


def jpeg(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=95, **options)
    return np.frombuffer(file.getvalue(), np.uint8)


def decoded(data):
    return np.array(Image.open(io.BytesIO(data.tobytes())))


def pictures_of(size, crop, *, encoded=False, square=True, mean_rgb=BLACK, residual=None, **more):
    return Pictures(encoded, size, square, crop, np.asarray(mean_rgb), residual, **more)


def run(make, *arrays):
    """The one batch of a graph, NumPy."""
    batches = iter([list(arrays)])
    pipeline = make(lambda: next(batches))
    (output,) = pipeline.run()
    result = torch.from_dlpack(output.as_tensor()).numpy()
    with pytest.raises(StopIteration):
        pipeline.run()
    return result


def train(pictures, data, left, top, flip=None, mean=None, gain=None, corners=None, **options):
    """Training windows at pixel offsets, as the loader asks for them."""
    return run(
        lambda source: train_graph(source, pictures, len(data), None, 2, **options),
        data,
        *([] if corners is None else [np.array(corners, np.int32)]),
        (np.array(left) / pictures.far).astype(np.float32),
        (np.array(top) / pictures.far).astype(np.float32),
        *_values(len(data), flip, mean, gain, options),
    )


def resized(pictures, data, windows, flip=None, mean=None, gain=None, **options):
    """Resized crops; a window is (left, top, width, height), in pixels."""
    left, top, width, height = np.array(windows).T
    return run(
        lambda source: train_graph(source, pictures, len(data), None, 2, resized=True, **options),
        data,
        np.stack([top, left], axis=1).astype(np.int32),
        np.stack([height, width], axis=1).astype(np.int32),
        *_values(len(data), flip, mean, gain, options),
    )


def views(pictures, data, windows, corners=None, **options):
    """Test views."""
    inputs = [data] if corners is None else [data, np.array(corners, np.int32)]
    return run(lambda source: views_graph(source, pictures, windows, len(data), None, 2, **options), *inputs)


def _values(n, flip, mean, gain, options):
    flips = np.zeros(n, np.int32) if flip is None else np.array(flip, np.int32)
    if options.get("dtype") == "uint8":
        return [flips]
    return [
        flips,
        np.zeros((n, 3), np.float32) if mean is None else np.array(mean, np.float32),
        np.ones((n, 1, 1, 1), np.float32) if gain is None else np.array(gain, np.float32).reshape(n, 1, 1, 1),
    ]


def serialized(monkeypatch, make):
    """Build a graph for device 0 and serialise it: `make()` calls train_graph or views_graph with device_id 0.

    Returns:
        the protobuf, and the operators: name, device of the output, specification.
    """
    kept = []
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "build", lambda self: kept.append(self))  # noqa: PLW0108  # a method
        make()
    (pipeline,) = kept
    pipeline._device_id = None  # only the check for a driver wants it
    return pipeline.serialize(), [(op.name, op.spec.OutputDevice(0), op.spec) for op in pipeline._ops]


class _Decoders:
    def image(self, data, device, jpeg_fancy_upsampling=None, affine=None, hw_decoder_load=None, **options):
        assert device == "mixed"
        return fn.decoders.image(data, device="cpu", **options)


class _Fn:
    decoders = _Decoders()

    def __getattr__(self, name):
        return getattr(fn, name)


class _Types:
    def __getattr__(self, name):
        return getattr(types, name)

    def Constant(self, value, device="cpu", **options):  # noqa: N802  # DALI's name
        return types.Constant(value, device="cpu", **options)


def _batch(array, is_pinned):
    """A TensorListCPU asks for a driver where its memory is page-locked."""
    assert is_pinned
    return TensorListCPU(array)


class GpuBranchOnCpu(Operators):
    """The operators of a GPU's graph, on CPU kernels."""

    def __init__(self, pictures, device_id, *options, **more):
        super().__init__(pictures, device_id, *options, **more)
        if device_id is not None:
            self._fn, self._types, self._batch = _Fn(), _Types(), _batch


def gpu_branch_on_cpu(patch):
    """Build and run the graphs that are for a GPU on CPU kernels."""
    define, run = pipeline_def, Pipeline.run
    patch.setattr(DataNode, "gpu", lambda self: self)
    patch.setattr(dali_graph, "Operators", GpuBranchOnCpu)
    patch.setattr("nvidia.dali.pipeline_def", lambda device_id, **options: define(device_id=None, **options))
    patch.setattr(Pipeline, "run", lambda self, stream=None: run(self))
