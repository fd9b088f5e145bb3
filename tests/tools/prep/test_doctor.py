"""alexnet-prep doctor: every failing line carries its remedy, and nothing missing makes it fall over."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from alexnet_dali.model.nets import lrn
from alexnet_dali.tools.prep import doctor as doctor_module
from alexnet_dali.tools.prep import doctor_checks
from alexnet_dali.tools.prep.doctor import doctor
from alexnet_dali.tools.prep.doctor_checks import Check, checks
from alexnet_dali.tools.prep.machine import Gpu, Machine
from click.testing import CliRunner

H100 = Gpu("NVIDIA H100 80GB HBM3", 85_000_000_000, (9, 0), 1)
HEALTHY = Machine(
    cores=16,
    shared_memory_bytes=8 << 30,
    driver="580.65.06",
    listed=(H100.name,),
    gpus=(H100,),
    cuda="13.0",
    architectures=("sm_80", "sm_90"),
    dali=("nvidia-dali-cuda120",),
)
SIGHTLESS = replace(HEALTHY, gpus=())


def said(check: Check, state: str, found: str, remedy: str = "") -> None:
    """Compare a line: its state, and what its two texts hold."""
    assert check.state == state and found in check.found and remedy in check.remedy, check
    assert check.stops is (state in ("missing", "wrong"))


def test_this_machine_is_healthy(tmp_path):
    result = CliRunner().invoke(doctor, ["--out", str(tmp_path), "--json", str(tmp_path / "lines.json")])
    assert result.exit_code == 0, result.output
    assert "ready to train on" in result.output and "writes format 1" in result.output
    lines = json.loads((tmp_path / "lines.json").read_text())
    assert " ".join(line["name"] for line in lines) == (
        "Python compiled parts pictures LMDB DALI torch torchvision driver GPUs normalisation cores /dev/shm disk"
    )
    assert all(line["remedy"] for line in lines if line["state"] != "ok")


def test_without_dali_torch_and_the_image_libraries():
    """In a process of its own: nothing was imported before."""
    blocked = ["nvidia.dali", "torch", "torchvision", "lmdb", "cv2"]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({blocked}))
from alexnet_dali.tools.console import run
from alexnet_dali.tools.prep.doctor import doctor
run(doctor, [])"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stdout + result.stderr
    for package in ("nvidia-dali-cuda120>=", "torch>=", "lmdb>=", "opencv-python-headless>="):
        assert f"pip install '{package}" in result.stdout
    assert "fix pictures, LMDB, DALI, torch, torchvision" in result.stdout


def test_importing_the_command_loads_no_heavy_library():
    code = "import sys, alexnet_dali.tools.prep.doctor; print({'torch', 'nvidia', 'cv2', 'lmdb'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "set()\n"


def test_python():
    said(doctor_checks.python((3, 12, 1), "linux"), "ok", "3.12.1")
    said(doctor_checks.python((3, 9, 2), "linux"), "wrong", "outside 3.10 to 3.14", "venv")
    said(doctor_checks.python((3, 15, 0), "linux"), "wrong", "3.15.0", "venv")
    said(doctor_checks.python((3, 12, 1), "darwin"), "wrong", "DALI needs Linux", "docker compose up")


def test_python_is_what_pyproject_asks():
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    [(least, below)] = re.findall(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', text)
    assert ((3, int(least)), (3, int(below) - 1)) == (doctor_checks.OLDEST, doctor_checks.NEWEST)


def test_what_was_not_compiled_is_named(monkeypatch):
    monkeypatch.setattr(doctor_checks, "load", lambda package, name: None if name == "_lrn" else object())
    remedy = "install gcc, then reinstall this package"
    said(doctor_checks.compiled_parts(), "note", "without _lrn: builds and training on the CPU", remedy)
    monkeypatch.setattr(doctor_checks, "load", lambda package, name: sys.modules[package])  # a package that there is
    said(doctor_checks.compiled_parts(), "ok", "_lrn, _pool, _area, _finish, _records")


def test_pictures_missing_old_broken_or_apart(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cv2", None)
        said(doctor_checks.pictures(), "missing", "cv2 is not installed", "pip install 'opencv-python-headless>=")
    with monkeypatch.context() as patch:
        patch.setattr(doctor_checks, "older", lambda wanted: "pillow 9.0" if wanted.startswith("pillow") else "")
        said(doctor_checks.pictures(), "wrong", "pillow 9.0, older than pillow>=", "pip install --upgrade 'pillow>=")
    import cv2
    import numpy as np

    with monkeypatch.context() as patch:
        patch.setattr(cv2, "imdecode", lambda *_: np.zeros((48, 64, 3), np.uint8))
        said(doctor_checks.pictures(), "wrong", "levels apart", "pip install --force-reinstall opencv-python-headless")

    def breaks(*_):
        raise OSError("libjpeg.so.62:\n cannot open shared object file")

    monkeypatch.setattr(cv2, "imdecode", breaks)
    said(doctor_checks.pictures(), "wrong", "OSError: libjpeg.so.62: cannot open", "--force-reinstall 'numpy>=")


def test_lmdb_format(monkeypatch):
    import lmdb

    really, asked = lmdb.open, []
    with monkeypatch.context() as patch:
        patch.setattr(lmdb, "open", lambda path, **options: asked.append(options) or really(path, **options))
        said(doctor_checks.lmdb_format(), "ok", "format 1")
        assert asked[0]["lib_version"] == 0
    with monkeypatch.context() as patch:
        patch.setenv("LMDB_DEFAULT_LIB_VERSION", "1")
        said(doctor_checks.lmdb_format(), "note", "LMDB_DEFAULT_LIB_VERSION=1", "unset LMDB_DEFAULT_LIB_VERSION")
    # a library that writes format 3 whatever it is asked
    monkeypatch.setattr(lmdb, "open", lambda path, **options: really(path, **(options | {"lib_version": 1})))
    said(doctor_checks.lmdb_format(), "wrong", "DALI and Caffe cannot read", "unset LMDB_DEFAULT_LIB_VERSION")


def test_dali(monkeypatch):
    both = replace(SIGHTLESS, dali=("nvidia-dali-cuda120", "nvidia-dali-cuda130"))
    said(
        doctor_checks.dali(both),
        "wrong",
        "hold the same module",
        "pip uninstall -y nvidia-dali-cuda120 nvidia-dali-cuda130 && pip install 'nvidia-dali-cuda120>=",
    )
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "nvidia.dali", None)
        said(
            doctor_checks.dali(SIGHTLESS),
            "missing",
            "nvidia.dali is not installed",
            "pip install 'nvidia-dali-cuda120>=",
        )
    said(doctor_checks.dali(SIGHTLESS), "ok", "decodes a JPEG on the CPU")
    monkeypatch.setattr(doctor_checks, "decode_with_dali", lambda device: 0 if device == "cpu" else 1 / 0)
    said(doctor_checks.dali(SIGHTLESS), "wrong", "levels apart", "pip install --force-reinstall 'nvidia-dali-cuda120>=")
    import simplejpeg

    right = simplejpeg.decode_jpeg(doctor_checks.small_jpeg())
    monkeypatch.setattr(doctor_checks, "decode_with_dali", lambda device: right if device == "cpu" else 1 / 0)
    said(doctor_checks.dali(HEALTHY), "wrong", "ZeroDivisionError", "pip install --force-reinstall")
    monkeypatch.setattr(doctor_checks, "decode_with_dali", lambda device: right)
    said(doctor_checks.dali(HEALTHY), "ok", "on the CPU and on GPU 0")


def test_torch_and_torchvision(monkeypatch):
    import torchvision

    said(doctor_checks.torch_build(), "ok", "built")

    def lacks(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", lacks)
    said(doctor_checks.torchvision_ops(), "wrong", "nms does not exist", "pip install --force-reinstall 'torch>=")
    monkeypatch.setitem(sys.modules, "torch", None)
    said(doctor_checks.torch_build(), "missing", "torch is not installed", "pip install 'torch>=")
    said(doctor_checks.torchvision_ops(), "missing", "torch is not installed", "pip install 'torch>=")


@pytest.mark.parametrize(
    "driver, cuda, dali, state, found, remedy",
    [
        ("580.65.06", "13.0", "cuda130", "ok", "580.65.06", ""),
        ("525.60.13", "12.6", "cuda120", "ok", "525.60.13", ""),
        (None, "13.0", "cuda120", "note", "no NVIDIA driver", "nvidia-driver-580"),
        ("550.54.15", "13.0", "cuda120", "wrong", "too old: torch for CUDA 13.0 needs 580", "nvidia-driver-580"),
        (
            "550.54.15",
            "12.6",
            "cuda130",
            "wrong",
            "nvidia-dali-cuda130 needs 580",
            "pip uninstall -y nvidia-dali-cuda130 && pip install nvidia-dali-cuda120",
        ),
        ("470.57.02", "12.6", "cuda120", "wrong", "needs 525.60", "nvidia-driver-580"),
        ("470.57.02", None, "cuda120", "wrong", "nvidia-dali-cuda120 needs 525.60", "nvidia-driver-580"),
    ],
)
def test_driver(driver, cuda, dali, state, found, remedy):
    machine = replace(SIGHTLESS, driver=driver, cuda=cuda, dali=(f"nvidia-dali-{dali}",))
    said(doctor_checks.driver(machine), state, found, remedy)


def test_a_compatibility_package_counts_as_a_newer_driver():
    old = replace(HEALTHY, driver="535.129.03", dali=("nvidia-dali-cuda130",))
    said(doctor_checks.driver(old), "ok", "535.129.03")


def test_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    said(
        doctor_checks.gpus(replace(HEALTHY, gpus=(H100, H100))),
        "ok",
        "2 x NVIDIA H100 80GB HBM3, 85.0 GB, compute 9.0, hardware JPEG decoder",
    )
    said(doctor_checks.gpus(Machine()), "note", "training runs on the CPU", "docker run --gpus all")
    said(
        doctor_checks.gpus(replace(SIGHTLESS, cuda=None)),
        "note",
        "HBM3: not used",
        "pip install --force-reinstall torch",
    )
    said(doctor_checks.gpus(replace(SIGHTLESS, refusal="unknown error")), "wrong", "unknown error", "nvidia_uvm")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said(doctor_checks.gpus(SIGHTLESS), "note", "hidden", "unset CUDA_VISIBLE_DEVICES")


def test_gpus_that_torch_has_no_code_for():
    volta = Gpu("Tesla V100", 16_000_000_000, (7, 0))
    said(
        doctor_checks.gpus(replace(HEALTHY, gpus=(volta,))),
        "wrong",
        "no code for Tesla V100, only for sm_80, sm_90",
        "pytorch.org",
    )
    later = Gpu("a later one", 0, (20, 0))
    said(doctor_checks.gpus(replace(HEALTHY, gpus=(later,))), "wrong", "no code", "pip install --upgrade torch")


def test_gpus_whose_jpeg_engine_is_out_of_reach():
    said(
        doctor_checks.gpus(replace(HEALTHY, gpus=(replace(H100, jpeg_engines=0),))),
        "note",
        "decodes JPEG on its cores; its JPEG engine cannot be used",
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video",
    )
    a10 = Gpu("NVIDIA A10", 24_000_000_000, (8, 6), 0)
    said(doctor_checks.gpus(replace(HEALTHY, gpus=(a10,))), "ok", "compute 8.6, decodes JPEG on its cores")


def test_the_form_of_normalisation_on_a_gpu(monkeypatch):
    said(doctor_checks.normalisation(SIGHTLESS), "ok", "no GPU to try Triton on")
    monkeypatch.setattr(lrn, "triton_trouble", lambda device: "")
    said(doctor_checks.normalisation(HEALTHY), "ok", "by Triton on a GPU")
    monkeypatch.setattr(lrn, "triton_trouble", lambda device: f"RuntimeError: no C compiler, {device}")
    slower = "by torch on a GPU, several times slower than by Triton: RuntimeError: no C compiler, cuda:0"
    said(doctor_checks.normalisation(HEALTHY), "note", slower, "apt-get install gcc")


def test_cores_and_shared_memory():
    said(doctor_checks.cores(HEALTHY), "ok", "16")
    said(
        doctor_checks.cores(replace(HEALTHY, quota=2.5)),
        "note",
        "limited by a quota to the time of 2.5",
        "--cpuset-cpus 0-1",
    )
    said(doctor_checks.shared_memory(HEALTHY), "ok", "8.6 GB")
    said(doctor_checks.shared_memory(replace(HEALTHY, shared_memory_bytes=64 << 20)), "note", "67.1 MB", "--ipc=host")


def test_disk(monkeypatch, tmp_path):
    asked = []

    def usage(place, free=300e9):
        asked.append(place)
        return SimpleNamespace(free=int(free))

    monkeypatch.setattr(doctor_checks.shutil, "disk_usage", usage)
    said(doctor_checks.disk(tmp_path / "not/yet/there"), "ok", "300.0 GB free")
    assert asked == [tmp_path]
    monkeypatch.setattr(doctor_checks.shutil, "disk_usage", lambda place: usage(place, 100e9))
    said(doctor_checks.disk(tmp_path), "ok", "as JPEG shards")
    monkeypatch.setattr(doctor_checks.shutil, "disk_usage", lambda place: usage(place, 9e9))
    said(doctor_checks.disk(tmp_path), "note", "9.0 GB free", "--out /a/larger/disk")
    monkeypatch.setattr(doctor_checks.os, "access", lambda *_: False)
    said(doctor_checks.disk(tmp_path / "out"), "note", f"{tmp_path} cannot be written", "sudo install -d -o $(id -u)")


def test_a_check_that_fails_is_a_line_and_no_traceback(monkeypatch, tmp_path):
    monkeypatch.setattr(
        doctor_checks.shutil, "disk_usage", lambda _: (_ for _ in ()).throw(OSError("stale file handle"))
    )
    said(doctor_checks.disk(tmp_path), "note", "stale file handle")


def test_the_table_shows_each_remedy_and_ends_1(monkeypatch):
    old = replace(SIGHTLESS, driver="470.57.02", shared_memory_bytes=64 << 20, quota=1.0)
    monkeypatch.setattr(doctor_module, "inspect_machine", lambda: old)
    result = CliRunner().invoke(doctor, [])
    assert result.exit_code == 1 and "not ready to train; fix driver" in result.output
    for line in checks(Path("out"), old):
        if line.state != "ok":
            assert f"try: {line.remedy}" in result.output
