"""`relu-vs-tanh` and `lrn`: the rule for rates, the ratio, what is kept and what is drawn, and mistakes."""

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from alexnet_dali.model.analysis import small_net_trainer
from alexnet_dali.model.analysis.comparison import Curve, Settings, Variant, epochs_to, ranked
from alexnet_dali.model.analysis.small_net_trainer import SmallNetTrainer, Stopped
from alexnet_dali.model.nets.small_net import SmallNet
from alexnet_dali.model.training import checkpoint
from alexnet_dali.pipeline.errors import TrainingError, UsageError
from alexnet_dali.pipeline.plan.plan import Augmentation, Plan
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.stream.streams import train_stream, views_stream
from alexnet_dali.tools.figures.cli import figures
from alexnet_dali.tools.figures.small_nets.plots import Line, Race, draw_norm, draw_race, norm_words, race_words
from alexnet_dali.tools.figures.style import DARK, LIGHT
from alexnet_dali.tools.prep.sample_photos import make_photos
from conftest import build_set
from PIL import Image

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    """24 training and 8 validation photos of 4 classes, 32x32: one step an epoch."""
    folder = tmp_path_factory.mktemp("small")
    make_photos(folder / "photos", train=24, val=8, classes=4, seed=3, side=(40, 70))
    return build_set(folder / "photos", folder / "shards", size=32)


def trainer_of(shard_set, folder: Path, epochs=3, **changes) -> SmallNetTrainer:
    folder.mkdir(exist_ok=True)
    rest = {name: changes.pop(name) for name in ("report", "stop") if name in changes}
    settings = Settings(changes.pop("rates", (0.001,)), epochs, **changes)
    return SmallNetTrainer(shard_set, stats.load_stats(shard_set), folder, settings, CPU, **rest)


def curve(rate, errors, val=(), broken=False):
    return Curve("relu", rate, list(errors), list(val), broken)


def test_curves_are_ranked():
    def rates(*curves, validate=False):
        return [each.rate for each in ranked(curves, validate)]

    assert rates(curve(0.1, [0.9, 0.5]), curve(0.2, [0.8, 0.4]), curve(0.3, [0.1, 0.6])) == [0.2, 0.1, 0.3]
    assert rates(curve(0.2, [0.8, 0.5]), curve(0.1, [0.9, 0.5])) == [0.1, 0.2], "of equals the smaller"
    assert rates(curve(0.2, [0.8, 0.2], broken=True), curve(0.1, [0.9, 0.5])) == [0.1]
    assert rates(curve(0.2, [0.8, 0.3]), curve(0.1, [0.25])) == [0.1, 0.2], "at the target an epoch sooner"
    validated = curve(0.1, [0.5, 0.1], [0.6, 0.6]), curve(0.2, [0.9, 0.9], [0.6, 0.5])
    assert rates(*validated, validate=True) == [0.2, 0.1] and rates(*validated) == [0.1, 0.2]


class Scripted(SmallNetTrainer):
    """Errors by rate from a table, cut to the epochs and the target that are asked for."""

    def train(self, kind, rate, epochs):
        errors = self.table[rate][:epochs]
        hit = next((place + 1 for place, error in enumerate(errors) if error <= self.settings.target), len(errors))
        self.asked.append((rate, epochs))
        reached = hit > 0 and errors[hit - 1] <= self.settings.target
        return Curve(kind.name, rate, errors[:hit], [], broken=not reached and len(errors) < epochs)


def scripted(table, **settings):
    lab = Scripted(None, None, None, Settings(tuple(table), **settings), CPU)
    object.__setattr__(lab, "table", table), object.__setattr__(lab, "asked", [])
    ((best, tried),) = lab.compare([Variant("relu")])
    return best, {curve.rate: len(curve.errors) for curve in tried}, lab.asked


def test_the_worse_half_of_the_rates_is_dropped_again_and_again():
    """The best after two epochs is not the first at the target."""
    table = {0.1: [0.5, 0.4, 0.4, *[0.4] * 9], 0.2: [0.6, 0.45, 0.35, 0.3, 0.25, 0.2, 0.1], 0.3: [0.9] * 12}
    table |= {0.4: [0.8] * 12, 0.5: [0.7] * 12}
    best, lengths, asked = scripted(table, epochs=12, try_epochs=2, target=0.1)
    assert best.rate == 0.2 and len(best.errors) == 7
    assert lengths == {0.1: 8, 0.2: 7, 0.3: 2, 0.4: 2, 0.5: 4}
    assert asked == [(rate, 2) for rate in table] + [(0.1, 4), (0.2, 4), (0.5, 4), (0.2, 8), (0.1, 8)]
    assert Settings(tuple(table), 12, 2).most_epochs == 5 * 2 + 3 * 2 + 2 * 4 + 1 * 4
    # the one that is left breaks: the next best goes on; one that is at the target ends it
    best, lengths, _ = scripted({0.1: [0.5, 0.3, 0.2], 0.2: [0.6, 0.5, 0.4, 0.3]}, epochs=4, try_epochs=1, target=0.01)
    assert best.rate == 0.2 and lengths == {0.1: 3, 0.2: 4}
    assert scripted({0.1: [0.5], 0.2: [0.01]}, epochs=4, try_epochs=1, target=0.01)[0].rate == 0.2
    with pytest.raises(TrainingError, match=r"the loss does not stay finite at any rate of 0\.1, 0\.2"):
        scripted({0.1: [], 0.2: [0.9]}, epochs=4, try_epochs=1, target=0.01)


def test_epochs_to_the_target():
    assert epochs_to([0.8, 0.5, 0.3, 0.2], 0.25) == pytest.approx(3.5)
    assert epochs_to([0.8, 0.25], 0.25) == 2
    assert epochs_to([0.2], 0.25) == 1
    assert epochs_to([0.8, 0.26, 0.27], 0.25) is None
    assert epochs_to([], 0.25) is None


def test_words_of_the_race_have_a_ratio_only_where_both_arrived():
    names = ("ReLU", "tanh")
    assert race_words(names, [(6.0, 36.0)], 0.25, 60) == "ReLU reaches 25% 6.0 times sooner: 6.0 epochs, not 36.0"
    assert race_words(names, [(30.0, 20.0)], 0.25, 60) == "tanh reaches 25% 1.5 times sooner: 20.0 epochs, not 30.0"
    assert race_words(names, [(5.0, 5.0)], 0.4, 60) == "Both reach 40% after 5.0 epochs"
    assert race_words(names, [(6.0, None)], 0.25, 60) == "ReLU reaches 25% after 6.0 epochs, tanh not within 60"
    assert race_words(names, [(None, 7.0)], 0.25, 60) == "tanh reaches 25% after 7.0 epochs, ReLU not within 60"
    assert race_words(names, [(None, None)], 0.25, 60) == "Neither reaches 25% within 60 epochs"


def test_words_of_several_seeds():
    names = ("ReLU", "tanh")
    both = [(6.0, 36.0), (5.0, 35.0)]
    assert race_words(names, both, 0.25, 60) == "ReLU reaches 25% 6.5 times sooner (6.0 to 7.0, 2 seeds)"
    bound = [(6.0, 36.0), (5.0, None)]
    assert race_words(names, bound, 0.25, 60) == "ReLU reaches 25% at least 6.0 times sooner, with each of 2 seeds"
    neither = [(6.0, 36.0), (None, None)]
    assert race_words(names, neither, 0.25, 60) == "Of 2 seeds ReLU reaches 25% within 60 epochs with 1, tanh with 1"


def test_words_of_the_ablation():
    assert norm_words(0.13, 0.11) == "2.0 points less error with normalisation: 11.0%, not 13.0%"
    assert norm_words(0.11, 0.13) == "2.0 points more error with normalisation: 13.0%, not 11.0%"
    assert norm_words(0.11, 0.1101) == "Normalisation makes no difference: 11.0%"


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_figures_hold_the_curves_the_target_and_the_words(theme):
    relu, tanh = Line("ReLU", 0.01, [0.8, 0.4, 0.2]), Line("tanh", 0.003, [0.9, 0.8, 0.5, 0.3, 0.2])
    figure = draw_race([Race(relu, tanh, (2.75, 4.5))], 0.25, 60, "about", theme)
    (axes,) = figure.axes
    solid, dashed, *marks, level = axes.lines
    assert list(solid.get_ydata()) == pytest.approx([80, 40, 20]) and solid.get_linestyle() == "-"
    assert list(dashed.get_ydata()) == pytest.approx([90, 80, 50, 30, 20]) and dashed.get_linestyle() == "--"
    assert list(dashed.get_xdata()) == [1, 2, 3, 4, 5]
    assert set(level.get_ydata()) == {25} and [mark.get_xdata()[0] for mark in marks] == [2.75, 4.5]
    assert any("1.6 times sooner" in text.get_text() for text in figure.texts)
    assert _within(figure)
    figure = draw_norm(Line("without", 0.01, [0.5, 0.13]), Line("with", 0.01, [0.5, 0.11]), "about", theme)
    assert any("2.0 points less" in text.get_text() for text in figure.texts)
    assert _within(figure)


def _within(figure) -> bool:
    """No words leave the figure."""
    figure.draw_without_rendering()
    return all(text.get_window_extent().x1 < figure.bbox.x1 for text in figure.texts)


def test_the_longest_words_fit():
    line = Line("ReLU", 0.01, [0.8, 0.7])
    assert _within(draw_race([Race(line, line, (123.4, None))], 0.125, 200))
    assert _within(draw_race([Race(line, line, (123.4, 199.9))], 0.125, 200))
    assert _within(draw_race([Race(line, line, (12.3, 199.9)), Race(line, line, (12.3, None))], 0.125, 200))
    assert _within(draw_norm(Line("a", 0.1, [0.999]), Line("b", 0.1, [0.555])))


def test_no_picture_is_reflected_or_moved(small_set, tmp_path, monkeypatch):
    plans = []
    monkeypatch.setattr(
        small_net_trainer, "train_stream", lambda *given, **rest: plans.append(given[2]) or train_stream(*given, **rest)
    )
    trainer_of(small_set, tmp_path, epochs=1, seed=4).train(Variant("relu"), 0.001, 1)
    plain = next(plans[0].batches())
    varied = next(Plan(24, 128, 4, 32, Augmentation(32)).batches())
    assert varied.flip.any() and not plain.flip.any() and not plain.left.any()
    assert (plain.records == varied.records).all()


def test_a_stopped_net_goes_on_to_the_same_weights(small_set, tmp_path):
    kind = Variant("with", norm=True, decay=True)
    whole = trainer_of(small_set, tmp_path / "whole", validate=True).train(kind, 0.003, 2)
    steps = iter([False, False, True])
    with pytest.raises(Stopped):
        trainer_of(small_set, tmp_path / "cut", validate=True, stop=lambda: next(steps)).train(kind, 0.003, 2)
    kept = checkpoint.load(tmp_path / "cut" / "with-0.003.pt")["curve"]
    assert len(kept["errors"]) == 1
    said = []
    again = trainer_of(small_set, tmp_path / "cut", validate=True, report=lambda c, s: said.append(s > 0))
    assert again.train(kind, 0.003, 2) == whole
    assert said == [False, True] and len(whole.errors) == len(whole.val_errors) == 2
    one, two = (checkpoint.load(tmp_path / run / "with-0.003.pt") for run in ("whole", "cut"))
    for part in ("model", "velocity"):  # bit for bit: the same batches in one process, with the same threads
        assert all(torch.equal(one[part][name], two[part][name]) for name in one[part])


@pytest.mark.parametrize("decay", [False, True])
def test_the_first_step_is_the_papers_rule(small_set, tmp_path, decay):
    """v = -rate (g + decay w); twice the rate and no decay for biases; the layer file's decay only where asked."""
    lab = trainer_of(small_set, tmp_path, epochs=1)
    lab.train(Variant("a", decay=decay), 0.002, 1)
    velocity = checkpoint.load(tmp_path / "a-0.002.pt")["velocity"]
    net = SmallNet(classes=4)
    with views_stream(small_set, lab.stats, "train", crop=32) as stream:  # all photos, which are one batch
        (batch,) = stream
    F.cross_entropy(net(batch.images[:, 0]), batch.labels).backward()
    decays = {"conv1": 0.004, "conv2": 0.004, "conv3": 0.004, "fc10": 1.0}
    for name, parameter in net.named_parameters():
        layer, kind = name.split(".")
        if kind == "bias":
            want = -0.004 * parameter.grad
        else:
            want = -0.002 * (parameter.grad + (decays[layer] if decay else 0.0) * parameter.detach())
        torch.testing.assert_close(velocity[name], want, rtol=1e-3, atol=1e-9, msg=name)


def test_a_rate_that_breaks_is_out_and_the_next_best_is_taken(small_set, tmp_path):
    lab = trainer_of(small_set, tmp_path, rates=(1e30, 0.001), try_epochs=2)
    ((best, tried),) = lab.compare([Variant("relu")])
    assert best.rate == 0.001 and [each.broken for each in tried] == [True, False]


def test_a_call_that_wants_less_than_is_kept_gives_what_it_alone_would(small_set, tmp_path):
    trainer_of(small_set, tmp_path, epochs=4).train(Variant("relu"), 0.001, 4)
    kept = checkpoint.load(tmp_path / "relu-0.001.pt")["curve"]["errors"]
    assert trainer_of(small_set, tmp_path, epochs=2).train(Variant("relu"), 0.001, 2).errors == kept[:2]
    high = trainer_of(small_set, tmp_path, epochs=4, target=0.99).train(Variant("relu"), 0.001, 4)
    assert high.errors == kept[:1]


def test_relu_vs_tanh_draws_and_draws_again_without_training(small_set, tmp_path, in_process, monkeypatch):
    asked = ("relu-vs-tanh", "--shards", small_set.root, "--out", tmp_path / "f", "--rates", "0.001,0.003")
    asked = (*asked, "--epochs", 3, "--try-epochs", 1, "--target", 0.01, "--device", "cpu")
    code, out, err = in_process(figures, *asked)
    assert code == 0, err
    assert "Neither reaches 1% within 3 epochs" in out
    assert re.search(
        r"relu: the best rate, 0\.00[13], is at the edge of --rates; a (larger|smaller) rate may be better", err
    )
    assert re.search(r"relu, rate 0\.001, epoch 1: training error [\d.]+%, [\d.]+ s; at most \d+ s left", err)
    assert len(re.findall(r"epoch \d+: ", err)) == 2 * (2 + 2)
    results = json.loads((tmp_path / "f" / "relu-vs-tanh.json").read_text())
    assert results["ratio"] is None and results["epochs_to_target"] == {"relu": None, "tanh": None}
    assert results["chosen"].keys() == {"relu", "tanh"} and len(results["curves"]) == 4
    assert "<text" in (tmp_path / "f" / "relu-vs-tanh.svg").read_text()
    first = (tmp_path / "f" / "relu-vs-tanh.png").read_bytes()
    (tmp_path / "f" / "relu-vs-tanh.png").unlink()
    monkeypatch.setattr(small_net_trainer, "train_stream", None)  # whoever trains, fails
    code, again, err = in_process(figures, *asked)
    assert (code, again) == (0, out) and "epoch 1" not in err
    assert (tmp_path / "f" / "relu-vs-tanh.png").read_bytes() == first
    code, dark, _ = in_process(figures, *asked, "--dark")
    assert code == 0 and dark == out.replace("tanh.png", "tanh-dark.png").replace("tanh.svg", "tanh-dark.svg")
    with Image.open(tmp_path / "f" / "relu-vs-tanh-dark.png") as picture:
        assert "#{:02x}{:02x}{:02x}".format(*picture.convert("RGB").getpixel((2, 2))) == DARK.paper
    assert (tmp_path / "f" / "relu-vs-tanh.png").read_bytes() == first, "the light one stays"
    assert json.loads((tmp_path / "f" / "relu-vs-tanh.json").read_text()) == results
    code, _, err = in_process(figures, *asked, "--seed", 1)
    assert code == 2 and "contains nets with other seed" in err and "another --out" in err


def test_lrn_draws(small_set, tmp_path, in_process):
    asked = ("lrn", "--shards", small_set.root, "--out", tmp_path, "--rates", "0.001", "--epochs", 2)
    code, out, err = in_process(figures, *asked)
    assert code == 0, err
    assert in_process(figures, *asked, "--dark")[0] == 0 and DARK.paper in (tmp_path / "lrn-dark.svg").read_text()
    assert "ormalisation" in out and "validation" in err
    results = json.loads((tmp_path / "lrn.json").read_text())
    assert results["difference"] == results["curves"][0]["val_errors"][-1] - results["curves"][1]["val_errors"][-1]
    assert (tmp_path / "lrn.png").stat().st_size > 10_000


def test_large_pictures_are_refused_by_name(shards, tmp_path, in_process):
    code, _, err = in_process(figures, "relu-vs-tanh", "--shards", shards.root, "--out", tmp_path)
    assert code == 2
    assert "pictures of 256x256, but the four-layer net requires 32x32" in err and "--size 32" in err


def test_a_set_without_statistics_is_told_how_to_get_them(tmp_path, in_process):
    make_photos(tmp_path / "photos", train=4, val=2, classes=2, seed=3, side=(40, 50))
    shard_set = build_set(tmp_path / "photos", tmp_path / "shards", size=32)
    (shard_set.root / "stats.npz").unlink()
    code, _, err = in_process(figures, "lrn", "--shards", shard_set.root, "--out", tmp_path / "f")
    assert code == 1 and "no statistics yet" in err and "pca-stats" in err
    code, _, err = in_process(figures, "lrn", "--shards", tmp_path / "nowhere", "--out", tmp_path / "f")
    assert code == 2 and "no shard set there" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rates", "0.1,fast"), "'0.1,fast' is not a list of comma-separated numbers"),
        (("--rates", "0.1,-1"), "the rate -1 is not above 0"),
        (("--rates", "nan"), "the rate nan is not above 0"),
        (("--rates", "0.1,0.1"), "a rate is given twice"),
        (("--target", "25"), "the target 25 is not an error between 0 and 1"),
        (("--precision", "tf32", "--device", "cpu"), "--precision tf32 needs a GPU"),
        (("--epochs", "0"), "--epochs"),
    ],
)
def test_mistakes_of_options(small_set, tmp_path, in_process, options, words):
    code, _, err = in_process(figures, "relu-vs-tanh", "--shards", small_set.root, "--out", tmp_path / "f", *options)
    assert code == 2 and words in err
    assert not (tmp_path / "f").exists()


def test_out_that_is_a_file(small_set, tmp_path, in_process):
    (tmp_path / "file").write_text("")
    code, _, err = in_process(figures, "lrn", "--shards", small_set.root, "--out", tmp_path / "file")
    assert code == 2 and "a file, not a folder for figures" in err


def test_settings_check_themselves():
    with pytest.raises(UsageError, match="no learning rate given"):
        Settings((), 3)


def result_of(seed, relu, tanh, rate=0.03, photos=24):
    """The content of relu-vs-tanh.json, of two nets that reach the target after so many epochs."""
    curves = [vars(Curve("relu", 0.003, [0.5, 0.2], [])), vars(Curve("tanh", rate, [0.6, 0.5, 0.2], []))]
    settings = vars(Settings((0.003, 0.03, 0.01), 60, seed=seed, target=0.25))
    return {
        "settings": settings, "photos": photos, "chosen": {"relu": 0.003, "tanh": rate}, "curves": curves,
        "target": 0.25, "epochs_to_target": {"relu": relu, "tanh": tanh}, "ratio": tanh / relu, "about": f"seed {seed}",
    }  # fmt: skip


def test_seeds_are_drawn_together(tmp_path, in_process):
    files = [tmp_path / f"seed{seed}.json" for seed in range(2)]
    files[0].write_text(json.dumps(result_of(0, 2.0, 12.0)))
    files[1].write_text(json.dumps(result_of(1, 2.0, 16.0, rate=0.01)))
    code, out, err = in_process(figures, "relu-vs-tanh", files[1], files[0], "--out", tmp_path / "f")
    assert code == 0, err
    assert "ReLU reaches 25% 7.0 times sooner (6.0 to 8.0, 2 seeds)" in out
    svg = (tmp_path / "f" / "relu-vs-tanh-seeds.svg").read_text()
    assert "tanh, rate 0.01 or 0.03" in svg and "seeds 0, 1" in svg
    together = json.loads((tmp_path / "f" / "relu-vs-tanh-seeds.json").read_text())
    assert together["ratios"] == [6.0, 8.0] and [one["settings"]["seed"] for one in together["seeds"]] == [0, 1]

    def refused(content, *words):
        files[1].write_text(json.dumps(content))
        code, _, err = in_process(figures, "relu-vs-tanh", *files, "--out", tmp_path / "g")
        assert code == 2 and all(word in err for word in words), err

    refused(result_of(0, 2.0, 12.0), "seed1.json: seed 0 is already given")
    refused(result_of(1, 2.0, 12.0, photos=25), "seeds 0 and 1 differ in photos")
    refused({"settings": {"seed": 1}}, "seed1.json: not a result of relu-vs-tanh")
