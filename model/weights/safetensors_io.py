"""Export of a trained net: weights and statistics as safetensors, and a model card.

In:  a checkpoint, as checkpoint.py reads it.  Out: model.safetensors, statistics.safetensors and README.md in a
folder; and back, checked.
The tensors have the net's own parameter names, so `safetensors.torch.load_file` alone returns a state dict; everything
else is text in the metadata. The format has no checksums and a flipped bit would be a wrong weight, so the metadata
contain a SHA-256 of the tensors.
"""

import hashlib
import json
import math
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from ...pipeline.errors import TrainingError, UsageError
from ...pipeline.files import printable, write_atomically
from ...pipeline.versions import installed_versions
from ..nets.options import ALEXNET
from ..recipes.config import config_command
from ..recipes.recipe import recipe
from ..training.checkpoint import STATS
from ..training.run_files import check_regular

WEIGHTS, STATISTICS, CARD = "model.safetensors", "statistics.safetensors", "README.md"
KIND, VERSION = "alexnet-dali weights", "1"
INSTALL = "pip install 'alexnet-dali[weights]'"
KEPT = ("config", "recipe", "classes", "best_error", "steps_done", "epoch", "shards", "imported")  # of the checkpoint
PACKAGE = "alexnet-dali"


def write(saved: dict, folder: Path, epochs: list[dict]) -> None:
    """Write a checkpoint's weights, statistics and model card into a folder, each atomically.

    The weights come last: if the weights file exists, the export is complete.

    Args:
        epochs: epoch lines of the run's metrics.
    Raises:
        UsageError: safetensors is not installed.
        OSError: a file cannot be written; the weights file does not exist then.
    """
    pack = safetensors_module().torch.save
    kept = {name: saved[name] for name in KEPT if name in saved}
    kept["config"] = _without_paths(saved["config"])
    if not math.isfinite(kept.get("best_error", 0.0)):
        del kept["best_error"]
    metadata = {
        "kind": KIND,
        "version": VERSION,
        "format": "pt",  # as other readers of safetensors expect it
        "package_version": _package_version(),
        **{name: json.dumps(value) for name, value in kept.items()},
        "crop": str(crop_of(saved)),
        "mean": saved["recipe"]["mean"],
        "stats": json.dumps({name: saved["stats"][name] for name in ("images", "fingerprint")}),
    }
    write_atomically(folder / CARD, card({**saved, **kept}, epochs).encode())
    for name, tensors in ((STATISTICS, {name: saved["stats"][name] for name in STATS}), (WEIGHTS, saved["model"])):
        whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        packed = pack(whole, {**metadata, "sha256": checksum(whole, metadata)})
        try:
            write_atomically(folder / name, packed)
        except OSError:
            with suppress(OSError):  # it may have its final name without being durable
                (folder / name).unlink(missing_ok=True)
            raise


def read(path: Path) -> dict:
    """Read an exported folder, or its model.safetensors, as a checkpoint without the entries that only resuming needs.

    Raises:
        UsageError: the file does not exist, or safetensors is not installed.
        TrainingError: a file is damaged, was not written by `write` or by another version of it, or weights and
            statistics come from different exports.
    """
    file = path / WEIGHTS if path.is_dir() else path
    weights, metadata = _read(file)
    statistics, beside = _read(file.with_name(STATISTICS))
    if metadata.get("stats") != beside.get("stats"):
        raise TrainingError(f"{file}: {STATISTICS} belongs to another net", "copy both files from one export")
    try:
        saved = {name: json.loads(metadata[name]) for name in KEPT if name in metadata}
        saved["stats"] = {**json.loads(metadata["stats"]), **{name: statistics[name] for name in STATS}}
    except (KeyError, ValueError) as error:
        raise TrainingError(f"{file}: the metadata lack {error}", "export it again with alexnet-weights") from None
    return {**saved, "model": weights}


def card(saved: dict, epochs: list[dict]) -> str:
    """Return the model card in Markdown: the net, its error, its training, its data, and how to load it.

    Args:
        saved: the checkpoint; `config` without paths.
        epochs: epoch lines of the run's metrics.
    """
    config, stats, crop = saved["config"], saved["stats"], crop_of(saved)
    model, classes = config.get("model", ALEXNET), saved["classes"]
    weights = sum(tensor.numel() for tensor in saved["model"].values())
    mean_rgb, variances = ([round(float(x), 3) for x in stats[name]] for name in ("mean_rgb", "eigenvalues"))
    some = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
    image = saved["recipe"]["mean"] == "image"
    mean = "the central window of the training photos' mean image" if image else "the training photos' mean colour"
    summary = saved["recipe"]["summary"]
    text = f"""# {model}, recipe {config["recipe"]}

{summary[:1].upper()}{summary[1:]}. {weights:,} weights, {len(classes):,} classes: {some}. Written by alexnet-dali \
{_package_version()}.

## Error

{_error(saved, epochs)}

## Training

{_training(saved, config)}

Data: {stats["images"]:,} photos, fingerprint `{stats["fingerprint"]}`. Mean colour (RGB, 0..255) {mean_rgb}, \
variances along the principal colour axes {variances}; `{STATISTICS}` contains all statistics.

## Use

Input: RGB, 0..255, {crop}x{crop}, minus {mean}.

```python
from alexnet_dali.model import load_exported, mean_window
trained = load_exported(".")  # this folder
logits = trained.net(pictures - mean_window(trained))  # float (n, 3, {crop}, {crop}) to (n, {len(classes)})
```

Without alexnet-dali, `safetensors.torch.load_file("{WEIGHTS}")` returns the state dict; recipe, classes and mean are \
in the file's metadata. `model.onnx`, if present, subtracts the mean itself.
"""
    return printable(text)


def crop_of(saved: dict) -> int:
    """Return the side of the input window of a checkpoint's net, pixels."""
    config = saved["config"]
    return config["crop"] if config.get("model", ALEXNET) != ALEXNET else recipe(config["recipe"]).crop


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Return the SHA-256 in hex of the metadata and of the tensors (name, dtype, shape, bytes), sorted by name."""
    total = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def safetensors_module():
    """Import and return `safetensors`, with its `torch` module.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import safetensors.torch
    except ImportError:
        raise UsageError("safetensors is not installed", INSTALL) from None
    return safetensors


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a file and its metadata.

    Raises:
        UsageError: the file does not exist, or safetensors is not installed.
        TrainingError: the file is damaged or not safetensors, or not a regular file.
    """
    check_regular(file)
    opened: Callable = safetensors_module().safe_open
    try:
        with opened(str(file), framework="pt") as archive:
            return {name: archive.get_tensor(name) for name in archive.keys()}, archive.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file", "name a folder or file that alexnet-weights export wrote") from None
    except Exception as error:  # errors of the library and of the system
        raise TrainingError(
            f"{file}: damaged, or not safetensors ({' '.join(str(error).split())[:160]})", "copy the file again"
        ) from None


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors, metadata = read_safetensors(file)
    if metadata.get("kind") != KIND:
        raise TrainingError(
            f"{file}: not written by alexnet-weights",
            "read weights of other programs with alexnet-weights import --layout",
        )
    if metadata.get("version") != VERSION:
        raise TrainingError(
            f"{file}: version {metadata.get('version')}, this program reads version {VERSION}", "update alexnet-dali"
        )
    written = metadata.pop("sha256", "")
    if written != checksum(tensors, metadata):
        raise TrainingError(f"{file}: damaged: the checksum does not match", "copy the file again")
    return tensors, metadata


def _without_paths(config: dict) -> dict:
    """The configuration without the machine's folders."""
    first = config.get("init_from", "")
    return {
        **config,
        "shards": Path(config["shards"]).name,
        "init_from": str(Path(*Path(first).parts[-2:])) if first else "",
    }


def _error(saved: dict, epochs: list[dict]) -> str:
    measured = [line for line in epochs if "val_top1_error" in line]
    if measured:
        best = min(measured, key=lambda line: line["val_top1_error"])
        return (
            f"Validation, one view: top-1 {100 * best['val_top1_error']:.2f}%, top-5 "
            f"{100 * best['val_top5_error']:.2f}%, after epoch {best['epoch']} (the best of {len(measured)})."
        )
    if "best_error" in saved:
        return f"Validation, one view: top-1 {100 * saved['best_error']:.2f}%."
    return "Not measured; use alexnet-eval."


def _training(saved: dict, config: dict) -> str:
    if "imported" in saved:
        return f"{saved['imported']}."
    done = f"{saved.get('steps_done', 0):,} steps, {saved.get('epoch', 0)} epochs, by\n\n"
    return f"{done}```\n{shlex.join(config_command(config))}\n```"


def _package_version() -> str:
    return installed_versions((PACKAGE,)).get(PACKAGE, "unknown")  # not installed: imported from a folder
