"""From photos to batches, in the order of the data:

    photo.py      one photo: what it is called, where its bytes are
    names.py      what people are shown of names that no encoding has
    layouts/      find photos: folders, official archives, Kaggle, parquet, WebDataset, lists
    sources.py    labels, splits and order for what a layout found
    decode.py     a photo's bytes to pixels, whatever it is
    resize.py     short side 256, centre crop 256x256, encode
    area.py       a window of a photo shrunk by area averaging, exactly
    oddities.py   what a photo is in words; ImageNet's known odd ones
    datum.py      Caffe Datum bytes <-> fields
    shards.py     LMDB shards: write atomically, read by index
    shardset.py   dataset.json: what is in the shard set; opening and checking it
    options.py    what a build makes of the photos
    shard_job.py  the unit of work: one shard, from its photos to its receipt
    spool.py      photos that can only be read in order, kept until their shards are written
    photo_list.py the photos a build was begun with
    receipts.py   what an earlier run built already
    build.py      the job: all shards, by any executor                      alexnet-prep build-lmdb
    cluster.py    many machines: a Dask cluster as the executor
    stats.py      mean image, covariance, eigenbasis; lighting offsets      alexnet-prep pca-stats
    stored_arrays.py  arrays out of an .npz, and no byte more than is wanted

    listing.py    the CSV beside a shard
    shard_check.py  everything that can be wrong with one shard
    verify.py     the whole set                                             alexnet-prep verify
    repair.py     rebuild what is damaged                                   alexnet-prep verify --repair
    census.py     records a class, photos' sides; contact_sheet.py, 64 pictures on a page   alexnet-prep info
    stage.py      copy to a local disk, hashes checked                      alexnet-prep stage
    export.py     tar files or class folders; export_shard.py, one shard    alexnet-prep export

    words.py      Philox words, of which every draw is made
    plan.py       the epoch as a pure function: order and augmentation draws
    resized.py    windows of random area and aspect, from the plan's words
    views.py      the windows of test pictures
    feed.py       planned records, read from their shards
    inputs.py     the numbers of a batch, as the graph or the threads take them
    decoder.py    threads that decode and cut; buffers.py, the ring they fill; cut.py, one window on a CPU core
    readahead.py  records brought into memory before they are needed
    extents.py    where records lie in a shard's file, read off its pages
    source.py     what DALI calls for its next batch
    choice.py     who decodes faster here, threads or DALI
    operators.py  the steps the graphs are made of
    graph.py      the DALI graphs: train, resized crops, views
    stream.py     a running DALI pipeline: its batches as torch tensors
    loader.py     what is in a batch: training windows, test views
    batches.py    (images, labels) by the epoch, for other people's loops
    dataset.py    a split as a Dataset of PIL pictures
    stall.py      the stall meter: how much of a step is waiting for data
    stages.py     where a stream's waiting goes: disk, decoding, graph, copy
    verdict.py    which stage is tight, and what to change

    errors.py     what can go wrong, in people's words
    files.py      files that are old or new, never between
    refused.py    what the system refuses, by the name that people know
    workers.py    a pool of processes that leaves nobody behind

Nothing before graph.py imports DALI or torch; nothing here imports model or tools. Copied into another project as
a package of any name, this folder works alone.
"""
