"""`alexnet-figures`: figures of a run, the paper's first.

    cli.py            the command group; one file for each figure
    style.py          colours, PNG and SVG files, --dark
    sheet.py          a figure laid out in inches
    open_run.py       a run and its shard set, opened; the options that figures of a run share
    answers.py        evaluation of a run; the predictions for each photo, and which photos to show
    first_layer.py    kernels of checkpoints and epochs
    augmented.py      one photo as the training stream augments it

    kernels.py        figure 3: the first layer's kernels
    predictions.py    figure 4, left: photos with their five most probable labels
    curves.py         loss, errors, learning rate, throughput and stall share over epochs
    augmentation.py   one photo and its augmented versions
    confusion.py      the confusion matrix
    per_class.py      the error of each class
    retrieval/        figure 4, right, and section 6.1: similar training photos
    small_nets/       figure 1 and section 3.3: small nets compared
    report/           all figures of a run on one HTML page

Figures are drawn by functions that take plain values and a Theme and return a matplotlib Figure: commands save it, the
report puts it into its page.
"""
