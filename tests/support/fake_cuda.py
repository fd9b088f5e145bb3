"""A GPU that is not there: `torch.cuda` on a CPU, so that every line for a GPU runs where there is none.

In:  pytest's monkeypatch.  Out: a FakeCuda, which knows what waited for the device, and which tensors are on it.

    from fake_cuda import one_gpu  # noqa: F401  # the fixture `cuda`

    def test_it(cuda):
        ...
        assert cuda.waits == []           # a step that prints nothing waits for nothing
        assert cuda.mixed == []           # no operation on tensors of two devices

A tensor is on the device if it was moved or made there, or computed from one that is. Its memory is the host's, but it
answers `device` and `is_cuda` as a GPU's does; in a backward pass all tensors do. `autocast` is the CPU's. DALI builds
its GPU graphs with CPU kernels (graphs.py), and what it returns is on the device. Only the thread of the test is
watched. With `busy` an event is not complete until something has waited for it, or for its stream.
"""

import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from alexnet_dali.model.nets import lrn
from alexnet_dali.model.training import parallel
from alexnet_dali.pipeline.stream.stream import DaliGraph
from graphs import gpu_branch_on_cpu
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakIdKeyDictionary

_ROOT = Path(__file__).parents[2]
_tensor_of = DaliGraph.tensor
_READS = {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "__complex__", "__format__", "__repr__"}
_WAITS = {"nonzero", "masked_select", "unique", "unique_consecutive", "equal", "allclose", "is_nonzero", "argwhere"}
_APART = {"__set__", "copy_", "__getitem__", "__setitem__", "_has_compatible_shallow_copy_type"}  # of two devices


class FakeCuda(TorchFunctionMode):
    """A GPU on the CPU.

    Attributes:
        waits: calls that wait for the device: what was called, and the line of this project that called it.
        mixed: operations on tensors of the host and of the device, which CUDA refuses.
        recorded: tensors and streams of `record_stream`.
        count: number of devices.
        busy: whether events stay incomplete until something waits for them.
    """

    def __init__(self, count: int = 1):
        super().__init__()
        self.waits: list[str] = []
        self.mixed: list[str] = []
        self.recorded: list[tuple[torch.Tensor, Stream]] = []
        self.count, self.busy, self._index = count, False, 0
        self._tensors: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._pinned: list[torch.Tensor] = []  # kept, so that no other memory gets their addresses
        self.default = Stream(self)
        self.current = self.default

    # Tensors

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is on the device."""
        return tensor in self._tensors or torch._C._current_graph_task_id() != -1

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Say that a tensor is on the device."""
        self._tensors[tensor] = True
        return tensor

    def pinned(self, address: int) -> bool:
        """Whether page-locked memory is at this address."""
        return any(0 <= address - each.data_ptr() < each.nbytes for each in self._pinned)

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Say that a tensor's memory is page-locked."""
        self._pinned.append(tensor)
        return tensor

    def wait(self, what: str) -> None:
        """Note a call that waits for the device."""
        self.waits.append(f"{what}, {_caller()}")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        tensors = list(_tensors((args, kwargs)))
        here = [self.has(tensor) for tensor in tensors]
        on_it = here[0] if here else False  # the first is `self`
        if name == "__get__":
            return self._attribute(func, on_it, args, kwargs)
        if tensors and name in ("is_pinned", "get_device", "numpy", "__array__", "pin_memory"):
            return self._method(name, func, on_it, tensors[0], args, kwargs)
        if tensors and name in ("to", "cpu", "cuda"):
            return self._moved(name, func, on_it, args, kwargs)
        if (on_it and name in _READS) or (any(here) and name in _WAITS):
            self.wait(resolve_name(func) or name)
        if name == "copy_" and any(here):
            self._copied(name, here, tensors, kwargs.get("non_blocking", len(args) > 2 and args[2]))
        if name in ("__getitem__", "__setitem__") and on_it and any(t.dtype == torch.bool for t in _tensors(args[1])):
            self.wait(f"{name} by a mask")
        on_host = [tensor for tensor, is_here in zip(tensors, here, strict=True) if not is_here and tensor.dim()]
        if name not in _APART and any(here) and on_host:
            self.mixed.append(f"{resolve_name(func) or name}, {_caller()}")
        wanted = any(here) if name not in ("copy_", "__setitem__") else on_it
        device = kwargs.get("device")
        if device is not None:
            wanted = _is_cuda(device)
            kwargs["device"] = "cpu" if wanted else device
            if wanted and name in ("tensor", "as_tensor") and not here:
                self.wait(f"torch.{name} from the host")
        pin = kwargs.pop("pin_memory", False)
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            if wanted:
                self.put(tensor)
            if pin:
                self.pin(tensor)
        if name == "__set__" and len(tensors) > 1 and here[1]:  # tensor.data = other
            self.put(tensors[0])
        return result

    def _attribute(self, func, on_it: bool, args, kwargs):
        name = getattr(func.__self__, "__name__", "")
        if on_it and name in ("device", "is_cuda", "is_cpu"):
            return {"device": torch.device("cuda", self._index), "is_cuda": True, "is_cpu": False}[name]
        result = func(*args, **kwargs)
        if on_it and isinstance(result, torch.Tensor):
            self.put(result)
        return result

    def _method(self, name: str, func, on_it: bool, tensor: torch.Tensor, args, kwargs):
        if name == "is_pinned":
            return self.pinned(tensor.data_ptr())
        if name == "get_device":
            return self._index if on_it else -1
        if name == "pin_memory":
            if on_it:
                raise RuntimeError("cannot pin 'torch.cuda.Tensor' only dense CPU tensors can be pinned")
            return tensor if self.pinned(tensor.data_ptr()) else self.pin(tensor.clone())
        if on_it:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return func(*args, **kwargs)

    def _moved(self, name: str, func, on_it: bool, args, kwargs):
        """`to`, `cpu`, `cuda`: a copy where the device changes."""
        tensor, *rest = args
        wanted = {"cpu": False, "cuda": True}.get(name, on_it)
        if name == "to":
            for value in [*rest, *kwargs.values()]:
                if isinstance(value, torch.Tensor):
                    wanted = self.has(value)
                elif isinstance(value, (str, torch.device)) or type(value) is int:
                    wanted = _is_cuda(value)
            rest = [_on_host(value) for value in rest]
            kwargs = {key: _on_host(value) for key, value in kwargs.items()}
            non_blocking = kwargs.get("non_blocking", next((value for value in rest if type(value) is bool), False))
            result = func(tensor, *rest, **kwargs)
        else:
            non_blocking, result = kwargs.get("non_blocking", False), tensor
        if wanted != on_it:
            self._copied(name, [wanted, on_it], [tensor, tensor], non_blocking)
            result = result.clone() if result.data_ptr() == tensor.data_ptr() else result
        return self.put(result) if wanted else result

    def _copied(self, name: str, here: list[bool], tensors: list[torch.Tensor], non_blocking: bool) -> None:
        """Note a copy from tensors[1] to tensors[0] that waits: a blocking one, or one of pageable memory."""
        if here[0] == here[1]:
            return
        host = tensors[1] if here[0] else tensors[0]
        to = "the device" if here[0] else "the host"
        if not non_blocking:
            self.wait(f"{name} to {to}, blocking")
        elif here[0] and host.numel() and not self.pinned(host.data_ptr()):
            self.wait(f"{name} to {to}, of pageable memory")

    def _output(self, last: DaliGraph, output) -> torch.Tensor:
        """What DALI has returned, on the device of its pipeline."""
        tensor = _tensor_of(last, output)
        return self.put(tensor) if last._device.type == "cuda" else tensor

    # torch.cuda

    @contextmanager
    def stream(self, stream: "Stream | None"):
        """torch.cuda.stream."""
        before, self.current = self.current, stream or self.current
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def device(self, device):
        """torch.cuda.device."""
        yield

    def set_device(self, device) -> None:
        """torch.cuda.set_device."""
        self._index = torch.device("cuda", device).index if isinstance(device, int) else torch.device(device).index or 0

    def synchronize(self, device=None) -> None:
        """torch.cuda.synchronize."""
        self.wait("torch.cuda.synchronize")

    def install(self, patch: pytest.MonkeyPatch) -> "FakeCuda":
        """Replace torch.cuda's functions."""
        autocast = torch.autocast
        properties = SimpleNamespace(
            name="no GPU", major=9, minor=0, total_memory=80 << 30, multi_processor_count=132, uuid="GPU-0"
        )
        replaced = {
            "is_available": lambda: True,
            "device_count": lambda: self.count,
            "current_device": lambda: self._index,
            "set_device": self.set_device,
            "device": self.device,
            "Stream": lambda device=None, **_: Stream(self),
            "Event": lambda **options: Event(self, **options),
            "current_stream": lambda device=None: self.current,
            "default_stream": lambda device=None: self.default,
            "stream": self.stream,
            "synchronize": self.synchronize,
            "get_device_capability": lambda device=None: (properties.major, properties.minor),
            "get_device_name": lambda device=None: properties.name,
            "get_device_properties": lambda device=None: properties,
            "is_bf16_supported": lambda *_, **__: True,
            "memory_allocated": lambda device=None: 0,
            "max_memory_allocated": lambda device=None: 0,
            "memory_reserved": lambda device=None: 0,
            "max_memory_reserved": lambda device=None: 0,
            "reset_peak_memory_stats": lambda device=None: None,
            "mem_get_info": lambda device=None: (80 << 30, 80 << 30),
            "empty_cache": lambda: None,
            "init": lambda: None,
            "is_initialized": lambda: True,
            "_lazy_init": lambda: None,
            "is_current_stream_capturing": lambda: False,
            "get_arch_list": lambda: ["sm_90"],
            "manual_seed_all": lambda seed: None,
        }
        for name, value in replaced.items():
            patch.setattr(torch.cuda, name, value)
        gpu_branch_on_cpu(patch)
        patch.setattr(torch, "autocast", lambda device_type, *rest, **more: autocast("cpu", *rest, **more))
        patch.setattr(torch.Tensor, "record_stream", lambda *pair: self.recorded.append(pair))
        patch.setattr(DaliGraph, "tensor", lambda *pair: self._output(*pair))  # noqa: PLW0108  # a method
        return self


class Stream:
    """A CUDA stream in which everything is done at once."""

    cuda_stream = 0  # the address of a real one; DALI reads it
    device = torch.device("cuda", 0)

    def __init__(self, cuda: FakeCuda):
        self._cuda = cuda
        self.events: list[Event] = []

    def synchronize(self) -> None:
        self._cuda.wait("Stream.synchronize")
        for event in self.events:
            event.complete = True

    def query(self) -> bool:
        return all(event.complete for event in self.events)

    def wait_stream(self, other: "Stream") -> None:
        """The device waits, not the host."""

    def wait_event(self, event: "Event") -> None:
        """The device waits, not the host."""

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = event or Event(self._cuda)
        event.record(self)
        return event


class Event:
    """An event in a CUDA stream; one that was never recorded is complete, as in CUDA."""

    def __init__(self, cuda: FakeCuda, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False):
        self._cuda, self._timing, self.complete, self.seconds = cuda, enable_timing, True, 0.0

    def record(self, stream: Stream | None = None) -> None:
        self.complete, self.seconds = not self._cuda.busy, time.perf_counter()
        (stream or self._cuda.current).events.append(self)

    def synchronize(self) -> None:
        if not self.complete:
            self._cuda.wait("Event.synchronize")
        self.complete = True

    def query(self) -> bool:
        return self.complete

    def wait(self, stream: Stream | None = None) -> None:
        """The device waits, not the host."""

    def elapsed_time(self, later: "Event") -> float:
        if not (self._timing and later._timing):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        if not (self.complete and later.complete):
            raise RuntimeError("CUDA error: device not ready")
        return 1000 * (later.seconds - self.seconds)


@pytest.fixture(name="cuda")
def one_gpu(monkeypatch):
    """One fake GPU, for the whole test."""
    for kept in (lrn._band, parallel._powers):  # tensors of the GPU of an earlier test
        kept.cache_clear()
    with FakeCuda().install(monkeypatch) as fake:
        yield fake


def _is_cuda(device) -> bool:
    return isinstance(device, int) or torch.device(device).type == "cuda"


def _on_host(value):
    """A device of a `to`, on the host."""
    return torch.device("cpu") if isinstance(value, (str, torch.device)) or type(value) is int else value


def _tensors(value):
    """All tensors in lists, tuples and dicts, in their order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _caller() -> str:
    """The innermost line of this project, without this file and without what is installed."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        inside = path.is_file() and path.resolve().is_relative_to(_ROOT) and "site-packages" not in path.parts
        if inside and path.name != Path(__file__).name:
            return f"{path.resolve().relative_to(_ROOT)}:{frame.lineno}: {frame.line}"
    return "?"
