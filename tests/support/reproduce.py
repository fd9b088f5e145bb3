"""An epoch from docs/plan.md alone: plain integers and floats, no NumPy and nothing of the product.

What another language would write down. Slow and obvious; test_promise.py compares whole epochs with the plan.
"""

import math

ORDER, CROP, FLIP, LIGHT, VIEW, DROPOUT, BUILD, HOLD_OUT, RESIZED = range(9)
WORD = 1 << 64


def block(counter, key):
    """Philox4x64-10: four words of a counter of four and a key of two."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p, q = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [q // WORD ^ c[1] ^ k[0], q % WORD, p // WORD ^ c[3] ^ k[1], p % WORD]
        k = [(k[0] + 0x9E3779B97F4A7C15) % WORD, (k[1] + 0xBB67AE8584CAA73B) % WORD]
    return c


def word(seed, epoch, purpose, w):
    """Word w of a purpose in an epoch."""
    return block((w // 4 + 1, 0, purpose, epoch), (seed, 0))[w % 4]


def order(records, seed, epoch, purpose=ORDER):
    """The records in the order of their words."""
    return sorted(range(records), key=lambda record: (word(seed, epoch, purpose, record), record))


def places(records, batch, step, rank, ranks):
    """The places of a rank's share of a batch, as a range."""
    size = min(batch, records)
    edges = [r * (size // ranks) + min(r, size % ranks) for r in (rank, rank + 1)]
    return range(step * batch + edges[0], step * batch + edges[1])


def window(seed, epoch, place, size, crop, shared):
    """Left and top of the paper's crop."""
    drawn, choices = word(seed, epoch, CROP, place // shared), size - crop + 1
    return (drawn >> 32) * choices >> 32, drawn % (1 << 32) * choices >> 32


def flip(seed, epoch, place, shared):
    """1 to mirror."""
    return word(seed, epoch, FLIP, place // shared) >> 63


def gaussians(seed, epoch, place):
    """The three of a place, in units of 2^-20."""
    a, b, c, d = (word(seed, epoch, LIGHT, 4 * place + k) for k in range(4))

    def polar(one, two):
        u, v = ((one >> 11) + 1) / 2**53, (two >> 11) / 2**53
        return math.sqrt(-2 * math.log(u)), 2 * math.pi * v

    (r0, t0), (r1, t1) = polar(a, b), polar(c, d)
    return [round(g * 2**20) for g in (r0 * math.cos(t0), r0 * math.sin(t0), r1 * math.cos(t1))]


def kept(seed, epoch, place, units):
    """Which units dropout keeps."""
    each = units // 64
    return [word(seed, epoch, DROPOUT, place * each + i // 64) >> i % 64 & 1 for i in range(units)]


def resized_words(seed, epoch, place, shared):
    """The eleven of a place."""
    return [word(seed, epoch, RESIZED, 11 * (place // shared) + k) for k in range(11)]


def resized_window(words, height, width, area=(0.08, 1.0), aspect=(0.75, 4 / 3)):
    """Left, top, width and height of a resized crop of a picture."""
    *tries, position = words
    for drawn in tries:
        a = (area[0] + (area[1] - area[0]) * ((drawn >> 32) / 2**32)) * (height * width)
        q, root = aspect[0], aspect[1] / aspect[0]
        for bit in range(31, -1, -1):
            root = math.sqrt(root)
            if drawn >> bit & 1:
                q = q * root
        w, h = round(math.sqrt(a * q)), round(math.sqrt(a / q))
        if 1 <= w <= width and 1 <= h <= height:
            return (
                (position >> 32) * (width - w + 1) >> 32,
                position % (1 << 32) * (height - h + 1) >> 32,
                w,
                h,
            )
    w, h = width, height
    if width / height < aspect[0]:
        h = max(1, round(width / aspect[0]))
    elif width / height > aspect[1]:
        w = max(1, round(height * aspect[1]))
    return (width - w) // 2, (height - h) // 2, w, h


def epoch_of(records, batch, seed, epoch, *, size=256, crop=224, shared=1, rank=0, ranks=1, resized=False):
    """All batches of one rank: for each the places, and of each place (record, left, top, flip, gaussians, words)."""
    ordered = order(records, seed, epoch)
    for step in range(max(1, records // batch)):
        share = places(records, batch, step, rank, ranks)
        yield (
            share,
            [
                (
                    ordered[place],
                    *((0, 0) if resized else window(seed, epoch, place, size, crop, shared)),
                    flip(seed, epoch, place, shared),
                    gaussians(seed, epoch, place),
                    resized_words(seed, epoch, place, shared) if resized else None,
                )
                for place in share
            ],
        )
