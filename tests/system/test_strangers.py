"""Checkpoints from strangers: refused with the reason by every command that reads one, and nothing in them is run."""

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from alexnet_dali.model.training import checkpoint
from alexnet_dali.pipeline.errors import AlexnetError, TrainingError
from alexnet_dali.tools import console
from alexnet_dali.tools.evaluate import evaluate_runs
from alexnet_dali.tools.train import tracking
from alexnet_dali.tools.train.cli import train
from alexnet_dali.tools.weights import weights
from faults import SHORT, SMALL, small_shards
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return small_shards(tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def trained(few, tmp_path_factory):
    """A run stopped after its first step of two."""
    run = tmp_path_factory.mktemp("trained") / "run"
    assert code_of(train, "--shards", few.root, "--run", run, *SMALL, *SHORT, "--steps", 1) == 0
    return run


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def sound(trained):
    """The bytes of a sound checkpoint."""
    return (trained / "last.pt").read_bytes()


def code_of(command, *arguments):
    with pytest.raises(SystemExit) as left:
        console.run(command, [str(argument) for argument in arguments])
    return left.value.code


@pytest.fixture
def refused(few, run, capfd):
    """Give a file to each command that reads checkpoints; return what they say, once, the file's name left out."""

    def refuse(content, name="last.pt"):
        file = run / name
        if content is not None:
            file.unlink(missing_ok=True)
            file.write_bytes(content)
        said = set()
        commands = [
            (evaluate_runs, file, "--device", "cpu"),
            (train, "--shards", few.root, "--run", run.parent / "new", *SMALL, *SHORT, "--init-from", file),
        ]
        if name == "last.pt":
            commands.append((train, "--run", run, "--resume", "--device", "cpu", "--steps", 2))
        for command, *arguments in commands:
            capfd.readouterr()
            code = code_of(command, *arguments)
            err = capfd.readouterr().err
            lines = err.splitlines()
            assert code == 1 and "Traceback" not in err and len(lines) == 2, (arguments, err)
            assert lines[0].startswith(f"error: {file}: ") and lines[1].startswith("  try: "), err
            said.add(lines[0].removeprefix(f"error: {file}: "))
        assert not (run.parent / "new" / "last.pt").exists()
        return " | ".join(sorted(said))

    return refuse


def spans(data):
    """Where what lies in a checkpoint: (first, end) of its local headers, padding, pickle, tensors, directory, end."""
    found: dict[str, list[tuple[int, int]]] = {kind: [] for kind in ("header", "padding", "pickle", "tensor", "text")}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for part in archive.infolist():
            name, extra = struct.unpack("<HH", data[part.header_offset + 26 : part.header_offset + 30])
            at = part.header_offset + 30 + name
            found["header"].append((part.header_offset, at))
            found["padding"].append((at, at + extra))
            kind = "pickle" if part.filename.endswith(".pkl") else "tensor" if "/data/" in part.filename else "text"
            found[kind].append((at + extra, at + extra + part.file_size))
        directory = archive.start_dir
    end = data.rindex(b"PK\x05\x06")
    found["directory"], found["end"] = [(directory, end)], [(end, len(data))]
    return found


def same(one, two):
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return type(one) is type(two) and one == two


# --- damage -----------------------------------------------------------------------------------------------------------


def test_cut_off_anywhere_it_is_refused(run, sound, refused):
    """After each part's header, within and after it; in the directory; by its last byte."""
    kinds = spans(sound)
    edges = sorted({place for kind in kinds.values() for span in kind for place in span})
    cuts = {0, 1, *edges[:: len(edges) // 40], *range(edges[-2], edges[-1], 5), len(sound) - 1} - {len(sound)}
    for cut in sorted(cuts):
        (run / "last.pt").unlink()
        (run / "last.pt").write_bytes(sound[:cut])
        with pytest.raises(TrainingError, match="damaged, or not a checkpoint"):
            checkpoint.load(run / "last.pt")
    for cut in (0, len(sound) // 2, len(sound) - 1):
        assert "damaged, or not a checkpoint" in refused(sound[:cut])


@pytest.mark.parametrize("kind", ["header", "padding", "pickle", "tensor", "text", "directory", "end"])
def test_a_flipped_bit_of_every_kind_is_refused_or_changes_nothing(run, sound, refused, kind):
    random, seen, expected = np.random.default_rng(0), 0, checkpoint.load(run / "last.pt")
    places = [k for first, end in spans(sound)[kind] for k in {*range(first, min(end, first + 60)), end - 1} if k < end]
    for place in random.choice(places, min(len(places), 25), replace=False):
        flipped = bytearray(sound)
        flipped[place] ^= 1 << int(random.integers(8))
        (run / "last.pt").unlink()
        (run / "last.pt").write_bytes(flipped)
        try:
            assert same(checkpoint.load(run / "last.pt"), expected), place
        except TrainingError:
            seen += 1
            last = bytes(flipped)
    assert seen or kind in ("padding", "text")
    if kind in ("pickle", "tensor", "text"):
        assert seen == min(len(places), 25)
    if seen:
        assert "damaged, or not a checkpoint" in refused(last)


# --- malice -----------------------------------------------------------------------------------------------------------


class Bomb:
    """Unpickled, it runs a command."""

    def __init__(self, call, *given):
        self.call, self.given = call, given

    def __reduce__(self):
        return self.call, self.given


def packed(value, **more):
    file = io.BytesIO()
    torch.save(value, file, **more)
    return file.getvalue()


def bombs(marker):
    """Files that make a marker where they are unpickled; by what they are."""
    shell = Bomb(os.system, f"touch {marker}")
    ours = {"format": checkpoint.FORMAT, "version": 1, "config": {"device": "cpu"}}
    yield "pickle", pickle.dumps(shell)
    yield "the oldest pickle", pickle.dumps(shell, protocol=0)
    yield "torch", packed(shell)
    yield "torch's old form", packed(shell, _use_new_zipfile_serialization=False)
    yield "in ours", packed({**ours, "model": {"conv1.weight": torch.zeros(2)}, "x": [shell]})
    yield "as a key's value deep down", packed({**ours, "stats": {"mean_image": (1, [{"a": shell}])}})
    yield "eval", packed({**ours, "x": Bomb(eval, f"__import__('os').system('touch {marker}')")})
    yield "exec", packed({**ours, "x": Bomb(exec, f"open({str(marker)!r}, 'w')")})
    yield "open", packed({**ours, "x": Bomb(open, str(marker), "w")})
    yield "subprocess", packed({**ours, "x": Bomb(subprocess.call, ["touch", str(marker)])})
    yield "a module's loader", packed({**ours, "x": Bomb(torch.hub.load, str(marker.parent), "x")})
    whole = packed({**ours, "x": 1})
    swapped = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive, zipfile.ZipFile(swapped, "w") as other:
        for part in archive.infolist():
            data = pickle.dumps(shell, protocol=2) if part.filename.endswith("data.pkl") else archive.read(part)
            other.writestr(part.filename, data)
    yield "data.pkl exchanged", swapped.getvalue()
    scripted = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), scripted)
    yield "TorchScript", scripted.getvalue()


def test_no_bomb_goes_off(refused, tmp_path):
    marker = tmp_path / "marker"
    count = 0
    for what, content in bombs(marker):
        assert "not a checkpoint" in refused(content), what
        assert not marker.exists(), what
        count += 1
    assert count == 13
    pickle.loads(next(bombs(marker))[1])  # the bomb is live
    assert marker.exists()


def test_a_zip_bomb_is_refused_and_never_unpacked(refused, sound):
    """384 MB of zeros in less than one: torch writes nothing compressed, so what is compressed is not ours."""
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(sound)) as archive, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as other:
        for part in archive.infolist():
            if not part.filename.endswith("/data/0"):
                other.writestr(part.filename, archive.read(part))
                continue
            with other.open(part.filename, "w", force_zip64=True) as unpacked:
                for _ in range(96):
                    unpacked.write(bytes(1 << 22))
    before = peak()
    assert "is compressed, and was not written by torch.save" in refused(content.getvalue())
    assert peak() - before < 200 << 20


def peak():
    """Bytes that this process has had in memory at most."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def test_tensors_that_claim_more_than_there_is_are_refused(refused):
    """The pickle says how long a tensor is; believed, it would be read beyond its end."""
    whole = packed({"format": checkpoint.FORMAT, "version": 1, "a": torch.arange(10.0)})
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive, zipfile.ZipFile(content, "w") as other:
        for part in archive.infolist():
            data = archive.read(part)
            if part.filename.endswith("data.pkl"):
                assert data.count(b"K\x0a") == 2  # the storage's and the tensor's
                data = data.replace(b"K\x0a", b"J" + (100_000_000).to_bytes(4, "little"))
            other.writestr(part.filename, data)
    assert "damaged, or not a checkpoint" in refused(content.getvalue())


# --- honest files of something else -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\x00" * 4096, b"%PDF-1.7 ...", b"\xff\xd8\xff\xe0JFIF", b"{}"], ids=repr)
def test_files_of_other_kinds_are_refused(refused, content):
    assert "damaged, or not a checkpoint" in refused(content)


def test_other_programs_checkpoints_and_newer_ones_are_refused(refused):
    assert refused(packed({"state_dict": {"conv1.weight": torch.zeros(2)}})) == "not a checkpoint of alexnet-train"
    assert refused(packed([torch.zeros(2)])) == "not a checkpoint of alexnet-train"
    newer = packed({"format": checkpoint.FORMAT, "version": 2, "something": "else"})
    assert refused(newer) == "version 2, this program reads version 1"


def test_a_safetensors_whose_header_lies_is_refused(trained, run, refused):
    """Longer than the file, no JSON, a tensor beyond the end, overlapping, of another shape, without our metadata."""
    assert code_of(weights, "export", trained, "--to", run.parent / "export") == 0
    whole = (run.parent / "export" / "model.safetensors").read_bytes()
    shutil.copy(run.parent / "export" / "statistics.safetensors", run)
    size = int.from_bytes(whole[:8], "little")
    header, body = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    names = [name for name in header if name != "__metadata__"]

    def lying(change):
        other = json.loads(json.dumps(header))
        change(other)
        text = json.dumps(other).encode()
        return len(text).to_bytes(8, "little") + text + body

    lies = [
        (1 << 62).to_bytes(8, "little") + whole[8:],
        len(whole).to_bytes(8, "little") + whole[8:],
        (8).to_bytes(8, "little") + whole[8:],
        lying(lambda other: other[names[0]].update(data_offsets=[0, 1 << 40])),
        lying(lambda other: other[names[0]].update(data_offsets=other[names[1]]["data_offsets"])),
        lying(lambda other: other[names[0]].update(shape=[1 << 31, 1 << 31])),
        lying(lambda other: other[names[0]].update(dtype="F64")),
        lying(lambda other: other[names[0]].update(dtype="../x")),
        lying(lambda other: other.pop("__metadata__")),
        lying(lambda other: other["__metadata__"].update(classes='["a"]')),
        lying(lambda other: other["__metadata__"].update(version="2")),
    ]
    for content in lies:
        said = refused(content, "model.safetensors")
        assert any(told in said for told in ("damaged", "not written by alexnet-weights", "this program reads")), said


# --- our form, with other things in it --------------------------------------------------------------------------------

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
    st.just("x"), st.lists(st.integers(-3, 3), max_size=3), st.just(torch.zeros(2)), st.just({"a": 1}),
)  # fmt: skip


def exchanged(few, trained, plain, data):
    """Any one value, left out or of another type or size: two lines, or a run like another; never a traceback."""
    saved = plain(trained / "last.pt")
    where, path = saved, [data.draw(st.sampled_from(sorted(saved.keys() - {"format", "version"})))]
    while isinstance(where[path[-1]], dict) and where[path[-1]] and data.draw(st.booleans()):
        where = where[path[-1]]
        path.append(data.draw(st.sampled_from(sorted(where))))
    value = data.draw(VALUES)
    if data.draw(st.booleans()):
        where[path[-1]] = value
    else:
        del where[path[-1]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "load", lambda path: saved)  # how it is read is another test's affair
        commands = [
            (evaluate_runs, trained, "--device", "cpu", "--shards", few.root),
            (train, "--run", trained, "--resume", "--device", "cpu", "--steps", 1),
        ]
        new = trained.parent / "new"
        if path[0] == "model":  # nothing else of it is looked at
            commands.append(
                (train, "--shards", few.root, "--run", new, *SMALL, *SHORT, "--steps", 1, "--init-from", trained)
            )
        for command, *arguments in commands:
            try:
                command.main([str(argument) for argument in arguments], standalone_mode=False)
            except AlexnetError as error:
                assert error.message, (path, error)
            shutil.rmtree(new, ignore_errors=True)


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_a_value_is_exchanged_for_it_is_refused_or_trained_on(few, trained, plain, data):
    exchanged(few, trained, plain, data)


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("STRANGERS", "60")), suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_more_values_are_exchanged(few, trained, plain, data):
    exchanged(few, trained, plain, data)


@pytest.fixture
def plain(monkeypatch):
    """Read a checkpoint; TensorBoard is absent meanwhile."""
    find_spec = tracking.importlib.util.find_spec
    monkeypatch.setattr(
        tracking.importlib.util,
        "find_spec",
        lambda name, *more: None if name == "tensorboard" else find_spec(name, *more),
    )
    return checkpoint.load
