"""Who decodes the batches of a run: in all processes as in rank 0, in a resumed run as it began, if that is possible.

In:  a run's state.  Out: the decoder for its streams.  pipeline/stream/make_stream.py describes the decoders.
"""

import torch

from ...pipeline.plan.plan import Plan
from ...pipeline.stream import finish
from ...pipeline.stream.autotune import FUSED, THREADS
from .distributed import Team
from .run_state import RunState


def why_not_fused(plan: Plan, device: torch.device) -> str:
    """Return why the decoder `fused` is not possible for a run's training batches; empty where it is."""
    return finish.why_not_fused(device.type == "cpu", resized=plan.augmentation.resized is not None)


def settle(state: RunState, team: Team, plan: Plan, device: torch.device) -> None:
    """Settle the decoder before the stream is made; a resumed run may need another than it began with.

    Collective: the other processes wait here for the choice of rank 0, which makes its stream first and then
    broadcasts the stream's decoder.
    """
    if not team.first:
        state.decode = team.broadcast(None)
    elif state.decode == FUSED and state.steps_done and (reason := why_not_fused(plan, device)):
        note = f"this run began with --decode fused, which is not possible here: {reason}; pixels differ by rounding"
        state.decode, state.note = "auto", "; ".join(filter(None, (state.note, note)))


def for_views(decode: str) -> str:
    """Return the decoder of evaluation views that fits a decoder of training batches."""
    return THREADS if decode == FUSED else decode
