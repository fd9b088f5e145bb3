"""alexnet-figures index, search, codes and neighbours, from the command to the file."""

import json
import re
import shutil

import numpy as np
import pytest
import tiny
import torch
from alexnet_dali.model import checkpoint, features
from alexnet_dali.pipeline.dataset import ShardDataset
from alexnet_dali.pipeline.listing import read_listing
from alexnet_dali.tools.figures import codes as codes_module
from alexnet_dali.tools.figures import look, neighbours, vectors
from alexnet_dali.tools.figures.command import figures
from alexnet_dali.tools.figures.runs import open_run
from alexnet_dali.tools.figures.search import stored_picture
from PIL import Image

pytestmark = pytest.mark.usefixtures("small_nets")


@pytest.fixture(scope="module")
def trained_run(shards, small_nets, tmp_path_factory):
    """A run of two steps on 60 photos of 4 classes, 20 of them to test; its index is made by the tests."""
    run = tmp_path_factory.mktemp("runs") / "run"
    tiny.trainer_of(shards, run, batch_size=8, steps=2, rate=0.002).train()
    return run


@pytest.fixture
def call(in_process):
    """Run alexnet-figures on the CPU."""
    return lambda command, *arguments: in_process(figures, command, *arguments, "--device", "cpu")


@pytest.fixture(scope="module")
def indexed(trained_run, tmp_path_factory):
    """The same run with its index and codes of 32 bits; no test may write to it."""
    run = shutil.copytree(trained_run, tmp_path_factory.mktemp("indexed") / "run")
    opened = vectors_run(run)
    assert vectors.write_index(opened, run / "index")
    index = vectors.open_index(opened)
    encoder, _ = codes_module.train(index.vectors, 32, epochs=1)
    stored = codes_module.StoredCodes(encoder.encode(index.vectors), encoder)
    codes_module.write_codes(index, stored, {})
    return run


def vectors_run(run):
    """The run as the commands open it."""
    return open_run(run, None, "cpu")


def paths_of(shard_set, split):
    return [row.source_path for folder, _ in shard_set.split(split).shards for row in read_listing(folder)]


def found_in(out):
    """Distance, class and file of each line of `search`, by photo."""
    photos: dict[str, list] = {}
    for line in out.splitlines():
        if line.endswith(":"):
            photos[line[:-1]] = latest = []
        elif line.startswith("  "):
            latest.append(re.fullmatch(r" +([0-9.]+)(?: bits)?  (\S+)  (.+)", line).groups())
    return photos


def test_index_is_written_once(trained_run, shards, call, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    code, out, err = call("index", run)
    file = run / "index" / "vectors.npy"
    assert code == 0 and out.startswith(f"{file}: 60 vectors of 64 numbers, 15.5 kB, in "), err
    saved = np.load(file, allow_pickle=False)
    trained = checkpoint.load_trained(run / "last.pt")
    expected = np.concatenate([batch.vectors for batch in features.of_split(trained, shards, "train")])
    np.testing.assert_array_equal(saved, expected)
    about = json.loads((run / "index" / "index.json").read_text())
    assert about["split_fingerprint"] == shards.split("train").fingerprint() and about["mean"] == trained.recipe.mean
    assert sorted(path.name for path in (run / "index").iterdir()) == ["index.json", "vectors.npy"]
    before = file.stat()
    code, out, _ = call("index", run)
    assert code == 0 and out == f"{file}: 60 vectors of 64 numbers, 15.5 kB; up to date, nothing to do\n"
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    code, out, _ = call("index", run, "--out", tmp_path / "else")
    assert code == 0 and np.array_equal(np.load(tmp_path / "else" / "vectors.npy"), saved)


def test_a_training_photo_finds_itself(indexed, photos, shards, call, tmp_path):
    paths = paths_of(shards, "train")
    asked = [photos / paths[k] for k in (7, 33)]
    code, out, err = call("search", indexed, *asked, "--count", 8, "--out", tmp_path / "figures")
    assert code == 0, err
    found = found_in(out)
    assert list(found) == [str(photo) for photo in asked]
    for photo, rows in zip(asked, found.values(), strict=True):
        distances = [float(distance) for distance, _, _ in rows]
        assert photos / rows[0][2] == photo and distances[0] < 0.01 < distances[1]
        assert len(rows) == 8 and distances == sorted(distances)
        assert all(path.split("/")[1] == name for _, name, path in rows), "the class is the photo's"
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["search.png", "search.svg"]
    code, out, err = call("search", indexed, *asked, "--codes", "--out", tmp_path / "figures")
    assert code == 0, err
    for photo, rows in zip(asked, found_in(out).values(), strict=True):
        bits = [int(distance) for distance, _, _ in rows]
        own = [int(distance) for distance, _, path in rows if photos / path == photo]
        assert len(rows) == 6 and bits == sorted(bits) and own and own[0] <= 1, "but for rounding at a threshold"


def test_search_is_in_the_order_of_distances_by_hand(indexed, shards, call, tmp_path):
    """A photo that is in no set, a PNG: through the build's own steps, then sorted by hand."""
    pixels = np.asarray(ShardDataset(shards, "val")[3][0])
    Image.fromarray(pixels).resize((300, 280)).save(tmp_path / "asked.png")
    code, out, err = call("search", indexed, tmp_path / "asked.png", "--count", 60, "--out", tmp_path)
    assert code == 0, err
    (rows,) = found_in(out).values()
    query = features.of_pictures(vectors_run(indexed).trained, [stored_picture(tmp_path / "asked.png", shards)])[0]
    far = np.linalg.norm(np.load(indexed / "index" / "vectors.npy").astype(float) - query, axis=1)
    paths = paths_of(shards, "train")
    assert [path for *_, path in rows] == [paths[k] for k in np.argsort(far, kind="stable")]
    np.testing.assert_allclose([float(row[0]) for row in rows], np.sort(far), atol=0.0051)


def test_photos_that_are_none(indexed, call, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    for photo, code, said in [
        (tmp_path / "none.jpg", 2, "none.jpg: no such file"),
        (tmp_path, 2, f"{tmp_path}: a folder"),
        (tmp_path / "text.jpg", 1, "text.jpg: not a photo in a known format"),
    ]:
        ended, _, err = call("search", indexed, photo, "--out", tmp_path / "figures")
        assert ended == code and said in err and "try: " in err
    assert not (tmp_path / "figures").exists()


def test_no_index_and_no_codes(trained_run, indexed, photos, shards, call, tmp_path):
    photo = photos / paths_of(shards, "train")[0]
    for arguments in (["search", trained_run, photo], ["neighbours", trained_run], ["codes", trained_run]):
        code, _, err = call(*arguments)
        assert code == 2 and "no index there" in err and f"make it with: alexnet-figures index {trained_run}\n" in err
    copy = shutil.copytree(indexed / "index", tmp_path / "index")
    (copy / "codes.json").unlink()
    code, _, err = call("search", indexed, photo, "--codes", "--index", copy)
    assert code == 2 and "no codes there" in err
    assert f"make them with: alexnet-figures codes {indexed} --index {copy}\n" in err


def refused(call, run, photo, *options):
    code, _, err = call("search", run, photo, *options)
    assert code == 1 and "alexnet-figures" in err
    return err


def test_an_index_of_another_checkpoint(indexed, photos, shards, call, tmp_path):
    run = shutil.copytree(indexed, tmp_path / "run")
    photo = photos / paths_of(shards, "train")[0]
    saved = torch.load(run / "last.pt", weights_only=True)
    saved["model"]["conv3.bias"][5] += 1e-3
    torch.save(saved, run / "last.pt")
    said = refused(call, run, photo)
    assert f"{run}/index: not an index of {run}/last.pt" in said
    assert f"make it again: alexnet-figures index {run}\n" in said
    assert call("neighbours", run)[0] == 1 and call("codes", run)[0] == 1
    code, out, _ = call("index", run)
    assert code == 0 and "up to date" not in out
    err = refused(call, run, photo, "--codes")
    assert "codes of another index" in err and f"make them again: alexnet-figures codes {run}\n" in err


def test_an_index_of_another_set(indexed, photos, shards, call, tmp_path):
    photo = photos / paths_of(shards, "train")[0]
    other = shutil.copytree(shards.root, tmp_path / "shards")
    manifest = json.loads((other / "dataset.json").read_text())
    manifest["splits"]["train"]["shards"][1]["sha256"] = "0" * 64
    (other / "dataset.json").write_text(json.dumps(manifest))
    err = refused(call, indexed, photo, "--shards", other)
    assert f"{indexed}/index: not an index of {other} (it was made of {shards.root})" in err
    assert f"make it again: alexnet-figures index {indexed} --shards {other}\n" in err


@pytest.mark.parametrize("name", ["vectors.npy", "index.json", "codes.npy", "encoder.pt", "codes.json"])
@pytest.mark.parametrize("damage", ["torn", "empty", "gone"])
def test_damaged_files(indexed, photos, shards, call, tmp_path, name, damage):
    photo = photos / paths_of(shards, "train")[0]
    index = shutil.copytree(indexed / "index", tmp_path / "index")
    data = (index / name).read_bytes()
    (index / name).unlink()
    if damage != "gone":
        (index / name).write_bytes(data[: len(data) - 9] if damage == "torn" else b"")
    code, _, err = call("search", indexed, photo, "--codes", "--index", index, "--out", tmp_path)
    # Without the file that is written last there is nothing: not a damaged one.
    assert code == (2 if damage == "gone" and name.endswith("json") else 1)
    assert f"{index}" in err and re.search("try: make (it|them)( again| with): alexnet-figures (index|codes) ", err)
    if name == "vectors.npy":
        code, out, _ = call("index", indexed, "--out", index)
        assert code == 0 and "up to date" not in out
        assert (index / name).read_bytes() == data


def test_codes_measures_and_searches(indexed, shards, call, tmp_path):
    run = shutil.copytree(indexed, tmp_path / "run")
    code, out, err = call("codes", run, "--bits", 16, "--epochs", 2)
    assert code == 0, err
    first, recall, times = out.splitlines()
    assert first == f"{run}/index/codes.npy: 60 codes of 16 bits, 2 bytes a photo in place of 256"
    about = json.loads((run / "index" / "codes.json").read_text())
    assert about["queries"] == 20 and about["bits"] == 16 and about["bytes_a_photo"] == 2
    # A hundred of sixty are all: nothing is lost. Ten of sixty at random would be a sixth.
    assert about["recall_reordered"] == 1 and 0.25 < about["recall_at_10"] <= 1
    assert f"codes alone {100 * about['recall_at_10']:.1f}%" in recall and f"{about['codes_ms']:.3f} ms" in times
    saved = (run / "index" / "codes.npy").read_bytes()
    assert np.load(run / "index" / "codes.npy").shape == (60, 2)
    assert call("codes", run, "--bits", 16, "--epochs", 2)[0] == 0
    assert (run / "index" / "codes.npy").read_bytes() == saved, "one seed, one code"
    code, _, err = call("codes", run, "--bits", 100)
    assert code == 2 and "--bits 100: codes have a multiple of 8 bits, up to the vectors' 64 numbers" in err


def test_recall_and_ratio_by_hand():
    random = np.random.default_rng(0)
    base, queries = (random.standard_normal((n, 16), dtype=np.float32) for n in (300, 12))
    encoder, _ = codes_module.train(base, 8, epochs=0)
    ticks = iter(range(10_000))
    one = codes_module.measure(
        base, codes_module.StoredCodes(encoder.encode(base), encoder), queries, lambda: next(ticks)
    )
    exact = np.argsort(((queries[:, None] - base) ** 2).sum(axis=2), axis=1)[:, :10].tolist()
    bits = np.unpackbits(encoder.encode(base), axis=1), np.unpackbits(encoder.encode(queries), axis=1)
    near = np.argsort((bits[1][:, None] != bits[0]).sum(axis=2), axis=1, kind="stable").tolist()
    for said, among in ((one.recall_at_10, 10), (one.recall_reordered, 100)):
        kept = [len({*a} & {*b[:among]}) / 10 for a, b in zip(exact, near, strict=True)]
        assert said == pytest.approx(np.mean(kept))
    assert 0 < one.recall_at_10 < one.recall_reordered < 1
    assert (one.times_faster, one.exact_ms, one.bytes_a_photo, one.bytes_a_vector) == (1, 100, 1, 64)


def test_neighbours(indexed, shards, call, tmp_path):
    code, out, err = call("neighbours", indexed, "--count", 3, "--out", tmp_path / "figures")
    assert code == 0, err
    assert re.search(r"\d+ of 18 neighbours are of the photo's own class\n$", out)
    png, svg = tmp_path / "figures" / "neighbours.png", tmp_path / "figures" / "neighbours.svg"
    assert Image.open(png).width > 1000 and svg.read_text().count("<image") == 21
    first = png.read_bytes()
    assert call("neighbours", indexed, "--count", 3, "--out", tmp_path / "figures")[0] == 0
    assert png.read_bytes() == first, "two drawings of one run are one file"
    assert call("neighbours", indexed, "--count", 3, "--seed", 1, "--out", tmp_path / "figures")[0] == 0
    assert png.read_bytes() != first
    for records, said in (("3,x", "--records 3,x: not numbers"), ("20", "--records 20: val has 20 photos")):
        code, _, err = call("neighbours", indexed, "--records", records)
        assert code == 2 and said in err


def test_rows_of_the_figure(indexed, shards):
    opened = vectors_run(indexed)
    index = vectors.open_index(opened)
    records = np.array([5, 2])
    (batch,) = features.of_split(opened.trained, shards, "val")
    data, train = ShardDataset(shards, "val"), ShardDataset(shards, "train")
    for record, row in zip(records, neighbours.rows_of_split(opened, index, "val", records), strict=True):
        assert row.query.name == shards.classes[data.targets[record]] and row.query.distance == ""
        np.testing.assert_array_equal(row.query.pixels, np.asarray(data[record][0]))
        far = np.linalg.norm(index.vectors.astype(float) - batch.vectors[record], axis=1)
        nearest = np.argsort(far, kind="stable")[:6]
        assert [float(one.distance) for one in row.found] == pytest.approx(far[nearest], abs=0.006)
        for one, place in zip(row.found, nearest, strict=True):
            np.testing.assert_array_equal(one.pixels, np.asarray(train[place][0]))
            assert one.name == shards.classes[train.targets[place]]
            assert one.same == (train.targets[place] == data.targets[record])
    # Of a training photo the six others.
    (row,) = neighbours.rows_of_split(opened, index, "train", np.array([7]))
    assert len(row.found) == 6 and all(float(one.distance) > 0.05 for one in row.found)


def test_drawn_photos_are_of_all_classes(indexed, shards):
    opened = vectors_run(indexed)
    targets = ShardDataset(shards, "val").targets
    drawn = [neighbours.draw_records(opened, "val", count, 0).tolist() for count in (4, 6, 100)]
    assert {targets[record] for record in drawn[0]} == {0, 1, 2, 3}
    assert drawn[1][:4] == drawn[0] and len(set(drawn[1])) == 6 and sorted(drawn[2]) == list(range(20))


@pytest.mark.parametrize("chosen", [look.LIGHT, look.DARK])
def test_colours_say_whose_class_it_is(chosen):
    grey = np.full((40, 60, 3), 128, np.uint8)
    some = neighbours.Shown
    row = neighbours.Neighbours(
        some(grey, "gas pump"),
        [some(grey, "gas pump", "1.00", True), some(grey, "a very long name of a class", "2", False)],
    )
    figure = neighbours.draw_neighbours([row], chosen)
    colours = {text.get_text(): text.get_color() for text in figure.texts}
    assert colours["gas pump"] == chosen.ink and colours["1.00"] == chosen.faint
    assert colours["a very long nam…"] == chosen.right
    pictures = [axes.images[0].get_array() for axes in figure.axes]
    assert [picture.shape for picture in pictures] == [(40, 40, 3)] * 3, "the central square"
