"""Shards to batches: records are read ahead, decoded, cut and normalised, and returned as torch tensors.

buffers.py        memory that is used again
record_reader.py  records by index, with _records.c
prefetch.py       records read into the page cache before they are needed
decoder.py        threads that read, decode and cut
finish.py         their last step where no DALI graph follows, with _finish.c
inputs.py         the numbers of each batch: windows, reflections, lighting, gain
batch_source.py   the next batch, for DALI or finished, some batches ahead
dali_ops.py       the steps of the DALI graphs
dali_graph.py     the graphs: training windows, resized crops, evaluation views
stream.py         batches as torch tensors, from a DALI pipeline or from the threads
autotune.py       which decoder a stream takes when it is left to choose
make_stream.py    who decodes: DALI, threads in front of DALI, threads alone
streams.py        train_stream, views_stream: streams of a plan and of a split
loaders.py        TrainLoader, EvalLoader: (images, labels) by the epoch
dataset.py        ShardDataset: a split as a map-style Dataset of PIL pictures
stall.py          the stall meter: the share of time spent waiting for data
bottleneck.py     which stage the training waits for, and what to change
"""
