"""alexnet-train, from the command line to the exit code.

cli.py           the options; imports neither torch nor DALI
run.py           the work: a Config, then one process that trains, or a launcher of several
configure.py     the Config of a new or a resumed run; how many processes, and how they share the work
launch.py        starts N processes, passes signals on, reports the one that failed
run_summary.py   what is printed before the first step
progress.py      what is printed during and after training; the check of --max-stall
tracking.py      TensorBoard and Weights & Biases
"""
