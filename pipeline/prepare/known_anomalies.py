"""What a photo is, in words, and ImageNet's photos that are not what their names say.

In:  what a decoder found in the bytes; a name.  Out: words such as "PNG grey 16 bit"; whether they were expected.
No files, no Pillow. What a photo is, is always found in its bytes: the list only says what others found before.
"""

FOUR_INKS = ("JPEG CMYK", "JPEG YCCK")
PNG = ("PNG",)

# By name without .JPEG: what the form begins with. The CMYK ones of the training set as listed by
# github.com/cytsai/ilsvrc-cmyk-image-list; all of these also stand in TensorFlow's tools for ImageNet.
KNOWN: dict[str, tuple[str, ...]] = {
    "n01739381_1309": FOUR_INKS,
    "n02077923_14822": FOUR_INKS,
    "n02447366_23489": FOUR_INKS,
    "n02492035_15739": FOUR_INKS,
    "n02747177_10752": FOUR_INKS,
    "n03018349_4028": FOUR_INKS,
    "n03062245_4620": FOUR_INKS,
    "n03347037_9675": FOUR_INKS,
    "n03467068_12171": FOUR_INKS,
    "n03529860_11437": FOUR_INKS,
    "n03544143_17228": FOUR_INKS,
    "n03633091_5218": FOUR_INKS,
    "n03710637_5125": FOUR_INKS,
    "n03961711_5286": FOUR_INKS,
    "n04033995_2932": FOUR_INKS,
    "n04258138_17003": FOUR_INKS,
    "n04264628_27969": FOUR_INKS,
    "n04336792_7448": FOUR_INKS,
    "n04371774_5854": FOUR_INKS,
    "n04596742_4225": FOUR_INKS,
    "n07583066_647": FOUR_INKS,
    "n13037406_4650": FOUR_INKS,
    "ILSVRC2012_val_00019877": FOUR_INKS,
    "n02105855_2933": PNG,
}

_FORMATS = {"MPO": "JPEG", "WEBP": "WebP"}  # a JPEG with previews behind it is a JPEG
_MODES = {
    "RGB": "",
    "RGBX": "",
    "RGBA": " alpha",
    "L": " grey",
    "LA": " grey alpha",
    "1": " bilevel",
    "P": " palette",
    "PA": " palette",
}


def as_known(stem: str, form: str) -> bool | None:
    """Say whether a photo looks as the list of odd photos has it.

    Args:
        stem: the file's name without folder and ending.
        form: what the photo is, as `form_of` puts it.
    Returns:
        None: not on the list. True: it looks as listed. False: it is listed, but looks otherwise.
    """
    expected = KNOWN.get(stem)
    return None if expected is None else form.startswith(expected)
