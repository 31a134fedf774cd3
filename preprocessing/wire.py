"""Transformed journeys as serialized tf.Examples: protobuf's wire format by numpy, features by the order of names.

tfx_bsl's encoder leaves the order to a hash map that differs from process to process; the same journeys shall give the
same bytes. A transformed feature has one length for all journeys, and so all records of a batch have one layout: their
headers are the same bytes, and only the values differ. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
_DELIMITED = 2  # wire type of all fields here
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3  # fields of tf.train.Feature


def examples(batch: pa.RecordBatch) -> Iterator[bytes]:
    """One serialized tf.Example a row of `batch`, whose columns are large_lists of int64, float32 or large_binary.

    Where texts of a column differ in length, its rows are laid out one by one; the keys, of 64 letters, do not.
    """
    names = sorted(batch.schema.names)
    columns = {name: batch.column(name) for name in names}
    fixed = {name: found for name in names if (found := _fixed(columns[name], name)) is not None}
    rest = [_row_by_row(columns[name], name) for name in names if name not in fixed]
    # Two Examples one after the other are read as one that holds the features of both.
    head, width = _layout([*fixed.values()])
    matrix = np.empty((batch.num_rows, len(head) + width), np.uint8)
    matrix[:, : len(head)] = np.frombuffer(head, np.uint8)
    at = len(head)
    for header, values in fixed.values():
        matrix[:, at : at + len(header)] = np.frombuffer(header, np.uint8)
        at += len(header)
        matrix[:, at : at + values.shape[1]] = values
        at += values.shape[1]
    whole, size = matrix.tobytes(), matrix.shape[1]
    for i in range(batch.num_rows):
        row = whole[i * size : (i + 1) * size]
        yield b"".join((row, *(one[i] for one in rest))) if rest else row


def _layout(fixed: list[tuple[bytes, Bytes]]) -> tuple[bytes, int]:
    """The header of the Example, and how many bytes follow it."""
    width = sum(len(header) + values.shape[1] for header, values in fixed)
    return _field(1, width), width


def _fixed(column: pa.LargeListArray, name: str) -> tuple[bytes, Bytes] | None:
    """Header and values, uint8 [rows, bytes], of a feature that takes as many bytes in every row; None for others."""
    rows, flat = len(column), column.flatten()
    each = len(flat) // max(rows, 1)
    if rows and not (column.value_lengths().to_numpy() == each).all():
        return None
    if pa.types.is_large_binary(flat.type):
        sizes = np.diff(np.frombuffer(flat.buffers()[1], np.int64)[flat.offset : flat.offset + len(flat) + 1])
        if each != 1 or not (sizes == sizes[0]).all():
            return None
        size = int(sizes[0])
        joined = b"".join(flat.to_pylist())
        values = np.frombuffer(joined, np.uint8).reshape(rows, size)
        return _header(name, _BYTES_LIST, size), values
    if pa.types.is_float32(flat.type):
        values = flat.to_numpy().astype("<f4", copy=False).view(np.uint8).reshape(rows, each * 4)
        return _header(name, _FLOAT_LIST, each * 4), values
    values = _varints(flat.to_numpy()).reshape(rows, -1)
    return _header(name, _INT64_LIST, values.shape[1]), values


def _varints(values: npt.NDArray[np.int64]) -> Bytes:
    """Varints, uint8 [n, width], all as wide as the widest: zeros that lead are allowed, as in 0x81 0x00 for 1."""
    unsigned = values.view(np.uint64)
    width = max(1, -(-int(unsigned.max(initial=0)).bit_length() // 7))
    if width == 1:
        return unsigned.astype(np.uint8)[:, None]
    shifts = np.arange(0, 7 * width, 7, dtype=np.uint64)
    found = (unsigned[:, None] >> shifts & np.uint64(0x7F)).astype(np.uint8)
    found[:, :-1] |= np.uint8(0x80)
    return found


def _row_by_row(column: pa.LargeListArray, name: str) -> list[bytes]:
    """An Example of this one feature for each row; of texts alone: numbers have one length."""
    found = []
    for texts in column.to_pylist():
        content = b"".join(_field(1, len(text)) + text for text in texts)
        feature = _field(_BYTES_LIST, len(content)) + content
        entry = _text(1, name.encode()) + _field(2, len(feature)) + feature
        features = _field(1, len(entry)) + entry
        found.append(_field(1, len(features)) + features)
    return found


def _header(name: str, kind: int, size: int) -> bytes:
    """All of a map entry {name: Feature} that comes before its `size` bytes of values."""
    values = _field(1, size)
    feature = _field(kind, len(values) + size)
    inside = _text(1, name.encode()) + _field(2, len(feature) + len(values) + size) + feature + values
    return _field(1, len(inside) + size) + inside


def _text(number: int, text: bytes) -> bytes:
    return _field(number, len(text)) + text


def _field(number: int, size: int) -> bytes:
    """Tag and length of a field of `size` bytes."""
    found = bytearray([number << 3 | _DELIMITED])
    while size > 0x7F:
        found.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(found) + bytes([size])
