"""Our stream, its limit and other loaders over the same crops, or the same photos.

cases.py          the names of all cases; our loader, DALI's own reader, the limit
competitors.py    torchvision, TorchCodec and WebDataset; FFCV in competitor_ffcv.py, Grain in competitor_grain.py,
                  Lance in competitor_lance.py, LitData in competitor_litdata.py, MosaicML Streaming in
                  competitor_streaming.py, SPDL in competitor_spdl.py: each imports a library that may be missing
photos.py         the cases of original photos, resized and cropped online
data.py           the crops in the format that each loader reads
process.py        one loader in a process of its own, stopped between its rounds
page_cache.py     files dropped from the page cache, and the disk's rate
rounds.py         the rounds of all cases: warm, cold, or each in a new process
bar_chart.py      the results as a PNG
command.py        alexnet-bench loader
"""
