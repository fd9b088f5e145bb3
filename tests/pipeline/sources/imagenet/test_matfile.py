"""MATLAB files read without SciPy: what SciPy reads of them, and no damage that does more than raise MatError."""

import io
import struct

import numpy as np
import pytest
from alexnet_dali.pipeline.sources.imagenet.matfile import MatError, read_structs
from hypothesis import given
from hypothesis import strategies as st
from ilsvrc import meta_mat, synsets
from scipy.io import loadmat, savemat

FIELDS = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "wordnet_height", "num_train_images")


def read(data, fields=("number", "text"), name="table"):
    return read_structs(data, name, fields, 1 << 20)


def saved(rows, **options):
    table = np.empty((len(rows), 1), [("number", object), ("text", object)])
    table[:, 0] = rows
    file = io.BytesIO()
    savemat(file, {"before": np.arange(500), "table": table, "after": "text"}, **options)
    return file.getvalue()


def element(order, kind, data):
    """An element as the format's description has it, in either byte order; short data stand in the tag."""
    if 0 < len(data) <= 4:
        return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def array(order, kind, dimensions, *parts, name=b""):
    head = element(order, 6, struct.pack(f"{order}II", kind, 0))
    head += element(order, 5, struct.pack(f"{order}{len(dimensions)}i", *dimensions)) + element(order, 1, name)
    return element(order, 14, head + b"".join(parts))


def one_struct(order, number, text, name=b"table"):
    """A file with one struct, whose fields are these two arrays."""
    names = element(order, 5, struct.pack(f"{order}i", 8)) + element(order, 1, b"number\0\0text\0\0\0\0")
    mark = b"IM" if order == "<" else b"MI"
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x0100) + mark
    return header + array(order, 2, (1, 1), names, number, text, name=name)


NUMBER = array("<", 6, (1, 1), element("<", 2, b"1"))


@pytest.mark.parametrize("form", ["structs", "row", "cells"])
def test_scipy_reads_the_same(form):
    data = meta_mat(form=form)
    table = loadmat(io.BytesIO(data), chars_as_strings=True)["synsets"].ravel()
    expected = []
    for record in (cell[0, 0] for cell in table) if form == "cells" else table:
        values = [np.ravel(record[name])[0] for name in FIELDS]
        expected.append(tuple(value if isinstance(value, str) else float(value) for value in values))
    assert read_structs(data, "synsets", FIELDS, 1 << 20) == expected
    assert [row[1] for row in expected] == [row["WNID"] for row in synsets()]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "number", [3, 3.5, -1, np.uint8(200), np.int16(-300), np.float32(0.5), np.int64(1 << 40), np.uint64(7), True, 1e300]
)
def test_numbers_of_every_type(number, compressed):
    assert read(saved([(number, "a")], do_compression=compressed)) == [(float(number), "a")]


def test_texts():
    texts = ["", "a", "abcd", "tench, Tinca tinca", "Eskimo dog, husky " * 40, "crêpe ☂"]
    assert read(saved([(1, text) for text in texts])) == [(1.0, text) for text in texts]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "encoding"),
    [(1, "latin-1"), (2, "latin-1"), (4, "utf-16"), (16, "utf-8"), (17, "utf-16"), (18, "utf-32")],
)
def test_texts_in_every_encoding_and_byte_order(order, kind, encoding):
    endian = {"<": "-le", ">": "-be"}[order] if encoding in ("utf-16", "utf-32") else ""
    text = array(order, 4, (1, 5), element(order, kind, "crêpe".encode(encoding + endian)))
    number = array(order, 6, (1, 1), element(order, 4, struct.pack(f"{order}H", 517)))
    data = one_struct(order, number, text)
    assert read(data) == [(517.0, "crêpe")]
    assert loadmat(io.BytesIO(data))["table"]["number"][0, 0] == 517


def test_an_array_without_values_is_an_empty_text():
    assert read(one_struct("<", element("<", 14, b""), array("<", 4, (0, 0), element("<", 16, b"")))) == [("", "")]


def test_only_the_wanted_variable_is_unpacked(monkeypatch):
    file = io.BytesIO()
    table = np.array([[(1, "a")]], [("number", object), ("text", object)])
    savemat(file, {"zeros": np.zeros(1 << 20), "table": table}, do_compression=True)
    assert read(file.getvalue()) == [(1.0, "a")]  # `zeros` unpacks to 8 MiB, more than is allowed
    with pytest.raises(MatError, match="zeros unpacks to more than 1 MiB"):
        read(file.getvalue(), name="zeros")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not a MATLAB file of version 5"),
        (b"\x89HDF\r\n\x1a\n".ljust(200), "not a MATLAB file of version 5"),
        (saved([(1, "a")])[:124] + b"\0\x02IM", "not a MATLAB file of version 5, but of another"),
        (saved([(1, "a")])[:128], "no variable table"),
        (saved([(1, "a")])[:-100], "it is truncated"),
        (saved([([1, 2], "a")]), "the field number is neither a string nor a single number"),
        (saved([({"a": 1}, "a")]), "the field number is neither a string nor a single number"),
        (one_struct("<", b"", b""), "it is truncated"),
        (one_struct("<", NUMBER, array("<", 4, (1, 9), b"a" * 9)), "is damaged"),
        (one_struct("<", NUMBER, array("<", 4, (1, 9), struct.pack("<II", 16, 99) + bytes(8))), "it is truncated"),
        (one_struct("<", array("<", 4, (1, 5), struct.pack("<I", 5 << 16 | 16) + bytes(12)), b""), "is damaged"),
        (one_struct("<", element("<", 9, bytes(8)), b""), "a value is not an array"),
        (one_struct("<", array("<", 6, (1, 1), element("<", 9, bytes(6))), b""), "the number in number is damaged"),
        (one_struct("<", array("<", 6, (-1, -1), b""), b""), "an array's dimensions are damaged"),
        (one_struct("<", array("<", 4, (1, 1), element("<", 9, bytes(8))), b""), "a string is damaged"),
    ],
)
def test_what_is_wrong_is_said(data, text):
    with pytest.raises(MatError, match=text):
        read(data)


def test_other_things_by_the_wanted_name():
    file = io.BytesIO()
    savemat(file, {"table": np.arange(3), "cells": np.array([np.arange(2), "x"], object)})
    for name in ("table", "cells"):
        with pytest.raises(MatError, match="is not an array of structs"):
            read(file.getvalue(), name=name)
    with pytest.raises(MatError, match="no field gloss"):
        read(saved([(1, "a")]), fields=("number", "gloss"))


def test_more_structs_than_there_are_bytes():
    names = element("<", 5, struct.pack("<i", 8)) + element("<", 1, b"number\0\0")
    header = saved([(1, "a")])[:128]
    with pytest.raises(MatError, match="it is truncated"):
        read(header + array("<", 2, (1 << 30, 1 << 30), names, name=b"table"), fields=("number",))


@given(st.data())
def test_no_damage_raises_anything_else(data):
    # SciPy 1.17 ends the interpreter with a segmentation fault at some of these.
    whole = bytearray(saved([(1, "one"), (2, "two")], do_compression=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(128, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        rows = read(bytes(whole))
    except MatError:
        return
    assert all(len(row) == 2 for row in rows)
