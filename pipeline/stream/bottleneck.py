"""Which stage keeps the training waiting, and what to change.

In:  what the stall meter measured, where the stream waited.  Out: a stage's name, a sentence with figures, a remedy.
A stage is tight when the waiting is for it. One that is slow and hidden behind the step costs nothing and is not named.
The waiting is booked to where the awaited batch is. One that left the disk late is waited for in the later stages too,
so a stall shorter than their own few milliseconds a batch may be theirs in name only.
"""

from dataclasses import dataclass

from .stall import Elapsed, StageTimes

STAGES = ("disk", "decode", "graph", "copy")
HOST = "host"  # what none of them explains: Python between them, or cores that others use
SHARES = tuple(f"{stage}_percent" for stage in STAGES)

_WAITS_FOR = {
    "disk": "the disk",
    "decode": "the decoding threads",
    "cutting": "the threads that cut raw pictures",
    "graph": "DALI's graph: crop, mirror and means, and decoding too where DALI does it",
    "copy": "copies to the GPU",
    HOST: "no stage, but for Python or for a core",
}


@dataclass(frozen=True)
class Bottleneck:
    """What to say of a run that waits for its data.

    Attributes:
        stage: `disk`, `decode`, `graph`, `copy` or `host`; empty where nothing waits.
        sentence: which it is, with figures.
        remedy: what to change.
    """

    stage: str
    sentence: str
    remedy: str


def stage_percentages(lap: Elapsed, stages: StageTimes) -> dict[str, float]:
    """The stages' parts of the stall in percent of all seconds, by the names that they have in metrics.jsonl."""
    seconds = (stages.disk_seconds, stages.decode_seconds, stages.graph_seconds, stages.copy_seconds)
    whole = lap.seconds
    return {name: 100.0 * part / whole if whole > 0 else 0.0 for name, part in zip(SHARES, seconds, strict=True)}


def verdict(
    total: Elapsed, stages: StageTimes, cores: int, *, on_gpu: bool = False, encoded: bool = True
) -> Bottleneck:
    """Name the stage that most of the waiting is for.

    Args:
        total: of the meter, start-up left out.
        stages: the host's waits in the same time.
        cores: that the process may use.
        on_gpu: `total` is by the GPU's time. What it waited for and the host did not is then the batch's own way onto
            the GPU; and the host may have waited where the GPU was still busy, so that parts add up to more.
        encoded: the shards hold JPEG files; otherwise pixels, for which nobody decodes.
    """
    parts = {name.removesuffix("_percent"): share for name, share in stage_percentages(total, stages).items()}
    rest = max(0.0, total.stall_percent - sum(parts.values()))
    if on_gpu:
        parts["copy"] += rest
    else:
        parts[HOST] = rest
    stage = max(parts, key=lambda name: parts[name])
    if total.waiting_seconds <= 0 or parts[stage] <= 0:
        return Bottleneck("", "nothing waits for data", "")
    figures = ", ".join(f"{name} {share:.1f}%" for name, share in parts.items())
    what = _WAITS_FOR["cutting" if stage == "decode" and not encoded else stage]
    sentence = f"{stage} is tight: most of the waiting is for {what} ({figures} of the time)"
    return Bottleneck(stage, sentence, _remedy(stage, stages.threads, cores, encoded))


def _remedy(stage: str, threads: int, cores: int, encoded: bool) -> str:
    if stage == "disk":
        smaller = "shards of a lower --quality, 85 say" if encoded else "JPEG shards, a seventh of the bytes"
        return (
            "alexnet-prep stage --to a local disk; more memory, since a set that fits is read once; "
            f"{smaller}: alexnet-prep build-lmdb"
        )
    if stage == "decode":
        if 0 < threads < cores:
            return f"{'decode' if encoded else 'cut'} with more threads: there are {threads}, on {cores} cores"
        if not encoded:
            return (
                f"more cores: all {cores} cut already, and raw shards have nothing left but page faults and that; more "
                "memory, if the set does not stay in it; another --batch-size is no help"
            )
        return (
            "raw shards need no decoding: alexnet-prep build-lmdb --encoding raw; or a smaller --quality there, or "
            f"more cores: all {cores} decode already, beside the step where that runs on the CPU"
        )
    if stage == "graph":
        if 0 < threads < cores:
            return f"give DALI more threads: it has {threads}, on {cores} cores"
        raw = "; on a GPU, raw shards, if DALI decodes" if encoded else ""
        return f"more cores ({cores} now); shards as small as the crop needs (--size of build-lmdb){raw}"
    if stage == "copy":
        return "JPEG shards decoded on the GPU send a seventh of raw pixels' bytes; or another --batch-size"
    return (
        "a larger --batch-size: this part is paid once a batch; and see what else runs on the "
        f"{cores} core{'s' if cores > 1 else ''}"
    )
