"""The checks on a GPU, one test each, where there is one; and a rehearsal of their script on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from run import CHECKS, DONE, main

RUN = Path(__file__).with_name("run.py")
QUICK = "1,4,10,12"


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
