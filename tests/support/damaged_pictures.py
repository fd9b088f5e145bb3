"""Fuzzing of photo preparation: valid photos of every format, truncated, spliced and with false headers.

    python tests/support/damaged_pictures.py --cases 100000 --seed 0

In:  a number of cases and a seed.  Out: counts on stdout; exit code 1, with the failed case, if one of them crashed,
hung, used too much memory, raised anything but PhotoError, or gave a picture other than 256x256x3.
Cases run in a separate process, because a fault in a decoder's C code ends it; shared memory has the current case.
`python tests/support/damaged_pictures.py --seed 0 --first 4711 --cases 1` runs one case again.
`tests/pipeline/prepare/test_fuzz_pictures.py` runs 2,000 cases through the same functions.
"""

import argparse
import gzip
import json
import mmap
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import simplejpeg
from alexnet_dali.pipeline.prepare.decode import PhotoError
from alexnet_dali.pipeline.prepare.resize import prepare
from pictures import noise, saved, scene
from PIL import Image

SIDE = 256
MOST_PIXELS = 4_000_000  # decoding what false headers claim takes a second per 30 million pixels
LONGEST = 20.0  # seconds of a case; the slowest take some tenths
MOST_MEMORY = 600  # MB above the start: Pillow holds a photo of 4 million pixels in several modes at once
WORDS = [  # parsed by decoders: markers, lengths, names of chunks and tags
    *(bytes([0xFF, marker]) for marker in (*range(0xC0, 0xD0), *range(0xD0, 0xF0), 0xFE, 0x01, 0x00, 0xFF)),
    *(struct.pack(">H", number) for number in (0, 1, 2, 8, 17, 255, 256, 32767, 32768, 65500, 65535)),
    *(struct.pack(order, number) for order in ("<I", ">I") for number in (0, 1, 255, 65536, 1 << 31, (1 << 32) - 1)),
    *(b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"acTL", b"fdAT", b"iCCP", b"eXIf", b"RIFF", b"VP8 ", b"VP8X"),
    *(b"ANMF", b"ALPH", b"GIF87a", b"NETSCAPE2.0", b"\x21\xf9\x04", b"\x2c", b"Adobe\0", b"Exif\0\0", b"ICC_PROFILE\0"),
    *(b"BM", b"II*\0", b"MM\0*", b"MPF\0", b"P6\n", b"P5 65535 65535 255\n", b"\x1f\x8b\x08"),
]  # fmt: skip


@cache
def bases() -> tuple[bytes, ...]:
    """Return valid photos of every format and mode, smaller and larger than 256 pixels."""
    small, large = Image.fromarray(scene(40, 56)), Image.fromarray(scene(270, 300, 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.fromarray(noise(12, 20, seed)) for seed in (1, 2)]
    found = [saved(image, kind) for image in (small, large) for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")]
    found += [saved(image, progressive=True, subsampling=k % 3) for k, image in enumerate((small, large, frames[0]))]
    found += [saved(small, restart_marker_blocks=3), saved(small, exif=exif), saved(small, icc_profile=bytes(300))]
    found += [saved(small.convert(mode)) for mode in ("L", "CMYK")] + [
        saved(small, "PPM"),
        saved(small, lossless=True, kind="WEBP"),
    ]
    found += [saved(small.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA", "I;16")]
    found += [saved(small, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "packbits", "tiff_adobe_deflate")]
    found += [
        saved(frames[0], kind, save_all=True, append_images=frames[1:]) for kind in ("GIF", "WEBP", "PNG", "TIFF")
    ]
    found += [
        saved(small.convert("P"), "GIF", interlace=1),
        saved(small, "PNG", exif=exif),
        gzip.compress(found[0], mtime=0),
    ]
    return tuple(found)


def photo_of(seed: int, case: int) -> bytes:
    """Return the photo of a case, which depends on seed and case only."""
    draw = random.Random(f"{seed}/{case}")
    photo = bytearray(draw.choice(bases()))
    for _ in range(draw.choice((1, 1, 2, 3, 5, 8))):
        _change(photo, draw)
    if photo[:4] == b"\x89PNG" and draw.random() < 0.6:
        photo = _with_sums(photo)  # else decoders would stop at a checksum
    data = bytes(photo)
    return gzip.compress(data, mtime=0) if draw.random() < 0.01 else data


def _change(photo: bytearray, draw: random.Random) -> None:
    # Half of all changes are among the first 200 bytes, which contain the headers.
    end = len(photo) if draw.random() < 0.5 else min(len(photo), 200)
    place = draw.randrange(end + 1)
    match draw.randrange(9):
        case 0 | 1 if photo:
            photo[min(place, len(photo) - 1)] ^= 1 << draw.randrange(8)
        case 2 if photo:
            photo[min(place, len(photo) - 1)] = draw.randrange(256)
        case 3:
            photo[place:place] = draw.randbytes(draw.choice((1, 2, 8, 300)))
        case 4:
            del photo[place : place + draw.choice((1, 2, 7, 100, 5000))]
        case 5:
            word = draw.choice(WORDS)
            photo[place : place + len(word) * draw.randrange(2)] = word
        case 6:
            other = draw.choice(bases())
            start = draw.randrange(len(other))
            photo[place : place + draw.choice((0, 50, 10**6))] = other[start : start + draw.choice((30, 500, 10**6))]
        case 7:
            again = photo[place : place + draw.choice((2, 40, 600))]
            photo[place:place] = again * draw.choice((1, 2, 40))
        case _:
            del photo[place:]


def _with_sums(photo: bytearray) -> bytearray:
    """Correct the checksums of a PNG's chunks, as far as they can be parsed."""
    place = 8
    while place + 12 <= len(photo):
        (length,) = struct.unpack_from(">I", photo, place)
        end = place + 8 + length
        if end + 4 > len(photo):
            break
        struct.pack_into(">I", photo, end, zlib.crc32(photo[place + 4 : end]))
        place = end + 4
    return photo


def tried(photo: bytes, case: int) -> str:
    """Prepare a photo, with options that depend on the case.

    Returns:
        The format, such as `JPEG`, or `rejected`.
    Raises:
        AssertionError: the picture has other sides, or the reason of a rejection is invalid.
        Exception: any other error of the product is a failure.
    """
    raw = case % 8 != 0  # encoding takes as long as the rest
    try:
        picture = prepare(
            photo,
            encoding="raw" if raw else "jpeg",
            exif="apply" if case % 3 == 0 else "ignore",
            accept_truncated=case % 4 == 1,
            max_pixels=MOST_PIXELS,
        )
    except PhotoError as error:
        assert str(error) and "\n" not in str(error), f"no reason: {str(error)!r}"
        return "rejected"
    assert (picture.height, picture.width) == (SIDE, SIDE), (picture.height, picture.width)
    if raw:
        assert len(picture.data) == SIDE * SIDE * 3, len(picture.data)
    else:
        assert simplejpeg.decode_jpeg(picture.data).shape == (SIDE, SIDE, 3)
    assert 0 < picture.source_height * picture.source_width <= MOST_PIXELS
    return picture.form


def child(first: int, cases: int, seed: int, at: Path, plant: str) -> None:
    """Run cases in this process; the file `at` has the current one. `plant` makes case 7 fail, for a test."""
    counts: Counter[str] = Counter()
    bases()
    start = peak()
    with open(at, "r+b") as file:
        word = mmap.mmap(file.fileno(), 8)
    for case in range(first, first + cases):
        struct.pack_into("<q", word, 0, case)
        if case == 7 and plant:
            _break(plant)
        counts[tried(photo_of(seed, case), case)] += 1
    print(json.dumps({"counts": counts, "memory": peak() - start}))


def _break(how: str) -> None:
    if how == "crash":
        import ctypes

        ctypes.string_at(0)
    elif how == "hang":
        time.sleep(3600)
    raise KeyError("planted") if how == "error" else AssertionError("planted") if how == "sides" else SystemExit


def peak() -> int:
    """Return the peak memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()  # ru_maxrss would include the parent's
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10


def survey(
    cases: int, seed: int, first: int = 0, plant: str = "", longest: float = LONGEST
) -> tuple[Counter, int, str]:
    """Run cases in a separate process.

    Returns:
        The number of cases by outcome, the memory used in MB, and the failure, empty if there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder) / "at"
        at.write_bytes(struct.pack("<q", -1))
        options = {"--first": first, "--cases": cases, "--seed": seed, "--at": at, "--plant": plant}
        command = [sys.executable, __file__, *(str(part) for pair in options.items() for part in pair)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        case, since, hung = -1, time.monotonic(), False
        while process.poll() is None:
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                (now,) = struct.unpack("<q", at.read_bytes())
                if now != case:
                    case, since = now, time.monotonic()
                elif now >= 0 and time.monotonic() - since > longest:
                    hung = True
                    process.kill()
        output, errors = process.communicate()
        (case,) = struct.unpack("<q", at.read_bytes())
    again = f"seed {seed}, case {case}"
    if hung:
        return Counter(), 0, f"{again}: not finished after {longest:.0f} s"
    if process.returncode < 0:
        return Counter(), 0, f"{again}: the process died of signal {-process.returncode}"
    if process.returncode:
        return Counter(), 0, f"{again}: {' '.join(errors.split())[-400:]}"
    found = json.loads(output)
    over = found["memory"] > MOST_MEMORY
    return (
        Counter(found["counts"]),
        found["memory"],
        f"{found['memory']} MB, seed {seed}, {first}+{cases}" if over else "",
    )


def main() -> None:
    """Run the cases in chunks of 5,000 and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at", type=Path, help=argparse.SUPPRESS)  # in the separate process
    parser.add_argument("--plant", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.at:
        return child(options.first, options.cases, options.seed, options.at, options.plant)
    began, counts, memory, wrong = time.monotonic(), Counter[str](), 0, []
    done = options.first
    while done < options.first + options.cases:
        count = min(5000, options.first + options.cases - done)
        found, more, fault = survey(count, options.seed, done)
        counts, memory, done = counts + found, max(memory, more), done + count
        if fault:
            wrong.append(fault)
            print(f"WRONG: {fault}", flush=True)
    seconds, total = time.monotonic() - began, counts.total()
    for form, count in counts.most_common():
        print(f"{count:8,}  {form}")
    print(f"{total:8,}  cases, seed {options.seed}, {len(wrong)} wrong")
    print(f"{seconds:8.0f}  s, {total / seconds:.0f} cases/s, at most {memory} MB more than at the start")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
