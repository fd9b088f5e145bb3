"""The net of 2012 and its training, in the order of use:

    alexnet.py     the net, as the program had it and as the text says
    lrn.py         response normalisation
    registry.py    the net by its name: ours, torchvision's, timm's
    other.py       a net that is not ours: its deviations, its names
    dropout.py     what a step drops, from the plan
    columns.py     what the two columns say to each other, where they are in two processes
    optim.py       the update rule
    rates.py       the rates of a step
    diaries.py     the author's hand on them in 2012
    schedules.py   the diary, the plateau, one cycle
    recipes.py     source2012, paper, and each other row: named, frozen, self-checking
    config.py      what one run is; what --resume may change
    distributed.py the processes of a run; who is missing
    parallel.py    how they share its work
    trainer.py     the loop
    resume.py      what a checkpoint holds of it
    watch.py       known failures are said, not suffered
    precision.py   fp32, tf32, bf16
    written.py     what cannot be written is said, with its file and what to do
    sound.py       what a file claims to be is looked at before it is used
    metrics.py     metrics.jsonl; running sums
    kernels.py     the first layer's kernels after each epoch
    checkpoint.py  atomic, safe to load, exact resume
    portable.py    weights that travel: safetensors and a model card
    onnx_export.py the net as ONNX, checked
    converters.py  weights of torchvision's and Caffe's layout
    confusion.py   errors by class, and what the worst are taken for
    features.py    the last hidden layer's activities
    nearest.py     which vectors are nearest, exactly
    codes.py       short binary codes of them
    small.py       a net of four layers for small pictures
    contest.py     two kinds of it, each at its best rate
    figure1.py     their training
    evaluate.py    top-1 and top-5 error, any views, one net or several

Imports pipeline, never tools.
"""
