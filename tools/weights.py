"""`alexnet-weights`: a run as files for other programs, and other programs' weights as a checkpoint."""

from pathlib import Path

import click

from ..model.training import checkpoint as checkpoints
from ..model.training import metrics
from ..model.weights import convert, onnx_export, safetensors_io
from ..model.weights import trained as trained_nets
from ..model.weights.trained import load_exported, load_trained
from ..pipeline.errors import UsageError
from ..pipeline.files import writing_to
from ..pipeline.shards.manifest import open_shard_set
from . import console
from .output_guard import check_folder, check_output

FOLDER = click.Path(path_type=Path)
OWN, ONNX = "alexnet-dali", "model.onnx"
# What each file but the weights, which come last, is known by within its first bytes: a stopped export is gone on with.
MARKS = {
    safetensors_io.STATISTICS: safetensors_io.KIND,
    safetensors_io.CARD: "Written by alexnet-dali",
    ONNX: "pictures",
}
HEAD = 1 << 20
NOTES = {
    "torchvision": "a checkpoint of torchvision:alexnet, which is not the net of 2012: other kernels, no groups, no "
    "normalisation",
    "caffe": "bvlc_alexnet; not caffenet, which has the same shapes but pools before it normalises. Caffe normalises "
    "across all maps, ours within a column: 4 of 96 and 4 of 256 maps have other neighbours",
    OWN: "a checkpoint to evaluate or to begin with; not to resume",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="alexnet-dali")
def weights():
    """Take weights to other programs, or from them, as safetensors or ONNX.

    \b
    Examples:
      alexnet-weights export runs/source2012 --to source2012 --onnx
      alexnet-weights import bvlc_alexnet.npz --layout caffe --to runs/caffe/best.pt
    """


@weights.command("export")
@click.argument("run", type=FOLDER)
@click.option("--to", "folder", type=FOLDER, required=True, help="The folder for the files.")
@click.option("--onnx", is_flag=True, help="Write model.onnx too, checked with onnxruntime against torch.")
def export_weights(run, folder, onnx):
    """Write the best checkpoint of RUN, a folder or a .pt file, as safetensors with a model card.

    model.safetensors has the weights and, as metadata, recipe, classes, crop, mean and version;
    statistics.safetensors the mean image and the eigenbasis; README.md what the net is, its error, and the command
    that trains it. model.onnx takes pixels of 0..255, any number of pictures at once.

    \b
    Examples:
      alexnet-weights export runs/source2012 --to source2012
      alexnet-weights export runs/source2012/last.pt --to source2012 --onnx
    """
    beside = [
        name for name in (safetensors_io.STATISTICS, safetensors_io.CARD, *[ONNX] * onnx) if not _is_ours(folder / name)
    ]
    check_folder(folder, (safetensors_io.WEIGHTS, *beside, *checkpoints.NAMES))
    safetensors_io.safetensors_module()
    if onnx:
        onnx_export.check_installed()
    file = checkpoints.run_checkpoint(run)
    trained = load_trained(file)  # what this version cannot use is not passed on
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if onnx:  # the one that can fail comes first
        difference = onnx_export.export_onnx(trained, folder / ONNX)
        click.echo(f"{ONNX}: logits on random pictures differ from torch's by {difference:.2g} at most")
    del trained
    lines = [line for line in metrics.read(file.parent / "metrics.jsonl") if line["kind"] == "epoch"]
    safetensors_io.write(trained_nets.load(file), folder, lines)
    size = (folder / safetensors_io.WEIGHTS).stat().st_size
    click.echo(
        f"{folder}: {safetensors_io.WEIGHTS} ({console.size(size)}), {safetensors_io.STATISTICS}, {safetensors_io.CARD}"
    )


def _is_ours(file: Path) -> bool:
    """Whether a file is there that an export wrote."""
    try:
        if not file.is_file():
            return False
        with open(file, "rb") as opened:
            return MARKS[file.name].encode() in opened.read(HEAD)
    except OSError:
        return False


@weights.command("import")
@click.argument("file", type=FOLDER)
@click.option(
    "--layout",
    type=click.Choice([*convert.LAYOUTS, OWN]),
    required=True,
    help="Whose names and shapes they are; alexnet-dali: what export wrote.",
)
@click.option("--to", "target", type=FOLDER, required=True, help="The checkpoint to write, runs/NAME/best.pt say.")
@click.option(
    "--shards",
    type=FOLDER,
    default="out",
    show_default=True,
    help="The shard set whose classes these are, in their order; for alexnet-dali not needed.",
)
def import_weights(file, layout, target, shards):
    """Make a checkpoint of FILE, a .safetensors or a .npz; nothing is unpickled, every shape is checked.

    torchvision: the state dict of torchvision's alexnet, which becomes a checkpoint of torchvision:alexnet.
    caffe: bvlc_alexnet, its arrays named conv1.weight, conv1_w or conv1.0 and so on; colours are turned from BGR,
    and the normalisation's constant from 1 to 2.

    \b
    Examples:
      alexnet-weights import alexnet.safetensors --layout torchvision --to runs/torchvision/best.pt
      alexnet-weights import bvlc_alexnet.npz --layout caffe --shards out --to runs/caffe/best.pt
    """
    if target.suffix != ".pt" or target.exists():
        raise UsageError(
            f"--to {target}: {'is there already' if target.exists() else 'not a .pt file'}", "name a new file, NAME.pt"
        )
    check_output(target, ".pt", make=True)
    if layout == OWN:
        load_exported(file)
        saved = safetensors_io.read(file)
    else:
        saved = convert.convert(file, layout, open_shard_set(shards))
    with writing_to(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save(target, saved)
    click.echo(f"{target}: {len(saved['model'])} arrays, {len(saved['classes']):,} classes")
    click.echo(f"note: {NOTES[layout]}", err=True)


def main() -> None:
    """Entry of the console script."""
    console.ensure_utf8()
    console.run(weights)


if __name__ == "__main__":
    main()
