"""alexnet-figures report: what its page says, that nothing in it is trusted, and how it looks in a real Chromium."""

import base64
import io
import json
import shlex
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import browser
import numpy as np
import pytest
import tiny
from alexnet_dali.model.nets.alexnet import NetOptions
from alexnet_dali.model.recipes.recipe import recipe
from alexnet_dali.model.training import checkpoint, metrics
from alexnet_dali.model.training.evaluate import Result
from alexnet_dali.tools.evaluate import evaluate_runs
from alexnet_dali.tools.figures import answers
from alexnet_dali.tools.figures.cli import figures
from alexnet_dali.tools.figures.open_run import open_run
from alexnet_dali.tools.figures.report import facts, pictures
from alexnet_dali.tools.figures.report import report as report_module
from alexnet_dali.tools.figures.small_nets import command
from alexnet_dali.tools.train.cli import train
from conftest import build_set
from PIL import Image

pytestmark = pytest.mark.usefixtures("small_nets")

FOLDER = "<img src=x onerror=alert(1)>&\"'"  # a class folder's name; one cannot hold a slash
WORDS = '<script>alert(1)</script>&"'
VOID = {"meta", "link", "img", "source", "br"}


class Page(HTMLParser):
    """A page taken apart: its elements, its words, and whether every element is closed where it was opened."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open, self.crossed = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def said(self):
        """All words, spaces as one."""
        return " ".join("".join(self.words).split())

    def of(self, tag):
        """Attributes of the elements of a name."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def figures(self):
        return [attributes["id"] for attributes in self.of("figure")]

    @property
    def names(self):
        """What links can lead to."""
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(scope="module")
def hostile(photos, tmp_path_factory):
    """A shard set one of whose folders, and one of whose classes' words, are HTML."""
    folder = shutil.copytree(photos, tmp_path_factory.mktemp("hostile") / "photos")
    first = sorted(path.name for path in (folder / "train").iterdir())[0]
    for split in ("train", "val"):
        (folder / split / first).rename(folder / split / FOLDER)
    shard_set = build_set(folder, folder.parent / "shards", shard_records=16)
    manifest = json.loads((shard_set.root / "dataset.json").read_text())
    manifest["classes"][1]["words"] = WORDS
    (shard_set.root / "dataset.json").write_text(json.dumps(manifest))
    return shard_set


@pytest.fixture(scope="module")
def run(hostile, small_nets, tmp_path_factory):
    """A run of two epochs of 7 steps; tests may write their pages into it, nothing else."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    tiny.trainer_of(hostile, folder, batch_size=8, rate=0.002, seed=3).train()
    return folder


@pytest.fixture(scope="module")
def file(run):
    """The run's page, as the command writes it."""
    figures(["report", str(run), "--device", "cpu"], standalone_mode=False)
    return run / "report.html"


@pytest.fixture(scope="module")
def page(file):
    return Page(file.read_text())


@pytest.fixture
def call(in_process):
    """Run alexnet-figures report on the CPU."""
    return lambda *arguments: in_process(figures, "report", *arguments, "--device", "cpu")


def test_the_page_is_whole_and_asks_for_nothing(file, page):
    assert not page.crossed and not page.open, "elements cross, or are left open"
    assert not page.of("script") and len(page.of("style")) == 1
    policy = next(one for one in page.of("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "srcset", "href", "action", "data", "poster"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, name, attributes[name][:80])
    assert "url(" not in file.read_text() and "@import" not in file.read_text()
    targets = {attributes["href"][1:] for attributes in page.of("a")}
    assert targets and targets <= set(page.names) and len(set(page.names)) == len(page.names)
    assert not list(file.parent.glob(".*"))


def test_every_figure_is_there_for_light_and_dark_and_in_words(page):
    assert page.figures == [
        "curves",
        "kernels",
        "kernels-learned",
        "kernels-epochs",
        "predictions",
        "confusion",
        "per-class",
        "augmentation",
    ]
    images, sources = page.of("img"), page.of("source")
    assert len(images) == len(sources) == len(page.figures)
    for image, source in zip(images, sources, strict=True):
        assert len(image["alt"]) > 30 and source["media"] == "screen and (prefers-color-scheme: dark)"
        light, dark = (decoded(uri) for uri in (image["src"], source["srcset"]))
        assert light.size == dark.size == (int(image["width"]), int(image["height"]))
        for one, paper in ((light, (255, 255, 255)), (dark, (21, 25, 27))):
            near = (abs(np.asarray(one, np.int16) - paper) < 4).all(axis=2)
            assert near.mean() > 0.1, image["alt"]


def decoded(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2]))).convert("RGB")


def test_names_of_classes_are_words_and_nothing_else(page):
    assert FOLDER in page.said and WORDS in page.said
    assert any(WORDS in attributes["alt"] for attributes in page.of("img"))
    assert not [attributes for attributes in page.of("img") if attributes.get("src") == "x"]


def test_the_result_is_that_of_the_evaluation(run, page, in_process, tmp_path):
    code, *_ = in_process(evaluate_runs, run, "--json", tmp_path / "result.json", "--device", "cpu")
    result = json.loads((tmp_path / "result.json").read_text())
    assert code == 0 and result["images"] == 20
    assert f"This runshards/val, 20 photos, centre view{100 * result['top1_error']:.1f}%0.0%" in page.said
    assert "The paper, one netILSVRC-2012 val, 50,000 photos, ten views40.7%18.2%" in page.said
    assert (
        "cannot be compared with the paper's: shards is not ImageNet. The error of guessing is 75% with its 4 classes"
        in page.said
    )
    assert "With 4 classes the top-5 error is always zero and not meaningful." in page.said


def test_what_was_trained_on_what(run, hostile, page):
    best = checkpoint.load(run / "best.pt")
    for words in (
        "source2012: what ran in 2012",
        str(hostile.root),
        "60 train, 20 val; 256x256, jpeg",
        "8 photos",
        "0.002; schedule diary",
        "fp32 on cpu",
        f"best.pt, after {best['epoch']} epoch",
        f"({best['steps_done']} steps in all)",
    ):
        assert words in page.said, words
    assert "Differences from the program of 2012" not in page.said
    course = metrics.read(run / "metrics.jsonl")
    speed = facts.speed(course, 8)
    assert f"{speed.images_per_second:,.0f} images/s; training waited for data during" in page.said


@pytest.mark.slow
def test_the_command_trains_the_same_run_again(run, hostile, page, in_process, tmp_path):
    (line,) = [part for part in commands(page) if part.startswith("alexnet-train")]
    words = shlex.split(line)
    assert words[words.index("--shards") + 1] == str(hostile.root)
    words[words.index("--run") + 1] = str(tmp_path / "again")
    assert in_process(train, *words[1:])[0] == 0
    tiny.assert_same_run(run, tmp_path / "again")


def commands(page):
    """The commands on a page, as they would be copied."""
    return [part.strip() for part in "".join(page.words).split("\n") if part.strip().startswith("alexnet-")]


def test_the_command_measures_the_same_errors_again(run, page, in_process):
    (line,) = [part for part in commands(page) if part.startswith("alexnet-eval")]
    code, out, _ = in_process(evaluate_runs, *shlex.split(line)[1:], "--device", "cpu")
    assert code == 0 and "20 photos of" in out and "/val, 1 view\n" in out


@pytest.mark.slow
def test_neighbours_once_there_is_an_index(run, page, call, in_process, tmp_path, monkeypatch):
    assert "neighbours" not in page.figures and "are not indexed" in page.said
    copy = shutil.copytree(run, tmp_path / "run")
    (line,) = [part for part in commands(page) if part.startswith("alexnet-figures index")]
    words = [str(copy) if word == str(run) else word for word in shlex.split(line)[1:]]
    assert str(copy) in words and in_process(figures, *words, "--device", "cpu")[0] == 0
    passed = []
    real = answers.evaluate
    monkeypatch.setattr(answers, "evaluate", lambda *a, **k: passed.append(a[4].views) or real(*a, **k))
    code, out, _ = call(copy, "--views", "10", "--out", tmp_path / "ten.html")
    assert (code, out) == (0, f"{tmp_path / 'ten.html'}\n")
    ten = Page((tmp_path / "ten.html").read_text())
    assert passed == [10], "one pass for all figures"
    assert "neighbours" in ten.figures and "20 photos, ten views" in ten.said
    assert "centre view" not in ten.said
    (copy / "index" / "index.json").write_text("{}")
    assert isinstance(stale(copy), pictures.Missing)


def stale(run):
    opened = open_run(run, None, "cpu")
    return pictures.of_neighbours(opened, "val")


RACE = {
    "settings": {"epochs": 9, "seed": 0},
    "chosen": {"relu": 0.01, "tanh": 0.003},
    "curves": [
        {"kind": "relu", "rate": 0.003, "errors": [0.9, 0.8]},
        {"kind": "relu", "rate": 0.01, "errors": [0.8, 0.4, 0.2]},
        {"kind": "tanh", "rate": 0.003, "errors": [0.9, 0.8, 0.5, 0.3, 0.2]},
    ],
    "target": 0.25,
    "epochs_to_target": {"relu": 2.75, "tanh": 4.5},
    "words": "ReLU reaches 25% <b>sooner</b>",
    "about": "24 photos",
}


@pytest.mark.slow
def test_figure_1_where_it_was_trained(run, page, call, tmp_path, monkeypatch):
    assert "nonlinearity" not in page.names
    folder = tmp_path / "figures"
    folder.mkdir()
    code, _, err = call(run, "--figure1", folder, "--out", tmp_path / "page.html")
    assert code == 2 and f"{folder}: no relu-vs-tanh results found" in err
    drawn, real = [], command.draw_race
    monkeypatch.setattr(command, "draw_race", lambda *given: drawn.append(given) or real(*given))
    (folder / "relu-vs-tanh.json").write_text(json.dumps(RACE))
    assert call(run, "--figure1", folder, "--out", tmp_path / "page.html")[0] == 0
    with_race = Page((tmp_path / "page.html").read_text())
    assert with_race.figures == [*page.figures, "relu-vs-tanh"] and "ReLU and tanh Figure" in with_race.said
    assert with_race.of("img")[-1]["alt"].endswith("with ReLUs and with tanh. ReLU reaches 25% <b>sooner</b>.")
    ((race,), target, within, *_) = drawn[0]
    assert [(line.rate, line.errors) for line in (race.relu, race.tanh)] == [
        (0.01, [0.8, 0.4, 0.2]),
        (0.003, [0.9, 0.8, 0.5, 0.3, 0.2]),
    ]
    assert [given[-1].paper for given in drawn] == ["#ffffff", "#15191b"] and (race.reached, target, within) == (
        (2.75, 4.5),
        0.25,
        9,
    )
    # The run's own figures are looked at without being named.
    copy = tmp_path / "run"
    copy.mkdir()
    shutil.copy(run / "best.pt", copy)
    shutil.copytree(folder, copy / "figures")
    assert call(copy)[0] == 0 and "relu-vs-tanh" in Page((copy / "report.html").read_text()).figures


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", json.dumps(RACE | {"curves": []}), json.dumps(RACE | {"about": "$\\bad$"}), '{"words": 1}']
)
def test_figure_1_of_a_damaged_file(tmp_path, text):
    (tmp_path / "relu-vs-tanh.json").write_text(text)
    found = pictures.of_race(tmp_path / "relu-vs-tanh.json")
    assert isinstance(found, pictures.Missing) and "relu-vs-tanh.json: damaged" in found.why


@pytest.mark.slow
def test_a_run_without_photos_held_out(hostile, call, tmp_path):
    few = tiny.few_shards(tmp_path / "few", val=0)
    run = tmp_path / "run"
    tiny.trainer_of(few, run, epochs=1).train()
    assert not (run / "best.pt").exists()
    assert call(run)[0] == 0
    page = Page((run / "report.html").read_text())
    assert "shards has no photos in split val, so nothing was measured." in page.said and "This run" not in page.said
    assert "last.pt, after 1 epoch" in page.said and not [one for one in commands(page) if "alexnet-eval" in one]
    assert page.figures == ["curves", "kernels", "kernels-learned", "kernels-epochs", "augmentation"]
    assert len(set(page.names)) == len(page.names)
    code, _, err = call(run, "--split", "val", "--out", tmp_path / "page.html")
    assert code == 1 and "no records in a split 'val'" in err and not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda file: file.unlink(), "no metrics found"),
        (lambda file: file.write_bytes(bytes(range(128, 256))), "no complete line of metrics"),
        (lambda file: file.write_text('{"kind": "epoch", "epoch": 1, "step": "x"}\n'), "no complete line"),
    ],
)
def test_metrics_that_are_gone_or_damaged(run, tmp_path, damage, said):
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("best.pt", "metrics.jsonl"):
        shutil.copy(run / name, copy / name)
    damage(copy / "metrics.jsonl")
    course = report_module.course_of(open_run(copy, None, "cpu"))
    drawn = pictures.of_course(course)
    assert isinstance(drawn, pictures.Missing) and said in drawn.why


@pytest.mark.slow
def test_another_net(call, tmp_path):
    few = tiny.few_shards(tmp_path / "few")
    run = tmp_path / "run"
    tiny.trainer_of(few, run, epochs=1, model="resnet18").train()
    (run / "metrics.jsonl").unlink()
    assert call(run / "last.pt", "--out", tmp_path / "page.html")[0] == 0
    page = Page((tmp_path / "page.html").read_text())
    assert "resnet18 on shards" in page.said and "The net is resnet18, not the paper's." in page.said
    assert "no metrics found; curves and throughput are left out." in page.said and "Throughput" not in page.said
    assert {"kernels", "predictions", "confusion"} <= set(page.figures) and "curves" not in page.figures
    (line,) = [part for part in commands(page) if part.startswith("alexnet-train")]
    assert "--model resnet18 --crop 224" in line
    train.make_context("alexnet-train", shlex.split(line)[1:])


def test_what_cannot_be_a_page(run, call, tmp_path):
    code, _, err = call(run, "--out", tmp_path)
    assert code == 2 and f"{tmp_path}: a folder, not a file" in err
    code, _, err = call(run, "--out", tmp_path / "none" / "a.html")
    assert code == 2 and "its folder does not exist" in err
    code, _, err = call(tmp_path / "nobody")
    assert code == 2 and "try: " in err
    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "best.pt").write_bytes((run / "best.pt").read_bytes()[:100_000])
    (copy / "report.html").write_text("an older page")
    code, _, err = call(copy)
    assert code == 1 and "damaged" in err
    code, _, err = call(run, "--shards", tmp_path / "gone")
    assert code != 0 and str(tmp_path / "gone") in err
    assert (copy / "report.html").read_text() == "an older page"


@pytest.mark.parametrize(
    "name, views, expected, said",
    [
        ("source2012", 10, [("The paper, one net", 40.7, 18.2)], ""),
        (
            "source2012",
            1,
            [("The paper, one net", 40.7, 18.2), ("The paper, one net", 39.0, 18.3)],
            "1.5 points better",
        ),
        ("no-lrn", 10, [("The authors, no-lrn", 42.0, 19.4), ("The paper, one net", 40.7, 18.2)], ""),
        ("no-dropout", 10, [("The authors, no-dropout", None, None), ("The paper, one net", 40.7, 18.2)], ""),
        ("modern", 10, [("The paper, one net", 40.7, 18.2)], "no result for the recipe modern"),
    ],
)
def test_the_papers_row_of_a_recipe(run, name, views, expected, said):
    opened = open_run(run, None, "cpu")
    thousand = replace(opened.shard_set, classes=tuple(f"n{k:08}" for k in range(1000)))
    opened = replace(opened, trained=replace(opened.trained, recipe=recipe(name)), shard_set=thousand)
    config = tiny.config(thousand, recipe=name)
    result = Result(50000, 2.0, 0.407, 0.182)
    own, *rows = facts.results(opened, config, result, "val", views)
    assert own.ours and (own.top1, own.top5) == pytest.approx((40.7, 18.2))
    assert [(row.name, row.top1, row.top5) for row in rows] == expected
    sentence = facts.comparison(opened, config, result, views)
    assert said in sentence and bool(said) == bool(sentence)


def test_what_a_recipe_has_otherwise(run):
    saved = checkpoint.load(run / "best.pt")
    config = tiny.config(open_run(run, None, "cpu").shard_set)
    assert facts.differences(saved, config) == []
    saved["recipe"] = recipe("modern").described()
    rows = facts.differences(saved, config)
    assert ("mean", "rgb", "image") in rows and ("net: norm", "batch", NetOptions().norm) in rows
    assert ("divide", "no", "yes") in rows and not [row for row in rows if row[0] in ("name", "summary", "epochs")]


def test_speed_is_that_of_all_the_time():
    """100 images in 10 s and 100 in 40 s are 200 in 50, not the mean of 10 and 2.5 a second."""

    def line(step, rate, stall, kind="epoch"):
        more = {"disk_percent": stall, "val_seconds": 1.0}
        return {"kind": kind, "epoch": 1, "step": step, "images_per_second": rate, "stall_percent": stall, **more}

    found = facts.speed([line(10, 10.0, 0.0), line(5, 1.0, 50.0, "step"), line(20, 2.5, 5.0)], 10)
    assert (found.images_per_second, found.stall_percent) == (4.0, 4.0)
    assert found.waits["disk"] == 4.0 and found.seconds == 52.0
    assert facts.speed([line(5, 1.0, 50.0, "step")], 10).stall_percent == 50.0
    assert facts.speed([{"kind": "epoch", "epoch": 1, "step": 3}], 10) is None


# In a real browser.

needs_chromium = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "there is one")
LOOKS = [(size, scheme) for size in (browser.PHONE, browser.DESKTOP) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as found:
        yield found


@needs_chromium
@pytest.mark.parametrize("size, scheme", LOOKS, ids=lambda one: one if isinstance(one, str) else str(one[0]))
def test_in_a_browser(chromium, file, size, scheme):
    with browser.opened(chromium, file, size, scheme) as (page, heard):
        assert (heard.console, heard.errors, heard.remote, heard.failed) == ([], [], [], [])
        assert heard.requests[0].startswith("file:"), "requests are seen"
        images = page.evaluate(
            "Promise.all([...document.images].map(one => one.decode().then(() => [one.naturalWidth, one.currentSrc])))"
        )
        assert len(images) == 8 and all(width > 0 for width, _ in images)
        dark = page.evaluate("[...document.querySelectorAll('source')].map(one => one.srcset)")
        assert [source in dark for _, source in images] == [scheme == "dark"] * 8
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 25, 27)"}[scheme]
        for details in page.query_selector_all("summary"):
            details.click()
        wide = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
        assert page.evaluate(wide) == size[0], "the page moves sideways"
        assert page.locator("h1").inner_text() == "source2012 on shards"
        assert page.locator("h2").count() == 8 and all(one.is_visible() for one in page.locator("h2").all())
        assert page.locator("tr.ours .number").first.bounding_box()["x"] < size[0] - 40, "the result is seen at once"
        within = page.evaluate("[...document.querySelectorAll('.sheet')].map(one => one.scrollWidth - one.clientWidth)")
        assert (max(within) > 100) == (size == browser.PHONE), (
            "figures are large enough to read, and move by themselves"
        )


@needs_chromium
def test_on_paper_it_is_light(chromium, file):
    with browser.opened(chromium, file, browser.DESKTOP, "dark") as (page, heard):
        assert page.pdf(format="A4", print_background=True).startswith(b"%PDF-")
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(34, 41, 44)"
        dark = page.evaluate("[...document.querySelectorAll('source')].map(one => one.srcset)")
        assert not set(page.evaluate("[...document.images].map(one => one.currentSrc)")) & set(dark)
        assert not page.locator("nav").is_visible() and not heard.failed


@needs_chromium
def test_the_browser_notices_what_a_page_asks_for(chromium, tmp_path):
    (tmp_path / "a.html").write_text('<img src="http://alexnet.invalid/a.png"><script>console.error("b"); c()</script>')
    with browser.opened(chromium, tmp_path / "a.html") as (_, heard):
        assert heard.remote == heard.failed == ["http://alexnet.invalid/a.png"]
        assert "b" in heard.console and "c is not defined" in heard.errors[0]
