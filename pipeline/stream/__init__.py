"""Shards to batches: records are read ahead, decoded, cut and normalised, and returned as torch tensors.

record_reader.py  records by index, in reused memory
prefetch.py       records read into the page cache before they are needed
decoder.py        threads that decode and cut
inputs.py         the numbers of each batch: windows, reflections, lighting, gain
batch_source.py   the callback that DALI calls for its next batch
dali_ops.py       the steps of the DALI graphs
dali_graph.py     the graphs: training windows, resized crops, evaluation views
stream.py         a running DALI pipeline, its batches as torch tensors
autotune.py       which decoder is faster here, threads or DALI
streams.py        train_stream, views_stream: streams of a plan and of a split
loaders.py        TrainLoader, EvalLoader: (images, labels) by the epoch
dataset.py        ShardDataset: a split as a map-style Dataset of PIL pictures
stall.py          the stall meter: the share of time spent waiting for data
bottleneck.py     which stage the training waits for, and what to change
"""
