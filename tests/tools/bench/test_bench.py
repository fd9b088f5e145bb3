"""The benchmarks measure what they say: small runs of the real commands; no figure is judged."""

import json
import time
from functools import partial

import pytest
from alexnet_dali.tools.bench import timing
from alexnet_dali.tools.bench.cli import bench
from alexnet_dali.tools.bench.timing import Row


@pytest.fixture
def call(in_process):
    """Run alexnet-bench."""
    return partial(in_process, bench)


CASES = [
    "build-lmdb",
    "limit",
    "limit-decode",
    "pillow-box",
    "pillow",
    "opencv",
    "pca-stats",
    "verify",
    "limit-records",
]


def test_prep_measures_every_case(call, photos, shards, tmp_path):
    file = tmp_path / "prep.json"
    for source in ([photos], ["--shards", shards.root]):
        code, said, aside = call("prep", *source, "--photos", 100, "--repeats", 1, "--workers", 1, "--json", file)
        assert code == 0, aside
        rows = {row["case"]: row for row in json.loads(file.read_text())}
        assert [case for case in rows if case not in ("ffcv", "build-lmdb-tenth")] == CASES
        for case in CASES:
            assert 0 < rows[case]["min"] <= rows[case]["images_per_second"] <= rows[case]["max"]
            assert said.count(f"\n{case} ") == 1
        assert 10e6 < rows["build-lmdb"]["peak_bytes"] < 1e9 and 10e6 < rows["build-lmdb-tenth"]["peak_bytes"] < 1e9
        assert "80 photos of" in said and "peak memory of a worker" in said


def test_without_photos_it_says_what_is_missing(call, tmp_path):
    code, _, aside = call("prep", "--shards", tmp_path)
    assert code == 2 and f"no photos are given, and {tmp_path} is not a shard set" in aside


def test_rounds_run_in_turn_and_the_first_is_not_counted():
    order = []

    def case(name, images):
        def run():
            order.append(name)
            time.sleep(0.01)
            return images

        return run

    rates = timing.rounds({"a": case("a", 1), "b": case("b", 3)}, repeats=2)
    assert order == ["a", "b"] * 3
    assert [len(one) for one in rates.values()] == [2, 2]
    assert all(20 < rate < 101 for rate in rates["a"]) and all(60 < rate < 301 for rate in rates["b"])


def test_a_ratio_is_of_the_same_round():
    assert timing.ratio([10.0, 30.0, 20.0], [10.0, 10.0, 10.0]) == 2.0
    assert timing.ratio([1.0, 100.0], [2.0, 200.0]) == 0.5  # a slow round slows both


def test_rows():
    one = timing.row("a", [3.0, 1.0, 2.0], 5_000_000)
    assert one == Row("a", 2.0, 1.0, 3.0, 5_000_000)
    assert timing.as_json([one]) == [
        {"case": "a", "images_per_second": 2.0, "min": 1.0, "max": 3.0, "peak_bytes": 5_000_000}
    ]
    lines = timing.table([one, Row("bb", 1000.0, 900.0, 1100.0)], {"of its limit": {"a": 0.5}}).splitlines()
    assert "of its limit" in lines[0] and "0.50" in lines[1] and "5 MB" in lines[1] and "1,000" in lines[2]
