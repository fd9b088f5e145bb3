"""Photos in the layouts that people have them in: each layout's module lists them in place and unpacks nothing.

    photo.py           a photo's name and location; reading its bytes
    magic.py           the format of a picture by its first bytes
    entries.py         what is asked of a source, and what a layout finds: photos in compact arrays
    splits.py          train, val or test by the name of a file or folder
    inventory.py       all that lies below a source
    label_names.py     class names for labels that are numbers; readable class names (words.txt)
    class_tree.py      which folders are classes
    class_folders.py   class folders, with or without folders of splits
    lists/             tables, lists, JSON
    tars/              class folders in tars, class tars, WebDataset
    imagenet/          ImageNet's archives and devkits of 2010 and 2012; Kaggle's folder
    parquet_columns.py the columns of photos, labels and splits in parquet files
    parquet_files.py   which parquet files are a set, and their splits
    parquet.py         Hugging Face's tables that contain the photos
    photo_tables.py    tables that name photos and their classes, and where a set may be below a source
    named_sets.py      Tiny ImageNet, CUB-200, Stanford Dogs, Oxford's pets and flowers, with their own tables
    cifar.py           CIFAR-10 and CIFAR-100: raw pixels in place
    sequential.py      parquet files and gzipped tars, which are read in order
    class_order.py     the order of the classes, and what about them is doubtful
    account.py         which photos are used, which are left out and why
    find.py            detect the layout; labels, splits and order of its photos

The module of a layout has two functions: `declines(inventory, request)` returns None if the layout fits, by names and
first bytes, or else what was looked for and what was found; `find(inventory, request) -> Found` lists the photos with
class names, or raises an error that says what is missing.
"""
