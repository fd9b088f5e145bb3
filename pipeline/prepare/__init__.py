"""Photos to shards, in the order of the data:

pillow_settings.py    Pillow's global settings, for the decoding threads only
bare.py               a photo without its metadata, for decoders that stumble over them
depth.py              samples of more than 8 bits, or floats, to 8 bits, by what the file says
decode.py             a photo's bytes to pixels, by content
area.py               a window of a photo, shrunk by area averaging in exact integers; _area.c, its inner loops
resize.py             short side 256, central crop 256x256, encode
known_anomalies.py    ImageNet's photos whose format differs from their name
options.py            the options of a build
duplicates.py         photos that a source has twice
prepared_cache.py     prepared photos of files that are read in order, until their shards are written
shard_job.py          the job of one shard, from its photos to its receipt
journal.py            the photos, options and receipts of a build, to resume it
build.py              all shards, on any executor                          alexnet-prep build-lmdb
dask.py               a Dask cluster as the executor                       build-lmdb --scheduler
repair.py             rebuild damaged shards                               alexnet-prep verify --repair
against_source.py     a set's classes and splits compared with its photos  alexnet-prep verify --against
"""
