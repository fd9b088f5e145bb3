"""Who decodes the batches of a run: in all processes as in rank 0, in a resumed run as it began, if that is possible.

In:  a run's state.  Out: the decoder for its streams.  pipeline/stream/make_stream.py describes the decoders.
"""

import torch

from ...pipeline.errors import UsageError
from ...pipeline.stream import finish
from ...pipeline.stream.autotune import FUSED, THREADS, pick_decoder
from .run_state import RunState


def settle(state: RunState, asked: str, resized: bool, encoded: bool, device: torch.device, threads: int) -> None:
    """Settle the decoder of a run before its stream is made.

    Args:
        asked: what the user asked for; with `auto` a resumed run keeps its decoder where that is possible.
        resized: the run's crops are resized.
        encoded: its records are JPEG files.
        threads: of this process.
    Raises:
        UsageError: the user asked for `fused`, which is not possible.
    """
    reason = finish.why_not_fused(device.type == "cpu", resized=resized)
    if state.decode == FUSED and reason:
        if asked == FUSED:
            raise UsageError(f"the decoder fused is not possible: {reason}", "choose --decode auto, threads or dali")
        note = f"this run used --decode fused, which is not possible here: {reason}; pixels differ by rounding"
        state.decode, state.note = "auto", "; ".join(filter(None, (state.note, note)))
    if state.decode == "auto":
        state.decode, state.chosen = pick_decoder(device.type == "cpu", reason, encoded, threads)


def for_views(decode: str) -> str:
    """Return the decoder of evaluation views that fits a decoder of training batches."""
    return THREADS if decode == FUSED else decode
