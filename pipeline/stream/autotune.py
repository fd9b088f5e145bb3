"""Which decoder a stream takes when it is left to choose: a rule, so that a run never depends on a measurement.

In:  where pictures go, how they are stored, the number of threads.  Out: the decoder's name, and why it is this one.

    on the CPU    fused where it is possible (finish.py), else threads
    on a GPU      threads; dali for JPEGs where this process has fewer than CORES threads

A core decodes about 2,800 JPEGs of 256x256 a second, so four keep up with most GPUs, and beside them the GPU only
trains. DALI's decoder takes time from the step where the GPU has no JPEG engine, and cores too, for Huffman codes. An
idle GPU would show neither, hence no measurement. The GPU's decoder rounds differently, so a resumed run keeps the
decoder that it began with.
"""

from ..errors import UsageError

FUSED, THREADS, DALI = DECODERS = ("fused", "threads", "dali")
CORES = 4


def check(decode: str) -> None:
    """Check the name of a decoder.

    Raises:
        UsageError: it is neither `auto` nor one of `DECODERS`.
    """
    if decode not in ("auto", *DECODERS):
        raise UsageError(f"unknown decoder {decode!r}", "choose auto, fused, threads or dali")


def pick_decoder(on_cpu: bool, why_not_fused: str, encoded: bool, threads: int) -> tuple[str, str]:
    """Pick a decoder by the rule above.

    Args:
        on_cpu: the batches stay on the CPU.
        why_not_fused: empty where threads can finish the pictures.
        encoded: records are JPEG files; otherwise raw pixels.
        threads: of this process, for decoding.
    Returns:
        the decoder, and a sentence that says why.
    """
    if on_cpu and not why_not_fused:
        return FUSED, "decode fused: the fastest on a CPU"
    if on_cpu:
        return THREADS, f"decode threads: fused, the fastest on a CPU, is not possible: {why_not_fused}"
    if not encoded:
        return THREADS, "decode threads: raw pixels are only cut"
    if threads < CORES:
        return DALI, f"decode dali: the GPU decodes, because {CORES} threads or more would be needed, not {threads}"
    return THREADS, f"decode threads: {threads} threads decode, and the GPU only trains"
