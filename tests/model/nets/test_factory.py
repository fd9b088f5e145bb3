"""Nets by name: which one a name is, that others train, stop, resume and are evaluated as AlexNet is."""

import builtins
from dataclasses import replace

import pytest
import tiny
import torch
import torchvision
from alexnet_dali.model.nets import factory
from alexnet_dali.model.nets.alexnet import AlexNet
from alexnet_dali.model.nets.factory import NormalizedNet, create_net, resolve
from alexnet_dali.model.recipes.diaries import DIARIES
from alexnet_dali.model.recipes.optim import Momentum2012, PlainSgd
from alexnet_dali.model.recipes.recipe import paper, recipe, source2012
from alexnet_dali.model.recipes.schedules import OneCycle, Plateau, Rates, Steps
from alexnet_dali.model.recipes.setup import crop_for, first_rate_for, make_optimizer, recipe_for
from alexnet_dali.model.training import checkpoint
from alexnet_dali.model.training.evaluate import EvalOptions, evaluate
from alexnet_dali.model.training.parallel import masks
from alexnet_dali.model.training.trainer import Trainer
from alexnet_dali.model.weights.trained import load_trained
from alexnet_dali.pipeline.errors import TrainingError, UsageError
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.tools import console
from alexnet_dali.tools.evaluate import evaluate_runs
from alexnet_dali.tools.train.cli import train
from tiny import assert_same_run, trainer_of
from torch import nn

SMALL = {"model": "mobilenet_v3_small", "crop": 64}  # batch norm, dropout, squeeze and excitation
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Six photos to train on, three to test: three steps of two are an epoch."""
    return tiny.few_shards(tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def measured(few):
    return stats.load_stats(few)


def other(name, measured, crop=64, classes=4, seed=0):
    chosen = recipe_for(name, crop, source2012())
    return create_net(name, classes, chosen.net, chosen.crop, measured, seed)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("alexnet", "alexnet"),
        ("resnet18", "resnet18"),
        ("torchvision:resnet18", "resnet18"),
        ("torchvision:alexnet", "torchvision:alexnet"),
        ("timm:resnet18", "timm:resnet18"),
        ("convnext_atto", "timm:convnext_atto"),  # torchvision has none
        ("timm:convnext_atto", "timm:convnext_atto"),
    ],
)
def test_a_name_has_one_meaning(typed, meant):
    assert resolve(typed) == meant == resolve(meant)


@pytest.mark.parametrize(
    "typed, near",
    [
        ("resnt18", "resnet18"),
        ("ResNet18", "resnet18"),
        ("alexnot", "alexnet"),
        ("torchvision:resnet19", "resnet1"),
        ("timm:convnext_ato", "convnext_atto"),
        ("other:resnet18", "use torchvision:resnet18 or timm:resnet18"),
        ("timm:resnet50.a1_in1k", "omit .a1_in1k: pretrained weights are not loaded"),
        ("vit_tiny_patch16_224.augreg_in21k", "omit .augreg_in21k: pretrained weights are not loaded"),
        ("hf_hub:timm/resnet18.a1_in1k", "nets are not loaded from a hub: use timm:resnet18"),
        ("hf_hub:someone/theirs", "nets are not loaded from a hub: choose a net of torchvision or timm"),
        ("fasterrcnn_resnet50_fpn", ""),  # detects, and classifies nothing
        ("", ""),
    ],
)
def test_an_unknown_name_is_told_its_neighbours(typed, near):
    with pytest.raises(UsageError) as caught:
        resolve(typed)
    assert caught.value.message == f"--model {typed}: no such net"
    assert near in caught.value.hint and "pip install" not in caught.value.hint


@pytest.fixture
def without_timm(monkeypatch):
    real = builtins.__import__

    def absent(name, *arguments):
        if name == "timm":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", absent)


def test_without_timm_its_nets_say_so(without_timm, measured):
    for typed in ("convnext_atto", "timm:convnext_atto"):
        with pytest.raises(UsageError) as caught:
            resolve(typed)
        assert caught.value.hint.endswith("timm's nets need: pip install timm")
    assert resolve("resnet18") == "resnet18"
    with pytest.raises(UsageError, match="timm is not installed; pip install timm"):
        other("timm:convnext_atto", measured)  # as alexnet-eval comes to it, by a checkpoint of another machine


# --- what a net looks at ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, asked, size, crop",
    [
        ("alexnet", 0, 256, 224),
        ("alexnet", 224, 256, 224),
        ("resnet18", 0, 256, 224),
        ("resnet18", 160, 256, 160),
        ("inception_v3", 0, 331, 299),
        ("inception_v3", 224, 256, 224),
        ("timm:vit_tiny_patch16_384", 0, 416, 384),
        ("timm:resnet18", 0, 256, 224),
    ],
)
def test_the_window_is_the_nets_own_unless_asked(model, asked, size, crop):
    assert crop_for(model, asked, size, source2012()) == crop


@pytest.mark.parametrize(
    "model, asked, message, hint",
    [
        ("alexnet", 192, "--crop 192: alexnet requires 224x224 input", "omit --crop, or choose another --model"),
        (
            "inception_v3",
            0,
            "inception_v3 requires 299x299 input, but the shard set",
            "--size 331, or",
        ),
        (
            "resnet18",
            257,
            "resnet18 requires 257x257 input, but the shard set's pictures are 256x256",
            "a smaller --crop",
        ),
    ],
)
def test_a_window_that_cannot_be_is_refused(model, asked, message, hint):
    with pytest.raises(UsageError) as caught:
        crop_for(model, asked, 256, source2012())
    assert model in caught.value.message and message in caught.value.message and hint in caught.value.hint


@pytest.mark.parametrize(
    "model, crop, told",
    [
        ("vit_b_32", 192, "vit_b_32 does not accept 192x192 input: AssertionError: Wrong image height!"),
        ("squeezenet1_1", 8, "squeezenet1_1 does not accept 8x8 input: RuntimeError"),
    ],
)
def test_a_window_that_the_net_does_not_take_is_refused(measured, model, crop, told):
    with pytest.raises(UsageError) as caught:
        other(model, measured, crop)
    assert told in caught.value.message and caught.value.hint == "choose another --crop"


def test_a_net_that_gives_no_logits_is_refused(measured, monkeypatch):
    monkeypatch.setattr(factory, "_create", lambda model, classes: nn.Flatten())
    with pytest.raises(UsageError, match=r"resnet18 returns \(1, 12288\), not one logit for each of 4 classes"):
        other("resnet18", measured)


@pytest.mark.parametrize("model", ["googlenet", "inception_v3"])
def test_second_classifiers_are_left_off(measured, model):
    net = other(model, measured, 96)
    assert net.training and net(torch.zeros(2, 3, 96, 96)).shape == (2, 4)


def test_channels_are_divided_by_their_deviations(measured):
    net, x = other("resnet18", measured).eval(), torch.randn(2, 3, 64, 64) * 60
    scaled = x / torch.from_numpy(measured.covariance).diagonal().sqrt().float().view(3, 1, 1)
    torch.testing.assert_close(net(x), net.net(scaled))


def test_weights_come_from_the_seed_and_leave_torchs_generator_alone(measured):
    before = torch.random.get_rng_state()
    nets = [other("resnet18", measured, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    one, same, another = (net.state_dict()["conv1.weight"] for net in nets)
    assert torch.equal(one, same) and not torch.equal(one, another)


# --- how it is trained -----------------------------------------------------------------------------------------------


def test_alexnet_is_trained_as_ever():
    for chosen, expected in ((source2012(), DIARIES["145"]), (paper(), Plateau(patience=5))):
        assert recipe_for("alexnet", 224, chosen) == chosen
        net = AlexNet(4, chosen.net)
        optimizer, schedule = make_optimizer(net, chosen, 90)
        assert isinstance(optimizer, Momentum2012) and schedule == expected


def test_other_nets_have_the_recipes_pictures_and_plain_sgd(measured):
    chosen = recipe_for("resnet18", 160, recipe("source2012"))
    assert (chosen.augmentation, chosen.mean) == (Augmentation(crop=160, shared=1), "image")
    assert (chosen.lighting, chosen.schedule, chosen.decay) == ("stddev", "plateau", 1e-4)
    net = other("resnet18", measured)
    optimizer, schedule = make_optimizer(net, chosen, 90)
    assert isinstance(optimizer, PlainSgd) and schedule == Plateau(patience=5)
    assert [make_optimizer(net, chosen, epochs)[1] for epochs in (1, 35, 36)] == [Plateau(1), Plateau(1), Plateau(2)]
    assert recipe_for("resnet18", 160, recipe("modern")).schedule == "one-cycle"
    decayed, free = optimizer.param_groups
    assert (decayed["weight_decay"], free["weight_decay"], decayed["momentum"]) == (1e-4, 0.0, 0.9)
    names = {parameter: name for name, parameter in net.named_parameters()}
    assert {names[p] for p in free["params"]} == {n for n in names.values() if "bn" in n or "downsample.1" in n} | {
        "fc.bias"
    }
    assert len(decayed["params"]) + len(free["params"]) == len(names) == 62


def test_another_schedule_can_be_asked_for():
    ours = recipe_for("alexnet", 224, source2012(), "one-cycle")
    assert ours == replace(source2012(), schedule="one-cycle") and ours.rates(10) == OneCycle()
    assert ours.light(91).until_epoch is None  # the diary's, and there is none
    assert recipe_for("resnet18", 224, source2012(), "steps").rates(10) == Steps()
    with pytest.raises(UsageError, match="the diaries are for alexnet, not for resnet18"):
        recipe_for("resnet18", 224, source2012(), "diary")
    with pytest.raises(UsageError, match="--schedule cosine: unknown schedule"):
        recipe_for("alexnet", 224, source2012(), "cosine")


@pytest.mark.parametrize("model, batch, rate", [("resnet18", 256, 0.1), ("resnet18", 64, 0.025), ("vgg11", 256, 0.01)])
def test_the_first_rate_is_in_proportion_to_the_batch(model, batch, rate):
    assert first_rate_for(model, 10, batch) == pytest.approx(rate)


def test_the_first_rate_is_found_without_the_weights(monkeypatch):
    """And where a net cannot be made without them, with them."""
    made = []

    def spy(model, classes):
        net = real(model, classes)
        made.append(next(net.parameters()).device.type)
        return net

    def needs_weights(model, classes):
        net = spy(model, classes)
        if made[-1] == "meta":
            raise UsageError("--model resnet18: cannot be made for 10 classes")
        return net

    real = factory._create
    for make, devices in ((spy, ["meta"]), (needs_weights, ["meta", "cpu"])):
        monkeypatch.setattr(factory, "_create", make)
        assert first_rate_for("resnet18", 10, 256) == 0.1
        assert made == devices
        made.clear()


def test_plain_sgd_is_the_formula_across_a_restore():
    random = torch.Generator().manual_seed(0)
    net = nn.Linear(3, 2).double()
    expected = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    v = dict.fromkeys(expected, 0.0)
    optimizer = PlainSgd(net, decay=0.1)
    assert optimizer.velocities() == {"weight": None, "bias": None}
    for rate in (0.1, 0.1, 0.01, 0.2):
        again = PlainSgd(net, decay=0.1)
        again.restore(optimizer.velocities())
        optimizer = again
        optimizer.set_rates(Rates(rate, 99.0, {"weight": 99.0}, {"bias": 99.0}))
        for name, parameter in net.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            v[name] = 0.9 * v[name] + parameter.grad + (0.1 if name == "weight" else 0.0) * expected[name]
            expected[name] = expected[name] - rate * v[name]
        optimizer.step()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-12, atol=1e-14)


def test_torchs_dropout_is_a_function_of_seed_epoch_and_place(measured):
    net, plan = other("resnet18", measured), Plan(60, 14, seed=3)
    batches = plan.batches()
    one, two, *_, next_epoch = (next(batches) for _ in range(5))

    def drawn(seed, batch):
        assert masks(net, seed, batch.epoch, batch.start, len(batch.records), CPU) == ()
        return nn.functional.dropout(torch.ones(64)).tolist()

    assert drawn(3, one) == drawn(3, one)
    seen = [drawn(3, one), drawn(3, two), drawn(3, next_epoch), drawn(4, one)]
    assert all(seen[k] != seen[j] for k in range(4) for j in range(k))


# --- a whole run -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(few, tmp_path_factory):
    """Two epochs of three steps."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert trainer_of(few, run, rate=0.01, **SMALL).train()
    return run


def test_stopped_at_every_step_it_ends_with_the_same_weights(few, tmp_path, undisturbed):
    """Batch norm's running means, momenta and what dropout drops included."""
    run = tmp_path / "run"
    for steps in (1, 2, 4, 0):
        torch.manual_seed(steps)  # as a new process, it knows nothing of the draws before
        assert trainer_of(few, run, resume=steps != 1, rate=0.01, steps=steps, **SMALL).train()
    assert_same_run(run, undisturbed)
    saved = checkpoint.load(run / "last.pt")
    assert saved["model"]["features.0.1.num_batches_tracked"] == 6
    assert (saved["config"]["model"], saved["config"]["crop"]) == ("mobilenet_v3_small", 64)
    assert all(velocity is not None for velocity in saved["velocity"].values())


def test_its_weights_load_in_their_own_library(undisturbed):
    net = torchvision.models.mobilenet_v3_small(num_classes=4)
    net.load_state_dict(checkpoint.load(undisturbed / "last.pt")["model"])


def test_a_timm_net_trains_and_is_loaded(few, tmp_path, measured):
    run = tmp_path / "run"
    assert trainer_of(few, run, steps=1, model="timm:mobilenetv3_small_050", crop=64).train()
    trained = load_trained(run / "last.pt")
    assert isinstance(trained.net, NormalizedNet) and trained.recipe.crop == 64


def test_what_is_evaluated_is_what_was_trained(few, undisturbed, measured):
    trained = load_trained(undisturbed / "last.pt")
    result = evaluate(
        [trained.net], few, measured, options=EvalOptions(crop=trained.recipe.crop, mean=trained.recipe.mean)
    )
    last = tiny.lines(undisturbed)[-1]
    assert result.loss == pytest.approx(last["val_loss"], rel=1e-5)
    assert result.top1_error == pytest.approx(last["val_top1_error"])


def test_weights_of_another_net_are_refused(few, tmp_path, undisturbed):
    saved = checkpoint.load(undisturbed / "last.pt")
    saved["config"]["model"] = "resnet18"
    checkpoint.save(tmp_path / "last.pt", saved)
    with pytest.raises(TrainingError, match=r"last\.pt: does not fit this net"):
        load_trained(tmp_path / "last.pt")
    with pytest.raises(TrainingError, match=r"last\.pt: does not fit this net"):
        Trainer(tiny.config(few, model="resnet18", crop=64), few, stats.load_stats(few), tmp_path, saved)


def test_the_commands_take_another_net(few, tmp_path, monkeypatch, capfd):
    """By its default folder, resumed without naming it, refused under another name, evaluated."""
    monkeypatch.chdir(tmp_path)

    def said(command, *arguments):
        with pytest.raises(SystemExit) as left:
            console.run(command, [str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return left.value.code, out + err

    options = ("--shards", few.root, "--device", "cpu", "--batch-size", 2)
    code, out = said(train, *options, "--model", "mobilenet_v3_small", "--crop", 64, "--epochs", 1, "--steps", 2)
    assert code == 0 and "mobilenet_v3_small by plain SGD, on the pictures of source2012" in out
    assert "rate 0.0007813; momentum 0.9, weight decay 0.0001 except for norms and biases; input 64x64" in out
    run = tmp_path / "runs" / "mobilenet_v3_small"
    assert said(train, "--run", run, "--resume", "--epochs", 1)[0] == 0
    code, out = said(train, "--run", run, "--resume", "--model", "alexnet")
    assert code == 2 and "--model was mobilenet_v3_small, not alexnet" in out
    code, out = said(evaluate_runs, run)
    assert code == 0 and "3 photos" in out
    code, out = said(train, *options, "--model", "resnet81")
    assert code == 2 and "did you mean" in out
