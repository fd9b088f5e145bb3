"""Draw a picture of one of ten figures on a badge, which sample_photos.py encodes.

In:  a NumPy generator, a label and a range of sides.  Out: uint8 RGB pixels.  No files.

Figures are signed distance functions, so that they are antialiased at every size and angle without supersampling.
"""

import math

import cv2
import numpy as np

# Concentration of a class's hue: a von Mises concentration of 3 is a standard deviation of 38 degrees, and the
# classes' means are 36 degrees apart. From the figure's hue alone, 39% of photos are classified correctly.
HUE_CONCENTRATION = 3.0


def scene(rng: np.random.Generator, label: int, side: tuple[int, int]) -> np.ndarray:
    """Draw background, badge and figure, then exposure, blur and noise of a camera.

    Args:
        label: index of the figure in the sorted names, 0..9.
        side: smallest and largest length of both sides, in pixels.
    Returns:
        uint8 (height, width, 3) RGB. The badge covers 45% to 80% of the short side, near the middle.
    """
    width, height = _size(rng, *side)
    picture = _background(rng, width, height)
    _paint_badge(rng, picture, label)
    return _expose(rng, picture)


def _size(rng: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    """Draw width and height in pixels: short side log-uniform, aspect ratios of cameras, portrait or landscape."""
    short = np.exp(rng.uniform(np.log(low), np.log(high)))
    long = min(short * rng.choice([1, 5 / 4, 4 / 3, 3 / 2, 16 / 9]), high)
    first, second = (short, long) if rng.random() < 0.4 else (long, short)
    return round(first), round(second)


def _colour(
    rng: np.random.Generator, hue: float, saturation: tuple[float, float], value: tuple[float, float]
) -> np.ndarray:
    """Draw a colour of a hue in radians with saturation and value in ranges of 0..1; float32 (3,) RGB, 0..1."""
    hsv = np.array([[[np.degrees(hue) % 360, rng.uniform(*saturation), rng.uniform(*value)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]


def _clouds(rng: np.random.Generator, width: int, height: int, cells: int) -> np.ndarray:
    """Smooth noise with `cells` cells across: float32 (height, width), about -1..1."""
    return cv2.resize(
        rng.uniform(-1, 1, (cells, cells)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )


def _background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A blurred scene of two areas and some ellipses: float32 (3, height, width), 0..1."""
    w, h = max(width // 4, 4), max(height // 4, 4)  # a quarter of the size is enough for a blurred picture
    far, near, third = (_colour(rng, rng.uniform(0, 2 * np.pi), (0.1, 0.6), (0.2, 0.9)) for _ in range(3))
    slope = np.linspace(-1, 1, h, dtype=np.float32)[:, None] + rng.uniform(-0.6, 0.6) * np.linspace(
        -1, 1, w, dtype=np.float32
    )
    edge = _step((slope + rng.uniform(-0.7, 0.7) + 0.4 * _clouds(rng, w, h, 4)) * rng.uniform(1, 8))[..., None]
    ground = far + (near - far) * edge
    ground += (third - ground) * (0.5 * _step(2 * _clouds(rng, w, h, 5)))[..., None]
    for _ in range(rng.integers(3, 9)):
        centre = (int(rng.uniform(0, w)), int(rng.uniform(0, h)))
        axes = (rng.uniform(0.04, 0.2, 2) * min(w, h)).astype(int) + 1
        shade = _colour(rng, rng.uniform(0, 2 * np.pi), (0.1, 0.8), (0.1, 1.0))
        cv2.ellipse(
            ground,
            centre,
            tuple(int(a) for a in axes),
            rng.uniform(0, 180),
            0,
            360,
            tuple(float(s) for s in shade),
            -1,
            cv2.LINE_AA,
        )
    ground = cv2.GaussianBlur(ground, (0, 0), rng.uniform(1, 4))
    # Planar from here to `_expose`: a layer's mask then multiplies whole rows, three times as fast.
    return np.stack(cv2.split(cv2.resize(ground, (width, height), interpolation=cv2.INTER_CUBIC)))


def _paint_badge(rng: np.random.Generator, picture: np.ndarray, label: int) -> None:
    """Paint a badge with the class's figure, and its shadow, onto float32 (3, height, width) in place."""
    height, width = picture.shape[1:]
    short = min(width, height)
    radius = 0.5 * short * rng.uniform(0.45, 0.8)
    # Near the middle: the central 224 of 256 pixels, the whole input of an evaluation, must show most of it.
    x0, y0 = (length / 2 + rng.uniform(-0.14, 0.14) * short for length in (width, height))
    turn, squeeze, shear = rng.uniform(-0.4, 0.4), rng.uniform(0.8, 1), rng.uniform(-0.2, 0.2)
    x, y = ((np.arange(width, dtype=np.float32) - x0) / radius, (np.arange(height, dtype=np.float32) - y0) / radius)
    cos, sin = math.cos(turn), math.sin(turn)
    u = cos * x[None] + sin * y[:, None] + 0.05 * _clouds(rng, width, height, 4)
    v = (cos * y[:, None] - sin * x[None] + shear * u) / squeeze

    outline = _superellipse(u, v, doublings=rng.choice([1, 1, 2, 3])) - 1  # round, or square with round corners
    name = sorted(FIGURES)[label]
    pitch = rng.uniform(0.8, 1.25)
    figure = np.maximum(FIGURES[name](u * pitch, v * pitch) / pitch, outline + 0.06)
    plate, ink = (_step(-2 * radius * distance) for distance in (outline, figure))

    light_ink = rng.random() < 0.5
    hue = rng.vonmises(2 * np.pi * label / len(FIGURES), HUE_CONCENTRATION)
    ink_colour = _colour(rng, hue, (0.5, 1), (0.75, 1) if light_ink else (0.25, 0.5))
    plate_colour = _colour(rng, rng.uniform(0, 2 * np.pi), (0, 0.4), (0.08, 0.3) if light_ink else (0.7, 1))
    plate *= rng.choice([1, 1, 1, 0.7, 0.3])  # some plates are glass
    shadow = cv2.blur(
        np.roll(np.maximum(plate, ink), rng.integers(0, 1 + short // 25, 2), (0, 1)), (1 + short // 20,) * 2
    )
    picture *= 1 - np.float32(rng.uniform(0.1, 0.6)) * shadow
    picture += (plate_colour[:, None, None] - picture) * plate
    gloss = 1 + 0.15 * _clouds(rng, width, height, 3)
    picture += (ink_colour[:, None, None] * gloss - picture) * ink


def _expose(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Add a light gradient, contrast, blur and sensor noise: uint8 (height, width, 3)."""
    height, width = picture.shape[1:]
    across, down = (
        np.linspace(-slope, slope, length, dtype=np.float32)
        for slope, length in zip(rng.uniform(-0.25, 0.25, 2), (width, height), strict=True)
    )
    contrast, brightness = rng.uniform(0.75, 1.1), rng.uniform(0.75, 1.15)
    picture -= np.float32(0.45 * (1 - 1 / contrast))
    picture *= np.float32(contrast) * (np.float32(brightness) + across + down[:, None])
    noise = rng.standard_normal((height, width), np.float32)  # grey: colour noise is weak
    picture += np.float32(rng.uniform(0.005, 0.04)) * noise
    picture = cv2.GaussianBlur(cv2.merge(list(picture)), (0, 0), rng.uniform(0.3, 0.9))
    return cv2.convertScaleAbs(np.clip(picture, 0, 1), alpha=255)


def _step(x: np.ndarray) -> np.ndarray:
    """A linear step from 0 to 1 over x in -1..1; of a distance in half pixels it is an antialiased edge."""
    return np.clip(0.5 + 0.5 * x, 0, 1)


# Figures: signed distance to the figure's edge, negative inside, at u (right) and v (down), in radii of the badge.


def _superellipse(u: np.ndarray, v: np.ndarray, doublings: int) -> np.ndarray:
    """The radius (u**p + v**p) ** (1/p), p = 2**doublings; products and roots take a tenth of the powers' time."""
    for _ in range(doublings):
        u, v = u * u, v * v
    radius = u + v
    for _ in range(doublings):
        np.sqrt(radius, out=radius)
    return radius


def _wave(x: np.ndarray, period: float) -> np.ndarray:
    """Signed distance to bars of half a period's width across x."""
    return period * np.abs((x / period) % 1 - 0.5) - period / 4


def _checker(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    across, down = _wave(u, 0.7), _wave(v, 0.7)
    return np.maximum(np.minimum(across, down), -np.maximum(across, down))


def _crescent(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(u, v) - 0.75, 0.6 - np.hypot(u - 0.35, v))


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.minimum(np.abs(u), np.abs(v)) - 0.2, np.maximum(np.abs(u), np.abs(v)) - 0.72)


def _dots(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot((u / 0.44) % 1 - 0.5, (v / 0.44) % 1 - 0.5) * 0.44 - 0.13


def _rings(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _wave(np.hypot(u, v), 0.4)


def _spiral(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(_wave(np.hypot(u, v) - 0.5 * np.arctan2(v, u) / (2 * np.pi), 0.5), np.hypot(u, v) - 0.85)


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    radius, fifth = np.hypot(u, v), 2 * np.pi / 5
    angle = np.abs((np.arctan2(u, -v) + fifth / 2) % fifth - fifth / 2)  # from the nearest tip, 0..36 degrees
    return radius * np.cos(angle - 0.3 * np.pi) - 0.8 * math.cos(0.3 * np.pi)


def _stripes(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _wave(u, 0.36) + 0 * v


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(v, np.abs(u) * math.cos(np.pi / 6) - v / 2) - 0.4


def _zigzag(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.7 * _wave(v + 1.2 * _wave(u, 0.66), 0.45)  # 0.7: a slope brings the edges nearer than v says


FIGURES = {
    "checker": _checker,
    "crescent": _crescent,
    "cross": _cross,
    "dots": _dots,
    "rings": _rings,
    "spiral": _spiral,
    "star": _star,
    "stripes": _stripes,
    "triangle": _triangle,
    "zigzag": _zigzag,
}
