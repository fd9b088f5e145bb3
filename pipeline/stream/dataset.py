"""A split as a map-style Dataset of PIL pictures, for programs with transforms and a DataLoader of their own.

In:  a shard set.  Out: `dataset[i]`, the stored picture, PIL RGB, and its label: the same as from torchvision's
ImageFolder over the output of `alexnet-prep export --format folder`, without a million files. No plan, no DALI: order
and draws are the program's. Safe to pickle, fork and spawn: each process opens the shards itself at its first picture.
"""

import io
import operator
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from ..errors import ShardError
from ..shards.lmdb_shard import repair_hint
from ..shards.manifest import ShardSet, open_shard_set
from ..shards.records_csv import listing_of, read_listing
from .record_reader import Payloads, RecordReader


class ShardDataset(Dataset):
    """Pictures and labels of one split, by index.

    Args:
        shards: a shard set or its folder.
        split: `train`, `val` or `test`; index i is record i of the plan too.
        transform, target_transform: called with the picture, PIL RGB, and with the label, int, as in torchvision.
    Attributes:
        classes: names in label order.
        class_to_idx: label by name.
    Raises:
        UsageError: no shard set in the folder.
        ShardError: it is incomplete, or the split has no records.
    Example:
        dataset = ShardDataset("out", "val", transform=torchvision.transforms.ToTensor())
        loader = torch.utils.data.DataLoader(dataset, batch_size=128, num_workers=4)
    """

    def __init__(
        self,
        shards: ShardSet | Path | str,
        split: str = "train",
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ):
        self.shard_set = shards if isinstance(shards, ShardSet) else open_shard_set(Path(shards))
        self.split = split
        self.transform, self.target_transform = transform, target_transform
        self.classes = list(self.shard_set.classes)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self._feed = RecordReader(self.shard_set, split)
        self._process: int | None = None  # the process that opened the shards

    def __len__(self) -> int:
        return len(self._feed)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Read a record.

        Args:
            index: -len..len-1; negative ones count from the end.
        Returns:
            the picture, PIL RGB, and the label, -1 for none, each after its transform.
        Raises:
            IndexError: there is no such record.
            ShardError: it is missing or damaged; the message names shard and record.
        """
        place = operator.index(index)
        record = place + len(self) if place < 0 else place
        if not 0 <= record < len(self):
            raise IndexError(f"{self.shard_set.root}: no record {place} among {len(self):,} of {self.split}")
        feed = self._opened_here()
        payloads = feed.read(np.array([record]))
        picture: Any = _picture(payloads, feed, record)
        label: Any = int(payloads.labels[0])
        if self.transform is not None:
            picture = self.transform(picture)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return picture, label

    @cached_property
    def targets(self) -> list[int]:
        """All labels in record order, from the CSVs beside the shards: no record is read.

        Raises:
            ShardError: a CSV is missing or damaged, or has another number of rows than its shard has records.
        """
        labels: list[int] = []
        for folder, file in self.shard_set.split(self.split).shards:
            rows = read_listing(folder)
            if len(rows) != file.records:
                raise ShardError(
                    f"{listing_of(folder)}: {len(rows)} rows, but the shard has {file.records} records",
                    repair_hint(folder),
                )
            labels += [row.label for row in rows]
        return labels

    def _opened_here(self) -> RecordReader:
        """Open the shards anew in each process: at a fork another thread may have held the reader's lock."""
        if self._process != os.getpid():
            self._feed, self._process = RecordReader(self.shard_set, self.split), os.getpid()
        return self._feed


def _picture(payloads: Payloads, feed: RecordReader, record: int) -> Image.Image:
    """Decode a record with Pillow, so that the pixels equal ImageFolder's."""
    (data,), (height, width) = payloads.data, payloads.sides[0]
    if not feed.encoded:
        return Image.fromarray(data)  # keeps a reference to the memory, which is not released
    try:
        picture = Image.open(io.BytesIO(data.tobytes()), formats=["JPEG"]).convert("RGB")
        if picture.size != (width, height):
            raise ValueError(f"it is {picture.width}x{picture.height}, not {width}x{height}")
    except Exception as error:  # Pillow raises errors of many kinds for a damaged file
        raise ShardError(f"{feed.name(record)}: a damaged JPEG: {error}", feed.hint(record)) from None
    return picture
