"""Return batches as torch tensors, without a copy; release everything in the right order.

In:  a source of batches, and their last step.  Out: Batch after Batch.  streams.py decides what is in a batch.

The last step is a DALI graph, which calls the source for its next batch, or nothing: the source's threads have finished
the pictures. All else is the same for both: reading ahead, threads, errors, labels, waiting times, interruptions, ends.
"""

import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import StreamError
from ..plan.plan import BatchPlan
from .batch_source import BatchSource
from .dali_ops import gpu_error
from .stall import StageTimes


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        images: (n, 3, crop, crop), or (n, views, 3, crop, crop), RGB, on the stream's device; by default float32,
            pixels of 0..255 less the mean, in channels_last memory; see dtype, mean and layout of `train_stream`.
        labels: int64 (n,), on the same device; -1 for none.
        unlabelled: whether any label is -1.
        records: int64 (n,), NumPy: indices in the split.
        plan: the BatchPlan of a training batch; None for views.
    """

    images: torch.Tensor
    labels: torch.Tensor
    unlabelled: bool
    records: np.ndarray
    plan: BatchPlan | None


class LastStep(Protocol):
    """What a stream does with the batches of its source."""

    is_graph: bool  # waiting in `run`, except for the source, is waiting for DALI

    def run(self) -> Any:
        """Run the next batch; StopIteration at the end."""

    def tensor(self, output: Any) -> torch.Tensor:
        """Return the pictures that `run` has returned, as a tensor without a copy."""

    def stop(self) -> None:
        """Stop; nothing reads the source's memory any more."""


class DaliGraph:
    """A DALI pipeline around the source, on the CPU or on a GPU."""

    is_graph = True

    def __init__(self, pipeline: Any, device: torch.device):
        self._pipeline, self._device = pipeline, device

    def run(self) -> Any:
        """Run the pipeline, which has called the source for some batches more than it returns."""
        if self._device.type == "cpu":
            return self._pipeline.run()
        with torch.cuda.device(self._device):  # for what the source does in there: page-locked memory is a device's
            return self._pipeline.run(torch.cuda.current_stream(self._device))

    def tensor(self, output: Any) -> torch.Tensor:
        """Return the output; on a GPU the current CUDA stream waits for DALI's, the host does not."""
        return torch.from_dlpack(output[0].as_tensor())

    def stop(self) -> None:
        """Stop its threads, even if it is referenced elsewhere; DALI has no public method for this."""
        self._pipeline.__del__()


class Finished:
    """The source's threads have finished the pictures: nothing is left to do."""

    is_graph = False

    def __init__(self, source: BatchSource):
        self._source = source

    def run(self) -> Any:
        """Return the source's next pictures."""
        return self._source()[0]

    def tensor(self, output: Any) -> torch.Tensor:
        """Return the pictures; their buffer is used again when no tensor references it."""
        return torch.from_numpy(output)

    def stop(self) -> None:
        """Do nothing."""


class Stream:
    """An iterator over batches. Use it in a `with`, close it, or drop it when done.

    Batches stay valid after later ones were fetched and after closing. An interruption within a batch ends the stream.

    Args:
        source: of the batches; the stream closes it.
        make_last: makes the last step around it.
        device: where the batches are.
        layout: memory layout of the pictures, `HWC` or `CHW`.
        threads: of decoding, and of DALI.
        decode: the decoder, one of `DECODERS`; of raw pixels what cuts.
        chosen: why this decoder, where it was chosen automatically.
        clock: seconds.
    Attributes:
        decode, chosen: as above.
    """

    def __init__(
        self,
        source: BatchSource,
        make_last: Callable[[BatchSource], LastStep],
        device: torch.device,
        *,
        layout: str = "HWC",
        threads: int = 0,
        decode: str = "dali",
        chosen: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._source, self._device, self._layout, self._clock = source, device, layout, clock
        self._threads, self.decode, self.chosen = threads, decode, chosen
        self._graph_seconds = self._copy_seconds = 0.0
        self._failure: Exception | None = None
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        try:
            self._last = make_last(source)
        except BaseException:
            source.close()
            raise
        # DALI and the threads use the source's memory, so they must stop before it is freed. In a reference cycle
        # Python may finalize the source first; this callback runs before that.
        self._stop = weakref.finalize(self, _stop, self._last, source)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._failure is not None:  # DALI would continue with the next batch, under this one's labels
            raise self._failure
        if not self._stop.alive:
            raise StopIteration
        try:
            return self._batch()
        except StopIteration:
            raise
        except BaseException as error:  # Ctrl-C too: DALI and the source may no longer be at the same batch
            failed = gpu_error(error)
            self._failure = (
                failed
                or self._failure
                or StreamError("the stream was interrupted within a batch", "create it again from its (epoch, step)")
            )
            self.close()
            if failed is not None:
                raise failed from error
            raise

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def stages(self) -> StageTimes:
        """Return the seconds spent waiting inside this iterator since its creation, by stage."""
        source = self._source
        return StageTimes(
            source.disk_seconds, source.decode_seconds, self._graph_seconds, self._copy_seconds, self._threads
        )

    def close(self) -> None:
        """Stop the pipeline and the threads, then close the files."""
        self._stop()

    def _batch(self) -> Batch:
        output = self._run()
        began = self._clock()
        images = self._last.tensor(output)
        job = self._source.used(self._when_read())
        labels = self._labels(job.labels)
        self._copy_seconds += self._clock() - began
        return Batch(
            # (n, [views,] height, width, 3) in memory, seen as (n, [views,] 3, height, width): channels_last.
            images.movedim(-1, -3) if self._layout == "HWC" else images,
            labels,
            bool((job.labels < 0).any()),
            job.records,
            job.plan if isinstance(job.plan, BatchPlan) else None,
        )

    def _run(self) -> Any:
        source, began = self._source, self._clock()
        elsewhere = source.disk_seconds + source.decode_seconds
        try:
            return self._last.run()
        except StopIteration:
            raise
        except Exception as error:
            self._failure = source.explained(error)
            if self._failure is error:
                raise
            raise self._failure from error
        finally:  # the source is called inside run
            waited = source.disk_seconds + source.decode_seconds - elsewhere
            self._graph_seconds += self._clock() - began - waited if self._last.is_graph else 0.0

    def _labels(self, labels: np.ndarray) -> torch.Tensor:
        """Copy labels to the device in a CUDA stream of their own, beside the step that still runs there."""
        on_host = torch.from_numpy(labels)
        if self._side is None:
            return on_host
        current = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._side):
            on_device = on_host.pin_memory().to(self._device, non_blocking=True)  # torch reuses page-locked memory
        current.wait_stream(self._side)
        on_device.record_stream(current)
        return on_device

    def _when_read(self) -> Callable[[], object]:
        """Return a function that waits until the GPU has read this batch's inputs, by an event after its outputs."""
        if self._side is None:
            return _at_once
        read = torch.cuda.Event(blocking=True)  # waiting, it leaves its core to the decoding threads
        read.record(torch.cuda.current_stream(self._device))
        return read.synchronize


def _at_once() -> None:
    """On the CPU a returned batch has already been read."""


def _stop(last: LastStep, source: BatchSource) -> None:
    try:
        last.stop()
    finally:
        source.close()
