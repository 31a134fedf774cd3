"""Bytes that are no records, or no records of this schema: one line that names the shard, and never for long."""

import gzip
import struct
import tempfile
from pathlib import Path

import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.cli import UserError
from tests.fuzzing import in_time, tried
from tests.trainer.test_dataset import SCHEMA, example
from trainer.dataset import ordered_batches, scan

RECORDS = [example(i, length=i % 4) for i in range(6)]
NUMBERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5)
FLOATS = st.lists(st.floats(width=32), max_size=5)
BYTES = st.lists(st.binary(max_size=9), max_size=3)


def masked(data: bytes) -> bytes:
    """TFRecord's checksum of the bytes: CRC32C, rotated and shifted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(records: list[bytes]) -> bytes:
    """A gzip TFRecord file of the records, with right checksums."""
    parts = []
    for record in records:
        length = struct.pack("<Q", len(record))
        parts += [length, masked(length), record, masked(record)]
    return gzip.compress(b"".join(parts), mtime=0)


WHOLE = framed(RECORDS)


def read(content: bytes) -> int | None:
    """How many records the trainer reads; None where it refuses the shard in one line."""
    with tempfile.TemporaryDirectory() as folder, in_time():
        file = str(Path(folder) / "train-00000-of-00001.tfrecord.gz")
        Path(file).write_bytes(content)
        try:
            counts = scan([file], SCHEMA, (7, 30), 0)
        except UserError as error:
            assert str(error).startswith(file) and len(str(error).splitlines()) == 1
            return None
        batches = ordered_batches([file], SCHEMA, batch_size=4, window=1)
        assert sum(int(labels["row"].shape[0]) for _, labels in batches) == counts.journeys
        return counts.journeys


def test_the_frame_is_tensorflow_s():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x"
        file.write_bytes(WHOLE)
        found = [one.numpy() for one in tf.data.TFRecordDataset(str(file), compression_type="GZIP")]
    assert found == RECORDS
    assert read(WHOLE) == len(RECORDS)


@tried(quick=12, soak=3_000)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 20), st.binary(max_size=8))
def test_a_damaged_shard_is_refused_or_whole(at, length, put):
    """gzip's checksum and the records' see to it that a shard that is read at all holds what was written."""
    content = WHOLE[:at] + put + WHOLE[at + length :]
    found = read(content)
    if found is not None:
        assert gzip.decompress(content) == gzip.decompress(WHOLE)
        assert found == len(RECORDS)


@tried(quick=12, soak=3_000)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=3))
def test_records_that_are_no_examples_are_refused(records):
    assert read(framed(records)) is None


@tried(quick=12, soak=3_000)
@given(
    st.sampled_from(["event_type", "amount", "segment", "age", "length", "weight", "journey_id", "as_of", "held_out"]),
    NUMBERS | FLOATS | BYTES | st.none(),
    st.integers(0, len(RECORDS) - 1),
)
def test_an_example_whose_feature_is_of_another_kind_or_length_is_refused(name, values, place):
    """Wherever in the shard it stands."""
    changed = tf.train.Example.FromString(RECORDS[place])
    before = changed.features.feature[name]
    kind, size = before.WhichOneof("kind"), len(getattr(before, before.WhichOneof("kind")).value)
    if values is None:
        del changed.features.feature[name]
    else:
        made = tf.train.Feature()
        first = values[0] if values else 0
        new = "bytes_list" if isinstance(first, bytes) else "float_list" if isinstance(first, float) else "int64_list"
        getattr(made, new).value.extend(values)
        changed.features.feature[name].CopyFrom(made)
        if (new, len(values)) == (kind, size):
            return
    records = [changed.SerializeToString() if i == place else record for i, record in enumerate(RECORDS)]
    assert read(framed(records)) is None
