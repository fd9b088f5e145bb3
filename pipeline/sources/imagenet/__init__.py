"""ImageNet as it is published: archives, folders unpacked from them, devkits.

matfile.py         arrays of structs in MATLAB files
devkit.py          ILSVRC's classes by number, and ground truth; meta.mat
class_tars.py      ImageNet's tar of a thousand class tars
imagenet2012.py    the official archives of 2012, packed or unpacked, and their devkit
imagenet2010.py    those of 2010, with patch_images.tar and the labels of the test photos
kaggle.py          ILSVRC/Data/CLS-LOC with LOC_val_solution.csv
"""
