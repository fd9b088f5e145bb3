"""A process of the run is killed: the other one says so before anything else, and ends, whatever would block it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import tiny
from alexnet_dali.model.training import metrics
from alexnet_dali.tools.train.launch import GRACE

# In every rank: a small net; closing the connections, or the stream, waits for a rank that never answers.
BLOCKED = f"""
import sys
if "train" in " ".join(sys.orig_argv):
    import os, time
    import alexnet_dali.model.nets.alexnet as alexnet
    import torch.distributed as dist
    from alexnet_dali.pipeline.stream.stream import Stream

    alexnet.HIDDEN = {tiny.HIDDEN}

    def never(*_):
        time.sleep(1000)

    dist.destroy_process_group = dist.distributed_c10d._abort_process_group = Stream.close = never
"""


def test_who_is_gone_is_said_and_the_survivor_ends_even_if_closing_blocks(tmp_path):
    tiny.few_shards(tmp_path)
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(BLOCKED)
    path = f"{tmp_path / 'python'}:{os.environ.get('PYTHONPATH', '')}"
    command = [
        sys.executable,
        "-m",
        "alexnet_dali.tools.train.cli",
        "--shards",
        tmp_path / "shards",
        "--processes",
        "2",
    ]
    command += ["--batch-size", "2", "--epochs", "999", "--rate", "0.0005", "--log-every", "1"]
    process = subprocess.Popen(
        [*command, "--run", tmp_path / "run"],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any(line["step"] >= 2 for line in metrics.read(tmp_path / "run" / "metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(max(map(int, children)), signal.SIGKILL)
    killed = time.monotonic()
    _, said = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "error: rank 1 is gone" in said and "--resume" in said
    assert "Traceback" not in said and said.count("is gone") == 1
    assert time.monotonic() - killed < GRACE, "the launcher had to end it"
