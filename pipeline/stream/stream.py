"""Run a DALI pipeline and return its batches as torch tensors, without a copy; release everything in the right order.

In:  a source of batches, a graph.  Out: Batch after Batch.  streams.py decides what is in a batch.
"""

import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import StreamError
from ..plan.plan import BatchPlan
from .batch_source import BatchSource
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


class Stream:
    """An iterator over the batches of a DALI pipeline. Use it in a `with`, close it, or drop it when done.

    Batches stay valid after later ones were fetched and after closing. An interruption within a batch ends the stream.

    Args:
        source: what DALI calls for each batch; the stream closes it.
        make_graph: builds the pipeline around it.
        device: where the batches are.
        layout: memory layout of the pictures, `HWC` or `CHW`.
        threads: of decoding, and of DALI.
        decode: the decoder, `threads` or `dali`; of raw pixels what cuts.
        chosen: why this decoder, where it was measured.
        clock: seconds.
    Attributes:
        decode, chosen: as above.
    """

    def __init__(
        self,
        source: BatchSource,
        make_graph: Callable,
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
            self._pipeline = make_graph(source)
        except BaseException:
            source.close()
            raise
        # DALI and the threads read the source's memory, so they must stop before it is freed. In a reference cycle
        # Python may finalize the source first; this callback runs before that.
        self._stop = weakref.finalize(self, _stop, self._pipeline, source)

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
        except BaseException:  # Ctrl-C too: DALI and the source may no longer be at the same batch
            if self._failure is None:
                self._failure = StreamError(
                    "the stream was interrupted within a batch", "create it again from its (epoch, step)"
                )
            self.close()
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

    def synchronize(self) -> None:
        """Wait until all returned batches are on the device; on the CPU they always are."""
        if self._side is not None:
            torch.cuda.current_stream(self._device).synchronize()

    def close(self) -> None:
        """Stop the pipeline and the threads, then close the files."""
        self._stop()

    def _batch(self) -> Batch:
        outputs = self._run()
        began = self._clock()
        # On a GPU the current CUDA stream waits for DALI's; the host does not.
        images = torch.from_dlpack(outputs[0].as_tensor())
        job = self._source.used(self._when_read())
        labels = self._labels(job.payloads.labels)
        self._copy_seconds += self._clock() - began
        return Batch(
            # (n, [views,] height, width, 3) in memory, seen as (n, [views,] 3, height, width): channels_last.
            images.movedim(-1, -3) if self._layout == "HWC" else images,
            labels,
            bool((job.payloads.labels < 0).any()),
            job.records,
            job.plan if isinstance(job.plan, BatchPlan) else None,
        )

    def _run(self) -> tuple:
        source, began = self._source, self._clock()
        elsewhere = source.disk_seconds + source.decode_seconds
        try:
            return self._pipeline.run(torch.cuda.current_stream(self._device) if self._side else None)
        except StopIteration:
            raise
        except Exception as error:
            self._failure = source.explained(error)
            if self._failure is error:
                raise
            raise self._failure from error
        finally:  # DALI calls the source inside run
            waited = source.disk_seconds + source.decode_seconds - elsewhere
            self._graph_seconds += self._clock() - began - waited

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
        read = torch.cuda.Event()
        read.record(torch.cuda.current_stream(self._device))
        return read.synchronize


def _at_once() -> None:
    """On the CPU a returned batch has already been read."""


def _stop(pipeline, source: BatchSource) -> None:
    pipeline.__del__()  # stops its threads even if it is referenced elsewhere; DALI has no public method for this
    source.close()
