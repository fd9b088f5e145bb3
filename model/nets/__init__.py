"""The nets: the net of 2012 and its variants, the small net of figure 1, other libraries' nets.

options.py    the variants of the net of 2012, as options; no torch
alexnet.py    the net of 2012: five convolutions, three fully connected layers, two columns
lrn.py        response normalisation, across maps and within a map
lrn_triton.py the same on a GPU, as Triton kernels
pool.py       max pooling
columns.py    the communication of two columns in two processes
small_net.py  the four-layer net for small pictures
factory.py    nets by name: ours, torchvision's, timm's
layer_files/  the nets of the authors' layer files
heads.py      the layer of a net that depends on the classes
"""
