"""The checks on a GPU, one test each, where there is one; rehearsals on the CPU, and on a GPU that is not there."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import gpu_data
import pytest
import tiny
import torch
from alexnet_dali.model.nets import lrn
from fake_cuda import one_gpu  # noqa: F401
from gpu_setting import Setting
from run import CHECKS, DONE, FAILED, SPEED, Check, main

RUN = Path(__file__).with_name("run.py")
QUICK = "1,4,10,12"
FAKE = (1, 2, 3, 4, 5, 7, 11)  # in one process, and not about the GPU's own time


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder of all checks, so that the photos are made once."""
    return tmp_path_factory.mktemp("gpu")


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.function)
def test_on_a_gpu(check, out, capsys):
    assert main(["--out", str(out), "--only", str(check.number)]) == 0, capsys.readouterr().out


def rehearsed(folder, *options):
    """Run the script on the CPU; returns its report."""
    command = [sys.executable, str(RUN), "--device", "cpu", "--out", str(folder), *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    report = json.loads((folder / "gpu-report.json").read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    return report


def test_some_checks_on_the_cpu(tmp_path):
    report = rehearsed(tmp_path, "--reduced", "--only", QUICK)
    assert [str(check["number"]) for check in report["checks"]] == QUICK.split(",")
    assert {check["state"] for check in report["checks"]} == {DONE}
    assert report["checks"][0]["figures"]["streams"] == 16
    table = (tmp_path / "gpu-report.md").read_text()
    assert all(f"\n| {number} " in table for number in QUICK.split(","))


@pytest.mark.slow
def test_all_checks_on_the_cpu(tmp_path):
    report = rehearsed(tmp_path)
    assert [(check["number"], check["state"]) for check in report["checks"]] == [(k, DONE) for k in range(1, 13)]


@pytest.mark.slow
def test_a_check_that_hangs_or_dies_loses_nothing_of_the_others(tmp_path, monkeypatch):
    slow, dying = Check(10, "check_stream", "meter", 0), Check(13, "no_such_module", "nothing", 30)
    monkeypatch.setattr("run.CHECKS", (slow, dying, Check(4, "check_net", "normalisation", 60)))
    assert main(["--device", "cpu", "--reduced", "--out", str(tmp_path)]) == 1
    report = json.loads((tmp_path / "gpu-report.json").read_text())
    assert [check["state"] for check in report["checks"]] == [FAILED, FAILED, DONE]
    assert report["checks"][0]["message"] == "took longer than 0 s"
    assert "StopIteration" in report["checks"][1]["message"]  # the script in the child knows no check 13
    assert not list(tmp_path.glob(".*.part"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Photos and shard sets of a rehearsal."""
    folder = tmp_path_factory.mktemp("data")
    gpu_data.make(folder, SPEED["cpu"])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("check", [check for check in CHECKS if check.number in FAKE], ids=lambda check: check.function)
def test_the_lines_for_a_gpu(cuda, data, tmp_path, monkeypatch, check):
    """On torch's fake GPU: no Python error, and what does not depend on a real one holds."""
    tiny.shrink(monkeypatch)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: None)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    lrn._band.cache_clear()  # of another test's GPU
    setting = Setting(torch.device("cuda", 0), data, tmp_path, reduced=True, large=False)
    monkeypatch.setattr("check_net.need_triton", lambda setting: None)
    monkeypatch.setattr(Setting, "busy", lambda setting, milliseconds: None)
    getattr(importlib.import_module(check.module), check.function)(setting)
    assert setting.figures and not cuda.mixed, cuda.mixed
