"""alexnet-prep: one module for each command, in the order in which a new user needs them.

cli.py             the group
sample_photos.py   sample-photos: synthetic labelled photos from a seed
  sample_scene.py    the picture of one of them
build_lmdb.py      build-lmdb: photos to shards
pca_stats.py       pca-stats: mean image and eigenbasis
info.py            info: what a shard set contains
verify.py          verify: every byte, --repair, and --against the photos
  doubts.py          what 0.1 may have read wrongly, for info and verify
stage.py           stage: a verified copy on a local disk
export.py          export: tar files or folders of pictures
doctor.py          doctor: whether this machine is ready to train
  doctor_checks.py   its checks
  machine.py         the facts that they check
"""
