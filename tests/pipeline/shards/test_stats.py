"""The statistics: exact whatever the parts they were summed from, equal to NumPy's, never of another shard set."""

import dataclasses
import errno
import io
import json
import os
import pickle
import shutil
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import stored
from alexnet_dali.pipeline.errors import ShardError, StatsError
from alexnet_dali.pipeline.plan.lighting import lighting_offsets
from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import BuildOptions
from alexnet_dali.pipeline.prepare.resize import encode_jpeg
from alexnet_dali.pipeline.shards import datum, stats
from alexnet_dali.pipeline.shards.lmdb_shard import write_shard
from alexnet_dali.pipeline.shards.manifest import ShardSet, Split, open_shard_set
from alexnet_dali.pipeline.shards.stats import Moments, cross_products, from_moments, shard_moments
from alexnet_dali.pipeline.sources.find import find_photos
from hypothesis import given
from hypothesis import strategies as st

NAMES = ("mean_image", "mean_rgb", "covariance", "eigenvalues", "eigenvectors")


def pictures(root, size):
    """The central squares of all training pictures, float64 (n, size, size, 3); read without the product's code."""
    squares = []
    for record in stored.records(root, "train"):
        height, width = record.pixels.shape[:2]
        top, left = (height - size) // 2, (width - size) // 2
        squares.append(record.pixels[top : top + size, left : left + size])
    return np.stack(squares).astype(np.float64)


def moments_of(photos):
    """Sums of uint8 (n, size, size, 3), written out."""
    flat = photos.reshape(-1, 3).astype(object)  # whole numbers of any length
    return Moments(len(photos), photos.astype(np.int64).sum(axis=0), (flat.T @ flat).astype(np.int64))


def assert_same(one, other):
    """Equal to the last bit."""
    assert one.images == other.images
    for name in NAMES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("name", ["shards", "raw_shards", "short_side_shards"])
def test_statistics_are_numpys(name, request):
    shard_set = request.getfixturevalue(name)
    got = stats.load_stats(shard_set)
    seen = pictures(shard_set.root, 256)
    flat = seen.reshape(-1, 3)
    assert got.images == len(seen) == shard_set.split("train").records
    np.testing.assert_allclose(got.mean_image, seen.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(got.mean_rgb, flat.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(got.covariance, np.cov(flat, rowvar=False, bias=True), rtol=1e-9)
    deviations = flat - flat.mean(axis=0)
    for value, vector in zip(got.eigenvalues, got.eigenvectors, strict=True):
        np.testing.assert_allclose(got.covariance @ vector, value * vector, atol=1e-9 * got.eigenvalues[0])
        np.testing.assert_allclose(np.mean((deviations @ vector) ** 2), value, rtol=1e-9)  # a variance it is
    np.testing.assert_allclose(got.eigenvectors @ got.eigenvectors.T, np.eye(3), atol=1e-12)
    assert got.eigenvalues[0] > got.eigenvalues[1] > got.eigenvalues[2] > 0
    assert all(vector[np.abs(vector).argmax()] > 0 for vector in got.eigenvectors)
    assert got.fingerprint == shard_set.split("train").fingerprint()


def test_only_the_central_square_of_a_whole_picture_counts(tmp_path):
    """Outside of it the picture is white; the odd margin's extra pixel is right and below."""
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 200, (2, 8, 8, 3), dtype=np.uint8)
    wide, tall = np.full((8, 13, 3), 255, np.uint8), np.full((11, 8, 3), 255, np.uint8)
    wide[:, 2:10], tall[1:9] = squares
    values = [
        datum.encode(photo.tobytes(), height=len(photo), width=photo.shape[1], label=0, encoded=False)
        for photo in (wide, tall)
    ]
    got = shard_moments(tmp_path / "a.lmdb", write_shard(tmp_path / "a.lmdb", values), 8)
    expected = moments_of(squares)
    np.testing.assert_array_equal(got.pixels, expected.pixels)
    np.testing.assert_array_equal(got.cross, expected.cross)


def test_the_number_of_shards_changes_no_bit(photos, shards, tmp_path):
    with ThreadPoolExecutor(3) as executor:
        built, _ = build_shards(find_photos(photos), tmp_path, BuildOptions(shard_records=23), executor)
        got = stats.measure_stats(built, executor)
    assert len(built.split("train").shards) == 3 and len(shards.split("train").shards) == 4
    assert_same(got, stats.load_stats(shards))


def test_progress_adds_up(shards):
    told: list[int] = []
    with ThreadPoolExecutor(1) as executor:
        stats.measure_stats(shards, executor, split="val", advance=told.append)
    assert sorted(told) == [4, 16]


PHOTOS = np.random.default_rng(1).integers(0, 256, (12, 5, 5, 3), dtype=np.uint8)


@given(st.permutations(range(12)), st.sets(st.integers(1, 11)))
def test_partial_sums_may_be_added_in_any_order(order, cuts):
    parts = [moments_of(PHOTOS[chosen]) for chosen in np.split(np.array(order), sorted(cuts))]
    total = sum(parts[1:], parts[0])
    assert_same(from_moments(total, ""), from_moments(moments_of(PHOTOS), ""))


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from(["noise", "white", "black", "bright"]), st.integers(0, 9)
)
def test_cross_products_are_exact(height, width, kind, seed):
    low, high = {"noise": (0, 256), "white": (255, 256), "black": (0, 1), "bright": (250, 256)}[kind]
    pixels = np.random.default_rng(seed).integers(low, high, (height, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(cross_products(pixels), moments_of(pixels[None]).cross)


def test_cross_products_of_a_white_picture():
    assert cross_products(np.full((256, 256, 3), 255, np.uint8)).tolist() == [[65536 * 255**2] * 3] * 3


def test_a_tiny_variance_of_very_many_pixels_is_exact():
    """ImageNet in number, but all 200 except for one pixel: in float64 the two terms of the covariance would cancel."""
    images, size = 1_281_167, 256
    pixels = np.full((size, size, 3), 200 * images, np.int64)
    pixels[0, 0] += [1, 2, 0]
    count = images * size * size
    cross = np.full((3, 3), 200 * 200 * count, np.int64)
    change = np.array([1, 2, 0])
    cross += 200 * (change[:, None] + change[None, :]) + change[:, None] * change[None, :]
    got = from_moments(Moments(images, pixels, cross), "")
    expected = [[float(Fraction(int(a * b), count) - Fraction(int(a * b), count**2)) for b in change] for a in change]
    assert got.covariance.tolist() == expected
    assert got.covariance[0, 0] == pytest.approx(1 / count, rel=1e-9)


def test_pictures_of_one_colour_have_no_variance():
    got = from_moments(moments_of(np.full((3, 4, 4, 3), (10, 20, 30), np.uint8)), "")
    assert got.eigenvalues.tolist() == [0, 0, 0] and got.covariance.tolist() == [[0] * 3] * 3
    assert got.mean_rgb.tolist() == [10, 20, 30]
    np.testing.assert_allclose(got.eigenvectors @ got.eigenvectors.T, np.eye(3), atol=1e-12)


def test_grey_pictures_have_one_component():
    grey = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8).repeat(3, axis=3)
    got = from_moments(moments_of(grey), "")
    np.testing.assert_allclose(got.eigenvectors[0], [3**-0.5] * 3, rtol=1e-12)
    np.testing.assert_allclose(got.eigenvalues[0], 3 * grey.var(), rtol=1e-12)
    assert (got.eigenvalues[1:] >= 0).all() and (got.eigenvalues[1:] < 1e-9).all()


def test_no_pictures():
    with pytest.raises(StatsError, match="no pictures to compute statistics of"):
        from_moments(Moments(0, np.zeros((4, 4, 3), np.int64), np.zeros((3, 3), np.int64)), "")


def raw(height, width):
    return datum.encode(bytes(height * width * 3), height=height, width=width, label=0, encoded=False)


TORN = encode_jpeg(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))[:-40]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"garbage", "not a Datum"),
        (raw(7, 9), "9x7 pixels in a set of size 8"),
        (datum.encode(TORN, height=8, width=8, label=0, encoded=True), "Premature end of JPEG file"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, value, reason):
    file = write_shard(tmp_path / "a.lmdb", [raw(8, 8), raw(8, 8), value])
    shard_set = ShardSet(
        tmp_path, 8, "crop", "raw", ("cat",), {"train": Split("train", ((tmp_path / "a.lmdb", file),))}, {}
    )
    with pytest.raises(ShardError) as caught, ThreadPoolExecutor(1) as executor:
        stats.measure_stats(shard_set, executor)
    assert caught.value.message.startswith(f"{tmp_path}/a.lmdb, record 2: ") and reason in caught.value.message
    assert caught.value.hint.endswith(" --repair finds and rebuilds what is damaged")


def test_a_split_without_records(shards):
    with pytest.raises(ShardError, match="no records in a split 'test'"), ThreadPoolExecutor(1) as executor:
        stats.measure_stats(shards, executor, split="test")


BASIS = dataclasses.replace(
    from_moments(moments_of(PHOTOS), ""),
    eigenvalues=np.array([14830.0, 1376.0, 389.0]),
    eigenvectors=np.array([[0.6, 0.64, 0.48], [0.8, -0.48, -0.36], [0.0, 0.6, -0.8]]),
)


@pytest.mark.parametrize("scale", ["stddev", "eigenvalue", "none"])
def test_lighting_written_out(scale):
    gaussians = np.random.default_rng(3).standard_normal((6, 3)).astype(np.float32)
    got = lighting_offsets(gaussians, BASIS, scale)
    assert got.shape == (6, 3) and got.dtype == np.float64
    for n in range(6):
        for channel in range(3):
            expected = 0.0
            for k in range(3):
                variance = BASIS.eigenvalues[k]
                length = {"stddev": variance**0.5, "eigenvalue": variance / 255**2 * 255, "none": 0.0}[scale]
                expected += 0.1 * float(gaussians[n, k]) * length * BASIS.eigenvectors[k, channel]
            assert got[n, channel] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_lighting_in_grey_levels():
    """One unit of the largest component of ImageNet: 12.18 grey levels in 2012, 5.8 in the community's reading."""
    light = np.array([[1.0, 0, 0]], np.float32)
    assert np.linalg.norm(lighting_offsets(light, BASIS, "stddev")) == pytest.approx(12.178, abs=1e-3)
    assert np.linalg.norm(lighting_offsets(light, BASIS, "eigenvalue")) == pytest.approx(5.816, abs=1e-3)
    np.testing.assert_array_equal(lighting_offsets(light, BASIS), lighting_offsets(light, BASIS, "stddev"))


def test_a_scale_of_another_name():
    with pytest.raises(StatsError) as caught:
        lighting_offsets(np.zeros((1, 3), np.float32), BASIS, "paper")
    assert str(caught.value) == "unknown lighting scale 'paper'; choose one of stddev, eigenvalue, none"


@pytest.fixture
def own(shards, tmp_path):
    """A copy of the shard set, opened, to be changed."""
    return open_shard_set(shutil.copytree(shards.root, tmp_path / "out"))


def test_what_is_saved_is_loaded(own):
    before = stats.load_stats(own)
    stats.save_stats(before, own.root)
    assert_same(stats.load_stats(own), before)
    for name in NAMES:
        assert getattr(before, name).dtype == np.float64


def test_json_for_people(own):
    numbers, there = json.loads((own.root / "stats.json").read_text()), stats.load_stats(own)
    assert numbers.pop("pixels") == "0..255, RGB order; eigenvectors are rows"
    assert numbers == {
        "images": 60,
        "fingerprint": own.split("train").fingerprint(),
        **{name: getattr(there, name).tolist() for name in NAMES if name != "mean_image"},
    }


def test_summary():
    lines = stats.summary(dataclasses.replace(BASIS, images=1281167, mean_rgb=np.array([122.5, 116.25, 104.0])))
    assert lines.splitlines() == [
        "images        1,281,167",
        "mean RGB        122.500    116.250    104.000",
        "component       0.60000    0.64000    0.48000   standard deviation 121.778",
        "component       0.80000   -0.48000   -0.36000   standard deviation  37.094",
        "component       0.00000    0.60000   -0.80000   standard deviation  19.723",
    ]


def refusal(shard_set):
    with pytest.raises(StatsError) as caught:
        stats.load_stats(shard_set)
    assert caught.value.hint == f"alexnet-prep pca-stats --shards {shard_set.root}"
    return caught.value.message


def test_missing_statistics(own):
    (own.root / "stats.npz").unlink()
    assert refusal(own) == f"{own.root}: no statistics yet (stats.npz)"


def test_statistics_of_another_set(own, raw_shards):
    shutil.copy(raw_shards.root / "stats.npz", own.root)
    assert refusal(own) == f"{own.root}/stats.npz: these statistics are of another shard set"


def test_statistics_of_a_set_that_was_built_anew(own):
    other = dataclasses.replace(own, splits=own.splits | {"train": own.split("val")})
    assert refusal(other) == f"{own.root}/stats.npz: these statistics are of another shard set"


def written(**changes):
    """The bytes of a stats.npz with some arrays other than good, or, where None, left out."""
    arrays = {
        "images": 12,
        "fingerprint": Split("train", ()).fingerprint(),
        **{name: getattr(BASIS, name) for name in NAMES},
    } | changes
    stream = io.BytesIO()
    np.savez(stream, **{name: value for name, value in arrays.items() if value is not None})
    return stream.getvalue()


def npy(value):
    stream = io.BytesIO()
    np.save(stream, value)
    return stream.getvalue()


class Trap:
    """Unpickled, it would raise an error that nobody maps."""

    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.fixture
def place(tmp_path):
    """A shard set of size 5 in name only, for a stats.npz that is not good."""
    return ShardSet(tmp_path, 5, "crop", "raw", ("cat",), {"train": Split("train", ())}, {})


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not a zip file"),
        (b"hello, I am no archive", ""),
        (written()[:-300], ""),
        (written()[:100], ""),
        (npy(np.zeros(3)), ""),
        (pickle.dumps(Trap()), ""),
        (written(mean_image=np.array([Trap()], dtype=object)), "mean_image is object of shape (1,)"),
        (written(covariance=None), "covariance"),
        (written(images=np.zeros(3)), "images is float64 of shape (3,), not of shape ()"),
        (
            written(images=np.zeros((), "i8"), fingerprint=np.array("x" * 100_000)),
            "bytes are more than the possible 70,232",
        ),
        (written(eigenvalues=np.array(["a", "b", "c"])), "eigenvalues is <U1 of shape (3,)"),
    ],
)
def test_damaged_statistics(place, monkeypatch, data, what):
    monkeypatch.setattr(Split, "records", 1)
    (place.root / "stats.npz").write_bytes(data)
    message = refusal(place)
    assert message.startswith(f"{place.root}/stats.npz: damaged: ") and what in message


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"mean_image": np.zeros((6, 6, 3))}, "mean_image is float64 of shape (6, 6, 3), not of shape (5, 5, 3)"),
        ({"eigenvectors": np.zeros((2, 3))}, "eigenvectors is float64 of shape (2, 3), not of shape (3, 3)"),
        ({"mean_rgb": np.array([1, np.nan, 2])}, "it holds values that are not finite"),
        ({"mean_image": np.full((5, 5, 3), np.inf)}, "it holds values that are not finite"),
    ],
)
def test_statistics_that_cannot_be_meant(place, monkeypatch, changes, what):
    monkeypatch.setattr(Split, "records", 1)
    (place.root / "stats.npz").write_bytes(written(fingerprint=place.split("train").fingerprint(), **changes))
    assert refusal(place) == f"{place.root}/stats.npz: damaged: {what}"


@pytest.mark.parametrize("name", ["fingerprint", "mean_image"])
@pytest.mark.parametrize(
    ("shape", "method", "data", "what"),
    [
        ((5 << 20,), zipfile.ZIP_DEFLATED, bytes(40 << 20), "is compressed: 41,943,"),
        (
            (1 << 13, 1 << 13, 1 << 13),
            zipfile.ZIP_STORED,
            b"",
            "is float64 of shape (8192, 8192, 8192), not of shape (",
        ),
    ],
    ids=["packed zeros", "a header that lies"],
)
def test_a_bomb_is_refused_and_never_unpacked(place, monkeypatch, name, shape, method, data, what):
    """The first array that is read, and the largest: 40 MB in 40 kB, or said to have 4 TB."""
    monkeypatch.setattr(Split, "records", 1)
    (place.root / "stats.npz").write_bytes(written(**{name: None}))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(place.root / "stats.npz", "a", method) as archive:
        archive.writestr(f"{name}.npy", header.getvalue() + data)
    del data
    tracemalloc.start()
    message = refusal(place)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message.startswith(f"{place.root}/stats.npz: damaged: {name} {what}") and most < 1_000_000


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_statistics_that_cannot_be_read_are_not_called_damaged(place, monkeypatch, number):
    def fails(*_):
        raise OSError(number, os.strerror(number), "stats.npz")

    (place.root / "stats.npz").write_bytes(written())
    monkeypatch.setattr(zipfile, "ZipFile", fails)
    with pytest.raises(StatsError) as caught:
        stats.load_stats(place)
    assert caught.value.message == f"{place.root}/stats.npz: cannot be read: {os.strerror(number)}"
    assert caught.value.hint == "check that you have read permission"


def test_a_file_that_is_too_large_is_not_opened(place):
    """Its directory alone could take gigabytes."""
    with open(place.root / "stats.npz", "wb") as file:
        file.truncate(1 << 30)
    assert refusal(place).endswith("damaged: 1,073,741,824 bytes are more than the possible 70,232")


def test_any_flipped_byte_is_noticed_or_harmless(place, monkeypatch):
    monkeypatch.setattr(Split, "records", 1)
    path = place.root / "stats.npz"
    good = written(fingerprint=place.split("train").fingerprint())
    path.write_bytes(good)
    whole = stats.load_stats(place)
    assert zipfile.is_zipfile(path)
    refused = 0
    for at in range(0, len(good), 3):
        path.write_bytes(good[:at] + bytes([good[at] ^ (1 << at % 8)]) + good[at + 1 :])
        try:
            assert_same(stats.load_stats(place), whole)
        except StatsError as error:
            assert error.message.startswith(f"{path}: ")
            refused += 1
    assert refused > len(good) / 3 / 2


def test_sums_of_many_white_pictures_do_not_overflow(tmp_path):
    """515 pictures: their partial sums of 16 bits are emptied twice."""
    white = datum.encode(bytes([255]) * (8 * 8 * 3), height=8, width=8, label=0, encoded=False)
    file = write_shard(tmp_path / "white.lmdb", [white] * 515)
    moments = stats.shard_moments(tmp_path / "white.lmdb", file, 8)
    assert moments.images == 515 and np.all(moments.pixels == 515 * 255)
    assert np.all(moments.cross == 515 * 64 * 255**2)
