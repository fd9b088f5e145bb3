"""The shard set on disk: its format, and the commands that measure, check, copy, export and show it.

    datum.py          one record: Caffe Datum bytes to fields and back
    lmdb_shard.py     one shard: an LMDB file, written atomically, read by index
    lmdb_pages.py     LMDB's pages: offset and length of each record, without liblmdb
    open_files.py     the process's limit of open files
    manifest.py       dataset.json: opening a shard set, its splits and classes
    records_csv.py    the CSV beside a shard: where each record came from; records per class
    npz.py            reading arrays from an untrusted .npz
    stats.py          mean image, covariance, eigenbasis; the mean to subtract          alexnet-prep pca-stats
    shard_check.py    check one shard completely
    verify.py         check the whole set                                               alexnet-prep verify
    stage.py          copy to a local disk, hashes compared                             alexnet-prep stage
    export.py         tar files for webdataset, or class folders                        alexnet-prep export
    export_shard.py   export one shard
    contact_sheet.py  64 pictures on one page                                           alexnet-prep info

docs/shard-format.md specifies the format.
"""
