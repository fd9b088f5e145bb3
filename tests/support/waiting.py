"""A limit for what would wait for ever: a pipe that nobody writes to."""

import signal
from contextlib import contextmanager


@contextmanager
def waiting_at_most(seconds: int):
    """Raise a TimeoutError in a block of the main thread that takes longer."""

    def late(*_):
        raise TimeoutError(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
