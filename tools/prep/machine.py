"""The facts that `doctor` judges: driver, GPUs and their JPEG engines, cores, memory, versions, a decoded JPEG.

In:  the machine.  Out: a `Machine`, with None or nothing where a fact could not be had.  torch, DALI and the image
libraries are imported inside functions only; `look` works without them, the trials at the end raise ImportError.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

# Compute capability of A100 and A30, H100 and H200, B200, B300: a table for where nvJPEG itself does not say.
JPEG_ENGINES = {(8, 0), (9, 0), (10, 0), (10, 3)}


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch sees it; `jpeg_engines` is nvJPEG's own count, None where it did not say."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    jpeg_engines: int | None = None

    @property
    def decodes_jpeg(self) -> bool:
        """Whether an engine of its own decodes baseline JPEG; otherwise the cores that also train do it."""
        return self.capability in JPEG_ENGINES if self.jpeg_engines is None else self.jpeg_engines > 0

    def runs(self, architectures: tuple[str, ...]) -> bool:
        """Whether code for one of these runs: machine code within a major version, PTX on whatever is newer."""
        for code in filter(None, (re.fullmatch(r"(sm|compute)_(\d+)(\d)", each) for each in architectures)):
            version = int(code[2]), int(code[3])
            if version <= self.capability and (code[1] == "compute" or version[0] == self.capability[0]):
                return True
        return not architectures


@dataclass(frozen=True)
class Machine:
    """What can be said of a machine without judging it."""

    cores: int = 1  # that this process may use
    quota: float | None = None  # cores' worth of time that its control group gets
    shared_memory_bytes: int = 0  # the size of /dev/shm
    driver: str | None = None  # NVIDIA's, such as 580.65.06
    listed: tuple[str, ...] = ()  # names of GPUs from nvidia-smi, whatever torch sees
    gpus: tuple[Gpu, ...] = ()  # as torch sees them
    cuda: str | None = None  # what torch is built for, such as 13.0; None without torch or without CUDA
    architectures: tuple[str, ...] = ()  # what torch holds code for, such as sm_80 and compute_90
    refusal: str = ""  # why torch sees no GPU
    dali: tuple[str, ...] = ()  # installed DALI packages; all of them hold the module nvidia.dali


def look() -> Machine:
    """Gather the facts of this machine."""
    driver, listed = _nvidia_smi()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    machine = Machine(
        cores=cores,
        quota=quota(),
        shared_memory_bytes=_size_of("/dev/shm"),
        driver=driver or _kernel_module(),
        listed=listed,
        dali=dali_builds(),
    )
    try:
        import torch

        if torch.version.cuda is None:
            return machine
        machine = replace(machine, cuda=torch.version.cuda, architectures=tuple(torch.cuda.get_arch_list()))
        with warnings.catch_warnings():  # what torch warns of is what it raises, and is a line of the table
            warnings.simplefilter("ignore")
            torch.cuda.init()
            seen = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        engines = _asked_apart() if seen else None
        return replace(
            machine,
            gpus=tuple(
                Gpu(gpu.name, gpu.total_memory, (gpu.major, gpu.minor), engines if gpu.name == seen[0].name else None)
                for gpu in seen
            ),
        )
    except Exception as error:  # torch is missing or broken, which has a line of its own, or it refuses the GPU
        return replace(machine, refusal=" ".join(str(error).split())[:200])


def dali_builds() -> tuple[str, ...]:
    """List the installed DALI packages, such as nvidia-dali-cuda120, nightly ones too."""
    names = {(each.metadata["Name"] or "").lower().replace("_", "-") for each in importlib.metadata.distributions()}
    return tuple(sorted(name for name in names if re.fullmatch(r"nvidia-dali-(nightly-|weekly-)?cuda\d+", name)))


def jpeg_engines() -> int | None:
    """Ask nvJPEG, as DALI does, how many JPEG engines GPU 0 has; None when it does not say."""
    spec = importlib.util.find_spec("nvidia")
    places = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    for path in sorted(path for place in places for path in Path(place).glob("*/lib/libnvjpeg.so.*")):
        library, handle = ctypes.CDLL(str(path)), ctypes.c_void_p()
        engines, cores = ctypes.c_uint(), ctypes.c_uint()
        if (
            library.nvjpegCreateSimple(ctypes.byref(handle)) == 0
            and library.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores)) == 0
        ):
            return engines.value
    return None


def quota(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Find how many cores' worth of time the control groups above this process leave to it; None for no limit."""
    limits = []
    try:
        inside = next((line[3:] for line in own.read_text().splitlines() if line.startswith("0::")), "/")
        group = groups / inside.strip().lstrip("/")
        for file in [*(above / "cpu.max" for above in (group, *group.parents)), groups / "cpu/cpu.cfs_quota_us"]:
            if not file.exists():
                continue
            if file.name == "cpu.max":  # "max 100000" or "150000 100000"
                limit, period = file.read_text().split()
            else:  # version 1; -1 for no limit
                limit, period = file.read_text().strip(), file.with_name("cpu.cfs_period_us").read_text()
            if limit not in ("max", "-1"):
                limits.append(int(limit) / int(period))
    except (OSError, ValueError):
        pass
    return min(limits, default=None)


def numbers(version: str) -> tuple[int, ...]:
    """Take a version apart for comparison: `2.14.1+cu130` gives (2, 14, 1)."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def requirement(package: str) -> str:
    """Look up what pyproject.toml asks of a package: `pillow>=12.2`; the bare name where that is not known."""
    try:
        asked = importlib.metadata.requires("alexnet-dali") or []
    except importlib.metadata.PackageNotFoundError:
        asked = []
    bounds = [each[len(package) :] for each in asked if re.fullmatch(re.escape(package) + r"[\s<>=!~,.\d]*", each)]
    if package.startswith("nvidia-dali") and len(builds := dali_builds()) == 1:
        package = builds[0]  # the build that somebody chose, not a second one beside it
    return package + "".join(bounds[:1])


def older(wanted: str) -> str:
    """Say `name version` of an installed package that is older than a requirement `name>=version`, else nothing."""
    name, _, least = wanted.partition(">=")
    try:
        have = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # the module may still be there, from another package
        return ""
    return f"{name} {have}" if numbers(have) < numbers(least) else ""


def small_jpeg() -> bytes:
    """Make a JPEG of 64 x 48 like those in the shards: baseline, 4:2:0."""
    import numpy as np
    import simplejpeg

    y, x = np.mgrid[0:48, 0:64]
    photo = np.stack([4 * x, 5 * y, 255 - 2 * x - 2 * y], axis=-1).astype(np.uint8)
    return simplejpeg.encode_jpeg(photo, quality=90, colorsubsampling="420")


def decode_with_dali(device: str):
    """Decode that JPEG through a DALI pipeline, `cpu` or `mixed` (GPU 0), to uint8 (48, 64, 3)."""
    import numpy as np
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import Pipeline

    data = np.frombuffer(small_jpeg(), np.uint8)
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None if device == "cpu" else 0)
    with pipeline:
        encoded = fn.external_source(source=lambda: [data], dtype=types.DALIDataType.UINT8, ndim=1)
        # Smooth chroma is off by default on GPUs and always on on CPUs.
        pipeline.set_outputs(
            fn.decoders.image(encoded, device=device, adjust_orientation=False, jpeg_fancy_upsampling=True)
        )
    (decoded,) = pipeline.run()
    return np.array(decoded.as_cpu().at(0))


def _nvidia_smi() -> tuple[str | None, tuple[str, ...]]:
    """Ask nvidia-smi for the driver's version and the names of the GPUs."""
    try:
        printed = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None, ()
    rows = [row.split(", ", 1) for row in printed.splitlines() if ", " in row]
    return (rows[0][0] if rows else None), tuple(name for _, name in rows)


def _kernel_module(file: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Read the driver's version from the kernel: containers without the "utility" capability have no nvidia-smi."""
    try:
        version = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", file.read_text())
    except OSError:
        return None
    return version[1] if version else None


def _asked_apart() -> int | None:
    """Count JPEG engines in a process of its own: a driver that crashes must not take the table with it."""
    try:
        question = f"from {__name__} import jpeg_engines; print(jpeg_engines())"
        return int(
            subprocess.run(
                [sys.executable, "-c", question], capture_output=True, text=True, timeout=60, check=True
            ).stdout
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _size_of(folder: str) -> int:
    try:
        return shutil.disk_usage(folder).total
    except OSError:
        return 0
