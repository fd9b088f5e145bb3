"""What the tests of the stall meter run against: a clock, a pipeline that works ahead, a GPU, in seconds of their own.

Each simulation has an oracle that shares no code with it: time passes tick by tick, or a closed form.
"""

import weakref


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def loader_ahead(clock, fetches, ahead, waits=None):
    """Batches 0, 1, 2, ... of a chain of stages that works ahead while the step runs.

    Args:
        fetches: seconds of each stage for each batch: [[disk, decode, ...], ...]. Each stage has one worker.
        ahead: batches that are begun before they are asked for; 0, none.
        waits: a list for each stage's part of the waiting, added to.
    """
    taken: list[float] = []
    free = [clock()] * len(fetches[0])  # when each stage has done its batch before
    for number, stages in enumerate(fetches):
        if ahead == 0:
            done = clock()
        else:
            done = taken[number - ahead] if number >= ahead else free[0]
        for stage, seconds in enumerate(stages):
            done = free[stage] = max(done, free[stage]) + seconds
            if waits is not None:
                waits[stage] += max(0.0, done - clock.now)
            clock.now = max(clock.now, done)
        taken.append(clock.now)
        yield number


def idle_ticks(fetches, steps, ahead):
    """The same pipeline in ticks of a second: how many the training idles before its first batch, and after it."""
    stages = len(fetches[0])
    waits = [[] for _ in range(stages + 1)]  # batches before each stage; before the training
    works = [None] * stages  # in each stage: [batch, ticks left]
    entered = taken = 0
    step = None  # ticks left of it
    idle = [0, 0]
    while True:
        while True:  # all that happens between two ticks
            before = (entered, taken, step, [w and tuple(w) for w in works], [len(each) for each in waits])
            if step == 0:
                step = None
            wanted = step is None  # the training asks for a batch
            limit = taken + (ahead if ahead else 1 if wanted else 0)
            if entered < len(fetches) and entered < limit:
                waits[0].append(entered)
                entered += 1
            for stage in range(stages):
                if works[stage] and works[stage][1] == 0:
                    waits[stage + 1].append(works[stage][0])
                    works[stage] = None
                if works[stage] is None and waits[stage]:
                    batch = waits[stage].pop(0)
                    works[stage] = [batch, fetches[batch][stage]]
            if wanted and waits[stages]:
                step = steps[waits[stages].pop(0)]
                taken += 1
            if before == (entered, taken, step, [w and tuple(w) for w in works], [len(each) for each in waits]):
                break
        if taken == len(fetches):
            return tuple(idle)
        if step is None:
            idle[taken > 0] += 1
        else:
            step -= 1
        for work in works:
            if work and work[1]:
                work[1] -= 1


def expected_stall(stages, step, ahead):
    """The stall, in percent, of a steady pipeline with one worker a stage and equal batches.

    Nothing ahead: all is seen. One batch: its stages follow each other while the step runs. A batch for every stage
    and one more: the slowest stage alone can be seen.
    """
    if ahead == 0:
        return 100 * sum(stages) / (sum(stages) + step)
    if ahead == 1:
        cycle = max(sum(stages), step)
    else:
        assert ahead > len(stages)
        cycle = max(*stages, step)
    return 100 * (cycle - step) / cycle


class Gpu:
    """A GPU that does what is queued, in order, while the host's clock goes on."""

    def __init__(self, clock):
        self.clock, self._free, self.waits = clock, clock(), 0
        self._marks = weakref.WeakSet()

    def queue(self, seconds):
        """Queue work."""
        self._free = max(self._free, self.clock()) + seconds

    def wait(self):
        """Let the host wait until all is done."""
        self.waits += 1
        self.clock.now = max(self.clock.now, self._free)

    def mark(self):
        """Queue a mark, as an event that is recorded."""
        self._free = max(self._free, self.clock())
        mark = Mark(self.clock, self._free)
        self._marks.add(mark)
        return mark

    def living(self):
        """Marks that somebody still holds."""
        return len(self._marks)


class Mark:
    """A moment in the queue of a Gpu."""

    def __init__(self, clock, at):
        self._clock, self._at = clock, at

    def query(self):
        """Whether the GPU has passed it."""
        return self._clock() >= self._at

    def elapsed_time(self, later):
        """Milliseconds to a later one; both must have been passed."""
        assert self.query() and later.query()
        return 1000 * (later._at - self._at)
