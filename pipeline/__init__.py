"""From photos to batches, in the order of the data:

    sources.py    find (class, name, bytes) below a folder
    resize.py     short side 256, centre crop 256x256, encode
    datum.py      Caffe Datum bytes <-> fields
    shards.py     LMDB shards: write atomically, read by index
    shardset.py   dataset.json: what is in the shard set; opening and checking it
    build.py      the job: one shard = one unit of work, any executor       alexnet-prep build-lmdb
    stats.py      mean image, covariance, eigenbasis; lighting offsets      alexnet-prep pca-stats
    plan.py       the epoch as a pure function: order and augmentation draws
    feed.py       planned records as views of the memory map
    graph.py      the DALI graphs: train, centre, ten views
    stream.py     a running DALI pipeline: its batches as torch tensors
    loader.py     what is in a batch: training windows, test views
    stall.py      the stall meter: how much of a step is waiting for data

    errors.py     what can go wrong, in people's words
    files.py      files that are old or new, never between
    workers.py    a pool of processes that leaves nobody behind

Nothing before graph.py imports DALI or torch; nothing here imports model or tools. Copied into another project as
a package of any name, this folder works alone.
"""
