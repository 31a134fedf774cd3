"""Guesses at the part that each column of a table plays, by its name and by what it holds; each with its reason."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass
from keyword import iskeyword

from preprocessing.cli import visible
from preprocessing.profile import NUMERIC, TIMES, Column, Profile
from preprocessing.spec import RESERVED

MOST_CATEGORIES = 1000
MOST_KEYS = 100  # values of an identifier that is a feature nonetheless: shops, campaigns
FEW = 20  # values of a number that has a kind's name
_CUSTOMER = re.compile(
    r"customer|client|user|visitor|household|member|shopper|buyer|subscriber|account|contact|person|card", re.I
)
_ID = re.compile(r"(^|_)(id|key|no|nr|num|number|uid|guid|uuid|hash)$|[a-z](Id|ID|Key|No)$", re.I)
_TIME = (
    "event_time",
    "event_timestamp",
    "timestamp",
    "event_ts",
    "ts",
    "time",
    "datetime",
    "occurred_at",
    "event_date",
    "date",
)
_AVAILABLE = re.compile(r"ingest|load|available|received_at|arriv|etl|insert|processed", re.I)
_LATER = re.compile(r"updat|modif|delet|expir|due|deliver|birth|valid", re.I)
_EVENT = ("event_type", "event_name", "eventtype", "eventname", "event", "action", "activity", "type")
_BUYS = re.compile(
    r"purchase|order|transaction|bought|buy|sale\b|conver|redeem|subscri|sign_?up|checkout_complete|booking", re.I
)
_UNDOES = re.compile(r"cancel|return|refund|view|click|abandon|sampled|add|start|begin", re.I)
_OUTCOME = re.compile(
    r"^(is_|has_|was_)?(convert|conversion|purchased|bought|label|target|outcome|churn|redeemed|responded)", re.I
)
_KIND = re.compile(r"(type|category|code|kind|class|status|group|segment|level|channel|store|department)(_?id)?$", re.I)
_SECONDS = re.compile(r"^(t|t_s|secs?|seconds?|elapsed|offset)$|(^|_)(seconds|secs|elapsed|offset)(_|$)", re.I)
_PERSONAL = re.compile(
    r"e_?-?mail(_?address|_?addr|_?hash)?$|phone|mobile|(first|last|full|given|family|sur|middle|customer|user|nick)_?names?$|^names?$|"
    r"street|(^|_)address|post_?(al_?)?code|(^|_)zip|birth|(^|_)dob$|iban|passport|(^|_)ssn$|(^|_)ip(_?addr.*)?$|latitude|longitude",
    re.I,
)  # fmt: skip
_FREE = re.compile(r"comment|message|(^|_)notes?$|(^|_)text$|free_?text|feedback|subject_line|(^|_)body$", re.I)
_EPOCHS = {"TIMESTAMP_SECONDS": 1, "TIMESTAMP_MILLIS": 1_000, "TIMESTAMP_MICROS": 1_000_000}
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Guess:
    """What was chosen ("" where nothing fits), why, and what came next ("" where nothing did)."""

    chosen: str
    because: str
    runner_up: str = ""

    @property
    def comment(self) -> str:
        return visible(f"{self.because}; {f'next: {self.runner_up}' if self.runner_up else 'no other candidate'}")


def personal(column: Column) -> str:
    """Why the column looks like personal data or free text; "" where it does not."""
    if column.personal:
        return f"looks like {column.personal}"
    if _PERSONAL.search(column.name):
        return "its name says personal data"
    if _FREE.search(column.name) and column.kind == "STRING" and column.distinct > FEW:
        return "its name says free text"
    return "looks like free text" if column.words >= 4 and column.distinct > MOST_CATEGORIES / 10 else ""


def is_customer(name: str) -> bool:
    """Whether a column or a table is named like customers."""
    return bool(_CUSTOMER.search(name))


def time(profile: Profile) -> Guess:
    """The time of the event: full, named like one, the finest."""
    found = []
    for column in profile.columns:
        if column.kind not in TIMES or column.low is None or column.filled < 0.5:
            continue
        points = 3.0 * column.filled + _rank(column.name, _TIME) + (column.kind != "DATE")
        points -= 4.0 * bool(_AVAILABLE.search(column.name)) + 3.0 * bool(_LATER.search(column.name))
        found.append(
            (
                points,
                column,
                f"{column.kind}, {100 * column.filled:.0f} % filled, {_day(column.low)} to {_day(column.high)}",
            )
        )
    return _best(found)


def epoch(profile: Profile) -> tuple[str, str, int]:
    """(an INT64 column that counts since 1970, GoogleSQL's function that reads it, units a second), or ("", "", 1)."""
    for column in profile.columns:
        if column.kind != "INT64" or not re.search(r"time|date|(^|_)ts|_at$|epoch", column.name, re.I):
            continue
        for function, unit in _EPOCHS.items():
            low, high = (dt.datetime(year, 1, 1, tzinfo=dt.UTC).timestamp() * unit for year in (1995, 2100))
            if column.low is not None and column.low >= low and column.high < high:
                return column.name, function, unit
    return "", "", 1


def available(profile: Profile, chosen: str) -> str:
    """When a row could first be read: another full time, named so."""
    names = [c.name for c in profile.columns if c.kind in TIMES and c.filled == 1 and _AVAILABLE.search(c.name)]
    return next((name for name in names if name != chosen), "")


def customer(profile: Profile) -> Guess:
    """The customer: an id that returns, named like one."""
    found = []
    for column in profile.columns:
        if column.kind not in ("STRING", "INT64") or column.filled < 0.5 or not column.distinct >= 2:
            continue
        each = profile.rows * column.filled / column.distinct
        is_named, is_id = bool(_CUSTOMER.search(column.name)), bool(_ID.search(column.name))
        if not (is_named or is_id) or _rank(column.name, _EVENT) or (is_id and not is_named and each < 1.2):
            continue
        if personal(column) and not column.personal:
            continue
        points = 4.0 * is_named + 2.0 * is_id + column.filled + (each >= 1.2) + (column.distinct > FEW)
        points -= 3.0 * bool(personal(column))
        found.append((points, column, f"{column.kind}, about {column.distinct:,} of them with {each:.1f} events each"))
    return _best(found)


def event_type(profile: Profile, taken: Iterable[str]) -> Guess:
    """What kind of event a row is: a text of few values, named like one."""
    found = [
        (_rank(c.name, _EVENT) + 2.0 * any(map(_BUYS.search, c.values)), c, f"{c.distinct} values")
        for c in profile.columns
        if c.kind == "STRING" and c.values and c.distinct > 1 and c.name not in taken and not personal(c)
    ]
    return _best([one for one in found if one[0] >= 1.5])


def conversion(profile: Profile, kind: str) -> Guess:
    """The predicate of the conversion: a value of the event type, a flag, or a positive amount."""
    found: list[tuple[float, str, str]] = []
    for column in profile.columns:
        if column.name == kind:
            for value, rows in column.values.items():
                if _BUYS.search(value):
                    points = 5.0 - 2.0 * bool(_UNDOES.search(value)) + value.lower().startswith(("purchase", "order"))
                    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
                    found.append(
                        (points, f"{sql(column.name)} = '{quoted}'", f"{_share(rows, profile.rows)} of the rows")
                    )
        elif (
            column.distinct == 2 and _OUTCOME.search(column.name) and set(column.values) <= {"0", "1", "true", "false"}
        ):
            rows = column.values.get("1", 0) + column.values.get("true", 0)
            truth = sql(column.name) + ("" if column.kind == "BOOL" else " = 1")
            found.append((4.0, truth, f"a flag, set in {_share(rows, profile.rows)} of the rows"))
        elif column.kind in NUMERIC and re.search(r"revenue|amount|order_value|sales|price|total", column.name, re.I):
            sure = 1.0 if kind else 2.0
            found.append(
                (sure, f"{sql(column.name)} > 0", f"a positive amount, in {100 * column.filled:.0f} % of the rows")
            )
    found.sort(key=lambda one: -one[0])
    if not found:
        return Guess("", "no value or flag says purchase, order, conversion or the like")
    return Guess(found[0][1], found[0][2], found[1][1] if len(found) > 1 else "")


def is_outcome(name: str) -> bool:
    """Whether the name says that the column tells the answer."""
    return bool(_OUTCOME.search(name))


def fields(profile: Profile, taken: Iterable[str]) -> tuple[list[str], list[str], dict[str, str]]:
    """(categorical, numeric, why each other column is left out)."""
    categorical, numeric, left = [], [], {}
    for column in profile.columns:
        if column.name in taken:
            continue
        why = personal(column) or _unfit(column, profile.rows)
        if why:
            left[column.name] = why
        elif column.kind in NUMERIC and not (_KIND.search(column.name) and column.values and column.distinct <= FEW):
            numeric.append(column.name)
        else:
            categorical.append(column.name)
    return categorical, numeric, left


def seconds(profile: Profile) -> str:
    """Seconds since the start of a session, for tables without dates."""
    return next(
        (
            c.name
            for c in profile.columns
            if c.kind in NUMERIC and c.low is not None and c.low >= 0 and _SECONDS.search(c.name)
        ),
        "",
    )


def order(profile: Profile) -> str:
    """A column that counts the events of a journey."""
    pattern = re.compile(r"^(seq|sequence|sequence_number|hit_number|position|order_in_session)$", re.I)
    return next((c.name for c in profile.columns if c.kind == "INT64" and c.filled == 1 and pattern.search(c.name)), "")


def label(profile: Profile) -> Guess:
    """A 0/1 or BOOL column that says how a ready-made journey ended."""
    return _best(
        [
            (
                2.0 + bool(_OUTCOME.search(c.name)),
                c,
                f"{_share(c.values.get('1', c.values.get('true', 0)), profile.rows)} of the journeys",
            )
            for c in profile.columns
            if c.kind in ("BOOL", "INT64")
            and set(c.values) in ({"0", "1"}, {"true", "false"})
            and _OUTCOME.search(c.name)
        ]
    )


def split(profile: Profile) -> tuple[str, dict[str, str]]:
    """A column that already divides the journeys, and its values for train, eval and test."""
    calls = {"train": ("train", "training"), "eval": ("val", "valid", "validation", "eval", "dev"), "test": ("test",)}
    for column in profile.columns:
        found = {part: next((v for v in column.values if v.lower() in names), "") for part, names in calls.items()}
        if all(found.values()):
            return column.name, found
    return "", {}


def _unfit(column: Column, rows: int) -> str:
    """Why the column is no feature; "" where it may be one."""
    is_key = bool(_ID.search(column.name)) and not _KIND.search(column.name)
    is_text = column.kind == "STRING"
    is_name = _FIELD.fullmatch(column.name) and column.name.lower() not in RESERVED and not iskeyword(column.name)
    reasons = {
        "another time": column.kind in TIMES,
        f"of type {column.kind}": column.kind not in (*NUMERIC, *TIMES, "STRING", "BOOL"),
        "its name cannot be a field's; rename it in a query (table: SELECT … AS …)": not is_name
        or column.name.endswith("_missing"),
        "its name says that it tells the outcome": is_outcome(column.name),
        "always empty": column.filled == 0,
        "always the same": column.distinct <= 1 and column.filled == 1,
        f"an identifier of about {column.distinct:,} values": is_key and (not is_text or column.distinct > MOST_KEYS),
        f"about {column.distinct:,} different texts": is_text and column.distinct > MOST_CATEGORIES,
        "nearly every row has its own": is_text and rows > FEW and column.distinct > rows / 2,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _best(found: list[tuple[float, Column, str]]) -> Guess:
    found = sorted(found, key=lambda one: -one[0])
    if not found:
        return Guess("", "no column fits")
    return Guess(found[0][1].name, found[0][2], found[1][1].name if len(found) > 1 else "")


def _rank(name: str, known: tuple[str, ...]) -> float:
    """3 for the best known name, less for later ones, 0.5 where the name only holds one."""
    lower = name.lower()
    if lower in known:
        return 3.0 - known.index(lower) / len(known)
    return 0.5 if any(len(one) > 3 and one in lower for one in known) else 0.0


def sql(name: str) -> str:
    """The name as GoogleSQL takes it."""
    return name if _FIELD.fullmatch(name) else f"`{name}`"


def _share(rows: int, of: int) -> str:
    return f"{100 * rows / of:.3g} %"


def _day(instant: dt.datetime) -> str:
    return f"{instant:%Y-%m-%d}"
