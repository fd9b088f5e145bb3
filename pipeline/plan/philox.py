"""Random words of the Philox generator, of which every draw is made, and permutations. NumPy in and out.

Every draw is a 64-bit word of Philox4x64-10 (Salmon et al. 2011): key = (seed, 0), and word w of a purpose is
word w mod 4 of the block with counter (w // 4 + 1, 0, purpose, epoch). NumPy promises its generators' raw words,
but not its distributions, so integers, uniforms and Gaussians are made by formulas (plan.py). Seed and epoch are
separate inputs, not added: seed 1 in epoch 1 shares nothing with seed 2 in epoch 0.
"""

import threading

import numpy as np

from ..errors import PlanError

# Purposes: the third word of the counter. Numbers never change; new ones are appended.
ORDER, CROP, FLIP, LIGHT, VIEW, DROPOUT, BUILD, HOLD_OUT, RESIZED = range(9)


def philox_words(seed: int, epoch: int, purpose: int, start: int, count: int) -> np.ndarray:
    """Compute words start..start+count-1 of one purpose in one epoch, as the module defines them.

    Args:
        seed, epoch: 0..2^64-1.
        purpose: one of this module's constants.
        start, count: 0 or more.
    Returns:
        uint64 (count,).
    """
    skip = start % 4
    # NumPy steps the counter before each block, so the first block drawn here has the counter start // 4 + 1.
    counter = np.array([start // 4, 0, purpose, epoch], dtype=np.uint64)  # a list would pass through float64
    generator = np.random.Philox(key=seed, counter=counter)
    return generator.random_raw(skip + count)[skip:]


def dropout_bits(seed: int, epoch: int, start: int, count: int, units: int) -> np.ndarray:
    """Draw which units dropout keeps, each with probability 0.5, for the places start..start+count-1.

    Unit u of a place is bit u mod 64, lowest first, of the place's word u // 64; so bit u mod 8 of its byte u // 8.

    Returns:
        uint8 (count, units / 8).
    Raises:
        PlanError: units is not a multiple of 64.
    """
    if units % 64:
        raise PlanError(f"{units} units do not fill whole 64-bit words")
    each = units // 64
    word = philox_words(seed, epoch, DROPOUT, start * each, count * each).astype("<u8", copy=False)
    return word.view(np.uint8).reshape(count, units // 8)


def permutation(count: int, seed: int, epoch: int = 0, purpose: int = ORDER) -> np.ndarray:
    """Permute 0..count-1: the stable argsort of one random word each.

    Returns:
        int64 (count,).
    """
    return np.argsort(philox_words(seed, epoch, purpose, 0, count), kind="stable")


def share_of(count: int, share: float, seed: int) -> np.ndarray:
    """Draw a share of 0..count-1 to hold out: the first of a permutation; at least one of two or more.

    Args:
        share: fraction, 0..0.9.
    Returns:
        int64 (n,), unsorted.
    Raises:
        PlanError: the share is not in 0..0.9.
    """
    if not 0 <= share <= 0.9:
        raise PlanError(f"a share of {share} cannot be held out", "choose --val-share between 0 and 0.9")
    held_out = int(share * count + 0.5)
    if share > 0 and count > 1:
        held_out = max(held_out, 1)
    return permutation(count, seed, purpose=HOLD_OUT)[:held_out]


class OrderPrefetch(threading.Thread):
    """A thread that computes the next epoch's order in advance: for ImageNet this takes a third of a second."""

    def __init__(self, records: int, seed: int, epoch: int):
        super().__init__(name="order")
        self._of = records, seed, epoch
        self.made: np.ndarray | None = None
        self.start()

    def run(self) -> None:
        if self._of[2] < 1 << 64:
            self.made = permutation(*self._of)

    def finish(self) -> None:
        """Wait for the thread, unless called in it: Python may collect a generator in any thread."""
        if self is not threading.current_thread():
            self.join()
