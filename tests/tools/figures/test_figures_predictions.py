"""Photos with their five labels: bars as long as probabilities, the right ones picked, the right one coloured."""

from xml.etree import ElementTree

import numpy as np
import pytest
import tiny
import torch
from alexnet_dali.pipeline.stream.dataset import ShardDataset
from alexnet_dali.tools.figures.answers import Answer, Answers
from alexnet_dali.tools.figures.predictions import WIDTH, draw, percent, predictions
from alexnet_dali.tools.figures.style import LIGHT, save
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from PIL import Image
from unlabelled import make_unlabelled

pytestmark = pytest.mark.usefixtures("small_nets")
SVG_TEXT = "{http://www.w3.org/2000/svg}text"


@pytest.fixture(scope="module")
def run(shards, small_nets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictions") / "run"
    tiny.trainer_of(shards, folder, batch_size=8, steps=2, rate=0.002).train()
    return folder


@pytest.fixture
def call(in_process):
    return lambda *arguments: in_process(predictions, *arguments, "--device", "cpu")


@pytest.fixture
def answers():
    """Eight photos of two classes: even ones are right, and photo k is sure to 0.5 + k / 20."""
    kept = Answers()
    for records in (np.arange(5), np.arange(5, 8)):
        labels = torch.from_numpy(records // 4)
        sure = 0.5 + torch.from_numpy(records) / 20
        taken = torch.where(torch.from_numpy(records) % 2 == 0, labels, 1 - labels)
        probabilities = torch.stack(
            [torch.where(taken == 0, sure, 1 - sure), torch.where(taken == 1, sure, 1 - sure)], 1
        )
        kept.see(records, labels, probabilities)
    return kept


def test_best_and_worst_take_classes_in_turn(answers):
    assert [one.record for one in answers.pick("best", 4)] == [6, 2, 4, 0]
    assert [one.record for one in answers.pick("worst", 3)] == [7, 3, 5]
    worst = answers.pick("worst", 1)[0]
    assert worst.labels == (0, 1) and worst.label == 1 and worst.why == "sure and wrong"
    assert worst.probabilities == pytest.approx((0.85, 0.15)) and worst.own == pytest.approx(0.15)


def test_mixed_are_some_of_each_and_none_twice(answers):
    picked = answers.pick("mixed", 8)
    assert sorted(one.record for one in picked) == list(range(8))
    assert [one.why for one in picked] == ["sure and right"] * 2 + ["at random"] * 4 + ["sure and wrong"] * 2
    assert answers.pick("random", 3, 1) == answers.pick("random", 3, 1) != answers.pick("random", 3, 2)
    assert len(answers.pick("random", 20)) == 8


def test_bars_are_as_long_as_probabilities(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    answer = Answer(3, 1, 0.25, (2, 1, 0), (0.5, 0.25, 0.0004), "at random")
    names = ["tench", "gas pump", "a class with a name much longer than any photo is wide"]
    figure = draw([photo], [answer], names, ["n0", "n1", "n2"])
    bars = [one for one in figure.artists + figure.patches + figure.get_children() if isinstance(one, Rectangle)]
    bars = [one for one in dict.fromkeys(bars) if to_hex(one.get_facecolor()) in (LIGHT.right, LIGHT.wrong)]
    lengths = [one.get_width() * figure.get_figwidth() / WIDTH for one in bars]
    assert lengths == pytest.approx([0.5, 0.25, 0.0004], abs=1e-6)
    assert [to_hex(one.get_facecolor()) for one in bars] == [LIGHT.wrong, LIGHT.right, LIGHT.wrong]
    _, svg = save(figure, tmp_path, "predictions")
    words = [text.text for text in ElementTree.parse(svg).iter(SVG_TEXT)]
    assert words.count("gas pump") == 2 and "label 1 · n1" in words and "given 25%" in words
    assert {"50%", "25%", "<0.1%"} <= set(words)
    assert any(word.startswith("a class with") and word.endswith("…") for word in words)


def test_photos_without_labels_are_neither_right_nor_wrong(answers):
    """Two more photos, surer than all: label -1, which as an index is the last class."""
    answers.see(np.arange(8, 10), torch.tensor([-1, -1]), torch.tensor([[0.01, 0.99], [0.98, 0.02]]))
    assert {one.record for one in answers.pick("best", 20) + answers.pick("worst", 20)} == set(range(8))
    bare = {one.record: one for one in answers.pick("random", 20)}
    assert [bare[record].label for record in (8, 9)] == [-1, -1] and np.isnan(bare[8].own) and np.isnan(bare[9].own)
    assert bare[8].labels == (1, 0) and bare[8].probabilities == pytest.approx((0.99, 0.01))
    figure = draw([np.zeros((32, 32, 3), np.uint8)], [bare[8]], ["tench", "church"], ["n0", "n1"])
    colours = {to_hex(one.get_facecolor()) for one in figure.get_children() if isinstance(one, Rectangle)}
    assert LIGHT.right not in colours and LIGHT.wrong in colours
    words = [text.get_text() for text in figure.texts]
    assert words.count("no label") == 1 and words.count("church") == 1
    assert not [word for word in words if word.startswith(("given", "label"))]


def test_a_set_without_labels(run, shards, call, tmp_path):
    bare = make_unlabelled(shards.root, tmp_path / "bare")
    options = (run, "--shards", bare, "--split", "test", "--out", tmp_path)
    code, _, err = call(*options, "--count", 5)
    assert code == 0, err
    words = (tmp_path / "predictions.svg").read_text()
    assert words.count(">no label<") == 5 and "20 photos of test, 1 view: some are unlabelled, so no error." in words
    assert all(words.count(f">{name}<") == 5 for name in shards.classes), "the net's classes, once below each photo"
    code, _, err = call(*options, "--pick", "worst")
    assert code == 2 and "no prediction for test is known to be wrong" in err


def test_percent():
    assert [percent(one) for one in (1.0, 0.123, 0.0123, 0.0001)] == ["100%", "12%", "1.2%", "<0.1%"]


def test_a_run(run, shards, call, tmp_path):
    code, out, _ = call(run, "--out", tmp_path / "a", "--count", 3, "--views", 10)
    assert code == 0 and out == f"{tmp_path}/a/predictions.png\n{tmp_path}/a/predictions.svg\n"
    words = (tmp_path / "a" / "predictions.svg").read_text()
    assert "20 photos of val, 10 views: top-1 error" in words and "The 4 most probable labels" in words
    assert any(f">{name}<" in words for name in shards.classes)
    assert call(run, "--out", tmp_path / "b", "--count", 3, "--views", 10)[0] == 0
    for name in ("predictions.png", "predictions.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_photos_are_the_records(run, shards, call, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "alexnet_dali.tools.figures.predictions.draw", lambda *values: drawn.append(values) or draw(*values)
    )
    assert call(run, "--out", tmp_path, "--pick", "random", "--count", 20)[0] == 0
    photos, picked = drawn[0][:2]
    dataset = ShardDataset(shards, "val")
    assert sorted(one.record for one in picked) == list(range(20))
    for photo, one in zip(photos, picked, strict=True):
        pixels, label = dataset[one.record]
        np.testing.assert_array_equal(photo, np.asarray(pixels))
        assert label == one.label and one.own == pytest.approx(one.probabilities[one.labels.index(label)])
    with Image.open(tmp_path / "predictions.png") as picture:
        assert picture.width > 1000


@pytest.mark.parametrize(
    "options, code, said",
    [
        (["nowhere"], 2, "nowhere"),
        (["RUN", "--split", "test"], 1, "no records in a split 'test'"),
        (["RUN", "--shards", "nowhere"], 2, "name its folder with --shards"),
    ],
)
def test_mistakes(run, call, options, code, said):
    found, _, err = call(*(run if option == "RUN" else option for option in options))
    assert found == code and said in err
