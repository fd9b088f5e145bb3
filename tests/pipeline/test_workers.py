"""The pool of worker processes: nobody is left behind, whatever ends it."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from alexnet_dali.pipeline import workers
from alexnet_dali.pipeline.workers import available_cores, worker_pool


def alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as status:
            return status.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(processes, seconds=10.0) -> bool:
    """Whether all of them end in time."""
    end = time.monotonic() + seconds
    while any(alive(process) for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_cores_are_those_this_process_may_use():
    assert available_cores() == len(os.sched_getaffinity(0))


def death_signal() -> int:
    """The signal that this process gets when its parent dies."""
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number))  # PR_GET_PDEATHSIG
    return number.value


def test_a_worker_dies_with_its_parent_at_once():
    with worker_pool(1) as pool:
        assert pool.submit(death_signal).result() == signal.SIGKILL


def test_an_error_ends_the_workers_and_no_other_child():
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt), worker_pool(1) as pool:
            (worker,) = {pool.submit(os.getpid).result()}
            raise KeyboardInterrupt
        assert gone([worker])
        assert alive(other.pid)
    finally:
        other.terminate()
        other.join()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(number):
    """Killed, or stopped by Ctrl-C that a terminal sends to all: no worker stays, none prints a traceback."""
    code = """
import os, time
from alexnet_dali.pipeline.workers import worker_pool
if __name__ == "__main__":
    with worker_pool(2) as pool:
        print(*{job.result() for job in [pool.submit(os.getpid) for _ in range(20)]}, flush=True)
        time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert pids
        if number == signal.SIGINT:
            os.killpg(parent.pid, number)
        else:
            os.kill(parent.pid, number)
        _, errors = parent.communicate(timeout=20)
    assert gone(pids)
    assert errors.count("Traceback") <= 1  # the parent's own KeyboardInterrupt, which the commands turn into a line


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
@pytest.mark.parametrize("which", [0, 1])
def test_a_lost_worker_does_not_keep_a_finished_pool(monkeypatch, number, which):
    """One that hangs, and one that was killed, perhaps holding the lock that the others wait for."""
    monkeypatch.setattr(workers, "_LAST_SECONDS", 0.5)
    began = time.monotonic()
    with worker_pool(2) as pool:
        assert [job.result() for job in [pool.submit(abs, k) for k in range(6)]] == list(range(6))
        time.sleep(0.2)  # both idle, one of them with the queue's lock
        os.kill(pool.processes[which].pid, number)
    assert gone([process.pid for process in pool.processes])
    assert time.monotonic() - began < 15
