"""Our stream, its limit and other loaders over the same crops.

cases.py          the names of all cases; our loader, DALI's own reader, the limit
competitors.py    torchvision and WebDataset; FFCV in competitor_ffcv.py, LitData in competitor_litdata.py,
                  MosaicML Streaming in competitor_streaming.py: each imports a library that may be missing
data.py           the crops in the format that each loader reads
process.py        one loader in a process of its own, stopped between its rounds
page_cache.py     files dropped from the page cache, and the disk's rate
rounds.py         the rounds of all cases, warm and cold
bar_chart.py      the results as a PNG
command.py        alexnet-bench loader
"""
