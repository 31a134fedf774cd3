"""One side of a double run: its scores on the journeys, and of each journey without one, why."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deploy.population import Population
from preprocessing.cli import UserError

Floats = NDArray[np.float64]
MISSING, ERROR, UNASKED = "missing", "error", "unasked"
KINDS = ("probability", "rank")
PERCENTILES = (50, 95, 99)  # of latency
_PROBABILITY = re.compile(r"p_(\d+)d")


@dataclass
class Scored:
    """The scores of a side on n journeys.

    source, title: as given, and what it is; kind: "probability", or "rank" where only the order of scores means
    something; values: {horizon: float64 [n]}, NaN without a score; code: int16 [n], 0 where scored, else an index into
    `reasons`, each (MISSING, ERROR or UNASKED, text); strays: what was scored but pairs with no journey, a table
    of journey_id, customer_key, as_of (int64 µs) and reason; counts, timing, latency: for comparison.json.
    """

    source: str
    title: str
    kind: str
    version: str | None
    values: dict[int, Floats]
    code: NDArray[np.int16]
    reasons: list[tuple[str, str]]
    strays: pa.Table
    counts: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    logged: bool = False  # a live run's log, which holds the journeys that were mirrored and no others

    def give_reason(self, rows: NDArray[Any], kind: str, text: str) -> None:
        """Takes the scores of `rows` (indices or mask) away, for this reason."""
        if (kind, text) not in self.reasons:
            self.reasons.append((kind, text))
        self.code[rows] = self.reasons.index((kind, text))
        for values in self.values.values():
            values[rows] = np.nan

    def rows_of(self, kind: str) -> NDArray[np.bool_]:
        """bool [n]: which journeys lack a score for a reason of this kind."""
        codes = [i for i, (one, _) in enumerate(self.reasons) if one == kind]
        return np.isin(self.code, codes)

    def refuse_impossible(self) -> None:
        """Turns scores that are no number, and probabilities outside [0, 1], into errors, and counts what there is."""
        scored = self.code == 0
        for values in self.values.values():
            self.give_reason(scored & ~np.isfinite(values), ERROR, "the score is no number")
            scored = self.code == 0
            if self.kind == "probability":
                self.give_reason(scored & ((values < 0) | (values > 1)), ERROR, "the score is not within [0, 1]")
                scored = self.code == 0
        self.counts |= {
            "journeys": int((~self.rows_of(UNASKED)).sum()),
            "scored": int(scored.sum()),
            "missing": int(self.rows_of(MISSING).sum()),
            "errors": int(self.rows_of(ERROR).sum()),
            "strays": self.strays.num_rows,
            "reasons": {
                text: int((self.code == i).sum())
                for i, (_, text) in enumerate(self.reasons)
                if i and (self.code == i).any()
            },
        }


def leave_out_unasked(sides: dict[str, Scored]) -> int:
    """Where both sides are logs of a live run, the journeys in neither were never mirrored, and say nothing of either.

    They are told apart from what a side owes, counted and listed. Returns how many.
    """
    if not all(side.logged for side in sides.values()):
        return 0
    neither = np.all([side.rows_of(MISSING) for side in sides.values()], axis=0)
    for side in sides.values():
        side.give_reason(neither, UNASKED, "in neither log: it was not mirrored")
        side.refuse_impossible()
    return int(neither.sum())


STRAY = pa.schema(
    [("journey_id", pa.string()), ("customer_key", pa.string()), ("as_of", pa.int64()), ("reason", pa.string())]
)


def from_table(
    table: pa.Table, journeys: Population, *, source: str, title: str, kind: str, key: bytes | None = None
) -> Scored:
    """Pairs a table of scores with the journeys, by journey_id or else by customer_key and as_of.

    table: journey_id | customer_key + as_of | customer_id + as_of (with the key of the HMAC), and p_<h>d; as_of is a
    timestamp, a date, or text of either, UTC; model_version, and status and latency_ms of a log of a live run, where
    they are there. A p_<h>d without any number is left out, unless all are. Several rows for one journey count once
    where their scores agree; where they differ none is taken.
    Raises UserError where a column is missing or no key can tell two journeys of the population apart.
    """
    horizons = sorted(int(found[1]) for name in table.column_names if (found := _PROBABILITY.fullmatch(name)))
    if not horizons:
        raise UserError(
            f"{source}: no column p_<days>d; it has {', '.join(table.column_names)}; name the score's column with a "
            "flag such as --incumbent_column p_30d=score"
        )
    keys, wanted = _keys(source, table, journeys, key)
    scores = {h: _numbers(source, table, f"p_{h}d") for h in horizons}
    # a horizon that no row has is none of this model's: a live log has the columns of both sides
    scores = {h: values for h, values in scores.items() if np.isfinite(values).any()} or scores
    horizons = [*scores]
    place = pc.index_in(keys, value_set=wanted)
    known = place.is_valid().to_numpy(zero_copy_only=False)
    rows = pc.fill_null(place, 0).to_numpy(zero_copy_only=False).astype(np.int64)

    side = Scored(
        source,
        title,
        kind,
        _one_version(table),
        {h: np.full(len(journeys), np.nan) for h in horizons},
        np.zeros(len(journeys), dtype=np.int16),
        [("", ""), (MISSING, "no row in the table")],
        _strays(table, keys, ~known),
    )
    side.code[:] = 1
    whole = np.all([np.isfinite(values) for values in scores.values()], axis=0)
    taken = np.concatenate([np.flatnonzero(known & ~whole), np.flatnonzero(known & whole)])
    at = rows[taken]
    last = np.full(len(journeys), -1, dtype=np.int64)
    last[at] = taken  # of several rows for a journey one with a score: a server may have failed, and then answered
    for h in horizons:
        side.values[h][at] = scores[h][last[at]]
    side.code[at] = 0
    different = np.zeros(len(taken), dtype=bool)
    for h in horizons:
        different |= whole[taken] & (scores[h][taken] != scores[h][last[at]])
    conflicting = np.unique(at[different])
    side.give_reason(conflicting, ERROR, "several rows with different scores")
    _take_log(side, table, taken, at, whole)
    side.counts = {
        "rows": table.num_rows,
        "repeated_rows": int(len(taken) - len(np.unique(at))),
        "conflicting_journeys": len(conflicting),
    }
    side.refuse_impossible()
    return side


def _take_log(side: Scored, table: pa.Table, taken: NDArray[Any], at: NDArray[Any], whole: NDArray[np.bool_]) -> None:
    """What a log of a live run holds beside the scores: why there is none (`status`), and `latency_ms`."""
    if "status" in table.column_names:
        side.logged = True
        status = table["status"].cast(pa.string()).combine_chunks().take(pa.array(taken))
        without = (~whole[taken]) & (side.code[at] == 0) & np.isnan(next(iter(side.values.values()))[at])
        for text in pc.unique(status.filter(pa.array(without))).to_pylist():
            same = pc.fill_null(pc.equal(status, text), text is None).to_numpy(zero_copy_only=False)
            side.give_reason(at[without & same], ERROR, f"status: {text}")
    if "latency_ms" in table.column_names:
        milliseconds = _numbers(side.source, table, "latency_ms")[taken]
        found = milliseconds[np.isfinite(milliseconds)]
        errors = int((~whole[taken]).sum())
        if len(found):
            side.latency = {
                "requests": len(taken),
                **{f"p{p}_ms": float(np.percentile(found, p)) for p in PERCENTILES},
                "mean_ms": float(found.mean()),
                "errors": errors,
                "error_rate": errors / len(taken),
                "origin": "as logged beside the scores",
            }


def renamed(source: str, flag: str, table_columns: list[str], mapping: list[str]) -> dict[str, str]:
    """{column in the table: name here} from flags such as p_30d=score. Raises UserError for one that is not there."""
    found = {}
    for text in mapping:
        name, sign, column = text.partition("=")
        if not (name and sign and column):
            raise UserError(f"{flag} {text!r}: expected NAME=COLUMN, such as p_30d=score")
        if not (name in ("journey_id", "customer_key", "customer_id", "as_of") or _PROBABILITY.fullmatch(name)):
            raise UserError(
                f"{flag} {text!r}: expected p_<days>d, journey_id, customer_key, customer_id or as_of before '='"
            )
        if column not in table_columns:
            raise UserError(f"{flag} {text!r}: {source} has no column {column!r}; it has {', '.join(table_columns)}")
        found[column] = name
    return found


def _keys(source: str, table: pa.Table, journeys: Population, key: bytes | None) -> tuple[pa.Array, pa.Array]:
    """The key of each row of the table, and of each journey, as strings."""
    outcomes = journeys.outcomes
    if "journey_id" in table.column_names:
        return _text(table["journey_id"]), outcomes.journey_id
    if "as_of" not in table.column_names or not {"customer_key", "customer_id"} & set(table.column_names):
        raise UserError(
            f"{source}: expected journey_id, or customer_key (or customer_id, with --key_file) and as_of; it has "
            f"{', '.join(table.column_names)}"
        )
    if "customer_key" in table.column_names:
        customer = _text(table["customer_key"])
    elif key is None:
        raise UserError(f"{source}: customer_id pairs with customer_key through its key: expected --key_file")
    else:
        customer = _hashed(_text(table["customer_id"]), key)
    keys = pc.binary_join_element_wise(customer, _times(source, table["as_of"]).cast(pa.string()), "@")
    wanted = pc.binary_join_element_wise(outcomes.customer_key, pa.array(outcomes.as_of).cast(pa.string()), "@")
    several = len(wanted) - pc.count_distinct(wanted).as_py()
    if several:
        raise UserError(f"{source}: customer and as_of of {several:,} journeys are another's, too; expected journey_id")
    return keys, wanted


def _text(column: pa.ChunkedArray) -> pa.Array:
    return column.cast(pa.string()).combine_chunks()


def _hashed(customers: pa.Array, key: bytes) -> pa.Array:
    from preprocessing.keys import customer_key

    encoded = customers.dictionary_encode()
    of_each = pa.array([customer_key(key, one) for one in encoded.dictionary.to_pylist()], pa.string())
    return of_each.take(encoded.indices)


def _times(source: str, column: pa.ChunkedArray) -> pa.Array:
    """int64 UTC microseconds, of timestamps, dates or ISO text; without a zone they are UTC."""
    kind = column.type
    try:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            import datetime as dt

            encoded = column.combine_chunks().dictionary_encode()
            instants = [
                None if one is None else dt.datetime.fromisoformat(one) for one in encoded.dictionary.to_pylist()
            ]
            utc = [one and (one.astimezone(dt.UTC) if one.tzinfo else one.replace(tzinfo=dt.UTC)) for one in instants]
            column = pa.chunked_array([pa.array(utc, pa.timestamp("us", "UTC")).take(encoded.indices)])
        elif pa.types.is_timestamp(kind) and kind.tz is None:
            column = column.cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
        elif not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            raise ValueError(f"found {kind}")
        micros = column.cast(pa.timestamp("us")) if pa.types.is_date(kind) else column.cast(pa.timestamp("us", "UTC"))
        return micros.cast(pa.int64()).combine_chunks()
    except ValueError as error:  # Arrow's ArrowInvalid is one, too
        raise UserError(f"{source}: as_of: expected times or dates such as 2026-06-01; {error}") from None


def _numbers(source: str, table: pa.Table, name: str) -> Floats:
    """float64 [rows], NaN for null."""
    try:
        return np.asarray(pc.fill_null(table[name].cast(pa.float64()), np.nan).to_numpy(), dtype=np.float64)
    except pa.ArrowInvalid as error:
        raise UserError(f"{source}: {name}: expected numbers: {error}") from None


def _one_version(table: pa.Table) -> str | None:
    """The model version that the table names, where it names one only."""
    if "model_version" not in table.column_names:
        return None
    versions = [one for one in pc.unique(table["model_version"]).to_pylist() if one is not None]
    return str(versions[0]) if len(versions) == 1 else None


def _strays(table: pa.Table, keys: pa.Array, stray: NDArray[np.bool_]) -> pa.Table:
    """The keys of rows that belong to no journey; ids of customers are shown hashed only."""
    chosen = keys.filter(pa.array(stray))
    if "journey_id" in table.column_names:
        parts = {"journey_id": chosen}
    else:
        pair = [("" if one is None else one).rpartition("@") for one in chosen.to_pylist()]
        parts = {
            "customer_key": pa.array([customer or None for customer, _, _ in pair], pa.string()),
            "as_of": pa.array([int(time) if time else None for _, _, time in pair], pa.int64()),
        }
    reason = pa.array(["no such journey"] * len(chosen), pa.string())
    return pa.table(
        [parts.get(name, pa.nulls(len(chosen), STRAY.field(name).type)) for name in STRAY.names[:-1]] + [reason],
        schema=STRAY,
    )
