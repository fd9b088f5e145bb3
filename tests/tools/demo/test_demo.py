"""What alexnet-demo sees in a photo, and what it says of files that are none; its page is in test_demo_page.py."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import tiny
import torch
from alexnet_dali.pipeline.errors import SourceError, TrainingError, UsageError
from alexnet_dali.pipeline.prepare.resize import fit_pixels
from alexnet_dali.pipeline.shards.records_csv import read_listing
from alexnet_dali.pipeline.stream.streams import views_stream
from alexnet_dali.tools.demo import html as demo_html
from alexnet_dali.tools.demo.cli import demo, loopback
from alexnet_dali.tools.demo.crop import Whole, kept_square, read_upload, whole_photo
from alexnet_dali.tools.demo.guard import AGE, Uploads
from alexnet_dali.tools.demo.inspect import CENTRE, Inspector, diverse, views_of_picture
from alexnet_dali.tools.figures.open_run import open_run
from alexnet_dali.tools.figures.retrieval import vectors
from alexnet_dali.tools.figures.retrieval.records import pictures_of
from pictures import BOMB, saved, scene
from PIL import Image

pytestmark = pytest.mark.usefixtures("small_nets")


@pytest.fixture(scope="module")
def run(raw_shards, small_nets, tmp_path_factory):
    """A run of two steps on 60 photos of 4 classes, stored as raw pixels."""
    folder = tmp_path_factory.mktemp("runs") / "tried"
    tiny.trainer_of(raw_shards, folder, batch_size=8, steps=2, rate=0.002).train()
    return folder


@pytest.fixture(scope="module")
def opened(run):
    return open_run(run, None, "cpu")


@pytest.fixture(scope="module")
def seen(opened, photos):
    """The first photo of val, inspected without an index: its CSV row, its path, the Inspection."""
    row, path = row_of(opened, photos, "val", 0)
    return row, path, Inspector(opened).photo(path.read_bytes(), path.name)


def row_of(opened, photos, split, record):
    rows = [row for folder, _ in opened.shard_set.split(split).shards for row in read_listing(folder)]
    return rows[record], Path(photos) / rows[record].source_path


def test_the_photo_is_seen_as_the_build_stored_it(opened, seen):
    row, path, inspection = seen
    stored = pictures_of(opened.shard_set, "val", np.array([0]))[0]
    np.testing.assert_array_equal(inspection.stored, stored)
    assert inspection.name == path.name and inspection.right == -1
    assert (inspection.whole.width, inspection.whole.height) == (row.source_width, row.source_height)
    record = Inspector(opened).record("val", 0)
    assert record.whole is None and record.right == row.label and record.name == path.name
    assert (record.labels, record.probabilities) == (inspection.labels, inspection.probabilities)


@pytest.mark.parametrize("mean", ["image", "rgb", "imagenet"])
def test_the_ten_views_are_the_stream_s(opened, raw_shards, mean):
    trained = replace(opened.trained, recipe=replace(opened.trained.recipe, mean=mean))
    with views_stream(raw_shards, trained.stats, "val", views=10, mean=mean) as stream:
        expected = next(iter(stream)).images[:3].numpy()  # (3, 10, 3, 224, 224)
    pictures = pictures_of(raw_shards, "val", np.arange(3))
    for picture, views in zip(pictures, expected, strict=True):
        pixels, ready = views_of_picture(picture, trained)
        np.testing.assert_allclose(ready.numpy(), views, atol=2e-4)
        np.testing.assert_array_equal(pixels[0], picture[:224, :224])
        np.testing.assert_array_equal(pixels[7], picture[32:, 32:][:, ::-1])


def test_the_labels_are_the_average_of_ten_answers(opened, raw_shards, seen):
    inspection = seen[2]
    net = opened.trained.net
    with (
        views_stream(raw_shards, opened.trained.stats, "val", views=10, mean=opened.trained.recipe.mean) as stream,
        torch.no_grad(),
    ):
        logits = net(next(iter(stream)).images[0])
    each = np.array([oracle.softmax(row.tolist()) for row in logits])
    average = each.mean(axis=0)
    assert inspection.labels == np.argsort(-average, kind="stable").tolist()
    np.testing.assert_allclose(inspection.probabilities, np.sort(average)[::-1], rtol=1e-4)
    assert [view.label for view in inspection.views] == each.argmax(axis=1).tolist()
    np.testing.assert_allclose([view.probability for view in inspection.views], each.max(axis=1), rtol=1e-4)
    assert [view.name for view in inspection.views][6:] == ["lower right", "lower right, mirrored", "centre",
                                                        "centre, mirrored"]  # fmt: skip


@pytest.mark.parametrize("sides", [(300, 401), (401, 300), (90, 333), (256, 256), (1000, 257)])
def test_the_outlined_square_is_what_is_kept(sides):
    height, width = sides
    left, top, wide, tall = kept_square(height, width, 256)
    place = np.zeros((height, width, 3), np.uint8)
    place[:, :, 0] = np.linspace(0, 255, width)
    place[:, :, 1] = np.linspace(0, 255, height)[:, None]
    kept = fit_pixels(place, 256)
    assert abs(int(kept[128, 0, 0]) - 255 * left) <= 3 and abs(int(kept[128, -1, 0]) - 255 * (left + wide)) <= 3
    assert abs(int(kept[0, 128, 1]) - 255 * top) <= 3 and abs(int(kept[-1, 128, 1]) - 255 * (top + tall)) <= 3
    assert wide * width == pytest.approx(tall * height, rel=0.01)


def test_what_is_not_kept_is_darkened():
    whole = Whole(np.full((100, 200, 3), 90, np.uint8), 200, 100, (0.25, 0.0, 0.5, 1.0), False)
    shown = demo_html.outlined(whole)
    assert (shown[:, :48] == 30).all() and (shown[:, 152:] == 30).all() and (shown[10:90, 60:140] == 90).all()
    assert (shown[50, 50] == demo_html.OUTLINE).all() and (shown[0, 100] == demo_html.OUTLINE).all()


def test_a_large_photo_is_shown_small(opened):
    whole = whole_photo(saved(scene(900, 1800)), "a", opened.shard_set)
    assert whole.pixels.shape == (360, 720, 3) and (whole.width, whole.height) == (1800, 900)


def test_responses_of_the_first_layer(opened, seen):
    layer = seen[2].first_layer
    assert layer.maps.shape == (96, 55, 55) and layer.maps.min() >= 0 and len(layer.strongest) == 12
    _, pictures = views_of_picture(seen[2].stored, opened.trained)
    conv = opened.trained.net.conv1
    one = layer.strongest[0]
    assert one.number == int(layer.maps.mean(axis=(1, 2)).argmax())
    np.testing.assert_array_equal(one.kernel, conv.weight[one.number].detach().numpy())
    for y, x in ((0, 0), (20, 31), (53, 53)):
        window = pictures[CENTRE, :, 4 * y : 4 * y + 11, 4 * x : 4 * x + 11].double().numpy()
        found = (window * one.kernel).sum() + conv.bias[one.number].item()
        assert one.map[y, x] == pytest.approx(max(found, 0), abs=1e-3)
    assert not conv._forward_hooks, "the net is left as it was"


def test_strong_maps_that_differ_are_chosen():
    random = np.random.default_rng(0)
    pattern, other, weak = (random.random((9, 9)) for _ in range(3))
    maps = np.stack([0.1 * weak, 0.9 * pattern, pattern, 0.95 * pattern, 0.5 * other])
    assert diverse(maps, 3) == [2, 4, 0] and sorted(diverse(maps, 12)) == [0, 1, 2, 3, 4]
    assert len(set(diverse(np.zeros((7, 3, 3)), 5))) == 5


def test_a_net_without_kernels_over_colours(opened, seen):
    inspection = replace(seen[2], first_layer=None)
    assert "is not a convolution over RGB" in demo_html.of_inspection(inspection, opened.names, opened.shard_set)


def test_neighbours_when_there_is_an_index(opened, photos, seen, tmp_path):
    inspector = Inspector(opened, tmp_path / "index")
    row, path = row_of(opened, photos, "train", 7)
    missing = inspector.photo(path.read_bytes(), path.name).near
    assert isinstance(missing, UsageError) and "create it with: alexnet-figures index" in missing.hint
    said = demo_html.of_inspection(replace(seen[2], near=missing), opened.names, opened.shard_set)
    assert "Not shown:" in said and "alexnet-figures index" in said
    vectors.write_index(opened, tmp_path / "index")  # while the page is open
    near = inspector.photo(path.read_bytes(), path.name).near
    assert len(near) == 6 and near[0].name == opened.names[row.label] and float(near[0].distance) < 1e-2
    np.testing.assert_array_equal(near[0].pixels, pictures_of(opened.shard_set, "train", np.array([7]))[0])
    distances = [float(one.distance) for one in near]
    assert distances == sorted(distances) and near[0].same is None
    assert inspector.record("train", 7).near[0].same is True


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "the file is empty"),
        (b"no picture at all " * 40, "not a photo in a known format"),
        (b"%PDF-1.7\n" + bytes(500), "not a photo in a known format"),
        (saved(scene(200, 300))[:3000], "truncated"),
        (BOMB, "more than 100,000,000 pixels"),
        (saved(np.zeros((2, 9000, 3), np.uint8), "PNG"), "aspect ratio too large"),
    ],
    ids=["empty", "text", "pdf", "torn", "bomb", "narrow"],
)
def test_what_is_no_photo_is_said(opened, data, said):
    with pytest.raises(SourceError) as error:
        Inspector(opened).photo(data, "holiday.jpg")
    assert error.value.message.startswith("holiday.jpg: ") and said in error.value.message
    assert error.value.hint.startswith("choose a photo")
    html = demo_html.of_error(error.value)
    assert 'role="alert"' in html and said in html


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(scene(120, 160)).convert("CMYK")),
        saved(Image.fromarray(scene(120, 160)).convert("P"), "GIF"),
        saved(Image.fromarray(scene(120, 160)).convert("L"), "PNG"),
        saved(np.dstack([scene(120, 160), np.full((120, 160), 9, np.uint8)]), "PNG"),
        saved(np.zeros((1, 1, 3), np.uint8), "BMP"),
        saved(scene(120, 160), "WEBP"),
    ],
    ids=["cmyk", "gif", "grey", "transparent", "one pixel", "webp"],
)
def test_odd_photos_are_seen(opened, data):
    inspection = Inspector(opened).photo(data, "odd")
    assert inspection.stored.shape == (256, 256, 3) and sum(inspection.probabilities) == pytest.approx(1, abs=1e-5)


def test_a_photo_that_its_camera_turned(opened, seen):
    exif = Image.Exif()
    exif[0x0112] = 6
    inspection = Inspector(opened).photo(saved(Image.fromarray(scene(200, 300)), exif=exif), "turned.jpg")
    assert inspection.whole.turned and (inspection.whole.width, inspection.whole.height) == (300, 200)
    assert "has an EXIF orientation" in demo_html.of_inspection(inspection, opened.names, opened.shard_set)
    assert "has an EXIF orientation" not in demo_html.of_inspection(seen[2], opened.names, opened.shard_set)


def test_a_net_with_nan_outputs_is_an_error(run):
    opened = open_run(run, None, "cpu")
    with torch.no_grad():
        opened.trained.net.fc8.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="probabilities are NaN"):
        Inspector(opened).record("val", 0)


def test_uploads_are_bounded(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(bytes(1 << 20))
    assert len(read_upload(file, 1 << 20)) == 1 << 20
    file.write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(UsageError, match=r"a\.jpg: more than 1 MB"):
        read_upload(file, 1 << 20)
    with pytest.raises(UsageError, match="choose the photo again"):
        read_upload(tmp_path / "gone.jpg", 1)


def test_a_read_upload_goes_and_no_other(tmp_path):
    (tmp_path / "a").mkdir()
    mine, theirs, coming = tmp_path / "a" / "mine.jpg", tmp_path / "a" / "theirs.jpg", tmp_path / "tmp123"
    for file in (mine, theirs, coming):
        file.write_bytes(file.name.encode())
    uploads = Uploads(tmp_path)
    uploads.register([str(mine), str(theirs)])
    assert uploads.take(mine, 99) == b"mine.jpg"
    assert not mine.exists() and theirs.exists() and coming.exists(), "of another, and of one still on its way"
    with pytest.raises(UsageError, match="more than 0 MB"):
        uploads.take(theirs, 3)
    assert not theirs.exists(), "one too large goes as well"


def test_two_who_send_one_photo_at_once_both_get_it(tmp_path):
    now = [0.0]
    file, uploads = tmp_path / "cat.jpg", Uploads(tmp_path, lambda: now[0])
    file.write_bytes(b"cat")
    uploads.register([str(file)])
    uploads.register([str(file)])
    assert [uploads.take(file, 99), file.exists(), uploads.take(file, 99), file.exists()] == [
        b"cat",
        True,
        b"cat",
        False,
    ]
    # Who has sent one and left does not keep it for ever.
    file.write_bytes(b"cat")
    uploads.register([str(file)])
    now[0] = AGE + 1
    uploads.register([str(file)])
    assert uploads.take(file, 99) == b"cat" and not file.exists()


def test_nothing_beyond_the_uploads_is_deleted(tmp_path):
    (tmp_path / "uploads").mkdir()
    (tmp_path / "other.jpg").write_bytes(b"other")
    assert Uploads(tmp_path / "uploads").take(tmp_path / "other.jpg", 99) == b"other"
    assert (tmp_path / "other.jpg").exists()


def test_names_are_escaped(opened, seen):
    names = ["<i>b</i>" if k == seen[2].labels[0] else name for k, name in enumerate(opened.names)]
    html = demo_html.of_inspection(replace(seen[2], name='<script>"&', right=3), names, opened.shard_set)
    assert "<script" not in html and "&lt;script&gt;&#34;&amp;" in html and "<i>b" not in html and "&lt;i&gt;b" in html
    assert "<script" not in demo_html.of_error(UsageError("<script>", "<script>"))
    assert "<script" not in demo_html.title("<script>")
    assert "<script" not in demo_html.of_examples([(1, np.zeros((9, 9, 3), np.uint8), "<script>")])
    assert html.count("<img") == 2 + 10 + 2 * 12 + 1 and html.count("<small>correct</small>") == 1


def test_examples_are_of_different_classes(opened):
    examples = Inspector(opened).examples("val", 4)
    assert len({name for *_, name in examples}) == 4 and all(one.shape == (256, 256, 3) for _, one, _ in examples)
    assert Inspector(opened).examples("test") == []
    assert demo_html.of_examples(examples).count("data-record") == 4


def test_without_gradio(in_process, monkeypatch, run):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, out, err = in_process(demo, run)
    assert (code, out) == (2, "") and "needs Gradio" in err and "pip install 'alexnet-dali[demo]'" in err


def test_nothing_but_the_page_imports_gradio():
    modules = "cli, crop, guard, html, inspect"
    code = f"import sys; from alexnet_dali.tools.demo import {modules}; print('gradio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_what_cannot_be_served_is_said(in_process, run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = in_process(demo, run, "--port", port)
        assert code == 2 and f"port {port} of 127.0.0.1 is in use" in err and f"--port {port + 1}" in err
    code, _, err = in_process(demo, run, "--host", "no.such.host.invalid")
    assert code == 2 and "--host no.such.host.invalid" in err
    code, _, err = in_process(demo, run, "--host", "192.0.2.1", "--port", 0)
    assert code == 2 and "cannot listen on port 0 of 192.0.2.1" in err
    code, _, err = in_process(demo, tmp_path / "none", "--port", 0)
    assert code == 2 and "no such checkpoint" in err
    code, _, err = in_process(demo, run, "--port", 0, "--shards", tmp_path / "gone")
    assert code == 2 and "does not exist" in err


def test_which_addresses_are_this_machine_s_alone():
    assert loopback("127.0.0.1") and loopback("::1") and loopback("localhost")
    assert not loopback("0.0.0.0") and not loopback("192.168.1.7") and not loopback("example.org")
