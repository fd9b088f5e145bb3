"""Who decodes: the same batches made by DALI, by threads in front of DALI, or by threads alone.

In:  what a stream is of.  Out: the Stream, with the decoder that was asked for, or the fastest one here.

    dali      DALI gets the records, decodes them, on a GPU there, and computes
    threads   a pool of threads reads, decodes and cuts into reused buffers, and DALI computes
    fused     the threads also compute what DALI's graph would, and no graph runs; only training windows on the CPU,
              see `why_not_fused`
    auto      one of these, by the rule in autotune.py
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..errors import UsageError
from ..plan.plan import Plan, evaluation_batches
from ..shards.manifest import ShardSet
from . import autotune, dali_graph
from .autotune import DALI, FUSED, THREADS
from .batch_source import BatchSource
from .dali_ops import Pictures
from .decoder import Decoder
from .finish import Finishing, why_not_fused
from .inputs import TrainInputs, ViewInputs
from .record_reader import RecordReader
from .stream import DaliGraph, Finished, LastStep, Stream


@dataclass(frozen=True)
class _Streams(ABC):
    """Makes streams of the same batches with any decoder.

    Attributes:
        inputs: the numbers of each batch.
        threads: of decoding, and of DALI.
        dtype, layout: of the pictures.
    """

    shard_set: ShardSet
    split: str
    inputs: TrainInputs | ViewInputs
    device: torch.device
    threads: int
    dtype: str
    layout: str

    @abstractmethod
    def plans(self) -> Iterator:
        """Plan the batches, from the first on."""

    @abstractmethod
    def graph(self, source: Callable, decode: str) -> Any:
        """Build the DALI pipeline for one decoder."""

    @abstractmethod
    def why_not_fused(self) -> str:
        """Return why a DALI graph is needed; empty where threads can finish the pictures."""

    def open(self, decode: str) -> Stream:
        """Make the stream with this decoder; with `auto`, with the one that autotune.py picks."""
        reason = self.why_not_fused()
        if decode == FUSED and reason:
            raise UsageError(f"the decoder fused is not possible: {reason}", "choose auto, threads or dali")
        if decode != "auto":
            return self.make(decode)
        encoded = self.shard_set.encoding == "jpeg"
        return self.make(*autotune.pick_decoder(self.device.type == "cpu", reason, encoded, self.threads))

    def make(self, decode: str, chosen: str = "") -> Stream:
        """Make the stream with this decoder; `chosen` says why it is this one."""
        return Stream(
            self.source(decode),
            lambda source: self.last(source, decode),
            self.device,
            layout=self.layout,
            threads=self.threads,
            decode=decode,
            chosen=chosen,
        )

    def source(self, decode: str) -> BatchSource:
        """Make what plans, reads and decodes."""
        feed, inputs = RecordReader(self.shard_set, self.split), self.inputs
        if decode == DALI:
            return BatchSource(feed, self.plans(), inputs.whole)
        finishing = self.finishing if decode == FUSED else None
        decoder = Decoder(
            *(feed, inputs.windows, inputs.side, self.threads),
            pinned=self.page_locked(decode),
            finishing=finishing,
            dtype=self.dtype,
        )
        return BatchSource(feed, self.plans(), lambda plan, _: [] if finishing else inputs.cut(plan), decoder)

    def finishing(self, plan: Any, out: np.ndarray) -> Finishing:
        """Make the threads' last step of a batch."""
        return Finishing(self.inputs.pictures, self.inputs.cut(plan), out)

    def last(self, source: BatchSource, decode: str) -> LastStep:
        """Make the stream's last step."""
        return Finished(source) if decode == FUSED else DaliGraph(self.graph(source, decode), self.device)

    def page_locked(self, decode: str) -> bool:
        """Whether threads fill page-locked memory, from which the GPU copies."""
        return self.device.type == "cuda" and decode != DALI

    def incoming(self, decode: str) -> Pictures:
        """Describe the pictures that enter the graph: as they are stored, or decoded and cut by threads."""
        pictures = self.inputs.pictures
        return pictures if decode == DALI else replace(pictures, encoded=False, square=True)


@dataclass(frozen=True)
class TrainStreams(_Streams):
    """Training windows from `first`, an epoch and a step, on."""

    plan: Plan
    first: tuple[int, int]

    def plans(self) -> Iterator:
        return self.plan.batches(*self.first)

    def why_not_fused(self) -> str:
        return why_not_fused(
            self.device.type == "cpu", self.dtype, self.layout, self.plan.augmentation.resized is not None
        )

    def graph(self, source: Callable, decode: str) -> Any:
        return dali_graph.train_graph(
            source,
            self.incoming(decode),
            min(self.plan.batch_size, self.plan.records),
            self.device.index,
            self.threads,
            resized=decode == DALI and self.plan.augmentation.resized is not None,
            cut=decode == THREADS,
            page_locked=self.page_locked(decode),
            dtype=self.dtype,
            layout=self.layout,
        )


@dataclass(frozen=True)
class ViewStreams(_Streams):
    """Views of every record once: `windows` from `views_of`, and the number of records, batch size, rank and ranks."""

    windows: np.ndarray
    share: tuple[int, int, int, int]

    def plans(self) -> Iterator:
        return evaluation_batches(*self.share)

    def why_not_fused(self) -> str:
        return "DALI cuts evaluation views"

    def graph(self, source: Callable, decode: str) -> Any:
        return dali_graph.views_graph(
            source,
            self.incoming(decode),
            self.windows,
            self.share[1],
            self.device.index,
            self.threads,
            page_locked=self.page_locked(decode),
            dtype=self.dtype,
            layout=self.layout,
        )
