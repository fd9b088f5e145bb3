"""Text tables: what is a header, a separator, a column; no file of any content ends with a traceback."""

import json

import pytest
from alexnet_dali.pipeline.errors import SourceError
from alexnet_dali.pipeline.sources.lists.table import Line, head_of, read_table, several_labels
from alexnet_dali.pipeline.sources.lists.table_columns import plain
from hypothesis import given, settings
from hypothesis import strategies as st


def read(tmp_path, *lines, name="x.csv", **options):
    path = tmp_path / name
    path.write_text("\n".join(lines))
    return read_table(path, **options)


def triples(table):
    return [(line.path, line.label, line.split) for line in table.lines]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["a.jpg 0", "b c.jpg 1"], [("a.jpg", "0", ""), ("b c.jpg", "1", "")]),
        (["a.jpg,0"], [("a.jpg", "0", "")]),
        (["a.jpg;0"], [("a.jpg", "0", "")]),
        (["a.jpg|0"], [("a.jpg", "0", "")]),
        (["a.jpg\tgreat cat"], [("a.jpg", "great cat", "")]),
        (["a.jpg\tcat\ttrain", "b.jpg\tdog\tval"], [("a.jpg", "cat", "train"), ("b.jpg", "dog", "val")]),
        (["a.jpg,cat,train", "b.jpg,dog,val"], [("a.jpg", "cat", "train"), ("b.jpg", "dog", "val")]),
        (["file label", "a.jpg 0"], [("a.jpg", "0", "")]),
        (["File Name;Class", "a.jpg;0"], [("a.jpg", "0", "")]),
        (
            ["image label split", "a.jpg cat test", "b.jpg dog train"],
            [("a.jpg", "cat", "test"), ("b.jpg", "dog", "train")],
        ),
        (['"a ""b"".jpg" 0'], [('a "b".jpg', "0", "")]),
        (['"a b.jpg"'], [("a b.jpg", "", "")]),
        (["a,b.jpg 0"], [("a,b.jpg", "0", "")]),
        (["a;b.jpg"], [("a;b.jpg", "", "")]),
        (["image,label", 'a.jpg, "x, y"'], [("a.jpg", "x, y", "")]),
    ],
)
def test_lines_of_a_text(tmp_path, lines, wanted):
    table = read(tmp_path, *lines, name="x.txt")
    assert triples(table) == wanted and table.problem is None


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["cat,a.jpg", "dog,b.jpg"], [("a.jpg", "cat", ""), ("b.jpg", "dog", "")]),
        (["TRAIN,a.jpg,cat", "TEST,b.jpg,dog"], [("a.jpg", "cat", "train"), ("b.jpg", "dog", "test")]),
        (["pic,kind", "a.jpg,cat", "b.jpg,cat"], [("a.jpg", "cat", ""), ("b.jpg", "cat", "")]),
        (["isic,label", "1,cat", "2,dog"], [("1", "cat", ""), ("2", "dog", "")]),
        (["a.jpg"], [("a.jpg", "", "")]),
        (["filename", "a.jpg"], [("a.jpg", "", "")]),
        (["path,image_id,label", "a.jpg,1,cat"], [("a.jpg", "cat", "")]),
        (["id,filename,kind", "1,a.jpg,cat", "2,b.jpg,cat"], [("a.jpg", "cat", ""), ("b.jpg", "cat", "")]),
        (["image,label,usage", "a.jpg,0,x", "b.jpg,1,y"], [("a.jpg", "0", ""), ("b.jpg", "1", "")]),
    ],
)
def test_columns_of_a_csv(tmp_path, lines, wanted):
    table = read(tmp_path, *lines)
    assert triples(table) == wanted and table.problem is None


def test_the_column_of_paths_is_the_one_whose_photos_are_there(tmp_path):
    lines = ["filename,path,label", "a.jpg,x/a.jpg,cat"]
    assert read(tmp_path, *lines).lines[0].path == "a.jpg"
    table = read(tmp_path, *lines, fits=lambda cell: cell == "x/a.jpg")
    assert table.lines[0].path == "x/a.jpg" and table.notes == [
        f"{tmp_path}/x.csv: columns that are not used: filename"
    ]


def test_a_test_table_has_no_label_by_elimination(tmp_path):
    lines = ["id,width", "1,5", "2,5"]
    assert read(tmp_path, *lines).lines[0].label == "5"
    assert read(tmp_path, *lines, guess=False).lines[0].label == ""


@pytest.mark.parametrize(
    ("labels", "several"),
    [
        (["clear", "clear primary", "haze primary", "haze"], "clear primary"),
        (["tiger shark", "tiger cat", "cat"], ""),
        (["great white shark", "hammerhead"], ""),
        (["tench, Tinca tinca", "goldfish, Carassius auratus"], ""),
        (["0", "0 2"], "0 2"),
        (["a;b", "c"], "a;b"),
        (["class 1", "class 2"], ""),
    ],
)
def test_names_of_several_words_are_not_several_labels(tmp_path, labels, several):
    rows = [{"image": f"{k}.jpg", "label": label} for k, label in enumerate(labels)]
    table = read(tmp_path, *map(json.dumps, rows), name="x.jsonl")
    assert [line.label for line in table.lines] == labels
    assert (table.problem.message if table.problem else "").endswith(f"photo: {several!r}" if several else "")
    assert bool(table.problem) == bool(several)


def test_columns_of_splits_that_differ(tmp_path):
    table = read(tmp_path, "path,label,split,is_valid", "a.jpg,0,train,False", "b.jpg,0,train,True")
    assert table.problem.message == f"{tmp_path}/x.csv: line 3: the columns split and is_valid say different splits"
    table = read(tmp_path, "path,label,split,is_valid", "a.jpg,0,train,False", "b.jpg,0,valid,True")
    assert table.problem is None and [line.split for line in table.lines] == ["train", "val"]


def test_several_labels_of_a_line():
    assert several_labels(Line(1, "a b.jpg 0 1", "1")) == ("a b.jpg", "0 1 1")
    assert several_labels(Line(1, "a b.jpg", "1")) == ("", "")
    assert several_labels(Line(1, "a.jpg b.jpg", "1")) == ("", "")  # a name


def test_names_of_columns():
    assert [plain(name) for name in ("Image_ID", "data set", "file-name", "Unnamed: 0")] == [
        "imageid",
        "dataset",
        "filename",
        "unnamed0",
    ]


_WORDS = st.sampled_from(["path", "id", "label", "split", "a.jpg", "b c.png", "0", "1", "cat", "train", "", "x", "1.5"])
_SIGNS = st.sampled_from([",", ";", "\t", "|", " ", '"', "\n", "\r\n", "#", "{", "\\", "\x0b", "é"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_WORDS, _SIGNS), max_size=60).map("".join), st.sampled_from(["csv", "tsv", "txt", "jsonl"]))
def test_any_text_is_read_or_refused(tmp_path_factory, text, suffix):
    path = tmp_path_factory.mktemp("any") / f"x.{suffix}"
    path.write_bytes(text.encode())
    table = read_table(path)
    assert len(table.lines) <= text.count("\n") + 1
    assert table.problem is None or (isinstance(table.problem, SourceError) and table.problem.hint)
    for line in table.lines:
        assert line.split in ("", "train", "val", "test") and 1 <= line.number <= text.count("\n") + 1
    head_of(path)


_CELL = st.text("abcXYZ 0189_-.,;|'\"é", min_size=1, max_size=12).map(str.strip).filter(bool)


@settings(max_examples=200, deadline=None)
@given(st.lists(_CELL, min_size=1, max_size=8, unique=True), st.sampled_from([",", ";", "|", "\t"]), st.data())
def test_what_is_written_is_read(tmp_path_factory, paths, separator, data):
    names = ["file_name", "label", "split"]
    order = data.draw(st.permutations(range(3)))
    rows = [(f"{path}.jpg", f"c{k % 3}", ("train", "val", "test")[k % 3]) for k, path in enumerate(paths)]
    quote = lambda cell: '"' + cell.replace('"', '""') + '"'  # noqa: E731
    lines = [separator.join(quote(row[k]) for k in order) for row in [tuple(names), *rows]]
    path = tmp_path_factory.mktemp("written") / "x.csv"
    path.write_text("\n".join(lines))
    table = read_table(path)
    assert table.problem is None and triples(table) == rows
