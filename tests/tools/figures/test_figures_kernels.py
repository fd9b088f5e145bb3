"""The first layer as pictures: every pixel is a weight's colour, the columns stand apart."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import tiny
import torch
from alexnet_dali.model.nets.alexnet import AlexNet
from alexnet_dali.model.training import checkpoint
from alexnet_dali.model.weights.trained import load_trained
from alexnet_dali.tools.figures.first_layer import Kernels, of_checkpoint, of_epochs, smoothness
from alexnet_dali.tools.figures.kernels import colours, draw, kernels, mosaic
from alexnet_dali.tools.figures.style import LIGHT, save
from PIL import Image

pytestmark = pytest.mark.usefixtures("small_nets")


@pytest.fixture(scope="module")
def run(shards, small_nets, tmp_path_factory):
    """A run of one step, which has kept three epochs' kernels."""
    folder = tmp_path_factory.mktemp("kernels") / "run"
    tiny.trainer_of(shards, folder, batch_size=4, steps=1, rate=0.01).train()
    (folder / "kernels").mkdir(exist_ok=True)
    for epoch in (0, 1, 12):
        np.save(folder / "kernels" / f"{epoch:05}.npy", np.random.default_rng(epoch).normal(size=(96, 3, 11, 11)))
    return folder


@pytest.fixture
def call(in_process):
    return lambda *arguments: in_process(kernels, *arguments)


def test_zero_is_grey_and_the_greatest_weight_black_or_white():
    weights = np.zeros((3, 3, 2, 2), np.float32)
    weights[0, :, 0, 1] = 0.5, -1.0, 0.25  # one factor for the three channels
    weights[1, 2, 1, 1] = 0.01
    each = colours(weights)
    assert each.shape == (3, 2, 2, 3)
    assert each[0, 0, 1].tolist() == [191, 0, 159] and each[0, 0, 0].tolist() == [128] * 3
    assert each[1, 1, 1].tolist() == [128, 128, 255] and (each[2] == 128).all(), "a dead kernel is grey"
    assert colours(weights, "net")[1, 1, 1].tolist() == [128, 128, 129]


def test_kernels_lie_row_by_row_with_paper_between():
    pictures = np.stack([np.full((2, 2, 3), 10 * k, np.uint8) for k in range(5)])
    out = mosaic(pictures, 3, "#ffffff", times=2)
    assert out.shape == (10, 16, 3)
    assert out[::2, ::2, 0].tolist() == [
        [0, 0, 255, 10, 10, 255, 20, 20],
        [0, 0, 255, 10, 10, 255, 20, 20],
        [255] * 8,
        [30, 30, 255, 40, 40, 255, 255, 255],
        [30, 30, 255, 40, 40, 255, 255, 255],
    ]


def test_every_pixel_of_figure_3_is_a_weight(tmp_path):
    weights = np.random.default_rng(0).normal(size=(96, 3, 11, 11)).astype(np.float32)
    png, svg = save(draw([Kernels(weights, 2, "after 3 epochs")]), tmp_path, "kernels")
    pixels, expected = np.asarray(Image.open(png).convert("RGB")), colours(weights)
    labels = [text.text for text in ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert labels[0] == "The first layer's 96 kernels, 11x11x3, after 3 epochs" and labels[2:] == [
        "column 1",
        "column 2",
    ]
    left = round(0.3 * 160)
    for column, top in ((0, round(1.05 * 160)), (1, None)):
        block = mosaic(expected[48 * column : 48 * column + 48], 16, LIGHT.paper, 8)
        tops = [top] if top else range(500, 700)
        at = [y for y in tops if np.array_equal(pixels[y : y + len(block), left : left + block.shape[1]], block)]
        assert len(at) == 1, f"column {column + 1} is there, once, to the pixel"
    assert pixels.shape[1] == 2 * left + block.shape[1]


def test_other_nets_are_one_block(tmp_path):
    _, svg = save(draw([Kernels(np.ones((64, 3, 7, 7), np.float32))]), tmp_path, "kernels")
    assert "64 kernels, 7x7x3" in svg.read_text() and "column" not in svg.read_text()
    assert len(list(ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}image"))) == 1


def test_a_run(run, call, tmp_path):
    code, out, err = call(run, "--out", tmp_path)
    assert code == 0 and out == f"{tmp_path}/kernels.png\n{tmp_path}/kernels.svg\n"
    assert "see also --learned" in err, "after one step it is noise"
    found = of_checkpoint(run)
    assert found.columns == 2
    np.testing.assert_array_equal(found.weights, checkpoint.load(run / "last.pt")["model"]["conv1.weight"].numpy())
    assert call(run)[0] == 0 and (run / "figures" / "kernels.png").exists()


def test_what_was_learned_is_the_change(run, call, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "alexnet_dali.tools.figures.kernels.draw", lambda layers, *rest: drawn.append(layers) or draw(layers, *rest)
    )
    code, out, err = call(run, "--learned", "--out", tmp_path)
    assert (code, err) == (0, "") and out.startswith(f"{tmp_path}/kernels-learned.png")
    saved = checkpoint.load(run / "last.pt")
    start = AlexNet(4, load_trained(run / "last.pt").net.options, saved["config"]["seed"]).conv1.weight
    expected = (saved["model"]["conv1.weight"] - start.detach()).numpy()
    np.testing.assert_array_equal(drawn[0][0].weights, expected)
    assert 0 < np.abs(expected).max() < 0.1 * float(start.detach().abs().max())


def test_a_strip_and_an_animation_of_epochs(run, call, tmp_path):
    code, out, _ = call(run, "--epochs", "0,12", "--animation", "--dark", "--out", tmp_path)
    assert code == 0 and out.splitlines()[2] == f"{tmp_path}/kernels-animation-dark.png"
    words = (tmp_path / "kernels-dark.svg").read_text()
    assert re.search(r">after 0 epochs<", words) and ">after 12 epochs<" in words
    with Image.open(tmp_path / "kernels-animation-dark.png") as animation:
        assert animation.n_frames == 2
    assert [one.title for one in of_epochs(run, count=2)] == ["after 0 epochs", "after 12 epochs"]


def test_two_checkpoints_by_name(run, call, tmp_path):
    assert call(run / "last.pt", run, "--out", tmp_path)[0] == 0
    words = (tmp_path / "kernels.svg").read_text()
    assert "run/last, after 0 epochs" in words and ">run, after 0 epochs<" in words


@pytest.mark.parametrize(
    "options, code, said",
    [
        (["nowhere"], 2, "nowhere: no such checkpoint"),
        (["RUN", "--epochs", "3,12"], 2, "no kernels of epoch 3"),
        (["RUN", "--epochs", "x"], 2, "--epochs x: not numbers"),
        (["RUN", "RUN", "--epochs", "1"], 2, "--epochs 1 is given with 2 runs"),
        (["RUN", "--animation"], 2, "--animation needs more than one checkpoint"),
    ],
)
def test_mistakes(run, call, options, code, said):
    found, _, err = call(*(run if option == "RUN" else option for option in options))
    assert found == code and said in err and "try: " in err


def test_damaged_and_foreign_files(run, call, tmp_path):
    own = tmp_path / "own"
    (own / "kernels").mkdir(parents=True)
    saved = torch.load(run / "last.pt", weights_only=True)
    torch.save(saved, own / "last.pt")
    assert "no kernels of its epochs found" in call(own, "--epochs", "1")[2]
    (own / "kernels" / "00001.npy").write_bytes(b"no array")
    code, _, err = call(own, "--epochs", 1)
    assert code == 2 and "no kernels of its epochs found" in err
    torch.save(saved | {"model": {"a": torch.zeros(4, 1, 3, 3)}}, own / "last.pt")
    code, _, err = call(own)
    assert code == 2 and "is not a convolution over RGB" in err


def test_smoothness_tells_noise_from_edges():
    noise = np.random.default_rng(0).normal(size=(8, 3, 11, 11))
    edges = np.tile(np.sin(np.arange(11) / 2), (8, 3, 11, 1))
    assert abs(smoothness(noise)) < 0.1 and smoothness(edges) > 0.7
    assert smoothness(np.zeros((1, 3, 2, 2))) == 0
    assert replace(Kernels(noise), title="x").columns == 1
