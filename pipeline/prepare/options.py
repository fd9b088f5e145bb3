"""The options of a build: a frozen dataclass that checks its values and is stored in dataset.json field by field.

In:  values from the command line or dataset.json.  Out: BuildOptions, or a UsageError with the valid range.
"""

from dataclasses import dataclass, fields

from ..errors import ShardError, UsageError
from ..shards.manifest import ENCODINGS, FITS
from .decode import MAX_PIXELS

EXIF = ("ignore", "apply")


@dataclass(frozen=True)
class BuildOptions:
    """How a build stores the photos.

    Attributes:
        size: pixels of the short side (paper, section 2).
        fit: `crop`, the central square, or `short-side`, the whole picture.
        encoding: `jpeg` or `raw`.
        quality: JPEG quality, 1..100; the authors used 95.
        seed: seed of the order of records and of the hold-out, 0..2**64 - 1.
        shard_records: photos per shard; 0 chooses by the number of photos, independent of the machine.
        exif: `ignore` the orientation tag, as the tools of 2012 did, or `apply` it.
        max_pixels: pixels of the largest photo; larger ones are rejected before decoding.
        accept_truncated: keep the decodable part of truncated files.
    """

    size: int = 256
    fit: str = "crop"
    encoding: str = "jpeg"
    quality: int = 95
    seed: int = 0
    shard_records: int = 0
    exif: str = "ignore"
    max_pixels: int = MAX_PIXELS
    accept_truncated: bool = False

    def __post_init__(self):
        if not 8 <= self.size <= 4096:
            raise UsageError(f"--size {self.size} is not between 8 and 4096 pixels", "256, as in the paper")
        if self.fit not in FITS or self.encoding not in ENCODINGS:
            raise UsageError(f"--fit {self.fit} --encoding {self.encoding}: not one of {FITS} and {ENCODINGS}")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"--quality {self.quality} is not between 1 and 100", "95, as the authors")
        if not 0 <= self.seed < 1 << 64 or not 0 <= self.shard_records <= 99_999_999:
            raise UsageError(f"--seed {self.seed} or --shard-records {self.shard_records} is out of range")
        if self.exif not in EXIF:
            raise UsageError(f"--exif {self.exif}: not one of {EXIF}")
        if self.max_pixels < 1:
            raise UsageError(f"--max-pixels {self.max_pixels} would reject every photo", "ImageNet's largest has 69e6")

    def of_a_picture(self) -> dict:
        """Return the keyword arguments of `resize.prepare`."""
        names = ("size", "fit", "encoding", "quality", "exif", "max_pixels", "accept_truncated")
        return {name: getattr(self, name) for name in names}


def options_of(manifest: dict) -> BuildOptions:
    """Return the options in a set's dataset.json.

    Raises:
        ShardError: they are incomplete or invalid.
    """
    try:
        return BuildOptions(**{field.name: manifest[field.name] for field in fields(BuildOptions)})
    except (KeyError, TypeError, UsageError) as error:
        raise ShardError(f"dataset.json has no valid build options: {error}", "build the set again") from None
