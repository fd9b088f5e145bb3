"""An error of the system: what lies in the folder was written, what lies elsewhere was read."""

import errno
import os
from pathlib import Path

import pytest
from alexnet_dali.pipeline.errors import AlexnetError
from alexnet_dali.pipeline.files import NotWrittenError, reading, with_final_name


def met(place, error):
    """What an error becomes."""
    with pytest.raises((NotWrittenError, AlexnetError)) as caught, with_final_name(place):
        raise error
    return caught.value


def forbidden(name, *other):
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name), None, *map(str, other))


@pytest.mark.parametrize("path", ["out", "out/train/.00000.csv.part", f"{os.getcwd()}/out/.build/x"])
def test_what_is_in_the_folder_was_written(path):
    error = met(Path("out"), forbidden(path))
    assert type(error) is NotWrittenError and error.filename == path.replace(".00000.csv.part", "00000.csv")


@pytest.mark.parametrize("path", ["photos/cat/1.jpg", "outside/1.jpg", "/net/photos", "out/../photos"])
def test_what_lies_elsewhere_was_read(path):
    error = met(Path("out"), forbidden(path))
    assert isinstance(error, AlexnetError) and error.message == f"{path}: Permission denied"
    assert error.hint == "check that you have read permission, then run the same command again"


@pytest.mark.parametrize("path", ["out/train/00000.csv", "out/.build/00000.at", "out/train"])
def test_of_a_shard_its_whole_set_is_written(path):
    place = Path("out/train/00000.lmdb")
    assert type(met(place, forbidden(path))) is NotWrittenError
    assert isinstance(met(place, forbidden("photos/1.jpg")), AlexnetError)


def test_what_is_known_as_written_is_not_read():
    """A rename, and a file that was named already; and what only a write can meet."""
    for error in (
        forbidden("there", "elsewhere"),
        NotWrittenError(errno.EACCES, "Permission denied", "elsewhere"),
        OSError(errno.ENOSPC, "No space left on device", "elsewhere"),
        OSError(errno.EROFS, "Read-only file system", "elsewhere"),
    ):
        told = met(Path("out"), error)
        assert type(told) is NotWrittenError and (told.errno, told.filename) == (error.errno, "elsewhere")


def test_a_read_that_fails_has_the_name_of_its_file():
    with pytest.raises(AlexnetError) as caught, with_final_name(Path("out")), reading(Path("net/data.mdb")):
        raise OSError(errno.EIO, "Input/output error")
    assert caught.value.message == "net/data.mdb: Input/output error"
    assert caught.value.hint == "check the disk, then run the same command again"
