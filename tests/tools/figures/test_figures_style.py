"""How figures are saved and laid out: whole files, the same twice, words that fit."""

import errno
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from alexnet_dali.pipeline.errors import UsageError
from alexnet_dali.pipeline.files import NotWrittenError
from alexnet_dali.tools.figures.sheet import Sheet, shorten, text_width
from alexnet_dali.tools.figures.style import DARK, DPI, LIGHT, save
from faults import Faults
from PIL import Image


def example(theme=LIGHT):
    sheet = Sheet(3, 2, theme)
    sheet.head("A title of $5", "what it is about")
    sheet.picture(0.5, 1, np.full((4, 4, 3), (255, 0, 0), np.uint8), 0.5)
    sheet.bar(1.5, 1, 1, 0.5, theme.right)
    return sheet.figure


def test_two_drawings_are_the_same_files(tmp_path):
    for folder in ("a", "b"):
        png, svg = save(example(), tmp_path / folder, "example")
        assert (png.name, svg.name) == ("example.png", "example.svg")
    for name in ("example.png", "example.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["example.png", "example.svg"]


def test_the_svg_has_words_and_the_png_is_where_the_ruler_says(tmp_path):
    png, svg = save(example(DARK), tmp_path, "example")
    words = [text.text for text in ElementTree.parse(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert words == ["A title of $5", "what it is about"]
    pixels = np.asarray(Image.open(png).convert("RGB"))
    assert pixels.shape == (2 * DPI, 3 * DPI, 3)

    def rgb(color):
        return [int(part, 16) for part in re.findall("..", color[1:])]

    assert pixels[0, 0].tolist() == rgb(DARK.paper) and pixels[int(1.2 * DPI), 2 * DPI].tolist() == rgb(DARK.right)
    red = (pixels == (255, 0, 0)).all(axis=2)
    rows, columns = np.nonzero(red)
    assert red.sum() == (DPI // 2) ** 2, "not a pixel is blurred"
    assert (rows.min(), columns.min()) == (DPI, DPI // 2)


def test_words_are_shortened_to_their_room():
    assert shorten("tench", 2, 8) == "tench"
    short = shorten("black-and-tan coonhound", 0.8, 8)
    assert short.startswith("black") and short.endswith("…")
    assert text_width(short, 8) <= 0.8 < text_width(short[:-1] + "nnnn", 8)
    assert shorten("tench", 0, 8) == "…"


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="out: a file, not a folder for figures"):
        save(example(), tmp_path / "out", "example")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_full_disk_names_the_figure_and_leaves_nothing(tmp_path, number):
    with Faults(tmp_path / "out", number, errno.ENOSPC, on=True), pytest.raises(NotWrittenError) as caught:
        save(example(), tmp_path / "out", "example")
    name = "out" if number == 1 else "out/example.png"
    assert caught.value.filename == str(tmp_path / name) and caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.glob("out/*"))


def test_a_link_is_followed(tmp_path):
    (tmp_path / "example.png").symlink_to("elsewhere.png")
    save(example(), tmp_path, "example")
    assert (tmp_path / "example.png").is_symlink() and (tmp_path / "elsewhere.png").read_bytes()[:4] == b"\x89PNG"
