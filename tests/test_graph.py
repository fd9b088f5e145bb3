"""The DALI graphs against NumPy: every window, reflection, mean, light and gain; what cannot be built says why."""

import io
import sys

import numpy as np
import oracle
import pytest
import torch
from alexnet_dali.pipeline import graph
from alexnet_dali.pipeline.errors import AlexnetError, DeviceError, PlanError, StreamError
from alexnet_dali.pipeline.graph import Pictures, centre_view, ten_views, train_graph, views_graph
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


def pictures_of(size, crop, *, encoded=False, square=True, mean_rgb=BLACK, residual=None):
    return Pictures(encoded, size, square, crop, mean_rgb, residual)


def run(make, *arrays):
    """The one batch of a graph: float32 NumPy."""
    batches = iter([list(arrays)])
    pipeline = make(lambda: next(batches))
    (output,) = pipeline.run()
    result = torch.from_dlpack(output.as_tensor()).numpy()
    assert result.dtype == np.float32
    with pytest.raises(StopIteration):
        pipeline.run()
    return result


def train(pictures, data, left, top, flip=None, mean=None, gain=None, corners=None):
    """Training windows at pixel offsets, as the loader asks for them."""
    n, far = len(data), max(pictures.size - pictures.crop, 1)
    return run(
        lambda source: train_graph(source, pictures, n, None, 2),
        data,
        *([] if corners is None else [np.array(corners, np.int32)]),
        (np.array(left) / far).astype(np.float32),
        (np.array(top) / far).astype(np.float32),
        np.zeros(n, np.int32) if flip is None else np.array(flip, np.int32),
        np.zeros((n, 3), np.float32) if mean is None else np.array(mean, np.float32),
        np.ones((n, 1, 1, 1), np.float32) if gain is None else np.array(gain, np.float32).reshape(n, 1, 1, 1),
    )


def views(pictures, data, windows, corners=None):
    inputs = [data] if corners is None else [data, np.array(corners, np.int32)]
    return run(lambda source: views_graph(source, pictures, windows, len(data), None, 2), *inputs)


# Windows


def test_the_ten_views_in_their_order():
    assert ten_views().tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [32, 0, 0],
        [32, 0, 1],
        [0, 32, 0],
        [0, 32, 1],
        [32, 32, 0],
        [32, 32, 1],
        [16, 16, 0],
        [16, 16, 1],
    ]
    assert centre_view().tolist() == [[16, 16, 0]]


def test_an_odd_margin_leaves_its_pixel_right_and_below():
    assert centre_view(257, 224).tolist() == [[16, 16, 0]]
    assert ten_views(257, 224)[6].tolist() == [33, 33, 0]
    assert ten_views(224, 224)[:, :2].tolist() == [[0, 0]] * 10


@pytest.mark.parametrize("crop", [0, 65])
@pytest.mark.parametrize("list_views", [ten_views, centre_view])
def test_a_window_larger_than_the_picture_is_refused(list_views, crop):
    with pytest.raises(PlanError) as caught:
        list_views(64, crop)
    assert caught.value.message == f"a {crop}x{crop} window does not fit into 64x64 pictures"
    assert caught.value.hint == f"build the shards with --size {crop + 32} or more"


def test_all_33_by_33_windows_and_their_reflections():
    pixels = picture(64)
    places = [(left, top, flip) for left in range(33) for top in range(33) for flip in (0, 1)]
    out = train(pictures_of(64, 32), [pixels] * len(places), *zip(*places, strict=True))
    for found, (left, top, flip) in zip(out, places, strict=True):
        window = pixels[top : top + 32, left : left + 32]
        np.testing.assert_array_equal(found, window[:, ::-1] if flip else window, err_msg=f"{left} {top} {flip}")


@pytest.mark.parametrize(
    "size, crop", [(256, 224), (256, 227), (250, 224), (257, 224), (64, 56), (57, 56), (56, 56), (300, 23), (1000, 13)]
)
def test_every_offset_of_other_sizes(size, crop):
    # The offset reaches DALI as a share of size - crop, which float32 holds exactly only for powers of two.
    pixels = picture(size, seed=size)
    far = size - crop
    offsets = np.arange(far + 1)
    out = train(pictures_of(size, crop), [pixels] * (far + 1), offsets, offsets[::-1])
    for found, left in zip(out, offsets.tolist(), strict=True):
        np.testing.assert_array_equal(found, pixels[far - left : far - left + crop, left : left + crop])


# Values


def test_mean_light_and_gain_are_each_picture_s_own():
    rng = np.random.default_rng(1)
    data = [picture(64, seed=seed) for seed in range(6)]
    mean_image = rng.uniform(0, 255, (64, 64, 3))
    mean_rgb = mean_image.mean(axis=(0, 1))
    lights = rng.normal(0, 12, (6, 3))
    gains = np.array([1.0, 1 / 1.1, 1.0, 1 / 1.1, 0.5, 2.0])
    left, top, flip = rng.integers(0, 9, 6), rng.integers(0, 9, 6), [0, 1, 1, 0, 1, 0]
    residual = (mean_image[4:60, 4:60] - mean_rgb).astype(np.float32)
    pictures = pictures_of(64, 56, mean_rgb=mean_rgb, residual=residual)
    out = train(pictures, data, left, top, flip, mean_rgb - lights, gains)
    for k in range(6):
        expected = oracle.training_picture(data[k], left[k], top[k], flip[k], 56, mean_image, lights[k], gains[k])
        assert_close(out[k], expected)


def test_jpeg_pixels_are_those_of_libjpeg():
    data = [jpeg(picture(64, seed=seed)) for seed in range(4)]
    out = train(pictures_of(64, 64, encoded=True), data, [0] * 4, [0] * 4)
    for found, payload in zip(out, data, strict=True):
        np.testing.assert_array_equal(found, decoded(payload))


def test_orientation_tags_do_not_turn_pictures():
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees to see it upright"
    pixels = picture(64, seed=3)
    turned = jpeg(pixels, exif=exif)
    (out,) = train(pictures_of(64, 64, encoded=True), [turned], [0], [0])
    np.testing.assert_array_equal(out, decoded(jpeg(pixels)))


@pytest.mark.parametrize("encoded", [False, True])
def test_the_central_square_of_whole_pictures_is_cut_first(encoded):
    data = [picture(64, 101), picture(101, 64), picture(64, 64), picture(64, 65), picture(127, 64)]
    corners = [((p.shape[0] - 64) // 2, (p.shape[1] - 64) // 2) for p in data]
    assert corners == [(0, 18), (18, 0), (0, 0), (0, 0), (31, 0)]
    payloads = [jpeg(p) for p in data] if encoded else data
    pixels = [decoded(p) for p in payloads] if encoded else data
    squares = [p[top : top + 64, left : left + 64] for p, (top, left) in zip(pixels, corners, strict=True)]
    pictures = pictures_of(64, 56, encoded=encoded, square=False)
    left, top, flip = [0, 8, 3, 5, 1], [8, 0, 2, 7, 6], [0, 1, 0, 1, 1]
    out = train(pictures, payloads, left, top, flip, corners=corners)
    for k, square in enumerate(squares):
        window = square[top[k] : top[k] + 56, left[k] : left[k] + 56]
        np.testing.assert_array_equal(out[k], window[:, ::-1] if flip[k] else window)
    tens = views(pictures, payloads, ten_views(64, 56), corners=corners)
    for found, square in zip(tens, squares, strict=True):
        np.testing.assert_array_equal(found[8], square[4:60, 4:60])


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("size, crop", [(64, 56), (67, 56), (56, 56)])
def test_ten_views_of_each_picture(encoded, size, crop):
    rng = np.random.default_rng(size)
    data = [picture(size, seed=seed) for seed in range(3)]
    payloads = [jpeg(p) for p in data] if encoded else data
    mean_image = rng.uniform(0, 255, (size, size, 3))
    mean_rgb = mean_image.mean(axis=(0, 1))
    edge = (size - crop) // 2
    residual = (mean_image[edge : edge + crop, edge : edge + crop] - mean_rgb).astype(np.float32)
    pictures = pictures_of(size, crop, encoded=encoded, mean_rgb=mean_rgb, residual=residual)
    out = views(pictures, payloads, ten_views(size, crop))
    assert out.shape == (3, 10, crop, crop, 3)
    for k, pixels in enumerate(decoded(p) for p in payloads) if encoded else enumerate(data):
        for number, (left, top, flip) in enumerate(ten_views(size, crop).tolist()):
            expected = oracle.training_picture(pixels, left, top, flip, crop, mean_image, 0, 1)
            assert_close(out[k, number], expected)
    centre = views(pictures, payloads, centre_view(size, crop))
    np.testing.assert_array_equal(centre[:, 0], out[:, 8])


def test_without_a_mean_image_one_value_a_channel_is_subtracted():
    pixels = picture(64)
    out = views(pictures_of(64, 56, mean_rgb=np.array([10.5, 20.25, 30.0])), [pixels], centre_view(64, 56))
    np.testing.assert_array_equal(out[0, 0], pixels[4:60, 4:60] - np.array([10.5, 20.25, 30.0], np.float32))


# What cannot be built


def both_graphs(device_id):
    pictures = pictures_of(64, 56)
    return [
        lambda: train_graph(lambda: None, pictures, 4, device_id, 1),
        lambda: views_graph(lambda: None, pictures, centre_view(64, 56), 4, device_id, 1),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_dali_says_how_to_install_it(monkeypatch, which):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(StreamError) as caught:
        both_graphs(None)[which]()
    assert caught.value.message.startswith("NVIDIA DALI cannot be imported: ")
    assert caught.value.hint == "pip install nvidia-dali-cuda120, then alexnet-prep doctor"


@pytest.mark.parametrize("which", [0, 1])
def test_a_gpu_that_is_not_there_is_an_error_of_the_device(which):
    with pytest.raises(DeviceError) as caught:
        both_graphs(99)[which]()
    assert caught.value.message.startswith("DALI cannot use GPU 99: ")
    assert caught.value.hint == "see what is wrong with alexnet-prep doctor, or train with --device cpu"


def test_a_graph_that_dali_refuses_is_an_error_of_the_stream(monkeypatch):
    def refuse(*_):
        raise RuntimeError("out of\n   patience")

    monkeypatch.setattr("nvidia.dali.Pipeline.build", refuse)
    for make in both_graphs(None):
        with pytest.raises(StreamError) as caught:
            make()
        assert (caught.value.message, caught.value.hint) == (
            "DALI cannot build the pipeline: out of patience",
            "alexnet-prep doctor",
        )
        assert isinstance(caught.value, AlexnetError)


def test_the_numbers_of_views_are_those_that_can_be_asked_for():
    assert list(graph.VIEWS) == [len(centre_view()), len(ten_views())]
