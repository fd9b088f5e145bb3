"""Runs that start with another run's weights: of every kind of net all layers but the last, and it is said."""

from types import SimpleNamespace

import pytest
import tiny
import torch
from alexnet_dali.model.nets.factory import create_net
from alexnet_dali.model.nets.heads import head_of
from alexnet_dali.model.recipes.recipe import recipe
from alexnet_dali.model.recipes.setup import recipe_for
from alexnet_dali.pipeline.errors import TrainingError
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.tools.train.run import facts
from alexnet_dali.tools.train.run_summary import introduction
from tiny import trainer_of

NETS = [("torchvision:alexnet", 64), ("resnet18", 64), ("squeezenet1_1", 64), ("mobilenet_v3_small", 64)]
NETS += [("shufflenet_v2_x0_5", 64), ("timm:mobilenetv3_small_050", 64), ("timm:levit_128s", 224)]
SLOW_NETS = [("vgg11_bn", 64), ("densenet121", 64), ("vit_b_32", 224), ("swin_t", 64), ("convnext_tiny", 64)]
SLOW_NETS += [("inception_v3", 96), ("googlenet", 64), ("timm:vit_tiny_patch16_224", 224)]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return tiny.few_shards(tmp_path_factory.mktemp("few"))


def checkpoint_of(few, model, crop, classes=4, seed=9):
    """What a run of another seed would have saved, of untrained weights."""
    chosen = recipe_for(model, crop, recipe("source2012"))
    net = create_net(model, classes, chosen.net, crop, stats.load_stats(few), seed)
    state = {name: array.clone() for name, array in net.state_dict().items()}
    for name, array in state.items():
        if array.is_floating_point() and "num_batches" not in name:
            array.add_(0.25)  # biases of both nets are 0 otherwise
    return {"config": {"model": model, "crop": crop}, "model": state, "stats": {}}


@pytest.mark.parametrize(
    "model, crop", [*NETS, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW_NETS)], ids=lambda each: each
)
def test_all_arrays_but_the_head_are_taken(few, tmp_path, model, crop):
    """Also where the other run had as many classes, for which its last layer would fit."""
    first = checkpoint_of(few, model, crop)
    fresh = trainer_of(few, tmp_path / "run", model=model, crop=crop).net.state_dict()
    part = trainer_of(few, tmp_path / "run", first=first, model=model, crop=crop, init_from="runs/first/last.pt")
    head = head_of(model)
    for name, array in part.net.state_dict().items():
        assert torch.equal(array, fresh[name] if name in head else first["model"][name]), name
    assert part.state.left == head


def test_another_number_of_classes(few, tmp_path):
    first = checkpoint_of(few, "resnet18", 64, classes=1000)
    part = trainer_of(few, tmp_path / "run", first=first, model="resnet18", crop=64, init_from="runs/first/last.pt")
    assert part.net.state_dict()["fc.weight"].shape == (4, 512) and part.state.left == ("fc.weight", "fc.bias")
    lines = introduction(part, resume=False)
    assert "initial weights from runs/first/last.pt; newly initialised: fc" in lines


def test_weights_without_a_head(few, tmp_path):
    """As `alexnet-weights import` makes them for a set of other classes: they lack a step, too."""
    first = checkpoint_of(few, "resnet18", 64)
    first["model"] = {name: array for name, array in first["model"].items() if not name.startswith("fc.")}
    part = trainer_of(few, tmp_path / "run", first=first, model="resnet18", crop=64, init_from="runs/first/last.pt")
    assert torch.equal(part.net.state_dict()["conv1.weight"], first["model"]["conv1.weight"])
    common = facts(part.config, few, SimpleNamespace(fingerprint=""), None, first)  # of several processes
    assert common["step of --init-from"] == 0 and len(common["weights of --init-from"]) == 16


def test_layers_that_a_recipe_takes_are_alexnets(few, tmp_path):
    """resnet18 has a conv1 too, and all its other layers are wanted as well."""
    first, options = checkpoint_of(few, "resnet18", 64), {"model": "resnet18", "crop": 64, "recipe": "six-conv-2009"}
    part = trainer_of(few, tmp_path / "run", first=first, init_from="runs/first/last.pt", **options)
    assert part.state.left == ("fc.weight", "fc.bias")


def test_a_run_of_another_net_is_named(few, tmp_path):
    first = checkpoint_of(few, "squeezenet1_1", 64)
    with pytest.raises(TrainingError) as caught:
        trainer_of(few, tmp_path / "run", first=first, model="resnet18", crop=64, init_from="runs/first/last.pt")
    assert caught.value.message.endswith("conv1.weight is missing, but resnet18 requires (64, 3, 7, 7)")
    assert caught.value.hint.endswith("that one is of --model squeezenet1_1")
