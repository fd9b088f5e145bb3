"""Nets from the layer and parameter files of 2012.

sections.py       the sections of a file, and their values
definition.py     a layer file and a parameter file, checked: a Definition
layers.py         the types of layers
net.py            the net of a Definition
"""
