"""The paper's tables 1 and 2: published errors to compare a run with."""

# Errors in percent: top-1, top-5, and top-5 on the test photos of 2012, whose labels are not public.
Row = tuple[str, float | None, float | None, float | None]
TABLE_1: tuple[Row, ...] = (
    ("Sparse coding", 47.1, 28.2, None),
    ("SIFT + FVs", 45.7, 25.7, None),
    ("CNN", 37.5, 17.0, None),
    ("CNN, centre alone (footnote 5)", 39.0, 18.3, None),
)
TABLE_2: tuple[Row, ...] = (
    ("SIFT + FVs", None, None, 26.2),
    ("1 CNN", 40.7, 18.2, None),
    ("5 CNNs", 38.1, 16.4, 16.4),
    ("1 CNN, six-conv, pre-trained", 39.0, 16.6, None),
    ("7 CNNs, two of them pre-trained", 36.7, 15.4, 15.3),
)
