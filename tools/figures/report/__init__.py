"""A run as one HTML page that needs no network.

facts.py          its text and numbers
pictures.py       its figures, as data URIs
report.py         alexnet-figures report: the page
templates/        its HTML and CSS
"""
