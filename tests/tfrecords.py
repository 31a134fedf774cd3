"""TFRecord files, read without TensorFlow."""

from __future__ import annotations

import gzip
import struct


def records(content: bytes) -> list[bytes]:
    """The records of a gzip TFRecord file's bytes: each is its length, a checksum, the data, another checksum."""
    data, found = gzip.decompress(content), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(data[12 : 12 + length])
        data = data[16 + length :]
    return found
