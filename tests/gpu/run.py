"""The checks on one GPU, in one script: `make test-gpu`; with `--device cpu` a rehearsal of the script itself.

    python tests/gpu/run.py --out gpu-report

Photos and shard sets are made first; then the clock starts. Each check runs in a process of its own, under its own
time limit, so that one that fails, hangs or spoils the card loses nothing of the others. After each, all results so
far are in OUT/gpu-report.json and, as a table, in OUT/gpu-report.md. Exit code 0: no check failed.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

ROOT = Path(__file__).parents[2]
SPEED = {"cuda": 4096, "cpu": 96}  # photos of the sets for speed
LONGER = {"cuda": 1, "cpu": 3}  # time limits: a rehearsal shares its cores with other programs
DONE, SKIPPED, FAILED = "passed", "skipped", "failed"


@dataclass(frozen=True)
class Check:
    """One check: its number, the module and the function, its time limit in seconds."""

    number: int
    module: str
    function: str
    seconds: int


CHECKS = (
    Check(1, "check_stream", "pixels", 120),
    Check(2, "check_stream", "lifetime", 60),
    Check(3, "check_stream", "decoder_place", 60),
    Check(4, "check_net", "normalisation", 60),
    Check(5, "check_net", "step", 60),
    Check(6, "check_runs", "resume", 120),
    Check(7, "check_net", "waits", 60),
    Check(8, "check_runs", "two_processes", 120),
    Check(9, "check_runs", "nccl", 60),
    Check(10, "check_stream", "meter", 30),
    Check(11, "check_speed", "speed", 180),
    Check(12, "check_runs", "missing", 60),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks, or with --child one of them in this process; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=list(SPEED))
    parser.add_argument("--only", default="", metavar="1,4", help="these checks alone")
    parser.add_argument("--minutes", type=float, help="of all checks together; on a GPU 8, in a rehearsal 24")
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), help="folder of photos, logs and the report")
    parser.add_argument("--reduced", action="store_true", help="few cases of each check, for a rehearsal")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child is not None:
        return child(options)
    options.minutes = options.minutes or 8.0 * LONGER[options.device]
    wanted = numbers(options.only)
    if unknown := set(wanted) - {check.number for check in CHECKS}:
        parser.error(f"--only: no check {min(unknown)}; there are 1 to {len(CHECKS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    return run(options, [check for check in CHECKS if check.number in wanted])


def numbers(only: str) -> list[int]:
    """Return the numbers of the checks that --only names; all without it."""
    return [int(word) for word in only.split(",") if word] or [check.number for check in CHECKS]


def run(options: argparse.Namespace, chosen: list[Check]) -> int:
    """Make the photos, run the checks one after the other, and write the report after each."""
    report = {"device": options.device, "command": " ".join(sys.argv), "checks": []}
    in_child(options, 0, 600)
    report |= told(options, 0) | {"minutes": options.minutes}
    write_report(options.out, report)
    if report.get("state") == FAILED:
        print(f"the photos or the device are not there: {report['message']}")
        return 1
    deadline = time.monotonic() + 60 * options.minutes
    for check in chosen:
        left = deadline - time.monotonic()
        began = time.monotonic()
        if left < 5:
            result = {"state": "not run", "message": f"the {options.minutes:g} minutes are over"}
        else:
            reason = in_child(options, check.number, min(check.seconds * LONGER[options.device], left))
            result = told(options, check.number)
            if reason:
                result = {**result, "state": FAILED, "message": reason}
        seconds = round(time.monotonic() - began, 1)
        report["checks"].append({"number": check.number, "name": check.function, "seconds": seconds, **result})
        write_report(options.out, report)
        print(
            f"{check.number:2} {check.function:14} {result['state']:8} {seconds:6.1f} s  {result['message']}",
            flush=True,
        )
    bad = [each for each in report["checks"] if each["state"] not in (DONE, SKIPPED)]
    print(
        f"{len(report['checks']) - len(bad)} of {len(chosen)} checks without a fault: {options.out / 'gpu-report.md'}"
    )
    return 1 if bad else 0


def in_child(options: argparse.Namespace, number: int, seconds: float) -> str:
    """Run one check in a process of its own; return why it has no result of its own, or an empty string."""
    file, log = options.out / f"check-{number}.json", options.out / f"check-{number}.log"
    file.unlink(missing_ok=True)
    words = [sys.executable, __file__, "--child", str(number), "--device", options.device, "--out", str(options.out)]
    words += ["--only", options.only, *(["--reduced"] if options.reduced else [])]
    # On a busy machine threads that wait for each other take many times as long.
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if options.device == "cpu" else {})
    with open(log, "w") as output:
        process = subprocess.Popen(
            words, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"took longer than {seconds:.0f} s"
        finally:  # with the processes that it has started
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
        return f"exit code {process.returncode}: {last[0][:300]}"
    return ""


def told(options: argparse.Namespace, number: int) -> dict:
    """Return what a check has written: state, message and figures, as far as it came."""
    with suppress(OSError, ValueError):
        return json.loads((options.out / f"check-{number}.json").read_text())
    return {"state": FAILED, "message": "it wrote nothing", "figures": {}}


def child(options: argparse.Namespace) -> int:
    """Run one check in this process, or make the photos for number 0; every figure is in the file at once."""
    file = options.out / f"check-{options.child}.json"
    state = {"state": FAILED, "message": "it ended too early", "figures": {}}

    def write(figures: dict) -> None:
        state["figures"] = figures
        beside = file.with_suffix(".part")
        beside.write_text(json.dumps(state, indent=1))
        os.replace(beside, file)

    try:
        if options.child == 0:
            state |= prepared(options)
        else:
            import torch
            from gpu_setting import Setting, SkippedError

            if options.device == "cpu":
                shrink()

            check = next(check for check in CHECKS if check.number == options.child)
            scratch = options.out / f"scratch-{check.number}-{os.getpid()}"
            device = torch.device(options.device, 0 if options.device == "cuda" else None)
            setting = Setting(device, options.out / "data", scratch, options.reduced, write=write)
            state["figures"] = setting.figures
            try:
                getattr(importlib.import_module(check.module), check.function)(setting)
                state |= {"state": DONE, "message": ""}
            except SkippedError as reason:
                state |= {"state": SKIPPED, "message": str(reason)}
    except Exception as error:
        traceback.print_exc()
        name = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        state |= {"state": FAILED, "message": name + " ".join(str(error).split())[:600]}
    write(state["figures"])
    return 0


def shrink() -> None:
    """Make nets of few hidden units in this process."""
    import tiny
    from alexnet_dali.model.nets import alexnet
    from alexnet_dali.tools.process import keep_memory

    alexnet.HIDDEN = tiny.HIDDEN
    keep_memory()


def prepared(options: argparse.Namespace) -> dict:
    """Make the photos and shard sets; return the machine's description."""
    import gpu_data
    import torch
    from alexnet_dali.tools.bench.timing import machine

    assert options.device == "cpu" or torch.cuda.is_available(), "torch finds no GPU; rehearse with --device cpu"
    card = torch.cuda.get_device_name() if options.device == "cuda" else "no GPU: a rehearsal"
    speed = SPEED[options.device] if {3, 11} & set(numbers(options.only)) else 0
    sets = ("jpeg",) if options.reduced else gpu_data.SMALL
    record_bytes = gpu_data.make(options.out / "data", speed, sets)
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], check=False, capture_output=True)
    return {
        "state": DONE,
        "message": "",
        "card": card,
        "machine": machine(),
        "commit": commit.stdout.decode().strip(),
        "bytes a record": record_bytes,
    }


def write_report(out: Path, report: dict) -> None:
    """Write the JSON file and the table, each atomically."""
    head = f"{report.get('card')}, {report.get('machine', '')}".replace("\n", "; ")
    lines = [f"{head}; commit {report.get('commit')}: `{report['command']}`", ""]
    lines += ["| check | result | seconds | figures |", "|---|---|---:|---|"]
    for each in report["checks"]:
        figures = "; ".join(f"{name}: {flat(value)}" for name, value in each["figures"].items())
        result = f"{each['state']}: {each['message']}" if each["message"] else each["state"]
        cells = [f"{each['number']} {each['name'].replace('_', ' ')}", result, f"{each['seconds']:.0f}", figures]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    texts = {"gpu-report.json": json.dumps(report, indent=1), "gpu-report.md": "\n".join(lines)}
    for name, text in texts.items():
        beside = out / f".{name}.part"
        beside.write_text(text + "\n")
        os.replace(beside, out / name)


def flat(value: object) -> str:
    """Return a figure, or several, in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {flat(each)}" for name, each in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(main())
