"""ImageNet's photos whose format differs from their file name, as other projects have listed them.

In:  a file name and the format found in the bytes, such as "PNG grey 16 bit".  Out: whether it is as listed.
The format is always determined from the bytes; the list serves as a check only.
"""

FOUR_INKS = ("JPEG CMYK", "JPEG YCCK")
PNG = ("PNG",)

# The beginning of the format by file name without .JPEG. The CMYK photos of the training set are those of
# github.com/cytsai/ilsvrc-cmyk-image-list; all photos here are also listed in TensorFlow's tools for ImageNet.
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


def as_known(stem: str, form: str) -> bool | None:
    """Compare a photo's format with the list.

    Args:
        stem: the file's name without folder and suffix.
        form: the format from `decode.describe_format`.
    Returns:
        None if the photo is not listed; else whether its format is as listed.
    """
    expected = KNOWN.get(stem)
    return None if expected is None else form.startswith(expected)
