"""The commands: one wing or module for each, with the options and the output; the work is in pipeline and model.

    options.py        options that several commands share
    console.py        exit codes, errors, groups of commands, progress, sizes and durations as text
    output_guard.py   where a command may write its output
    process.py        signals, memory and device of a training or evaluating process

    prep/             alexnet-prep: photos to shards, statistics, checks, copies
    train/            alexnet-train
    evaluate.py       alexnet-eval: its options
      evaluation.py     one pass over a split, and its results
      submission.py     the file of --predictions
    weights.py        alexnet-weights: export and import
    figures/          alexnet-figures: figures of runs, retrieval, the report
    bench/            alexnet-bench: throughput of build, loader and training, and the paper's tables
    demo/             alexnet-demo: a page on which a net is tried with photos

In a wing, cli.py has the command or the group, and __main__.py runs it as `python -m`.
"""
