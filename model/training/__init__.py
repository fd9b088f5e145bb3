"""Training: the loop, its processes, its files, evaluation.

distributed.py       the processes of a run: collectives, and which process failed
parallel.py          how they share the work: data parallel, or by columns; dropout masks
precision.py         fp32, tf32, bf16
run_files.py         the files of a run: errors of writing, locks, checks
metrics.py           metrics.jsonl, running sums
checkpoint.py        checkpoint files: atomic, checked, safe to load
kernel_snapshots.py  the first layer's kernels after each epoch
run_state.py         the state of a run: saved and restored whole
decoders.py          who decodes the batches of a run
divergence.py        losses that are not finite, or stuck
evaluate.py          top-1 and top-5 error of one or several nets
trainer.py           the loop
"""
