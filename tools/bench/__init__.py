"""`alexnet-bench`: this system measured against its limits and against other programs.

cli.py            the command group
timing.py         rounds of cases, rows, ratios, machine and versions
prep.py           alexnet-bench prep: build-lmdb, pca-stats, verify; prep_cases.py, what it measures
loader/           alexnet-bench loader: our stream and other loaders over the same crops
train.py          alexnet-bench train: training steps; train_cases.py, what it measures
table.py          alexnet-bench table: the paper's tables with our results; table_rows.py, our rows
"""
