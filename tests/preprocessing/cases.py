"""Random small tables with the spec that reads them: ties, nulls, zones, late arrivals, edges, all kinds of windows."""

# ruff: noqa: PLR0912, PLR0915, PLR0911 - one draw after the other

from __future__ import annotations

import datetime as dt
import math
import random
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from preprocessing.spec import EventsSpec, JourneysSpec, parse_spec
from tests.preprocessing.case_predicates import AFTER, CONVERSIONS, CUSTOMERS, IN_CONTEXT, TRIGGERS

# the 40 days after each: nothing of note; a leap day; summer time begins, or ends, in New York and in Paris
STARTS = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)] * 3 + [
    dt.datetime(*day, tzinfo=dt.UTC)
    for day in ((2024, 2, 10), (2000, 2, 20), (2026, 3, 1), (2026, 10, 15), (1969, 12, 20))
]
CUSTOMER, TIME, AVAILABLE, ORDER = "Kunde `nr`", "order", 'seen "at"', "größe"
NEW_YORK = "America/New_York"
MANY = 10_000  # events, in few cases


@dataclass
class Case:
    """A spec, its raw rows, its predicates as functions, and the files that hold the rows."""

    spec: EventsSpec | JourneysSpec
    text: str
    events: list[dict]
    others: list[dict] | None
    holds: dict
    predicate_columns: dict
    event_types: dict
    other_types: dict
    predict_as_of: dt.datetime | None = None
    predict: bool = False
    assignments: list[dict] | None = None
    assignment_types: dict | None = None

    def write(self, folder: Path) -> str:
        pq.write_table(_table(self.events, self.event_types), folder / "events.parquet")
        if self.others is not None:
            pq.write_table(_table(self.others, self.other_types), folder / "others.parquet")
        if self.assignments is not None:
            pq.write_table(_table(self.assignments, self.assignment_types), folder / "lots.parquet")
        return str(folder / "events.parquet")


def _table(rows: list[dict], types: dict) -> pa.Table:
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()})


def maybe(draw: random.Random, value, share=0.12):
    return None if draw.random() < share else value


def moments(draw: random.Random, count: int, start: dt.datetime) -> list[dt.datetime]:
    """Instants on a coarse grid, so that they tie, with neighbours a microsecond off, and hours at which clocks change.

    Where there are many, on a finer one, or they would all be ties.
    """
    if count >= MANY:
        return [start + dt.timedelta(seconds=draw.randrange(0, 40 * 86_400)) for _ in range(count)]
    return [
        start
        + dt.timedelta(
            hours=12 * draw.randrange(0, 80) + draw.choice((0, 0, 0, 1, 6, 7)),
            microseconds=draw.choice((0, 0, 0, 1, -1)),
        )
        for _ in range(count)
    ]


def in_type(draw: random.Random, moment: dt.datetime, kind) -> object:
    """The instant as a source of that column type would hold it."""
    if kind == pa.date32():
        return moment.date()
    if kind == pa.string():
        form = draw.randrange(6)
        if form == 0:
            zone = draw.choice(
                [dt.timezone(dt.timedelta(hours=5, minutes=30)), ZoneInfo(NEW_YORK), ZoneInfo("Europe/Paris")]
            )
            return moment.astimezone(zone).isoformat(sep=draw.choice(" T"))
        if form == 1:
            return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "789Z"
        if form == 2:
            return draw.choice(
                [
                    "soon",
                    "",
                    "  ",
                    "2026-02-30",
                    "2026-02-29",
                    "2024-02-29",
                    "2024-02-29 23:59:60",
                    "2026-01-05 25:00:00",
                    "1850-01-01",
                    "2026-01-07",
                    " 2026-01-07 10:30 ",
                ]
            )
        return moment.replace(tzinfo=None).isoformat(sep=" ")
    if kind.tz is None:
        return moment.replace(tzinfo=None)
    return moment


def time_type(draw: random.Random):
    return draw.choice(
        [
            pa.timestamp("us"),
            pa.timestamp("us"),
            pa.timestamp("us", tz=NEW_YORK),
            pa.timestamp("ns", tz="UTC"),
            pa.timestamp("ns"),
            pa.date32(),
            pa.string(),
        ]
    )


def event_fields(draw: random.Random, kinds: tuple[str, ...] = ("buy", "mail", "sell", "buy", "web", "")) -> dict:
    return {
        "kind": maybe(draw, draw.choice(kinds)),
        "camp": maybe(draw, draw.choice(["x", "y", ""])),
        "flag": maybe(draw, draw.random() < 0.5),
        "code": maybe(draw, draw.randrange(3)),
        "amount": maybe(
            draw, draw.choice([0.0, -0.0, 1.5, 3.0, math.nan, 7.25, -4.0, draw.choice([1e16, math.inf, 9.0])])
        ),
        "paid": maybe(draw, draw.choice([Decimal("0.10"), Decimal("1.00"), Decimal("12.30")])),
        "words": maybe(draw, draw.choice(["1", " 2.5 ", "", "1e1", "-3", draw.choice(["nan", "inf", "7,5"])])),
    }


FIELD_TYPES = {
    "kind": pa.string(),
    "camp": pa.string(),
    "flag": pa.bool_(),
    "code": pa.int16(),
    "amount": pa.float64(),
    "paid": pa.decimal128(9, 2),
    "words": pa.string(),
}


def sequence(draw: random.Random) -> dict:
    numeric = [
        draw.choice(["amount", {"column": "amount", "min": -3.5}, {"column": "amount", "max": 7.0}]),
        *draw.sample(["paid", "words"], draw.randrange(3)),
    ]
    return {
        "categorical": draw.sample(["kind", "camp", "flag", "code"], draw.randrange(1, 4)),
        "numeric": numeric[draw.randrange(2) :],
        "max_events": draw.choice([1, 2, 3, 5]),
    }


def dated_case(draw: random.Random) -> Case:
    ids = ["a", "b", "ç", "d d"] if draw.random() < 0.7 else [7, 8, -9, 10]
    ids = ids[: draw.randrange(1, 5)]
    start, kind, late = draw.choice(STARTS), time_type(draw), time_type(draw)
    # a customer with very many events; nobody who converts, but by late or odd ways; rows that arrive long after
    count = MANY if draw.random() < 0.01 else draw.randrange(3, 30)
    ids = ids[:1] if count == MANY else ids
    kinds = ("mail", "web", "") if draw.random() < 0.1 else ("buy", "mail", "sell", "buy", "web", "")
    delays = draw.choice([[0, 0, 1, 9, -1], [0, 0, 1, 9, -1], [0, 30, 200]])

    def day(number: int) -> dt.date:
        return start.date() + dt.timedelta(days=number - 1)

    events = []
    for moment in moments(draw, count, start):
        arrival = moment + dt.timedelta(hours=12 * draw.choice(delays))
        events.append(
            {
                CUSTOMER: maybe(draw, draw.choice(ids), 0.04),
                TIME: maybe(draw, in_type(draw, moment, kind), 0.04),
                AVAILABLE: maybe(draw, in_type(draw, arrival, late), 0.04),
                ORDER: maybe(draw, draw.randrange(3)),
                **event_fields(draw, kinds),
            }
        )
    events += [dict(draw.choice(events)) for _ in range(draw.choice([0, 1, 2, 3, len(events)]))]
    draw.shuffle(events)
    types = {
        CUSTOMER: pa.string() if isinstance(ids[0], str) else pa.int64(),
        TIME: kind,
        AVAILABLE: late,
        ORDER: pa.int32(),
    }
    content: dict = {
        "events": {"customer": CUSTOMER, "time": TIME, "duplicates": draw.choice(["drop", "drop", "keep"])},
        "sequence": sequence(draw),
    }
    if draw.random() < 0.5:
        content["events"]["available"] = AVAILABLE
    if draw.random() < 0.5:
        content["events"]["order"] = ORDER
    holds, used = {}, {"events": [], "subjects": []}

    assigns = draw.random() < 0.45
    at = not assigns and draw.random() < 0.35
    context = draw.sample(["camp", "amount", "code"], draw.randrange(3)) if at else []
    conversions = [c for c in IN_CONTEXT if "camp" not in c[0] or "camp" in context] if context else CONVERSIONS
    conversions = [c for c in conversions if "context.amount" not in c[0] or "amount" in context] or CONVERSIONS
    sql, names, holds["conversion.where"] = draw.choice(conversions)
    used["events"] += names + context
    horizons = draw.choice([[2], [1, 3], [2, 5, 9]])
    content["conversion"] = {
        "where": sql,
        "gap_days": draw.choice([0, 0, 1, 2]),
        "horizons_days": horizons,
        "primary_horizon": horizons[0],
    }
    lookback = draw.choice([2, 5, 60])
    if at:
        sql, names, holds["snapshots.at"] = draw.choice(TRIGGERS)
        used["events"] += names
        content["snapshots"] = {"at": sql, "context": context, "lookback_days": lookback}
        if draw.random() < 0.5:
            content["snapshots"] |= {"first": day(4), "last": day(34)}
    elif assigns and draw.random() < 0.4:
        content["snapshots"] = {"assignments": True, "lookback_days": lookback}
    elif draw.random() < 0.5:
        content["snapshots"] = {
            "first": day(2),
            "last": day(30),
            "every_days": draw.choice([2, 3, 7]),
            "lookback_days": lookback,
        }
    else:
        days = sorted(draw.sample(range(0, 35), 6))
        content["snapshots"] = {
            "dates": [day(d + 1) for d in days],
            "lookback_days": lookback,
        }
    content["data_until"] = day(31 + draw.randrange(10))
    content["split"] = {
        "test_from": day(20),
        "holdout_customers": draw.choice([0.0, 0.3]),
        "salt": draw.choice(["v1", "o'h\\ne"]),
    }
    if draw.random() < 0.5:
        content["split"]["eval_from"] = day(12)
    else:
        content["split"]["eval_customers"] = 0.4
    if draw.random() < 0.3:
        content["split"]["embargo_days"] = draw.choice([0, 1])
    if "assignments" in content["snapshots"] and draw.random() < 0.4:
        del content["split"]["test_from"]  # the held-out customers are the test
    if "assignments" not in content["snapshots"]:
        content["sampling"] = {"negative_rate": draw.choice([1.0, 0.5])}
    content["privacy"] = {"min_customers": draw.choice([1, 2, 3])}

    others, other_types = None, {}
    if draw.random() < 0.6:
        dated, since = draw.random() < 0.6, time_type(draw)
        customer_column = draw.choice([CUSTOMER, "who"])
        others = [
            {
                customer_column: maybe(draw, draw.choice(ids), 0.04),
                "since": maybe(draw, in_type(draw, moment, since), 0.04),
                "country": maybe(draw, draw.choice(["FR", "DE", ""])),
                "age": maybe(draw, draw.choice([20, 40, 60])),
                "consent": maybe(draw, draw.random() < 0.6),
            }
            for moment in moments(draw, draw.randrange(1, 8), start)
        ]
        if not dated:  # one row a customer, or the same once more
            of = {row[customer_column]: row for row in others if row[customer_column] is not None}
            others = [row if row[customer_column] is None else of[row[customer_column]] for row in others]
        other_types = {
            customer_column: types[CUSTOMER],
            "since": since,
            "country": pa.string(),
            "age": pa.int64(),
            "consent": pa.bool_(),
        }
        content["customer"] = {
            "table": "others",
            "categorical": ["country"],
            "numeric": draw.choice([["age"], [{"column": "age", "max": 50}], []]),
        }
        content["customer"] |= {"valid_from": "since"} if dated else {"static": True}
        if customer_column != CUSTOMER:
            content["customer"]["customer"] = customer_column
    assignments, assignment_types = None, None
    if assigns:
        content["campaigns"], assignments, assignment_types = drawn_assignments(
            draw, [*ids, new_id(ids)], types[CUSTOMER], start
        )
        if draw.random() < 0.15:  # a plain e-mail test: nothing is known of anyone before the assignments
            for event in events:
                if event[TIME] is not None and kind != pa.string():
                    event[TIME] += dt.timedelta(days=40)
    if "camp" in content["sequence"]["categorical"] and draw.random() < 0.5:
        content.setdefault("campaigns", {})["column"] = "camp"
    eligible = {}
    if others is not None and draw.random() < 0.6:
        eligible["where"], names, holds["eligible.where"] = draw.choice(CUSTOMERS)
        used["subjects"] += names
    if draw.random() < 0.4:
        eligible["after_event"], names, holds["eligible.after_event"] = draw.choice(AFTER)
        used["events"] += names
    if eligible:
        content["eligible"] = eligible
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    predict_as_of = draw.choice(moments(draw, 1, start)) if draw.random() < 0.15 else None
    return Case(
        spec=parse_spec(text),
        text=text,
        events=events,
        others=others,
        holds=holds,
        predicate_columns={table: sorted(set(names)) for table, names in used.items()},
        event_types=types | FIELD_TYPES,
        other_types=other_types,
        predict_as_of=predict_as_of,
        predict=predict_as_of is not None,
        assignments=assignments,
        assignment_types=assignment_types,
    )


def new_id(ids: list) -> object:
    """Of a customer whom only assignments know."""
    return "only assigned" if isinstance(ids[0], str) else 99


def drawn_assignments(draw: random.Random, ids: list, id_type, start: dt.datetime) -> tuple[dict, list[dict], dict]:
    """The campaigns block, and rows of the assignments table: doubled, contradictory, late, broken ones among them."""
    when, flag = time_type(draw), draw.choice([pa.bool_(), pa.int8(), pa.string()])
    answers = {pa.bool_(): [True, False], pa.int8(): [0, 1, 0, 1, 0, 1, 2]}.get(
        flag, ["1", "0", " TRUE ", "False", "", "perhaps"]
    )
    rows = [
        {
            CUSTOMER: maybe(draw, draw.choice(ids), 0.04),
            "promo": maybe(draw, draw.choice(["x", "y", "z z", ""] if draw.random() < 0.3 else ["x", "y"]), 0.04),
            "drawn at": maybe(draw, in_type(draw, moment, when), 0.04),
            "in": maybe(draw, draw.choice(answers), 0.04),
        }
        for moment in moments(draw, draw.randrange(1, 25), start)
    ]
    rows += [dict(draw.choice(rows)) for _ in range(draw.randrange(4))]
    rows += [draw.choice(rows) | {"in": draw.choice(answers)} for _ in range(draw.randrange(2))]
    draw.shuffle(rows)
    block = {
        "assignments": {
            "table": "lots",
            "customer": CUSTOMER,
            "campaign": "promo",
            "time": "drawn at",
            "treated": "in",
            "randomised": draw.choice([True, False, ["x"]]),
            "share": draw.choice([1.0, 1.0, 0.5]),
            "consequences": draw.choice([[], ["mail"]]),
        }
    }
    return block, rows, {CUSTOMER: id_type, "promo": pa.string(), "drawn at": when, "in": flag}
