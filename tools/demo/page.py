"""The page of alexnet-demo: Gradio wired to what looks at photos. No other file imports Gradio.

In:  a Looker.  Out: an ASGI application that speaks to nobody but the browser that asks.
Uploads are deleted as soon as they are read; pictures of answers stand in the answers.
"""

import os
from pathlib import Path
from typing import Any

from ...pipeline.errors import AlexnetError, UsageError
from . import html as demo_html
from .guard import AGE, Uploads, guard
from .inspect import Inspector

MOST_BYTES = 32 << 20  # of a photo; ImageNet's largest has 15 MB, a telephone's 20
MOST_SENT = 4 * MOST_BYTES  # what Gradio takes at all; its own refusal is a message that soon fades, ours stays
WAITING = 16  # photos in the queue; who comes later is told so
SWEEP = 60  # seconds between two looks for files that an interrupted upload left
SPLIT = "val"
CHOOSE = """element.addEventListener('click', event => {
  const button = event.target.closest('button[data-record]');
  if (button) trigger('click', {record: Number(button.dataset.record)});
});"""
SHOW = "() => document.getElementById('looked').scrollIntoView({behavior: 'smooth', block: 'start'})"
CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
#title h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
#title p { margin: 0; overflow-wrap: anywhere; }
#title p, .looked p, .looked .file span, .looked small {
  color: color-mix(in srgb, var(--body-text-color) 76%, transparent); }
.examples { display: grid; grid-template-columns: repeat(8, 1fr); gap: 10px; }
.examples button { margin: 0; display: flex; flex-direction: column; overflow: hidden; padding: 0; cursor: pointer;
  border: 1px solid var(--border-color-primary); border-radius: 8px; background: var(--background-fill-primary);
  color: inherit; font-size: .8rem; font-weight: 400; }
.examples button:hover, .examples button:focus-visible { outline: 2px solid #1f6f5c; }
.examples img { width: 100%; aspect-ratio: 1; object-fit: cover; display: block; margin: 0; }
.examples span { width: 100%; padding: 4px 6px; text-align: center; overflow-wrap: anywhere; }
.looked section { margin: 2rem 0 0; }
.looked h2 { font-size: 1.2rem; margin: 0 0 .6rem; }
.looked p { margin: .6rem 0 0; max-width: 46rem; line-height: 1.5; }
.looked p.file { margin-top: 1rem; overflow-wrap: anywhere; }
.looked strong { color: var(--body-text-color); }
.looked figure { margin: 0; min-width: 0; }
.looked img { display: block; max-width: 100%; height: auto; margin: 0; border-radius: 4px; }
.looked figcaption { font-size: .8rem; line-height: 1.35; margin-top: 4px; overflow-wrap: anywhere; }
.looked ol.labels { list-style: none; margin: 0; padding: 0; max-width: 46rem; }
.looked .labels li { display: grid; grid-template-columns: 1fr auto; gap: 3px 12px; margin: 0 0 .55rem; }
.looked .labels .name { overflow-wrap: anywhere; }
.looked .labels .share { font-variant-numeric: tabular-nums; }
.looked .labels .bar { grid-column: span 2; height: 8px; border-radius: 4px; overflow: hidden;
  background: var(--border-color-primary); }
.looked .labels i { display: block; height: 100%; background: #6f8794; }
.looked .labels .right { font-weight: 600; }
.looked .labels .right i { background: #c2452d; }
.looked .crop { display: flex; flex-wrap: wrap; gap: 20px; align-items: flex-start; }
.looked .crop figure { max-width: min(100%, 560px); }
.looked .crop img { max-height: 380px; width: auto; }
.looked .views { display: grid; grid-template-columns: repeat(5, 1fr); gap: 12px; }
.looked .near { display: grid; grid-template-columns: repeat(6, 1fr); gap: 12px; }
.looked .views img, .looked .near img { width: 100%; }
.looked .other { color: #c2452d; }
.dark .looked .other { color: #f0806a; }
.looked .layer { display: grid; grid-template-columns: repeat(6, 1fr); gap: 14px 16px; }
.looked .layer figure { display: grid; grid-template-columns: 4fr 5fr; gap: 0 5px; align-items: end; }
.looked .layer figcaption { grid-column: span 2; }
.looked .layer img { width: 100%; border-radius: 0; image-rendering: pixelated; }
.looked details { margin-top: .8rem; }
.looked details img { width: 100%; margin-top: .5rem; border-radius: 0; }
.looked summary { cursor: pointer; }
.looked .note { border-left: 3px solid #a8741a; padding-left: .7rem; overflow-wrap: anywhere; }
.said { border-left: 4px solid #c2452d; padding: .6rem 1rem; margin-top: 1rem; overflow-wrap: anywhere;
  background: var(--background-fill-secondary); }
.said p { margin: .3rem 0 0; }
@media (max-width: 760px) {
  .examples { grid-template-columns: repeat(4, 1fr); gap: 6px; }
  .examples button { font-size: .72rem; }
  .examples span { padding: 3px 1px; }
  .looked .views, .looked .layer { grid-template-columns: repeat(2, 1fr); }
  .looked .near { grid-template-columns: repeat(3, 1fr); }
  .looked .crop img { max-height: 300px; }
}
"""


def make_app(looker: Inspector, uploads: Path, about: str):
    """Make the application.

    Args:
        uploads: a folder of this process alone, for files on their way; sets Gradio's own.
        about: which run this is.
    """
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",
        "GRADIO_TEMP_DIR": str(uploads),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    import gradio as gr
    from fastapi import FastAPI

    examples = looker.examples(SPLIT)
    offered = {record for record, *_ in examples}

    sent = Uploads(uploads)

    def look_at_upload(chosen: dict | None):
        try:
            if not chosen:
                raise UsageError("no photo was chosen", "choose one, or drop it on the field")
            file = Path(chosen["path"])
            data = sent.take(file, MOST_BYTES)
            html = answer(looker, lambda: looker.photo(data, file.name))
        except AlexnetError as error:
            html = demo_html.of_error(error)
        return None, html  # an empty field takes the next photo

    def look_at_example(event: gr.EventData):
        record = event._data.get("record") if isinstance(event._data, dict) else None
        if record not in offered:
            return demo_html.of_error(UsageError(f"{record!r} is not one of the photos shown", "choose one of those"))
        return answer(looker, lambda: looker.record(SPLIT, int(record)))

    with gr.Blocks(title="alexnet-demo", analytics_enabled=False, delete_cache=(SWEEP, AGE)) as blocks:
        gr.HTML(demo_html.title(about), elem_id="title")
        photo = gr.File(label="A photo: drop it here, or choose one", height=150, elem_id="photo")
        chosen = gr.HTML(demo_html.of_examples(examples), js_on_load=CHOOSE, elem_id="examples", visible=bool(examples))
        looked = gr.HTML(elem_id="looked", min_height=120)
        # One net, one photo at a time, whoever asks.
        one: dict[str, Any] = {"concurrency_id": "net", "concurrency_limit": 1, "api_visibility": "private"}
        # Not preprocessed: for each file Gradio would make an empty one beside it, which nobody deletes.
        seen = photo.upload(look_at_upload, photo, [photo, looked], preprocess=False, show_progress_on=looked, **one)
        chosen_seen = chosen.click(look_at_example, None, looked, **one)
        for event in (seen, chosen_seen):  # on a telephone the answer is below what is seen of the page
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
        css=CSS,
    )


def answer(looker: Inspector, look) -> str:
    """What `look` sees, or what it says is wrong, as HTML.

    Args:
        look: returns a Looked.
    """
    try:
        return demo_html.of_looked(look(), looker.opened.names, looker.opened.shard_set)
    except AlexnetError as error:
        return demo_html.of_error(error)
    except MemoryError:
        return demo_html.of_error(UsageError("out of memory: this photo is too large here", "choose a smaller one"))
