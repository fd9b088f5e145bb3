"""The errors that users see: a message, a hint, an exit code.

    AlexnetError            1
    ├── UsageError          2  an invalid option or path
    ├── SourceError         1  the photos
    ├── ShardError          1  the shard set, its manifest, its records
    ├── StatsError          1  mean image and eigenbasis
    ├── PlanError           1  an epoch that cannot be planned
    ├── StreamError         1  the DALI pipeline
    ├── DeviceError         1  a GPU that is missing or incompatible
    └── TrainingError       1  a run: its checkpoint, its configuration, its loss

The message says what is wrong, in which file or record and with which value; the hint says what to do next.
`tools/console.py` turns these into lines on stderr and the exit code.
"""

from collections.abc import Sequence


class AlexnetError(Exception):
    """Base class of all errors that a user, a file or a machine can cause.

    Args:
        message: what is wrong, in which file or record, with which value.
        hint: what to do next; may be empty.
        details: further lines on what was found, if one line cannot say it.
    Attributes:
        exit_code: of a command that ends with this error.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "", details: Sequence[str] = ()):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)

    def __reduce__(self):
        # Exceptions are unpickled from args alone, which would lose hint and details on the way back from a worker.
        return type(self), (self.message, self.hint, self.details)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(AlexnetError):
    """An option or a path is invalid."""

    exit_code = 2


class SourceError(AlexnetError):
    """No photos were found, or none can be read."""


class ShardError(AlexnetError):
    """A shard set is incomplete, damaged or of another version, or a record contradicts its manifest."""


class StatsError(AlexnetError):
    """Statistics are missing, damaged, or of another shard set."""


class PlanError(AlexnetError):
    """An epoch cannot be planned: no records, an impossible crop or share."""


class StreamError(AlexnetError):
    """The DALI pipeline is missing, cannot be built, or was ended by a record."""


class DeviceError(AlexnetError):
    """The requested GPU is missing, or incompatible with the installed packages."""


class TrainingError(AlexnetError):
    """A run's checkpoint, configuration or loss is invalid."""
