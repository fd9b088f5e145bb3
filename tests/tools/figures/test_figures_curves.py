"""Curves are the metrics' very numbers; half-written, empty and missing files are met with a sentence."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from alexnet_dali.tools.figures.curves import FILE, curves, draw, read, unique_names
from alexnet_dali.tools.figures.style import DARK
from PIL import Image


def step(epoch, number, **more):
    values = {"loss": 4 / number, "top1_error": 0.9, "rate": 10.0**-epoch, "images_per_second": 90.0 + number}
    return {"kind": "step", "epoch": epoch, "step": number, "stall_percent": 0.5, **values, **more}


def epoch(number, at, **more):
    values = {"loss": 2.0, "val_loss": 1.5, "val_top1_error": 0.5 / number, "val_top5_error": 0.1}
    return {"kind": "epoch", "epoch": number, "step": at, **values, **more}


LINES = [step(1, 5), step(1, 10), epoch(1, 10), step(2, 15), epoch(2, 20)]


def write(folder, lines=LINES, end=""):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    return folder


@pytest.fixture
def call(in_process):
    return lambda *arguments: in_process(curves, *arguments)


def data_of(figure, title):
    axes = next(one for one in figure.axes if one.get_label() == title)
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def test_what_is_drawn_is_what_was_measured(tmp_path):
    figure = draw([read(write(tmp_path / "a") / FILE)])
    training, validation = data_of(figure, "Loss")
    assert training == ([0.5, 1.0, 1.5], [0.8, 0.4, 4 / 15])
    assert validation == ([1.0, 2.0], [1.5, 1.5])
    assert data_of(figure, "Top-1 error")[1] == ([1.0, 2.0], [50.0, 25.0])
    assert data_of(figure, "Top-5 error") == [([1.0, 2.0], [10.0, 10.0])]
    assert data_of(figure, "Learning rate") == [([0.5, 1.0, 1.5], [0.1, 0.1, 0.01])]
    assert data_of(figure, "Images a second") == [([0.5, 1.0, 1.5], [95.0, 100.0, 105.0])]
    assert data_of(figure, "Waiting for data") == [([0.5, 1.0, 1.5], [0.5] * 3)]
    assert {axes.get_label(): axes.get_yscale() for axes in figure.axes}["Learning rate"] == "log"


def test_a_run_that_is_still_in_its_first_epoch_is_drawn_over_steps(tmp_path):
    young = read(write(tmp_path / "young", [step(1, 5)], end='{"kind": "st') / FILE)
    assert len(young.lines) == 1, "a half-written line is left out"
    figure = draw([read(write(tmp_path / "old") / FILE), young])
    assert [places for places, _ in data_of(figure, "Learning rate")] == [[5, 10, 15], [5]]


def test_several_runs_have_a_colour_and_a_name_each(tmp_path, call):
    folders = [write(tmp_path / name) for name in ("one/run", "two/run", "three")]
    code, out, err = call(*folders, "--out", tmp_path / "out")
    assert (code, err) == (0, "") and out == f"{tmp_path}/out/curves.png\n{tmp_path}/out/curves.svg\n"
    words = [
        text.text
        for text in ElementTree.parse(tmp_path / "out" / "curves.svg").iter("{http://www.w3.org/2000/svg}text")
    ]
    assert [word for word in words if word.startswith(("one", "two"))] == ["one/run", "two/run"] and "epochs" in words
    figure = draw([read(folder / FILE, str(k)) for k, folder in enumerate(folders)], DARK)
    rate = next(axes for axes in figure.axes if axes.get_label() == "Learning rate")
    assert [line.get_color() for line in rate.lines] == list(DARK.lines[:3])
    nine = draw([read(folders[0] / FILE, str(k)) for k in range(9)])
    rate = next(axes for axes in nine.axes if axes.get_label() == "Learning rate")
    assert len({(line.get_color(), line.get_linestyle()) for line in rate.lines}) == 9


def test_a_run_without_validation(tmp_path, call):
    bare = [step(1, 5), {"kind": "epoch", "epoch": 1, "step": 10, "loss": 2.0}]
    assert call(write(tmp_path / "run", bare))[0] == 0
    words = (tmp_path / "run" / "figures" / "curves.svg").read_text()
    assert words.count("not measured") == 1 and "Thick: validation" not in words
    with Image.open(tmp_path / "run" / "figures" / "curves.png") as picture:
        assert len(picture.convert("L").getcolors()) > 10


def test_names_are_told_apart():
    assert unique_names([Path("/r/a"), Path("/r/b")]) == ["a", "b"]
    assert unique_names([Path("/r/a"), Path("/s/a"), Path("/s/b")]) == ["r/a", "s/a", "s/b"]
    assert unique_names([Path("/r/a"), Path("/r/a")]) == ["a", "a (2)"]


def test_mistakes(tmp_path, call):
    code, _, err = call(tmp_path)
    assert code == 2 and f"{tmp_path / FILE}: no metrics found" in err and "try: name a run's folder" in err
    for content, said in ((b"", "empty"), (b'{"kind": "st', "no complete line"), (b"\xff\xfe", "no complete line")):
        (tmp_path / FILE).write_bytes(content)
        code, _, err = call(tmp_path)
        assert code == 1 and f"{FILE}: {said}" in err
    (tmp_path / "file").write_text("")
    code, _, err = call(write(tmp_path / "run"), "--out", tmp_path / "file")
    assert code == 2 and "file: a file, not a folder for figures" in err


@pytest.mark.parametrize(
    "strange",
    [
        b"\xff\xfe\n",
        pytest.param(b'{"kind": "step", "epoch": 1, "step": "y"}\n', marks=pytest.mark.slow),
        pytest.param(b'{"kind": "step", "epoch": 1, "step": null}\n', marks=pytest.mark.slow),
        pytest.param(b'{"kind": "step", "epoch": 1, "step": 1e400}\n', marks=pytest.mark.slow),
        b"[" * 200_000 + b"\n",
    ],
    ids=["bytes", "text", "null", "infinite", "deep"],
)
def test_damaged_lines_are_left_out_and_counted(tmp_path, call, strange):
    run = write(tmp_path / "a")
    plain = call(run)
    before = (run / "figures" / "curves.svg").read_bytes()
    (run / FILE).write_bytes((run / FILE).read_bytes() + strange)
    code, out, err = call(run)
    assert (code, out) == (0, plain[1]) and (run / "figures" / "curves.svg").read_bytes() == before
    assert err == f"{run / FILE}: 1 line is damaged or not of a run, and left out\n"


def test_values_that_are_no_numbers_are_not_drawn(tmp_path):
    run = write(tmp_path / "a", [step(1, 5), step(1, 10, loss=float("inf")), step(1, 15, loss=float("nan"))])
    assert data_of(draw([read(run / FILE)]), "Loss")[0] == ([5], [0.8])
