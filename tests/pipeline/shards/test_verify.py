"""The check of a shard set: whatever is damaged, it is named, all of it, and nothing kills the process."""

import dataclasses
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from functools import partial

import lmdb
import numpy as np
import pytest
import stored
from alexnet_dali.pipeline.errors import ShardError, UsageError
from alexnet_dali.pipeline.prepare.build import BuildOptions, build_shards
from alexnet_dali.pipeline.shards import datum, shard_check
from alexnet_dali.pipeline.shards.lmdb_shard import ShardFile, sha256_of, write_shard
from alexnet_dali.pipeline.shards.shard_check import Rules, check_file, check_shard
from alexnet_dali.pipeline.shards.verify import read_manifest, verify_shards
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.workers import worker_pool
from alexnet_dali.tools.prep.cli import prep
from PIL import Image
from stored import PAGE, Here, page_kinds
from unlabelled import make_unlabelled


@pytest.fixture
def copy(shards, tmp_path):
    """A copy of the shard set, to be damaged."""
    return shutil.copytree(shards.root, tmp_path / "copy")


@pytest.fixture(scope="module")
def paged(tmp_path_factory):
    """A raw set with one shard of 200 records: meta, branch, leaf and overflow pages. Its folder and ShardFile."""
    folder = tmp_path_factory.mktemp("verify")
    random = np.random.default_rng(3)
    for k in range(200):
        path = folder / "photos" / f"class{k % 3}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    source = find_photos(folder / "photos", split="train")
    shard_set, _ = build_shards(source, folder / "out", BuildOptions(size=40, encoding="raw"), Here())
    ((_, file),) = shard_set.split("train").shards
    return folder / "out", file


RULES = Rules(40, "crop", False, 3, False)


def test_a_whole_set_is_whole(shards, raw_shards, short_side_shards):
    for shard_set in (shards, raw_shards, short_side_shards):
        done = []
        report = verify_shards(shard_set, Here(), done.append)
        assert report.whole and report.damages == () and report.damaged_shards == () and report.notes == ()
        assert report.records == sum(done) == sum(split.records for split in shard_set.splits.values())
        assert report.shards == len(done)


def test_it_runs_in_processes_and_threads_alike(copy):
    os.truncate(copy / "train/00001.lmdb/data.mdb", PAGE)
    with worker_pool(2) as processes, ThreadPoolExecutor(2) as threads:
        assert verify_shards(copy, processes) == verify_shards(copy, threads) == verify_shards(copy, Here())


def test_cut_off_at_every_page_it_is_named(paged, tmp_path):
    out, file = paged
    copy = shutil.copytree(out, tmp_path / "copy")
    for pages in range(file.bytes // PAGE - 1, -1, -1):
        os.truncate(copy / "train/00000.lmdb/data.mdb", pages * PAGE)
        (damage,) = check_shard(copy, "train/00000.lmdb", file, RULES)
        assert damage.shard == "train/00000.lmdb"
        assert damage.reason == f"data.mdb has {pages * PAGE:,} bytes, but dataset.json says {file.bytes:,}"


@pytest.mark.parametrize("kind", ["meta", "branch", "leaf", "overflow", "payload"])
@pytest.mark.parametrize("hash_matches", [False, True])
def test_one_flipped_bit_in_every_kind_of_page_is_named_and_survived(paged, tmp_path, kind, hash_matches):
    """With `hash_matches`, dataset.json says what the damaged file hashes to, as that of a hostile set would."""
    out, file = paged
    copy = shutil.copytree(out, tmp_path / "copy")
    path = copy / "train/00000.lmdb/data.mdb"
    whole = path.read_bytes()
    pages = page_kinds(whole)[kind]
    assert pages, f"the set has no {kind} page"
    random = np.random.default_rng(4)
    header = range(16) if kind != "payload" else ()
    for place in [*header, *random.integers(0, 160, 24), *random.integers(0, PAGE, 24)]:
        data = bytearray(whole)
        data[int(random.choice(pages)) * PAGE + int(place)] ^= 1 << int(random.integers(8))
        path.write_bytes(data)
        expected = dataclasses.replace(file, sha256=sha256_of(path)) if hash_matches else file
        found = check_shard(copy, "train/00000.lmdb", expected, RULES)
        if not hash_matches:
            assert re.match(r"the SHA-256 of data.mdb is [0-9a-f]{12}\.\.\., but dataset.json says", found[0].reason)
        assert all(damage.shard == "train/00000.lmdb" for damage in found)


def test_a_page_that_points_nowhere_is_found_before_it_is_mapped(paged, tmp_path):
    """liblmdb would follow it out of the map."""
    out, file = paged
    copy = shutil.copytree(out, tmp_path / "copy")
    path = copy / "train/00000.lmdb/data.mdb"
    data = bytearray(path.read_bytes())
    (branch,) = page_kinds(data)["branch"]
    (upper,) = struct.unpack_from("=H", data, branch * PAGE + 14)
    struct.pack_into("=H", data, branch * PAGE + upper + 2, 0x7000)  # the page number's middle 16 bits
    path.write_bytes(data)
    for expected in (file, dataclasses.replace(file, sha256=sha256_of(path))):
        faults, may_read = check_file(copy / "train/00000.lmdb", expected)
        assert not may_read and faults[-1].startswith(("LMDB structure: ", "and "))


def test_a_meta_page_that_counts_on_more_than_the_file(paged, tmp_path, monkeypatch):
    """Found by ourselves: py-lmdb's verifier is lenient here."""
    out, file = paged
    copy = shutil.copytree(out, tmp_path / "copy")
    path = copy / "train/00000.lmdb/data.mdb"
    data = bytearray(path.read_bytes())
    for meta in (0, 1):
        (last,) = struct.unpack_from("=Q", data, meta * PAGE + 136)
        struct.pack_into("=Q", data, meta * PAGE + 136, last + 7)
    path.write_bytes(data)
    monkeypatch.setattr(shard_check.lmdb_verify, "verify", lambda *_, **__: [])
    pages = file.bytes // PAGE
    assert check_file(path.parent, dataclasses.replace(file, sha256=sha256_of(path))) == (
        [f"LMDB structure: {pages + 7} pages of {PAGE} bytes in a file of {file.bytes:,}"],
        False,
    )
    faults, may_read = check_file(path.parent, file)
    assert not may_read and "SHA-256" in faults[0] and faults[1].startswith("LMDB structure: ")
    assert check_file(out / "train/00000.lmdb", file) == ([], True)
    for size in (64, 100, 151, PAGE):
        os.truncate(path, size)
        faults, may_read = check_file(path.parent, ShardFile(200, size, sha256_of(path)))
        assert faults and not may_read


def record_of(pixels, label=1, **save):
    """A record with a JPEG as Pillow writes it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **({"quality": 90, "subsampling": 2} | save))
    return datum.encode(file.getvalue(), height=pixels.shape[0], width=pixels.shape[1], label=label, encoded=True)


PIXELS = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
EXIF = Image.Exif()
EXIF[0x0112] = 6
GOOD = record_of(PIXELS)
JPEG = bytes(datum.parse(GOOD).data)


def of_jpeg(data, label=1):
    return datum.encode(data, height=256, width=256, label=label, encoded=True)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (record_of(PIXELS, label=4), "label 4, but there are 4 classes"),
        (record_of(PIXELS, label=-1), "label -1, but there are 4 classes"),
        (record_of(PIXELS[:, :255]), "255x256 pixels in a set of --size 256 --fit crop"),
        (datum.encode(JPEG, height=300, width=256, label=1, encoded=True), "256x300 pixels in a set of --size 256"),
        (record_of(PIXELS, progressive=True), "not a baseline JPEG (frame 0xc2)"),
        (record_of(PIXELS, subsampling=0), "the JPEG is not 4:2:0"),
        (record_of(PIXELS[:, :, 0]), "the JPEG has no frame of three components"),
        (record_of(PIXELS, exif=EXIF), "the JPEG holds metadata (segment 0xe1)"),
        (record_of(PIXELS, comment=b"hello"), "the JPEG holds metadata (segment 0xfe)"),
        (of_jpeg(JPEG[: len(JPEG) // 2]), "Premature end of JPEG file"),
        (of_jpeg(JPEG[:-2]), "Premature end of JPEG file"),
        (of_jpeg(JPEG[:100]), "the JPEG has no frame"),
        (of_jpeg(JPEG[: JPEG.index(b"\xff\xda")]), "tjDecompressHeader3()"),
        (
            of_jpeg(bytes(datum.parse(record_of(PIXELS[:200])).data)),
            "the JPEG has 256x200 pixels, its Datum says 256x256",
        ),
        (datum.encode(bytes(256 * 256 * 3), height=256, width=256, label=1, encoded=False), "raw pixels in a JPEG set"),
        (b"", "incomplete Datum"),
        (GOOD[:1000], "not a Datum: field 4 claims"),
    ],
)
def test_a_wrong_record_is_named(shards, tmp_path, value, reason):
    stored.damaged(shards.root, tmp_path / "copy", "train", 2, 5, value)
    report = verify_shards(tmp_path / "copy", Here())
    assert report.damaged_shards == ("train/00002.lmdb",)
    of_file, of_record = report.damages
    assert of_file.reason.startswith("the SHA-256 of data.mdb is ")
    rows = (shards.root / "train/00002.csv").read_text().splitlines()
    assert (of_record.record, of_record.source_path) == (5, rows[6].split(",")[2])
    assert reason in of_record.reason


def test_a_good_record_of_another_writer_is_good(shards, tmp_path):
    rows = (shards.root / "train/00002.csv").read_text().splitlines()
    stored.damaged(shards.root, tmp_path / "copy", "train", 2, 5, record_of(PIXELS, label=int(rows[6].split(",")[1])))
    (damage,) = verify_shards(tmp_path / "copy", Here()).damages
    assert damage.record is None and "SHA-256" in damage.reason


def test_a_record_in_a_raw_set(raw_shards, tmp_path):
    stored.damaged(raw_shards.root, tmp_path / "copy", "val", 0, 0, GOOD)
    assert verify_shards(tmp_path / "copy", Here()).damages[1].reason == "a JPEG in a raw set"


def test_a_gap_in_the_keys(shards, tmp_path):
    stored.damaged(shards.root, tmp_path / "copy", "train", 0, 3, None)
    damages = verify_shards(tmp_path / "copy", Here()).damages
    assert any(damage.reason == "data.mdb: damaged: record 3 is missing or out of order" for damage in damages)


def test_all_flips_of_a_jpeg_that_a_decoder_sees_are_seen(shards):
    """Where the complete decoding complains, the check does, and of what it accepts every pixel is decoded."""
    random = np.random.default_rng(6)
    rules = Rules(256, "crop", True, 4, False)
    refused = 0
    for _ in range(150):
        data = bytearray(JPEG)
        data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
        pixels = bytearray(b"\x07" * (256 * 256 * 3))
        try:
            shard_check.check_record(of_jpeg(bytes(data)), rules, pixels)
        except (ShardError, ValueError):
            refused += 1
            continue
        decoded = np.frombuffer(pixels, np.uint8).reshape(256, 256, 3)
        np.testing.assert_array_equal(decoded, shard_check.simplejpeg.decode_jpeg(bytes(data)))
    assert 0 < refused < 150


def test_a_split_called_test_may_have_no_labels(shards, tmp_path):
    out = make_unlabelled(shards.root, tmp_path / "out")
    report = verify_shards(out, Here())
    assert report.whole and report.records == 20
    manifest = json.loads((out / "dataset.json").read_text())
    manifest["classes"], entry = [{"name": "a"}], manifest["splits"].pop("test")
    (out / "test").rename(out / "val")
    for shard in entry["shards"]:
        shard["path"] = shard["path"].replace("test", "val")
    manifest["splits"]["val"] = entry
    (out / "dataset.json").write_text(json.dumps(manifest))
    labels = {damage.reason for damage in verify_shards(out, Here()).damages if damage.shard != "dataset.json"}
    assert labels == {"label -1, but there are 1 classes"}
    rules = Rules(256, "crop", True, 4, True)
    assert shard_check.check_record(record_of(PIXELS, label=-1), rules, bytearray()).label == -1
    with pytest.raises(ShardError, match="label -2"):
        shard_check.check_record(record_of(PIXELS, label=-2), rules, bytearray())


def test_a_csv_with_another_photos_name_is_named(copy):
    path = copy / "train/00001.csv"
    path.write_text(path.read_text().replace("train_000", "train_001", 1))
    report = verify_shards(copy, Here())
    assert report.damaged_shards == ("train/00001.lmdb",)
    assert [damage.reason for damage in report.damages] == ["00001.csv: its SHA-256 is not the one in dataset.json"]


@pytest.mark.parametrize("change", ["classes", "label_order"])
def test_swapped_classes_are_noticed(copy, change):
    manifest = json.loads((copy / "dataset.json").read_text())
    manifest[change] = manifest[change][::-1]
    (copy / "dataset.json").write_text(json.dumps(manifest))
    (damage,) = verify_shards(copy, Here()).damages
    assert (damage.shard, damage.reason) == (
        "dataset.json",
        "classes or label_order are not those that were written: labels may be wrong",
    )


def test_all_damage_is_listed_in_the_order_of_the_set(copy):
    shutil.rmtree(copy / "val/00001.lmdb")
    os.truncate(copy / "train/00003.lmdb/data.mdb", 0)
    data = bytearray((copy / "train/00000.lmdb/data.mdb").read_bytes())
    for found in list(re.finditer(b"\xff\xd8\xff\xe0", data))[3:5]:
        data[found.start() + 2 : found.start() + 400] = bytes(398)
    (copy / "train/00000.lmdb/data.mdb").write_bytes(data)
    (copy / "train/00001.csv").unlink()
    (copy / "rejected.csv").write_text("source_path,reason\nx,y\n")
    (copy / "stats.npz").write_bytes(b"PK")
    report = verify_shards(copy, Here())
    assert report.damaged_shards == ("train/00000.lmdb", "train/00001.lmdb", "train/00003.lmdb", "val/00001.lmdb")
    assert [(damage.shard, damage.record) for damage in report.damages] == [
        ("train/00000.lmdb", None),
        ("train/00000.lmdb", 3),
        ("train/00000.lmdb", 4),
        ("train/00001.lmdb", None),
        ("train/00003.lmdb", None),
        ("val/00001.lmdb", None),
        ("rejected.csv", None),
        ("stats.npz", None),
    ]
    reasons = [damage.reason for damage in report.damages]
    assert reasons[3] == "00001.csv: No such file or directory"
    assert reasons[4].startswith("data.mdb has 0 bytes, but dataset.json says ")
    assert reasons[5] == "data.mdb: No such file or directory"
    assert reasons[6] == "1 lines, but dataset.json says 0"
    assert reasons[7].startswith("damaged: ")


@pytest.mark.parametrize(
    ("change", "record", "reason"),
    [
        (lambda lines: lines[:-1], None, "its CSV has 15 rows, but dataset.json says 16 records"),
        (lambda lines: [lines[0], *lines[2:], lines[1]], 0, "its CSV has the key '00000001' in this row"),
        (lambda lines: [*lines[:3], re.sub(r"^(\d+),(\d)", r"\1,9", lines[3]), *lines[4:]], 2, ", but its CSV says 9"),
        (lambda lines: [*lines[:3], "00000002,cat,x,1,1", *lines[4:]], None, "row 2: invalid literal for int()"),
        (lambda lines: [*lines[:3], "00000002,1", *lines[4:]], None, "row 2: has 2 columns, not 5"),
        (lambda lines: [re.sub(r",\d+$", ",0", line) for line in lines], 0, "its CSV says a photo of"),
        (lambda lines: ["a,b,c", *lines[1:]], None, "no column key, label, source_path, source_width, source_height"),
        (lambda lines: [], None, "no column"),
    ],
)
def test_a_damaged_csv_is_named(copy, change, record, reason):
    path = copy / "train/00001.csv"
    path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))
    report = verify_shards(copy, Here())
    assert report.damaged_shards == ("train/00001.lmdb",)
    assert report.damages[0].record == record and reason in report.damages[0].reason


def test_swapped_shards_are_named(copy):
    (copy / "train/00000.lmdb").rename(copy / "x")
    (copy / "train/00001.lmdb").rename(copy / "train/00000.lmdb")
    (copy / "x").rename(copy / "train/00001.lmdb")
    assert verify_shards(copy, Here()).damaged_shards == ("train/00000.lmdb", "train/00001.lmdb")


def test_what_is_no_file_is_not_waited_for(copy):
    (copy / "train/00000.lmdb/data.mdb").unlink()
    os.mkfifo(copy / "train/00000.lmdb/data.mdb")
    assert [damage.reason for damage in verify_shards(copy, Here()).damages] == ["data.mdb is not a file"]


def test_a_shard_of_format_3_is_named(copy):
    folder = copy / "val/00001.lmdb"
    values = stored.values(folder)
    shutil.rmtree(folder)
    newest = lmdb.open(str(folder), lock=False, lib_version=1)
    with newest, newest.begin(write=True) as transaction:
        for k, value in enumerate(values):
            transaction.put(b"%08d" % k, value)
    manifest = json.loads((copy / "dataset.json").read_text())
    manifest["splits"]["val"]["shards"][1]["bytes"] = (folder / "data.mdb").stat().st_size
    (copy / "dataset.json").write_text(json.dumps(manifest))
    reasons = [damage.reason for damage in verify_shards(copy, Here()).damages]
    assert "LMDB format 3, which DALI and Caffe cannot read" in reasons


def test_statistics_of_another_set(copy, raw_shards):
    shutil.copy(raw_shards.root / "stats.npz", copy / "stats.npz")
    (damage,) = verify_shards(copy, Here()).damages
    assert (damage.shard, damage.reason) == ("stats.npz", "these statistics are of another shard set")
    (copy / "stats.npz").unlink()
    assert verify_shards(copy, Here()).whole


def test_a_shard_that_is_named_twice(copy):
    manifest = json.loads((copy / "dataset.json").read_text())
    shard = manifest["splits"]["val"]["shards"][1]
    manifest["splits"]["val"]["shards"].append(shard)
    manifest["splits"]["val"]["records"] += shard["records"]
    (copy / "dataset.json").write_text(json.dumps(manifest))
    (damage,) = verify_shards(copy, Here()).damages
    assert (damage.shard, damage.reason) == ("dataset.json", "lists val/00001.lmdb 2 times")


def test_strange_files_are_noted_and_harmless(copy):
    (copy / ".build").mkdir()
    (copy / "train/.00007.lmdb.part").mkdir()
    (copy / "thesis.tex").write_text("x")
    (copy / "train/00000.lmdb/lock.mdb").write_bytes(b"")  # Caffe leaves it there
    shutil.copytree(copy / "train/00000.lmdb", copy / "train/00009.lmdb")
    report = verify_shards(copy, Here())
    assert report.whole
    assert report.notes == (
        ".build: left by an interrupted command; it can be removed",
        "thesis.tex: not part of this set",
        "train/.00007.lmdb.part: left by an interrupted command; it can be removed",
        "train/00009.lmdb: not part of this set",
    )


def test_only_some_shards(copy):
    for shard in ("train/00000.lmdb", "val/00000.lmdb"):
        os.truncate(copy / shard / "data.mdb", 0)
    assert verify_shards(copy, Here(), only=["val/00000.lmdb"]).damaged_shards == ("val/00000.lmdb",)


def test_a_worker_that_dies_is_told(shards):
    class Dying(Executor):
        def submit(self, *_, **__):
            future: Future = Future()
            future.set_exception(BrokenExecutor("gone"))
            return future

    with pytest.raises(ShardError) as caught:
        verify_shards(shards, Dying())
    assert caught.value.message == f"{shards.root}: a worker process died (gone)"


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": "alexnet-dali shard set", "version": 9}'])
def test_a_damaged_manifest_ends_it(copy, text):
    (copy / "dataset.json").write_text(text)
    with pytest.raises(ShardError, match=r"dataset\.json"):
        read_manifest(copy)


def test_no_set_and_an_unfinished_one(tmp_path):
    with pytest.raises(UsageError, match="no shard set there"):
        read_manifest(tmp_path)
    (tmp_path / ".build").mkdir()
    with pytest.raises(ShardError, match="the build is not finished"):
        read_manifest(tmp_path)


def test_a_whole_shard_that_was_written_anew_is_whole(paged):
    out, file = paged
    values = stored.values(out / "train/00000.lmdb")
    assert write_shard(out.parent / "again.lmdb", values) == file


# The command


@pytest.fixture
def call(in_process, threads_for_workers):
    """Run alexnet-prep, its workers being threads."""
    threads_for_workers("prep.verify")
    return partial(in_process, prep)


def test_a_whole_set_is_one_line(call, shards):
    assert call("verify", "--shards", shards.root) == (
        0,
        "undamaged: 80 records in 6 shards; all hashes and pictures are correct\n",
        "",
    )


def test_damage_is_a_list_and_a_remedy(call, copy):
    os.truncate(copy / "val/00001.lmdb/data.mdb", PAGE)
    path = copy / "train/00001.csv"
    path.write_text(re.sub(r",\d+\n", ",0\n", path.read_text()))
    (copy / "stats.npz").write_bytes(b"")
    (copy / "rejected.csv").unlink()
    for k in range(7):
        (copy / f"stranger{k}").write_text("")
    photos = read_manifest(copy).manifest["source"]["path"]
    code, said, aside = call("verify", "--shards", copy, "--workers", 2)
    lines = said.splitlines()
    assert code == 1 and len(lines) == 9
    assert re.fullmatch(
        r"train/00001.lmdb, record 0 \(train/\w+/[\w.]+\): its CSV says a photo of \d+x0 pixels", lines[0]
    )
    assert lines[5] == "train/00001.lmdb: and 11 more"
    assert lines[6].startswith("val/00001.lmdb: data.mdb has 4,096 bytes, but dataset.json says ")
    assert lines[7] == "rejected.csv: No such file or directory" and lines[8].startswith("stats.npz: ")
    assert aside.splitlines() == [
        *(f"note: stranger{k}: not part of this set" for k in range(5)),
        "note: 2 more other files",
        f"error: {copy}: damaged: 19 faults in 2 of 6 shards",
        f"  try: alexnet-prep verify --shards {copy} --repair, which rebuilds 2 shards from {photos}; "
        f"or copy them again; then alexnet-prep pca-stats --shards {copy}; then copy rejected.csv from a copy of the "
        "set, or remove the set and build it again",
    ]


def test_the_command_survives_a_hostile_set(paged, tmp_path):
    """As a process of its own, with workers: what kills a worker would be told as that."""
    out, _ = paged
    copy = shutil.copytree(out, tmp_path / "copy")
    path = copy / "train/00000.lmdb/data.mdb"
    data = bytearray(path.read_bytes())
    for page in page_kinds(data)["leaf"]:
        data[page * PAGE + 200 : page * PAGE + PAGE] = b"\xff" * (PAGE - 200)
    path.write_bytes(data)
    command = [sys.executable, "-m", "alexnet_dali.tools.prep.cli", "verify", "--shards", str(copy), "--workers", "1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.match(r"train/00000.lmdb: the SHA-256 .*\ntrain/00000.lmdb: LMDB structure: ", done.stdout)
    assert f"error: {copy}: damaged: " in done.stderr and "Traceback" not in done.stderr
