"""The loop: each step by hand, one run whatever stops it, broken losses, best and last, what the lines say."""

import math

import numpy as np
import oracle
import pytest
import tiny
import torch
import torch.nn.functional as F
from alexnet_dali.model.nets.alexnet import AlexNet
from alexnet_dali.model.recipes.recipe import recipe
from alexnet_dali.model.recipes.schedules import OneCycle, Progress
from alexnet_dali.model.training import checkpoint, metrics, trainer
from alexnet_dali.model.training.evaluate import Result
from alexnet_dali.pipeline.errors import TrainingError
from alexnet_dali.pipeline.plan.lighting import Lighting
from alexnet_dali.pipeline.plan.philox import DROPOUT
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream.streams import train_stream
from conftest import build_set
from PIL import Image
from tiny import HIDDEN, LAYERS, assert_same_run, trainer_of

pytestmark = pytest.mark.usefixtures("small_nets")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Six photos to train on, three to test: three steps of two are an epoch."""
    return tiny.few_shards(tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    """Six photos to train on and none to test."""
    return tiny.few_shards(tmp_path_factory.mktemp("unseen"), val=0)


@pytest.fixture(scope="module")
def undisturbed(few, tmp_path_factory):
    """A run of two epochs, six steps, that nothing stopped; by recipe and precision."""
    runs = {}

    def run(name, precision="fp32"):
        if (name, precision) not in runs:
            folder = tmp_path_factory.mktemp("undisturbed") / "run"
            assert trainer_of(few, folder, recipe=name, precision=precision).train()
            runs[name, precision] = folder
        return runs[name, precision]

    return run


def in_training(run):
    return checkpoint.load(run / "last.pt")


@pytest.mark.parametrize(
    "name, precision", [("source2012", "fp32"), pytest.param("paper", "bf16", marks=pytest.mark.slow)]
)
def test_a_run_stopped_at_every_chance_is_the_same_run(few, tmp_path, undisturbed, name, precision):
    """Asked after each step and each batch of the evaluation; each time it goes on in a new trainer."""
    run = tmp_path / "run"
    epoch = [True, True, True, True, False]  # three steps; the evaluation is given up, then lets through
    answers = iter(epoch + epoch)
    positions, ended, resume = [], False, False
    while not ended:
        part = trainer_of(few, run, resume=resume, recipe=name, precision=precision)
        ended = part.train(stop=lambda: next(answers))
        positions.append((part.state.epoch, part.state.step))
        resume = True
    # Stopped in the evaluation, a run stands at the end of its epoch's steps; let through, it stops after the next.
    assert positions == [(0, 1), (0, 2), (0, 3), (0, 3), (1, 1), (1, 2), (1, 3), (1, 3), (2, 0)]
    assert next(answers, None) is None
    assert_same_run(run, undisturbed(name, precision))


def test_a_run_ended_by_steps_goes_on_to_the_same_weights(few, tmp_path, undisturbed):
    run = tmp_path / "run"
    for steps in (1, 2, 3, 5, 0):
        part = trainer_of(few, run, resume=steps > 1 or steps == 0, steps=steps)
        assert part.last_step == (steps or 6)
        assert part.train() and part.finished and part.steps_done == (steps or 6)
        assert in_training(run)["steps_done"] == part.steps_done
    assert_same_run(run, undisturbed("source2012"))


def test_an_epoch_stopped_in_its_evaluation_keeps_its_clock(few, tmp_path):
    """The resumed process trains nothing of the epoch; its line still says how fast it was."""
    run, answers = tmp_path / "run", iter([False, False, False, True])
    assert not trainer_of(few, run, epochs=1).train(stop=lambda: next(answers))
    assert trainer_of(few, run, resume=True, epochs=1).train()
    (line,) = [line for line in metrics.read(run / "metrics.jsonl") if line["kind"] == "epoch"]
    assert line["images_per_second"] > 0 and 0 < line["stall_percent"] < 100


class Killed(BaseException):
    """In place of the process: nothing catches it."""


@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "each"])
def test_a_run_killed_at_any_file_operation_is_the_same_run(few, tmp_path, monkeypatch, all_of_them):
    """Before the n-th line, checkpoint or renaming, for n = 1, 2, 4, 8 or all n; then it goes on from what there is."""
    options = {"epochs": 1, "save_every": 1, "log_every": 2}
    whole = tmp_path / "whole"
    assert trainer_of(few, whole, **options).train()
    kills = 0
    while True:
        left = kills

        def killed_in_time(operation):
            def call(*arguments):
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return operation(*arguments)

            return call

        run = tmp_path / f"killed{kills}"
        with monkeypatch.context() as patch:
            for owner, name in (
                (metrics.Metrics, "write"),
                (checkpoint, "save"),
                (checkpoint, "hard_link"),
                (checkpoint.os, "replace"),
            ):
                patch.setattr(owner, name, killed_in_time(getattr(owner, name)))
            try:
                assert trainer_of(few, run, **options).train()
                break
            except Killed:
                kills = kills + 1 if all_of_them else 2 * kills + 1
        assert trainer_of(few, run, resume=(run / "last.pt").exists(), **options).train()
        assert_same_run(run, whole)
        best, expected = checkpoint.load(run / "best.pt"), checkpoint.load(whole / "best.pt")
        assert (
            (best["epoch"], best["best_error"]) == (expected["epoch"], expected["best_error"]) == (1, pytest.approx(1))
        )
    assert kills >= 11  # 2 lines, 3 checkpoints and their renamings, the best's other name and its renaming, the cut


def test_saving_more_often_changes_nothing(few, tmp_path, undisturbed):
    assert trainer_of(few, tmp_path / "run", save_every=1).train()
    assert_same_run(tmp_path / "run", undisturbed("source2012"))


def test_seed_and_batch_size_do(few, tmp_path, undisturbed):
    weights = [in_training(undisturbed("source2012"))["model"]["conv1.weight"]]
    for k, changes in enumerate(({"seed": 1}, {"batch_size": 3, "epochs": 3})):
        assert trainer_of(few, tmp_path / str(k), **changes).train()
        weights.append(in_training(tmp_path / str(k))["model"]["conv1.weight"])
    assert all(not torch.equal(one, two) for k, one in enumerate(weights) for two in weights[:k])


@pytest.mark.parametrize("name", ["source2012", "paper"])
def test_the_first_step_by_hand(few, tmp_path, name):
    """Loss over the batch of the plan's photos, the plan's dropout, the recipe's rates and decays."""
    rate, seed = 0.002, 5
    part = trainer_of(few, tmp_path / "run", recipe=name, steps=1, rate=rate, seed=seed)
    net = AlexNet(4, recipe(name).net, seed=seed).to(memory_format=torch.channels_last)
    measured = stats.load_stats(few)
    light = Lighting("stddev") if name == "source2012" else Lighting("eigenvalue", divide=False)
    with train_stream(few, measured, part.plan, light=light) as stream:
        batch = next(stream)
    logits = net(batch.images, oracle_masks(seed, 0, 0, 2))
    loss = F.cross_entropy(logits, batch.labels)
    loss.backward()
    assert part.train()
    saved = in_training(tmp_path / "run")
    assert saved["window"][0] == pytest.approx(loss.item(), rel=1e-6)
    assert saved["window"][1] == int((logits.argmax(1) != batch.labels).sum())
    for full, parameter in net.named_parameters():
        bias = full.endswith("bias")
        e = rate * (2 if bias and name == "source2012" else 1)
        decay = 0.0 if bias and name == "source2012" else 0.0005
        velocity = -decay * e * parameter.detach() - e * parameter.grad
        scale = float(velocity.abs().max())
        torch.testing.assert_close(saved["velocity"][full], velocity, rtol=1e-4, atol=1e-5 * scale, msg=full)
        torch.testing.assert_close(saved["model"][full], parameter.detach() + velocity, rtol=1e-6, atol=1e-6 * scale)


def oracle_masks(seed, epoch, start, count):
    """Unit u of a place is bit u mod 64, lowest first, of the place's word u // 64."""
    each = 2 * HIDDEN // 64
    words = oracle.philox_words(seed, epoch, DROPOUT, (start + count) * each)
    keep = [
        [(words[place * each + unit // 64] >> unit % 64) & 1 for unit in range(2 * HIDDEN)]
        for place in range(start, start + count)
    ]
    return torch.tensor(keep, dtype=torch.bool)


def test_dropped_units_are_the_plans_at_every_step(few, tmp_path, monkeypatch):
    seen = []
    forward = AlexNet.forward

    def spy(net, x, keep=None):
        if net.training:
            seen.append(keep)
        return forward(net, x, keep)

    monkeypatch.setattr(AlexNet, "forward", spy)
    assert trainer_of(few, tmp_path / "run", seed=9, steps=5).train()
    expected = [oracle_masks(9, epoch, start, 2) for epoch, start in ((0, 0), (0, 2), (0, 4), (1, 0), (1, 2))]
    assert len(seen) == 5 and all(map(torch.equal, seen, expected))


@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_training_and_evaluation_are_in_the_runs_precision(few, tmp_path, monkeypatch, precision, dtype):
    seen = set()
    hidden = AlexNet.hidden

    def spy(net, *arguments):
        activity = hidden(net, *arguments)
        seen.add((net.training, activity.dtype))
        return activity

    monkeypatch.setattr(AlexNet, "hidden", spy)
    part = trainer_of(few, tmp_path / "run", epochs=1, batch_size=6, precision=precision)
    assert part.train()
    assert seen == {(True, dtype), (False, dtype)}
    assert all(parameter.dtype == torch.float32 for parameter in part.net.parameters())


def test_a_batch_larger_than_the_split_is_the_split(few, tmp_path):
    """The loss is divided by the photos that are there."""
    for batch in (6, 8):
        assert trainer_of(few, tmp_path / str(batch), batch_size=batch, epochs=1, log_every=1).train()
    assert_same_run(tmp_path / "6", tmp_path / "8")
    step, epoch = metrics.read(tmp_path / "8" / "metrics.jsonl")
    assert epoch["images_per_second"] == pytest.approx(step["images_per_second"], rel=0.3)


@pytest.mark.parametrize(
    "name, light, mean",
    [("source2012", Lighting("stddev", True, 3), "image"), ("paper", Lighting("eigenvalue", False), "image")],
)
def test_the_stream_is_the_recipes_from_the_present_place(few, tmp_path, monkeypatch, name, light, mean):
    asked = []

    def spy(*arguments, **options):
        asked.append(options)
        return train_stream(*arguments, **options)

    monkeypatch.setattr(trainer, "train_stream", spy)
    for resume, steps in ((False, 1), (True, 2), (True, 3), (True, 4)):
        part = trainer_of(few, tmp_path / "run", resume=resume, recipe=name, epochs=4, steps=steps)
        assert part.plan.augmentation == recipe(name).augmentation and part.plan.size == 256
        assert part.train()
    places = [(options["epoch"], options["step"]) for options in asked]
    assert places == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert all((options["light"], options["mean"]) == (light, mean) for options in asked)


def test_the_diary_turns_the_rates(unseen, tmp_path):
    """Four epochs: a tenth after 1, a hundredth after 2, conv1 frozen and a thousandth after 3."""
    part = trainer_of(unseen, tmp_path / "run", epochs=4, batch_size=6, rate=0.001)
    rates, weights = [], []

    def note(line):
        if line["kind"] == "epoch":
            rates.append(line["rate"])
            weights.append({name: tensor.clone() for name, tensor in part.net.state_dict().items()})

    assert part.train(note)
    assert rates == pytest.approx([0.001, 0.0001, 0.00001, 0.000001])
    assert [name for name in weights[2] if torch.equal(weights[2][name], weights[3][name])] == [
        "conv1.weight",
        "conv1.bias",
    ]


def scripted(monkeypatch, errors):
    """Let the evaluations come out as told."""
    outcomes = iter(errors)
    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: Result(3, 1.0, next(outcomes), 0.0))


def test_the_plateau_turns_the_rates_across_stops(few, tmp_path, monkeypatch):
    scripted(monkeypatch, [0.9, 0.9, 0.8, 0.9, 0.8, 0.8])
    run, rates = tmp_path / "run", []
    for epochs in (1, 2, 4, 6):
        part = trainer_of(few, run, resume=epochs > 1, recipe="paper", batch_size=6, epochs=epochs, rate=0.001)
        part.state.schedule.patience = 2
        assert part.train(lambda line: rates.append(line["rate"]) if line["kind"] == "epoch" else None)
    # 0.9 again: one without; 0.8: better; 0.9 and 0.8: two without, so a tenth from the sixth epoch on
    assert rates == pytest.approx([0.001] * 5 + [0.0001])
    assert in_training(run)["schedule"] == {"patience": 2, "drops": 1, "best": 0.8, "waited": 1}


def test_the_rates_within_an_epoch_are_the_steps(unseen, tmp_path):
    """One cycle turns with every step; a line has the rate of its last step, also where that ends an epoch."""
    lines: list[dict] = []
    part = trainer_of(unseen, tmp_path / "run", recipe="modern", epochs=5, rate=0.01, log_every=1, batch_size=3)
    assert part.train(lines.append)
    rates = [line["rate"] for line in lines if line["kind"] == "step"]
    cycle = OneCycle()
    assert rates == [cycle.rates(0.01, Progress(*divmod(step, 2), 2, 5)).weights for step in range(10)]
    assert [line["rate"] for line in lines if line["kind"] == "epoch"] == rates[1::2]


def test_a_run_ends_early_across_stops(few, tmp_path, monkeypatch):
    """Two epochs without a better error; what was seen before a stop counts, and the end is one."""
    scripted(monkeypatch, [0.9, 0.8, 0.8, 0.9, 0.7])
    run = tmp_path / "run"
    for epochs in (1, 3, 9):
        part = trainer_of(few, run, resume=epochs > 1, batch_size=6, epochs=epochs, early_stop=2)
        assert part.train() and part.finished
    assert part.state.epoch == 4 and in_training(run)["early_stop"] == {"patience": 2, "best": 0.8, "waited": 2}
    assert trainer_of(few, run, resume=True, batch_size=6, epochs=9, early_stop=2).finished
    # More patience, or none, goes on.
    assert not trainer_of(few, run, resume=True, batch_size=6, epochs=9, early_stop=3).finished
    part = trainer_of(few, run, resume=True, batch_size=6, epochs=5)
    assert not part.finished and part.train() and part.state.epoch == 5


@pytest.mark.parametrize(
    "name", ["modern", *(pytest.param(name, marks=pytest.mark.slow) for name in ("no-dropout", "no-talk", "six-conv"))]
)
def test_other_recipes_go_on_to_the_same_weights(few, tmp_path, name):
    """Running means, the place in the cycle and torch's own draws included."""
    assert trainer_of(few, tmp_path / "whole", recipe=name).train()
    for steps in (2, 3, 0):
        assert trainer_of(few, tmp_path / "parts", resume=steps != 2, recipe=name, steps=steps).train()
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize(
    "name, taken",
    [
        ("source2012", ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")),
        ("six-conv", ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")),
        ("six-conv-2009", ("conv1", "conv2", "conv3", "conv4", "conv5")),
        ("six-conv-2011", ("conv1", "conv2", "conv3", "conv4", "conv5")),
    ],
)
def test_a_net_begins_with_the_layers_that_its_recipe_takes(few, tmp_path, undisturbed, name, taken):
    first = in_training(undisturbed("source2012"))
    options = {"recipe": name, "seed": 3, "init_from": "runs/first/last.pt"}
    part = trainer_of(few, tmp_path / "run", first=first, **options)
    own = AlexNet(4, recipe(name).net, seed=3).state_dict()
    for full, tensor in part.net.state_dict().items():
        theirs = full.split(".")[0] in taken
        assert torch.equal(tensor, first["model"][full] if theirs else own[full]), full
    assert part.optimizer.velocities() == dict.fromkeys(own) and part.steps_done == 0


def test_weights_that_do_not_fit_are_refused(few, tmp_path, undisturbed):
    first = in_training(undisturbed("source2012"))
    with pytest.raises(TrainingError) as caught:
        trainer_of(few, tmp_path / "run", first=first, recipe="one-gpu", init_from="runs/first/last.pt")
    assert caught.value.message == (
        "runs/first/last.pt: conv1.weight has shape (96, 3, 11, 11), but one-gpu requires (48, 3, 11, 11)"
    )
    with pytest.raises(TrainingError, match=r"batch_norms\.0\.weight is missing, but modern requires \(96,\)"):
        trainer_of(few, tmp_path / "run", first=first, recipe="modern", init_from="runs/first/last.pt")


def test_best_is_the_epoch_of_the_lowest_error(few, tmp_path, monkeypatch):
    """Also where the run goes on in another process after it."""
    scripted(monkeypatch, [0.9, 0.5, 0.5, 0.7])
    run = tmp_path / "run"
    bests, weights = [], []
    for epochs in (2, 4):
        part = trainer_of(few, run, resume=epochs > 2, batch_size=6, epochs=epochs)

        def note(line, net=part.net):
            if line["kind"] == "epoch":
                weights.append(net.conv1.weight.detach().clone())
                bests.append(checkpoint.load(run / "best.pt")["epoch"] if (run / "best.pt").exists() else None)

        assert part.train(note)
    assert bests == [None, 1, 2, 2]  # a line comes before its epoch is saved
    best, last = checkpoint.load(run / "best.pt"), in_training(run)
    assert (best["epoch"], best["best_error"], last["epoch"], last["best_error"]) == (2, 0.5, 4, 0.5)
    assert torch.equal(best["model"]["conv1.weight"], weights[1])
    assert torch.equal(last["model"]["conv1.weight"], weights[3])
    assert sorted(path.name for path in run.iterdir()) == ["best.pt", "kernels", "last.pt", "metrics.jsonl"]


def test_without_val_there_is_no_best(unseen, tmp_path):
    run = tmp_path / "run"
    assert trainer_of(unseen, run, epochs=1, batch_size=6).train()
    assert sorted(path.name for path in run.iterdir()) == ["kernels", "last.pt", "metrics.jsonl"]
    (line,) = metrics.read(run / "metrics.jsonl")
    assert line["kind"] == "epoch" and not [name for name in line if name.startswith("val")]


def test_lines_hold_what_scripts_rely_on(few, undisturbed, tmp_path):
    written = metrics.read(undisturbed("source2012") / "metrics.jsonl")
    assert [(line["kind"], line["epoch"], line["step"]) for line in written] == [
        ("step", 1, 2),
        ("epoch", 1, 3),
        ("step", 2, 4),
        ("step", 2, 6),
        ("epoch", 2, 6),
    ]
    promised = {"kind", "epoch", "step", "loss", "images_per_second", "stall_percent"}
    for line in written:
        assert promised <= line.keys()
        assert 0 < line["loss"] < 10 and 0 < line["images_per_second"] < 1e5 and 0 <= line["stall_percent"] <= 100
        assert 0 <= line["top1_error"] <= 1
        if line["kind"] == "epoch":
            assert 0 <= line["val_top1_error"] <= 1 and line["val_top5_error"] == 0.0 and line["val_loss"] > 0
    # Lines of every step add up to the lines of two steps and of epochs.
    assert trainer_of(few, tmp_path / "run", log_every=1).train()
    steps = [line for line in tiny.lines(tmp_path / "run") if line["kind"] == "step"]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    losses = [line["loss"] for line in steps]
    assert [line["loss"] for line in written] == pytest.approx(
        [np.mean(losses[0:2]), np.mean(losses[0:3]), np.mean(losses[2:4]), np.mean(losses[4:6]), np.mean(losses[3:6])]
    )
    wrong = [line["top1_error"] for line in steps]
    assert written[1]["top1_error"] == pytest.approx(np.mean(wrong[:3]))


def test_the_reported_lines_are_the_written_ones(few, tmp_path):
    reported: list[dict] = []
    assert trainer_of(few, tmp_path / "run", epochs=1).train(reported.append)
    assert reported == metrics.read(tmp_path / "run" / "metrics.jsonl")


def test_lines_of_an_earlier_run_that_saved_nothing_are_cut(few, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "step", "epoch": 1, "step": 1}\n{"kind": "st')
    assert trainer_of(few, tmp_path, steps=2).train()
    assert [line["step"] for line in metrics.read(tmp_path / "metrics.jsonl")] == [2]


def poisoned(monkeypatch, at, value=math.nan):
    """Let the loss of the n-th step be no number."""
    count = 0

    def cross_entropy(*arguments, **options):
        nonlocal count
        count += 1
        return F.cross_entropy(*arguments, **options) * (value if count == at else 1)

    class Functional:
        def __getattr__(self, name):
            return cross_entropy if name == "cross_entropy" else getattr(F, name)

    monkeypatch.setattr(trainer, "F", Functional())


@pytest.mark.parametrize(
    "options, stop, said",
    [
        ({"log_every": 2}, False, "the loss is nan between steps 3 and 4"),
        pytest.param(
            {"log_every": 100, "save_every": 1}, False, "the loss is nan between steps 1 and 4", marks=pytest.mark.slow
        ),
        pytest.param(
            {"log_every": 100, "steps": 4}, False, "the loss is nan between steps 1 and 4", marks=pytest.mark.slow
        ),
        pytest.param({"log_every": 100}, True, "the loss is nan between steps 1 and 4", marks=pytest.mark.slow),
        ({"log_every": 100}, False, "the loss is nan between steps 1 and 6"),
    ],
    ids=["at a line", "at a checkpoint", "at the last step", "when stopped", "at the epoch's end"],
)
def test_a_broken_loss_ends_the_run_and_is_never_saved(few, tmp_path, monkeypatch, options, stop, said):
    """Step 4 is broken, the first of epoch 2: the checkpoint of epoch 1 stays, sound."""
    run = tmp_path / "run"
    poisoned(monkeypatch, at=4)
    part = trainer_of(few, run, **options)
    with pytest.raises(TrainingError) as caught:
        part.train(stop=lambda: stop and part.steps_done == 4)
    assert caught.value.message == said
    assert "smaller --rate" in caught.value.hint
    saved = in_training(run)
    assert saved["steps_done"] == 3
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())
    monkeypatch.undo()
    tiny.shrink(monkeypatch)
    assert trainer_of(few, run, resume=True, steps=4).train()


def test_broken_weights_are_never_saved(few, tmp_path, monkeypatch):
    """A step can break the weights while its own loss, taken before it, is a number."""
    run = tmp_path / "run"
    part = trainer_of(few, run, steps=4)
    step = part.optimizer.step

    def overflow():
        step()
        if part.steps_done == 3:
            with torch.no_grad():
                part.net.fc8.weight[1, 2] = math.inf

    monkeypatch.setattr(part.optimizer, "step", overflow)
    with pytest.raises(TrainingError, match=r"fc8\.weight is not finite after step 4"):
        part.train()
    assert in_training(run)["steps_done"] == 3 and in_training(run)["model"]["fc8.weight"].isfinite().all()


def test_a_stuck_loss_is_said_once_however_short_the_epochs(unseen, tmp_path):
    """One step an epoch: the wait goes on from epoch to epoch."""
    part = trainer_of(unseen, tmp_path / "run", epochs=7, batch_size=6, rate=1e-9, log_every=1)
    with torch.no_grad():
        part.net.fc8.weight.zero_()
    part.monitor.patience = 4
    said: list[dict] = []
    assert part.train(said.append)
    kinds = [line["kind"] for line in said]
    assert kinds.count("warning") == 1 and kinds[: kinds.index("warning")].count("step") == 5
    text = said[kinds.index("warning")]["text"]
    assert text.startswith("the loss has stayed at ln(classes) = 1.386 for 4 steps, until step 5")
    assert "0% of the last hidden layer's units are dead" in text


def test_a_checkpoint_of_another_net_is_refused(few, tmp_path):
    run = tmp_path / "run"
    assert trainer_of(few, run, steps=1).train()
    saved = in_training(run)
    part = {name: value for name, value in saved.items() if name not in ("format", "version")}
    spoils: list[dict] = [{"model": {**saved["model"], "conv6.weight": torch.zeros(2)}}, {"velocity": {}}]
    for spoilt in spoils:
        checkpoint.save(run / "last.pt", {**part, **spoilt})
        with pytest.raises(TrainingError) as caught:
            trainer_of(few, run, resume=True)
        assert caught.value.message.startswith(f"{run / 'last.pt'}: does not fit this net: ")


def test_fewer_steps_than_done_are_done(few, tmp_path):
    run = tmp_path / "run"
    assert trainer_of(few, run, steps=2).train()
    part = trainer_of(few, run, resume=True, steps=1)
    assert part.finished and part.train() and part.steps_done == 2
    # Stopped before an evaluation, a run has that to do, and no step.
    asked = iter([True])
    assert not trainer_of(few, run, resume=True).train(stop=lambda: next(asked))
    part = trainer_of(few, run, resume=True, steps=1)
    assert not part.finished and part.train() and (part.state.epoch, part.state.step) == (1, 0)
    assert "val_top1_error" in metrics.read(run / "metrics.jsonl")[-1]


def test_the_net_is_in_training_after_an_evaluation(few, tmp_path, undisturbed):
    part = trainer_of(few, tmp_path / "run", epochs=1)
    assert part.train() and part.net.training


def test_the_net_learns(tmp_path):
    """Red from blue in 16 steps: from chance, ln 2 = 0.693, to being sure of photos that it has not seen."""
    random = np.random.default_rng(0)
    for k in range(12):
        for name, colour in (("blue", (60, 90, 180)), ("red", (180, 90, 60))):
            path = tmp_path / "photos" / ("train" if k < 8 else "val") / name / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = np.clip(random.normal(colour, 40, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(coarse).resize((64, 64), Image.Resampling.BILINEAR).save(path)
    shard_set = build_set(tmp_path / "photos", tmp_path / "shards", shard_records=16)
    lines = []
    part = trainer_of(shard_set, tmp_path / "run", batch_size=4, rate=0.006, epochs=91, steps=16)
    assert part.train(lambda line: lines.append(line) if line["kind"] == "epoch" else None)
    assert lines[0]["loss"] > 0.6 and lines[0]["val_loss"] > 0.6
    assert lines[-1]["val_top1_error"] == 0.0 and lines[-1]["val_loss"] < 0.2
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert set(LAYERS) == {name.partition(".")[0] for name, _ in part.net.named_parameters()}
