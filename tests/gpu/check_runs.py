"""Checks of whole runs on a GPU: resumed, in two processes, over NCCL, and where something is missing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from alexnet_dali.model.nets import columns
from alexnet_dali.model.training import checkpoint, metrics
from alexnet_dali.model.training.distributed import Team, card_of
from alexnet_dali.model.training.parallel import DataParallel
from alexnet_dali.pipeline.errors import DeviceError
from alexnet_dali.pipeline.plan.plan import Plan
from alexnet_dali.pipeline.stream.streams import train_stream
from alexnet_dali.pipeline.versions import installed_versions
from check_net import distance, first_batch, trainer_of
from gpu_setting import Setting, agree, environment, need_dali

STEPS = 6  # of the 7 in an epoch, so that no evaluation follows
CURVE = 1e-3  # between the losses of one process and of two, relative


class Run:
    """Runs of `alexnet-train` with small nets, each in its folder below `scratch`."""

    def __init__(self, setting: Setting):
        self.folder, self.environment = setting.scratch, {**environment(setting.scratch), "OMP_NUM_THREADS": "1"}
        self.shards = setting.data / "correct" / "jpeg"
        self.device = setting.device.type

    def start(self, name: str, *options: str) -> subprocess.Popen:
        """Start a command."""
        words = [sys.executable, "-m", "alexnet_dali.tools.train.cli", "--run", str(self.folder / name)]
        words += ["--log-every", "1", "--timeout", "60", *options]
        said = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(words, env=self.environment, **said)

    def new(self, name: str, *options: str) -> subprocess.Popen:
        """Start a new run of `STEPS` steps, unless the options have other ones."""
        words = ["--shards", str(self.shards), "--device", self.device, "--batch-size", "8", "--rate", "0.001"]
        return self.start(name, *words, "--epochs", "2", "--decode", "threads", "--steps", str(STEPS), *options)

    def resume(self, name: str, *options: str) -> subprocess.Popen:
        """Continue a run."""
        return self.start(name, "--resume", "--steps", str(STEPS), *options)

    def saved(self, name: str) -> dict:
        """Read a run's last checkpoint, on the CPU."""
        return checkpoint.load(self.folder / name / "last.pt")

    def curve(self, name: str) -> list[float]:
        """Return a run's losses, step by step."""
        lines = metrics.read(self.folder / name / "metrics.jsonl")
        return [line["loss"] for line in lines if line["kind"] == "step"]


def finish(process: subprocess.Popen, code: int = 0) -> str:
    """Wait for a command; returns what it printed."""
    said, aside = process.communicate(timeout=200)
    assert process.returncode == code, f"exit code {process.returncode}, not {code}: {(aside or said)[-400:].strip()}"
    return said + aside


def at_once(*jobs: Callable[[], object]) -> None:
    """Do jobs at the same time; raise the first's error."""
    with ThreadPoolExecutor(len(jobs)) as executor:
        for future in [executor.submit(job) for job in jobs]:
            future.result()


def resume(setting: Setting) -> None:
    """6. Six steps equal three and three more: bit for bit with --deterministic; the checkpoint is read on the CPU."""
    need_dali()
    run, failures = Run(setting), []

    def whole(name: str, *options: str) -> None:
        finish(run.new(f"{name} whole", *options))

    def halves(name: str, *options: str) -> None:
        finish(run.new(f"{name} halves", *options, "--steps", "3"))
        finish(run.resume(f"{name} halves"))

    modes = {"default": (), "deterministic": ("--deterministic",)}
    if setting.reduced:
        modes.pop("default")
    at_once(*(lambda job=job, mode=mode: job(mode, *modes[mode]) for mode in modes for job in (whole, halves)))
    for mode in modes:
        one, other = run.saved(f"{mode} whole"), run.saved(f"{mode} halves")
        assert one["steps_done"] == other["steps_done"] == STEPS, f"{mode}: {other['steps_done']} steps of {STEPS}"
        away = {
            f"{part} of {name}": distance(other[part][name], one[part][name])
            for part in ("model", "velocity")
            for name in one[part]
            if not torch.equal(one[part][name], other[part][name])
        }
        worst = max(away.values(), default=0.0)
        setting.record(**{mode: {"tensors that differ": len(away), "by up to": float(f"{worst:.2g}")}})
        if mode == "deterministic" and away:
            failures.append(f"with --deterministic {len(away)} tensors differ, such as {next(iter(away))}")
        if not worst <= 1e-2:
            failures.append(f"{mode}: a tensor is {worst:.1e} away")
        wrong = [name for name, tensor in other["model"].items() if tensor.device.type != "cpu"]
        assert not wrong, f"read on the CPU, {wrong[0]} is elsewhere"
    finish(run.start(f"{mode} halves", "--resume", "--device", "cpu", "--steps", str(STEPS + 1)))
    setting.record(**{"continued on the CPU": f"loss {run.curve(f'{mode} halves')[-1]:.4f}"})
    agree(failures)


def two_processes(setting: Setting) -> None:
    """8. Two processes on one card over gloo, columns and data parallel, are one run; a killed one is named."""
    need_dali()
    run, failures = Run(setting), []
    splits = {"one": ["--processes", "1"], "columns": ["--processes", "2"]}
    if not setting.reduced:
        splits["data"] = ["--processes", "2", "--parallel", "data"]
    at_once(*(lambda name=name: finish(run.new(name, "--precision", "fp32", *splits[name])) for name in splits))
    expected = run.curve("one")
    assert len(expected) == STEPS and max(expected) - min(expected) > 1e-3, f"the curve of one process is {expected}"
    for name in list(splits)[1:]:
        pairs = list(zip(run.curve(name), expected, strict=True))
        away = max(abs(found / wanted - 1) for found, wanted in pairs)
        setting.record(**{name: {"loss away": float(f"{away:.2g}")}})
        if not away <= CURVE:
            failures.append(f"{name}: a loss is {away:.1e} away from that of one process")
    began = time.monotonic()
    setting.record(**{"killed rank": kill_one(run)} | {"seconds until the end": round(time.monotonic() - began)})
    agree(failures)


def kill_one(run: Run) -> str:
    """Kill rank 1 of two columns with SIGKILL; returns the sentence that names it."""
    process = run.new("killed", "--processes", "2", "--steps", "1000", "--epochs", "1000", "--precision", "fp32")
    try:
        while len(run.curve("killed")) < 2:
            assert process.poll() is None, f"it ended early: {finish(process)[-400:]}"
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(max(map(int, children)), signal.SIGKILL)  # ranks are started in their order
        said = finish(process, 1)
    finally:
        process.kill()
    named = next((line for line in said.splitlines() if "rank 1 " in line), "")
    assert named, f"no sentence names rank 1: {said[-400:]}"
    return named


def nccl(setting: Setting) -> None:
    """9. NCCL with one process: gather, sum, gradients, all in channels-last memory."""
    store = f"file://{setting.scratch / 'store'}"
    backend = "cpu:gloo,cuda:nccl" if setting.on_gpu else "gloo"
    dist.init_process_group(backend, init_method=store, rank=0, world_size=1)
    try:
        x = torch.randn(4, 6, 5, 3, device=setting.device).contiguous(memory_format=torch.channels_last)
        for name, tensor in {"channels last": x, "bf16": x.bfloat16(), "labels": torch.arange(4).to(x.device)}.items():
            (gathered,) = columns.gather(tensor)
            assert torch.equal(gathered, tensor), f"gather of {name}: other values"
            assert gathered.stride() == tensor.stride(), f"gather of {name}: other memory, {gathered.stride()}"
        place = columns.Column()
        own = x.clone().requires_grad_()
        out = place.add(own)
        assert torch.equal(out, x) and out.device == x.device, "the sum of one process is not its tensor"
        out.backward(x)
        assert own.grad is not None and torch.equal(own.grad, x), "the gradient of the sum is not passed on"
        votes = torch.ones(3, dtype=torch.float64)
        dist.all_reduce(votes)
        assert votes.tolist() == [1.0] * 3, "gloo beside it: another sum"
        if setting.on_gpu:
            assert dist.group.WORLD is not None, "the group was just made"
            dist.group.WORLD._get_backend(setting.device)._set_default_timeout(timedelta(seconds=120))
            setting.record(card=card_of(setting.device))
        setting.record(collectives="equal", backend=backend)
        data_parallel(setting)
    finally:
        dist.distributed_c10d._abort_process_group()  # as after an error


def data_parallel(setting: Setting) -> None:
    """Compare the gradients of DistributedDataParallel with one process with those of the bare net."""
    plain, wrapped = (trainer_of(setting, setting.device) for _ in range(2))
    wrapped.work = DataParallel(wrapped.net, Team(), setting.device)
    batch = first_batch(plain, setting.device)
    for trainer in (plain, wrapped):
        trainer._update(batch)
    pairs = zip(plain.net.named_parameters(), wrapped.net.parameters(), strict=True)
    away = {name: distance(other.grad, own.grad) for (name, own), other in pairs}
    worst = max(away, key=lambda name: away[name])
    setting.record(**{"gradients away": float(f"{away[worst]:.2g}")})
    assert away[worst] <= 1e-2, f"data parallel: the gradient of {worst} is {away[worst]:.1e} away"


def missing(setting: Setting) -> None:
    """12. The doctor's answer; and a GPU that is not there is a sentence and exit code 1."""
    run = Run(setting)
    run.environment["CUDA_VISIBLE_DEVICES"] = ""
    no_card = run.new("no card", "--device", "cuda")
    file = setting.scratch / "doctor.json"
    words = [sys.executable, "-m", "alexnet_dali.tools.prep.cli", "doctor", "--json", str(file)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=100)
    lines = json.loads(file.read_text())
    setting.record(doctor=done.stdout.strip().splitlines()[-1])
    wrong = [f"{line['name']}: {line['found']}" for line in lines if line["state"] in ("missing", "wrong")]
    assert (done.returncode == 0) == (not wrong), f"exit code {done.returncode} with {wrong or 'nothing missing'}"
    complete = "alexnet-dali" in installed_versions(["alexnet-dali"])  # else a copy, without what it needs
    assert not wrong or not complete, f"not ready to train: {'; '.join(wrong)}"
    if setting.on_gpu and not wrong:
        assert "GPU(s)" in done.stdout, f"the doctor finds no GPU: {done.stdout[-200:]}"

    shard_set, stats = setting.shards("correct/jpeg")
    plan = Plan(shard_set.split("train").records, 8, 0, shard_set.size)
    try:
        train_stream(shard_set, stats, plan, device="cuda:9").close()
    except DeviceError as error:
        setting.record(**{"cuda:9": error.message})
    else:
        raise AssertionError("cuda:9 is accepted")
    expected = "no GPU 9: this machine has" if setting.on_gpu else "no usable GPU"
    assert setting.figures["cuda:9"].startswith(expected), f"cuda:9: {setting.figures['cuda:9']}"

    said = finish(no_card, DeviceError.exit_code)
    assert "error: --device cuda: no usable GPU" in said and "Traceback" not in said, f"it said {said[-300:]}"
    setting.record(**{"no card": next(line for line in said.splitlines() if "no usable" in line)})
