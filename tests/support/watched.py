"""What Python does to the world: files opened to be written, made, renamed, removed; programs run; addresses asked.

In:  a process and its children, through `environment`; or this process, while `watch` is entered.
Out: what was done, as (what, to whom), in order. An audit hook sees it, whether it then succeeds or not. C code (LMDB,
DALI) has none: what it could write or ask is compared from outside.
"""

import ast
import glob
import os
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {  # event: which of its arguments are paths, and where the folders that they are relative to stand
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
    "os.mkdir": ((0, 2),),
    "os.rmdir": ((0, 1),),
    "os.remove": ((0, 1),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.truncate": ((0, None),),
    "os.utime": ((0, 3),),
    "os.setxattr": ((0, None),),
}
_ASKED = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request", "http.client.connect"}
_SENT = {"socket.connect", "socket.sendto", "socket.bind"}
RUN = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn"}
LOOPBACK = ("127.0.0.1", "::1")
NETWORK = _ASKED | _SENT
UNPICKLED = "pickle.find_class"


def _deeds(event, arguments):
    """What an event of Python's is, in pairs of our own."""
    if event == "open":
        path, _, flags = arguments
        if flags & _WRITING and not isinstance(path, int):
            yield "open", _whole(path)
    elif event in _PATHS:
        for at, folder in _PATHS[event]:
            if not isinstance(arguments[at], int):
                yield event, _whole(arguments[at], arguments[folder] if folder else -1)
    elif event in _SENT:
        address = arguments[-1]
        if isinstance(address, (str, bytes)) or (event == "socket.bind" and address[0] in LOOPBACK):
            return  # another process of this machine; or whether there is an IPv6, as urllib3 finds out
        yield event, str(address)
    elif event in _ASKED or event in RUN:
        yield event, str(arguments[:2])
    elif event == UNPICKLED:
        yield event, ".".join(map(str, arguments))


def _whole(path, folder=-1):
    name = os.fsdecode(path)
    with suppress(OSError):
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}") if folder > 2 else os.getcwd(), name)
    return name


def install(tell):
    """Have a function told of every deed of this process from now on, for good."""

    def hook(event, arguments):
        if event == "open" or event in _PATHS or event in NETWORK or event in RUN or event == UNPICKLED:
            for what, whom in _deeds(event, arguments):
                tell(what, whom)

    sys.addaudithook(hook)


def environment(folder: Path, log: Path, more: str = "") -> dict[str, str]:
    """What a process needs in its environment, so that it and all its children write to `log`.

    Args:
        folder: for a sitecustomize.
        more: what else is done in it.
    """
    folder.mkdir(exist_ok=True)
    log.touch()
    log.chmod(0o666)
    (folder / "watching.py").write_bytes(Path(__file__).read_bytes())
    (folder / "sitecustomize.py").write_text(f"import watching\nwatching.to_file({os.fsencode(log)!r})\n{more}")
    return {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}", "PYTHONDONTWRITEBYTECODE": "1"}


def to_file(log):
    """Write all deeds of this process to a file."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND)

    def tell(*deed):
        with suppress(OSError):
            os.write(handle, ascii(deed).encode() + b"\n")

    install(tell)


def read(log: Path) -> list[tuple[str, str]]:
    """The deeds in a file."""
    return [ast.literal_eval(line) for line in log.read_text().splitlines()]


_hooked: list[bool] = []
_lists: list[list] = []  # the one that grows at present; an audit hook stays for good


@contextmanager
def watch():
    """Yield the list of this process's deeds, that grows."""
    if not _hooked:
        install(lambda *deed: _lists[-1].append(deed) if _lists else None)
        _hooked.append(True)
    _lists.append([])
    try:
        yield _lists[-1]
    finally:
        _lists.pop()


def outside(deeds, *folders) -> list[tuple[str, str]]:
    """Of what was written, made, renamed or removed: what is neither in one of these folders nor a null device.

    Nor torch's folder for what it compiles, which an import makes among the temporary files.
    """
    inside = [os.path.normpath(folder) for folder in folders]
    inside += glob.glob(os.path.join(tempfile.gettempdir(), "torchinductor_*"))

    def within(path):
        whole = os.path.normpath(path)
        return whole == os.devnull or any(whole == one or whole.startswith(one + os.sep) for one in inside)

    return [deed for deed in deeds if (deed[0] == "open" or deed[0] in _PATHS) and not within(deed[1])]
