"""The page of alexnet-demo, served by the real command: in Chromium, and to those who ask for what is not theirs."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager

import browser
import pytest
import tiny
from alexnet_dali.tools.demo.guard import names_foreign_files
from alexnet_dali.tools.figures.open_run import open_run
from alexnet_dali.tools.figures.retrieval import vectors
from pictures import BOMB

pytestmark = pytest.mark.usefixtures("small_nets")


@pytest.fixture(scope="module")
def run(shards, small_nets, tmp_path_factory):
    """A run of two steps on 60 photos of 4 classes."""
    folder = tmp_path_factory.mktemp("runs") / "tried"
    tiny.trainer_of(shards, folder, batch_size=8, steps=2, rate=0.002).train()
    return folder


# The command in a process of its own: its net is small, and it says of every address that it connects to.
COMMAND = f"""
import sys
def hear(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        print("NETWORK", *arguments[event == "socket.connect" :], file=sys.stderr, flush=True)
sys.addaudithook(hear)
import alexnet_dali.model.nets.alexnet as alexnet
alexnet.HIDDEN = {tiny.HIDDEN}
from alexnet_dali.tools.demo.cli import main
main()"""


@contextmanager
def serving(run, folder):
    """Start alexnet-demo on a free port; yields its process, its address and the folder of its temporary files."""
    (folder / "temporary").mkdir()
    with open(folder / "err", "w") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(run), "--port", "0", "--device", "cpu"],
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            env={**os.environ, "TMPDIR": str(folder / "temporary"), "OMP_NUM_THREADS": "1"},
        )
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), (folder / "err").read_text()
        yield process, url
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(run, tmp_path_factory):
    """The command at work: its address, and the folder in which `temporary` and `err` are."""
    folder = tmp_path_factory.mktemp("demo")
    with serving(run, folder) as (_, url):
        yield url, folder


def status_of(url: str, body: bytes | None = None, kind: str = "application/json") -> int:
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_nothing_outside_an_upload_can_be_read(server, run, photos, shards):
    url, folder = server
    photo = next(photos.rglob("*.JPEG"))
    for file in ("/etc/passwd", run / "best.pt", shards.root / "dataset.json", photo, folder / "err"):
        for route in ("gradio_api/file=", "file=", "gradio_api/file/", "gradio_api/stream/", "static/../"):
            assert status_of(f"{url}/{route}{file}") in (403, 404, 405), (route, file)
    assert status_of(f"{url}/gradio_api/file=../../../../etc/passwd") in (403, 404)
    # Not even as the photo to look at, told to the queue without the page; nor is anything fetched.
    for named in (str(photo), f"{folder}/temporary/../err", "http://127.0.0.1:1/a.jpg", "https://example.org/a.jpg"):
        body = {"data": [{"path": named, "meta": {"_type": "gradio.FileData"}}], "fn_index": 0, "session_hash": "s"}
        for route in ("queue/join", "run/predict", "call/inspect_upload"):
            for kind in ("application/json", "text/plain"):
                assert status_of(f"{url}/gradio_api/{route}", json.dumps(body).encode(), kind) == 403, (route, named)
    assert photo.exists()


def sent(url: str, name: str, data: bytes) -> str:
    """Send a file as a browser does, and say where it lies."""
    head = f'--cut\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + data + b"\r\n--cut--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=cut", "Accept-Encoding": "gzip, br"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/gradio_api/upload", body, headers), timeout=30) as said:
        (path,) = json.loads(said.read())
    return path


def inspected(url: str, path: str) -> str:
    """Call the page's function for an upload, and return the HTML."""
    config = json.loads(urllib.request.urlopen(f"{url}/config", timeout=30).read())
    number = next(one["id"] for one in config["dependencies"] if one["targets"][0][1] == "upload")
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [file], "fn_index": number, "session_hash": "s"}).encode()
    joined = urllib.request.Request(f"{url}/gradio_api/queue/join", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(joined, timeout=30).read()
    with urllib.request.urlopen(f"{url}/gradio_api/queue/data?session_hash=s", timeout=60) as events:
        for line in events:
            if b"process_completed" in line:
                return json.loads(line.removeprefix(b"data: "))["output"]["data"][1]
    raise AssertionError("the queue ended without an answer")


def test_two_people_send_photos_at_once(server, photos):
    """One file shared, as Gradio calls it after its bytes; another on its way. Nothing of theirs goes, nor stays."""
    url, folder = server
    (data, other), name = (
        [path.read_bytes() for path in sorted((photos / "val").rglob("*.JPEG"))[:2]],
        "é" * 90 + ".jpg",
    )
    first, second, third = sent(url, name, data), sent(url, name, data), sent(url, "other.jpg", other)
    coming = os.path.join(os.path.dirname(os.path.dirname(third)), "tmpcoming")
    with open(coming, "wb") as file:
        file.write(other[:1000])
    assert first == second != third
    for path in (first, second, third):
        assert "Most probable" in inspected(url, path)
    assert os.path.exists(coming)
    os.unlink(coming)
    assert not [file for file in (folder / "temporary").rglob("*") if file.is_file() and "demo" in str(file.parent)]


def test_what_is_an_upload(tmp_path):
    (tmp_path / "a").mkdir()

    def foreign(body) -> bool:
        return names_foreign_files(json.dumps(body).encode(), tmp_path / "a")

    assert not foreign({"data": [{"path": f"{tmp_path}/a/b.jpg"}, None, 1, "path"], "path": 7})
    assert not names_foreign_files(b"\xff{", tmp_path) and not names_foreign_files(b"[" * 100_000, tmp_path)
    for path in (
        f"{tmp_path}/a",
        f"{tmp_path}/a/../b.jpg",
        f"{tmp_path}/ab/c",
        "a/b.jpg",
        "",
        "\0",
        "x" * 5000,
        "//h/a",
    ):
        assert foreign({"data": [[{"deep": {"path": path}}]]}), path
    (tmp_path / "a" / "link").symlink_to("/etc/passwd")
    assert foreign({"path": f"{tmp_path}/a/link"})


@pytest.mark.slow
def test_ctrl_c_ends_it(run, tmp_path):
    with serving(run, tmp_path) as (process, url):
        with urllib.request.urlopen(url, timeout=30) as answer:
            policy = answer.headers["Content-Security-Policy"]
            page = answer.read().decode()
        assert "default-src 'self'" in policy and "http" not in policy
        assert "fonts.g" not in page and not re.search(r'(src|href)="https?:', page)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    said = (tmp_path / "err").read_text()
    assert "Traceback" not in said and said.endswith("stopped\n")
    assert [line for line in said.splitlines() if line.startswith("NETWORK") and "127.0.0.1" not in line] == []
    assert not list((tmp_path / "temporary").glob("alexnet-demo-*"))


@contextmanager
def page_at(url, size=browser.DESKTOP):
    """The page in Chromium, with what it said and asked for."""
    from playwright.sync_api import sync_playwright

    heard = browser.Heard()
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser.executable(), args=arguments)
        try:
            page = chromium.new_page(viewport={"width": size[0], "height": size[1]})
            page.set_default_timeout(60_000)
            page.on("console", lambda m: heard.console.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: heard.errors.append(str(error)))
            page.on("request", lambda request: heard.requests.append(request.url[:200]))
            page.route(re.compile(r"^https?://(?!127\.0\.0\.1:)"), lambda route: route.abort())
            page.goto(url)
            page.wait_for_selector(".examples img")
            yield page, heard
        finally:
            chromium.close()


def upload(page, name: str, data: bytes):
    """Give a file to the page and wait for what it says of it."""
    page.set_input_files("#photo input[type=file]", {"name": name, "mimeType": "image/jpeg", "buffer": data})
    page.wait_for_selector(f"#inspection :text({json.dumps(name)})")


@pytest.mark.slow
@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "-")
def test_the_page_in_a_browser(server, photos, run):
    url, folder = server
    opened = open_run(run, None, "cpu")
    good = next((photos / "val").rglob("*.JPEG")).read_bytes()
    with page_at(url) as (page, heard):
        assert page.locator(".examples button").count() == 8
        upload(page, "good.jpg", good)
        shown = page.locator(".labels .name").all_inner_texts()
        assert sorted(shown) == sorted(opened.names)
        assert page.locator("#inspection .views figure").count() == 10
        assert page.locator("#inspection .layer figure").count() == 12
        assert page.locator("#inspection .crop img").count() == 2
        assert "alexnet-figures index" in page.locator("#near .note").inner_text()

        upload(page, "text.jpg", b"hello " * 100)
        assert "text.jpg: not a photo in a known format" in page.locator("#inspection [role=alert]").inner_text()
        assert page.locator("#inspection article").count() == 0
        upload(page, "torn.jpg", good[: len(good) // 2])
        assert "truncated" in page.locator("#inspection [role=alert]").inner_text()
        upload(page, "bomb.bmp", BOMB)
        assert "more than 100,000,000 pixels" in page.locator("#inspection [role=alert]").inner_text()
        upload(page, "empty.jpg", b"")
        assert "the file is empty" in page.locator("#inspection [role=alert]").inner_text()
        upload(page, "large.jpg", bytes((32 << 20) + 1))
        assert "large.jpg: more than 32 MB" in page.locator("#inspection [role=alert]").inner_text()

        vectors.write_index(opened, run / "index")
        upload(page, "again.jpg", good)
        assert page.locator("#inspection [role=alert]").count() == 0
        assert page.locator("#near figure").count() == 6
        page.locator(".examples button").nth(2).click()
        name = page.locator(".examples button").nth(2).inner_text()
        page.wait_for_selector("#inspection .labels .right")
        assert name in page.locator("#inspection .labels .right").inner_text()
        assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
        page.set_viewport_size(dict(zip(("width", "height"), browser.PHONE, strict=True)))
        assert page.evaluate("document.documentElement.scrollWidth") <= browser.PHONE[0]

        assert heard.console == [] and heard.errors == []
        assert [one for one in heard.requests if not one.startswith((url, "data:", "blob:"))] == []
    left = [file for file in (folder / "temporary").rglob("*") if file.is_file() and "demo" in str(file.parent)]
    assert left == [], "uploads are deleted"
    said = (folder / "err").read_text()
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if line.startswith("NETWORK") and "127.0.0.1" not in line] == []
