"""alexnet-bench table: the paper's rows, ours beneath, and what each part is worth, from runs as they lie on disk."""

import json
from dataclasses import replace
from functools import partial

import pytest
import tiny
from alexnet_dali.model.training import checkpoint
from alexnet_dali.tools.bench.cli import bench
from alexnet_dali.tools.bench.table_rows import Ours, distinct, parts, read_result

pytestmark = pytest.mark.usefixtures("small_nets")


@pytest.fixture(scope="module")
def run(small_nets, tmp_path_factory):
    """A real run of two epochs."""
    folder = tmp_path_factory.mktemp("table")
    tiny.trainer_of(tiny.few_shards(folder), folder / "run").train()
    return folder / "run"


@pytest.fixture
def call(in_process):
    """Run alexnet-bench table."""
    return partial(in_process, bench, "table")


def written(file, runs, **changes):
    """A file as alexnet-eval --json writes it."""
    values = {"shards": "data/out", "split": "val", "views": 10, "resize": None, "images": 3, "loss": 1.0}
    values |= {"runs": [str(run) for run in runs], "top1_error": 0.25, "top5_error": 0.125}
    file.write_text(json.dumps(values | changes))
    return file


def row(recipe="source2012", top1=0.4, **changes):
    """One of our rows."""
    plain = Ours((recipe,), (f"{recipe}.pt",), top1, top1 / 2, "val", 1, None, "out", ("f",), (3,), False)
    return replace(plain, **changes)


def test_the_papers_tables_with_a_run_and_an_ensemble(run, call, tmp_path):
    ten = written(tmp_path / "ten.json", [run / "best.pt", tmp_path / "gone" / "best.pt"])
    code, out, err = call(run, ten, written(tmp_path / "test.json", [run / "best.pt"], split="test", resize=232))
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    best = min(line["val_top1_error"] for line in tiny.lines(run) if line["kind"] == "epoch")
    first, second = (next(k for k, line in enumerate(lines) if line.startswith(f"Table {n}")) for n in (1, 2))
    assert lines[first + 2 : second - 1] == [
        "Sparse coding 47.1 28.2",
        "SIFT + FVs 45.7 25.7",
        "CNN 37.5 17.0",
        "CNN, centre alone (footnote 5) 39.0 18.3",
        "source2012 25.0 12.5 ours: out/test, 10 views of 232x232, 2 epochs",
    ]
    assert lines[second + 2 : second + 9] == [
        "SIFT + FVs - - 26.2",
        "1 CNN 40.7 18.2",
        "5 CNNs 38.1 16.4 16.4",
        "1 CNN, six-conv, pre-trained 39.0 16.6",
        "7 CNNs, two of them pre-trained 36.7 15.4 15.3",
        f"source2012 {100 * best:.1f} 0.0 ours: shards/val, 1 view, 2 epochs",
        "source2012 + gone 25.0 12.5 ours: out/val, 10 views, 2 epochs",
    ]
    assert "response normalisation (no-lrn) 1.4 / 1.2 -" in lines and "any middle layer about 2 / - -" in lines


def test_the_tables_as_json(run, call, tmp_path):
    file = tmp_path / "table.json"
    assert call(run, "--json", file)[0] == 0
    tables = json.loads(file.read_text())
    assert set(tables) == {"table1", "table2", "other", "parts"}
    assert tables["table1"]["paper"][2] == {
        "row": "CNN",
        "top1_error": 0.375,
        "top5_error": 0.17,
        "test_top5_error": None,
    }
    (ours,) = tables["table2"]["ours"]
    assert (ours["row"], ours["recipes"], ours["top5_error"]) == ("source2012", ["source2012"], 0.0)
    assert ours["top1_error"] == checkpoint.load(run / "best.pt")["best_error"]


def test_a_run_without_metrics_has_its_checkpoints_error(run, tmp_path):
    (tmp_path / "best.pt").symlink_to(run / "best.pt")
    alone, whole = read_result(tmp_path), read_result(run)
    assert alone.top1_error == whole.top1_error and alone.top5_error is None and whole.top5_error == 0.0


def test_the_best_epoch_counts_and_not_the_last(run, tmp_path):
    (tmp_path / "best.pt").symlink_to(run / "best.pt")
    said = [(0.5, 0.3), (0.2, 0.15), (0.3, 0.1)]
    lines = [
        {"kind": "epoch", "epoch": k, "step": k, "val_top1_error": one, "val_top5_error": five}
        for k, (one, five) in enumerate(said, 1)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_result(tmp_path)
    assert (found.top1_error, found.top5_error, found.epochs) == (0.2, 0.15, (3,))


def test_what_a_part_is_worth():
    rows = [
        row(),
        row("no-lrn", 0.45),
        row("no-lrn", 0.47, files=("second.pt",)),
        row("one-gpu", 0.5, epochs=(9,)),  # not as long as the whole net
        row("tanh", 0.5, fingerprints=("other",)),  # other photos
        row(top1=0.35, views=10, evaluated=True),
        row("no-talk", 0.42, top5_error=None),
    ]
    found = {part.name.split(" (")[0]: part for part in parts(rows)}
    norm, talk, ten = (
        found[name] for name in ("response normalisation", "columns that talk", "ten views, against the centre")
    )
    assert norm.ours_top1 == pytest.approx(0.06) and norm.ours_top5 == pytest.approx(0.03)
    assert norm.published == "1.4 / 1.2" and norm.conditions == "out/val, 1 view, 3 epochs, 2 against 1 runs"
    assert talk.ours_top1 == pytest.approx(0.02) and talk.ours_top5 is None
    assert ten.ours_top1 == pytest.approx(0.05) and ten.conditions == "source2012: out/val, 10 views, 3 epochs"
    for name in ("two columns, against one-gpu", "ReLU, against tanh", "any middle layer"):
        assert found[name].ours_top1 is None


def test_a_result_takes_the_place_of_what_the_run_said():
    said, result, ten = row(), row(evaluated=True, top5_error=0.1), row(views=10, evaluated=True)
    assert distinct([said, result, ten, ten]) == [result, ten]
    assert distinct([said, row(split="train", evaluated=True)])[0] == said
    assert row(recipes=("a", "b", "a")).name == "2 x a + b"


def test_what_is_no_result(run, call, tmp_path):
    for text in ("{", "[]", '{"runs": []}', '{"runs": 3}', b"\xff".decode("latin-1")):
        (tmp_path / "odd.json").write_text(text, encoding="latin-1")
        code, _, err = call(tmp_path / "odd.json")
        assert code == 2 and f"{tmp_path / 'odd.json'}: not a result of alexnet-eval" in err
    code, _, err = call(tmp_path / "none.json")
    assert code == 2 and "none.json: no such file" in err
    code, _, err = call(written(tmp_path / "bare.json", [run], top1_error=None, top5_error=None))
    assert code == 2 and "the split has no labels, so there is no error" in err
    code, _, err = call(tmp_path / "none")
    assert code == 2 and "no such checkpoint" in err
    code, _, err = call(run, "--json", tmp_path / "none" / "a.json")
    assert code == 2 and "its folder does not exist" in err
    code, _, err = call(tmp_path / "bare.json", "--json", tmp_path / "bare.json")
    assert code == 2 and "is an input and would be overwritten" in err


def test_a_run_that_was_never_validated(tmp_path, call):
    folder = tmp_path / "run"
    tiny.trainer_of(tiny.few_shards(tmp_path, val=0), folder, steps=1).train()
    code, _, err = call(folder)
    assert code == 2 and f"{folder}: has no validation error" in err
