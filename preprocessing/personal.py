"""Values that look like personal data in columns that become features: they stop the run, unless the spec allows it.

Looked at are the distinct values of every categorical column, as journeys.sql has read them, before any journey is
made.
SQL picks what could be one of the kinds, by letters and lengths alone; the patterns below decide.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from preprocessing.cli import UserError, visible
from preprocessing.engine import Queried
from preprocessing.spec import AnySpec, EventsSpec

if TYPE_CHECKING:
    from preprocessing.tables import Table

MOST = 200_000  # distinct values of a column that are looked at, of those that could be one of the kinds
_SHOWN = 40  # letters of an example
_WORDS = 12  # of free text; a product's name or a campaign's has fewer
_SENTENCE = 8  # words on end, with a full stop among them
_BY_CHANCE = 0.3  # of a column's long numbers one in ten passes Luhn's check, and one in ten begins with 0
_ENOUGH = 10

_MAIL = re.compile(r"[^\s@<>()\"',;:?&=/]+(?:@|%40)(?:[a-z0-9-]+\.)+[a-z]{2,}", re.IGNORECASE)
_DOTTED = re.compile(r"(?:^|//|[\s=(\[])((?:\d{1,3}\.){3}\d{1,3})(?=$|[:/\s)\],;])")
_CARD = re.compile(r"(?<![\w.-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{5})(?![\w.-])")
_PLAIN_CARD = re.compile(r"(?:4\d{15}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6(?:011|5\d\d|4[4-9]\d)\d{12})")
_INTERNATIONAL = re.compile(r"(?:^|[\s:(])(?:\+|tel:\+?)[1-9](?:[ ()/.-]{0,2}\d){7,14}(?!\d)")
_NATIONAL = re.compile(r"\(0?[1-9]\d{1,4}\)[ -]?\d{2,4}(?:[ -]?\d{2,5}){1,3}|0[1-9]\d{0,3}(?:[ ./-]\d{2,8}){1,5}")
_AMERICAN = re.compile(r"(?:1[ .-])?[2-9]\d\d([ .-])[2-9]\d\d\1\d{4}")
_NUMERIC = re.compile(r"[\d ()./-]{7,}")
_CALLED = re.compile(r"phone|mobile|cellular|telefon|msisdn|(?:^|_)tel(?:$|_)", re.IGNORECASE)
_STEPS = re.compile(r"\s[>|/»:]\s|[>|;]")  # between the steps of a category's path

# What could be one of the kinds, in words that both engines know: an @, many digits, three dots, colons, or length.
_COULD_BE = (
    "STRPOS(value, '@') > 0 OR STRPOS(value, '%40') > 0"
    " OR LENGTH(value) - LENGTH(TRANSLATE(value, '0123456789', '')) >= 7"
    " OR LENGTH(value) - LENGTH(REPLACE(value, '.', '')) >= 3"
    " OR LENGTH(value) - LENGTH(REPLACE(value, ':', '')) >= 2"
    " OR LENGTH(value) - LENGTH(REPLACE(value, ' ', '')) >= 5"
)


@dataclass(frozen=True)
class Field:
    """A column that becomes a feature: the spec's key, its name, and how journeys.sql calls table and column."""

    key: str
    name: str
    source: str
    relation: str
    column: str


def fields_of(spec: AnySpec) -> list[Field]:
    """Every categorical column that the spec names."""
    found = [
        Field("sequence.categorical", name, "events", "events_read", f"c{i}")
        for i, name in enumerate(spec.sequence.categorical)
    ]
    if isinstance(spec, EventsSpec):
        source, key, own = "customers", "customer.categorical", spec.customer.categorical if spec.customer else ()
    else:
        source, key, own = "journeys", "journeys.categorical", spec.journeys.categorical
    found += [Field(key, name, source, "subjects_read", f"k{i}") for i, name in enumerate(own)]
    if spec.assignments is not None:
        key, name = "campaigns.assignments.campaign", spec.assignments.campaign
        found.append(Field(key, name, "assignments", "assignments_read", "campaign"))
    return found


def check_personal(connection: Queried, spec: AnySpec, tables: Mapping[str, Table]) -> None:
    """Raises UserError, a line a column, where values look like personal data and the spec does not allow it."""
    looked = [f for f in fields_of(spec) if f.name not in spec.privacy.allow and f.source in tables]
    if not looked:
        return
    parts = [
        f"(SELECT '{number}' AS field, value, n FROM (SELECT {field.column} AS value, COUNT(*) AS n "
        f"FROM {field.relation} WHERE problem = 0 GROUP BY 1) AS held WHERE {_COULD_BE} LIMIT {MOST})"
        for number, field in enumerate(looked)
    ]
    values: dict[str, dict[str, int]] = {str(number): {} for number in range(len(looked))}
    for number, value, rows in connection.execute(" UNION ALL ".join(parts)).fetchall():
        values[number][value] = rows
    told = [
        line
        for field, held in zip(looked, values.values(), strict=True)
        if (line := _told(field, tables[field.source].place, held))
    ]
    if told:
        raise UserError("\n".join(told))


def _told(field: Field, place: str, held: Mapping[str, int]) -> str | None:
    found = suspicious(held, field.name)
    if not found:
        return None
    counts = Counter(found.values())
    kind = min(counts, key=lambda kind: (-counts[kind], kind))
    example = min(value for value in found if found[value] == kind)
    least = "at least " if len(held) >= MOST else ""
    more = ", ".join(f"{n} like {other}" for other, n in sorted(counts.items()) if other != kind)
    return (
        f"{place}: {field.key}: column {field.name!r}: {least}{counts[kind]} distinct values look like {kind} "
        f"({masked(example)}, in {held[example]} rows){f', {more}' if more else ''}; expected no personal data: leave "
        f"the column out, or make something coarser of it in a query, or, if it is none, allow it: "
        f"privacy: {{allow: [{visible(field.name)}]}}"
    )


def suspicious(values: Iterable[str], column: str) -> dict[str, str]:
    """The values that look like personal data, each with its kind in words.

    A number may be a code as well as a card's or a telephone's: those without a form of their own count only where a
    column holds more of them than chance would have it.
    """
    found, doubtful, numbers = {}, {}, 0
    called = _CALLED.search(column) is not None
    for value in values:
        kind = kind_of(value)
        if kind is not None:
            found[value] = kind
            continue
        if _NUMERIC.fullmatch(value.strip()):
            numbers += 1
            if kind := _doubtful(value.strip(), called):
                doubtful[value] = kind
    if numbers < _ENOUGH or len(doubtful) > _BY_CHANCE * numbers:
        found |= doubtful
    return found


def kind_of(value: str) -> str | None:
    """What a value looks like by its form alone, in the plural; None for none of it."""
    if _MAIL.search(value):
        return "e-mail addresses"
    if _is_address(value):
        return "IP addresses"
    if any(_luhn(card[0]) for card in _CARD.finditer(value)):
        return "card numbers"
    if _INTERNATIONAL.search(value):
        return "telephone numbers"
    if _is_text(value):
        return "free text"
    return None


def _doubtful(value: str, called: bool) -> str | None:
    digits = re.sub(r"\D", "", value)
    if _PLAIN_CARD.fullmatch(value) and _luhn(value):
        return "card numbers"
    if 9 <= len(digits) <= 12 and (_NATIONAL.fullmatch(value) or _AMERICAN.fullmatch(value)):
        return "telephone numbers"
    return "telephone numbers" if called and 7 <= len(digits) <= 15 else None


def _is_address(value: str) -> bool:
    """IPv4, but for four small numbers, which are a version's; IPv6 with enough groups to be nothing else."""
    for dotted in _DOTTED.findall(value):
        parts = [int(part) for part in dotted.split(".")]
        if max(parts) < 256 and max(parts) >= 32 and parts[0] > 0:
            return True
    if value.count(":") < 2:
        return False
    try:
        address = ipaddress.IPv6Address(value.strip("[] ").partition("%")[0])
    except ValueError:
        return False
    return len([group for group in value.split(":") if group]) >= 4 or address.is_link_local


def _luhn(card: str) -> bool:
    digits = [int(digit) for digit in card if digit.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_text(value: str) -> bool:
    """Many words on end, or a sentence. The steps of a category's path are each taken for itself."""
    for part in _STEPS.split(value):
        words = [word for word in part.split() if any(letter.isalpha() for letter in word)]
        if len(words) >= _WORDS:
            return True
        if len(words) >= _SENTENCE and re.search(r"[a-z][.!?](?:\s|$)", part):
            return True
    return False


def masked(value: str) -> str:
    """Letters as x and digits as 9, the first few: as set_aside.parquet shows values."""
    shown = "".join("9" if c.isnumeric() else "x" if c.isalpha() else c for c in value[:_SHOWN])
    return repr(shown + ("…" if len(value) > _SHOWN else ""))
