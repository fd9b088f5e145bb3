"""A Dask cluster of several machines as the executor of `build.py`.

In:  a scheduler's address, `tcp://host:8786`.  Out: a `concurrent.futures` executor.  The workers share a file system
with this process: photos and target have the same paths everywhere, which is checked before any work.
The shard of a worker that dies is built again by another one.
"""

import os
import secrets
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import AlexnetError, ShardError, UsageError
from .build import versions

_CONNECT_SECONDS = 10


@contextmanager
def cluster_pool(address: str, root: Path, out: Path):
    """Yield an executor that runs on a Dask cluster.

    Args:
        address: address of the scheduler.
        root: folder of the photos.
        out: folder of the shard set.
    Raises:
        UsageError: Dask is not installed, or no scheduler answers at the address.
        ShardError: there are no workers, or one cannot access the folders or has other library versions.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UsageError("--scheduler requires Dask", "pip install 'alexnet-dali[dask]'") from None
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {address} ({error})", "start one with: dask scheduler; it prints its address"
        ) from None
    try:
        _check_workers(client, root.resolve(), out.resolve())
        pool = _Cluster(client)
        try:
            yield pool
        finally:
            with suppress(Exception):  # a lost scheduler must not hide the first error
                pool.shutdown()
    finally:
        with suppress(Exception):
            client.close(timeout=_CONNECT_SECONDS)


class _Cluster(Executor):
    """An executor whose lost workers raise BrokenExecutor, as those of `concurrent.futures`."""

    def __init__(self, client):
        self._client = client
        self._versions = versions()
        self._remote: set = set()  # Dask drops a task without a reference to its future

    def submit(self, fn, /, *args, **kwargs) -> Future:
        """Run a function on one of the workers."""
        remote = self._client.submit(_run_alike, self._versions, fn, *args, pure=False, **kwargs)
        self._remote.add(remote)
        local: Future = Future()

        def hand_over(done) -> None:
            _hand_over(done, local)
            self._remote.discard(done)

        remote.add_done_callback(hand_over)
        return local

    def shutdown(self, wait=True, *, cancel_futures=False) -> None:
        """Cancel unfinished tasks."""
        self._client.cancel(list(self._remote))


def _hand_over(remote, local: Future) -> None:
    if not local.set_running_or_notify_cancel():
        return
    if remote.cancelled():  # its result would only log a traceback
        local.set_exception(BrokenExecutor("the scheduler cancelled the task"))
        return
    try:
        result = remote.result()
    except AlexnetError as error:
        local.set_exception(error)
    except Exception as error:
        lost = type(error).__name__ in ("KilledWorker", "CommClosedError", "FutureCancelledError")
        local.set_exception(BrokenExecutor(" ".join(str(error).split())[:300]) if lost else error)
    else:
        local.set_result(result)


def _check_workers(client, root: Path, out: Path) -> None:
    receipts = out / ".build"  # where a leftover of a killed command does no harm
    receipts.mkdir(parents=True, exist_ok=True)
    token = receipts / f"seen-by-workers-{secrets.token_hex(4)}"
    token.touch()
    try:
        found = client.run(_look, str(root), str(token), versions())
    except Exception as error:
        raise ShardError(
            f"the Dask workers cannot run this program ({type(error).__name__}: {error})",
            "install the same alexnet-dali on every worker",
        ) from None
    finally:
        token.unlink()
        with suppress(OSError):
            receipts.rmdir()
    if not found:
        raise ShardError(
            "the Dask scheduler has no workers", "start some: dask worker ADDRESS --nworkers CORES --nthreads 1"
        )
    for worker, (sees_root, sees_out, difference) in found.items():
        if not sees_root or not sees_out:
            raise ShardError(
                f"the Dask worker {worker} cannot access {root if not sees_root else out}",
                "put photos and target on a file system that all workers mount under the same paths",
            )
        if difference:
            raise _unlike(f"the Dask worker {worker}", difference)


def _look(root: str, token: str, here: dict) -> tuple[bool, bool, str]:
    """On a worker: return whether both paths exist, and how its library versions differ."""
    return os.path.exists(root), os.path.exists(token), _difference(here)


def _run_alike(here: dict, work, *args, **kwargs):
    """On a worker, which may have joined after the check: run the job if its libraries are the same."""
    import cv2

    if difference := _difference(here):
        raise _unlike(f"the Dask worker on {os.uname().nodename}", difference)
    cv2.setNumThreads(1)  # the processes are the parallelism
    return work(*args, **kwargs)


def _difference(here: dict[str, str]) -> str:
    there = versions()
    names = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    return ", ".join(f"{name} {there.get(name)} instead of {here.get(name)}" for name in names)


def _unlike(who: str, difference: str) -> ShardError:
    return ShardError(f"{who} has {difference}", "install the same versions everywhere: others may produce other bytes")
