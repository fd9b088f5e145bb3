"""A real Chromium without a window, for tests of pages; found on this machine, never downloaded.

In:  a page's file.  Out: what a person would see, and all that the page tried to load.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE, DESKTOP = (390, 844), (1280, 900)  # pixels of a window


def missing() -> str:
    """Why no browser can be driven here; "" where one can."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install -e '.[dev]'"
    return "" if executable() else "no Chromium is installed: apt-get install chromium"


def executable() -> str | None:
    """The browser's program."""
    return next((found for found in map(shutil.which, NAMES) if found), None)


@dataclass
class Heard:
    """What a page did beside showing itself: lines of its console, errors of its scripts, addresses it asked for."""

    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def remote(self) -> list[str]:
        """Addresses that are neither the page's own file nor data within it."""
        return [one for one in self.requests if not one.startswith(("file:", "data:", "blob:"))]


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser that cannot reach any network."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to be root's otherwise
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable(), args=[*arguments, "--host-resolver-rules=MAP * ~NOTFOUND"]
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, file: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Iterator[Any]:
    """A page from its file, and a `Heard` of what it did; remote addresses are refused."""
    heard = Heard()
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    try:
        page = context.new_page()
        page.on("console", lambda message: heard.console.append(message.text))
        page.on("pageerror", lambda error: heard.errors.append(str(error)))
        page.on("request", lambda request: heard.requests.append(request.url[:200]))
        page.on("requestfailed", lambda request: heard.failed.append(request.url[:200]))
        page.route("**/*", lambda route: route.continue_() if _local(route.request.url) else route.abort())
        page.goto(file.absolute().as_uri(), wait_until="load")
        yield page, heard
    finally:
        context.close()


def _local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:"))
