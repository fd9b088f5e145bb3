"""The DALI graphs against NumPy: every window, reflection, mean, light and gain; what cannot be built says why."""

import sys

import numpy as np
import oracle
import pytest
from alexnet_dali.pipeline.errors import AlexnetError, DeviceError, PlanError, StreamError
from alexnet_dali.pipeline.plan.views import views_of
from alexnet_dali.pipeline.stream.dali_graph import train_graph, views_graph
from graphs import assert_close, decoded, jpeg, picture, pictures_of, train, views
from PIL import Image

# Windows


def test_the_ten_views_in_their_order():
    corners = [(0, 0), (32, 0), (0, 32), (32, 32), (16, 16)]
    assert views_of(10).tolist() == [[*corner, flip] for corner in corners for flip in (0, 1)]
    assert views_of(1).tolist() == [[16, 16, 0]]


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
    tens = views(pictures, payloads, views_of(10, 64, 56), corners=corners)
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
    out = views(pictures, payloads, views_of(10, size, crop))
    assert out.shape == (3, 10, crop, crop, 3)
    for k, pixels in enumerate(decoded(p) for p in payloads) if encoded else enumerate(data):
        for number, (left, top, flip) in enumerate(views_of(10, size, crop).tolist()):
            expected = oracle.training_picture(pixels, left, top, flip, crop, mean_image, 0, 1)
            assert_close(out[k, number], expected)
    centre = views(pictures, payloads, views_of(1, size, crop))
    np.testing.assert_array_equal(centre[:, 0], out[:, 8])


def test_without_a_mean_image_one_value_a_channel_is_subtracted():
    pixels = picture(64)
    out = views(pictures_of(64, 56, mean_rgb=np.array([10.5, 20.25, 30.0])), [pixels], views_of(1, 64, 56))
    np.testing.assert_array_equal(out[0, 0], pixels[4:60, 4:60] - np.array([10.5, 20.25, 30.0], np.float32))


@pytest.mark.parametrize("residual", [False, True])
def test_values_as_torchvision_s_models_want_them(residual):
    """(x / 255 - mean) / std is (x - 255 mean) / (255 std); a gain and a mean image go the same way."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    rng = np.random.default_rng(8)
    over = rng.normal(0, 30, (56, 56, 3)).astype(np.float32) if residual else None
    pictures = pictures_of(64, 56, mean_rgb=255 * mean, std_rgb=255 * std, residual=over)
    data = [picture(64, seed=seed) for seed in range(3)]
    gains, flip = np.array([1.0, 1 / 1.1, 0.5]), [0, 1, 1]
    out = train(pictures, data, [0, 3, 8], [8, 2, 0], flip, np.tile(255 * mean, (3, 1)), gains)
    less = over / 255 if residual else 0
    for k, (left, top) in enumerate([(0, 8), (3, 2), (8, 0)]):
        window = data[k][top : top + 56, left : left + 56].astype(np.float64)
        expected = ((window[:, ::-1] if flip[k] else window) / 255 - mean - less) / std * gains[k]
        np.testing.assert_allclose(out[k], expected, rtol=0, atol=2e-6)
    (seen,) = views(pictures, data[:1], views_of(1, 64, 56))[0]
    np.testing.assert_allclose(seen, (data[0][4:60, 4:60] / 255 - mean - less) / std, rtol=0, atol=2e-6)


# What goes out


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("square", [False, True])
def test_uint8_is_the_pixels_cut_and_reflected(encoded, square):
    data = [picture(64, 64 if square else 90, seed=seed) for seed in range(4)]
    payloads = [jpeg(p) for p in data] if encoded else data
    pixels = [decoded(p) for p in payloads] if encoded else data
    corners = None if square else [(0, 13)] * 4
    # Mean, deviation and mean image are not applied: the pictures may well have them.
    pictures = pictures_of(
        64,
        56,
        encoded=encoded,
        square=square,
        mean_rgb=[9.0, 9, 9],
        std_rgb=np.full(3, 5.0),
        residual=np.ones((56, 56, 3), np.float32),
    )
    out = train(pictures, payloads, [0, 8, 3, 5], [8, 0, 2, 7], [0, 1, 0, 1], corners=corners, dtype="uint8")
    assert out.dtype == np.uint8
    for k, (left, top, flip) in enumerate([(0, 8, 0), (8, 0, 1), (3, 2, 0), (5, 7, 1)]):
        edge = left + (0 if square else 13)
        window = pixels[k][top : top + 56, edge : edge + 56]
        np.testing.assert_array_equal(out[k], window[:, ::-1] if flip else window)
    seen = views(pictures, payloads, views_of(10, 64, 56), corners, dtype="uint8")
    assert seen.dtype == np.uint8 and seen.shape == (4, 10, 56, 56, 3)
    edge = 4 if square else 17
    np.testing.assert_array_equal(seen[2, 9], pixels[2][4:60, edge : edge + 56][:, ::-1])


@pytest.mark.parametrize("residual", [False, True])
def test_float16_is_float32_rounded(residual):
    over = np.random.default_rng(1).normal(0, 20, (56, 56, 3)).astype(np.float32) if residual else None
    pictures = pictures_of(64, 56, mean_rgb=[120.0, 115, 100], std_rgb=np.full(3, 58.0), residual=over)
    data = [picture(64, seed=seed) for seed in range(3)]
    inputs = ([1, 2, 3], [3, 2, 1], [0, 1, 0], np.tile([120.0, 115, 100], (3, 1)), [1, 0.9, 1])
    half, single = (train(pictures, data, *inputs, dtype=dtype) for dtype in ("float16", "float32"))
    assert (half.dtype, single.dtype) == (np.float16, np.float32)
    np.testing.assert_allclose(half, single, rtol=2**-10, atol=2**-14)
    half, single = (views(pictures, data, views_of(10, 64, 56), dtype=dtype) for dtype in ("float16", "float32"))
    assert (half.dtype, single.dtype) == (np.float16, np.float32)
    np.testing.assert_allclose(half, single, rtol=2**-10, atol=2**-14)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("residual", [False, True])
def test_chw_is_the_same_with_colours_first(dtype, residual):
    over = np.random.default_rng(1).normal(0, 20, (56, 56, 3)).astype(np.float32) if residual else None
    pictures = pictures_of(64, 56, residual=over, std_rgb=np.array([50.0, 60, 70]))
    data = [picture(64, seed=seed) for seed in range(3)]
    inputs = ([1, 2, 3], [3, 2, 1], [0, 1, 0], np.full((3, 3), 100.0), [1, 0.9, 1])
    last, first = (train(pictures, data, *inputs, dtype=dtype, layout=layout) for layout in ("HWC", "CHW"))
    assert first.flags.c_contiguous and first.shape == (3, 3, 56, 56)
    np.testing.assert_array_equal(first, last.transpose(0, 3, 1, 2))
    last, first = (views(pictures, data, views_of(10, 64, 56), dtype=dtype, layout=layout) for layout in ("HWC", "CHW"))
    assert first.flags.c_contiguous and first.shape == (3, 10, 3, 56, 56)
    np.testing.assert_array_equal(first, last.transpose(0, 1, 4, 2, 3))


def test_views_of_any_number_are_cut():
    data = [picture(64, seed=seed) for seed in range(2)]
    for number in (2, 4, 5, 18):
        windows = views_of(number, 64, 40)
        out = views(pictures_of(64, 40), data, windows)
        for k, view in ((k, view) for k in range(2) for view in range(number)):
            left, top, flip = windows[view]
            window = data[k][top : top + 40, left : left + 40]
            np.testing.assert_array_equal(out[k, view], window[:, ::-1] if flip else window)


def test_ten_views_share_one_mean_image():
    pictures = pictures_of(64, 56, residual=np.ones((56, 56, 3), np.float32))
    one, ten = (
        views_graph(lambda: None, pictures, views_of(count, 64, 56), 4, None, 1).serialize() for count in (1, 10)
    )
    assert one.count(b"Constant") == ten.count(b"Constant") > 0


# What cannot be built


def both_graphs(device_id):
    pictures = pictures_of(64, 56)
    return [
        lambda: train_graph(lambda: None, pictures, 4, device_id, 1),
        lambda: views_graph(lambda: None, pictures, views_of(1, 64, 56), 4, device_id, 1),
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
    assert caught.value.hint == "find the reason with alexnet-prep doctor, or train with --device cpu"


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


@pytest.mark.parametrize("make", [0, 1])
@pytest.mark.parametrize(
    "option, message, hint",
    [
        ({"dtype": "bfloat16"}, "unknown dtype of pictures 'bfloat16'", "choose one of float32, float16, uint8"),
        ({"layout": "NCHW"}, "unknown layout of pictures 'NCHW'", "choose one of HWC, CHW"),
    ],
)
def test_what_cannot_go_out_is_refused(make, option, message, hint):
    pictures = pictures_of(64, 56)
    with pytest.raises(PlanError) as caught:
        if make:
            views_graph(lambda: None, pictures, views_of(1, 64, 56), 4, None, 1, **option)
        else:
            train_graph(lambda: None, pictures, 4, None, 1, **option)
    assert (caught.value.message, caught.value.hint) == (message, hint)
