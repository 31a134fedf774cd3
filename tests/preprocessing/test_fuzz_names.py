"""Columns and tables of any name, and values of any text: the same journeys as with plain names, or one clear line."""

import datetime as dt
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.cli import UserError
from preprocessing.journeys import build_journeys
from preprocessing.spec import parse_spec
from preprocessing.tables import QUERY
from tests.fuzzing import in_time, tried

KEY = bytes(range(32))
NASTY = [
    *("select", "from", "order", "group", "table", "null", "true", "end", "window", "qualify", "current_date", "rowid"),
    *(
        "a`b",
        "``",
        "`",
        "a``b",
        '"',
        '""',
        'a"b',
        "'",
        "''",
        "a'b",
        "\\",
        "a\\",
        "\\'",
        "\\`",
        "a\\nb",
        ";",
        "--",
        "/*",
    ),
    *("a; DROP TABLE events; --", "x') OR 1=1 --", "1) UNION SELECT 1 --", "`; SELECT 1; `", "\"; ATTACH 'x'; \"", "*"),
    *("größe", "名前", "🛒", "e\u0301", "\u202eabc", "\u00a0", " a", "a ", "a b", "a.b", "a[0]", "{{ x }}", "{% x %}"),
    *("@shard_first", "$shard_first", "%", "?", "c0", "id", "n", "time_us", "shard", "source", "source_row", "problem"),
    *("SOURCE_ROW", "pads", "events", "x\ty", "x\ny", "-1", "1", "0x1", "a" * 200, "#", "@", "\x1f", "\x7f"),
    *("\ue02e", "\ue02e1", "\ue02e0."),
]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
NAMES = st.sampled_from(NASTY) | TEXT
PLAIN = ("who", "at", "seen", "nr", "flag", "owner", "since", "person", "promo", "drawn", "chosen")
T0 = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def tables(names, texts):
    """Events, customers and assignments under the names, in the order of PLAIN; `texts` are values in them."""
    who, at, seen, nr, flag, owner, since, _, promo, drawn, chosen = names
    people = [f"{texts[i % len(texts)]}{i}" for i in range(6)]
    events = [
        {who: p, at: T0 + d * DAY, seen: T0 + (d + (d + i) % 3) * DAY, nr: (i + d) % 3, flag: (i * d) % 4 == 0}
        | {"kind": texts[(i + d) % len(texts)]}
        for i, p in enumerate(people)
        for d in range(0, 40, 3)
    ]
    customers = [{owner: p, since: T0 + i * DAY, "land": texts[i % len(texts)]} for i, p in enumerate(people)]
    lots = [{owner: p, promo: texts[i % len(texts)], drawn: T0 + 20 * DAY, chosen: i % 2} for i, p in enumerate(people)]
    return events, customers, lots


def spec_of(names, table, conversion):
    who, at, seen, nr, flag, owner, since, _, promo, drawn, chosen = names
    quoted = "`" + flag.replace("\\", "\\\\").replace("`", "\\`").replace("\n", "\\n") + "`"
    return yaml.safe_dump(
        {
            "events": {"customer": who, "time": at, "available": seen, "order": nr},
            "sequence": {"categorical": ["kind"], "max_events": 3},
            "customer": {"table": table, "customer": owner, "valid_from": since, "categorical": ["land"]},
            "conversion": {"where": f"{quoted} {conversion}", "horizons_days": [3], "primary_horizon": 3},
            "snapshots": {"dates": [dt.date(2026, 1, d) for d in (6, 16, 26)], "lookback_days": 20},
            "data_until": dt.date(2026, 2, 9),
            "split": {"test_from": dt.date(2026, 1, 26), "eval_customers": 0.4, "salt": names[7]},
            "campaigns": {
                "assignments": {
                    "table": "lots", "customer": owner, "campaign": promo, "time": drawn, "treated": chosen
                }
            },
            "privacy": {"min_customers": 1},
        },
        allow_unicode=False,  # PyYAML writes U+0085 and U+2028 as they are, and reads them as ends of lines
        sort_keys=False,
    )  # fmt: skip


def built(names, table, texts, conversion="IS TRUE", table_of_events="events"):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "out").mkdir()
        for name, rows in zip(("clicks", table, "lots"), tables(names, texts), strict=True):
            pq.write_table(pa.Table.from_pylist(rows), place / f"{name}.parquet")
        content = yaml.safe_load(spec_of(names, table, conversion))
        content["events"]["table"] = table_of_events
        spec = parse_spec(yaml.safe_dump(content, allow_unicode=False))
        events = str(place / "clicks.parquet")
        summary = build_journeys(spec, events, place / "out", KEY, progress=False)
        rows = pq.ParquetDataset(sorted((place / "out").glob("part-*"))).read().to_pylist()
    return rows, summary


def file_name(name):
    """A table's name as a file may bear it, and a glob does not read it."""
    return (
        not set("/*?[]\0") & set(name)
        and len(name.encode()) < 200
        and name not in (".", "..", "clicks", "lots")
        and not QUERY.match(name)
    )


@tried(quick=5, soak=1_500)
@given(
    st.lists(NAMES, min_size=len(PLAIN), max_size=len(PLAIN), unique_by=str.casefold),
    NAMES.filter(file_name),
    st.lists(NAMES, min_size=1, max_size=4),
)
def test_any_names_give_the_journeys_that_plain_names_give(names, table, texts):
    names = [name for name in names if name.casefold() not in ("kind", "land")]
    names += [plain for plain in PLAIN if plain not in names][: len(PLAIN) - len(names)]
    plain = [*PLAIN[:7], names[7], *PLAIN[8:]]  # the salt is no name: another one splits otherwise
    with in_time():
        expected = built(plain, "people", texts)
        try:
            found = built(names, table, texts)
        except UserError as error:  # in a condition a dot parts a name
            assert "." in names[4], str(error)
        else:
            assert found == expected


@pytest.mark.parametrize("letter", "\x0b\x0c\x1c\x1e\x85\u2028\u2029")
def test_what_python_takes_for_the_end_of_a_line_stays_what_it_is(letter):
    names = [f"{name}{letter}" for name in PLAIN[:7]] + ["person"] + [f"{letter}{name}" for name in PLAIN[8:]]
    expected, _ = built(PLAIN, "people", [f"a{letter}b"])
    found, _ = built(names, "people", [f"a{letter}b"], f"IS TRUE OR kind = 'a{letter}c' OR kind = 'a\\nb'")
    assert found == expected


@pytest.mark.parametrize("name", ["source_row", "SOURCE_ROW", "source_row_"])
def test_the_number_of_a_row_takes_no_column_s_name(name):
    """A condition on such a column reads the column, and so does a query."""
    names = [*PLAIN[:4], name, *PLAIN[5:]]
    assert built(names, "people", ["x"]) == built(PLAIN, "people", ["x"])
    queried = built(names, "people", ["x"], table_of_events="SELECT * FROM events")
    assert queried == built(PLAIN, "people", ["x"], table_of_events="SELECT * FROM events")


@pytest.mark.parametrize(
    "attempt", ["IS TRUE; DROP TABLE events", "IS TRUE) OR (1=1", "IS TRUE --", "IS TRUE UNION ALL SELECT 1"]
)
def test_a_condition_is_one_condition(attempt):
    """Comments aside, what is no condition by itself never reaches an engine."""
    try:
        rows, _ = built(PLAIN, "people", ["x"], attempt)
    except UserError as error:
        assert "conversion.where" in str(error)
    else:
        assert "--" in attempt
        assert rows == built(PLAIN, "people", ["x"])[0]
