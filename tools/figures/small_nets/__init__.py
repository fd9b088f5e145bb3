"""Two small nets compared: ReLU and tanh (figure 1), with and without response normalisation (section 3.3).

trials.py         shared options; the training of both nets at several learning rates
plots.py          the figures
command.py        alexnet-figures relu-vs-tanh and lrn
"""
