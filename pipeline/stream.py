"""Run a DALI pipeline and give its batches as torch tensors, without a copy; let go of everything in the right order.

In:  a Feed, plans of batches, a graph.  Out: Batch after Batch.  What is in a batch is loader.py's to say.
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch

from .errors import StreamError
from .feed import Feed, Payloads
from .plan import BatchPlan

# Arrays of a batch live from the feed until DALI can no longer read them: the batches ahead and two behind.
_KEPT_BEHIND = 2


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        images: float32 (n, 3, crop, crop), or (n, views, 3, crop, crop); pixels of 0..255 less the mean, RGB, in
            channels_last memory, on the stream's device.
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

    Batches stay valid after later ones were fetched and after closing.
    """

    def __init__(self, feed: Feed, plans: Iterator, inputs: Callable, make_graph: Callable, device: torch.device):
        self._source, self._device = _Source(feed, plans, inputs), device
        self._pipeline = make_graph(self._source)
        # The pipeline's threads read the memory map, so they must stop before it closes. Of objects that are lost in
        # a reference cycle Python ends the shards as readily first; this callback is run before any of them.
        self._stop = weakref.finalize(self, _stop, self._pipeline, self._source)
        self._failure: Exception | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._failure is not None:  # DALI would go on with the batch after, under this one's labels
            raise self._failure
        if not self._stop.alive:
            raise StopIteration
        try:
            outputs = self._pipeline.run(self._cuda_stream())
        except StopIteration:
            raise
        except Exception as error:
            self._failure = self._source.explained(error)
            self.close()
            if self._failure is error:
                raise
            raise self._failure from error
        plan, payloads = self._source.used()
        images = torch.from_dlpack(outputs[0].as_tensor())
        labels = torch.from_numpy(payloads.labels)
        if self._device.type == "cuda":
            labels = labels.pin_memory().to(self._device, non_blocking=True)
        # (n, [views,] height, width, 3) in memory, seen as (n, [views,] 3, height, width): channels_last.
        images = images.movedim(-1, -3)
        return Batch(
            images,
            labels,
            bool((payloads.labels < 0).any()),
            _records(plan),
            plan if isinstance(plan, BatchPlan) else None,
        )

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Stop the pipeline, then let go of the memory map that it reads from."""
        self._stop()

    def _cuda_stream(self):
        return torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None


def _stop(pipeline, source: "_Source") -> None:
    pipeline.__del__()  # stops its threads, whoever else may hold it; there is no public name for that
    source.close()


class _Source:
    """What DALI calls for its next batch. It knows no Stream, so a dropped Stream ends at once."""

    def __init__(self, feed: Feed, plans: Iterator, inputs: Callable):
        self._feed, self._plans, self._inputs = feed, plans, inputs
        self._ahead: deque = deque()
        self._behind: deque = deque(maxlen=_KEPT_BEHIND)
        self._failure: Exception | None = None

    def __call__(self) -> list:
        plan = next(self._plans)
        try:
            payloads = self._feed.read(_records(plan))
            inputs = self._inputs(plan, payloads)
        except Exception as error:
            self._failure = error  # DALI would wrap it in text
            raise
        self._ahead.append((plan, payloads, inputs))
        return [payloads.data, *inputs]

    def used(self) -> tuple[BatchPlan | np.ndarray, Payloads]:
        """The plan and the payloads of the batch that DALI has just given."""
        plan, payloads, inputs = self._ahead.popleft()
        self._behind.append((payloads, inputs))
        return plan, payloads

    def explained(self, error: Exception) -> Exception:
        """What went wrong, in people's words: which record, where we can find that out."""
        if self._failure is not None:
            return self._failure
        for plan, payloads, _ in self._ahead:
            for record, data in zip(_records(plan).tolist(), payloads.data, strict=True):
                fault = _fault(data, self._feed.size) if self._feed.encoded else ""
                if fault:
                    return StreamError(
                        f"{self._feed.name(record)}: {fault}",
                        self._feed.hint(record),
                    )
        return StreamError(f"DALI stopped: {' '.join(str(error).split())[:300]}", "alexnet-prep doctor")

    def close(self) -> None:
        """Let go of the memory map."""
        self._ahead.clear()
        self._behind.clear()
        self._feed.close()


def _records(plan: BatchPlan | np.ndarray) -> np.ndarray:
    return plan.records if isinstance(plan, BatchPlan) else plan


def _fault(data: np.ndarray, size: int) -> str:
    """What is wrong with a JPEG file of a set whose short side is `size`, or nothing."""
    try:
        height, width, _ = simplejpeg.decode_jpeg(data, colorspace="RGB").shape
    except ValueError:
        return "its JPEG does not decode"
    return "" if min(height, width) == size else f"its JPEG is {width}x{height}, in a set of size {size}"
