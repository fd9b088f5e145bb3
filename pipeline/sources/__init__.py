"""Photos in the layouts that people have them in: each layout's module lists them in place and unpacks nothing.

    photo.py           a photo's name and location; reading its bytes
    magic.py           the format of a picture by its first bytes
    entries.py         what is asked of a source, and what a layout finds: photos in compact arrays
    splits.py          train, val or test by the name of a file or folder
    inventory.py       all that lies below a source
    class_folders.py   class folders, with or without train/ and val/; readable class names (words.txt)
    table.py           a text file with a photo a line, as columns: CSV and the like, JSON Lines, `path label`
    table_columns.py   which of its columns is the path, the label and the split
    photo_lookup.py    where the photos of a list are; ids without an ending
    list_files.py      which files below a source are lists of its photos
    list_or_folders.py lists and class folders of the same photos: which says more, and whether they agree
    image_list.py      photos listed in text files
    label_names.py     class names for labels that are numbers
    sequential.py      parquet files and gzipped tars, which are read in order
    tar_header.py      a header of a tar
    tar_index.py       members of a tar, or of a tar within a tar, by their offset
    class_tars.py      ImageNet's tar of a thousand class tars
    matfile.py         arrays of structs in MATLAB files
    devkit.py          ILSVRC's classes by number, and ground truth; meta.mat
    imagenet2012.py    the official archives of 2012, packed or unpacked, and their devkit
    imagenet2010.py    those of 2010, with patch_images.tar and the labels of the test photos
    photo_tables.py    tables that name photos and their classes, and where a set may be below a source
    named_sets.py      Tiny ImageNet, CUB-200, Stanford Dogs, Oxford's pets and flowers, with their own tables
    cifar.py           CIFAR-10 and CIFAR-100: raw pixels in place
    json_stream.py     the arrays of a large JSON file, element by element
    coco.py            JSON files in COCO's style with one category a photo, as iNaturalist's
    kaggle.py          ILSVRC/Data/CLS-LOC with LOC_val_solution.csv
    parquet.py         Hugging Face's tables that contain the photos
    parquet_files.py   which of them are a set, and their splits
    parquet_columns.py their photos, labels and splits, by the names of columns
    webdataset.py      tars of KEY.jpg with KEY.cls or KEY.json
    tar_tree.py        the members of tars as a tree of folders
    tars.py            class folders in tars, class tars, tars of class tars, by the rules of class folders
    account.py         which photos are used, which are left out and why
    find.py            detect the layout; labels, splits and order of its photos

The module of a layout has two functions: `declines(inventory, request)` returns None if the layout fits, by names and
first bytes, or else what was looked for and what was found; `find(inventory, request) -> Found` lists the photos with
class names, or raises an error that says what is missing.
"""
