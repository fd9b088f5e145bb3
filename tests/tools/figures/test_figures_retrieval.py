"""alexnet-figures index, search, codes and neighbours, from the command to the file."""

import json
import re
import shutil

import numpy as np
import pytest
import tiny
import torch
from alexnet_dali.model.analysis import features
from alexnet_dali.model.analysis.nearest import nearest
from alexnet_dali.model.weights.trained import load_trained
from alexnet_dali.pipeline.errors import UsageError
from alexnet_dali.pipeline.shards.records_csv import read_listing
from alexnet_dali.pipeline.stream.dataset import ShardDataset
from alexnet_dali.tools.figures import style
from alexnet_dali.tools.figures.cli import figures
from alexnet_dali.tools.figures.open_run import open_run
from alexnet_dali.tools.figures.retrieval import codes as codes_module
from alexnet_dali.tools.figures.retrieval import neighbours, vectors
from alexnet_dali.tools.figures.retrieval.records import stored_picture
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
    opened = opened_run(run)
    assert vectors.write_index(opened, run / "index")
    index = vectors.open_index(opened)
    encoder, _ = codes_module.train(index.vectors, 32, epochs=1)
    stored = codes_module.StoredCodes(encoder.encode(index.vectors), encoder)
    codes_module.write_codes(index, stored, {})
    return run


def opened_run(run):
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
    trained = load_trained(run / "last.pt")
    expected = np.concatenate([batch.vectors for batch in features.of_split(trained, shards, "train")])
    # Not bit for bit: the index has a stream for each shard, so its batches have other sizes than those of the whole
    # split, for which the matrix products may use other kernels (AMX, AVX) that add in another order. The rounding of
    # float32 sums of at most 9,216 products is far below 1e-5 of the largest number.
    np.testing.assert_allclose(saved, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    about = json.loads((run / "index" / "index.json").read_text())
    assert about["split_fingerprint"] == shards.split("train").fingerprint() and about["mean"] == trained.recipe.mean
    assert sorted(path.name for path in (run / "index").iterdir()) == ["index.json", "vectors.npy"]
    before = file.stat()
    code, out, _ = call("index", run)
    assert code == 0 and out == f"{file}: 60 vectors of 64 numbers, 15.5 kB; up to date, nothing to do\n"
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    code, out, _ = call("index", run, "--out", tmp_path / "else")
    # Bit for bit: the same photos in the same batches, in the same process with the same threads.
    assert code == 0 and np.array_equal(np.load(tmp_path / "else" / "vectors.npy"), saved)


def test_an_interrupted_index_goes_on_to_the_same_vectors(trained_run, call, tmp_path, monkeypatch):
    """The third of four shards is cut short behind its first batch: two are kept."""
    whole, cut = (shutil.copytree(trained_run, tmp_path / name) for name in ("whole", "cut"))
    assert call("index", whole)[0] == 0
    real, looked = features.of_split, []

    def of_split(trained, shard_set, *rest, **options):
        looked.append(shard_set.split("train").shards[0][0].name)
        for batch in real(trained, shard_set, *rest, **options):
            yield batch
            if looked[-1] == "00002.lmdb" and len(looked) == 3:
                raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "of_split", of_split)
    assert call("index", cut)[0] == 1 and not (cut / "index" / "index.json").exists()
    code, _, err = call("index", cut)
    assert code == 0 and looked[3:] == ["00002.lmdb", "00003.lmdb"], err
    # Byte for byte: a shard's batches are the same whether or not the shards before it were read in this call.
    assert (cut / "index" / "vectors.npy").read_bytes() == (whole / "index" / "vectors.npy").read_bytes()
    assert sorted(path.name for path in (cut / "index").iterdir()) == ["index.json", "vectors.npy"]


@pytest.mark.parametrize(
    "damage",
    ["other weights", *(pytest.param(damage, marks=pytest.mark.slow) for damage in ("torn file", "torn json"))],
)
def test_an_interrupted_index_of_another_net_or_damaged_begins_anew(trained_run, call, tmp_path, monkeypatch, damage):
    run = shutil.copytree(trained_run, tmp_path / "run")
    assert call("index", run)[0] == 0
    index = run / "index"
    vectors_, about = index / "vectors.npy", json.loads((index / "index.json").read_text())
    data = vectors_.read_bytes()
    of = {name: about[name] for name in (*vectors.IDENTITY, "versions")} | {"device": "cpu"}
    progress = {"of": of, "shards": 3, "bytes": len(data) - 12 * 256}
    vectors_.unlink()
    begun = bytearray(data)
    begun[2000] ^= 1  # tells whether it was kept
    for name, text, kept in (
        ("none", json.dumps(progress), True),
        ("other weights", json.dumps(progress | {"of": of | {"weights_sha256": "0"}}), False),
        ("torn file", json.dumps(progress | {"bytes": len(data) + 1}), False),
        ("torn json", json.dumps(progress)[:-9], False),
    ):
        if name in ("none", damage):
            (index / "index.json").unlink(missing_ok=True)
            (index / "begun.npy").write_bytes(begun)
            (index / "begun.json").write_text(text)
            assert call("index", run)[0] == 0
            # Byte for byte: the same batches of each shard, in the same process.
            assert vectors_.read_bytes() == (bytes(begun) if kept else data), name


def test_what_was_begun_with_other_weights_is_forgotten(trained_run, call, tmp_path, monkeypatch):
    """Else, back at the other weights, it would go on with a file that is now of these."""
    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / "index").mkdir()
    (run / "index" / "begun.npy").write_bytes(bytes(9000))
    (run / "index" / "begun.json").write_text(json.dumps({"of": {}, "shards": 1, "bytes": 4000}))

    def interrupted(*_, **__):
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(features, "of_split", interrupted)
    assert call("index", run)[0] == 1
    assert not (run / "index" / "begun.json").exists()


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
    exactly = found
    code, out, err = call("search", indexed, *asked, "--codes", "--count", 8, "--out", tmp_path / "figures")
    assert code == 0 and out.startswith("by codes of 32 bits, the best 60 reranked by their vectors\n"), err
    assert found_in(out) == exactly, "a hundred of sixty are all"
    code, out, err = call("search", indexed, *asked, "--no-rerank", "--dark", "--out", tmp_path / "figures")
    assert style.DARK.paper in (tmp_path / "figures" / "search-dark.svg").read_text()
    assert code == 0 and out.startswith("by codes of 32 bits, without reranking\n"), err
    old = call("search", indexed, *asked, "--bits-alone", "--dark", "--out", tmp_path / "figures")
    assert old == (code, out, err), "the option's name until 0.1"
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
    query = features.of_pictures(opened_run(indexed).trained, [stored_picture(tmp_path / "asked.png", shards)])[0]
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
        assert code == 2 and "no index found" in err and f"create it with: alexnet-figures index {trained_run}\n" in err
    copy = shutil.copytree(indexed / "index", tmp_path / "index")
    (copy / "codes.json").unlink()
    code, _, err = call("search", indexed, photo, "--codes", "--index", copy)
    assert code == 2 and "no codes found" in err
    assert f"create them with: alexnet-figures codes {indexed} --index {copy}\n" in err


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
    assert f"{run}/index: the index was built from {indexed}/last.pt, not from {run}/last.pt" in said
    assert f"rebuild it with: alexnet-figures index {run}\n" in said
    assert call("neighbours", run)[0] == 1 and call("codes", run)[0] == 1
    code, out, _ = call("index", run)
    assert code == 0 and "up to date" not in out
    err = refused(call, run, photo, "--codes")
    assert "codes of another index" in err and f"rebuild them with: alexnet-figures codes {run}\n" in err


def test_an_index_of_another_set(indexed, photos, shards, call, tmp_path):
    photo = photos / paths_of(shards, "train")[0]
    other = shutil.copytree(shards.root, tmp_path / "shards")
    manifest = json.loads((other / "dataset.json").read_text())
    manifest["splits"]["train"]["shards"][1]["sha256"] = "0" * 64
    (other / "dataset.json").write_text(json.dumps(manifest))
    err = refused(call, indexed, photo, "--shards", other)
    assert f"{indexed}/index: the index was built from {shards.root}, not from {other}" in err
    assert f"rebuild it with: alexnet-figures index {indexed} --shards {other}\n" in err


@pytest.mark.parametrize("name", ["vectors.npy", "index.json", "codes.npy", "encoder.pt", "codes.json"])
@pytest.mark.parametrize(
    "damage", ["torn", *(pytest.param(damage, marks=pytest.mark.slow) for damage in ("empty", "gone"))]
)
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
    assert f"{index}" in err and re.search("try: (create|rebuild) (it|them) with: alexnet-figures (index|codes) ", err)
    if name == "vectors.npy":
        code, out, _ = call("index", indexed, "--out", index)
        assert code == 0 and "up to date" not in out
        assert (index / name).read_bytes() == data, "the same batches in the same process: the same bytes"


def test_codes_measures_and_searches(indexed, shards, call, tmp_path):
    run = shutil.copytree(indexed, tmp_path / "run")
    code, out, err = call("codes", run, "--bits", 16, "--epochs", 2)
    assert code == 0, err
    first, recall, times = out.splitlines()
    assert first == f"{run}/index/codes.npy: 60 codes of 16 bits, 2 bytes per photo instead of 256"
    about = json.loads((run / "index" / "codes.json").read_text())
    assert about["queries"] == 20 and about["bits"] == 16 and about["bytes_a_photo"] == 2
    # A hundred of sixty are all: nothing is lost. Ten of sixty at random would be a sixth.
    assert about["recall_reordered"] == 1 and 0.25 < about["recall_at_10"] <= 1
    assert f"codes only {100 * about['recall_at_10']:.1f}%" in recall and f"{about['codes_ms']:.3f} ms" in times
    saved = (run / "index" / "codes.npy").read_bytes()
    assert np.load(run / "index" / "codes.npy").shape == (60, 2)
    assert call("codes", run, "--bits", 16, "--epochs", 2)[0] == 0
    assert (run / "index" / "codes.npy").read_bytes() == saved, "one seed, one code"
    code, _, err = call("codes", run, "--bits", 100)
    assert code == 2 and "--bits 100 is not a multiple of 8 from 8 to 64, the vectors' dimensions" in err


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
    assert (one.exact_ms, one.codes_ms, one.times_faster) == (1000, 100, 10), "one query, and ten"
    assert (one.bytes_a_photo, one.bytes_a_vector) == (1, 64)


def test_the_best_codes_are_put_in_order_by_vectors(indexed, monkeypatch):
    """Of the photos of the ten fewest different bits, those at the least distance, by hand."""
    monkeypatch.setattr(codes_module, "REORDERED", 10)
    index = vectors.open_index(opened_run(indexed))
    stored = codes_module.open_codes(opened_run(indexed), index)
    query = np.asarray(index.vectors[7]) + np.random.default_rng(0).normal(0, 1, 64).astype(np.float32)
    found, distances, most = codes_module.rerank(index, stored, query[None], 4)
    apart = np.unpackbits(stored.codes ^ stored.encoder.encode(query[None]), axis=1).sum(axis=1)
    best = np.argsort(apart, kind="stable")[:10]
    far = np.linalg.norm(index.vectors[best].astype(float) - query, axis=1)
    assert most == 10 and found[0].tolist() == best[np.argsort(far, kind="stable")[:4]].tolist()
    assert distances[0] == pytest.approx(np.sort(far)[:4]) and found[0].tolist() != best[:4].tolist()
    assert codes_module.rerank(index, stored, query[None], 20)[2] == 20, "ten times as many are wanted"


def test_codes_are_written_before_they_are_measured(indexed, call, tmp_path, monkeypatch):
    run = shutil.copytree(indexed, tmp_path / "run")

    def stopped(*_):
        raise UsageError("stopped")

    monkeypatch.setattr(codes_module, "measure", stopped)
    assert call("codes", run, "--bits", 16, "--epochs", 1)[0] == 2
    opened = opened_run(run)
    assert codes_module.open_codes(opened, vectors.open_index(opened)).codes.shape == (60, 2)
    about = json.loads((run / "index" / "codes.json").read_text())
    assert about["bits"] == 16 and "recall_at_10" not in about
    monkeypatch.setattr(codes_module, "train", stopped)
    code, _, err = call("codes", run, "--split", "test")
    assert code == 1 and "no records in a split 'test'" in err, "said before anything is trained"


def test_what_was_measured_is_of_the_codes_that_lie_there(indexed, tmp_path):
    opened = opened_run(shutil.copytree(indexed, tmp_path / "run"))
    index = vectors.open_index(opened)
    stored = codes_module.open_codes(opened, index)
    old = codes_module.write_codes(index, stored, {"bits": 32})
    new = codes_module.write_codes(index, stored, {"bits": 32, "seed": 1})  # by another process, meanwhile
    measured = codes_module.Measured(20, 0.5, 0.9, 1.0, 0.1, 0.2, 10.0, 5.0, 4, 256)
    codes_module.add_measured(index, old, measured)
    assert json.loads((index.folder / "codes.json").read_text()) == new
    codes_module.add_measured(index, new, measured)
    assert json.loads((index.folder / "codes.json").read_text()) == {**new, **vars(measured)}


def test_exact_searches_of_a_measurement_are_few(monkeypatch):
    reads = []
    monkeypatch.setattr(codes_module, "nearest", lambda base, *rest: reads.append(1) or nearest(base, *rest))
    random = np.random.default_rng(0)
    base = random.standard_normal((200, 16), dtype=np.float32)
    encoder, _ = codes_module.train(base, 8, epochs=0)
    codes_module.measure(base, codes_module.StoredCodes(encoder.encode(base), encoder), base[:50])
    assert len(reads) == 4, "each reads the whole index"


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("weights_sha256", "0" * 64, "weights"),
        ("split_fingerprint", "0" * 64, "photos"),
        ("stats_fingerprint", "0" * 64, "statistics"),
        ("crop", 200, "crop"),
        ("mean", "rgb", "mean"),
    ],
)
def test_codes_of_another_index_are_refused_by_name(indexed, photos, shards, call, tmp_path, name, value, said):
    run = shutil.copytree(indexed, tmp_path / "run")
    about = json.loads((run / "index" / "codes.json").read_text())
    about["index"] |= {name: value, "checkpoint": "/else/best.pt"}
    (run / "index" / "codes.json").write_text(json.dumps(about))
    err = refused(call, run, photos / paths_of(shards, "train")[0], "--codes")
    assert (
        f"codes of another index, with other {said} (the codes were built from /else/best.pt and {shards.root})" in err
    )


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
    code, out, _ = call("neighbours", indexed, "--count", 3, "--dark", "--out", tmp_path / "figures")
    assert code == 0 and out.startswith(f"{tmp_path}/figures/neighbours-dark.png\n")
    assert style.DARK.paper in (tmp_path / "figures" / "neighbours-dark.svg").read_text()
    for records, said in (("3,x", "--records 3,x: not numbers"), ("20", "--records 20: val has 20 photos")):
        code, _, err = call("neighbours", indexed, "--records", records)
        assert code == 2 and said in err


def test_rows_of_the_figure(indexed, shards):
    opened = opened_run(indexed)
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
    opened = opened_run(indexed)
    targets = ShardDataset(shards, "val").targets
    drawn = [neighbours.draw_records(opened, "val", count, 0).tolist() for count in (4, 6, 100)]
    assert {targets[record] for record in drawn[0]} == {0, 1, 2, 3}
    assert drawn[1][:4] == drawn[0] and len(set(drawn[1])) == 6 and sorted(drawn[2]) == list(range(20))


@pytest.mark.parametrize("chosen", [style.LIGHT, style.DARK])
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
