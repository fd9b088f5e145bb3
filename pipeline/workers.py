"""A pool of worker processes that never outlive their parent.

In:  a number.  Out: a `concurrent.futures` executor, for build.py and stats.py among others.
Spawned, not forked: an open LMDB environment must not cross a fork. A worker ends with its parent, also where that is
killed, and Ctrl-C ends all of them at once: unfinished shards are started anew by the next run.
"""

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait

from .errors import UsageError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
MOST_A_CORE, ALWAYS = 16, 64  # processes; each takes 100 MB, and more than one a core can wait for a slow disk
_LAST_SECONDS = 5.0  # that idle workers have to exit before they are killed


def available_cores() -> int:
    """Return the number of cores this process may use; in a container fewer than the machine's."""
    return len(os.sched_getaffinity(0))


class WorkerPool(ProcessPoolExecutor):
    """An executor that knows which of its processes were killed."""

    processes: tuple[multiprocessing.process.BaseProcess, ...] = ()

    def killed(self) -> list[int]:
        """List the ids of processes ended by a signal other than SIGTERM, which the pool sends to the survivors."""
        for process in self.processes:
            process.join(1)
        codes = {process.pid: process.exitcode for process in self.processes}
        return [pid for pid, code in codes.items() if pid and code not in (None, 0, -signal.SIGTERM)]


@contextmanager
def worker_pool(workers: int = 0):
    """Yield an executor of `workers` processes.

    Args:
        workers: number of processes; 0, one for each core.
    Yields:
        a `concurrent.futures` executor of spawned processes; they end with the block.
    Raises:
        UsageError: more than 16 for each core, and more than 64.
        OSError: the system has no semaphores, in a sandbox for instance.
    Example:
        with worker_pool() as pool:
            stats = measure_stats(shard_set, pool)
    """
    count, most = workers or available_cores(), max(ALWAYS, MOST_A_CORE * available_cores())
    if count > most:
        raise UsageError(f"--workers {count}: more than {most} would only use up memory", "omit --workers")
    others = set(multiprocessing.active_children())
    try:
        pool = WorkerPool(
            count, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
        )
    except OSError as error:  # names no file, although semaphores are files in /dev/shm
        raise OSError(error.errno, error.strerror, error.filename or "/dev/shm") from error
    try:
        # A terminal sends Ctrl-C to all processes; the parent alone handles it. Blocked here, SIGINT stays blocked in
        # the children from their first instruction on.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        for _ in range(count):
            pool.submit(os.getpid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        pool.processes = tuple(set(multiprocessing.active_children()) - others)
        yield pool
        _end(pool)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise


def _end(pool: WorkerPool) -> None:
    """End a pool whose work is done, without `shutdown(wait=True)`.

    A worker that was killed while it held the queue's lock leaves the others waiting for ever.
    """
    pool.shutdown(wait=False)
    living = {process.sentinel for process in pool.processes}
    end = time.monotonic() + _LAST_SECONDS
    while living and (left := end - time.monotonic()) > 0:
        living -= set(wait(list(living), timeout=left))
    for process in pool.processes:
        if process.sentinel in living:
            process.kill()


def _begin(parent: int) -> None:
    import cv2

    cv2.setNumThreads(1)  # the processes are the parallelism
    # At once, because the folder's lock is free as soon as the parent is dead: an orphan that still writes could
    # interfere with the next build.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()  # where it died before that call


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
