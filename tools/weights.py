"""`alexnet-weights`: a run as files for other programs, and other programs' weights as a checkpoint.

In:  a run, or a file of weights.  Out: safetensors, ONNX and a model card, or a checkpoint.
The modules that import torch are imported when a command runs, so that `--help` is fast.
"""

from pathlib import Path

import click

from ..pipeline.errors import UsageError
from ..pipeline.files import writing_to
from . import console, options
from .output_guard import check_folder, check_output

OWN, ONNX = "alexnet-dali", "model.onnx"
HEAD = 1 << 20  # bytes in which a file of an earlier export is recognised
ALEXNET_NOTE = (
    "a checkpoint of torchvision:alexnet, which is not the net of 2012: other kernels, no groups, no local response "
    "normalisation"
)
NOTES = {  # by layout
    "torchvision": "",
    "timm": "",
    "caffe": "bvlc_alexnet; not caffenet, which has the same shapes but pools before it normalises. Caffe normalises "
    "across all maps, this net within a column: 4 of 96 and 4 of 256 maps have other neighbours",
    OWN: "the checkpoint can be evaluated, or used with --init-from; it cannot be resumed",
}


@click.group(context_settings=options.SETTINGS)
@options.version
def weights():
    """Export weights for other programs, or import theirs, as safetensors or ONNX.

    \b
    Examples:
      alexnet-weights export runs/source2012 --to source2012 --onnx
      alexnet-weights import bvlc_alexnet.npz --layout caffe --to runs/caffe/best.pt
    """


@weights.command("export", context_settings=options.SETTINGS)
@click.argument("run", type=options.PATH)
@options.path("--to", "folder", required=True, help="Folder for the files.")
@click.option("--onnx", is_flag=True, help="Also write model.onnx, and compare its output in onnxruntime with torch's.")
def export_weights(run, folder, onnx):
    """Write the best checkpoint of RUN, a folder or a .pt file, as safetensors with a model card.

    model.safetensors has the weights and, as metadata, recipe, classes, crop, mean and version.
    statistics.safetensors has the mean image and the eigenbasis of the RGB covariance. README.md is the model card:
    the net, its error, and the command that trains it. The input of model.onnx is a batch of any size with pixels
    in 0..255.

    \b
    Examples:
      alexnet-weights export runs/source2012 --to source2012
      alexnet-weights export runs/source2012/last.pt --to source2012 --onnx
    """
    from ..model.training import checkpoint as checkpoints
    from ..model.training import metrics
    from ..model.weights import onnx_export, safetensors_io
    from ..model.weights import trained as trained_nets

    # The weights are written last: without them, the files are of an export that was stopped, and are overwritten.
    marks = {safetensors_io.STATISTICS: safetensors_io.KIND, safetensors_io.CARD: "Written by alexnet-dali"}
    marks |= {ONNX: "pictures"} if onnx else {}
    foreign = [name for name, mark in marks.items() if not _contains(folder / name, mark)]
    check_folder(folder, (safetensors_io.WEIGHTS, *foreign, *checkpoints.NAMES))
    safetensors_io.safetensors_module()
    if onnx:
        onnx_export.check_installed()
    file = checkpoints.run_checkpoint(run)
    trained = trained_nets.load_trained(file)  # raises if this version cannot use the checkpoint
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if onnx:  # first, since it can fail
        difference = onnx_export.export_onnx(trained, folder / ONNX)
        click.echo(f"{ONNX}: logits of random pictures differ from torch's by at most {difference:.2g}")
    del trained
    lines = [line for line in metrics.read(file.parent / "metrics.jsonl") if line["kind"] == "epoch"]
    safetensors_io.write(trained_nets.load(file), folder, lines)
    size = (folder / safetensors_io.WEIGHTS).stat().st_size
    click.echo(
        f"{folder}: {safetensors_io.WEIGHTS} ({console.size(size)}), {safetensors_io.STATISTICS}, {safetensors_io.CARD}"
    )


def _contains(file: Path, mark: str) -> bool:
    """Whether a file exists and has a text near its start."""
    try:
        if not file.is_file():
            return False
        with open(file, "rb") as opened:
            return mark.encode() in opened.read(HEAD)
    except OSError:
        return False


@weights.command("import", context_settings=options.SETTINGS)
@click.argument("file", type=options.PATH)
@click.option(
    "--layout",
    type=click.Choice(list(NOTES)),
    required=True,
    help="The program whose array names and shapes the file has; alexnet-dali: a file of alexnet-weights export.",
)
@click.option("--model", default="", help="The net, of torchvision or timm, such as resnet18.  [default: alexnet]")
@options.path("--to", "target", required=True, help="The checkpoint to write, for example runs/NAME/best.pt.")
@options.path(
    "--shards",
    help="The shard set that the net is for: the last layer is kept only if its classes are those of the set.  "
    "[default: out; for alexnet-dali none, the file's own classes are kept]",
)
@options.path("--classes", help="A text file with the names of FILE's classes, one a line, in the order of its rows.")
def import_weights(file, layout, model, target, shards, classes):
    """Convert FILE, a .safetensors or .npz, to a checkpoint; nothing is unpickled and every shape is checked.

    torchvision, timm: a state dict of their net --model. caffe: bvlc_alexnet, with arrays named conv1.weight, conv1_w
    or conv1.0 and so on; channels are reordered from BGR to RGB, and weights rescaled for a normalisation constant of
    2 instead of 1. Prefixes of wrappers, such as module., are removed from the names.

    The last layer is kept if its classes are those of the shard set, which 1,000 classes are taken to be if the set
    has ImageNet's; of other files, --classes names them. Otherwise it is left out, and the checkpoint can start a run
    with --init-from, but not be evaluated.

    \b
    Examples:
      alexnet-weights import alexnet.safetensors --layout torchvision --to runs/torchvision/best.pt
      alexnet-weights import r18.safetensors --layout torchvision --model resnet18 --shards out --to runs/r18/best.pt
      alexnet-weights import bvlc_alexnet.npz --layout caffe --shards out --to runs/caffe/best.pt
    """
    from ..model.training import checkpoint as checkpoints
    from ..model.weights import convert, imported_head, safetensors_io, trained
    from ..pipeline.shards.manifest import open_shard_set

    if target.suffix != ".pt" or target.exists():
        reason = "already exists" if target.exists() else "not a .pt file"
        raise UsageError(f"--to {target}: {reason}", "name a new file, NAME.pt")
    check_output(target, ".pt", make=True)
    notes: list[str] = []
    if layout == OWN:
        if model or classes:
            raise UsageError(f"--layout {OWN}: its files name their net and classes", "omit --model and --classes")
        trained.load_exported(file)
        saved = safetensors_io.read(file)
        if shards:
            saved, notes = convert.for_set(saved, open_shard_set(shards), file)
    else:
        names = imported_head.read_classes(classes) if classes else None
        saved, notes = convert.convert(file, layout, open_shard_set(shards or Path("out")), model, names)
    with writing_to(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save(target, saved)
    net = saved["config"].get("model", "alexnet")
    classes_of_it = f"{len(saved['classes']):,} classes" if saved["classes"] else "without the last layer"
    click.echo(f"{target}: {net}, {len(saved['model'])} arrays, {classes_of_it}")
    notes.append(ALEXNET_NOTE if net == "torchvision:alexnet" and layout != OWN else NOTES[layout])
    if not saved["classes"]:
        notes.append("it can start a run: alexnet-train --init-from; without its last layer it cannot be evaluated")
    for note in filter(None, notes):
        click.echo(f"note: {console.plain(note)}", err=True)


def main() -> None:
    """Run the console script."""
    console.ensure_utf8()
    console.run(weights)


if __name__ == "__main__":
    main()
