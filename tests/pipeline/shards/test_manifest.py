"""dataset.json: what it says is checked, and whatever is wrong with it ends in one message that says what to do."""

import copy
import dataclasses
import hashlib
import json
import shutil

import pytest
from alexnet_dali.pipeline.errors import AlexnetError, ShardError, UsageError
from alexnet_dali.pipeline.shards.lmdb_shard import ShardFile, sha256_of
from alexnet_dali.pipeline.shards.manifest import is_complete, open_shard_set
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture
def own(shards, tmp_path):
    """A copy of the shard set, to be changed."""
    return shutil.copytree(shards.root, tmp_path / "out")


def refusal(kind, root):
    with pytest.raises(kind) as caught:
        open_shard_set(root)
    assert type(caught.value) is kind
    return caught.value.message, caught.value.hint


def edit(root, change):
    """Change dataset.json by a function of what is in it."""
    manifest = json.loads((root / "dataset.json").read_text())
    change(manifest)
    (root / "dataset.json").write_text(json.dumps(manifest))


def test_what_is_in_the_set(shards):
    opened = open_shard_set(shards.root)
    assert opened == shards
    assert (opened.size, opened.fit, opened.encoding) == (256, "crop", "jpeg")
    assert opened.classes == ("checker", "crescent", "cross", "dots")
    assert {name: [file.records for _, file in split.shards] for name, split in opened.splits.items()} == {
        "train": [16, 16, 16, 12],
        "val": [16, 4],
    }
    assert opened.split("train").records == 60 and opened.has("val") and not opened.has("test")
    for folder, file in opened.split("val").shards:
        data = folder / "data.mdb"
        assert folder.parent == shards.root / "val"
        assert (data.stat().st_size, sha256_of(data)) == (file.bytes, file.sha256)
    assert opened.manifest == json.loads((shards.root / "dataset.json").read_text())


def test_the_fingerprint_is_that_of_the_hashes_in_order(shards):
    split = shards.split("train")
    hashes = [sha256_of(folder / "data.mdb") for folder, _ in split.shards]
    assert split.fingerprint() == hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    swapped = dataclasses.replace(split, shards=(split.shards[1], split.shards[0], *split.shards[2:]))
    assert swapped.fingerprint() != split.fingerprint()


def test_a_set_may_lie_anywhere(own, shards):
    moved = own.rename(own.parent / "elsewhere")
    assert open_shard_set(moved).split("train").fingerprint() == shards.split("train").fingerprint()
    assert open_shard_set(moved).split("train").shards[0][0] == moved / "train" / "00000.lmdb"


def test_a_split_that_is_not_there(own):
    shard_set = open_shard_set(own)
    with pytest.raises(ShardError) as caught:
        shard_set.split("test")
    assert caught.value.message == f"{own}: no records in a split 'test'; available: train (60), val (20)"
    assert caught.value.hint == "build the shards from a folder that has photos for it"
    edit(own, lambda manifest: manifest["splits"].update(val={"records": 0, "shards": []}))
    shard_set = open_shard_set(own)
    assert not shard_set.has("val")
    with pytest.raises(ShardError, match=r"no records in a split 'val'; available: train \(60\), val \(0\)"):
        shard_set.split("val")


def test_no_set_there(tmp_path):
    for root in (tmp_path, tmp_path / "missing"):
        assert refusal(UsageError, root) == (
            f"{root}: no shard set there (no dataset.json)",
            f"build one: alexnet-prep build-lmdb PHOTOS --out {root}",
        )


def test_an_unfinished_build(tmp_path):
    (tmp_path / ".build").mkdir()
    assert refusal(ShardError, tmp_path) == (
        f"{tmp_path}: the build is not finished",
        "run the same alexnet-prep build-lmdb command again to resume it",
    )


@pytest.mark.parametrize("damage", ["missing", "shorter", "longer", "swapped"])
def test_a_shard_that_is_not_what_was_built(own, damage):
    folder = own / "train" / "00001.lmdb"
    data = folder / "data.mdb"
    size = data.stat().st_size
    if damage == "missing":
        shutil.rmtree(folder)
    elif damage == "swapped":  # the last shard is a shorter one
        shutil.copy(own / "train" / "00003.lmdb" / "data.mdb", data)
    else:
        with open(data, "r+b") as file:
            file.truncate(size + (-1 if damage == "shorter" else 1))
    assert refusal(ShardError, own) == (
        f"{folder}: missing, or its size is not {size:,} bytes as in dataset.json",
        "copy the set again, or run its alexnet-prep build-lmdb command again",
    )
    assert not is_complete(folder, ShardFile(16, size, ""))


def test_a_newer_version_is_named(own):
    edit(own, lambda manifest: manifest.update(version=2, splits="of another form"))
    assert refusal(ShardError, own) == (
        f"{own}/dataset.json: version 2, this program reads version 1",
        "update alexnet-dali, or build the set again",
    )


@pytest.mark.parametrize(
    "path",
    [
        *("/etc", "../other/00000.lmdb", "train/../../x.lmdb", "..", "", ".", "train", "train/", "train/x.lmdb"),
        *(
            "train/\0.lmdb",
            "train/\ud800.lmdb",
            "x" * 5000,
            "val/00000.lmdb",
            "train/00000.lmdb/",
            "train/00000.lmdb\n",
        ),
    ],
)
def test_a_shard_path_that_is_no_shard_of_its_split_is_refused(own, path):
    """The commands that copy, mend and export write and remove what it names."""
    edit(own, lambda manifest: manifest["splits"]["train"]["shards"][0].update(path=path))
    message, hint = refusal(ShardError, own)
    assert message == (
        f"{own}/dataset.json: not a valid manifest: ValueError a shard at {path!r}, which is not train/NUMBER.lmdb"
    )
    assert hint == "copy dataset.json again, or build the set again"


@pytest.mark.parametrize("name", ["../../evil", "", ".", "Train", "train/x", "evil"])
def test_a_split_of_another_name_is_refused(own, name):
    edit(own, lambda manifest: manifest["splits"].update({name: manifest["splits"].pop("train")}))
    assert refusal(ShardError, own)[0].endswith(f"not a valid manifest: ValueError a split {name!r}")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "JSONDecodeError Expecting value"),
        (b'{"format": ', "JSONDecodeError Expecting value"),
        (b"\xff\xfe{", "UnicodeDecodeError"),
        (b"[1, 2]", "TypeError"),
        (b"{}", "KeyError 'format'"),
        (b'{"format": "tar"}', "ValueError format 'tar'"),
        (b"[" * 100_000, "RecursionError"),
    ],
)
def test_damaged_json(own, text, what):
    (own / "dataset.json").write_bytes(text)
    message, hint = refusal(ShardError, own)
    assert message.startswith(f"{own}/dataset.json: not a valid manifest: {what}")
    assert hint == "copy dataset.json again, or build the set again"


def test_sums_that_do_not_add_up(own):
    edit(own, lambda manifest: manifest["splits"]["train"].update(records=61))
    assert "ValueError train has 60 records in its shards, 61 in all" in refusal(ShardError, own)[0]


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("size", 0, "size 0"),
        ("size", -256, "size -256"),
        ("fit", "stretch", "fit 'stretch'"),
        ("encoding", "webp", "encoding 'webp'"),
        ("classes", [], "0 classes"),
    ],
)
def test_values_that_no_build_writes(own, key, value, text):
    edit(own, lambda manifest: manifest.update({key: value}))
    message = refusal(ShardError, own)[0]
    assert message.startswith(f"{own}/dataset.json: not a valid manifest: ValueError ") and text in message


def test_a_size_beyond_all_numbers(own):
    edit(own, lambda manifest: manifest.update(size=float("inf")))
    assert "not a valid manifest: OverflowError" in refusal(ShardError, own)[0]


def test_a_shard_of_less_than_no_records(own):
    def change(manifest):
        train = manifest["splits"]["train"]
        train["shards"][0]["records"] = -1
        train["records"] -= 17

    edit(own, change)
    assert "train has a shard with a negative number of records" in refusal(ShardError, own)[0]


def places(value, above=()):
    """The way to every value in a JSON document."""
    yield above
    if isinstance(value, (dict, list)):
        for name in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[name], (*above, name))


JSON_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 70), 1 << 70), st.floats(), st.text(max_size=5), st.just("\ud800"),
    st.just([]), st.just({}), st.just({"a": 1}), st.just([[]]), st.just(["x"]),
)  # fmt: skip


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_value_is_wrong_there_is_a_message(shards, tmp_path, data):
    manifest = copy.deepcopy(shards.manifest)
    for split in manifest["splits"].values():
        del split["shards"][1:]
        split["records"] = 16
    place = data.draw(st.sampled_from([place for place in places(manifest) if place]))
    within = manifest
    for name in place[:-1]:
        within = within[name]
    within[place[-1]] = data.draw(JSON_VALUES)
    for name in ("train", "val"):
        if not (tmp_path / name).exists():
            (tmp_path / name).symlink_to(shards.root / name)
    (tmp_path / "dataset.json").write_text(json.dumps(manifest))
    try:
        opened = open_shard_set(tmp_path)
    except AlexnetError as error:
        assert str(tmp_path) in error.message and error.hint
    else:
        assert opened.size > 0 and opened.fit in ("crop", "short-side") and opened.encoding in ("jpeg", "raw")
        assert all(file.records >= 0 for split in opened.splits.values() for _, file in split.shards)
