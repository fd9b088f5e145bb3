"""CIFAR's files of raw pixels: pictures and labels in place, from pickles of Python 2 that are never unpickled."""

import pickle
import struct
import sys

import numpy as np
import pytest
from alexnet_dali.pipeline.errors import SourceError, UsageError
from alexnet_dali.pipeline.sources.find import find_photos
from alexnet_dali.pipeline.sources.photo import read_photo
from coloured import colour, counted

NAMES = ("airplane", "automobile", "bird", "cat")
BY_NAME = {name: number for number, name in enumerate(NAMES)}


def refused(root, error=SourceError, **options):
    with pytest.raises(error) as caught:
        find_photos(root, **options)
    return caught.value


def pixels(labels, seed=0):
    """Raw pixels as CIFAR has them: a plane for each channel, uint8 (n, 3072)."""
    noise = np.random.default_rng(seed).integers(-9, 10, (len(labels), 3, 1024))
    base = np.array([colour(label) for label in labels])[:, :, None]
    return np.clip(noise + base, 0, 255).astype(np.uint8).reshape(len(labels), -1)


def text(word):
    return b"U" + bytes([len(word)]) + word.encode()


def integer(number):
    return b"K" + bytes([number]) if number < 256 else b"M" + struct.pack("<H", number)


def a_list(items):
    if len(items) == 1:
        return b"]" + items[0] + b"a"
    return b"]" + b"".join(b"(" + b"".join(items[k : k + 3]) + b"e" for k in range(0, len(items), 3))


def array(data, order=b"\x89"):
    """A pickled uint8 array of Python 2: its bytes stand in the file as they are."""
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = integer(data.shape[0]) + integer(data.shape[1]) + b"\x86"
    raw = b"T" + struct.pack("<i", data.size) + data.tobytes()
    return made + b"(K\x01" + shape + kind + order + raw + b"tb"


def a_dict(**values):
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in values.items()) + b"u."


def batch(labels, /, seed=0, key="labels", **more):
    values = {"batch_label": text("training batch"), key: a_list([integer(label) for label in labels])}
    values |= {"data": array(pixels(labels, seed)), "filenames": a_list([text(f"{k}.png") for k in range(len(labels))])}
    return a_dict(**values | more)


def cifar_10(root, binary=False):
    """Five batches of four and a test of three."""
    root.mkdir(parents=True, exist_ok=True)
    batches = {f"data_batch_{k}": [(k + j) % 4 for j in range(4)] for k in range(1, 6)} | {"test_batch": [3, 1, 1]}
    for k, (name, labels) in enumerate(batches.items()):
        if binary:
            rows = np.hstack([np.array(labels, np.uint8)[:, None], pixels(labels, k)])
            (root / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            (root / name).write_bytes(batch(labels, k))
    names = a_list([text(name) for name in NAMES])
    meta = "\n".join(NAMES).encode() + b"\n\n" if binary else a_dict(num_cases_per_batch=integer(4), label_names=names)
    (root / ("batches.meta.txt" if binary else "batches.meta")).write_bytes(meta)
    (root / "readme.html").write_text("<meta>")
    return root


def cifar_100(root, binary=False):
    root.mkdir(parents=True, exist_ok=True)
    for split, labels in (("train", [2, 0, 1, 3, 3]), ("test", [1])):
        coarse = [label // 2 for label in labels]
        if binary:
            rows = np.hstack([np.array([coarse, labels], np.uint8).T, pixels(labels)])
            (root / f"{split}.bin").write_bytes(rows.tobytes())
        else:
            others = a_list([integer(label) for label in coarse])
            (root / split).write_bytes(batch(labels, key="fine_labels", coarse_labels=others))
    fine, rough = (a_list([text(name) for name in some]) for some in (NAMES, ("thing", "being")))
    if binary:
        (root / "fine_label_names.txt").write_text("\n".join(NAMES))
        (root / "coarse_label_names.txt").write_text("thing\nbeing\n")
    else:
        (root / "meta").write_bytes(a_dict(fine_label_names=fine, coarse_label_names=rough))
    return root


def test_the_pickles_of_these_tests_are_pickles(tmp_path):
    cifar_10(tmp_path)
    found = pickle.loads((tmp_path / "data_batch_1").read_bytes(), encoding="latin1")
    assert found["labels"] == [1, 2, 3, 0]
    assert (found["data"] == pixels([1, 2, 3, 0], 0)).all()
    assert pickle.loads((tmp_path / "batches.meta").read_bytes(), encoding="latin1")["label_names"] == [*NAMES]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_cifar_10(tmp_path, binary, wrapped):
    place = cifar_10(tmp_path / ("cifar-10-batches-bin" if binary else "cifar-10-batches-py"), binary)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"?")
    source = find_photos(tmp_path if wrapped else place)
    assert counted(source, BY_NAME) == {"train": dict.fromkeys(NAMES, 5), "test": {"automobile": 2, "cat": 1}}
    assert source.classes == NAMES and source.kind == "CIFAR-10, train, test"


@pytest.mark.parametrize("binary", [False, True])
def test_cifar_100_by_its_fine_labels(tmp_path, binary):
    source = find_photos(cifar_100(tmp_path, binary))
    assert counted(source, BY_NAME) == {"train": dict.fromkeys(NAMES, 1) | {"cat": 2}, "test": {"automobile": 1}}
    assert source.notes[0] == "the classes are the 100 fine ones; the 20 coarse labels are not used"


@pytest.mark.parametrize("binary", [False, True])
def test_every_pixel_is_at_its_place(tmp_path, binary):
    source = find_photos(cifar_10(tmp_path, binary))
    photo = next(one for one in source.splits["test"] if one.path.endswith("/00001.planes"))
    read = np.frombuffer(read_photo(source.root, photo)[len(b"P6 32 32 255\n") :], np.uint8).reshape(32, 32, 3)
    assert (read == pixels([3, 1, 1], 5)[1].reshape(3, 32, 32).transpose(1, 2, 0)).all()


def test_names_in_another_order_and_the_order_of_the_source(tmp_path):
    cifar_10(tmp_path)
    (tmp_path / "batches.meta").write_bytes(a_dict(label_names=a_list([text(name) for name in NAMES[::-1]])))
    names = {name: number for number, name in enumerate(NAMES[::-1])}
    assert counted(find_photos(tmp_path), names)["train"] == dict.fromkeys(NAMES, 5)
    source = find_photos(tmp_path, label_order="source")
    assert source.classes == NAMES[::-1] and counted(source, names)["train"] == dict.fromkeys(NAMES, 5)


def test_nothing_is_unpickled(tmp_path):
    """A pickle that would run a command is listed, and refused for what it lacks."""
    cifar_10(tmp_path)
    (tmp_path / "data_batch_2").write_bytes(b"\x80\x02cos\nsystem\n" + text("touch owned") + b"\x85R.")
    events = []
    sys.addaudithook(lambda event, args: events.append(event) if event.startswith(("pickle", "os.system")) else None)
    assert refused(tmp_path).message == f"{tmp_path}/data_batch_2: 0 labels, and not as many pictures of 3,072 bytes"
    assert events == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not CIFAR's pickle"),
        (batch([1, 2, 3])[:-20], "not CIFAR's pickle"),
        (b"what is this?", "not CIFAR's pickle"),
        (batch([1, 2, 99]), "label 99 of 4 classes"),
        (batch([1, 2, 3], labels=a_list([integer(1)] * 2)), "2 labels, and not as many pictures of 3,072 bytes"),
        (batch([1, 2, 3], data=text("none")), "3 labels, and not as many pictures of 3,072 bytes"),
        (batch([1, 2, 3], data=array(pixels([1, 2, 3]), b"\x88")), "its pixels are not an array of rows"),
        (batch([1, 2, 3], more=array(pixels([1, 2, 3]))), "3 labels, and not as many pictures of 3,072 bytes"),
    ],
)
def test_a_batch_that_is_damaged(tmp_path, data, message):
    (cifar_10(tmp_path) / "data_batch_3").write_bytes(data)
    assert message in refused(tmp_path).message


def test_a_batch_that_python_3_pickled_again(tmp_path):
    again = {"labels": [1, 2, 3], "data": pixels([1, 2, 3])}
    for protocol, message in ((2, "not as many pictures"), (4, "")):
        (cifar_10(tmp_path) / "data_batch_3").write_bytes(pickle.dumps(again, protocol))
        if message:
            assert message in refused(tmp_path).message
        else:
            assert counted(find_photos(tmp_path), BY_NAME)["train"] == {
                "airplane": 4, "automobile": 5, "bird": 5, "cat": 5
            }  # fmt: skip


def test_a_binary_file_that_is_cut(tmp_path):
    cifar_10(tmp_path, binary=True)
    path = tmp_path / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert refused(tmp_path).message == f"{path}: 12,291 bytes are not a multiple of 3,073"


def test_what_is_missing_is_named(tmp_path):
    (cifar_10(tmp_path) / "data_batch_3").unlink()
    error = refused(tmp_path, UsageError)
    assert "batches.meta, but no data_batch_3" in repr(vars(error)) and error.hint == "unpack the archive again"


def test_an_archive_that_is_not_unpacked(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"?")
    assert refused(tmp_path, UsageError, layout="cifar").hint == (
        "unpack it: tar -xf cifar-10-python.tar.gz; or use parquet files of the same set"
    )


def test_two_forms_are_not_mixed(tmp_path):
    cifar_10(tmp_path / "a")
    cifar_10(tmp_path / "b", binary=True)
    assert refused(tmp_path, UsageError).message == f"{tmp_path}: a/batches.meta and b/batches.meta.txt are of two sets"
