"""What `doctor` is told about a machine: control groups, the driver's version, package bounds, code for a GPU."""

import subprocess

import numpy as np
import pytest
from alexnet_dali.tools.prep import machine
from alexnet_dali.tools.prep.machine import Gpu, decode_with_dali, older, quota, requirement, small_jpeg


def test_quota_is_the_smallest_limit_on_the_way_up(tmp_path):
    own = tmp_path / "own"
    own.write_text("0::/slice/job\n")
    groups = tmp_path / "cgroup"
    (groups / "slice/job").mkdir(parents=True)
    (groups / "slice/job/cpu.max").write_text("max 100000\n")
    assert quota(groups, own) is None
    (groups / "slice/cpu.max").write_text("150000 100000\n")
    (groups / "cpu.max").write_text("400000 100000\n")
    assert quota(groups, own) == 1.5


def test_quota_of_control_groups_version_1(tmp_path):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    own = tmp_path / "own"
    own.write_text("4:cpu,cpuacct:/docker/1\n")
    for limit, expected in (("-1\n", None), ("250000\n", 2.5)):
        (tmp_path / "cpu/cpu.cfs_quota_us").write_text(limit)
        assert quota(tmp_path, own) == expected


def test_quota_where_nothing_can_be_read(tmp_path):
    assert quota(tmp_path / "none", tmp_path / "none") is None
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("nonsense\n")
    assert quota(tmp_path, tmp_path / "own") is None


@pytest.mark.parametrize(
    "line, version",
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n", "580.65.06"),
        ("nothing of the kind\n", None),
    ],
)
def test_driver_version_from_the_kernel(tmp_path, line, version):
    (tmp_path / "version").write_text(line)
    assert machine._kernel_module(tmp_path / "version") == version
    assert machine._kernel_module(tmp_path / "absent") is None


def test_nvidia_smi_is_asked_for_driver_and_names(monkeypatch):
    printed = "580.65.06, NVIDIA H100 80GB HBM3\n580.65.06, NVIDIA H100 80GB HBM3\n"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, printed, ""))
    assert machine._nvidia_smi() == ("580.65.06", ("NVIDIA H100 80GB HBM3",) * 2)
    # Without a driver the program exists in some images, fails and prints its complaint.
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, "No devices\n", ""))
    assert machine._nvidia_smi() == (None, ())


def test_nvidia_smi_absent(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert machine._nvidia_smi() == (None, ())


def test_dali_packages_are_told_from_their_neighbours(monkeypatch):
    names = ["nvidia_dali_cuda120", "nvidia-dali-nightly-cuda130", "nvidia-dali-tf-plugin-cuda120", "numpy", None]
    fakes = [type("Fake", (), {"metadata": {"Name": name}}) for name in names]
    monkeypatch.setattr(machine.importlib.metadata, "distributions", lambda: fakes)
    assert machine.dali_builds() == ("nvidia-dali-cuda120", "nvidia-dali-nightly-cuda130")


def test_bounds_come_from_the_package_itself(monkeypatch):
    assert requirement("pillow").startswith("pillow>=")
    assert requirement("torch").startswith("torch>=") and "vision" not in requirement("torch")
    assert requirement("unheard-of") == "unheard-of"
    monkeypatch.setattr(machine, "dali_builds", lambda: ("nvidia-dali-cuda130",))
    assert requirement("nvidia-dali-cuda120").startswith("nvidia-dali-cuda130>=")


def test_versions_compare_as_numbers(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(machine.importlib.metadata, "version", lambda name: "2.14.1+cu130")
        assert older("torch>=2.6") == older("torch>=2.14.1") == "" and older("torch>=2.15") == "torch 2.14.1+cu130"
    assert older("numpy>=99").startswith("numpy ") and older("numpy>=1.26") == older("no-such-package>=1") == ""


@pytest.mark.parametrize(
    "capability, architectures, runs",
    [
        ((9, 0), ("sm_80", "sm_90"), True),
        ((8, 9), ("sm_80", "sm_90"), True),  # machine code serves later minor versions
        ((7, 0), ("sm_75", "sm_80", "compute_120"), False),  # nothing serves an older GPU
        ((12, 0), ("sm_90",), False),  # nor a later major version,
        ((12, 0), ("sm_90", "compute_90"), True),  # but PTX does
        ((10, 0), ("sm_100", "sm_120"), True),
        ((9, 0), (), True),  # unknown: no false alarm
    ],
)
def test_code_for_a_gpu(capability, architectures, runs):
    assert Gpu("a GPU", 0, capability).runs(architectures) is runs


@pytest.mark.parametrize(
    "capability, engines, decodes", [((9, 0), None, True), ((9, 0), 0, False), ((8, 9), None, False), ((8, 9), 1, True)]
)
def test_nvjpeg_is_believed_over_the_table(capability, engines, decodes):
    assert Gpu("a GPU", 0, capability, engines).decodes_jpeg is decodes


def test_asking_nvjpeg_apart_survives_whatever_happens(monkeypatch):
    monkeypatch.setattr(machine.sys, "executable", "/bin/false")
    assert machine._jpeg_engines_of_a_subprocess() is None


def test_dali_and_simplejpeg_decode_the_same_pixels():
    import simplejpeg

    data = small_jpeg()
    assert b"\xff\xc0" in data and b"\xff\xc2" not in data  # baseline, not progressive
    # Both are libjpeg-turbo's accurate DCT, in integers.
    np.testing.assert_array_equal(decode_with_dali("cpu"), simplejpeg.decode_jpeg(data))


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("2.6.0a0+ecf3bae40a.nv25.01", (2, 6)),  # of NVIDIA's containers
        ("2.7-custom-build", (2, 7)),
        ("550.54.14-grid", (550, 54, 14)),
        ("2.10.0", (2, 10)),
        ("N/A", ()),
        ("", ()),
    ],
)
def test_versions_of_vendors_are_compared_by_their_numbers(version, numbers, monkeypatch):
    assert machine.release(version) == numbers
    monkeypatch.setattr(machine.importlib.metadata, "version", lambda name: version)
    assert machine.older("torch>=2.6") == ("" if numbers >= (2, 6) else f"torch {version}")
