"""A shard set of a split `test` alone, without labels and without classes, as ImageNet's test photos make one."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from alexnet_dali.pipeline.prepare.build import build_shards
from alexnet_dali.pipeline.prepare.options import options_of
from alexnet_dali.pipeline.sources.find import find_photos


def make_unlabelled(root: Path, out: Path) -> Path:
    """Build it of the val photos of another set, laid out loose. Returns its folder."""
    manifest = json.loads((root / "dataset.json").read_text())
    loose = out.with_name(f"{out.name}-photos")
    loose.mkdir(parents=True)
    for path in sorted((Path(manifest["source"]["path"]) / "val").rglob("*.JPEG")):
        shutil.copy(path, loose)
    with ThreadPoolExecutor(1) as executor:
        build_shards(find_photos(loose, split="test"), out, replace(options_of(manifest), shard_records=16), executor)
    return out
