"""Errors over a split: every record once, ten views and several nets averaged, ties shared; against slow NumPy."""

import math
from contextlib import contextmanager

import numpy as np
import oracle
import pytest
import torch
from alexnet_dali.model.analysis.confusion import ClassError, Confusion, Tally
from alexnet_dali.model.training import evaluate as evaluation
from alexnet_dali.model.training.distributed import Team
from alexnet_dali.model.training.evaluate import EvalOptions, evaluate, predict, share_right
from alexnet_dali.pipeline.errors import PlanError, ShardError, TrainingError
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.shards.manifest import open_shard_set
from alexnet_dali.pipeline.stream.stream import Batch
from alexnet_dali.pipeline.stream.streams import views_stream
from conftest import build_set
from PIL import Image
from ranks import together
from torch import nn

CLASSES, VAL = 8, 23
CORNERS = [(0, 0), (32, 0), (0, 32), (32, 32), (16, 16)]  # left and top of the five windows


def val_pixels(k):
    """A smooth picture of 256x256, so that neither resizing nor a coder stands between us and its pixels."""
    coarse = np.random.default_rng(k).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """23 pictures of 8 classes to test, one of each to train on, as raw pixels."""
    folder = tmp_path_factory.mktemp("evaluate")
    for k in range(VAL + CLASSES):
        path = folder / "photos" / ("val" if k < VAL else "train") / f"class{k % CLASSES}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(val_pixels(k)).save(path)
    return build_set(folder / "photos", folder / "shards", encoding="raw", shard_records=7)


class Linear(nn.Module):
    """Logits from every 16th pixel: sensitive to window and reflection, cheap, easily written in NumPy."""

    def __init__(self, seed, scale=0.002):
        super().__init__()
        self.weights = torch.from_numpy(np.random.default_rng(seed).normal(0, scale, (CLASSES, 3 * 14 * 14))).float()
        self.looked_at = 0

    def forward(self, x):
        assert not self.training
        self.looked_at += len(x)
        return x[:, :, ::16, ::16].flatten(1) @ self.weights.T


def slow_probabilities(nets, views, mean_image):
    """Each picture's softmax, averaged over views and nets, in float64 and in the order of the photos."""
    rows = []
    for k in range(VAL):
        pixels = val_pixels(k).astype(np.float64)
        windows = []
        for left, top in CORNERS if views == 10 else CORNERS[4:]:
            window = pixels[top : top + 224, left : left + 224]
            windows += [window, window[:, ::-1]] if views == 10 else [window]
        total = np.zeros(CLASSES)
        for net in nets:
            for window in windows:
                x = (window - mean_image[16:240, 16:240]).transpose(2, 0, 1)[:, ::16, ::16].ravel()
                total += oracle.softmax(list(net.weights.double().numpy() @ x))
        rows.append(total / len(nets) / len(windows))
    return rows


@pytest.mark.parametrize("views", [1, 10])
@pytest.mark.parametrize("nets", [1, 3])
def test_equals_the_slow_oracle(raw, views, nets):
    measured = stats.load_stats(raw)
    nets = [Linear(seed) for seed in range(1, 1 + nets)]
    result = evaluate(nets, raw, measured, options=EvalOptions(views=views))
    rows = slow_probabilities(nets, views, measured.mean_image)
    labels = [k % CLASSES for k in range(VAL)]
    assert result.images == VAL
    assert result.top1_error == pytest.approx(oracle.errors(rows, labels, 1), abs=1e-12)
    assert result.top5_error == pytest.approx(oracle.errors(rows, labels, 5), abs=1e-12)
    loss = np.mean([-math.log(row[label]) for row, label in zip(rows, labels, strict=True)])
    assert result.loss == pytest.approx(loss, rel=1e-5)
    assert 0 < result.top5_error < result.top1_error < 1


@pytest.mark.parametrize(
    "views, at_once", [(1, 1), (1, 3), (1, 22), (1, 23), (1, 256), (10, 1), (10, 64), (10, 256)], ids=str
)
def test_every_record_counts_once_whatever_the_batch(raw, monkeypatch, views, at_once):
    """23 records in batches of 1, 3, 6, 22, 23, 25: the last one is short, or all there is."""
    monkeypatch.setattr(evaluation, "PICTURES_AT_ONCE", at_once)
    measured = stats.load_stats(raw)
    net = Linear(0)
    told: list[int] = []
    result = evaluate(
        [net], raw, measured, see=lambda records, *_: told.append(len(records)), options=EvalOptions(views=views)
    )
    batch = max(1, at_once // views)
    assert told == [batch] * (VAL // batch) + [VAL % batch] * (VAL % batch > 0)
    assert net.looked_at == VAL * views and result.images == VAL
    monkeypatch.undo()
    expected = evaluate([Linear(0)], raw, measured, options=EvalOptions(views=views))
    # Errors are counts: other batch sizes round probabilities differently, by 1e-7, and these are never that close.
    assert (result.top1_error, result.top5_error) == (expected.top1_error, expected.top5_error)
    assert result.loss == pytest.approx(expected.loss, rel=1e-6)


def test_mean_crop_and_split_are_as_asked(raw):
    measured = stats.load_stats(raw)
    base = evaluate([Linear(0)], raw, measured)
    assert evaluate([Linear(0)], raw, measured, options=EvalOptions(mean="rgb")).loss != pytest.approx(
        base.loss, rel=1e-4
    )
    assert evaluate([Linear(0)], raw, measured, split="train").images == CLASSES
    sides = []

    class Sides(nn.Module):
        def forward(self, x):
            sides.append(x.shape[1:])
            return torch.zeros(len(x), CLASSES)

    evaluate([Sides()], raw, measured, options=EvalOptions(crop=200))
    assert set(sides) == {(3, 200, 200)}


def test_it_is_decoded_as_asked(raw, monkeypatch):
    streams = []

    def kept(*arguments, **options):
        streams.append(views_stream(*arguments, **options))
        return streams[-1]

    monkeypatch.setattr(evaluation, "views_stream", kept)
    for decode in ("threads", "dali"):
        evaluate([Linear(0)], raw, stats.load_stats(raw), options=EvalOptions(decode=decode))
    assert [stream.decode for stream in streams] == ["threads", "dali"]


class Silent(nn.Module):
    """Says nothing: equal logits for all classes."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        return torch.zeros(len(x), self.classes)


def test_a_net_that_says_nothing_has_the_error_of_chance(raw):
    result = evaluate([Silent(CLASSES)], raw, stats.load_stats(raw))
    assert result.top1_error == pytest.approx(1 - 1 / CLASSES)
    assert result.top5_error == pytest.approx(1 - 5 / CLASSES)
    assert result.loss == pytest.approx(math.log(CLASSES))


@pytest.mark.parametrize("classes", [2, 4, 5, 6, 1000])
def test_ties_are_shared(classes):
    equal = torch.full((3, classes), 1 / classes)
    labels = torch.tensor([0, 1, classes - 1])
    assert share_right(equal, labels, 1).tolist() == pytest.approx([1 / classes] * 3)
    assert share_right(equal, labels, 5).tolist() == pytest.approx([min(1, 5 / classes)] * 3)


@pytest.mark.parametrize(
    "row, label, top1, top5",
    [
        ([0.4, 0.3, 0.1, 0.1, 0.05, 0.05], 0, 1, 1),
        ([0.4, 0.3, 0.1, 0.1, 0.05, 0.05], 1, 0, 1),
        ([0.4, 0.3, 0.1, 0.1, 0.05, 0.05], 4, 0, 0.5),  # two classes share the fifth place
        ([0.4, 0.3, 0.1, 0.1, 0.05, 0.05], 5, 0, 0.5),
        ([0.3, 0.3, 0.3, 0.1, 0.0, 0.0], 2, 1 / 3, 1),
        ([0.5, 0.1, 0.1, 0.1, 0.1, 0.1], 5, 0, 4 / 5),  # five classes share four places
        ([0.3, 0.2, 0.15, 0.13, 0.12, 0.1], 5, 0, 0),
        ([math.nan] * 6, 0, 0, 0),
        ([0.2, math.nan, 0.2, 0.2, 0.2, 0.2], 1, 0, 0),
    ],
)
def test_share_of_the_label_by_hand(row, label, top1, top5):
    one, labels = torch.tensor([row]), torch.tensor([label])
    assert share_right(one, labels, 1).item() == pytest.approx(top1)
    assert share_right(one, labels, 5).item() == pytest.approx(top5)


def test_of_views_and_nets_probabilities_are_averaged_not_logits():
    """One net sure of class 0, two leaning to class 1: logits would sum to class 0."""

    class Says(nn.Module):
        def __init__(self, *logits):
            super().__init__()
            self.logits = torch.tensor(logits)

        def forward(self, x):
            return self.logits.expand(len(x), -1)

    picture = torch.zeros(1, 1, 3, 2, 2)
    nets = [Says(9.0, 0.0), Says(0.0, 2.0), Says(0.0, 2.0)]
    averaged = predict(nets, picture)
    expected = np.mean([oracle.softmax(net.logits.tolist()) for net in nets], axis=0)
    np.testing.assert_allclose(averaged.numpy()[0], expected, rtol=1e-6)
    assert averaged.argmax() == 1 and torch.stack([net.logits for net in nets]).sum(dim=0).argmax() == 0

    class Looks(nn.Module):
        def forward(self, x):
            return x[:, 0, 0]

    views = torch.zeros(1, 3, 3, 2, 2)
    views[0, :, 0, 0] = torch.stack([net.logits for net in nets])
    np.testing.assert_allclose(predict([Looks()], views).numpy()[0], expected, rtol=1e-6)


def test_views_stay_with_their_picture():
    class Looks(nn.Module):
        def forward(self, x):
            return x[:, :, 0, 0]

    pictures = torch.randn(5, 10, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    rows = predict([Looks()], pictures)
    for picture, row in zip(pictures, rows, strict=True):
        expected = np.mean([oracle.softmax(view[:, 0, 0].tolist()) for view in picture], axis=0)
        np.testing.assert_allclose(row.numpy(), expected, rtol=1e-5)
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(5))


def test_bfloat16_is_averaged_in_float32():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            logits = self.layer(x[:, :, 0, 0])
            seen.append(logits.dtype)
            return logits

    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        seen: list[torch.dtype] = []
        rows = predict([Looks()], torch.randn(4, 10, 3, 1, 1), precision)
        assert seen == [dtype] and rows.dtype == torch.float32
        torch.testing.assert_close(rows.sum(dim=1), torch.ones(4), rtol=0, atol=1e-6)


def test_nets_come_back_in_their_mode_and_without_gradients(raw):
    nets = [Linear(0).train(), Linear(1).eval()]
    evaluate(nets, raw, stats.load_stats(raw))
    assert [net.training for net in nets] == [True, False]
    assert not predict([nn.Flatten()], torch.zeros(1, 1, 3, 1, 1, requires_grad=True)).requires_grad

    class Breaks(nn.Module):
        def forward(self, x):
            raise RuntimeError("broken")

    broken = Breaks().train()
    with pytest.raises(RuntimeError, match="broken"):
        evaluate([broken], raw, stats.load_stats(raw))
    assert broken.training


def test_a_pass_is_given_up_when_told(raw, monkeypatch):
    monkeypatch.setattr(evaluation, "PICTURES_AT_ONCE", 5)
    net, answers = Linear(0), iter([False, False, True])
    assert evaluate([net], raw, stats.load_stats(raw), stop=lambda: next(answers)) is None
    assert net.looked_at == 15


def test_bad_questions_are_refused(raw):
    measured = stats.load_stats(raw)
    with pytest.raises(ShardError, match="no records in a split 'test'"):
        evaluate([Linear(0)], raw, measured, split="test")
    with pytest.raises(PlanError, match="unsupported number of views: 3"):
        evaluate([Linear(0)], raw, measured, options=EvalOptions(views=3))
    with pytest.raises(PlanError, match="unknown mean 'caffe'"):
        evaluate([Linear(0)], raw, measured, options=EvalOptions(mean="caffe"))


def test_records_without_a_label_have_no_error(raw, monkeypatch):
    @contextmanager
    def unlabelled(*_, **__):
        yield [Batch(torch.zeros(2, 1, 3, 224, 224), torch.tensor([1, -1]), True, np.arange(2), None)]

    monkeypatch.setattr(evaluation, "views_stream", unlabelled)
    with pytest.raises(ShardError) as caught:
        evaluate([Linear(0)], raw, stats.load_stats(raw))
    assert caught.value.message == f"{raw.root}: val has records without a label"
    assert caught.value.hint == "evaluate a split that has labels"


def test_records_without_a_label_may_be_looked_at(raw, monkeypatch):
    @contextmanager
    def unlabelled(*_, **__):
        yield [Batch(torch.zeros(2, 1, 3, 224, 224), torch.tensor([1, -1]), True, np.arange(2), None)]

    monkeypatch.setattr(evaluation, "views_stream", unlabelled)
    seen = []
    result = evaluate(
        [Linear(0)],
        raw,
        stats.load_stats(raw),
        see=lambda *batch: seen.append([len(x) for x in batch]),
        options=EvalOptions(allow_unlabelled=True),
    )
    assert seen == [[2, 2, 2]] and result.images == 2
    assert math.isnan(result.loss) and math.isnan(result.top1_error) and math.isnan(result.top5_error)


# --- confusion.py -----------------------------------------------------------------------------------------------------


def test_classes_and_confusions_equal_the_slow_oracle(raw, monkeypatch):
    monkeypatch.setattr(evaluation, "PICTURES_AT_ONCE", 5)
    measured, net, tally = stats.load_stats(raw), Linear(3), Tally(CLASSES)
    result = evaluate([net], raw, measured, see=tally.see)
    rows = slow_probabilities([net], 1, measured.mean_image)
    for label, one in enumerate(tally.errors()):
        own = rows[label::CLASSES]
        assert (one.label, one.images) == (label, len(own))
        assert one.top1_error == pytest.approx(oracle.errors(own, [label] * len(own), 1))
        assert one.top5_error == pytest.approx(oracle.errors(own, [label] * len(own), 5))
    assert sum(one.images * one.top5_error for one in tally.errors()) == pytest.approx(VAL * result.top5_error)
    wrong = [(k % CLASSES, int(row.argmax())) for k, row in enumerate(rows) if row.argmax() != k % CLASSES]
    found = tally.confusions(worst=CLASSES, answers=CLASSES)
    assert {(one.label, one.answer): one.count for one in found} == {pair: wrong.count(pair) for pair in wrong}


def test_worst_classes_and_most_frequent_answers_come_first():
    tally = Tally(5)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
    answers = torch.tensor([0, 3, 2, 3, 0, 1, 1, 1, 4, 0])
    probabilities = torch.full((10, 5), 0.1).scatter(1, answers[:, None], 0.6)
    for half in (slice(0, 7), slice(7, 10)):
        tally.see(np.arange(10)[half], labels[half], probabilities[half])
    assert tally.confusions(worst=2, answers=2) == [
        Confusion(2, 1, 2, 0.5),  # all wrong
        Confusion(2, 0, 1, 0.25),  # as frequent as 4, which has the higher label
        Confusion(0, 3, 2, 0.5),
        Confusion(0, 2, 1, 0.25),
    ]
    assert tally.errors()[1] == ClassError(1, 2, 0.5, 0.0)
    empty = tally.errors()[3]
    assert empty.images == 0 and math.isnan(empty.top1_error) and math.isnan(empty.top5_error)


def test_a_class_that_says_no_number_is_no_answer():
    with pytest.raises(TrainingError, match="probabilities are NaN"):
        Tally(3).see(np.arange(1), torch.tensor([0]), torch.tensor([[0.5, math.nan, 0.5]]))


def _tallied(rank, root, ranks=2):
    shard_set, tally, team = open_shard_set(root), Tally(CLASSES), Team(rank, ranks, rank, ranks)

    def see(records, labels, probabilities):
        # Counts are equal though other batch sizes round differently, by 1e-7, if no probabilities are that close.
        assert probabilities.sort(dim=1).values.diff(dim=1).min() > 1e-6
        tally.see(records, labels, probabilities)

    result = evaluate([Linear(3)], shard_set, stats.load_stats(shard_set), see=see, team=team)
    tally.add_up(team)
    return result.images, [tuple(vars(one).values()) for one in tally.errors()], [*map(vars, tally.confusions())]


@pytest.mark.slow
def test_processes_that_share_the_pass_have_one_tally(raw):
    alone = _tallied(0, raw.root, 1)
    assert together(_tallied, raw.root) == [alone, alone]
