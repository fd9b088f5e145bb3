"""Slow, obvious NumPy that shares no code with the product: what the fast code must equal."""

import math

import numpy as np


def training_picture(pixels, left, top, flip, crop, mean_image, offset, gain):
    """One training picture as the program of 2012 made it, pixel by pixel of its definition.

    The window is cut, mirrored, the mean image's central window subtracted (unflipped), the light added, and all of
    it multiplied by the gain. float64 (crop, crop, 3).
    """
    window = pixels[top : top + crop, left : left + crop].astype(np.float64)
    if flip:
        window = window[:, ::-1]
    edge = (mean_image.shape[0] - crop) // 2
    return (window - mean_image[edge : edge + crop, edge : edge + crop] + offset) * gain


def response_norm_across(x, size, constant, scale, beta, columns):
    """x / (constant + scale * sum over neighbouring maps of x^2)^beta, neighbours within the column. (n, c, h, w)."""
    n, maps, height, width = x.shape
    each = maps // columns
    out = np.empty_like(x)
    for i in range(maps):
        column = i // each
        first = max(column * each, i - size // 2)
        last = min((column + 1) * each, i + size // 2 + 1)
        total = np.zeros((n, height, width))
        for j in range(first, last):
            total += x[:, j] ** 2
        out[:, i] = x[:, i] / (constant + scale * total) ** beta
    return out


def response_norm_within(x, size, constant, scale, beta):
    """The same over a size x size square around each response in its own map; beyond the edge are zeros."""
    _, _, height, width = x.shape
    out = np.empty_like(x)
    reach = size // 2
    for top in range(height):
        for left in range(width):
            square = x[:, :, max(0, top - reach) : top + reach + 1, max(0, left - reach) : left + reach + 1]
            out[:, :, top, left] = x[:, :, top, left] / (constant + scale * (square**2).sum(axis=(2, 3))) ** beta
    return out


def area_resize(pixels, new_height, new_width):
    """Shrink by area averaging: each new pixel is the mean of the rectangle of old ones that it covers."""
    height, width = pixels.shape[:2]
    rows = _overlaps(height, new_height)
    columns = _overlaps(width, new_width)
    return np.einsum("ay,yxc,bx->abc", rows, pixels.astype(np.float64), columns)


def _overlaps(old, new):
    weights = np.zeros((new, old))
    ratio = old / new
    for k in range(new):
        for j in range(old):
            weights[k, j] = max(0.0, min(j + 1, (k + 1) * ratio) - max(j, k * ratio))
    return weights / ratio


def triangle_resize(pixels, new_height, new_width, repeat):
    """Resize by a triangle as wide as the step between new pixels, or as between old ones where that is wider.

    Beyond the edge its pixels are repeated, or nothing is there. float64 (new_height, new_width, 3), not rounded.
    """
    rows, columns = _triangles(pixels.shape[0], new_height, repeat), _triangles(pixels.shape[1], new_width, repeat)
    return np.einsum("ay,yxc,bx->abc", rows, pixels.astype(np.float64), columns, optimize=True)


def _triangles(old, new, repeat):
    weights = np.zeros((new, old))
    step = old / new
    reach = max(step, 1)
    for k in range(new):
        centre = (k + 0.5) * step
        for j in range(math.floor(centre - reach) - 1, math.ceil(centre + reach) + 1):
            if repeat or 0 <= j < old:
                weights[k, min(max(j, 0), old - 1)] += max(0.0, 1 - abs(j + 0.5 - centre) / reach)
    return weights / weights.sum(axis=1, keepdims=True)


def philox_block(counter, key):
    """One block of Philox4x64-10 in plain integers (Salmon et al. 2011, table 2): four words in, four out."""
    mask = (1 << 64) - 1
    for _ in range(10):
        product0 = 0xD2E7470EE14C6C93 * counter[0]
        product1 = 0xCA5A826395121157 * counter[2]
        counter = [
            (product1 >> 64) ^ counter[1] ^ key[0],
            product1 & mask,
            (product0 >> 64) ^ counter[3] ^ key[1],
            product0 & mask,
        ]
        key = [(key[0] + 0x9E3779B97F4A7C15) & mask, (key[1] + 0xBB67AE8584CAA73B) & mask]
    return counter


def philox_words(seed, epoch, purpose, count):
    """Words 0..count-1 of one purpose, as docs/plan.md has them."""
    out: list[int] = []
    while len(out) < count:
        out.extend(philox_block([len(out) // 4 + 1, 0, purpose, epoch], [seed, 0]))
    return out[:count]


def gaussians(a, b, c, d):
    """Three Gaussians of four words, by Box and Muller, as docs/plan.md has it."""

    def pair(one, two):
        u = ((one >> 11) + 1) / 2**53
        v = (two >> 11) / 2**53
        radius = math.sqrt(-2 * math.log(u))
        return radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)

    first, second = pair(a, b)
    third, _ = pair(c, d)
    return [round(value * 2**20) / 2**20 for value in (first, second, third)]


def order(words):
    """The permutation of as many places as there are words: equal words keep their order."""
    return sorted(range(len(words)), key=lambda place: words[place])


def window(word, size, crop):
    """Left and top of one crop word, in pixels."""
    choices = size - crop + 1
    return (word >> 32) * choices >> 32, (word & 0xFFFFFFFF) * choices >> 32


def kept(words):
    """Dropout's units, 64 to a word, lowest bit first."""
    return [bool(word >> bit & 1) for word in words for bit in range(64)]


def lighting_offset(draws, eigenvalues, eigenvectors, scale):
    """What is added to red, green and blue: the paper's sum over three components, one after the other."""
    offset = np.zeros(3)
    for draw, eigenvalue, eigenvector in zip(draws, eigenvalues, eigenvectors, strict=True):
        length = {"stddev": math.sqrt(eigenvalue), "eigenvalue": eigenvalue / 255, "none": 0.0}[scale]
        offset += 0.1 * float(draw) * length * eigenvector
    return offset


def errors(probabilities, labels, top):
    """The share of rows whose label is not among the `top` most probable classes, by sorting. No ties."""
    wrong = 0
    for row, label in zip(probabilities, labels, strict=True):
        ranked = sorted(range(len(row)), key=lambda k: row[k], reverse=True)
        wrong += label not in ranked[:top]
    return wrong / len(labels)


def softmax(logits):
    """Probabilities of one row of logits."""
    powers = [math.exp(value - max(logits)) for value in logits]
    return [power / sum(powers) for power in powers]
