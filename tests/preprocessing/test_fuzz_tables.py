"""Files of events that are whole, odd or broken: every row is read as it was written, or the file is one clear line."""

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.cli import UserError
from preprocessing.journeys import build_journeys
from preprocessing.spec import parse_spec
from preprocessing.tables import Tables
from tests.fuzzing import in_time, tried

KEY = bytes(range(32))
SPEC = parse_spec("""
events:     {customer: who, time: at}
sequence:   {categorical: [what], numeric: [much], max_events: 4}
conversion: {where: "what = 'buy'", horizons_days: [7], primary_horizon: 7}
snapshots:  {dates: [2026-02-01, 2026-03-01], lookback_days: 30}
data_until: 2026-04-01
split:      {test_from: 2026-03-01, eval_customers: 0.5}
""")
NAMES = ("who", "at", "what", "much")
LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ODD = (
    "2026-01-15",
    "2026-01-15 10:00:00+02:00",
    "7",
    "-3.5",
    "1e400",
    "NaN",
    "null",
    "",
    " ",
    '"',
    '""',
    "'",
    ",",
    ";",
)
ODD += ("a\nb", "a\r\nb", "\r", "\n", "\t", "\\", "\\n", "\ufeff", "#", "=1+1", "{", "}", "[1]", "x" * 5000, "\x1a")
CELL = st.text(LETTERS, max_size=10) | st.sampled_from(ODD)
ROWS = st.lists(st.tuples(CELL, CELL, CELL, CELL), min_size=1, max_size=8)
PLAIN = [(f"c{i % 4}", f"2026-01-{i + 1:02d} 10:00:00", ("buy", "view", "é,\n")[i % 3], str(i / 2)) for i in range(24)]


def written(rows, kind, **dialect):
    """The rows as the bytes of a file."""
    if kind == "jsonl":
        return "".join(json.dumps(dict(zip(NAMES, row, strict=True)), **dialect) + "\n" for row in rows).encode()
    if kind == "parquet":
        target = io.BytesIO()
        pq.write_table(pa.table([list(column) for column in zip(*rows, strict=True)], names=NAMES), target)
        return target.getvalue()
    text = io.StringIO(newline="")
    csv.writer(text, **dialect).writerows([NAMES, *rows])
    return text.getvalue().encode()


def read(name, content):
    """The cells of the file, as journeys are built from them."""
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        path = Path(folder) / name
        path.write_bytes(content)
        table = Tables(connection, str(path)).open_events("events")
        return connection.execute(f'SELECT who, "at", what, much FROM {table.relation} ORDER BY source_row').fetchall()


@tried(quick=15, soak=3_000)
@given(ROWS, st.sampled_from(["\n", "\r\n"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.booleans())
def test_csv_is_read_as_it_was_written(rows, end, quoting, zipped):
    if any("\r" in cell for row in rows for cell in row):
        quoting = csv.QUOTE_ALL  # Python's writer leaves a lone one bare, where it ends a line for most readers
    content = written(rows, "csv", lineterminator=end, quoting=quoting)
    name = "events.csv.gz" if zipped else "events.csv"
    with in_time():
        found = read(name, gzip.compress(content) if zipped else content)
    # what is empty is missing, quoted or not
    assert [[cell or "" for cell in row] for row in found] == [list(row) for row in rows]


@tried(quick=15, soak=3_000)
@given(ROWS, st.booleans())
def test_json_lines_are_read_as_they_were_written(rows, ascii_only):
    with in_time():
        found = read("events.jsonl", written(rows, "jsonl", ensure_ascii=ascii_only))
    assert found == rows


@st.composite
def damage(draw, content):
    """The bytes with a few of them replaced, taken out, doubled, or set in; or cut off."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.integers(0, 12))
        content[at : at + length] = draw(
            st.binary(max_size=6)
            | st.sampled_from([b'"', b"\n", b",", b"\0", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b""])
        )
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 4)) == 0 else content)


def built(name, content):
    """The summary of journeys from the file; its numbers add up, or building it raises AssertionError."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "out").mkdir()
        (place / name).write_bytes(content)
        return build_journeys(SPEC, str(place / name), place / "out", KEY, max_bad_rows=1.0, progress=False)


@tried(quick=5, soak=3_000)
@given(st.data(), st.sampled_from(["csv", "jsonl", "csv.gz", "jsonl.gz"]))
def test_broken_text_is_one_line_or_rows_that_are_counted(data, kind):
    content = written(PLAIN, kind.removesuffix(".gz"))
    if kind.endswith(".gz") and data.draw(st.booleans()):
        content = data.draw(damage(gzip.compress(content)))
    else:
        content = data.draw(damage(content))
        content = gzip.compress(content) if kind.endswith(".gz") else content
    with in_time():
        try:
            summary = built(f"events.{kind}", content)
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and str(error)
        else:
            assert summary["events"]["read"] > 0


@tried(quick=5, soak=3_000)
@given(damage(written(PLAIN, "parquet")))
def test_a_broken_parquet_file_is_one_line_or_rows_that_are_counted(content):
    with in_time():
        try:
            summary = built("events.parquet", content)
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and str(error)
        else:
            assert summary["events"]["read"] > 0


@pytest.mark.parametrize("header", ["wh\x0co,at,what,much", "who,at,what,much\x0b,\x1c", "who,at,what,\x0ca,\x0ca"])
def test_control_letters_of_a_header_do_not_reach_the_terminal(header):
    with pytest.raises(UserError) as caught:
        built("events.csv", f"{header}\na,2026-01-01,b,1,2\n".encode())
    assert str(caught.value).isprintable()
