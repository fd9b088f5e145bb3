"""Where a stream's time goes: what the stall meter tells disk, decoding, graph and copy apart by.

In:  nothing.  Out: a frozen record of seconds, which only grow; subtract two of them for a span. No torch, no DALI.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stages:
    """Wall seconds that whoever iterates over the stream spent inside it, by what it was waiting for.

    The four exclude each other, and their sum is the time inside `next(stream)` but for its bookkeeping. What the
    stages do meanwhile, behind the reader's back, is not in them: a stage that keeps up costs nothing.

    Attributes:
        disk_seconds: waiting for the read-ahead to bring a batch's records into memory, and looking them up.
        decode_seconds: waiting for the threads that decode and cut, of raw shards that cut, on a GPU into page-locked
            memory; 0 with `decode="dali"`.
        graph_seconds: waiting for DALI: crop, mirror and means, with `decode="dali"` decoding too, and on a GPU
            queueing the pictures' transfer.
        copy_seconds: handing the batch over: DALI's pictures as a tensor, without a copy; on a GPU also queueing the
            labels' transfer and an event behind the pictures, the host's part of both. On the CPU next to nothing.
        threads: of decoding and of DALI, each.
    """

    disk_seconds: float = 0.0
    decode_seconds: float = 0.0
    graph_seconds: float = 0.0
    copy_seconds: float = 0.0
    threads: int = 0

    def __sub__(self, before: "Stages") -> "Stages":
        return Stages(
            self.disk_seconds - before.disk_seconds,
            self.decode_seconds - before.decode_seconds,
            self.graph_seconds - before.graph_seconds,
            self.copy_seconds - before.copy_seconds,
            self.threads,
        )
