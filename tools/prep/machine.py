"""The facts that `doctor` checks: driver, GPUs and their JPEG engines, cores, memory, versions, a decoded JPEG.

In:  the machine.  Out: a `Machine`, with None or an empty value for an unknown fact.  torch, DALI and the image
libraries are imported inside functions only: `inspect_machine` works without them, the decoders raise ImportError.
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

# Compute capability of A100 and A30, H100 and H200, B200, B300: used where nvJPEG does not report its engines.
JPEG_ENGINES = {(8, 0), (9, 0), (10, 0), (10, 3)}


@dataclass(frozen=True)
class Gpu:
    """A GPU as torch reports it; `jpeg_engines` is the number that nvJPEG reports, None if it reports none."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    jpeg_engines: int | None = None

    @property
    def decodes_jpeg(self) -> bool:
        """Whether a dedicated engine decodes baseline JPEG; otherwise the cores that also train do."""
        return self.capability in JPEG_ENGINES if self.jpeg_engines is None else self.jpeg_engines > 0

    def runs(self, architectures: tuple[str, ...]) -> bool:
        """Whether the GPU runs code for one of these: machine code of its major version, or PTX of an older one."""
        for code in filter(None, (re.fullmatch(r"(sm|compute)_(\d+)(\d)", each) for each in architectures)):
            version = int(code[2]), int(code[3])
            if version <= self.capability and (code[1] == "compute" or version[0] == self.capability[0]):
                return True
        return not architectures


@dataclass(frozen=True)
class Machine:
    """Facts about a machine."""

    cores: int = 1  # available to this process
    quota: float | None = None  # CPU time per second that its control group gets, in cores
    shared_memory_bytes: int = 0  # the size of /dev/shm
    driver: str | None = None  # NVIDIA's, such as 580.65.06
    listed: tuple[str, ...] = ()  # names of GPUs from nvidia-smi
    gpus: tuple[Gpu, ...] = ()  # as torch reports them
    cuda: str | None = None  # that torch is built for, such as 13.0; None without torch or CUDA
    architectures: tuple[str, ...] = ()  # that torch has code for, such as sm_80 and compute_90
    refusal: str = ""  # why torch cannot use a GPU
    dali: tuple[str, ...] = ()  # installed DALI packages; all of them contain the module nvidia.dali


def inspect_machine() -> Machine:
    """Return the facts about this machine; no exception if torch is missing or broken."""
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
        with warnings.catch_warnings():  # torch also raises what it warns of, and that is in the table
            warnings.simplefilter("ignore")
            torch.cuda.init()
            seen = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        engines = _jpeg_engines_of_a_subprocess() if seen else None
        return replace(
            machine,
            gpus=tuple(
                Gpu(gpu.name, gpu.total_memory, (gpu.major, gpu.minor), engines if gpu.name == seen[0].name else None)
                for gpu in seen
            ),
        )
    except Exception as error:  # torch is missing or broken (another check reports it), or refuses the GPU
        return replace(machine, refusal=" ".join(str(error).split())[:200])


def dali_builds() -> tuple[str, ...]:
    """List the installed DALI packages, such as nvidia-dali-cuda120, nightly ones too."""
    names = {(each.metadata["Name"] or "").lower().replace("_", "-") for each in importlib.metadata.distributions()}
    return tuple(sorted(name for name in names if re.fullmatch(r"nvidia-dali-(nightly-|weekly-)?cuda\d+", name)))


def jpeg_engines() -> int | None:
    """Return the number of JPEG engines of GPU 0 from nvJPEG, as DALI reads it; None if it is not reported."""
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
    """Return the CPU quota of this process's control groups in cores, the smallest of them; None for no limit."""
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


def requirement(package: str) -> str:
    """Return pyproject.toml's requirement of a package, such as `pillow>=12.2`; the bare name if there is none."""
    from packaging.requirements import Requirement

    try:
        required = [Requirement(each) for each in importlib.metadata.requires("alexnet-dali") or []]
    except importlib.metadata.PackageNotFoundError:
        required = []
    bounds = [str(each.specifier) for each in required if each.name == package and not each.marker]
    if package.startswith("nvidia-dali") and len(builds := dali_builds()) == 1:
        package = builds[0]  # the installed build, not a second one beside it
    return package + "".join(bounds[:1])


def older(required: str) -> str:
    """Return `name version` of an installed package that is older than a requirement `name>=version`, else ""."""
    from packaging.requirements import Requirement

    parsed = Requirement(required)
    try:
        installed = importlib.metadata.version(parsed.name)
    except importlib.metadata.PackageNotFoundError:  # the module may still exist, from another package
        return ""
    least = max((release(each.version) for each in parsed.specifier if each.operator == ">="), default=())
    return f"{parsed.name} {installed}" if release(installed) < least else ""


def release(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, without zeros at the end: (2, 6) of `2.6.0a0+nv25.01`, () of `N/A`."""
    numbers = [int(number) for number in re.split(r"[^\d.]", version)[0].split(".") if number]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def small_jpeg() -> bytes:
    """Encode a 64x48 JPEG like those in the shards: baseline, 4:2:0."""
    import numpy as np
    import simplejpeg

    y, x = np.mgrid[0:48, 0:64]
    photo = np.stack([4 * x, 5 * y, 255 - 2 * x - 2 * y], axis=-1).astype(np.uint8)
    return simplejpeg.encode_jpeg(photo, quality=90, colorsubsampling="420")


def decode_with_dali(device: str):
    """Decode that JPEG with a DALI pipeline, `cpu` or `mixed` (GPU 0); returns uint8 (48, 64, 3).

    Raises:
        ImportError: DALI, NumPy or simplejpeg is missing.
    """
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
    """Return the driver's version and the names of the GPUs from nvidia-smi."""
    try:
        output = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None, ()
    rows = [row.split(", ", 1) for row in output.splitlines() if ", " in row]
    return (rows[0][0] if rows else None), tuple(name for _, name in rows)


def _kernel_module(file: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the driver's version from the kernel: containers without the "utility" capability have no nvidia-smi."""
    try:
        version = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", file.read_text())
    except OSError:
        return None
    return version[1] if version else None


def _jpeg_engines_of_a_subprocess() -> int | None:
    """Return `jpeg_engines` of a subprocess: a crash in the driver must not end the doctor."""
    try:
        code = f"from {__name__} import jpeg_engines; print(jpeg_engines())"
        return int(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _size_of(folder: str) -> int:
    try:
        return shutil.disk_usage(folder).total
    except OSError:
        return 0
