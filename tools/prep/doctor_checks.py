"""The checks of `alexnet-prep doctor`: what works on this machine, and the command that fixes what does not.

In:  the facts of a `Machine`, the installed packages, the folder for the shards.  Out: one Check per line of the table.
Each check is a function that returns one line and raises nothing. torch, DALI, lmdb and the image libraries are
imported inside the checks only: the command must run where they are missing or broken.
"""

import functools
import io
import os
import shutil
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...pipeline.compiled import load
from ..console import size
from .machine import JPEG_ENGINES, Machine, decode_with_dali, older, release, requirement, small_jpeg

PACKAGE = Path(__file__).parents[2]  # with pipeline/ and model/
OLDEST, NEWEST = (3, 10), (3, 14)  # pyproject.toml's requires-python
DRIVERS = {"11": "450.80", "12": "525.60", "13": "580"}  # oldest by CUDA: DALI's installation page; torch's too
JPEG_SHARDS, RAW_SHARDS = 45e9, 265e9  # ImageNet: 1.33 million photos of about 34 kB, or of 256 x 256 x 3 bytes
SHARED_MEMORY = 1 << 30  # docker's default is 64 MB, too little for processes that exchange batches
# Packages whose module has another name.
MODULES = {"cv2": "opencv-python-headless", "PIL": "pillow", "nvidia": "nvidia-dali-cuda120"}
TRITON = "pip install triton; Triton also needs gcc and Python's headers: sudo apt-get install gcc python3-dev"
LIKENESS = {"cpu": 4, "mixed": 16}  # levels of 255: the CPU decoders agree exactly, nvJPEG rounds differently

Finding = tuple[str, str] | tuple[str, str, str]  # state, what was found, the command that fixes it


@dataclass(frozen=True)
class Check:
    """One line of the table. Only the states `missing` and `wrong` prevent training."""

    name: str
    state: str  # ok, note, missing, wrong
    found: str
    remedy: str = ""

    @property
    def stops(self) -> bool:
        """Whether training cannot run."""
        return self.state in ("missing", "wrong")


def checks(out: Path, machine: Machine) -> list[Check]:
    """Run all checks, in the order in which their problems should be fixed."""
    return [
        python(),
        compiled_parts(),
        pictures(),
        lmdb_format(),
        dali(machine),
        torch_build(),
        torchvision_ops(),
        driver(machine),
        gpus(machine),
        normalisation(machine),
        cores(machine),
        shared_memory(machine),
        disk(out),
    ]


def _line(name: str, *packages: str) -> Callable[[Callable[..., Finding]], Callable[..., Check]]:
    """Turn a finding into a Check; a missing or old package or an exception becomes one as well."""

    def wrap(find: Callable[..., Finding]) -> Callable[..., Check]:
        @functools.wraps(find)
        def check(*args, **kwargs) -> Check:
            required = [requirement(package) for package in packages]
            try:
                for each in required:
                    if old := older(each):
                        return Check(name, "wrong", f"{old}, older than {each}", f"pip install --upgrade '{each}'")
                return Check(name, *find(*args, **kwargs))
            except ModuleNotFoundError as error:
                module = (error.name or str(error)).partition(".")[0]
                install = f"pip install '{requirement(MODULES.get(module, module))}'"
                return Check(name, "missing", f"{error.name or error} is not installed", install)
            except Exception as error:  # a broken library can raise anything; the other checks still run
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                if not required:
                    return Check(name, "note", reason)
                again = " ".join(f"'{each}'" for each in required)
                return Check(name, "wrong", reason, f"pip install --force-reinstall {again}")

        return check

    return wrap


@_line("Python")
def python(version: tuple[int, ...] = sys.version_info[:3], system: str = sys.platform) -> Finding:
    found = ".".join(map(str, version)) + f" on {system}"
    if system != "linux":
        return "wrong", f"{found}; DALI needs Linux", "docker compose up"
    if not OLDEST <= version[:2] <= NEWEST:
        outside = f"{found}, outside {'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}"
        return "wrong", outside, "python3.12 -m venv .venv && . .venv/bin/activate && pip install -e ."
    return "ok", found


@_line("compiled parts")
def compiled_parts() -> Finding:
    sources = sorted(source for layer in ("pipeline", "model") for source in PACKAGE.glob(f"{layer}/*/_*.c"))
    packages = {source.stem: f"alexnet_dali.{source.parts[-3]}.{source.parts[-2]}" for source in sources}
    if missing := [name for name, package in packages.items() if load(package, name) is None]:
        slower = f"without {', '.join(missing)}: builds and training on the CPU take up to twice as long"
        return "note", slower, "install gcc, then reinstall this package"
    return "ok", ", ".join(packages)


@_line("pictures", "numpy", "opencv-python-headless", "pillow", "simplejpeg")
def pictures() -> Finding:
    import cv2
    import numpy as np
    import PIL.Image
    import simplejpeg

    data = small_jpeg()
    ours = simplejpeg.decode_jpeg(data).astype(int)
    pillows = np.asarray(PIL.Image.open(io.BytesIO(data), formats=["JPEG"]).convert("RGB"))
    opencvs = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))[..., ::-1]
    worst = max(int(abs(ours - theirs).max()) for theirs in (pillows, opencvs))
    found = f"simplejpeg, OpenCV {cv2.__version__}, Pillow {PIL.__version__}, NumPy {np.__version__}"
    if worst > LIKENESS["cpu"]:
        again = "pip install --force-reinstall opencv-python-headless pillow simplejpeg"
        return "wrong", f"{found} decode the same JPEG up to {worst} levels apart", again
    return "ok", f"{found}: all decode a JPEG to the same pixels"


@_line("LMDB", "lmdb")
def lmdb_format() -> Finding:
    import lmdb

    with tempfile.TemporaryDirectory() as folder:
        # lib_version 1 would be LMDB's format 3, which neither DALI nor Caffe reads.
        options: dict[str, Any] = {"map_size": 1 << 20, "lock": False, "lib_version": 0}
        with lmdb.open(folder, **options) as env, env.begin(write=True) as transaction:
            transaction.put(b"00000000", b"a record")
        header = Path(folder, "data.mdb").read_bytes()[:24]
    default = os.environ.get("LMDB_DEFAULT_LIB_VERSION", "0")
    if struct.unpack("=II", header[16:]) != (0xBEEFC0DE, 1):  # after a page header of 16 bytes; format 3 has 24
        again = "unset LMDB_DEFAULT_LIB_VERSION; pip install --force-reinstall lmdb"
        return "wrong", f"{lmdb.__version__} writes a format that DALI and Caffe cannot read", again
    if default != "0":
        elsewhere = f"but LMDB_DEFAULT_LIB_VERSION={default} makes other programs write one that DALI cannot read"
        return "note", f"{lmdb.__version__} writes format 1 here, {elsewhere}", "unset LMDB_DEFAULT_LIB_VERSION"
    return "ok", f"{lmdb.__version__} writes format 1, which DALI and Caffe read"


@_line("DALI", "nvidia-dali-cuda120")
def dali(machine: Machine) -> Finding:
    if len(machine.dali) > 1:  # they overwrite each other's files, and removing one breaks the other
        return (
            "wrong",
            f"{' and '.join(machine.dali)} hold the same module",
            f"pip uninstall -y {' '.join(machine.dali)} && pip install '{requirement('nvidia-dali-cuda120')}'",
        )
    import nvidia.dali
    import simplejpeg

    ours = simplejpeg.decode_jpeg(small_jpeg()).astype(int)
    for device in ("cpu", "mixed") if machine.gpus else ("cpu",):
        worst = int(abs(ours - decode_with_dali(device)).max())
        if worst > LIKENESS[device]:
            apart = f"{nvidia.dali.__version__} ({device}) and simplejpeg decode {worst} levels apart"
            return "wrong", apart, f"pip install --force-reinstall '{requirement('nvidia-dali-cuda120')}'"
    where = "on the CPU and on GPU 0" if machine.gpus else "on the CPU"
    return "ok", f"{' '.join(machine.dali)} {nvidia.dali.__version__} decodes a JPEG {where}".strip()


@_line("torch", "torch")
def torch_build() -> Finding:
    import torch

    torch.ones(2, 2).matmul(torch.ones(2, 2))
    cuda = torch.version.cuda
    return "ok", f"{torch.__version__}, built {f'for CUDA {cuda}' if cuda else 'without CUDA'}"


@_line("torchvision", "torch", "torchvision")
def torchvision_ops() -> Finding:
    import torch
    import torchvision

    # With a torch that it was not built for, torchvision loads without its operators, or does not load.
    torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    return "ok", f"{torchvision.__version__}, its operators load"


@_line("driver")
def driver(machine: Machine) -> Finding:
    if machine.driver is None:
        return "note", "no NVIDIA driver; a GPU needs one", "sudo apt-get install nvidia-driver-580"
    torch_cuda = f"torch for CUDA {machine.cuda}"
    needs = {torch_cuda: DRIVERS.get((machine.cuda or "").partition(".")[0], "")}
    # Where torch runs, the driver is new enough for its CUDA, if not by its version then by a compatibility package.
    have = max(release(machine.driver), release(needs[torch_cuda]) if machine.gpus else ())
    needs |= {build: DRIVERS.get(build[-3:-1], "") for build in machine.dali}
    short = [f"{what} needs {least}" for what, least in needs.items() if have < release(least)]
    if not short:
        return "ok", machine.driver
    found = f"{machine.driver} is too old: {', '.join(short)}"
    if not any(what.startswith("torch") for what in short) and have >= release(DRIVERS["12"]):
        return "wrong", found, f"pip uninstall -y {' '.join(machine.dali)} && pip install nvidia-dali-cuda120"
    return "wrong", found, "sudo apt-get install nvidia-driver-580 (on the host, if this is a container)"


@_line("GPUs")
def gpus(machine: Machine) -> Finding:
    listed = ", ".join(machine.listed)
    if not machine.gpus and not listed:
        return "note", "none: training runs on the CPU", "docker run --gpus all, if this is a container"
    if not machine.gpus and machine.cuda is None:
        unused = f"{listed}: not used, since torch is built without CUDA"
        return "note", unused, "pip install --force-reinstall torch torchvision"
    if not machine.gpus and "CUDA_VISIBLE_DEVICES" in os.environ:
        return "note", f"{listed}: hidden by CUDA_VISIBLE_DEVICES", "unset CUDA_VISIBLE_DEVICES"
    if not machine.gpus:
        refused = f"{listed}: torch cannot use it: {machine.refusal or 'no reason given'}"
        return "wrong", refused, "sudo modprobe nvidia_uvm, or sudo reboot; if the driver is too old, fix that first"
    counted = Counter(
        f"{gpu.name}, {size(gpu.memory_bytes)}, compute {'.'.join(map(str, gpu.capability))}, "
        f"{'hardware JPEG decoder' if gpu.decodes_jpeg else 'decodes JPEG on its cores'}"
        for gpu in machine.gpus
    )
    found = "; ".join(f"{count} x {text}" for text, count in counted.items())
    if unsupported := [gpu for gpu in machine.gpus if not gpu.runs(machine.architectures)]:
        codes = ", ".join(machine.architectures)
        return (
            "wrong",
            f"{found}; torch has no code for {unsupported[0].name}, only for {codes}",
            "install the build of torch that pytorch.org names for this GPU"
            if unsupported[0].capability < (7, 5)
            else "pip install --upgrade torch torchvision",
        )
    if any(gpu.capability in JPEG_ENGINES and not gpu.decodes_jpeg for gpu in machine.gpus):
        # nvJPEG uses the engine through libnvcuvid.so.1, which containers have only with "video".
        package = f"libnvidia-decode-{(machine.driver or '580').partition('.')[0]}"
        remedy = f"docker run -e NVIDIA_DRIVER_CAPABILITIES=compute,utility,video, or sudo apt-get install {package}"
        return "note", f"{found}; its JPEG engine cannot be used by nvJPEG (libnvcuvid.so.1 is missing)", remedy
    return "ok", found


@_line("normalisation")
def normalisation(machine: Machine) -> Finding:
    if not machine.gpus:
        return "ok", "no GPU to try Triton on"
    import torch

    from ...model.nets.lrn import triton_trouble

    if trouble := triton_trouble(torch.device("cuda", 0)):
        return "note", f"by torch on a GPU, several times slower than by Triton: {trouble}", TRITON
    return "ok", "by Triton on a GPU"


@_line("cores")
def cores(machine: Machine) -> Finding:
    if machine.quota is None or machine.quota >= machine.cores:
        return "ok", str(machine.cores)
    # Libraries count cores, not quotas: they start too many threads.
    return (
        "note",
        f"{machine.cores}, limited by a quota to the time of {machine.quota:g}",
        f"docker run --cpuset-cpus 0-{max(int(machine.quota), 1) - 1} instead of --cpus",
    )


@_line("/dev/shm")
def shared_memory(machine: Machine) -> Finding:
    found = size(machine.shared_memory_bytes)
    if machine.shared_memory_bytes < SHARED_MEMORY:
        return "note", f"{found}, too little for processes that exchange batches", "docker run --ipc=host"
    return "ok", found


@_line("disk")
def disk(out: Path) -> Finding:
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    found = f"{size(free)} free for {out}"
    if not os.access(place, os.W_OK):
        return "note", f"{found}, but {place} cannot be written", f"sudo install -d -o $(id -u) -g $(id -g) {out}"
    if free < JPEG_SHARDS:
        needed = f"{found}; ImageNet takes about {size(int(JPEG_SHARDS))} as JPEG shards"
        return "note", needed, "alexnet-prep build-lmdb SOURCE --out /a/larger/disk"
    return "ok", f"{found}, enough for ImageNet as {'JPEG or raw' if free >= RAW_SHARDS else 'JPEG'} shards"
