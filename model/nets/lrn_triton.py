"""Response normalisation on a GPU: one Triton kernel forward and one backward for each of the two kinds (lrn.py).

In:  float32, bfloat16 or float16 (n, channels, height, width), channels last.  Out: the same; float32 inside.

The backward pass has x alone, and computes the sums again: with base d and power p = d^-0.75,

    dx = g p - 2 * 0.75 * scale * x * sum(t),   t = g x p / d   summed over those in whose sums x is

Memory is read once: x forward, x and g backward, and the result written. Neighbours come from the caches.

Across maps a thread has 8 maps of a pixel (`LANE`), one load of 16 bytes in bfloat16, and loads the 8 before and after.
Within a map a thread has one channel of a strip of up to 9 pixels, and goes down the rows: it keeps the sums of the
last rows in registers, so that each row adds one. Lanes of a warp are neighbouring channels.
Every element has one thread and one order of sums: results do not depend on the number of threads or of runs.
"""

# mypy: disable-error-code="assignment, operator"
# Triton's tuples grow, which Python's types do not express.

import torch
import triton
import triton.language as tl
from torch import Tensor

LANE = 8  # maps
STRIP = 9  # 27, the side of the maps within which AlexNet normalises, is three strips
BLOCK = 128  # threads


def normalise(
    x: Tensor, gradient: Tensor | None, out: Tensor, columns: int, size: int, constant: float, scale: float
) -> None:
    """Write x normalised to `out`, or, given the gradient of that, the gradient of x.

    Args:
        x, gradient, out: (n, channels, height, width) in channels last.
        columns: groups of maps, a divisor of channels; 0: within the map.
        size: of the sums, 3 or 5.
    """
    n, channels, height, width = x.shape
    if x.numel() == 0:
        return
    given = x if gradient is None else gradient  # a kernel that goes forward never reads it
    with torch.cuda.device_of(x):  # Triton launches on the current device
        if columns:
            maps = channels // columns
            threads = n * height * width * columns * triton.cdiv(maps, LANE)
            _across[(triton.cdiv(threads, BLOCK),)](
                x, given, out, threads, constant, scale, maps, size // 2, gradient is not None, BLOCK
            )
        else:
            strips = triton.cdiv(width, STRIP)
            threads = n * triton.cdiv(channels, 32) * strips * 32
            _within[(triton.cdiv(threads, BLOCK),)](
                x,
                given,
                out,
                threads,
                height,
                constant,
                scale,
                channels,
                width,
                triton.cdiv(width, strips),
                size // 2,
                gradient is not None,
                BLOCK,
                num_stages=1,
            )


def try_out(device: torch.device) -> None:
    """Run all kernels on ones, for which the results are known.

    Raises:
        ArithmeticError: they are wrong.
        Exception: anything, if Triton does not work on this machine.
    """
    ones = torch.ones(1, 2 * LANE, 9, 9, device=device).to(memory_format=torch.channels_last)
    for columns, terms in ((1, 5), (0, 25)):
        y, dx = torch.empty_like(ones), torch.empty_like(ones)
        normalise(ones, None, y, columns, 5, 2.0, 0.1)
        normalise(ones, ones, dx, columns, 5, 2.0, 0.1)
        base = 2 + 0.1 * terms
        right = [base**-0.75, base**-0.75 * (1 - 1.5 * 0.1 * terms / base)]
        found = [each[0, LANE, 4, 4].item() for each in (y, dx)]  # all terms are there, and theirs
        if max(abs(one - other) for one, other in zip(found, right, strict=True)) > 1e-5:
            raise ArithmeticError(f"Triton computes {found} instead of {right}")


@triton.jit
def _power(base):
    root = tl.rsqrt(base)
    return root, root * tl.sqrt(root)  # base^-0.5 and base^-0.75


@triton.jit
def _eight(at, inside):
    """Load (BLOCK, 8) and return its 8 columns in float32; 0 where not inside."""
    rows: tl.constexpr = at.shape[0]
    block = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    even, odd = tl.split(tl.reshape(block, (rows, 2, 2, 2)))  # by bits of the index, the last first
    c0, c2 = tl.split(even)
    c1, c3 = tl.split(odd)
    e0, e4 = tl.split(c0)
    e1, e5 = tl.split(c1)
    e2, e6 = tl.split(c2)
    e3, e7 = tl.split(c3)
    return (e0, e1, e2, e3, e4, e5, e6, e7)


@triton.jit
def _joined(e):
    """Return (BLOCK, 8), of its 8 columns."""
    rows: tl.constexpr = e[0].shape[0]
    even = tl.join(tl.join(e[0], e[4]), tl.join(e[2], e[6]))
    odd = tl.join(tl.join(e[1], e[5]), tl.join(e[3], e[7]))
    return tl.reshape(tl.join(even, odd), (rows, 8))


@triton.jit
def _sums(e, half: tl.constexpr):
    """Return the sums of 2 half + 1 neighbours, of a tuple: 2 half fewer than it has."""
    out = ()
    for i in tl.static_range(len(e) - 2 * half):
        total = e[i]
        for j in tl.static_range(1, 2 * half + 1):
            total += e[i + j]
        out += (total,)
    return out


@triton.jit(do_not_specialize=["threads"])
def _across(
    x_from,
    g_from,
    to,
    threads,
    constant,
    scale,
    maps: tl.constexpr,
    half: tl.constexpr,
    backward: tl.constexpr,
    block: tl.constexpr,
):
    """A thread has LANE maps of one pixel and column; a column of a pixel is `maps` numbers in a row of memory."""
    thread = tl.program_id(0).to(threads.dtype) * block + tl.arange(0, block)  # 64 bits where 32 are too few
    lanes: tl.constexpr = (maps + 7) // 8
    row = thread // lanes
    map_ = (thread % lanes * 8)[:, None] + tl.arange(0, 8)[None, :]
    at = row.to(tl.int64)[:, None] * maps + map_
    here = (thread < threads)[:, None]
    own = here & (map_ < maps)
    before = here & (map_ >= 8)
    after = here & (map_ + 8 < maps)
    x = _eight(x_from + at - 8, before) + _eight(x_from + at, own) + _eight(x_from + at + 8, after)  # of 24, 8..15 own
    reach: tl.constexpr = 2 * half if backward else half
    squares = ()
    for i in tl.static_range(8 - reach, 16 + reach):
        squares += (x[i] * x[i],)
    sums = _sums(squares, half)
    out = ()
    if backward:
        g = _eight(g_from + at - 8, before) + _eight(g_from + at, own) + _eight(g_from + at + 8, after)
        direct = ()
        t = ()
        for i in tl.static_range(8 + 2 * half):
            root, power = _power(constant + scale * sums[i])
            each = g[8 - half + i] * power
            direct += (each,)
            t += (each * x[8 - half + i] * (root * root),)
        around = _sums(t, half)
        for i in tl.static_range(8):
            out += (direct[half + i] - 1.5 * scale * x[8 + i] * around[i],)
    else:
        for i in tl.static_range(8):
            root, power = _power(constant + scale * sums[i])
            out += (x[8 + i] * power,)
    tl.store(to + at, _joined(out).to(to.dtype.element_ty), mask=own)


@triton.jit
def _row(at, row, there, column, reach: tl.constexpr, channels, height, width: tl.constexpr, strip: tl.constexpr):
    """Load a strip of a row and `reach` pixels beside it on both sides, in float32; 0 beyond the map or not there."""
    there = there & (row >= 0) & (row < height)
    at += row * (width * channels)
    out = ()
    for i in tl.static_range(-reach, strip + reach):
        inside = there
        if i < 0:
            inside = there & (column + i >= 0)
        elif i >= strip or width % strip != 0:
            inside = there & (column + i < width)
        out += (tl.load(at + i * channels, mask=inside, other=0.0).to(tl.float32),)
    return out


@triton.jit
def _zeros(count: tl.constexpr, block: tl.constexpr):
    out = ()
    for _ in tl.static_range(count):
        out += (tl.full((block,), 0.0, tl.float32),)
    return out


@triton.jit
def _added(past, row, half: tl.constexpr):
    """Add a row to the sums that lack 2 half, ..., 1 rows; return those that lack none now, and the others."""
    count: tl.constexpr = len(row)
    whole = ()
    others = ()
    for i in tl.static_range(count):
        whole += (past[i] + row[i],)
    for i in tl.static_range(count, 2 * half * count):
        others += (past[i] + row[i % count],)
    return whole, others + row


@triton.jit(do_not_specialize=["threads", "height"])
def _within(
    x_from,
    g_from,
    to,
    threads,
    height,
    constant,
    scale,
    channels: tl.constexpr,
    width: tl.constexpr,
    strip: tl.constexpr,
    half: tl.constexpr,
    backward: tl.constexpr,
    block: tl.constexpr,
):
    """A thread has one channel and `strip` columns of a map; 32 channels side by side, then strips, then channels."""
    thread = tl.program_id(0).to(threads.dtype) * block + tl.arange(0, block)  # 64 bits where 32 are too few
    strips: tl.constexpr = (width + strip - 1) // strip
    groups: tl.constexpr = (channels + 31) // 32
    image = thread // (32 * strips * groups)
    channel = thread // (32 * strips) % groups * 32 + thread % 32
    column = thread // 32 % strips * strip
    there = (thread < threads) & (channel < channels)
    at = (image.to(tl.int64) * height * width + column) * channels + channel  # of the strip's first pixel in row 0
    beside: tl.constexpr = half if backward else 0  # t is needed beside the strip too
    sums = _zeros(2 * half * (strip + 2 * beside), block)
    sums_t = _zeros(2 * half * strip, block)
    waiting = _zeros(half * strip, block)  # g p of the rows whose sum of t lacks rows
    for row in range(height + half + beside):
        x = _row(x_from + at, row, there, column, beside + half, channels, height, width, strip)
        squares = ()
        for i in tl.static_range(len(x)):
            squares += (x[i] * x[i],)
        whole, sums = _added(sums, _sums(squares, half), half)
        last = row - half  # the row whose sums are whole
        x = _row(x_from + at, last, there, column, beside, channels, height, width, strip)
        out = ()
        if backward:
            g = _row(g_from + at, last, there, column, beside, channels, height, width, strip)
            direct = ()
            t = ()
            for i in tl.static_range(len(x)):
                root, power = _power(constant + scale * whole[i])
                direct += (g[i] * power,)
                t += (direct[i] * x[i] * (root * root),)
            around, sums_t = _added(sums_t, _sums(t, half), half)
            last -= half
            x = _row(x_from + at, last, there, column, 0, channels, height, width, strip)
            for i in tl.static_range(strip):
                out += (waiting[i] - 1.5 * scale * x[i] * around[i],)
            waiting = waiting[strip:] + direct[half : half + strip]
        else:
            for i in tl.static_range(strip):
                root, power = _power(constant + scale * whole[i])
                out += (x[i] * power,)
        for i in tl.static_range(strip):
            to_row = to + at + last * (width * channels)
            inside = there & (last >= 0) & (column + i < width)
            tl.store(to_row + i * channels, out[i].to(to.dtype.element_ty), mask=inside)
