"""Which stage the training waits for, and what to change.

In:  the stall meter's seconds and the stream's waiting times.  Out: a stage's name, a sentence with figures, a remedy.
A stage is the bottleneck if the training waits for it. A slow stage that overlaps with the step costs nothing and is
not named. Waiting counts for the stage in which the awaited batch is. A batch that left the disk late is waited for in
the later stages too, so a stall shorter than their own few milliseconds a batch may be attributed to them.
"""

from dataclasses import dataclass

from .stall import Elapsed, StageTimes

STAGES = ("disk", "decode", "graph", "copy")
HOST = "host"  # none of them: Python between them, or cores that other programs use
SHARES = tuple(f"{stage}_percent" for stage in STAGES)

_WAITS_FOR = {
    "disk": "the disk",
    "decode": "the decoding threads",
    "cutting": "the threads that cut raw pictures",
    "graph": "DALI's graph: crop, mirror and means, and decoding too where DALI does it",
    "copy": "copies to the GPU",
    HOST: "no stage, but Python or a free core",
}


@dataclass(frozen=True)
class Bottleneck:
    """The verdict on a run that waits for its data.

    Attributes:
        stage: `disk`, `decode`, `graph`, `copy` or `host`; empty where nothing is waited for.
        sentence: the stage, with figures.
        remedy: what to change.
    """

    stage: str
    sentence: str
    remedy: str


def stage_percentages(lap: Elapsed, stages: StageTimes) -> dict[str, float]:
    """Compute each stage's waiting time in percent of all seconds, by its key in metrics.jsonl."""
    seconds = (stages.disk_seconds, stages.decode_seconds, stages.graph_seconds, stages.copy_seconds)
    whole = lap.seconds
    return {name: 100.0 * part / whole if whole > 0 else 0.0 for name, part in zip(SHARES, seconds, strict=True)}


def verdict(
    total: Elapsed, stages: StageTimes, cores: int, *, on_gpu: bool = False, encoded: bool = True
) -> Bottleneck:
    """Name the stage that most of the waiting is for.

    Args:
        total: from the meter, without start-up.
        stages: the host's waiting times in the same span.
        cores: available to the process.
        on_gpu: `total` is in the GPU's time. What the GPU waited for and the host did not is then the batch's transfer
            to the GPU; and the host may have waited while the GPU was still busy, so that the parts add up to more.
        encoded: the shards hold JPEG files; otherwise raw pixels, which are only cut.
    Returns:
        the stage, a sentence with percentages, and a remedy.
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
    sentence = f"{stage} is the bottleneck: most of the waiting is for {what} ({figures} of the time)"
    return Bottleneck(stage, sentence, _remedy(stage, stages.threads, cores, encoded))


def _remedy(stage: str, threads: int, cores: int, encoded: bool) -> str:
    if stage == "disk":
        smaller = "shards of a lower --quality, such as 85" if encoded else "JPEG shards, a seventh of the bytes"
        return (
            "alexnet-prep stage --to a local disk; more memory, because a set that fits is read only once; "
            f"{smaller}: alexnet-prep build-lmdb"
        )
    if stage == "decode":
        if 0 < threads < cores:
            return f"{'decode' if encoded else 'cut'} with more threads: now {threads}, on {cores} cores"
        if not encoded:
            return (
                f"more cores: all {cores} cut already, and raw shards cost only page faults and cutting; more memory, "
                "if the set does not stay in it; another --batch-size does not help"
            )
        return (
            "raw shards, which need no decoding: alexnet-prep build-lmdb --encoding raw; or a lower --quality, or "
            f"more cores: all {cores} decode already, besides the step where that runs on the CPU"
        )
    if stage == "graph":
        if 0 < threads < cores:
            return f"give DALI more threads: now {threads}, on {cores} cores"
        raw = "; on a GPU, raw shards, if DALI decodes" if encoded else ""
        return f"more cores ({cores} now); shards as small as the crop needs (--size of build-lmdb){raw}"
    if stage == "copy":
        return "JPEG shards decoded on the GPU, a seventh of the bytes of raw pixels; or another --batch-size"
    return (
        "a larger --batch-size: this cost is per batch; and check what else runs on the "
        f"{cores} core{'s' if cores > 1 else ''}"
    )
