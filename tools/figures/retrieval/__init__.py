"""Similar training photos by the last hidden layer's activations (section 6.1).

records.py        records as pictures and CSV rows; a photo as the set would store it
vectors.py        the index on disk: one vector for each training photo
index.py          alexnet-figures index: write it
codes.py          alexnet-figures codes: binary codes of the vectors, measured
neighbours.py     alexnet-figures neighbours: figure 4, right
search.py         alexnet-figures search: training photos similar to the user's
"""
