"""What can go wrong, as people are told it: one message, one hint, one exit code.

    AlexnetError            1
    ├── UsageError          2  an option, or a path, that cannot be meant
    ├── SourceError         1  the photos
    ├── ShardError          1  the shard set, its manifest, its records
    ├── StatsError          1  mean image and eigenbasis
    ├── PlanError           1  an epoch that cannot be planned
    ├── StreamError         1  the DALI pipeline
    ├── DeviceError         1  a GPU that is not there or does not fit
    └── TrainingError       1  a run: its checkpoint, its configuration, its loss

The message says what is wrong, in which file or record and with which value; the hint says what to do next.
`tools/console.py` turns these into two lines on stderr and the exit code.
"""


class AlexnetError(Exception):
    """The base of every error that a user, a file or a machine can cause."""

    exit_code = 1

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self):
        # Exceptions are rebuilt from args alone, which would lose the hint on the way back from a worker.
        return type(self), (self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(AlexnetError):
    """An option, or a path, that cannot be meant."""

    exit_code = 2


class SourceError(AlexnetError):
    """The photos: none found, none readable."""


class ShardError(AlexnetError):
    """A shard set: incomplete, damaged, of another version, or its record is not what it says."""


class StatsError(AlexnetError):
    """Statistics: missing, damaged, or of another shard set."""


class PlanError(AlexnetError):
    """An epoch that cannot be planned: no records, an impossible crop or share."""


class StreamError(AlexnetError):
    """The DALI pipeline: missing, cannot be built, or ended by a record."""


class DeviceError(AlexnetError):
    """A GPU was asked for that is not there or does not fit the installed packages."""


class TrainingError(AlexnetError):
    """A run: its checkpoint, its configuration or its loss."""
