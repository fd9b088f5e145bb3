"""`alexnet-bench loader` compares what is comparable: the same pixels, really read, from loaders that really run.

Small runs of the real command; no figure is judged. What is not installed here is not run: the benchmark says so.
"""

import importlib.metadata
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import stored
import torch
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.stream.autotune import DECODERS
from alexnet_dali.tools.bench.cli import bench
from alexnet_dali.tools.bench.loader import page_cache
from alexnet_dali.tools.bench.loader import process as loader_process
from alexnet_dali.tools.bench.loader import rounds as loader_rounds
from alexnet_dali.tools.bench.loader.cases import CASES
from alexnet_dali.tools.bench.loader.data import write_once
from alexnet_dali.tools.bench.loader.photos import choose_photos
from alexnet_dali.tools.bench.loader.process import LoaderFailedError, LoaderProcess, Rounds
from alexnet_dali.tools.bench.timing import Row
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

NAMES = [
    *("ours-jpeg-f32", "ours-raw-f32", "ours-jpeg-u8", "ours-raw-u8", "ours-jpeg-light", "ours-raw-light"),
    *("native-caffe-f32", "torchvision-pil-f32", "torchvision-decode-f32", "torchcodec-f32", "spdl-f32"),
    *("webdataset-f32", "litdata-f32", "streaming-f32", "grain-f32", "lance-f32"),
    *("ffcv-jpeg-f32", "ffcv-raw-f32", "ffcv-jpeg-u8", "ffcv-raw-u8", "limit-decode"),
]
ORIGINAL = [f"{name}-photos-f32" for name in ("ours", "native", "torchvision", "torchcodec", "spdl")]
HERE = [name for name in NAMES if CASES[name].is_installed]
ORIGINAL_HERE = [name for name in ORIGINAL if CASES[name].is_installed]
WINDOWS = [name for name in HERE if CASES[name].output and "light" not in name]  # are windows of stored pixels
SLOW = pytest.mark.slow
CORES = len(os.sched_getaffinity(0))
FAST = ["ours-jpeg-f32", "torchvision-decode-f32", "limit-decode"]
SMALL = ("--batch-size", 8, "--batches", 2, "--seconds", 0, "--repeats", 1, "--workers", 2)

# Runs in a process of its own: DataLoader forks its workers, and this one has threads.
PICTURES = """
import sys
from pathlib import Path
import numpy as np
from alexnet_dali.tools.bench.loader.cases import CASES, Job
from alexnet_dali.tools.bench.loader.process import images_of
if __name__ == "__main__":
    folder, batches, *names = sys.argv[1:]
    for name in names:
        job = Job(CASES[name], Path(folder), 8, 2)
        images, labels, loader = [], [], job.case.loader(job)
        epochs = (batch for _ in range(100) for batch in loader)
        for _, batch in zip(range(int(batches)), epochs):
            images.append(images_of(batch).numpy().copy())
            labels.append(np.array(batch.labels if hasattr(batch, "labels") else batch[1]).reshape(-1).copy())
        np.savez(Path(folder) / f"{name}.npz", images=np.concatenate(images), labels=np.concatenate(labels))
"""


def save_batches(folder, *arguments):
    """Run PICTURES from a file: spawned workers import it again."""
    script = folder / "pictures.py"
    script.write_text(PICTURES)
    subprocess.run([sys.executable, script, folder, *arguments], check=True, stdout=2)


@pytest.fixture
def call(in_process):
    """Run alexnet-bench."""
    return partial(in_process, bench)


def processes_of(folder):
    """Ids of the living processes that have this text in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def assert_nobody_is_left(folder):
    """Whoever was killed may take a moment to go."""
    deadline = time.monotonic() + 20
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_of(folder)


def test_the_names_that_scripts_rely_on():
    assert list(CASES) == NAMES + ORIGINAL


@pytest.mark.parametrize("cases", [FAST, pytest.param([], marks=SLOW)], ids=["three", "all"])
def test_every_case_is_measured_and_the_missing_are_named(call, shards, tmp_path, cases):
    file, plot = tmp_path / "loader.json", tmp_path / "loader.png"
    options = [*SMALL, "--json", file, "--plot", plot, *(["--cases", ",".join(cases)] if cases else [])]
    code, said, aside = call("loader", "--shards", shards.root, *options)
    assert code == 0, aside
    found = json.loads(file.read_text())
    rows = found["cases"]
    assert [row["case"] for row in rows] == (cases or HERE)
    for row in rows:
        assert row["workers"] == 2
        assert 0 < row["min"] <= row["images_per_second"] <= row["max"]
        assert said.count(f"\n{row['case']} ") == 1
    assert "60 crops of 256x256" in said and "batches of 8 windows of 224x224; 2 workers" in said
    assert f"torch {torch.__version__.split('+')[0]}" in said
    assert "failed" not in said
    assert ("not measured without --photos" in said) is not cases
    packages = "torchcodec", "spdl", "webdataset", "litdata", "mosaicml-streaming", "grain", "pylance", "ffcv"
    missing = [name for name in packages if is_missing(name)]
    assert [name for name in packages if name in found["versions"]] == [
        name for name in packages if name not in missing
    ]
    if missing and not cases:
        line = next(line for line in said.splitlines() if line.startswith("not installed and not measured: "))
        assert sorted(line.partition(": ")[2].split(", ")) == sorted(missing)
    else:
        assert "not installed" not in said
    with Image.open(plot) as picture:
        assert picture.width == 1600
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert {(31, 111, 92), (185, 194, 198), (194, 69, 45)} <= colours  # ours, others, the limit


def is_missing(package):
    """Whether pip's package is not installed, found out otherwise than the product does."""
    code = "import importlib.metadata, sys; importlib.metadata.version(sys.argv[1])"
    return subprocess.run([sys.executable, "-c", code, package], capture_output=True, check=False).returncode != 0


@pytest.fixture(scope="module")
def forms(shards, tmp_path_factory):
    """The folder of all forms of the crops."""
    from alexnet_dali.tools.bench.loader.data import FORMS, lay_out

    folder = tmp_path_factory.mktemp("forms")
    with ThreadPoolExecutor(1) as pool:
        lay_out(shards, folder, 10_000, set(FORMS), pool)
    return folder


@pytest.fixture(scope="module")
def windows_of(forms):
    """The file of the first 64 windows of a loader, and of all that are as fast or as slow: in one process."""

    def of(name):
        if not (forms / f"{name}.npz").exists():
            names = [other for other in WINDOWS if (other in FAST) == (name in FAST)]
            # Those with DataLoader's workers first: other threads must not be there when they fork.
            names.sort(key=lambda name: name.startswith(("ours", "native", "ffcv", "spdl", "grain")))
            save_batches(forms, "8", *names)
        return forms / f"{name}.npz"

    return of


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FAST else SLOW) for name in WINDOWS])
def test_windows_are_of_the_stored_crops_to_the_last_bit(windows_of, shards, name):
    """Each window stands in a record of its label, as it is or mirrored; places and reflections vary.

    To the last bit: all decode with libjpeg-turbo's accurate DCT, in integers, but for FFCV, see below.
    """
    with np.load(windows_of(name)) as found:
        images, labels = found["images"], found["labels"]
    mean = json.loads((shards.root / "stats.json").read_text())["mean_rgb"]
    if CASES[name].output == "f32":
        assert images.dtype == np.float32
        pixels = images + np.array(mean, np.float32).reshape(3, 1, 1)
        assert np.abs(pixels - pixels.round()).max() < 1e-3
        images = pixels.round().astype(np.uint8)
    assert images.dtype == np.uint8 and images.shape == (64, 3, 224, 224)
    pictures: dict[int, list[np.ndarray]] = {}
    for record in stored.records(shards.root, "train"):
        pictures.setdefault(record.label, []).append(with_fast_dct(record) if "ffcv-jpeg" in name else record.pixels)
    windows = images.transpose(0, 2, 3, 1)
    places = [place_of(window, pictures[label]) for window, label in zip(windows, labels.tolist(), strict=True)]
    assert None not in places
    lefts, tops, flips = zip(*places, strict=True)
    assert len(set(lefts)) > 10 and len(set(tops)) > 10 and 10 < sum(flips) < 54
    assert min(lefts) >= 0 and max(lefts) <= 32


def with_fast_dct(record):
    """The record as FFCV decodes it: less exactly than all others, and faster."""
    payload = stored.parts(stored.values(record.shard)[record.index])[0]
    pixels = simplejpeg.decode_jpeg(payload, fastdct=True)
    assert 0 < np.abs(pixels.astype(int) - record.pixels).max() < 32
    return pixels


def place_of(window, pictures):
    """Left, top and whether it is mirrored, of the first picture that has this window; or None."""
    for flip, upright in enumerate((window, window[:, ::-1])):
        for picture in pictures:
            starts = sliding_window_view(picture[:33], (1, 4, 3))[:, :33, 0, 0]
            for top, left in np.argwhere((starts == upright[0, :4]).all(axis=(2, 3))):
                if np.array_equal(picture[top : top + 224, left : left + 224], upright):
                    return left, top, flip
    return None


@SLOW
@pytest.mark.parametrize("form", ["jpeg", "raw"])
def test_light_is_our_training_stream(forms, shards, form):
    """Less the mean image and with an offset along the axes of each picture, divided by 1.1: the mean is near zero.

    Which pixels exactly is tested with the stream; here, that the case asks it for mean image and lighting.
    """
    names = f"ours-{form}-light", f"ours-{form}-f32"
    save_batches(forms, "2", *names)
    light, plain = (np.load(forms / f"{name}.npz") for name in names)
    mean_image = np.load(shards.root / "stats.npz")["mean_image"][16:-16, 16:-16].transpose(2, 0, 1)
    mean_rgb = np.array(json.loads((shards.root / "stats.json").read_text())["mean_rgb"]).reshape(3, 1, 1)
    assert light["labels"].tolist() == plain["labels"].tolist()
    offsets = 1.1 * light["images"] - (plain["images"] + mean_rgb - mean_image)
    each = offsets.mean(axis=(2, 3))
    assert np.abs(offsets - each[:, :, None, None]).max() < 0.01  # one for all pixels of a picture
    assert (np.abs(each).max(axis=1) > 0.1).mean() > 0.8 and len(np.unique(each.round(3), axis=0)) == len(each)


def test_every_form_has_the_same_bytes(forms, shards):
    ours = stored.records(shards.root, "train")
    raw = stored.records(forms / "raw", "train")
    assert [record.label for record in raw] == [record.label for record in ours]
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(raw, ours, strict=True))
    payloads = sorted(
        stored.parts(value)[0] for record in shards.split("train").shards for value in stored.values(record[0])
    )
    assert sorted(path.read_bytes() for path in (forms / "files").rglob("*.jpg")) == payloads


@pytest.mark.parametrize(
    ("dtype", "shape", "memory_format"),
    [
        (torch.float32, (16, 3, 224, 224), torch.contiguous_format),
        (torch.float32, (16, 3, 224, 224), torch.channels_last),
        (torch.uint8, (64, 3, 224, 224), torch.channels_last),
        (torch.float32, (3, 3, 31, 31), torch.contiguous_format),  # the last page is not a whole one
    ],
)
def test_touching_reads_each_page(dtype, shape, memory_format):
    """Pages that nobody has used are faulted in one by one, and the kernel counts them."""
    size = int(np.prod(shape)) * dtype.itemsize
    with mmap.mmap(-1, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        pages = len(memory) // mmap.PAGESIZE
        images = torch.frombuffer(memory, dtype=dtype, count=int(np.prod(shape)))
        n, channels, height, width = shape
        if memory_format is torch.channels_last:
            images = images.view(n, height, width, channels).permute(0, 3, 1, 2)
        else:
            images = images.view(shape)
        loader_process.touch((torch.zeros(1, 3, 8, 8), None))  # whatever torch does the first time
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        assert loader_process.touch((images, None)) == n
        assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before >= pages
        del images


class Clockwork:
    """A loader of five batches an epoch and its clock: a start takes 100 s, a batch 1 s."""

    def __init__(self):
        self.now, self.starts, self.taken = 0.0, 0, 0

    def __call__(self):
        return self.now

    def __iter__(self):
        self.starts += 1
        self.now += 100
        for _ in range(5):
            self.now += 1
            self.taken += 1
            yield (torch.zeros(2, 3, 8, 8), None)


def test_the_clock_stands_still_while_an_epoch_starts():
    loader = Clockwork()
    rounds = Rounds(loader, lead=2, clock=loader)
    rounds.first()
    assert rounds.run(batches=6, seconds=0.0) == (12, 6.0)  # 2 of the first epoch, 3 of the second, 1 of the third
    assert loader.starts == 3 and loader.taken == 5 + 5 + 3
    assert rounds.run(batches=1, seconds=4.0) == (8, 4.0)  # as many as fill the time


def test_a_lead_longer_than_an_epoch_ends_with_it():
    loader = Clockwork()
    rounds = Rounds(loader, lead=50, clock=loader)
    assert rounds.run(batches=5, seconds=0.0) == (
        10,
        5.0,
    )  # 4 of the second, 1 of the fourth: its first is never counted
    assert loader.starts == 4


BROKEN = {
    "streaming": "raise ImportError('libnothing.so.7: cannot open shared object file')",
    "ffcv": "import os, sys\nprint('about to abort', file=sys.stderr, flush=True)\nos.abort()",
    "litdata": "import time\ntime.sleep(600)",
}


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Competitors that are installed but broken, before any that work."""
    for name, text in BROKEN.items():
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "__init__.py").write_text(text)
    folder = str(tmp_path / "broken")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", before_others(folder))


def before_others(folder):
    """PYTHONPATH with a folder in front."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def test_competitors_that_fail_are_reported_and_the_others_measured(call, broken, shards, tmp_path):
    file = tmp_path / "loader.json"
    cases = "streaming-f32,ffcv-raw-u8,limit-decode"
    code, said, aside = call("loader", "--shards", shards.root, *SMALL, "--cases", cases, "--json", file)
    assert code == 0, aside
    assert [row["case"] for row in json.loads(file.read_text())["cases"]] == ["limit-decode"]
    assert (
        "failed and not measured: streaming-f32 (ImportError: libnothing.so.7: cannot open shared object file)" in said
    )
    assert "failed and not measured: ffcv-raw-u8 (its process ended with signal SIGABRT: about to abort)" in said
    assert "not installed" not in said


def test_a_competitor_that_hangs_is_given_up(broken, forms):
    with pytest.raises(LoaderFailedError, match=r"no answer for 3 s"):
        LoaderProcess("litdata-f32", forms, 8, 2, patience=3)
    assert_nobody_is_left(forms)


@SLOW
def test_whose_turn_it_is_not_stands_still_with_all_its_workers(forms):
    process = LoaderProcess("torchvision-decode-f32", forms, 8, 2)
    try:
        for _ in range(2):
            deadline = time.monotonic() + 20  # a signal takes a moment too
            while set(states(forms)) != {"T"} and time.monotonic() < deadline:
                time.sleep(0.05)
            assert len(states(forms)) >= 3 and set(states(forms)) == {"T"}  # itself and two workers
            assert process.round(2, 0.0) > 0
    finally:
        process.close()


def states(folder):
    """What the processes of a folder are doing: R, S, ..., T where they were stopped."""
    return [Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] for pid in processes_of(folder)]


def test_a_loader_that_dies_while_it_stands_still(forms):
    process = LoaderProcess("limit-decode", forms, 8, 2)
    try:
        assert process.round(2, 0.0) > 0
        (pid,) = (pid for pid in processes_of(forms) if os.getpgid(pid) == pid)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(LoaderFailedError, match="its process ended with signal SIGKILL"):
            process.round(2, 0.0)
    finally:
        process.close()
    assert_nobody_is_left(forms)


@SLOW
def test_ours_failing_is_an_error(call, shards, tmp_path, monkeypatch):
    """A DALI that cannot be imported, say."""
    monkeypatch.setenv("PYTHONPATH", before_others(tmp_path))
    (tmp_path / "nvidia").mkdir()
    (tmp_path / "nvidia" / "__init__.py").write_text("raise ImportError('no driver')")
    cases = "ours-jpeg-f32,limit-decode"
    code, said, aside = call("loader", "--shards", shards.root, *SMALL, "--cases", cases, "--decode", "dali")
    assert code == 1 and "error: our own loader failed: ours-jpeg-f32" in aside
    assert "failed and not measured: ours-jpeg-f32 (" in said and "\nlimit-decode " in said


@SLOW
def test_cold_rounds(call, shards, tmp_path):
    file = tmp_path / "loader.json"
    code, said, aside = call(
        "loader",
        "--shards",
        shards.root,
        *SMALL,
        "--batch-size",
        4,
        "--cases",
        "ours-jpeg-f32",
        "--cold",
        "--json",
        file,
    )
    assert code == 0, aside
    assert [row["case"] for row in json.loads(file.read_text())["cases"]] == [
        "ours-jpeg-f32",
        "disk-jpeg",
        "ours-jpeg-f32-cold",
    ]
    assert "of warm or disk" in said


def test_dropped_files_are_read_from_the_disk_again(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(os.urandom(1 << 22))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) > 0
        assert page_cache.drop([path]) == 1.0  # a mapped page stays, and is reported
    stays = b"tmpfs" in mount_of(tmp_path)  # such files are nowhere else
    assert page_cache.drop([path]) == (1.0 if stays else 0.0)
    assert page_cache.sequential_rate([path]) > 0
    assert page_cache.drop([]) == 0.0


def mount_of(path):
    """The line of /proc/self/mountinfo of the file system that holds a path."""
    device = path.stat().st_dev
    name = f" {os.major(device)}:{os.minor(device)} ".encode()
    return next((line for line in Path("/proc/self/mountinfo").read_bytes().splitlines() if name in line), b"")


def test_ratios_are_of_the_same_round():
    rates = {
        "ours-jpeg-f32": [400.0, 600.0, 500.0],
        "native-caffe-f32": [200.0, 200.0, 250.0],
        "ffcv-jpeg-u8": [100.0, 100.0, 100.0],
        "limit-decode": [800.0, 1000.0, 1000.0],
        "disk-jpeg": [1000.0, 1000.0, 100.0],
        "ours-jpeg-f32-cold": [200.0, 300.0, 90.0],
    }
    assert loader_rounds.ratios(rates) == {
        "of the limit": {"ours-jpeg-f32": 0.5, "native-caffe-f32": 0.25, "ffcv-jpeg-u8": 0.1},
        "ours to it": {"native-caffe-f32": 2.0},  # nobody measured ours as uint8
        "of warm or disk": {"ours-jpeg-f32-cold": 0.5},
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cases", "ours-jpeg-f32,fast"), "unknown case 'fast'"),
        (("--cold", "--batch-size", 8, "--workers", 2), "--cold needs 80 records, the set has 60"),
        (("--json", "nowhere/loader.json"), "nowhere/loader.json: its folder does not exist"),
        (("--batch-size", 40, "--workers", 2), "60 records are fewer than a batch of 40 for each of 2 workers"),
        (("--plot", "nowhere/loader.png"), "nowhere/loader.png: its folder does not exist"),
        (("--cases", "limit-decode,spdl-photos-f32"), "spdl-photos-f32: need photos in their original sizes"),
        (("--sweep", "--workers", 2), "--sweep cannot be combined with --workers, --cold or --plot"),
        (("--sweep", "--batch-size", 16), f"60 records are fewer than a batch of 16 for each of {2 * CORES} workers"),
        (("--batch-size", 8, "--photos", "nowhere"), "nowhere: no JPEG photo found"),
    ],
)
def test_what_cannot_be_meant(call, shards, arguments, words):
    code, _, aside = call("loader", "--shards", shards.root, *arguments)
    assert code == 2 and words in aside and "try:" in aside


def test_other_sets_than_jpeg_squares_are_refused(call, raw_shards, short_side_shards):
    for shard_set in (raw_shards, short_side_shards):
        code, _, aside = call("loader", "--shards", shard_set.root)
        assert code == 2 and "loaders are compared on JPEG squares larger than 224" in aside


def test_a_large_set_is_measured_in_part(shards, tmp_path):
    from alexnet_dali.tools.bench.loader.data import lay_out

    with ThreadPoolExecutor(1) as pool:
        some = lay_out(shards, tmp_path, 17, set(), pool)
    assert some.split("train").records == 32  # two whole shards of 16
    assert not (tmp_path / "raw").exists() and not (tmp_path / "files").exists()


SIZES = {"tall": (300, 450), "wide": (512, 384)}  # width, height, by class


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Six photos of two classes: red grows to the right and green downwards, each by 240 in all."""
    folder = tmp_path_factory.mktemp("originals")
    for name, (width, height) in SIZES.items():
        (folder / name).mkdir()
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[..., 0] = np.linspace(0, 240, width)
        pixels[..., 1] = np.linspace(0, 240, height)[:, None]
        for number in range(3):
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg", quality=95)
    Image.new("CMYK", (300, 300)).save(folder / "tall" / "print.JPEG")
    (folder / "wide" / "broken.jpg").write_bytes(b"not a photo")
    (folder / "README").write_text("no photo either")
    return folder


@pytest.fixture(scope="module")
def laid_out(originals, tmp_path_factory):
    """The benchmark's folder with the photos, and the line about them."""
    folder = tmp_path_factory.mktemp("laid-out")
    with ThreadPoolExecutor(1) as pool:
        return folder, choose_photos(originals, 1000).lay_out(folder, 48, pool)


def test_photos_are_repeated_and_the_unusable_left_out(laid_out):
    folder, line = laid_out
    assert "6 in their original sizes, repeated by links to 48, 2 left out" in line
    assert sorted(path.name for path in (folder / "originals" / "train").iterdir()) == ["tall", "wide"]
    assert open_shard_set(folder / "photos").split("train").records == 48


def test_of_many_photos_some_are_used_and_a_flat_folder_will_do(originals, tmp_path):
    assert len(choose_photos(originals, 4).paths) + choose_photos(originals, 4).left_out == 4
    with ThreadPoolExecutor(1) as pool:
        line = choose_photos(originals / "wide", 3).lay_out(tmp_path, 2, pool)
    assert "photos: 2 in their original sizes, 1 left out" in line
    assert [path.name for path in (tmp_path / "originals" / "train").iterdir()] == ["wide"]


@SLOW
@pytest.mark.parametrize("name", ORIGINAL_HERE)
def test_photos_are_shrunk_to_256_pixels_and_windows_of_them_cut(laid_out, name):
    """The colours' slopes tell the scale of both axes, and the side on which red is."""
    folder, _ = laid_out
    if not (folder / f"{name}.npz").exists():
        save_batches(folder, "8", *sorted(ORIGINAL_HERE, key=lambda name: not name.startswith("torch")))
    with np.load(folder / f"{name}.npz") as found:
        images, labels = found["images"], found["labels"]
    assert images.dtype == np.float32 and images.shape == (64, 3, 224, 224)
    pixels = images + np.array(json.loads((folder / "photos" / "stats.json").read_text())["mean_rgb"]).reshape(3, 1, 1)
    across = (pixels[:, 0, :, -24:].mean(axis=(1, 2)) - pixels[:, 0, :, :24].mean(axis=(1, 2))) / 200
    down = (pixels[:, 1, -24:].mean(axis=(1, 2)) - pixels[:, 1, :24].mean(axis=(1, 2))) / 200
    for label, (width, height) in enumerate(SIZES.values()):
        scale = 256 / min(width, height)
        assert np.abs(across[labels == label]) == pytest.approx(240 / (width * scale), rel=0.03)
        assert down[labels == label] == pytest.approx(240 / (height * scale), rel=0.03)
    assert 10 < (across < 0).sum() < 54  # flipped
    assert len(np.unique(pixels[:, 1].mean(axis=(1, 2)).round())) > 8  # windows at several heights
    assert np.abs(pixels[:, 2]).max() < 12 and set(labels) == {0, 1}


@SLOW
def test_photos_beside_the_crops(call, shards, originals, tmp_path):
    file, plot = tmp_path / "loader.json", tmp_path / "loader.png"
    cases = "limit-decode,ours-photos-f32,torchvision-photos-f32"
    options = ["--cases", cases, "--photos", originals, "--json", file, "--plot", plot]
    code, said, aside = call("loader", "--shards", shards.root, *SMALL, *options)
    assert code == 0, aside
    found = json.loads(file.read_text())
    assert [row["case"] for row in found["cases"]] == cases.split(",")
    assert any(
        line.startswith("photos: 6 in their original sizes, repeated by links to 60, 2") for line in found["remarks"]
    )
    assert "repeated by links" in said and "ours to it" in said and plot.exists()


def test_without_photos_their_cases_are_left_out_and_the_text_says_so(call, shards, monkeypatch):
    monkeypatch.setattr("alexnet_dali.tools.bench.loader.rounds.Run.warm", lambda self, cases, *_: {})
    code, said, aside = call("loader", "--shards", shards.root, *SMALL)
    assert code == 0, aside
    assert "not measured without --photos: original photos, resized and cropped online" in said


def test_a_sweep_has_new_processes_and_several_workers(call, shards, tmp_path, monkeypatch):
    """And the JSON has the command and all versions."""
    file = tmp_path / "loader.json"
    arguments = ["loader", "--shards", shards.root, "--cases", "limit-decode", "--batch-size", 8, "--seconds", 0]
    arguments += ["--batches", 2, "--repeats", 2, "--sweep", "--json", file]
    started = []
    monkeypatch.setattr(
        loader_rounds, "LoaderProcess", lambda *options: started.append(options[3]) or LoaderProcess(*options)
    )
    monkeypatch.setattr(sys, "argv", ["alexnet-bench", *map(str, arguments), "with space"])
    code, said, aside = call(*arguments)
    assert code == 0, aside
    counts = sorted({1, CORES, 2 * CORES})
    assert started == [count for count in counts for _ in range(2)]
    found = json.loads(file.read_text())
    assert [(row["case"], row["workers"]) for row in found["cases"]] == [("limit-decode", count) for count in counts]
    for count in counts:
        assert f"windows of 224x224; {count} worker{'s' if count > 1 else ''}\n" in said
    assert found["command"].startswith("alexnet-bench loader --shards ") and found["command"].endswith("'with space'")
    assert found["versions"]["torch"] == importlib.metadata.version("torch") and "cores" in found["machine"]


@pytest.mark.parametrize("decode", ["auto", *DECODERS])
def test_every_decoder_can_be_chosen(call, decode):
    code, _, aside = call("loader", "--decode", decode, "--shards", "nowhere")
    assert code == 2 and "nowhere" in aside and "decode" not in aside


def test_a_format_is_written_once(tmp_path):
    written = []

    def write(path):
        written.append(path)
        time.sleep(0.2)
        path.write_text("done")

    with ThreadPoolExecutor(3) as pool:
        targets = list(pool.map(lambda _: write_once(tmp_path / "a.lance", write), range(3)))
    assert targets == [tmp_path / "a.lance"] * 3 and len(written) == 1
    assert targets[0].read_text() == "done" and not written[0].exists()


@SLOW
def test_killed_it_leaves_no_process_behind(shards, tmp_path):
    command = [sys.executable, "-m", "alexnet_dali.tools.bench.cli", "loader", "--shards", shards.root, *SMALL]
    command += ["--repeats", 1000, "--cases", "native-caffe-f32,limit-decode"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, env=environment, text=True) as bench:
        for line in bench.stderr:
            if line.startswith("round 1: limit-decode"):
                break
        assert len(processes_of(tmp_path)) >= 2
        bench.kill()
    assert_nobody_is_left(tmp_path)


def test_bars_of_any_rows(tmp_path):
    from alexnet_dali.tools.bench.loader.bar_chart import draw

    draw([Row("ours-raw-u8", 10.0, 9.0, 11.0)], "a machine", tmp_path / "one.png")  # no limit, no competitor
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.format == "PNG"


@SLOW
def test_a_terminated_run_removes_its_forms(shards, tmp_path):
    command = [
        sys.executable,
        "-m",
        "alexnet_dali.tools.bench.cli",
        "loader",
        "--shards",
        str(shards.root),
        "--repeats",
        "50",
    ]
    command += ["--cases", "ours-jpeg-f32", "--batch-size", "8", "--seconds", "1"]
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "round 1" not in process.stderr.readline():
        assert process.poll() is None, process.stderr.read()
    assert list(tmp_path.iterdir())
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())
