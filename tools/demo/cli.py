"""`alexnet-demo`: a page on this machine on which a net is tried with photos.

In:  a run, what the user typed.  Out: a web server, until Ctrl-C.
Gradio is an optional extra; `demo_page.py` imports it, when it is known to be there.
"""

import errno
import importlib.util
import ipaddress
import os
import socket
import tempfile
from pathlib import Path

import click

from ...pipeline.errors import UsageError
from .. import console, options

INSTALL = "pip install 'alexnet-dali[demo]'"
SECONDS_LEFT = 2  # for answers under way when the server is stopped


@click.command(context_settings=options.SETTINGS)
@click.argument("run", type=options.PATH)
@options.run_shards
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0: any that is free.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on: this machine's alone.")
@options.index_folder
@options.device
def demo(run, shards, port, host, index_folder, device):
    """Try RUN's net on a page: drop a photo, see the crop, ten views, five labels, neighbours and first layer.

    The page is served to this machine alone and asks nothing of any other. Photos that are dropped on it are deleted
    when they are read. The neighbours want alexnet-figures index RUN. Ctrl-C ends it.

    \b
    Examples:
      alexnet-demo runs/source2012
      alexnet-demo runs/source2012 --port 8000 --device cpu
    """
    if importlib.util.find_spec("gradio") is None:
        raise UsageError("alexnet-demo needs Gradio, which is not installed", INSTALL)
    with listening(host, port) as listener:  # first: a net takes seconds to read
        from ..figures.open_run import open_run
        from .inspect import Inspector

        opened = open_run(run, shards, device)
        recipe, classes = opened.trained.recipe, len(opened.shard_set.classes)
        about = f"{run.resolve().name}: {recipe.name}, {classes:,} classes, on {opened.device.type}"
        with tempfile.TemporaryDirectory(prefix="alexnet-demo-") as uploads:
            serve(Inspector(opened, index_folder), Path(uploads), about, listener, host)


def main() -> None:
    """The console script."""
    console.ensure_utf8()
    console.run(demo)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; before anything slow is done.

    Raises:
        UsageError: the port is in use or not for us, or there is no such address.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=64)
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: {error.strerror}", "leave out --host to serve this machine") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} of {host} is in use, perhaps by another alexnet-demo",
                f"choose another: --port {port + 1 if port < 65535 else 0}, or --port 0 for any that is free",
            ) from None
        raise UsageError(
            f"cannot listen on port {port} of {host}: {os.strerror(error.errno or 0)}",
            "leave out --host and --port, or choose a port above 1023",
        ) from None


def serve(looker, uploads: Path, about: str, listener: socket.socket, host: str) -> None:
    """Serve the page until SIGINT or SIGTERM."""
    import uvicorn

    from ..process import stop_on_signals
    from .page import make_app

    app = make_app(looker, uploads, about)
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=SECONDS_LEFT, ws="none")
    port = listener.getsockname()[1]
    if not loopback(host):
        click.echo(f"{host}: whoever reaches this machine can use the page", err=True)
    click.echo(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    click.echo("Ctrl-C ends it", err=True)
    with stop_on_signals():  # uvicorn hands a signal on when it has finished
        uvicorn.Server(config).run(sockets=[listener])
    click.echo("stopped", err=True)


def loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
