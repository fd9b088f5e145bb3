"""The bytes of a record: three written out, google.protobuf as a second opinion both ways, garbage refused in words."""

import struct

import pytest
from alexnet_dali.pipeline.errors import ShardError
from alexnet_dali.pipeline.shards.datum import CHANNELS, encode, parse
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

JPEG = b"\xff\xd8\xff\xe0 a photo \xff\xd9"


def message_class(package, names):
    """Caffe's Datum as protobuf itself makes it, with these of its fields (caffe.proto)."""
    field = descriptor_pb2.FieldDescriptorProto
    known = {
        "channels": (1, field.TYPE_INT32, field.LABEL_OPTIONAL),
        "height": (2, field.TYPE_INT32, field.LABEL_OPTIONAL),
        "width": (3, field.TYPE_INT32, field.LABEL_OPTIONAL),
        "data": (4, field.TYPE_BYTES, field.LABEL_OPTIONAL),
        "label": (5, field.TYPE_INT32, field.LABEL_OPTIONAL),
        "float_data": (6, field.TYPE_FLOAT, field.LABEL_REPEATED),
        "encoded": (7, field.TYPE_BOOL, field.LABEL_OPTIONAL),
    }
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    message = file.message_type.add(name="Datum")
    for name in names:
        number, kind, label = known[name]
        message.field.add(name=name, number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Datum"))


OURS = ("channels", "height", "width", "data", "label", "encoded")
CaffeDatum = message_class("caffe", (*OURS, "float_data"))
OurDatum = message_class("ours", OURS)  # to us float_data is one of the fields that are skipped, whatever it holds


def test_exact_bytes_of_a_jpeg_record():
    assert encode(JPEG, height=256, width=256, label=0, encoded=True) == (
        b"\x08\x03"  # channels: 3
        b"\x10\x80\x02"  # height: 256
        b"\x18\x80\x02"  # width: 256
        b"\x22\x0f\xff\xd8\xff\xe0 a photo \xff\xd9"  # data: 15 bytes
        b"\x28\x00"  # label: 0, written
        b"\x38\x01"  # encoded: true
    )


def test_exact_bytes_of_a_raw_record():
    assert encode(bytes(range(6)), height=1, width=2, label=999, encoded=False) == (
        b"\x08\x03\x10\x01\x18\x02\x22\x06\x00\x01\x02\x03\x04\x05"
        b"\x28\xe7\x07"  # label: 999
        b"\x38\x00"  # encoded: false, written
    )


def test_exact_bytes_of_a_long_record_without_a_label():
    assert (
        encode(bytes(300), height=10, width=10, label=-1, encoded=False)
        == (
            b"\x08\x03\x10\x0a\x18\x0a\x22\xac\x02"
            + bytes(300)
            + b"\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"  # label: -1
            b"\x38\x00"
        )
    )


RECORDS = st.one_of(
    st.tuples(
        st.binary(max_size=300).map(lambda data: b"\xff\xd8" + data), st.integers(1, 65535), st.integers(1, 65535)
    ),
    st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda sides: st.tuples(
            st.binary(min_size=sides[0] * sides[1] * 3, max_size=sides[0] * sides[1] * 3), *map(st.just, sides)
        )
    ),
)
LABELS = st.one_of(st.integers(-1, 1000), st.integers(-(1 << 31), (1 << 31) - 1))


def fields_of(record):
    return (bytes(record.data), record.height, record.width, record.label, record.encoded)


@given(RECORDS, LABELS)
def test_protobuf_reads_what_we_write_and_writes_what_we_read(record, label):
    data, height, width = record
    encoded = len(data) != height * width * 3
    ours = encode(data, height=height, width=width, label=label, encoded=encoded)
    message = CaffeDatum.FromString(ours)
    assert fields_of(message) == (data, height, width, label, encoded) and message.channels == 3
    assert message.HasField("label") and message.HasField("encoded")
    assert message.SerializeToString() == ours
    assert fields_of(parse(ours)) == (data, height, width, label, encoded)


@given(st.integers(0, 20), st.permutations(OURS))
def test_fields_may_come_in_any_order(label, order):
    values = {"channels": 3, "height": 5, "width": 7, "data": JPEG, "label": label, "encoded": True}
    value = b"".join(CaffeDatum(**{name: values[name]}).SerializeToString() for name in order)
    assert fields_of(parse(value)) == (JPEG, 5, 7, label, True)


def test_of_repeated_fields_the_last_counts_and_unknown_ones_are_skipped():
    first = encode(bytes(12), height=2, width=2, label=4, encoded=False)
    unknown = b"\x32\x08" + bytes(8) + b"\x35" + bytes(4) + b"\x41" + bytes(8) + b"\x48\x05\x52\x03abc\x5d" + bytes(4)
    last = encode(JPEG, height=8, width=9, label=1, encoded=True)
    value = first + unknown + last
    assert fields_of(parse(value)) == fields_of(CaffeDatum.FromString(value)) == (JPEG, 8, 9, 1, True)


def test_numbers_longer_than_need_be():
    label = b"\x28\x85\x80\x80\x80\x80\x80\x80\x80\x80\x00"
    value = b"\x88\x00\x83\x80\x00\x10\x81\x00\x18\x01\x22\x83\x80\x80\x00abc" + label + b"\x38\x80\x00"
    assert fields_of(parse(value)) == fields_of(CaffeDatum.FromString(value)) == (b"abc", 1, 1, 5, False)


def test_numbers_of_more_than_64_bits_lose_them():
    good = changed()
    for tail in (b"\x38" + b"\x80" * 9 + b"\x02", b"\x28\x87" + b"\x80" * 8 + b"\x02"):
        assert fields_of(parse(good + tail)) == fields_of(CaffeDatum.FromString(good + tail))
    assert not parse(good + b"\x38" + b"\x80" * 9 + b"\x02").encoded


def test_the_payload_is_a_view():
    value = encode(JPEG, height=1, width=1, label=0, encoded=True)
    record = parse(value)
    assert isinstance(record.data, memoryview) and record.data.obj is value
    assert fields_of(parse(memoryview(value))) == fields_of(record)


GOOD = {"channels": CHANNELS, "height": 2, "width": 2, "data": bytes(12), "label": 3, "encoded": False}


def changed(**fields):
    """A record with some fields other than good, or, where None, left out."""
    return CaffeDatum(
        **{name: value for name, value in (GOOD | fields).items() if value is not None}
    ).SerializeToString()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "incomplete Datum: no channels, height, width, data, label, encoded"),
        (changed(label=None), "incomplete Datum: no label"),
        (changed(encoded=None), "incomplete Datum: no encoded"),
        (changed(data=None, height=None), "incomplete Datum: no height, data"),
        (changed(channels=1), "not an RGB picture: a Datum of 1 channels, 2x2"),
        (changed(channels=None), "incomplete Datum: no channels"),
        (changed(height=0), "not an RGB picture: a Datum of 3 channels, 0x2"),
        (changed(width=65536), "not an RGB picture: a Datum of 3 channels, 2x65536"),
        (changed(height=-2), "not an RGB picture: a Datum of 3 channels, -2x2"),
        (changed(data=bytes(11)), "the Datum says raw 2x2 RGB, 12 bytes, but holds 11"),
        (changed(data=bytes(13)), "the Datum says raw 2x2 RGB, 12 bytes, but holds 13"),
        (changed(encoded=True), "the Datum says JPEG, but its data does not begin like one"),
        (changed(encoded=True, data=b"\xff"), "the Datum says JPEG, but its data does not begin like one"),
        (changed()[:-4], "incomplete Datum: no label, encoded"),
        (changed()[:-1], "not a Datum: unterminated number"),
        (changed()[:-8], "not a Datum: field 4 claims 12 bytes, 8 are left"),
        (b"\x22\xff\xff\xff\xff\xff\xff\xff\xff\x7f", f"not a Datum: field 4 claims {(1 << 63) - 1} bytes, 0 are left"),
        (b"\x08" + b"\x80" * 10 + b"\x00", "not a Datum: unterminated number"),
        (b"\x0a\x01\x03", "not a Datum: field 1 has wire type 2"),
        (b"\x20\x00", "not a Datum: field 4 has wire type 0"),
        (b"\x4b\x4c", "not a Datum: field 9 has wire type 3"),
        (b"\x4f", "not a Datum: field 9 has wire type 7"),
        (b"\x00\x00", "not a Datum: field 0 has wire type 0"),
        (b"\x80\x80\x80\x80\x10\x00", "not a Datum: field 536870912 has wire type 0"),
        (b"\x88\x80\x80\x80\x80\x00\x03", "not a Datum: unterminated number"),
    ],
)
def test_what_is_no_record_is_refused_in_words(value, message):
    with pytest.raises(ShardError) as caught:
        parse(value)
    assert caught.value.message == message


def check(value):
    """Whatever the bytes: a ShardError, or what protobuf makes of them too."""
    try:
        record = parse(value)
    except ShardError as error:
        assert error.message
        return
    try:
        message = OurDatum.FromString(value)
    except DecodeError:
        pytest.fail(f"protobuf refuses what we read: {value!r}")
    assert fields_of(record) == fields_of(message)
    assert all(message.HasField(name) for name in OURS) and message.channels == CHANNELS
    assert record.height > 0 and record.width > 0
    assert (
        bytes(record.data[:2]) == b"\xff\xd8"
        if record.encoded
        else len(record.data) == record.height * record.width * 3
    )


@given(st.binary(max_size=80))
def test_arbitrary_bytes(value):
    check(value)


@st.composite
def mutated(draw):
    """A good record, some of whose bytes are changed, inserted or removed."""
    value = bytearray(draw(st.sampled_from([changed(), changed(data=JPEG, encoded=True), changed(label=-1)])))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(value)))
        old, new = draw(st.integers(0, 3)), draw(st.binary(max_size=3))
        value[place : place + old] = new
    return bytes(value)


@given(mutated())
def test_mutated_records(value):
    check(value)


@st.composite
def well_formed(draw):
    """Wire bytes that follow the grammar: known and unknown fields, numbers of up to 64 bits, some needlessly long."""

    def varint(number, longest):
        groups = [number >> 7 * k & 0x7F for k in range(longest)]
        used = max((k + 1 for k, group in enumerate(groups) if group), default=1)
        groups = groups[: draw(st.integers(used, longest))]
        return bytes(group | 0x80 for group in groups[:-1]) + bytes(groups[-1:])

    numbers = st.one_of(st.integers(0, 9), st.sampled_from([1 << 31, (1 << 32) + 2, (1 << 64) - 1, 1 << 63]))
    out = changed()
    for _ in range(draw(st.integers(1, 4))):
        number = draw(st.one_of(st.integers(1, 9), st.sampled_from([(1 << 29) - 1, 1 << 29, 1 << 40])))
        wire = draw(st.integers(0, 5))
        out += varint(number << 3 | wire, draw(st.sampled_from([5, 10])))
        if wire == 0:
            out += varint(draw(numbers), 10)
        elif wire == 2:
            data = draw(st.sampled_from([b"", bytes(12), JPEG]))
            out += varint(len(data), 5) + data
        else:
            out += bytes({1: 8, 5: 4}.get(wire, 0))
    return out


@given(well_formed())
def test_fields_of_every_size_and_kind(value):
    check(value)


@given(st.sampled_from([changed(), changed(data=JPEG, encoded=True)]), st.integers(0, 1 << 10))
def test_truncated_records_are_refused(value, length):
    with pytest.raises(ShardError):
        parse(value[: length % len(value)])


def test_a_float_field_is_skipped():
    value = changed() + b"\x35" + struct.pack("<f", 1.5)
    assert fields_of(parse(value)) == fields_of(CaffeDatum.FromString(value))
