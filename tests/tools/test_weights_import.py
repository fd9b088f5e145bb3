"""alexnet-weights import for a set of any classes: the last layer is kept only where its classes are the set's."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import tiny
import torch
from alexnet_dali.model.nets.heads import head_of
from alexnet_dali.model.training import checkpoint
from alexnet_dali.model.weights import convert
from alexnet_dali.model.weights.foreign_input import HALF, IMAGENET_MEAN, IMAGENET_STD, input_of
from alexnet_dali.model.weights.imported_head import is_imagenet
from alexnet_dali.model.weights.trained import load_trained, mean_window
from alexnet_dali.pipeline.errors import TrainingError, UsageError
from alexnet_dali.tools.evaluate import evaluate_runs
from alexnet_dali.tools.train.cli import train
from alexnet_dali.tools.weights import weights
from safetensors.torch import save_file
from torchvision import models

CLASSES = 4  # of the shard set
WNIDS = (Path(timm.__file__).parent / "data/_info/imagenet_synsets.txt").read_text().split()


@pytest.fixture
def call(in_process):
    """Run alexnet-weights import."""
    return lambda *arguments: in_process(weights, "import", *arguments)


def theirs(name, classes=CLASSES, **options):
    """A net of torchvision with weights that nobody trained, whose classes all differ."""
    torch.manual_seed(1)
    net = models.get_model(name, weights=None, num_classes=classes, **options).eval()
    with torch.no_grad():
        for array in head_arrays(net, name):
            array.normal_(std=0.1)
    return net


def head_arrays(net, name):
    return [array for key, array in net.state_dict().items() if key in head_of(name)]


def saved_as(file, state):
    save_file({name: array.contiguous() for name, array in state.items()}, file)
    return file


def pictures(crop, n=2):
    return torch.rand(n, 3, crop, crop, generator=torch.Generator().manual_seed(0)) * 255


def assert_same_logits(trained, net, crop, mean=IMAGENET_MEAN, std=IMAGENET_STD, order=slice(None)):
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (mean, std))
    with torch.no_grad():
        ours = trained.net.eval()(pictures(crop) - mean_window(trained))
        expected = net((pictures(crop) / 255 - mean) / std)[:, order]
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


# --- the last layer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count, said",
    [
        (1000, "the last layer (classifier.1) is left out: it has 1,000 classes, {} has 4"),
        (4, "the last layer (classifier.1) is left out: it has 4 classes like {}, but the file does not name them"),
        (1, "the last layer (classifier.1) is left out: it has 1 classes, {} has 4"),
    ],
)
def test_a_last_layer_of_other_or_unknown_classes_is_left_out(call, shards, tmp_path, count, said):
    file = saved_as(tmp_path / "net.safetensors", theirs("squeezenet1_1", count).state_dict())
    target = tmp_path / "run" / "best.pt"
    options = ("--layout", "torchvision", "--model", "squeezenet1_1", "--shards", shards.root)
    code, out, err = call(file, *options, "--to", target)
    assert code == 0 and out == f"{target}: squeezenet1_1, 50 arrays, without the last layer\n"
    assert said.format(shards.root) in err and "cannot be evaluated" in err
    saved = checkpoint.load(target)
    assert saved["classes"] == [] and saved["left_out"] == ["classifier.1.weight", "classifier.1.bias"]
    assert not saved["model"].keys() & set(saved["left_out"])


def test_weights_without_a_last_layer_start_a_run_and_do_nothing_else(call, shards, tmp_path, in_process):
    net = theirs("mobilenet_v3_small", 1000)
    target = tmp_path / "first" / "best.pt"
    options = ("--layout", "torchvision", "--model", "mobilenet_v3_small", "--shards", shards.root)
    file = saved_as(tmp_path / "net.safetensors", net.state_dict())
    assert call(file, *options, "--to", target)[0] == 0
    message = (
        f"error: {target}: has no last layer (classifier.3): it was not imported, since its classes are not known to "
        "be those of the shard set\n  try: train a new one: alexnet-train --model mobilenet_v3_small "
        f"--init-from {target}\n"
    )
    for command in ((evaluate_runs, target.parent), (weights, "export", target, "--to", tmp_path / "out")):
        code, _, err = in_process(*command)
        assert code == 1 and message in err
    run = tmp_path / "run"
    options = ("--shards", shards.root, "--run", run, "--crop", 64, "--device", "cpu", "--steps", 1)
    code, out, _ = in_process(train, "--model", "mobilenet_v3_small", "--init-from", target.parent, *options)
    assert code == 0 and f"initial weights from {target}; newly initialised: classifier.3" in out
    assert load_trained(run).classes == list(shards.classes)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)], ids=["the set's", "another"])
def test_a_last_layer_is_kept_if_its_classes_are_named(call, shards, tmp_path, order):
    """In another order its rows are moved: each class keeps its own."""
    net, target = theirs("resnet18"), tmp_path / "run" / "best.pt"
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{shards.classes[k]}\r\n" for k in order) + "\n", encoding="utf-8-sig")
    file = saved_as(tmp_path / "net.safetensors", net.state_dict())
    options = ("--layout", "torchvision", "--model", "resnet18", "--shards", shards.root, "--classes", names)
    code, out, err = call(file, *options, "--to", target)
    assert code == 0 and out == f"{target}: resnet18, 122 arrays, 4 classes\n"
    assert f"the last layer (fc) is kept: its 4 classes are those of {shards.root}" in err
    assert ("its rows were put into the set's order" in err) == (order[0] != 0)
    assert "input: minus (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225), of 0..1" in err
    trained = load_trained(target)
    trained.check_set(shards)
    assert_same_logits(trained, net, 224, order=[order.index(k) for k in range(4)])


@pytest.mark.parametrize(
    "text, code, said",
    [
        ("up\ndown\nleft\nright\n", 0, "left out: 4 of its 4 classes are not in"),
        ("{0}\n{1}\n{2}\nright\n", 0, "left out: 1 of its 4 classes are not in {root}, such as right"),
        ("{0}\n{1}\n", 2, "its last layer (fc) has 4 classes, but 2 classes are named"),
        ("{0}\n{1}\n{2}\n{2}\n", 2, "its last layer (fc) has 4 classes, but the class {2} is named twice"),
        ("\n\n", 2, "names.txt: no names in it"),
        (b"\xff\xfe\x00", 2, "names.txt: not text in UTF-8"),
        (None, 2, "names.txt: No such file or directory"),
    ],
    ids=["others", "one other", "too few", "twice", "none", "not text", "no file"],
)
def test_names_that_are_not_the_sets(call, shards, tmp_path, text, code, said):
    if isinstance(text, bytes):
        (tmp_path / "names.txt").write_bytes(text)
    elif text is not None:
        (tmp_path / "names.txt").write_text(text.format(*shards.classes))
    file, target = saved_as(tmp_path / "net.safetensors", theirs("resnet18").state_dict()), tmp_path / "best.pt"
    options = ("--layout", "torchvision", "--model", "resnet18", "--shards", shards.root)
    done, _, err = call(file, *options, "--to", target, "--classes", tmp_path / "names.txt")
    assert done == code and said.format(*shards.classes, root=shards.root) in err
    assert target.exists() == (code == 0) and (code != 0 or checkpoint.load(target)["classes"] == [])


def test_a_thousand_classes_are_imagenets_for_a_set_of_imagenets(shards, tmp_path):
    """By wnid, as torchvision, timm and Caffe order them; a set in the devkit's order gets its rows in that order."""
    net = theirs("squeezenet1_1", 1000)
    file = saved_as(tmp_path / "net.safetensors", net.state_dict())
    rows = net.state_dict()["classifier.1.bias"]

    def imported(classes):
        saved, notes = convert.convert(file, "torchvision", replace(shards, classes=tuple(classes)), "squeezenet1_1")
        assert saved["classes"] in ([], list(classes))
        return saved["model"].get("classifier.1.bias"), " ".join(notes)

    bias, said = imported(WNIDS)
    assert torch.equal(bias, rows) and "taken as ImageNet's in the order of their wnids" in said
    bias, said = imported(WNIDS[::-1])
    assert torch.equal(bias, rows.flip(0)) and "its rows were put into the set's order" in said
    # Of 1,000 others, such as those of ILSVRC 2010, or of names in words, nothing is known.
    for others in ([*WNIDS[:-1], "n99999999"], [f"class {k}" for k in range(1000)]):
        bias, said = imported(others)
        assert bias is None and "the file does not name them" in said


def test_imagenets_classes():
    assert len(WNIDS) == 1000 and sorted(WNIDS) == WNIDS
    assert is_imagenet(WNIDS) and is_imagenet(WNIDS[::-1])
    assert not is_imagenet(WNIDS[:-1]) and not is_imagenet([*WNIDS[:-1], "n15075142"])


def test_a_file_that_has_no_last_layer_or_half_of_it(shards, tmp_path):
    state = theirs("resnet18").state_dict()
    file = saved_as(tmp_path / "net.safetensors", {name: each for name, each in state.items() if name[:3] != "fc."})
    saved, notes = convert.convert(file, "torchvision", shards, "resnet18")
    assert saved["classes"] == [] and "the file has no last layer (fc)" in notes
    saved_as(file, {name: each for name, each in state.items() if name != "fc.bias"})
    with pytest.raises(TrainingError, match=r"not torchvision's resnet18: lacks fc\.bias"):
        convert.convert(file, "torchvision", shards, "resnet18")
    saved_as(file, {**state, "fc.bias": torch.zeros(5)})
    with pytest.raises(TrainingError, match=r"its last layer \(fc\) is not whole"):
        convert.convert(file, "torchvision", shards, "resnet18")


def test_an_export_for_a_set_of_other_classes(call, shards, tmp_path, in_process):
    """Its file names its classes; without --shards they stay."""
    run, out = tmp_path / "run", tmp_path / "out"
    tiny.trainer_of(shards, run, model="squeezenet1_1", crop=64, batch_size=60, epochs=1, steps=1).train()
    assert in_process(weights, "export", run, "--to", out)[0] == 0
    few = tiny.few_shards(tmp_path / "few")
    other = tmp_path / "other"
    manifest = (few.root / "dataset.json").read_text()
    few.root.rename(other)
    (other / "dataset.json").write_text(re.sub(rf'"{few.classes[1]}"', '"other"', manifest))
    for number, (options, kept) in enumerate(
        [((), True), (("--shards", shards.root), True), (("--shards", other), False)]
    ):
        target = tmp_path / f"{number}.pt"
        code, said, err = call(out, "--layout", "alexnet-dali", "--to", target, *options)
        assert code == 0 and ("4 classes" in said) == kept and ("the last layer" in err) == bool(options)
        saved = checkpoint.load(target)
        assert saved["classes"] == (list(shards.classes) if kept else []) and ("left_out" in saved) == (not kept)
    assert f"1 of its 4 classes are not in {other}, such as {shards.classes[1]}" in err
    code, _, err = call(out, "--layout", "alexnet-dali", "--to", tmp_path / "x.pt", "--model", "resnet18")
    assert code == 2 and "omit --model and --classes" in err


# --- names, nets and dtypes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrapped, said",
    [
        (lambda name: f"module.{name}", "the arrays' names are read without 'module.'"),
        (lambda name: name.replace("features.", "features.module."), "are read 'features.module.' as 'features.'"),
        (lambda name: f"model._orig_mod.{name}", "without 'model._orig_mod.'"),
    ],
    ids=["all", "features", "two"],
)
def test_prefixes_are_removed_and_said(call, shards, tmp_path, wrapped, said):
    state = theirs("squeezenet1_1").state_dict()
    file = saved_as(tmp_path / "net.safetensors", {wrapped(name): array for name, array in state.items()})
    options = ("--layout", "torchvision", "--model", "squeezenet1_1", "--shards", shards.root)
    code, _, err = call(file, *options, "--to", tmp_path / "best.pt")
    assert code == 0 and f"note: {'' if said.startswith('the') else 'the arrays'}" in err and said in err
    kept = checkpoint.load(tmp_path / "best.pt")["model"]
    assert all(torch.equal(array, state[name]) for name, array in kept.items()) and len(kept) == len(state) - 2


def test_prefixes_of_caffes_names(shards, tmp_path, monkeypatch):
    tiny.shrink(monkeypatch)
    plain = {name: torch.rand(each.shape) for name, each in convert.arrays_of("alexnet", CLASSES).items()}
    np.savez(tmp_path / "a.npz", **{name: each.numpy() for name, each in plain.items()})
    np.savez(tmp_path / "b.npz", **{f"module.{name}": each.numpy() for name, each in plain.items()})
    one, _ = convert.convert(tmp_path / "a.npz", "caffe", shards)
    two, notes = convert.convert(tmp_path / "b.npz", "caffe", shards, names=shards.classes)
    assert "the arrays' names are read without 'module.'" in notes and "the last layer (fc8) is kept" in notes[1]
    assert two["model"].keys() - one["model"].keys() == {"fc8.weight", "fc8.bias"}
    assert all(torch.equal(array, two["model"][name]) for name, array in one["model"].items())


@pytest.mark.parametrize("name", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.slow)])
def test_second_classifiers_are_left_out_and_the_input_is_the_published_weights(shards, tmp_path, name):
    """torchvision's weights of these two come with `transform_input`, from ImageNet's mean to one of a half."""
    net = theirs(name, aux_logits=True, transform_input=True, init_weights=False)
    file = saved_as(tmp_path / "net.safetensors", net.state_dict())
    saved, notes = convert.convert(file, "torchvision", shards, name, shards.classes)
    assert any(note.startswith("auxiliary classifiers are left out: ") for note in notes)
    checkpoint.save(tmp_path / "best.pt", saved)
    trained = load_trained(tmp_path / "best.pt")
    assert_same_logits(trained, net, trained.recipe.crop)  # of the set's pictures, which may be smaller than 299
    assert np.allclose(trained.stats.mean_rgb, 255 * np.array(HALF))


def test_files_of_old_names_and_without_counters(shards, tmp_path):
    """As torchvision offers its densenets: `norm.1` for `norm1`, and no num_batches_tracked."""
    net = theirs("densenet121")
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", name): array
        for name, array in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    saved, _ = convert.convert(saved_as(tmp_path / "net.safetensors", old), "torchvision", shards, "densenet121")
    assert saved["model"].keys() == net.state_dict().keys() - {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(array, net.state_dict()[name]) for name, array in saved["model"].items())


def test_halves_become_floats_and_indices_stay_integers(shards, tmp_path):
    state = {k: v.half() if v.is_floating_point() else v for k, v in theirs("swin_t").state_dict().items()}
    file = saved_as(tmp_path / "net.safetensors", state)
    saved, _ = convert.convert(file, "torchvision", shards, "swin_t", shards.classes)
    assert {array.dtype for array in saved["model"].values()} == {torch.float32, torch.int64}
    checkpoint.save(tmp_path / "best.pt", saved)
    load_trained(tmp_path / "best.pt").check_set(shards)


def test_a_net_of_timm(call, shards, tmp_path):
    torch.manual_seed(2)
    net = timm.create_model("mobilenetv3_small_050", num_classes=CLASSES).eval()
    with torch.no_grad():
        net.classifier.weight.normal_()
    file, target = saved_as(tmp_path / "net.safetensors", net.state_dict()), tmp_path / "best.pt"
    (tmp_path / "names.txt").write_text("\n".join(shards.classes))
    options = ("--layout", "timm", "--shards", shards.root, "--to", target, "--classes", tmp_path / "names.txt")
    code, out, err = call(file, *options, "--model", "mobilenetv3_small_050")
    assert code == 0 and "timm:mobilenetv3_small_050" in out and "as timm's mobilenetv3_small_050.lamb_in1k" in err
    assert_same_logits(load_trained(target), net, 224)


def test_a_net_of_timm_whose_weights_have_another_mean(shards, tmp_path):
    net = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES)
    file = saved_as(tmp_path / "net.safetensors", net.state_dict())
    saved, notes = convert.convert(file, "timm", shards, "vit_tiny_patch16_224", shards.classes)
    assert "input: minus (0.5, 0.5, 0.5)" in notes[-1] and saved["config"]["crop"] == 224
    saved, notes = convert.convert(file, "timm", shards, "timm:vit_tiny_patch16_224")
    assert not any(note.startswith("input") for note in notes)  # nothing will be evaluated with it
    *_, note = input_of("timm", "timm:vit_base_patch16_224")
    assert note.endswith("; other weights of this net have other values, and would be evaluated wrongly")


def test_the_input_of_a_net_is_its_published_weights():
    assert np.allclose(input_of("torchvision", "efficientnet_v2_l")[0], 127.5)
    assert np.allclose(input_of("torchvision", "vit_b_16")[1], 255 * np.array(IMAGENET_STD))
    assert "timm has no weights of this net" in input_of("timm", "timm:resnet_of_nobody")[2]


@pytest.mark.parametrize(
    "layout, model, said",
    [
        ("caffe", "resnet18", "--model resnet18: of Caffe's nets only bvlc_alexnet can be imported"),
        ("timm", "", "--layout timm: which net?"),
        ("torchvision", "timm:resnet18", "--model timm:resnet18: not a net of torchvision"),
        ("timm", "torchvision:resnet18", "--model torchvision:resnet18: not a net of timm"),
        ("torchvision", "resnt18", "--model torchvision:resnt18: no such net"),
    ],
)
def test_a_net_that_the_layout_has_not(shards, tmp_path, layout, model, said):
    file = saved_as(tmp_path / "net.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(UsageError) as caught:
        convert.convert(file, layout, shards, model)
    assert caught.value.message == said and caught.value.hint


def test_another_net_than_the_file_s(shards, tmp_path):
    file = saved_as(tmp_path / "net.safetensors", theirs("resnet18").state_dict())
    with pytest.raises(TrainingError) as caught:
        convert.convert(file, "torchvision", shards)
    assert "not torchvision's alexnet: lacks features.0.weight" in caught.value.message
    assert "name it with --model" in caught.value.hint
    with pytest.raises(TrainingError, match="not torchvision's resnet34: lacks"):
        convert.convert(file, "torchvision", shards, "resnet34")
