"""The last layer of every net that can be trained here, found by its shapes and compared with each library's names."""

import pytest
import timm
from alexnet_dali.model.nets.factory import _torchvision_names
from alexnet_dali.model.nets.heads import arrays_of, auxiliary_of, head_of, layers_of
from alexnet_dali.model.recipes.recipe import RECIPES, recipe

# torchvision's own names, by the beginnings of its nets' names.
TORCHVISION = {
    "alexnet": "classifier.6",
    "convnext": "classifier.2",
    "densenet": "classifier",
    "efficientnet": "classifier.1",
    "googlenet": "fc",
    "inception": "fc",
    "maxvit": "classifier.5",
    "mnasnet": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3": "classifier.3",
    "regnet": "fc",
    "resne": "fc",
    "shufflenet": "fc",
    "squeezenet": "classifier.1",
    "swin": "head",
    "vgg": "classifier.6",
    "vit": "heads.head",
    "wide_resnet": "fc",
}
QUICK = ("alexnet", "vgg11_bn", "resnet18", "squeezenet1_1", "mobilenet_v3_small", "densenet121", "convnext_tiny")
QUICK += ("vit_b_32", "swin_t", "inception_v3", "googlenet", "maxvit_t", "efficientnet_b0", "regnet_y_400mf")
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in _torchvision_names() if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *OTHERS])
def test_the_head_of_torchvisions_nets(name):
    (expected,) = [layer for beginning, layer in TORCHVISION.items() if name.startswith(beginning)]
    head = head_of("torchvision:alexnet" if name == "alexnet" else name)
    assert set(head) <= {f"{expected}.weight", f"{expected}.bias"} and f"{expected}.weight" in head
    assert layers_of(head) == expected


TIMM = ("resnet18", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224", "ese_vovnet19b_slim")
TIMM_SLOW = ("swin_tiny_patch4_window7_224", "densenet121", "efficientnet_b0", "inception_v3", "xcit_nano_12_p8_224")


@pytest.mark.parametrize("name", [*TIMM, *(pytest.param(name, marks=pytest.mark.slow) for name in TIMM_SLOW)])
def test_the_head_of_timms_nets(name):
    assert layers_of(head_of(f"timm:{name}")) == timm.get_pretrained_cfg(name).classifier


def test_a_net_with_two_heads_has_both():
    assert layers_of(head_of("timm:levit_128s")) == "head.linear, head_dist.linear"


@pytest.mark.parametrize("name", RECIPES)
def test_the_head_of_our_own(name):
    options = recipe(name).net
    assert head_of("alexnet", options) == ("fc8.weight", "fc8.bias")
    assert "fc7.weight" in arrays_of("alexnet", 7, options) and len(arrays_of("alexnet", 7, options)["fc8.bias"]) == 7


def test_second_classifiers_that_our_nets_lack():
    assert auxiliary_of("resnet18") == auxiliary_of("alexnet") == auxiliary_of("timm:inception_v3") == ()
    assert {name.split(".")[0] for name in auxiliary_of("googlenet")} == {"aux1", "aux2"}
    assert {name.split(".")[0] for name in auxiliary_of("inception_v3")} == {"AuxLogits"}


def test_layers_for_people():
    assert layers_of(("fc.weight", "fc.bias")) == "fc" and layers_of(("scale",)) == "scale"
    assert layers_of(tuple(f"a{k}.weight" for k in range(7))) == "a0, a1, a2, a3, a4, ... (7 layers)"
