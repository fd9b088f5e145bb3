"""`alexnet-demo`: a local web page for trying a net with photos.

In:  a run, command-line values.  Out: a web server, until Ctrl-C.
Gradio is an optional extra; only page.py imports it, after the check here.
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
GRACE = 2  # seconds for requests in progress when the server is stopped


@click.command(context_settings=options.SETTINGS)
@options.version
@click.argument("run", type=options.PATH)
@options.run_shards
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0: any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; the default is only this machine's.")
@options.index_folder
@options.device
def demo(run, shards, port, host, index_folder, device):
    """Try RUN's net on a web page: for a photo, its crop, ten views, five labels, neighbours and first layer.

    The page is served to this machine only and contacts no other. Uploaded photos are deleted once they are read. The
    neighbours require alexnet-figures index RUN. Ctrl-C stops the server.

    \b
    Examples:
      alexnet-demo runs/source2012
      alexnet-demo runs/source2012 --port 8000 --device cpu
    """
    if importlib.util.find_spec("gradio") is None:
        raise UsageError("alexnet-demo needs Gradio, which is not installed", INSTALL)
    with listening(host, port) as listener:  # first: loading a net takes seconds
        from ..figures.open_run import open_run
        from .inspect import Inspector

        opened = open_run(run, shards, device)
        recipe, classes = opened.trained.recipe, len(opened.shard_set.classes)
        about = f"{run.resolve().name}: {recipe.name}, {classes:,} classes, on {opened.device.type}"
        with tempfile.TemporaryDirectory(prefix="alexnet-demo-") as uploads:
            serve(Inspector(opened, index_folder), Path(uploads), about, listener, host)


def main() -> None:
    """Run the console script."""
    console.ensure_utf8()
    console.run(demo)


def listening(host: str, port: int) -> socket.socket:
    """Return a listening socket; called before anything slow.

    Raises:
        UsageError: the port is in use or not permitted, or the address does not exist.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=64)
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: {error.strerror}", "leave out --host to serve only this machine") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} of {host} is in use, perhaps by another alexnet-demo",
                f"choose another: --port {port + 1 if port < 65535 else 0}, or --port 0 for any free port",
            ) from None
        raise UsageError(
            f"cannot listen on port {port} of {host}: {os.strerror(error.errno or 0)}",
            "leave out --host and --port, or choose a port above 1023",
        ) from None


def serve(inspector, uploads: Path, about: str, listener: socket.socket, host: str) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Args:
        inspector: an Inspector.
        uploads: an empty temporary folder.
        about: a line about the run, shown on the page.
    """
    import uvicorn

    from ..process import stop_on_signals
    from .page import make_app

    app = make_app(inspector, uploads, about)
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=GRACE, ws="none")
    port = listener.getsockname()[1]
    if not loopback(host):
        click.echo(f"{host}: everyone who can reach this machine can use the page", err=True)
    click.echo(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    click.echo("press Ctrl-C to stop", err=True)
    with stop_on_signals():  # uvicorn raises the signal again after its shutdown
        uvicorn.Server(config).run(sockets=[listener])
    click.echo("stopped", err=True)


def loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
