"""How people keep their photos: a finder each, which lists them in place and unpacks nothing.

    looks_like(root) -> bool         whether a path is this layout, by a glance
    find(root, split) -> Found       the photos with their class names, or an error that says what is missing

In the order in which `sources.py` asks them:

    kaggle.py        ILSVRC/Data/CLS-LOC with LOC_val_solution.csv
    imagenet2012.py  the official archives of 2012, packed or unpacked, and their devkit
    imagenet2010.py  those of 2010, with patch_images.tar and the labels of the test photos
    parquet.py       Hugging Face's tables, photos inside
    webdataset.py    tars of KEY.jpg with KEY.cls or KEY.json
    listfile.py      text files of `path label`
    folders.py       class folders, with train/ and val/ above them or without

What they share:

    tars.py          members of a tar by their place in it, nested tars too
    class_tars.py    ImageNet's tar of a thousand tars
    devkit.py        ILSVRC's numbers of classes and labels of photos; matfile.py reads its meta.mat
    val_folder.py    a flat val/ that is labelled by a list beside it
    splits.py        train, val or test by the name of a file or folder
    numbered.py      class names for labels that are numbers
    words.py         what people call the classes
"""
