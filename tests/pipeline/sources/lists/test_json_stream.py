"""A JSON object read element by element: the same as by json, wherever the blocks end; and damage, which is said."""

import json

import pytest
from alexnet_dali.pipeline.errors import SourceError
from alexnet_dali.pipeline.sources.lists import json_stream
from alexnet_dali.pipeline.sources.lists.json_stream import elements
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), st.integers(1, 20), st.sampled_from([None, 1]))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_as_json(tmp_path, monkeypatch, content, block, indent):
    monkeypatch.setattr(json_stream, "_BLOCK_BYTES", block)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False))
    expected = [(key, one) for key, value in content.items() if isinstance(value, list) for one in value]
    assert list(elements(path)) == expected


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"a": [1', '{"a": [1 2]}', '{"a" [1]}', '{"a": [1],', '{"a": [' + "[" * 100_000, '{"a": \xff}']
)
def test_damage_is_said(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(SourceError, match="not valid JSON"):
        list(elements(path))


def test_no_element_is_larger_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_MOST_ELEMENT_BYTES", 100)
    monkeypatch.setattr(json_stream, "_BLOCK_BYTES", 50)
    path = tmp_path / "a.json"
    path.write_text('{"a": ["' + "x" * 100_000 + '"]}')
    with pytest.raises(SourceError, match="an element has more than 0 MiB"):
        list(elements(path))


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        list(elements(tmp_path / "a.json"))
