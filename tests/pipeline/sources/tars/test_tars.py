"""Tars read by class: every layout of them, with the class in each photo's bytes; what is refused, and what is said."""

import gzip
import io
import tarfile
import tracemalloc

import forms
import pytest
from alexnet_dali.pipeline.errors import AlexnetError, SourceError, UsageError
from alexnet_dali.pipeline.shards.datum import NO_LABEL
from alexnet_dali.pipeline.sources.entries import Request
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.sources.inventory import take_inventory
from alexnet_dali.pipeline.sources.tars import tars
from alexnet_dali.pipeline.sources.tars.passed_over import LINKS
from conftest import build_set
from ilsvrc import tar_bytes

WNIDS = ("n01440764", "n01443537", "n02099601")


def photo(name, k=0):
    """A photo by its first bytes that says its class, and its number."""
    return b"\xff\xd8\xff" + f"{name}:{k}".encode()


def some(name, count=3, form="{name}_{k}.JPEG"):
    """Photos of a class, as members of a tar."""
    return [(form.format(name=name, k=k), photo(name, k)) for k in range(count)]


def put(path, members, end=""):
    """Write a tar, gzipped if it is called so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = members if isinstance(members, bytes) else tar_bytes(members)
    path.write_bytes(gzip.compress(data) if path.suffix in (".gz", ".tgz") else data)
    return path


def labels(source):
    """Photos by split as (class by label, class by bytes), which must be equal, and the number of photos by class."""
    found = {}
    for split, name, _, data in forms.shown(source):
        said = data.partition(b"\xff\xd8\xff")[2].decode().partition(":")[0]
        assert said == name, (split, name, said)
        found.setdefault(split, {}).setdefault(name, []).append(data)
    return {split: {name: len({*some}) for name, some in sorted(names.items())} for split, names in found.items()}


def refused(path, **options):
    with pytest.raises(AlexnetError) as caught:
        find_photos(path, **options)
    assert caught.value.__cause__ is None
    return caught.value


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz"])
def test_class_folders_in_a_tar(tmp_path, ending):
    members = [(f"photos/{name}/{k}.jpg", photo(name, k)) for k in range(3) for name in ("dog", "cat")]
    path = put(tmp_path / f"a/photos{ending}", [("photos/README", b"?"), *members])
    for source in (path, path.parent):
        found = find_photos(source, split="train")
        assert found.kind == "tars by class, all train" and found.classes == ("cat", "dog")
        assert labels(found) == {"train": {"cat": 3, "dog": 3}}
        assert found.account.members == 1 and found.account.left_out == () and found.notes == ()


@pytest.mark.parametrize("wrapped", ["", "set/", "./set/data/"])
def test_split_folders_in_a_tar_as_in_the_same_folders(tmp_path, wrapped):
    tree = tmp_path / "tree"
    members = []
    for split, count in (("train", 4), ("valid", 2), ("Test", 1)):
        for name in ("cat", "dog", "eel"):
            for k in range(count):
                member = f"{wrapped}{split}/{name}/{split}_{k}.jpg"
                members.append((member, photo(name, k)))
                (tree / member).parent.mkdir(parents=True, exist_ok=True)
                (tree / member).write_bytes(photo(name, k))
    folders, packed = find_photos(tree), find_photos(put(tmp_path / "a/set.tar", members))
    assert labels(packed) == {
        split: dict.fromkeys(("cat", "dog", "eel"), n) for split, n in (("train", 4), ("val", 2), ("test", 1))
    }
    assert forms.shown(packed) == forms.shown(folders) and packed.classes == folders.classes
    assert packed.kind == folders.kind.replace("class folders", "tars by class")


def test_the_rules_of_class_folders_hold_in_tars(tmp_path):
    deep = [
        (f"{name[0]}/{name}/{k}.jpg", photo(f"{name[0]}/{name}", k))
        for name in ("abbey", "bar", "barn")
        for k in range(2)
    ]
    found = find_photos(put(tmp_path / "sun/SUN397.tar.gz", deep), split="train")
    assert found.classes == ("a/abbey", "b/bar", "b/barn") and labels(found)["train"]["b/barn"] == 2
    images = [(f"{name}/images/{k}.jpg", photo(name, k)) for name in ("cat", "dog") for k in range(2)]
    assert labels(find_photos(put(tmp_path / "i/x.tar", images), split="train")) == {"train": {"cat": 2, "dog": 2}}
    asked = [(f"{name}/{part}/1.jpg", b"") for name in ("cat", "dog") for part in ("old", "new")]
    error = refused(put(tmp_path / "q/x.tar", asked))
    assert "cat has no photos of its own, but 2 folders that have" in error.message and "x.tar" in error.message
    masks = [*images, *((f"{name}/masks/{k}.png", b"") for name in ("cat", "dog") for k in range(2))]
    found = find_photos(put(tmp_path / "m/x.tar", masks), split="train")
    assert labels(found) == {"train": {"cat": 2, "dog": 2}}
    assert forms.left_out(found) == [(f"x.tar/{name}/masks", 2, "masks beside photos") for name in ("cat", "dog")]


def test_classes_by_their_paths_are_called_without_the_tars_endings(tmp_path):
    for name in ("a/abbey", "b/bar", "b/barn"):
        put(tmp_path / f"{name}.tar", some(name, 2, "{k}.jpg"))
    for class_folders in ("auto", "leaf"):
        found = find_photos(tmp_path, split="train", class_folders=class_folders)
        assert found.classes == ("a/abbey", "b/bar", "b/barn") and labels(found)["train"]["b/bar"] == 2
    for split in ("train", "val"):
        put(tmp_path / f"asked/{split}/photos.tar", some("photos", 2, "{k}.jpg"))
    assert "Is photos a class, or is it part of a set" in refused(tmp_path / "asked").message


def test_photos_in_a_tar_that_fit_no_reading_are_an_error(tmp_path):
    members = [
        (f"{split}/{one}/{split}{k}.jpg", photo(one, k))
        for split in ("train", "val")
        for one in ("cat", "dog")
        for k in range(2)
    ]
    path = put(tmp_path / "x.tar", [*members, ("old/cat/1.jpg", photo("cat", 9))])
    error = refused(tmp_path)
    assert f"{path}/old/cat: 1 photo" in error.message and isinstance(error, UsageError)
    assert labels(find_photos(tmp_path, ignore=("old",)))["train"] == {"cat": 2, "dog": 2}


def test_a_folder_of_class_tars(tmp_path):
    for wnid in WNIDS:
        put(tmp_path / f"{wnid}.tar", some(wnid))
    (tmp_path / "words.txt").write_text("".join(f"{wnid}\twords of {wnid}\n" for wnid in WNIDS))
    found = find_photos(tmp_path, val_share=0.5)
    assert found.kind == "tars by class, flat" and found.classes == WNIDS
    assert found.words == {wnid: f"words of {wnid}" for wnid in WNIDS}
    assert [len(photos) for photos in found.splits.values()] == [4, 5]
    assert sum(n for names in labels(found).values() for n in names.values()) == 9


def test_class_tars_below_train_and_val(tmp_path):
    for split, count in (("train", 3), ("validation", 2)):
        for name in ("cat", "dog"):
            put(tmp_path / split / f"{name}.tar", some(name, count, "pictures/{k}.jpg"))
        put(tmp_path / split / "eel.tar.gz", some("eel", count))
    found = find_photos(tmp_path)
    assert found.classes == ("cat", "dog", "eel") and found.kind == "tars by class, train and val"
    assert labels(found) == {"train": dict.fromkeys(found.classes, 3), "val": dict.fromkeys(found.classes, 2)}


@pytest.mark.parametrize("name", ["fall11_whole.tar", "winter21_whole.tar.gz"])
@pytest.mark.parametrize("prefix", ["", "whole/"])
def test_a_tar_of_class_tars(tmp_path, name, prefix):
    inner = [(f"{prefix}{wnid}.tar", tar_bytes(some(wnid))) for wnid in WNIDS]
    path = put(tmp_path / name, [*inner, (f"{prefix}n9.tar", b""), (f"{prefix}n00007846.tar", tar_bytes([]))])
    (tmp_path / "words.txt").write_text(f"{WNIDS[0]}\ttench\n")
    for source in (tmp_path, path):
        found = find_photos(source, val_share=0.5)
        assert found.kind == "tars by class, flat" and found.classes == WNIDS and found.words == {WNIDS[0]: "tench"}
        assert sum(n for names in labels(found).values() for n in names.values()) == 9
        (note,) = found.notes
        assert f"{name}{'/whole' if prefix else ''}: no photos in n00007846, n9, beside class folders" in note


@pytest.mark.parametrize("name", ["whole.tar", "whole.tar.gz"])
def test_a_damaged_class_tar_is_an_error(tmp_path, name):
    good = tar_bytes(some(WNIDS[0]))
    for damaged, what in ((good[:520], "is truncated within n01440764_0.JPEG"), (b"<html>" * 100, "is not a tar")):
        path = put(tmp_path / name, [("n01440764.tar", good), ("n01443537.tar", damaged)])
        error = refused(tmp_path)
        assert isinstance(error, SourceError) and error.message.startswith(f"{path}: n01443537.tar: {what}")
    twice = [("n01440764.tar", good), ("n01440764.tar", good)]
    put(tmp_path / name, twice)
    assert "two tars n01440764.tar" in refused(tmp_path).message


def test_hugging_faces_flat_tars(tmp_path):
    for k in range(3):
        put(
            tmp_path / f"data/train_images_{k}.tar.gz",
            [(f"{wnid}_{j}_{wnid}.JPEG", photo(wnid, 10 * k + j)) for j in range(2) for wnid in WNIDS],
        )
    put(
        tmp_path / "data/val_images.tar.gz",
        [(f"ILSVRC2012_val_{j:08d}_{wnid}.JPEG", photo(wnid, j)) for j, wnid in enumerate(WNIDS)],
    )
    put(tmp_path / "data/test_images.tar.gz", [(f"ILSVRC2012_test_{k:08d}.JPEG", photo("", k)) for k in range(4)])
    found = find_photos(tmp_path)
    assert found.classes == WNIDS and found.kind == "tars by class, train and val"
    assert labels(found) == {"train": dict.fromkeys(WNIDS, 6), "val": dict.fromkeys(WNIDS, 1)}
    assert forms.left_out(found) == [("data/test_images.tar.gz", 4, "without labels (--split test builds them)")]
    test = find_photos(tmp_path, split="test")
    assert [photo.label for photo in test.splits["test"]] == [NO_LABEL] * 4 and test.classes == WNIDS
    both = [(f"{WNIDS[0]}_1_{WNIDS[1]}.JPEG", b"")]
    assert "is named after two wnids" in refused(put(tmp_path / "two/train_images.tar", both)).message


def test_splits_by_the_names_of_tars(tmp_path):
    for name, count in (("set_train.tar", 3), ("set-val.tgz", 1)):
        put(tmp_path / name, [(f"{one}/{k}.jpg", photo(one, k)) for one in ("cat", "dog") for k in range(count)])
    assert labels(find_photos(tmp_path)) == {"train": {"cat": 3, "dog": 3}, "val": {"cat": 1, "dog": 1}}


def test_numbered_tars_of_class_folders_are_parts(tmp_path):
    for k in range(3):
        put(tmp_path / f"part{k}.tar", [(f"set/{one}/{k}.jpg", photo(one, k)) for one in ("cat", "dog")[: k + 1]])
    found = find_photos(tmp_path, split="train")
    assert labels(found) == {"train": {"cat": 3, "dog": 2}}
    assert found.notes == ("part0.tar and 2 more: read as parts of one set (as classes: --class-folders top)",)
    top = find_photos(tmp_path, split="train", class_folders="top")
    assert top.classes == ("part0", "part1", "part2") and len(top.splits["train"]) == 5


@pytest.mark.parametrize("names", [["photos.tar"], ["0.tar", "1.tar"], ["shard-00.tar", "shard-01.tar.gz"]])
def test_tars_of_photos_that_may_be_classes_or_not_are_asked_about(tmp_path, names):
    for name in names:
        put(tmp_path / name, some(name.partition(".")[0], 2, "{k}.jpg"))
    error = refused(tmp_path)
    assert error.message.startswith(f"{tmp_path / names[0]}: 2 photos without a class folder. Is ")
    assert "--class-folders top" in error.hint and isinstance(error, UsageError)
    found = find_photos(tmp_path, split="train", class_folders="top")
    assert labels(found) == {"train": {name.partition(".")[0]: 2 for name in names}}


def test_a_photo_is_what_its_bytes_say(tmp_path):
    members = [
        ("cat/1", photo("cat", 1)),
        ("cat/2.img", photo("cat", 2)),
        ("dog/a.jpg?x=1", photo("dog", 1)),
        ("dog/notes", b"no photo"),
        ("dog/3.txt", photo("dog", 3)),
    ]
    found = find_photos(put(tmp_path / "x.tar.gz", members), split="train")
    assert labels(found) == {"train": {"cat": 2, "dog": 1}} and found.account.members == 2
    keyed = [("1.input", photo("0", 1)), ("1.cls", b"0"), ("2.input", photo("1", 2)), ("2.cls", b"1")]
    assert labels(find_photos(put(tmp_path / "w/x.tar", keyed), split="train")) == {"train": {"0": 1, "1": 1}}


def test_of_two_members_with_one_name_the_last_counts(tmp_path):
    twice = [("cat/1.jpg", photo("dog")), ("dog/1.jpg", photo("dog")), ("cat/1.jpg", photo("cat")), ("eel/1.jpg", b"")]
    found = find_photos(put(tmp_path / "x.tar", twice[:3]), split="train")
    assert labels(found) == {"train": {"cat": 1, "dog": 1}}
    assert found.account.used == {"": {"cat": 1, "dog": 1}}


@pytest.mark.parametrize(
    ("member", "why"),
    [
        ("cat/1.cls", "a label, as WebDataset has them beside photos"),
        ("meta/train.txt", "a list, which may say the photos' splits or labels"),
        ("val_annotations.csv", "a list, which may say the photos' splits or labels"),
        ("more.tar.gz", "an archive in a tar"),
        ("more.zip", "an archive in a tar"),
    ],
)
def test_nothing_that_speaks_of_the_photos_is_ignored_in_silence(tmp_path, member, why):
    members = [*((f"{one}/{k}.jpg", photo(one, k)) for one in ("cat", "dog") for k in range(2)), (member, b"x")]
    path = put(tmp_path / "x.tar", members)
    error = refused(tmp_path, layout="tars")
    name = member.rpartition("/")[2]
    assert error.message == f"{path}/{member}: {why}: it is not read" and f"--ignore '{name}'" in error.hint
    found = find_photos(tmp_path, layout="tars", split="train", ignore=(name,))
    assert labels(found) == {"train": {"cat": 2, "dog": 2}} and found.account.members == 1


def test_a_tar_in_a_tar_in_a_tar_is_refused(tmp_path):
    inner = tar_bytes([("n01443537.tar", tar_bytes(some(WNIDS[1]))), *some(WNIDS[0])])
    put(tmp_path / "x.tar", [("n01440764.tar", inner)])
    assert "x.tar/n01440764.tar/n01443537.tar: a tar in a tar in a tar: it is not read" in refused(tmp_path).message


def test_folders_of_systems_and_ignored_ones_in_tars_are_counted(tmp_path):
    members = [
        *((f"{one}/{k}.jpg", photo(one, k)) for one in ("cat", "dog", "eel") for k in range(2)),
        ("cat/@eaDir/0.jpg", b"thumbnail"),
        (".trash/cat/0.jpg", b""),
        ("__MACOSX/cat/0.jpg", b""),
    ]
    put(tmp_path / "x.tar", members)
    found = find_photos(tmp_path, split="train", ignore=("eel", "1.jpg"))
    assert labels(found) == {"train": {"cat": 1, "dog": 1}}
    assert forms.left_out(found) == [
        ("x.tar/.trash", 1, "hidden"),
        ("x.tar/__MACOSX", 1, "left by the system"),
        ("x.tar/cat/1.jpg", 1, "ignored, as requested"),
        ("x.tar/cat/@eaDir", 1, "left by the system"),
        ("x.tar/dog/1.jpg", 1, "ignored, as requested"),
        ("x.tar/eel", 2, "ignored, as requested"),
    ]


def test_photos_beside_the_class_folders_of_a_tar_are_left_out_with_a_line(tmp_path):
    members = [("logo.png", b""), *((f"{one}/{k}.jpg", photo(one, k)) for one in ("cat", "dog") for k in range(2))]
    found = find_photos(put(tmp_path / "x.tar", members), split="train")
    assert labels(found) == {"train": {"cat": 2, "dog": 2}}
    assert forms.left_out(found) == [("x.tar", 1, "in no class folder")]


def declined(path):
    return tars.declines(take_inventory(path), Request())


def test_why_tars_are_not_taken(tmp_path):
    assert declined(tmp_path).found == ""
    (tmp_path / "x.zip").write_bytes(b"PK")
    assert declined(tmp_path).found == "x.zip" and "unpack" in declined(tmp_path).hint
    put(tmp_path / "docs.tar", [("a.txt", b""), ("b.txt", b"")])
    assert declined(tmp_path).found == "docs.tar, without photos: a.txt, b.txt"
    error = refused(tmp_path)
    assert error.message.endswith("there is: 1 .tar, 1 .zip")
    assert any(one.endswith(": docs.tar, without photos: a.txt, b.txt") for one in error.details)
    late = [*((f"{k}.txt", b"") for k in range(2000)), ("cat/1.jpg", photo("cat")), ("dog/1.jpg", photo("dog"))]
    put(tmp_path / "late.tar.gz", late)
    (tmp_path / "x.zip").unlink()
    assert declined(tmp_path) is None  # detection knows what the finder knows
    assert labels(find_photos(tmp_path, split="train")) == {"train": {"cat": 1, "dog": 1}}
    (tmp_path / "late.tar.gz").write_bytes(b"\x1f\x8b damaged")
    assert declined(tmp_path) is None and isinstance(refused(tmp_path), SourceError)


def test_tars_beside_folders_of_photos_are_named(tmp_path):
    for one in ("cat", "dog"):
        (tmp_path / one).mkdir()
        (tmp_path / one / "1.jpg").write_bytes(photo(one))
    put(tmp_path / "all.tar", [(f"{one}/1.jpg", photo(one)) for one in ("cat", "dog")])
    assert "all.tar, but there are folders of photos beside" in declined(tmp_path).found
    error = refused(tmp_path)
    assert f"{tmp_path / 'all.tar'}: 2 photos" in error.message and "--ignore 'all.tar'" in error.hint
    assert labels(find_photos(tmp_path, split="train", ignore=("all.tar",))) == {"train": {"cat": 1, "dog": 1}}


def test_links_in_a_tar_lead_nowhere(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("cat/1.jpg", "dog/1.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(photo(name[:3]))
            tar.addfile(info, io.BytesIO(photo(name[:3])))
        link = tarfile.TarInfo("dog/2.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    found = find_photos(put(tmp_path / "x.tar", out.getvalue()), split="train")
    assert labels(found) == {"train": {"cat": 1, "dog": 1}} and found.account.members == 0
    assert forms.left_out(found) == [("x.tar", 1, LINKS)]


def test_builds_the_same_records_as_class_folders(photos, shards, tmp_path):
    """Gzipped or not, in class folders or in class tars: the same bytes; and each record's class is its photo's."""
    paths = sorted(path for path in photos.rglob("*.JPEG"))
    members = [(str(path.relative_to(photos)), path.read_bytes()) for path in paths]
    put(tmp_path / "gz/photos.tar.gz", members)
    for split in ("train", "val"):
        for folder in sorted((photos / split).iterdir()):
            put(tmp_path / f"tars/{split}/{folder.name}.tar", [(p.name, p.read_bytes()) for p in folder.iterdir()])
    for source in ("gz", "tars"):
        built = build_set(tmp_path / source, tmp_path / f"out-{source}", shard_records=16)
        assert forms.hashes(built) == forms.hashes(shards) and built.classes == shards.classes


def test_a_photo_needs_little_memory_while_looking(tmp_path):
    wnids = [f"n{k:08d}" for k in range(20)]
    put(tmp_path / "whole.tar", [(f"{wnid}.tar", tar_bytes(some(wnid, 1000))) for wnid in wnids])
    find_photos(tmp_path)
    tracemalloc.start()
    found = find_photos(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(map(len, found.splits.values())) == 20_000 and peak / 20_000 < 150  # bytes a photo
