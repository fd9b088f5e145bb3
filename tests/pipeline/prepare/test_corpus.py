"""Photos as nobody should have them, built by the real command: in = records + rejected, each with its reason, in time.

One folder holds all that is strange at once; what it must come to is known for every file of it.
"""

import csv
import ctypes
import errno
import gzip
import io
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import stored
from alexnet_dali.pipeline.shards.verify import verify_shards
from pictures import noise, saved, scene
from PIL import ExifTags, Image, ImageOps
from stored import Here
from test_decode import ADOBE, ARITHMETIC, claimed, many_scans, ycck

BUILD = [sys.executable, "-m", "alexnet_dali.tools.prep.cli", "build-lmdb"]
SECONDS = 120  # of a build that takes two: a hang, not a slow machine, is what is looked for
MEMORY = 1 << 30  # bytes of heap: of two workers each; a bomb of 65,500 x 65,500 wants 13 GB
PICTURE = Image.fromarray(scene(80, 120))
GOOD = saved(PICTURE, quality=90)
CMYK = saved(PICTURE.convert("CMYK"), quality=95)
MARK = CMYK.index(ADOBE) - 4
DEEP = scene(20, 30)[:, :, 0]  # a picture whose depth of 16 bit is 257 times that


def turned(orientation, more=b""):
    """What a camera writes of how it was held, and whatever else."""
    about = Image.Exif()
    about[ExifTags.Base.Orientation] = orientation
    return about.tobytes() + more


def many_segments(photo, segment):
    """A JPEG with 45 segments more of 64 kB behind the first, which is Exif's own."""
    first = photo.index(b"\xff\xe1")
    end = first + 2 + int.from_bytes(photo[first + 2 : first + 4], "big")
    return photo[:end] + 45 * (b"\xff\xe1\xff\xff" + segment.ljust(65533, b"\0")) + photo[end:]


TAKEN = {
    "plain.JPEG": GOOD,
    "cmyk with Adobe's marker.JPEG": CMYK,
    "cmyk without.JPEG": CMYK[:MARK] + CMYK[MARK + 16 :],
    "ycck.JPEG": ycck(PICTURE),
    "grey.JPEG": saved(PICTURE.convert("L")),
    "progressive.JPEG": saved(PICTURE, progressive=True),
    "arithmetic.JPEG": ARITHMETIC,
    "100 scans.JPEG": many_scans(100),
    "a png.JPEG": saved(PICTURE, "PNG"),
    "a gif.JPEG": saved(PICTURE, "GIF"),
    "a webp.JPEG": saved(PICTURE, "WEBP"),
    "a bmp.JPEG": saved(PICTURE, "BMP"),
    "a tiff.JPEG": saved(PICTURE, "TIFF"),
    "16 bit.png": saved(Image.fromarray(DEEP.astype(np.uint16) * 257), "PNG"),
    "palette with alpha.png": saved(PICTURE.quantize(32), "PNG", transparency=bytes(range(32))),
    "1x1.png": saved(np.zeros((1, 1, 3), np.uint8), "PNG"),
    "metadata of 3 MB.JPEG": saved(PICTURE, icc_profile=bytes(3_000_000)),
    "exif of 3 MB.JPEG": many_segments(saved(PICTURE, quality=90, exif=turned(6)), b"Exif\0\0"),
    "other exif of 3 MB.JPEG": many_segments(
        saved(PICTURE, quality=90, exif=turned(3)), b"http://ns.adobe.com/xap/1.0/\0"
    ),
    "exif of 3 MB.png": saved(PICTURE, "PNG", exif=turned(8, bytes(3_000_000))),
    **{f"turned {k}.JPEG": saved(PICTURE, quality=90, exif=turned(k)) for k in range(1, 10)},
    "in gzip.JPEG": gzip.compress(GOOD, mtime=0),
    "stray bytes.JPEG": GOOD + b"\0stray",
    "new\nline.JPEG": GOOD,
    'comma, "quote".JPEG': GOOD,
    "-rf.JPEG": GOOD,
    "%s%n{0}.JPEG": GOOD,
    os.fsdecode(b"caf\xe9.JPEG"): GOOD,
    "x" * 250 + ".png": saved(PICTURE, "PNG"),
}
REJECTED = {
    "empty.JPEG": (b"", "the file is empty"),
    "one byte.JPEG": (b"\xff", "not a photo in a known format"),
    "text.JPEG": (b"Dear reader", "not a photo in a known format"),
    "bomb.JPEG": (claimed(65500, 65500, "JPEG"), "65500x65500 is more than 100,000,000 pixels"),
    "bomb.png": (claimed(65500, 65500, "PNG"), "65500x65500 is more than 100,000,000 pixels"),
    "bomb in gzip.JPEG": (gzip.compress(bytes(1 << 27), mtime=0), "gzip: truncated, or more than 67,108,864 bytes"),
    "500 scans.JPEG": (many_scans(500), "a JPEG of more than 100 scans"),
    "1x20000.png": (saved(noise(20000, 1), "PNG"), "1x20000: aspect ratio too large: 256x5120000 after resizing"),
    "20000x1.png": (saved(noise(1, 20000), "PNG"), "20000x1: aspect ratio too large: 5120000x256 after resizing"),
    "0x16.JPEG": (claimed(0, 16, "JPEG"), ""),
    "12 bit.JPEG": (GOOD.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), ""),
    os.fsdecode(b"\xff torn.JPEG"): (GOOD[:-300], ""),
    **{f"torn at {tenth}0 %\n.png": (saved(PICTURE, "PNG")[: tenth * 900], "") for tenth in range(1, 10)},
}
LINKS = {  # name: (what it leads to, why it is rejected)
    "nowhere.JPEG": ("nothing", "No such file or directory"),
    "itself.JPEG": ("itself.JPEG", "Too many levels of symbolic links"),
    "to and.JPEG": ("fro.JPEG", "Too many levels of symbolic links"),
    "fro.JPEG": ("to and.JPEG", "Too many levels of symbolic links"),
    "through a file.JPEG": ("plain.JPEG/x", "Not a directory"),
}
ANOTHER = saved(scene(90, 70, seed=3), quality=90)  # by the same name, of another class
LEFT_ALONE = ["pipe.JPEG", "socket.png", "zeros.JPEG", "notes.txt", ".hidden.JPEG"]


@dataclass(frozen=True)
class Corpus:
    """A folder of photos; by their path below it what is in those that are taken, and why others are rejected.

    An empty reason is any.
    """

    root: str
    taken: dict
    rejected: dict


@pytest.fixture
def corpus(tmp_path):
    photos, odd = tmp_path / "photos", tmp_path / "photos/train/odd"
    odd.mkdir(parents=True)
    (photos / "val/odd").mkdir(parents=True)
    (photos / "val/odd/v.JPEG").write_bytes(GOOD)
    for name, data in TAKEN.items():
        (odd / name).write_bytes(data)
    (photos / "train/even").mkdir()
    (photos / "train/even/plain.JPEG").write_bytes(ANOTHER)
    for name, (data, _) in REJECTED.items():
        (odd / name).write_bytes(data)
    for name, (target, _) in LINKS.items():
        (odd / name).symlink_to(target)
    os.mkfifo(odd / "pipe.JPEG")
    os.symlink("/dev/zero", odd / "zeros.JPEG")
    os.mkfifo(odd / "socket.png")
    (odd / "notes.txt").write_text("x")
    (odd / ".hidden.JPEG").write_bytes(GOOD)
    (odd / "folder.JPEG").mkdir()
    (odd / "folder.JPEG/in it.JPEG").write_bytes(GOOD)
    (odd / "unreadable.JPEG").write_bytes(GOOD)
    (odd / "unreadable.JPEG").chmod(0)
    with open(odd / "of a terabyte.JPEG", "wb") as file:  # a hole
        file.truncate(1 << 40)
    rejected = {name: reason for name, (_, reason) in (REJECTED | LINKS).items()}
    rejected["unreadable.JPEG"] = "Permission denied"
    rejected["of a terabyte.JPEG"] = f"the file has {1 << 40:,} bytes, more than 536,870,912"
    taken = {f"train/odd/{name}": data for name, data in TAKEN.items()} | {"train/even/plain.JPEG": ANOTHER}
    taken |= {"train/odd/folder.JPEG/in it.JPEG": GOOD, "val/odd/v.JPEG": GOOD}
    return Corpus(photos, taken, {f"train/odd/{name}": reason for name, reason in rejected.items()})


def as_a_user():
    """Root may read anything: the command is to lose that right, and to have only so much memory."""
    libc, drop_from_bounding_set = ctypes.CDLL(None), 24  # linux/prctl.h
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH; gone with the exec that follows
        if os.geteuid() == 0 and libc.prctl(drop_from_bounding_set, capability, 0, 0, 0):
            os._exit(99)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


def run(photos, out, *options):
    """Run the command: what it said, its exit code 0, in time."""
    began = time.monotonic()
    command = [*BUILD, str(photos), "--out", str(out), "--workers", "2", "--shard-records", "16", *options]
    done = subprocess.run(command, check=False, capture_output=True, timeout=SECONDS, preexec_fn=as_a_user)
    assert time.monotonic() - began < SECONDS and b"Traceback" not in done.stderr
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def rows(path):
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def seen_by_pillow(name, data, exif):
    """A photo as it is to stand in the set, by Pillow and OpenCV alone: int (256, 256, 3)."""
    if name == "train/odd/16 bit.png":  # what Pillow makes of that is white
        image = Image.fromarray(DEEP)
    else:
        image = Image.open(io.BytesIO(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data))
        image = ImageOps.exif_transpose(image) if exif == "apply" else image
    scale = 256 / min(image.size)
    sides = tuple(round(side * scale) for side in image.size)
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    resized = cv2.resize(np.asarray(image.convert("RGB")), sides, interpolation=how)
    top, left = ((side - 256) // 2 for side in resized.shape[:2])
    stands = saved(resized[top : top + 256, left : left + 256], quality=95)
    return np.asarray(Image.open(io.BytesIO(stands))).astype(int)


def assert_pictures(out, corpus, exif):
    """Every record of the set that must be there shows its own photo, and has its label."""
    found = {}
    for table in sorted(path for path in out.rglob("*.csv") if path.name[0].isdigit()):
        for row, value in zip(rows(table), stored.values(table.with_suffix(".lmdb")), strict=True):
            found[row["source_path"]] = stored.pixels(value)
            assert row["label"] == str(int(row["source_path"].split("/")[1] == "odd")), row
    for name, data in corpus.taken.items():
        assert found[name].shape == (256, 256, 3)
        away = np.abs(found[name] - seen_by_pillow(name, data, exif))
        # Two decoders, and two ways from inks to light; of another picture it is 30 and more.
        assert away.mean() < 3, (name, away.mean())


def test_all_that_is_strange_is_a_record_or_has_its_reason(corpus, tmp_path):
    out = tmp_path / "out"
    code, said, aside = run(corpus.root, out)
    assert code == 0, aside
    stands = {row["source_path"] for path in out.rglob("*.csv") if path.name[0].isdigit() for row in rows(path)}
    rejected = {row["source_path"]: row["reason"] for row in rows(out / "rejected.csv")}
    assert stands == corpus.taken.keys() and rejected.keys() == corpus.rejected.keys()
    for path, reason in corpus.rejected.items():
        assert rejected[path] and (rejected[path] == reason or not reason), path
    count, lost = len(corpus.taken), len(corpus.rejected)
    assert re.search(rf": {count + lost} photos in = {count} records \+ {lost} rejected \(see .*rejected\.csv\)", said)
    assert sum(map(int, re.findall(r"^  other files: (\d+) ", said, re.M))) == len(LEFT_ALONE)
    assert verify_shards(out, Here()).whole
    assert_pictures(out, corpus, "ignore")
    shutil.rmtree(out / "train/00001.lmdb")
    assert run(corpus.root, out)[0] == 0 and verify_shards(out, Here()).whole  # and again, after a loss


def test_torn_photos_that_are_asked_for_are_not_in_the_account_twice(corpus, tmp_path):
    code, said, _ = run(corpus.root, tmp_path / "out", "--accept-truncated", "--exif", "apply")
    records, lost = map(int, re.search(r"= (\d+) records \+ (\d+) rejected", said).groups())
    assert code == 0 and records + lost == len(corpus.taken) + len(corpus.rejected) and records > len(corpus.taken)
    assert_pictures(tmp_path / "out", corpus, "apply")


def test_links_that_lead_round_are_told_with_their_place(corpus, tmp_path):
    (corpus.root / "train/odd/round").symlink_to("..")
    code, said, aside = run(corpus.root, tmp_path / "out")
    assert (code, said) == (2, "") and not (tmp_path / "out").exists()
    assert aside.startswith(f"error: {corpus.root}/train/odd/round/odd/round: symbolic link to a folder") or (
        aside.startswith(f"error: {corpus.root}/train/odd/round: symbolic link to a folder")
    )


def test_nothing_but_what_is_strange(tmp_path):
    folder = tmp_path / "photos/cat"
    folder.mkdir(parents=True)
    for name, (data, _) in REJECTED.items():
        (folder / name).write_bytes(data)
    code, said, aside = run(tmp_path / "photos", tmp_path / "out")
    assert code == 1 and "records" not in said and f"none of {len(REJECTED)} photos could be read" in aside
    assert not (tmp_path / "out/dataset.json").exists()


def test_files_that_vanish_or_turn_into_something_else_while_it_builds(tmp_path):
    """Found as photos, and then gone, a pipe that nobody writes to, a folder, a device: the reader must not wait."""
    odd = tmp_path / "photos/odd"
    odd.mkdir(parents=True)
    for k in range(400):
        (odd / f"{k:03d}.JPEG").write_bytes(GOOD)
    (tmp_path / "photos/z").mkdir()

    def change():
        while not (out / ".build").exists():
            time.sleep(0.002)
        for k in range(0, 400, 2):
            path = odd / f"{k:03d}.JPEG"
            path.unlink()
            if k % 8 == 2:
                os.mkfifo(path)
            elif k % 8 == 4:
                path.mkdir()
            elif k % 8 == 6:
                path.symlink_to("/dev/zero")

    out = tmp_path / "out"
    changer = threading.Thread(target=change)
    changer.start()
    code, said, aside = run(tmp_path / "photos", out, "--split", "train")
    changer.join()
    assert code == 0, aside
    records, lost = map(int, re.search(r": 400 photos in = (\d+) records \+ (\d+) rejected", said).groups())
    assert records + lost == 400 and 0 < lost <= 200 and verify_shards(out, Here()).whole
    reasons = {row["reason"] for row in rows(out / "rejected.csv")}
    assert reasons <= {"No such file or directory", "Is a directory", "No such device or address"} and len(reasons) > 1


READING = """
import sys
from alexnet_dali.pipeline.sources.photo import LOST_ALONE, Photo, read_photo
try:
    read_photo(sys.argv[1], Photo("x.JPEG", 0, 9))
except OSError as error:
    print(error.errno, error.errno in LOST_ALONE)
"""


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_any_more_is_not_read(tmp_path, kind):
    """In a process of its own: one that opened the pipe would wait for ever."""
    path = tmp_path / "x.JPEG"
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    reading = subprocess.run(
        [sys.executable, "-c", READING, str(tmp_path)], check=True, capture_output=True, timeout=30, text=True
    )
    assert reading.stdout.split() == [str({"folder": errno.EISDIR}.get(kind, errno.ENXIO)), "True"]
