"""Photos in tars, read in place by offset; gzipped ones in order.

tar_header.py      a header of a tar
passed_over.py     links and replaced members, which are counted
tar_index.py       members of a tar, or of a tar within a tar, by their offset
webdataset.py      tars of KEY.jpg with KEY.cls or KEY.json
tar_tree.py        the members of tars as a tree of folders
tars.py            class folders in tars, class tars, tars of class tars, by the rules of class folders
"""
