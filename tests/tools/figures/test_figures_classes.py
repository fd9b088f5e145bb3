"""Figures of classes: the matrix is the tally's, bars are errors, a thousand classes are readable."""

from xml.etree import ElementTree

import numpy as np
import pytest
import tiny
import torch
from alexnet_dali.model.analysis.confusion import ClassError, Confusion, Tally
from alexnet_dali.tools.figures import confusion as matrices
from alexnet_dali.tools.figures import per_class
from alexnet_dali.tools.figures.confusion import all_pairs, shares
from alexnet_dali.tools.figures.style import DARK, save
from PIL import Image

pytestmark = pytest.mark.usefixtures("small_nets")
LABELS, TAKEN = [0, 0, 0, 0, 1, 1, 2], [0, 0, 1, 2, 1, 0, 2]


def words_of(svg):
    return [text.text for text in ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture
def tally():
    counted = Tally(4)  # the fourth class has no photos
    counted.see(np.arange(7), torch.tensor(LABELS), torch.eye(4)[TAKEN])
    return counted


def test_the_matrix_is_counted(tally, tmp_path):
    matrix = shares(tally.errors(), all_pairs(tally))
    np.testing.assert_allclose(matrix, [[0.5, 0.25, 0.25, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    names = ["tench", "English springer", "gas pump", "never seen"]
    _, svg = save(matrices.draw(tally.errors(), all_pairs(tally), names), tmp_path, "confusion")
    words = words_of(svg)
    assert all(words.count(name) == 2 for name in names)
    assert [word for word in words if word.isdigit()] == ["50", "25", "25", "50", "50", "100"]


def test_errors_are_sorted_and_classes_without_photos_left_out(tally, tmp_path):
    figure = per_class.draw(tally.errors(), ["zero", "one", "two", "three"], theme=DARK)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths[:3] == [0.5, 0.5, 0.0] and len(widths) == 6
    _, svg = save(figure, tmp_path, "per-class")
    words = words_of(svg)
    assert [word for word in words if word in ("zero", "one", "two", "three")] == ["zero", "one", "two"]
    assert "7 photos of val: mean top-1 42.9%, top-5 0.0%." in words


def thousand():
    errors = [ClassError(k, 50, k / 1000, k / 2000) for k in range(1000)]
    pairs = [Confusion(k, answer, 5, 0.1) for k in reversed(range(1000)) for answer in (1, 2, 3, 4)]
    return errors, pairs, [f"class {k} " + "with a long name " * (k % 3) for k in range(1000)]


def test_of_a_thousand_classes_the_worst_are_named(tmp_path):
    errors, pairs, names = thousand()
    png, svg = save(matrices.draw(errors, pairs, names), tmp_path, "confusion")
    words = words_of(svg)
    bold = [word for word in words if word.startswith("class 9")]
    assert len(bold) == 20 and bold[0].startswith("class 999") and bold[-1].startswith("class 980")
    assert sum(word.startswith("10%  class") for word in words) == 60
    figure = per_class.draw(errors, names)
    curve = figure.axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(curve, 100 * np.arange(999, -1, -1) / 1000)
    _, svg = save(figure, tmp_path, "per-class")
    named = [word for word in words_of(svg) if word.startswith("class ")]
    assert named[0].startswith("class 999") and named[15].startswith("class 0") and len(named) == 30
    with Image.open(png) as picture:
        assert picture.height < 3000


def test_a_run(shards, in_process, tmp_path):
    run = tmp_path / "run"
    tiny.trainer_of(shards, run, batch_size=8, steps=1, rate=0.002).train()
    for command, name in ((matrices.confusion, "confusion"), (per_class.per_class, "per-class")):
        code, out, _ = in_process(command, run, "--device", "cpu")
        assert code == 0 and out == f"{run}/figures/{name}.png\n{run}/figures/{name}.svg\n"
        words = (run / "figures" / f"{name}.svg").read_text()
        assert all(one in words for one in shards.classes)
        code, _, err = in_process(command, run, "--split", "test")
        assert code == 1 and "no records in a split 'test'" in err
