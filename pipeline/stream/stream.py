"""Run a DALI pipeline and give its batches as torch tensors, without a copy; let go of everything in the right order.

In:  a source of batches, a graph.  Out: Batch after Batch.  What is in a batch is loader.py's to say.
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
        images: (n, 3, crop, crop), or (n, views, 3, crop, crop), RGB, on the stream's device; float32 pixels of 0..255
            less the mean, in channels_last memory, unless the stream was asked for another dtype or layout.
        labels: int64 (n,), on the same device.
        unlabelled: some label is -1, for none.
        records: int64 (n,), NumPy: indices in the split.
        plan: the BatchPlan of a training batch, None in a pass over views.
    """

    images: torch.Tensor
    labels: torch.Tensor
    unlabelled: bool
    records: np.ndarray
    plan: BatchPlan | None


class Stream:
    """Runs a DALI pipeline and gives its batches. Close it, or use it in a `with`, when done; dropping it will do too.

    Batches stay valid after later ones were fetched and after closing. What interrupts it within a batch ends it.

    Args:
        source: what DALI calls for each batch; the stream closes it.
        make_graph: builds the pipeline around it.
        layout: of the pictures' memory, `HWC` or `CHW`.
        threads: of decoding, and of DALI.
        decode: who decodes, or of raw pixels cuts, `threads` or `dali`.
        chosen: a sentence that says why, where that was measured.
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
        # DALI and the threads read what the source keeps, so they must stop before it goes. Of objects that are lost
        # in a reference cycle Python may end the source first; this callback is run before any of them.
        self._stop = weakref.finalize(self, _stop, self._pipeline, source)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._failure is not None:  # DALI would go on with the batch after, under this one's labels
            raise self._failure
        if not self._stop.alive:
            raise StopIteration
        try:
            return self._batch()
        except StopIteration:
            raise
        except BaseException:  # Ctrl-C too: DALI and the source might no longer mean the same batch
            if self._failure is None:
                self._failure = StreamError(
                    "the stream was interrupted within a batch", "make it again from its (epoch, step)"
                )
            self.close()
            raise

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def stages(self) -> StageTimes:
        """Where the time inside this iterator went, since it was made."""
        source = self._source
        return StageTimes(
            source.disk_seconds, source.decode_seconds, self._graph_seconds, self._copy_seconds, self._threads
        )

    def synchronize(self) -> None:
        """Wait until the device has what was given out; on the CPU it has."""
        if self._side is not None:
            torch.cuda.current_stream(self._device).synchronize()

    def close(self) -> None:
        """Stop the pipeline and the threads, then let go of the files."""
        self._stop()

    def _batch(self) -> Batch:
        outputs = self._run()
        began = self._clock()
        # On a GPU outputs are in order behind this stream's work, which waits for DALI's; the host does not.
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
        """Labels on the device, copied beside the step that is still under way there, not behind it."""
        here = torch.from_numpy(labels)
        if self._side is None:
            return here
        present = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._side):
            there = here.pin_memory().to(self._device, non_blocking=True)  # torch keeps page-locked memory for reuse
        present.wait_stream(self._side)
        there.record_stream(present)
        return there

    def _when_read(self) -> Callable[[], object]:
        """What waits until the GPU has read this batch's inputs: behind its outputs, in stream order."""
        if self._side is None:
            return _at_once
        read = torch.cuda.Event()
        read.record(torch.cuda.current_stream(self._device))
        return read.synchronize


def _at_once() -> None:
    """On the CPU a batch that has come out has been read."""


def _stop(pipeline, source: BatchSource) -> None:
    pipeline.__del__()  # stops its threads, whoever else may hold it; there is no public name for that
    source.close()
