"""`alexnet-figures`: pictures of what a run learned, the paper's figures first.

    command.py        the command, one file for each figure
    look.py           colours, sizes, PNG and SVG: the same for all
    sheet.py          a figure laid out in inches
    saved.py          light, and dark where it was asked for
    runs.py           a run and its shard set, opened for a figure
    passes.py         one pass over a split for all that want one
    answers.py        what the net says of each photo, and which are worth a look
    first_layer.py    kernels of checkpoints and epochs
    varied.py         one photo through the real stream

    kernels.py        figure 3: the first layer's kernels, the two columns apart
    predictions.py    figure 4, left: photos with their five most probable labels
    neighbours.py     figure 4, right: the nearest training photos
    relu_vs_tanh.py   figure 1: two nonlinearities on a small net; and the normalisation of section 3.3
    trials.py         their training
    small_nets.py     their drawing
    curves.py         loss, errors, rate, speed and stall share over epochs
    augmentation.py   one photo, and what the stream makes of it
    confusion.py      what classes are taken for
    per_class.py      each class's error
    index.py, search.py, codes.py, vectors.py
                      the training photos by what the net sees (section 6.1)
    report.py         all of it on one page; report_parts.py its words, report_pictures.py its figures

A figure is drawn by a function that takes plain values and a Look and gives a matplotlib Figure: commands save it,
report.py puts it into a page.
"""
