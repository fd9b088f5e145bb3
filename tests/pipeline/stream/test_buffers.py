"""The pool of buffers: reuse, growth, waiting, a limit of spare ones, several threads at once."""

import threading

import numpy as np
from alexnet_dali.pipeline.stream.buffers import Buffers


def test_buffers_wait_for_their_last_reader_and_grow():
    buffers, waited = Buffers(), []
    first = buffers.take(10)
    second = buffers.take(10)
    assert not np.shares_memory(first, second)
    buffers.give(first, lambda: waited.append(1))
    buffers.give(second)
    assert waited == []
    assert buffers.take(10) is first and waited == [1]
    assert len(buffers.take(50)) >= 50  # the second was too small
    assert buffers.made == 2


def test_buffers_begin_with_a_cache_line():
    buffers = Buffers()
    for size in (1, 100, 1 << 20):
        buffer = buffers.take(size)
        assert buffer.ctypes.data % 64 == 0 and len(buffer) >= size
        buffer[:] = 1


def test_only_so_many_spare_ones_are_kept_and_none_after_closing():
    buffers = Buffers(spare=2)
    taken = [buffers.take(10) for _ in range(5)]
    for buffer in taken:
        buffers.give(buffer)
    assert [buffers.take(10) is buffer for buffer in taken] == [True, True, False, False, False]
    buffers.give(taken[0])
    buffers.close()
    buffers.give(taken[1])
    assert not any(buffers.take(10) is buffer for buffer in taken)


def test_threads_never_have_the_same_buffer():
    buffers, wrong = Buffers(), []

    def use(number):
        for _ in range(3000):
            buffer = buffers.take(8)
            buffer[:8] = number
            if not (buffer[:8] == number).all():
                wrong.append(number)
            buffers.give(buffer)

    threads = [threading.Thread(target=use, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and buffers.made <= 4
