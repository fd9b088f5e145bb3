"""The page of alexnet-demo in Gradio. No other file imports Gradio.

In:  an Inspector.  Out: an ASGI application that communicates only with the browser.
Uploads are deleted as soon as they are read; pictures are embedded in the responses.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...pipeline.errors import AlexnetError, UsageError
from . import html
from .guard import AGE, Uploads, guard
from .inspect import Inspection, Inspector

MOST_BYTES = 32 << 20  # of a photo; ImageNet's largest has 15 MB, a phone's 20 MB
MOST_SENT = 4 * MOST_BYTES  # Gradio's limit, higher because its message disappears after a moment and ours stays
WAITING = 16  # photos in the queue; more are rejected with a message
SWEEP = 60  # seconds between two searches for files of interrupted uploads
SPLIT = "val"
CHOOSE = """element.addEventListener('click', event => {
  const button = event.target.closest('button[data-record]');
  if (button) trigger('click', {record: Number(button.dataset.record)});
});"""
SHOW = "() => document.getElementById('inspection').scrollIntoView({behavior: 'smooth', block: 'start'})"


def make_app(inspector: Inspector, uploads: Path, about: str):
    """Make the FastAPI application.

    Args:
        uploads: a temporary folder of this process; Gradio is configured to use it.
        about: a line about the run.
    """
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",
        "GRADIO_TEMP_DIR": str(uploads),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    import gradio as gr
    from fastapi import FastAPI

    examples = inspector.examples(SPLIT)
    offered = {record for record, *_ in examples}

    sent = Uploads(uploads)

    def inspect_upload(chosen: dict | None):
        try:
            if not chosen:
                raise UsageError("no photo was chosen", "choose one, or drop it on the field")
            file = Path(chosen["path"])
            data = sent.take(file, MOST_BYTES)
            return None, render(inspector, lambda: inspector.photo(data, file.name))  # None: empty the field
        except AlexnetError as error:
            return None, html.of_error(error)

    def inspect_example(event: gr.EventData):
        record = event._data.get("record") if isinstance(event._data, dict) else None
        if record not in offered:
            return html.of_error(UsageError(f"{record!r} is not one of the photos shown", "choose one of them"))
        return render(inspector, lambda: inspector.record(SPLIT, int(record)))

    with gr.Blocks(title="alexnet-demo", analytics_enabled=False, delete_cache=(SWEEP, AGE)) as blocks:
        gr.HTML(html.title(about), elem_id="title")
        photo = gr.File(label="A photo: drop it here, or choose one", height=150, elem_id="photo")
        chosen = gr.HTML(html.of_examples(examples), js_on_load=CHOOSE, elem_id="examples", visible=bool(examples))
        result = gr.HTML(elem_id="inspection", min_height=120)
        # One net: one photo at a time, for all users.
        one: dict[str, Any] = {"concurrency_id": "net", "concurrency_limit": 1, "api_visibility": "private"}
        # Without preprocessing, which would create an empty file beside each upload and not delete it.
        uploaded = photo.upload(
            inspect_upload, photo, [photo, result], preprocess=False, show_progress_on=result, **one
        )
        clicked = chosen.click(inspect_example, None, result, **one)
        for event in (uploaded, clicked):  # on a phone the result is below the visible part of the page
            event.then(None, js=SHOW, api_visibility="private")
    blocks.queue(max_size=WAITING, api_open=False)

    app = FastAPI()
    guard(app, sent)
    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        allowed_paths=[],
        show_error=False,
        max_file_size=MOST_SENT,
        ssr_mode=False,
        enable_monitoring=False,
        theme=gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=fonts[0], font_mono=fonts[1]),
        css=(html.TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )


def render(inspector: Inspector, inspect: Callable[[], Inspection]) -> str:
    """Return an inspection, or the error that it raises, as HTML."""
    try:
        return html.of_inspection(inspect(), inspector.opened.names, inspector.opened.shard_set)
    except AlexnetError as error:
        return html.of_error(error)
    except MemoryError:
        return html.of_error(UsageError("out of memory: this photo is too large", "choose a smaller one"))
