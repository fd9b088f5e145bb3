"""Words for what photos are, and the list of ImageNet's odd ones."""

import re

import pytest
from alexnet_dali.pipeline.prepare.decode import describe_format
from alexnet_dali.pipeline.prepare.known_anomalies import KNOWN, as_known


@pytest.mark.parametrize(
    ("found", "form"),
    [
        (("JPEG", "RGB", "RGB"), "JPEG"),
        (("MPO", "RGB", "RGB"), "JPEG"),
        (("JPEG", "L", "L"), "JPEG grey"),
        (("JPEG", "CMYK", "CMYK;I"), "JPEG CMYK"),
        (("PNG", "RGB", "RGB;16B"), "PNG 16 bit"),
        (("PNG", "RGBA", "RGBA;16B"), "PNG alpha 16 bit"),
        (("PNG", "I;16", "I;16B"), "PNG grey 16 bit"),
        (("PNG", "I", "I;16B"), "PNG grey 16 bit"),  # as older Pillows have it
        (("PNG", "LA", "LA;16B"), "PNG grey alpha 16 bit"),
        (("PNG", "1", "1"), "PNG bilevel"),
        (("PNG", "P", "P;4"), "PNG palette"),
        (("PPM", "I", ""), "PPM grey 16 bit"),
        (("TIFF", "I", "I;32N"), "TIFF grey 32 bit"),
        (("TIFF", "F", "F;32F"), "TIFF grey 32 bit"),
        (("TIFF", "CMYK", "CMYK"), "TIFF CMYK"),
        (("TIFF", "LAB", "LAB"), "TIFF LAB"),
        (("WEBP", "RGBA", "RGBA"), "WebP alpha"),
        (("GIF", "RGB", ""), "GIF"),
        (("GIF", "P", ""), "GIF"),
    ],
)
def test_what_a_photo_is_in_words(found, form):
    assert describe_format(*found) == form
    assert len(form.encode("ascii")) <= 24  # what the spool has room for


def test_ycck_is_told_from_cmyk():
    assert describe_format("JPEG", "CMYK", "CMYK;I", ycck=True) == "JPEG YCCK"
    assert describe_format("TIFF", "RGB", "RGB", ycck=True) == "TIFF"


def test_the_list_is_whole():
    assert len(KNOWN) == 24  # 22 and 1 with four inks, 1 PNG
    assert sum("JPEG CMYK" in forms for forms in KNOWN.values()) == 23
    assert all(re.fullmatch(r"n\d{8}_\d+|ILSVRC2012_val_\d{8}", stem) for stem in KNOWN)


@pytest.mark.parametrize(
    ("stem", "form", "answer"),
    [
        ("n01739381_1309", "JPEG CMYK", True),
        ("n13037406_4650", "JPEG YCCK", True),
        ("n01739381_1309", "JPEG", False),
        ("n01739381_1309", "PNG", False),
        ("ILSVRC2012_val_00019877", "JPEG YCCK", True),
        ("n02105855_2933", "PNG", True),
        ("n02105855_2933", "PNG alpha", True),
        ("n02105855_2933", "JPEG", False),
        ("n02105855_2934", "PNG", None),  # odd, but not on the list
        ("n01440764_10026", "JPEG", None),
        ("", "JPEG", None),
    ],
)
def test_listed_photos_are_compared_with_the_list(stem, form, answer):
    assert as_known(stem, form) is answer
