"""One file per command, logic below it in pipeline and model.

    prep.py            alexnet-prep, and under it:
      sample_photos.py   sample-photos: labelled photos made from a seed
      sample_scene.py      what is on one of them
      build_lmdb.py      build-lmdb
      pca_stats.py       pca-stats
      doctor.py          doctor: what is installed, and whether it fits together
      checks.py            its checks
      machine.py           the facts that they judge
    train.py           alexnet-train
    evaluate.py        alexnet-eval

    console.py         errors to exit codes, progress, sizes and durations in words
    process.py         signals, memory and device of a training process

Errors and exit codes are the same in all of them; see console.py.
"""
