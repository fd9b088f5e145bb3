"""Photos listed in tables: lines of `path label`, CSV and the like, JSON Lines, JSON files in COCO's style.

table.py           a text file with a photo a line, as columns
table_columns.py   which of its columns is the path, the label and the split
photo_lookup.py    where the photos of a list are; ids without an ending
list_files.py      which files below a source are lists of its photos
list_or_folders.py lists and class folders of the same photos: which says more, and whether they agree
image_list.py      photos listed in text files
json_stream.py     the arrays of a large JSON file, element by element
coco.py            JSON files in COCO's style with one category a photo, as iNaturalist's
"""
