"""One file per command, logic below it in pipeline and model.

    prep.py            alexnet-prep: sample-photos, build-lmdb, pca-stats, doctor
    train.py           alexnet-train
    evaluate.py        alexnet-eval

    console.py         errors to exit codes, progress, sizes and durations in words
    sample_photos.py   labelled photos made from a seed
    doctor.py          what is installed, and whether it fits together
"""
