"""Weights that travel: exported and loaded bit for bit, the same logits in ONNX, other programs' weights converted."""

import errno
import importlib.metadata
import json
import os
import pickle
import re
import shlex
import shutil
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch
import torch.nn.functional as F
from alexnet_dali.model.nets.alexnet import AlexNet
from alexnet_dali.model.nets.factory import NormalizedNet
from alexnet_dali.model.recipes.config import config_command
from alexnet_dali.model.recipes.recipe import RECIPES, recipe
from alexnet_dali.model.training import checkpoint
from alexnet_dali.model.weights import convert, foreign_input, onnx_export, safetensors_io
from alexnet_dali.model.weights.trained import load_exported, load_trained, mean_window
from alexnet_dali.pipeline.errors import TrainingError, UsageError
from alexnet_dali.pipeline.files import NotWrittenError
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.tools import console
from alexnet_dali.tools.train.cli import train
from alexnet_dali.tools.weights import weights
from faults import Faults, doubling
from safetensors.torch import load_file, safe_open, save_file
from torchvision import models
from waiting import waiting_at_most

TOLD = ("recipe", "epochs", "steps", "batch_size", "rate", "precision", "device", "decode", "seed")
EPOCH = {"kind": "epoch", "epoch": 2, "step": 6, "val_top1_error": 0.25, "val_top5_error": 0.125}


def run(*arguments):
    """The exit code of alexnet-weights."""
    with pytest.raises(SystemExit) as ended:
        console.run(weights, [str(each) for each in arguments])
    return ended.value.code


@pytest.fixture(autouse=True)
def small(monkeypatch):
    tiny.shrink(monkeypatch)


def saved_run(folder, shards, name="source2012", net=None, **config):
    """A run's folder with a best checkpoint, as the trainer writes it, of weights that nobody trained."""
    chosen = recipe(name)
    folder.mkdir()
    net = net or AlexNet(len(shards.classes), chosen.net, seed=3)
    with torch.no_grad():  # else every logit is next to nothing
        for tensor in net.parameters():
            tensor.mul_(1.5)
    whole = {
        "config": tiny.config(shards, recipe=name, **config).described(),
        "recipe": chosen.described(),
        "model": net.state_dict(),
        "velocity": {},
        "classes": list(shards.classes),
        "stats": checkpoint.stats_to_save(stats.load_stats(shards)),
        "best_error": 0.25,
        "steps_done": 6,
        "epoch": 2,
        "shards": shards.split("train").fingerprint(),
    }
    checkpoint.save(folder / "best.pt", whole)
    (folder / "metrics.jsonl").write_text(json.dumps(EPOCH) + "\n")
    return whole


def pictures(n=2, seed=0):
    return torch.rand(n, 3, 224, 224, generator=torch.Generator().manual_seed(seed)) * 255


def refused(call, *arguments, error=TrainingError):
    with pytest.raises(error) as caught:
        call(*arguments)
    assert caught.value.hint
    return caught.value.message


def test_what_is_exported_is_loaded_bit_for_bit(tmp_path, shards, capfd):
    whole = saved_run(tmp_path / "run", shards)
    assert run("export", tmp_path / "run", "--to", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "model.safetensors",
        "statistics.safetensors",
    ]
    state = load_file(tmp_path / "out" / "model.safetensors")  # the library alone
    assert state.keys() == whole["model"].keys()
    back, ours = load_exported(tmp_path / "out"), load_trained(tmp_path / "run" / "best.pt")
    for name, tensor in whole["model"].items():
        assert torch.equal(state[name], tensor) and torch.equal(back.net.state_dict()[name], tensor)
    assert not back.net.training
    assert (back.classes, back.recipe, back.stats.fingerprint) == (ours.classes, ours.recipe, ours.stats.fingerprint)
    for name in checkpoint.STATS:
        assert np.array_equal(getattr(back.stats, name), getattr(ours.stats, name)), name
    back.check_set(shards)

    assert run("import", tmp_path / "out", "--layout", "alexnet-dali", "--to", tmp_path / "again" / "best.pt") == 0
    again = load_trained(tmp_path / "again" / "best.pt")
    # Bit for bit: the same weights, operations and batch in one process.
    assert torch.equal(again.net.eval()(pictures()), back.net(pictures()))
    assert "cannot be resumed" in capfd.readouterr().err


def test_the_metadata_say_what_it_is_and_nothing_of_the_machine(tmp_path, shards):
    first = str(tmp_path / "runs" / "before" / "best.pt")
    saved_run(tmp_path / "run", shards, "paper", init_from=first)
    assert run("export", tmp_path / "run" / "best.pt", "--to", tmp_path / "out") == 0
    with safe_open(str(tmp_path / "out" / "model.safetensors"), "pt") as archive:
        told = archive.metadata()
    assert json.loads(told["recipe"])["name"] == "paper" and json.loads(told["classes"]) == list(shards.classes)
    assert (told["crop"], told["mean"], told["package_version"]) == (
        "224",
        "image",
        importlib.metadata.version("alexnet-dali"),
    )
    assert json.loads(told["stats"])["fingerprint"] == shards.split("train").fingerprint()
    assert json.loads(told["config"])["init_from"] == "before/best.pt"
    assert str(tmp_path) not in json.dumps(told) + (tmp_path / "out" / "README.md").read_text()


def test_the_card_has_error_data_and_the_command_that_trains_it(tmp_path, shards, monkeypatch):
    whole = saved_run(tmp_path / "run", shards, early_stop=4, seed=7, processes=2, parallel="data")
    assert run("export", tmp_path / "run", "--to", tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "top-1 25.00%, top-5 12.50%, after epoch 2 (the best of 1)" in card
    assert f"60 photos, fingerprint `{shards.split('train').fingerprint()}`" in card
    (line,) = re.findall(r"^alexnet-train .*$", card, re.M)
    options = train.make_context("alexnet-train", shlex.split(line)[1:]).params
    for name in (*TOLD, "early_stop", "processes", "parallel"):
        assert options[name] == whole["config"][name], name
    (block,) = re.findall(r"```python\n(.*?)```", card, re.S)
    monkeypatch.chdir(tmp_path / "out")
    seen = {"pictures": pictures()}
    exec(compile(block, "README.md", "exec"), seen)
    trained = load_trained(tmp_path / "run" / "best.pt")
    window = trained.stats.mean_image[16:240, 16:240].transpose(2, 0, 1).astype(np.float32)
    expected = trained.net.eval()(pictures() - torch.from_numpy(window))
    assert torch.equal(seen["logits"], expected)  # bit for bit: the same operations on one batch in one process


def test_the_card_of_a_net_that_nobody_measured(tmp_path, shards):
    whole = saved_run(tmp_path / "run", shards)
    card = safetensors_io.card({**whole, "best_error": 0.5}, [])
    assert "top-1 50.00%." in card
    del whole["best_error"]
    card = safetensors_io.card({**whole, "imported": "Not trained here: imported from x.npz, layout caffe"}, [])
    assert "Not measured; use alexnet-eval" in card and "imported from x.npz" in card and "alexnet-train" not in card


def test_a_flipped_bit_anywhere_is_refused(tmp_path, shards):
    """The format has no sums of its own."""
    saved_run(tmp_path / "run", shards)
    assert run("export", tmp_path / "run", "--to", tmp_path / "out") == 0
    file = tmp_path / "out" / "model.safetensors"
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in (*random.integers(header, len(whole), 4), *random.integers(0, header, 40), *range(8)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(random.integers(8))
        file.write_bytes(flipped)
        told = refused(safetensors_io.read, tmp_path / "out")
        assert "damaged" in told or "not written by" in told or "this program reads version 1" in told
    file.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(safetensors_io.read, tmp_path / "out")
    file.write_bytes(whole)
    other = load_file(tmp_path / "out" / "statistics.safetensors")
    save_file(other, tmp_path / "out" / "statistics.safetensors")
    assert "not written by alexnet-weights" in refused(safetensors_io.read, tmp_path / "out")
    (tmp_path / "out" / "statistics.safetensors").unlink()
    assert "no such file" in refused(safetensors_io.read, tmp_path / "out", error=UsageError)


def test_statistics_of_another_export_are_refused(tmp_path, shards):
    whole = saved_run(tmp_path / "run", shards)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        safetensors_io.write({**whole, "stats": {**whole["stats"], "fingerprint": name}}, tmp_path / name, [])
    (tmp_path / "two" / safetensors_io.STATISTICS).replace(tmp_path / "one" / safetensors_io.STATISTICS)
    assert "belongs to another net" in refused(safetensors_io.read, tmp_path / "one")


def test_nothing_is_overwritten(tmp_path, shards, capfd):
    saved_run(tmp_path / "run", shards)
    assert run("export", tmp_path / "run", "--to", tmp_path / "out") == 0
    assert run("export", tmp_path / "run", "--to", tmp_path / "out") == 2
    assert run("import", tmp_path / "out", "--layout", "alexnet-dali", "--to", tmp_path / "run" / "best.pt") == 2
    assert run("import", tmp_path / "out", "--layout", "alexnet-dali", "--to", tmp_path / "run" / "best") == 2
    shard = shards.root / "train" / "00000.lmdb" / "best.pt"
    assert run("import", tmp_path / "out", "--layout", "alexnet-dali", "--to", shard) == 2 and not shard.exists()
    told = capfd.readouterr().err
    assert "lies in a shard" in told
    assert "already holds a model.safetensors" in told and "already exists" in told and "not a .pt file" in told


def test_an_export_goes_into_no_run_and_over_nobody_s_files(tmp_path, shards, capfd):
    """A stale export in a run's folder would be taken for the run; a README.md may be somebody's own."""
    saved_run(tmp_path / "run", shards)
    for name in ("README.md", "statistics.safetensors", "last.pt"):
        (tmp_path / name[:3]).mkdir()
        (tmp_path / name[:3] / name).write_text("kept")
    (tmp_path / "file").write_text("kept")
    for target, said in [
        ("run", "already holds a best.pt"),
        ("REA", "already holds a README.md"),
        ("sta", "already holds a statistics.safetensors"),
        ("las", "already holds a last.pt"),
        ("file", "a file, not a folder"),
    ]:
        assert run("export", tmp_path / "run", "--to", tmp_path / target) == 2
        err = capfd.readouterr().err
        assert f"error: {tmp_path / target}: {said}\n  try: choose another --to\n" in err
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best.pt", "metrics.jsonl"]
    assert [path.read_text() for path in sorted(tmp_path.glob("*/*")) if path.parent.name != "run"] == ["kept"] * 3


@pytest.mark.parametrize(
    "all_of_them", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["1, 2, 4, ...", "each"]
)
def test_a_full_disk_names_the_file_of_an_export(tmp_path, shards, capfd, all_of_them):
    saved_run(tmp_path / "run", shards)
    with Faults(tmp_path / "out") as undisturbed:
        assert run("export", tmp_path / "run", "--to", tmp_path / "out") == 0
    shutil.rmtree(tmp_path / "out")
    count = len(undisturbed.seen)
    for number in range(1, count + 1) if all_of_them else doubling(count):
        what = undisturbed.seen[number - 1]
        capfd.readouterr()
        with Faults(tmp_path / "out", number, errno.ENOSPC, on=True):
            assert run("export", tmp_path / "run", "--to", tmp_path / "out") == 1, what
        first, second = capfd.readouterr().err.splitlines()
        assert re.fullmatch(rf"error: {tmp_path}/out(/(README\.md|\w+\.safetensors))?: No space left on device", first)
        assert second == "  try: make room, then run the same command again"
        assert run("export", tmp_path / "run", "--to", tmp_path / "out") == 0, what
        load_exported(tmp_path / "out")
        assert len(list((tmp_path / "out").iterdir())) == 3
        shutil.rmtree(tmp_path / "out")


@pytest.mark.slow
def test_an_export_with_onnx_that_was_stopped_is_gone_on_with(tmp_path, shards, capfd, monkeypatch):
    saved_run(tmp_path / "run", shards)
    command = ("export", tmp_path / "run", "--to", tmp_path / "out", "--onnx")
    write = safetensors_io.write_atomically

    def full(path, content):
        if path.name == "model.safetensors":
            raise NotWrittenError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(safetensors_io, "write_atomically", full)
        assert run(*command) == 1
    assert "model.safetensors: No space left on device" in capfd.readouterr().err
    assert sorted(os.listdir(tmp_path / "out")) == ["README.md", "model.onnx", "statistics.safetensors"]
    assert run(*command) == 0
    load_exported(tmp_path / "out")
    assert run(*command) == 2 and "already holds a model.safetensors" in capfd.readouterr().err

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.onnx").write_bytes(b"somebody's")
    assert run(*command[:3], tmp_path / "other", "--onnx") == 2
    assert "already holds a model.onnx" in capfd.readouterr().err


def test_an_exported_net_whose_weights_are_no_numbers_is_refused(tmp_path, shards):
    saved_run(tmp_path / "run", shards)
    saved = checkpoint.load(tmp_path / "run" / "best.pt")
    saved["stats"]["mean_image"][3, 4, 1] = float("nan")
    (tmp_path / "out").mkdir()
    safetensors_io.write(saved, tmp_path / "out", [])
    assert "stats.mean_image has values that are not finite" in refused(load_exported, tmp_path / "out")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path, shards):
    saved_run(tmp_path / "run", shards)
    for name in ("weights.npz", "weights.safetensors"):
        os.mkfifo(tmp_path / name)
        with waiting_at_most(20):
            assert "a pipe or a device" in refused(convert.read_arrays, tmp_path / name)


SLOW_NETS = ("modern", "paper", "one-gpu", "six-conv-2011", "no-talk", "pool-2x2")


@pytest.mark.parametrize("name", ["source2012", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_NETS)])
def test_onnx_gives_the_logits_of_the_net_itself(tmp_path, shards, name, capfd):
    """Of the net with its own response normalisation, at batch sizes that were not exported."""
    saved_run(tmp_path / "run", shards, name)
    assert run("export", tmp_path / "run", "--to", tmp_path / "out", "--onnx") == 0
    assert re.search(r"differ from torch's by at most \d", capfd.readouterr().out)
    onnx.checker.check_model(str(tmp_path / "out" / "model.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    trained = load_trained(tmp_path / "run" / "best.pt")
    mean = mean_window(trained)
    for n in (1, 5):
        with torch.no_grad():
            ours = trained.net.eval()(pictures(n, seed=9) - mean)
        (theirs,) = session.run(None, {"pictures": pictures(n, seed=9).numpy()})
        assert ours.std() > 1e-3 or name == "modern"
        np.testing.assert_allclose(theirs, ours.numpy(), rtol=1e-4, atol=1e-4 * float(ours.abs().max()))
    assert sorted(path.name for path in (tmp_path / "out").iterdir())[1] == "model.onnx"  # and no .part


def test_onnx_of_another_net(tmp_path, shards):
    net = NormalizedNet(models.squeezenet1_1(num_classes=4), torch.ones(3))
    saved_run(tmp_path / "run", shards, net=net, model="squeezenet1_1", crop=96)
    trained = load_trained(tmp_path / "run" / "best.pt")
    assert onnx_export.export_onnx(trained, tmp_path / "model.onnx") < 1e-2
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    seen = pictures()[:, :, :96, :96].contiguous()
    with torch.no_grad():
        ours = trained.net.eval()(seen - mean_window(trained))
    (theirs,) = session.run(None, {"pictures": seen.numpy()})
    np.testing.assert_allclose(theirs, ours.numpy(), rtol=1e-4, atol=1e-4 * float(ours.abs().max()))


def test_other_logits_are_an_error_and_leave_nothing(tmp_path, shards, monkeypatch):
    saved_run(tmp_path / "run", shards)
    trained = load_trained(tmp_path / "run" / "best.pt")
    write = onnx_export._write

    def wrong(net, *rest):
        net.net.norm.constant += 0.01
        write(net, *rest)
        net.net.norm.constant -= 0.01

    monkeypatch.setattr(onnx_export, "_write", wrong)
    assert "model.onnx: onnxruntime's logits differ" in refused(
        onnx_export.export_onnx, trained, tmp_path / "model.onnx"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def names_of(shards, folder):
    """A file with the names of a set's classes, as `--classes` takes it."""
    (folder / "names.txt").write_text("\n".join(shards.classes))
    return folder / "names.txt"


def caffe_arrays(classes=4, seed=5):
    """Weights of bvlc_alexnet as Caffe has them, with few hidden units."""
    random = torch.Generator().manual_seed(seed)
    state = AlexNet(classes, convert.CAFFE_NET).state_dict()
    return {
        name: torch.randn(each.shape, generator=random) * (2 / max(each[0].numel(), 9)) ** 0.5
        for name, each in state.items()
    }


def caffe(arrays, x):
    """bvlc_alexnet, written from its prototxt: BGR, k = 1; its normalisation within a column, as ours."""

    def layer(name, x, **options):
        return F.relu(F.conv2d(x, arrays[f"{name}.weight"], arrays[f"{name}.bias"], **options))

    def norm(x):
        halves = [F.local_response_norm(half, 5, alpha=1e-4, beta=0.75, k=1.0) for half in x.chunk(2, 1)]
        return F.max_pool2d(torch.cat(halves, 1), 3, 2, ceil_mode=True)

    x = norm(layer("conv1", x, stride=4))
    x = norm(layer("conv2", x, padding=2, groups=2))
    x = layer("conv4", layer("conv3", x, padding=1), padding=1, groups=2)
    x = F.max_pool2d(layer("conv5", x, padding=1, groups=2), 3, 2).flatten(1)
    for name in ("fc6", "fc7"):
        x = F.relu(F.linear(x, arrays[f"{name}.weight"], arrays[f"{name}.bias"]))
    return F.linear(x, arrays["fc8.weight"], arrays["fc8.bias"])


@pytest.mark.parametrize("spelling", ["conv1.weight", "conv1_w", "conv1.0", "four axes"])
def test_caffes_weights_give_caffes_logits(tmp_path, shards, spelling, capfd):
    arrays = caffe_arrays()
    names = {
        "conv1.weight": ("{}.weight", "{}.bias"),
        "conv1_w": ("{}_w", "{}_b"),
        "conv1.0": ("{}.0", "{}.1"),
        "four axes": ("{}.weight", "{}.bias"),
    }[spelling]
    spelled = {}
    for name, each in arrays.items():
        layer, kind = name.split(".")
        shape = (1,) * (4 - each.dim()) + each.shape if spelling == "four axes" else each.shape
        spelled[names[kind == "bias"].format(layer)] = each.reshape(shape).numpy()
    np.savez(tmp_path / "bvlc.npz", **spelled)
    target = tmp_path / "run" / "best.pt"
    options = ("--to", target, "--shards", shards.root, "--classes", names_of(shards, tmp_path))
    assert run("import", tmp_path / "bvlc.npz", "--layout", "caffe", *options) == 0, capfd.readouterr().err
    assert "not caffenet" in capfd.readouterr().err
    trained = load_trained(target)
    trained.check_set(shards)
    seen = pictures()
    with torch.no_grad():
        ours = trained.net.eval()(seen - mean_window(trained))
        bgr = (seen - torch.tensor(foreign_input.CAFFE_MEAN).view(3, 1, 1)).flip(1)
        theirs = caffe(arrays, F.pad(bgr, (0, 3, 0, 3)))  # 227x227
    assert float(theirs.std()) > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    assert run("export", target, "--to", tmp_path / "out") == 0
    assert "imported from bvlc.npz, layout caffe" in (tmp_path / "out" / "README.md").read_text()


def test_torchvisions_weights_give_torchvisions_logits(tmp_path, shards, capfd):
    torch.manual_seed(0)
    theirs = models.alexnet(num_classes=4).eval()
    save_file(theirs.state_dict(), tmp_path / "alexnet.safetensors")
    target = tmp_path / "run" / "best.pt"
    named = ("--classes", names_of(shards, tmp_path))
    arguments = (
        "import",
        tmp_path / "alexnet.safetensors",
        "--to",
        target,
        "--shards",
        shards.root,
        *named,
        "--layout",
    )
    assert run(*arguments, "torchvision") == 0
    assert "not the net of 2012" in capfd.readouterr().err
    trained = load_trained(target)
    seen = pictures()
    with torch.no_grad():
        ours = trained.net.eval()(seen - mean_window(trained))
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (foreign_input.IMAGENET_MEAN, foreign_input.IMAGENET_STD))
        expected = theirs((seen / 255 - mean) / std)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)

    target.unlink()
    assert run(*arguments, "caffe") == 1
    told = capfd.readouterr().err
    assert "it does not fit the net of 2012" in told and "--layout torchvision" in told and not target.exists()


@pytest.mark.parametrize(
    "spoil, text",
    [
        (lambda a: a.pop("conv3.bias"), "lacks conv3.bias"),
        (lambda a: a.update(data_mean=torch.zeros(3)), "also has data_mean"),
        (lambda a: a.update(conv1_w=a["conv1.weight"]), "has conv1.weight twice, the second time as conv1_w"),
        (
            lambda a: a.update({"conv1.weight": torch.zeros(64, 3, 11, 11)}),
            "conv1.weight has shape (64, 3, 11, 11), but Caffe",
        ),
        (
            lambda a: a.update({"conv2.weight": torch.zeros(256, 96, 5, 5)}),
            "conv2.weight has shape (256, 96, 5, 5), but Caffe's bvlc_alexnet has (256, 48, 5, 5)",
        ),
        (
            lambda a: a.update({"fc6.weight": a["fc6.weight"].T}),
            "fc6.weight has shape (9216, 64), but Caffe's bvlc_alexnet has (64, 9216)",
        ),
        (lambda a: a.update({"fc8.weight": torch.zeros(5, 64)}), "its last layer (fc8) is not whole"),
        (lambda a: a["fc7.bias"].fill_(float("nan")), "fc7.bias has values that are not finite"),
        (
            lambda a: a.update({"fc7.bias": torch.zeros(64, dtype=torch.int32)}),
            "fc7.bias has values that are not finite",
        ),
    ],
    ids=["missing", "surplus", "twice", "kernels", "groups", "transposed", "classes", "nan", "integers"],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, shards, spoil, text):
    arrays = caffe_arrays()
    spoil(arrays)
    np.savez(tmp_path / "bvlc.npz", **{name: each.numpy() for name, each in arrays.items()})
    message = refused(convert.convert, tmp_path / "bvlc.npz", "caffe", shards)
    assert message.startswith(str(tmp_path / "bvlc.npz")) and text in message


def test_caffes_names_under_torchvisions_layout(tmp_path, shards):
    np.savez(tmp_path / "bvlc.npz", **{name: each.numpy() for name, each in caffe_arrays().items()})
    assert "has Caffe's names" in refused(convert.convert, tmp_path / "bvlc.npz", "torchvision", shards)


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("kind", ["npz", "pth", "safetensors", "npy in npz"])
def test_nothing_is_unpickled(tmp_path, shards, kind):
    crater = tmp_path / "crater"
    file = tmp_path / f"weights.{kind.split()[-1]}"
    if kind == "npy in npz":
        np.savez(file, **{"conv1.weight": np.array([Bomb(crater)], dtype=object)})
    else:
        file.write_bytes(pickle.dumps(Bomb(crater)))
    for layout in convert.LAYOUTS:
        with pytest.raises((TrainingError, UsageError)) as caught:
            convert.convert(file, layout, shards)
        assert str(file) in caught.value.message
    assert not crater.exists()
    if kind == "pth":
        assert "could run code" in caught.value.message and "save_file" in caught.value.hint
        pickle.loads(file.read_bytes()).close()  # the bomb is live
        assert crater.exists()


@pytest.mark.parametrize("missing", ["safetensors", "onnxruntime"])
def test_a_library_that_is_not_installed_is_named_before_anything_is_written(
    tmp_path, shards, monkeypatch, capfd, missing
):
    saved_run(tmp_path / "run", shards)
    for name in [each for each in sys.modules if each.partition(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, missing, None)
    assert run("export", tmp_path / "run", "--to", tmp_path / "out", "--onnx") == 2
    told = capfd.readouterr().err
    assert f"{missing} is not installed" in told and "pip install 'alexnet-dali[weights]'" in told
    assert not (tmp_path / "out").exists()


def test_every_recipe_has_a_command(shards):
    for name in RECIPES:
        config = tiny.config(shards, recipe=name).described()
        train.make_context("alexnet-train", config_command(config)[1:])
