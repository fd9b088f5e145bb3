"""What a process does to itself: signals that finish the step, memory that stays, the device."""

import ctypes
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from alexnet_dali.pipeline.errors import DeviceError
from alexnet_dali.tools import process
from alexnet_dali.tools.process import Stop, keep_memory, pick_device, stop_on_signals


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks(number, code):
    with stop_on_signals() as stop:
        assert not stop() and stop.exit_code == 0
        os.kill(os.getpid(), number)
        assert stop() and stop.exit_code == code


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_after_it_both_signals_end_the_process(first):
    with stop_on_signals():
        assert signal.getsignal(signal.SIGINT) != signal.SIG_DFL != signal.getsignal(signal.SIGTERM)
        os.kill(os.getpid(), first)
        assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    "first, second",
    [
        ("SIGINT", "SIGTERM"),
        pytest.param("SIGTERM", "SIGTERM", marks=pytest.mark.slow),
        pytest.param("SIGINT", "SIGINT", marks=pytest.mark.slow),
    ],
)
def test_a_second_signal_does_end_it(first, second):
    code = f"""
        import os, signal, time
        from alexnet_dali.tools.process import stop_on_signals
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.{first})
            print("asked", stop(), flush=True)
            os.kill(os.getpid(), signal.{second})
            time.sleep(60)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "asked True\n" and done.returncode == -getattr(signal, second) and done.stderr == ""


@pytest.mark.parametrize("asked", [False, True])
def test_handlers_are_put_back(asked):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyError), stop_on_signals():
        if asked:
            os.kill(os.getpid(), signal.SIGTERM)
        raise KeyError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_nothing_asked_no_code():
    assert Stop().exit_code == 0 and Stop()() is False


def test_freed_memory_is_kept_where_the_c_library_can():
    assert keep_memory() is hasattr(ctypes.CDLL(None), "mallopt")


def test_elsewhere_than_on_glibc_nothing_happens(monkeypatch):
    class Other:
        def __init__(self, name):
            if name is not None:
                raise OSError

    monkeypatch.setattr(process.ctypes, "CDLL", Other)
    assert keep_memory() is False  # no mallopt

    def none(name):
        raise OSError("no C library")

    monkeypatch.setattr(process.ctypes, "CDLL", none)
    assert keep_memory() is False


def test_memory_is_kept_on_the_cpu_alone(monkeypatch):
    kept = []
    monkeypatch.setattr(process, "keep_memory", lambda: kept.append(True))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda", 1) and not kept
    assert pick_device("cpu") == torch.device("cpu") and len(kept) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu") and len(kept) == 3


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError) as caught:
        pick_device("cuda")
    assert caught.value.message == "--device cuda: no usable GPU on this machine"
    assert caught.value.hint == "find the reason with alexnet-prep doctor, or use --device cpu"
    assert caught.value.exit_code == 1
