"""Photos whose colour tells their class, so that labels are checked against pixels."""

import io
from collections import Counter

import numpy as np
from alexnet_dali.pipeline.sources.photo import read_photo
from PIL import Image

CLASSES = 12  # that have a colour of their own


def colour(number: int) -> tuple[int, int, int]:
    """The colour of a class, 0..11; no two are nearer than 60 levels in one channel."""
    return 20 + number % 2 * 200, 20 + number // 2 % 2 * 200, 20 + number // 4 * 100


def photo(number: int, seed: int = 0) -> bytes:
    """A PNG of a class, 8x8 pixels of a little noise."""
    noise = np.random.default_rng([number, seed]).integers(-9, 10, (8, 8, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(noise + colour(number), 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def class_of(data: bytes) -> int:
    """The class of a photo by its colour."""
    mean = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float).mean((0, 1))
    return min(range(CLASSES), key=lambda number: float(np.abs(mean - colour(number)).sum()))


def lay(root, photos: dict[str, int], texts: dict[str, str | bytes] | None = None):
    """Write photos, given as classes by path, and other files below root."""
    for k, (path, number) in enumerate(photos.items()):
        _write(root / path, photo(number, k))
    for path, text in (texts or {}).items():
        _write(root / path, text if isinstance(text, bytes) else text.encode())
    return root


def counted(source, names: dict[str, int]) -> dict[str, dict[str, int]]:
    """Photos by split and class; fails where a photo's colour is not that of its class, given by name."""
    found = {}
    for split, photos in source.splits.items():
        classes = Counter()
        for one in photos:
            name = source.classes[one.label] if one.label >= 0 else ""
            if name:
                assert class_of(read_photo(source.root, one)) == names[name], f"{split}: {one.path} is not {name}"
            classes[name] += 1
        found[split] = dict(classes)
    return found


def _write(path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
