"""What people call the classes: `n01440764` is a tench.

In:  a folder that may hold one of the lists that come with ImageNet.  Out: words by class name.
"""

from pathlib import Path

LISTS = ("LOC_synset_mapping.txt", "synset_words.txt", "words.txt")  # Kaggle's, Caffe's, ImageNet's own
_MOST_BYTES = 16 << 20  # ImageNet's words.txt has 3 MB


def read_words(folder: Path) -> dict[str, str]:
    """Read the first of LISTS that lies in the folder; lines of `name words`, divided by a blank or a tab.

    A list that cannot be read is no reason to stop: the words are for people only.
    """
    for name in LISTS:
        try:
            with open(folder / name, encoding="utf-8-sig", errors="replace") as file:
                lines = file.read(_MOST_BYTES).splitlines()
        except OSError:
            continue
        pairs = (line.split(None, 1) for line in lines)
        return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
    return {}
