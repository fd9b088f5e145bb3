"""A shard set of a split `test` alone, without labels and without classes, as ImageNet's test photos make one."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import stored
from alexnet_dali.pipeline import datum
from alexnet_dali.pipeline.shards import write_shard


def make_unlabelled(root: Path, out: Path) -> Path:
    """Make it of the val split of another set. Returns its folder."""
    manifest = json.loads((root / "dataset.json").read_text())
    shards = []
    for k, entry in enumerate(manifest["splits"]["val"]["shards"]):
        values = []
        for value in stored.values(root / entry["path"]):
            data, height, width, encoded = stored.parts(value)
            values.append(datum.encode(data, height=height, width=width, label=-1, encoded=encoded))
        path = f"test/{k:05d}.lmdb"
        shards.append({"path": path, **asdict(write_shard(out / path, values))})
        header, *rows = (root / entry["path"]).with_suffix(".csv").read_text().splitlines()
        fields = [row.split(",") for row in rows]
        lines = [header, *(",".join([key, "-1", *rest]) for key, _, *rest in fields)]
        (out / path).with_suffix(".csv").write_text("".join(line + "\n" for line in lines))
    manifest["classes"] = []
    manifest["splits"] = {"test": {"records": sum(shard["records"] for shard in shards), "shards": shards}}
    (out / "dataset.json").write_text(json.dumps(manifest))
    shutil.copy(root / "rejected.csv", out)
    return out
