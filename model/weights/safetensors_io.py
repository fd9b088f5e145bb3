"""A run as files that travel: weights as safetensors, statistics beside them, a model card for people.

In:  a checkpoint, as checkpoint.py reads it.  Out: model.safetensors, statistics.safetensors and README.md in a
folder; and back, checked.
Weights lie under the net's own names, so `safetensors.torch.load_file` alone gives a state dict; all else is plain
text in the metadata. The format has no sums of its own, and a flipped bit would be a wrong weight: one is added there.
"""

import hashlib
import importlib.metadata
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
from ..nets.options import ALEXNET
from ..recipes.config import option
from ..recipes.recipe import recipe
from ..training.checkpoint import STATS
from ..training.run_files import check_regular

WEIGHTS, STATISTICS, CARD = "model.safetensors", "statistics.safetensors", "README.md"
KIND, VERSION = "alexnet-dali weights", "1"
INSTALL = "pip install 'alexnet-dali[weights]'"
TOLD = ("recipe", "epochs", "steps", "batch_size", "rate", "precision", "device", "decode", "seed")  # of the command
KEPT = ("config", "recipe", "classes", "best_error", "steps_done", "epoch", "shards", "imported")  # of the checkpoint


def write(saved: dict, folder: Path, epochs: list[dict]) -> None:
    """Write a checkpoint's weights, statistics and card into a folder, each atomically; the weights last.

    Where they are there, so is all else; where they cannot be written, they are not there.

    Args:
        epochs: lines of the run's metrics.
    Raises:
        UsageError: safetensors is not installed.
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
        "package_version": package_version(),
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
            with suppress(OSError):  # it may be in place, but not surely on the disk
                (folder / name).unlink(missing_ok=True)
            raise


def read(path: Path) -> dict:
    """Read an exported folder, or its model.safetensors, as a checkpoint without what only training needs.

    Raises:
        UsageError: no such file, or safetensors is not installed.
        TrainingError: damaged, foreign, of another version, or weights and statistics of two exports.
    """
    file = path / WEIGHTS if path.is_dir() else path
    weights, metadata = _read(file)
    statistics, beside = _read(file.with_name(STATISTICS))
    if metadata.get("stats") != beside.get("stats"):
        raise TrainingError(f"{file}: {STATISTICS} beside it is of another net", "take both files from one export")
    try:
        saved = {name: json.loads(metadata[name]) for name in KEPT if name in metadata}
        saved["stats"] = {**json.loads(metadata["stats"]), **{name: statistics[name] for name in STATS}}
    except (KeyError, ValueError) as error:
        raise TrainingError(f"{file}: its metadata lack {error}", "export it anew with alexnet-weights") from None
    return {**saved, "model": weights}


def card(saved: dict, epochs: list[dict]) -> str:
    """The model card: what the net is, its error, how it was trained, on what, and how to load it."""
    config, stats, crop = saved["config"], saved["stats"], crop_of(saved)
    model, classes = config.get("model", ALEXNET), saved["classes"]
    weights = sum(tensor.numel() for tensor in saved["model"].values())
    mean_rgb, variances = ([round(float(x), 3) for x in stats[name]] for name in ("mean_rgb", "eigenvalues"))
    some = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
    minus = "the central window of the training photos' mean image" if _mean(saved) == "image" else "their mean colour"
    text = f"""# {model}, recipe {config["recipe"]}

{saved["recipe"]["summary"]}. {weights:,} weights, {len(classes):,} classes: {some}. Written by alexnet-dali \
{package_version()}.

## Error

{_error(saved, epochs)}

## Training

{_training(saved, config)}

Data: {stats["images"]:,} photos, fingerprint `{stats["fingerprint"]}`. Mean colour (RGB, 0..255) {mean_rgb}, \
variances along the three axes of colour {variances}; all of it is in `{STATISTICS}`.

## Use

Pictures are RGB, 0..255, {crop}x{crop}, less {minus}.

```python
from alexnet_dali.model.weights.safetensors_io import load_exported, mean_window
trained = load_exported(".")  # this folder
logits = trained.net(pictures - mean_window(trained))  # float (n, 3, {crop}, {crop}) to (n, {len(classes)})
```

Without alexnet-dali, `safetensors.torch.load_file("{WEIGHTS}")` is the state dict; recipe, classes and mean stand in \
the file's metadata. `model.onnx`, where it is here, subtracts the mean itself.
"""
    return printable(text)


def command(config: dict) -> str:
    """The command line that trains the net of a configuration, every choice spelled out."""
    words = ["alexnet-train", "--shards", config["shards"]]
    model = config.get("model", ALEXNET)
    if model != ALEXNET:
        words += ["--model", model, "--crop", str(config["crop"])]
    for name in TOLD:
        if config.get(name) not in (None, "") and not (name == "steps" and not config[name]):
            value = config[name].split(":")[0] if name == "device" else config[name]
            words += [option(name), str(value)]
    if config.get("processes", 1) > 1:
        words += ["--processes", str(config["processes"]), "--parallel", config["parallel"]]
    for name in ("early_stop", "init_from"):
        if config.get(name):
            words += [option(name), str(config[name])]
    return shlex.join(words)


def crop_of(saved: dict) -> int:
    """Side of the window that the net of a checkpoint looks at, pixels."""
    config = saved["config"]
    return config["crop"] if config.get("model", ALEXNET) != ALEXNET else recipe(config["recipe"]).crop


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 over the metadata, and over names, types, shapes and bytes, in the order of the names."""
    total = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def package_version() -> str:
    """Of alexnet-dali as it is installed."""
    try:
        return importlib.metadata.version("alexnet-dali")
    except importlib.metadata.PackageNotFoundError:  # run from a folder
        return "unknown"


def safetensors_module():
    """The library, where it is installed.

    Raises:
        UsageError: it is not.
    """
    try:
        import safetensors.torch
    except ImportError:
        raise UsageError("safetensors is not installed", INSTALL) from None
    return safetensors


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file, and its metadata.

    Raises:
        UsageError: no such file, or safetensors is not installed.
        TrainingError: damaged, or of another format.
    """
    check_regular(file)
    opened: Callable = safetensors_module().safe_open
    try:
        with opened(str(file), framework="pt") as archive:
            return {name: archive.get_tensor(name) for name in archive.keys()}, archive.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file", "name what alexnet-weights export wrote") from None
    except Exception as error:  # the library has one class of error, and the system others
        raise TrainingError(
            f"{file}: damaged, or not safetensors ({' '.join(str(error).split())[:160]})", "copy it again"
        ) from None


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors, metadata = read_safetensors(file)
    if metadata.get("kind") != KIND:
        raise TrainingError(
            f"{file}: not written by alexnet-weights",
            "weights of another program are read by alexnet-weights import --layout",
        )
    if metadata.get("version") != VERSION:
        raise TrainingError(
            f"{file}: version {metadata.get('version')}, this program reads version {VERSION}", "update alexnet-dali"
        )
    written = metadata.pop("sha256", "")
    if written != checksum(tensors, metadata):
        raise TrainingError(f"{file}: damaged: what it holds is not what was written", "copy it again")
    return tensors, metadata


def _without_paths(config: dict) -> dict:
    """A configuration that says nothing of the machine's folders."""
    first = config.get("init_from", "")
    return {
        **config,
        "shards": Path(config["shards"]).name,
        "init_from": str(Path(*Path(first).parts[-2:])) if first else "",
    }


def _mean(saved: dict) -> str:
    return saved["recipe"]["mean"]


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
    return "Not measured here; alexnet-eval does."


def _training(saved: dict, config: dict) -> str:
    if "imported" in saved:
        return f"{saved['imported']}."
    done = f"{saved.get('steps_done', 0):,} steps, {saved.get('epoch', 0)} epochs, by\n\n"
    return f"{done}```\n{command(config)}\n```"
