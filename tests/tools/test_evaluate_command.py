"""What alexnet-eval writes of its one pass: errors by class, confusions, a submission file; weights of an ensemble."""

import csv
import errno
import json
import os
import shutil
import stat
from pathlib import Path

import click
import numpy as np
import oracle
import pytest
import tiny
import torch
from alexnet_dali.model.analysis.confusion import ANSWERS, WORST
from alexnet_dali.model.training import checkpoint
from alexnet_dali.model.training.evaluate import EvalOptions, evaluate, most_probable, predict
from alexnet_dali.model.weights.trained import load_trained
from alexnet_dali.pipeline.shards import stats
from alexnet_dali.pipeline.shards.manifest import Split, open_shard_set
from alexnet_dali.pipeline.shards.records_csv import listing_of, read_listing
from alexnet_dali.pipeline.sources.class_order import LABEL_ORDERS
from alexnet_dali.pipeline.stream.streams import views_stream
from alexnet_dali.tools.evaluate import evaluate_runs
from alexnet_dali.tools.submission import TOP, Predictions
from faults import Faults
from unlabelled import make_unlabelled

CLASSES = 4


pytestmark = pytest.mark.usefixtures("small_nets")


@pytest.fixture(scope="module")
def runs(shards, small_nets, tmp_path_factory):
    """Two runs of two steps on 60 photos of 4 classes, 20 of them to test in shards of 16."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        trainer = tiny.trainer_of(shards, folder / str(seed), batch_size=8, steps=2, seed=seed, rate=0.002)
        trainer.train()
    return [folder / "0", folder / "1"]


@pytest.fixture
def call(in_process):
    """Run alexnet-eval."""
    return lambda *arguments: in_process(evaluate_runs, *arguments, "--device", "cpu")


def rows_of(file):
    with open(file, newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def probabilities_of(runs, shard_set, split="val", weights=None):
    """Each photo's path, label and float64 probabilities: softmax by hand, in the order of the records."""
    trained = [load_trained(run / "last.pt") for run in runs]
    weights = weights or [1 / len(runs)] * len(runs)
    rows = []
    with views_stream(shard_set, trained[0].stats, split) as stream, torch.no_grad():
        for batch in stream:
            logits = [one.net.eval()(batch.images[:, 0]) for one in trained]
            for k, label in enumerate(batch.labels.tolist()):
                each = [oracle.softmax(of_net[k].tolist()) for of_net in logits]
                rows.append((label, sum(w * np.array(p) for w, p in zip(weights, each, strict=True))))
    paths = [row.source_path for folder, _ in shard_set.split(split).shards for row in read_listing(folder)]
    return [(path, label, row) for path, (label, row) in zip(paths, rows, strict=True)]


def test_errors_by_class(runs, shards, call, tmp_path):
    code, out, err = call(runs[0], "--per-class", tmp_path / "classes.csv", "--json", tmp_path / "result.json")
    assert (code, err) == (0, "") and out.endswith(f"{tmp_path}/classes.csv: errors of 4 classes\n")
    rows = rows_of(tmp_path / "classes.csv")
    photos = probabilities_of(runs[:1], shards)
    assert [row["class"] for row in rows] == list(shards.classes) and {row["words"] for row in rows} == {""}
    for label, row in enumerate(rows):
        own = [p for _, of, p in photos if of == label]
        assert int(row["images"]) == len(own) == 5
        assert float(row["top1_error"]) == pytest.approx(oracle.errors(own, [label] * 5, 1), abs=1e-6)
        assert float(row["top5_error"]) == 0
    mean = np.average([float(row["top1_error"]) for row in rows], weights=[int(row["images"]) for row in rows])
    assert mean == pytest.approx(json.loads((tmp_path / "result.json").read_text())["top1_error"], abs=1e-6)


def test_words_of_the_classes(runs, shards, call, tmp_path):
    copy = shutil.copytree(shards.root, tmp_path / "shards")
    manifest = json.loads((copy / "dataset.json").read_text())
    manifest["classes"][1]["words"] = "tench, Tinca tinca"
    (copy / "dataset.json").write_text(json.dumps(manifest))
    assert call(runs[0], "--shards", copy, "--per-class", tmp_path / "classes.csv")[0] == 0
    assert [row["words"] for row in rows_of(tmp_path / "classes.csv")] == ["", "tench, Tinca tinca", "", ""]


def test_confusions_of_the_worst_classes(runs, shards, call, tmp_path):
    code, out, _ = call(runs[0], "--confusion", tmp_path / "confusion.csv")
    assert code == 0 and out.endswith("wrong answers of the 4 worst classes\n")
    rows = rows_of(tmp_path / "confusion.csv")
    wrong = [(label, int(p.argmax())) for _, label, p in probabilities_of(runs[:1], shards) if p.argmax() != label]
    assert wrong, "the net errs"
    expected = {pair: wrong.count(pair) for pair in wrong}
    order = [shards.classes.index(row["true"]) for row in rows]
    found = {(label, shards.classes.index(row["predicted"])): row for label, row in zip(order, rows, strict=True)}
    assert {pair: int(row["count"]) for pair, row in found.items()} == expected
    assert all(float(row["share"]) == pytest.approx(expected[pair] / 5) for pair, row in found.items())
    errors = [sum(label == one for one, _ in wrong) for label in order]
    assert errors == sorted(errors, reverse=True)


def test_a_submission_file_in_the_order_of_file_names(runs, shards, call, tmp_path):
    file = tmp_path / "submission.txt"
    code, out, _ = call(runs[0], "--predictions", file)
    assert code == 0
    assert out.endswith(f"{file}: 20 lines by file name, 4 classes each: labels of the shard set, from 0\n")
    photos = probabilities_of(runs[:1], shards)
    by_name = sorted(photos, key=lambda photo: (photo[0].rsplit("/", 1)[-1], photo[0]))
    assert by_name != photos and by_name != sorted(photos, key=lambda photo: photo[0]), "three orders"
    expected = ["".join(f"{label} " for label in np.argsort(-p, kind="stable")).strip() for *_, p in by_name]
    assert file.read_text() == "\n".join(expected) + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["submission.txt"]


def test_each_line_is_of_its_photo(shards, tmp_path):
    """Record k is said to be of class k: the first of each line says which photo it is of."""
    split = shards.split("val")
    paths = [row.source_path for folder, _ in split.shards for row in read_listing(folder)]
    by_name = sorted(range(20), key=lambda k: paths[k].rsplit("/", 1)[-1])
    by_path = sorted(range(20), key=lambda k: paths[k])
    assert by_name != by_path and list(range(20)) not in (by_name, by_path), "three orders"
    kept = Predictions(split, "", 20)
    for records in np.split(np.arange(20), [7, 17]):  # shards of 16 and 4
        kept.see(records, torch.zeros(len(records), dtype=torch.int64), torch.eye(20)[records])
    kept.write(tmp_path / "lines")
    kept.close()
    assert [int(line.split()[0]) for line in (tmp_path / "lines").read_text().splitlines()] == by_name


def test_predictions_of_photos_without_labels(runs, shards, call, tmp_path):
    bare = make_unlabelled(shards.root, tmp_path / "bare")
    assert open_shard_set(bare).classes == ()
    file, result = tmp_path / "submission.txt", tmp_path / "result.json"
    options = (runs[0], "--shards", bare, "--split", "test")
    code, out, err = call(*options, "--predictions", file, "--json", result)
    assert (code, err) == (0, "") and "20 photos of" in out and "\nno labels, so no error\n" in out
    assert json.loads(result.read_text())["top1_error"] is None
    # The same photos as in val, which has a folder a class: by file name they come in the same order.
    assert call(runs[0], "--predictions", tmp_path / "val.txt")[0] == 0
    assert file.read_text() == (tmp_path / "val.txt").read_text()
    for more in ((), ("--per-class", tmp_path / "classes.csv")):
        code, _, err = call(*options, *more, *(("--predictions", tmp_path / "again.txt") if more else ()))
        assert code == 1 and "test has records without a label" in err
    assert not (tmp_path / "classes.csv").exists() and not (tmp_path / "again.txt").exists()


def test_ilsvrc_ids_are_counted_from_one(shards, tmp_path):
    split = Split("val", shards.split("val").shards[:1])
    probabilities = torch.zeros(2, 1000)
    probabilities[0, [999, 0, 7, 5, 3, 1]] = torch.tensor([0.4, 0.2, 0.1, 0.1, 0.1, 0.05])
    for order, classes, first in [("devkit", 1000, 1), ("sorted", 1000, 0), ("devkit", 999, 0)]:
        kept = Predictions(split, LABEL_ORDERS[order], classes)
        kept.see(np.array([0, 1]), torch.zeros(2, dtype=torch.int64), probabilities)
        kept.write(tmp_path / "lines")
        kept.close()
        best = [999, 0, 3, 5, 7], [0, 1, 2, 3, 4]  # among equals the lower label
        expected = {" ".join(str(label + first) for label in row) for row in best}
        assert set((tmp_path / "lines").read_text().splitlines()) == expected
        assert kept.numbering().endswith(f"from {first}")


def test_weights_of_an_ensemble(runs, shards, call, tmp_path):
    file = tmp_path / "result.json"
    code, out, _ = call(*runs, "--weights", "1,3", "--json", file)
    assert code == 0 and ", weights 0.25, 0.75: 20 photos" in out
    result = json.loads(file.read_text())
    photos = probabilities_of(runs, shards, weights=[0.25, 0.75])
    assert result["weights"] == [0.25, 0.75]
    assert result["loss"] == pytest.approx(np.mean([-np.log(p[label]) for _, label, p in photos]), rel=1e-4)
    assert result["top1_error"] == np.mean([p.argmax() != label for _, label, p in photos])
    assert call(*runs, "--json", file)[0] == 0
    assert abs(json.loads(file.read_text())["loss"] - result["loss"]) > 1e-4
    nets = [load_trained(run / "last.pt").net for run in runs]
    equal = evaluate(nets, shards, stats.load_stats(shards), options=EvalOptions(weights=[0.5, 0.5]))
    assert json.loads(file.read_text())["loss"] == pytest.approx(equal.loss, rel=1e-6)


@pytest.mark.parametrize(
    "options, said",
    [
        (["--weights", "1"], "--weights 1: 1 weights for 2 runs"),
        (["--weights", "1,2,3"], "3 weights for 2 runs"),
        (["--weights", "1,0"], "not all positive"),
        (["--weights", "1,nan"], "not all positive"),
        (["--weights", "inf,1"], "not all positive"),
        (["--weights", "1,x"], "--weights 1,x: not numbers"),
        (["--per-class", "none/a.csv"], "none/a.csv: its folder does not exist"),
        (["--predictions", "none/a.txt"], "none/a.txt: its folder does not exist"),
        (["--confusion", "."], ".: a folder, not a file"),
        (["--confusion", "a.csv", "--per-class", "./a.csv"], "two results would be written to one file"),
    ],
)
def test_what_cannot_be_meant_is_said_before_the_pass(call, tmp_path, monkeypatch, options, said):
    """Before a checkpoint is read, too: these runs are not there."""
    monkeypatch.chdir(tmp_path)
    code, _, err = call("a", "b", *options)
    assert code == 2 and said in err and "try: " in err


def test_a_lost_list_of_photos(runs, shards, call, tmp_path):
    copy = shutil.copytree(shards.root, tmp_path / "shards")
    file = tmp_path / "submission.txt"
    listing = listing_of(copy / "val" / "00001.lmdb")
    listing.write_text("".join(listing.read_text().splitlines(keepends=True)[:-1]))
    code, _, err = call(runs[0], "--shards", copy, "--predictions", file)
    assert code == 1 and f"{listing}: 3 rows, but the shard has 4 records" in err
    os.remove(listing)
    code, _, err = call(runs[0], "--shards", copy, "--predictions", file)
    assert code == 1 and f"{listing}: No such file" in err and "verify --repair" in err
    assert not file.exists() and not list(Path(tmp_path).glob(".*"))


def test_most_probable_is_in_order_and_weights_are_the_nets():
    rows = torch.tensor([[0.1, 0.3, 0.2, 0.3, 0.1]])
    assert most_probable(rows).tolist() == [[1, 3, 2, 0, 4]] and most_probable(rows, 2).tolist() == [[1, 3]]

    class Says(torch.nn.Module):
        def __init__(self, *logits):
            super().__init__()
            self.logits = torch.tensor(logits)

        def forward(self, x):
            return self.logits.expand(len(x), -1)

    nets, picture = [Says(9.0, 0.0), Says(0.0, 2.0)], torch.zeros(1, 1, 3, 2, 2)
    expected = 0.2 * np.array(oracle.softmax([9, 0])) + 0.8 * np.array(oracle.softmax([0, 2]))
    np.testing.assert_allclose(predict(nets, picture, weights=[0.2, 0.8]).numpy()[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--json", "last.pt"),
        ("--json", "metrics.jsonl"),
        ("--json", "config.json"),
        ("--predictions", "best.pt"),
        ("--predictions", "metrics.jsonl"),
        ("--per-class", "last.pt"),
        ("--confusion", "kernels/00000.npy"),
        ("--json", "shards/dataset.json"),
        ("--json", "shards/stats.json"),
        ("--per-class", "shards/rejected.csv"),
        ("--per-class", "shards/val/00000.csv"),
        ("--predictions", "shards/val/00000.lmdb/data.mdb"),
        ("--predictions", "shards/val/00000.lmdb/lines.txt"),
    ],
)
def test_no_checkpoint_and_no_data_are_written_over(runs, shards, call, tmp_path, option, name):
    """Before a photo is read, and whatever the file is called through."""
    run = shutil.copytree(runs[0], tmp_path / "run")
    shutil.copy(run / "last.pt", run / "best.pt")
    (run / "config.json").write_text("{}")
    shutil.copytree(shards.root, run / "shards")
    (tmp_path / "link").symlink_to(run / name)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for file in (run / name, tmp_path / "link"):
        code, out, err = call(run, option, file)
        assert (code, out) == (2, "") and str(file) in err and "try: " in err
        assert "refusing to overwrite" in err or "lies in a shard" in err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_result_is_written_into_a_pipe_and_through_a_link(runs, call, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.txt").symlink_to("folder/lines.txt")
    for _ in range(2):  # the second time over the first's
        code, *_ = call(runs[0], "--json", tmp_path / "pipe", "--predictions", tmp_path / "link.txt")
        assert code == 0 and json.loads(os.read(reader, 10_000))["images"] == 20
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode) and (tmp_path / "link.txt").is_symlink()
    assert len((tmp_path / "folder" / "lines.txt").read_text().splitlines()) == 20
    assert sorted(os.listdir(tmp_path)) == ["folder", "link.txt", "pipe"]


@pytest.mark.parametrize("option", ["--json", "--predictions", "--per-class", "--confusion"])
def test_a_full_disk_is_told_with_the_files_name(runs, call, tmp_path, option):
    suffix = {"--json": "json", "--predictions": "txt"}.get(option, "csv")
    file = tmp_path / f"result.{suffix}"
    with Faults(tmp_path, 1, errno.ENOSPC, on=True):
        code, _, err = call(runs[0], option, file)
    assert code == 1
    assert err.splitlines() == [
        f"error: {file}: No space left on device",
        "  try: make room, then run the same command again",
    ]
    assert os.listdir(tmp_path) == []


def test_a_net_whose_weights_are_no_numbers_is_refused(runs, call, tmp_path):
    saved = checkpoint.load(runs[0] / "last.pt")
    saved["model"]["fc8.bias"][0] = float("nan")
    checkpoint.save(tmp_path / "last.pt", saved)
    code, out, err = call(tmp_path)
    assert (code, out) == (1, "")
    assert f"error: {tmp_path / 'last.pt'}: model.fc8.bias has values that are not finite" in err


def test_a_model_that_would_command_the_terminal(runs, call, tmp_path):
    saved = checkpoint.load(runs[0] / "last.pt")
    saved["config"]["model"] = "\x1b[2J\x1b]0;owned\x07"
    checkpoint.save(tmp_path / "last.pt", saved)
    code, _, err = call(tmp_path)
    assert code != 0 and "\\x1b[2J" in err and "\x1b" not in err and "\x07" not in err


def test_help_names_the_numbers_that_are_written():
    """The help has them as text, so that it needs neither torch nor DALI."""
    help = " ".join(option.help or "" for option in evaluate_runs.params if isinstance(option, click.Option))
    assert f"the {WORST} worst classes, with the {ANSWERS} most" in help and f"its {TOP} most probable classes" in help
