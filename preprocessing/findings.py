"""What is to be seen of journeys before any training: counts and rates, made by DuckDB.

Nothing of a single customer comes out: a value or a cell that fewer than k customers share is counted among the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.blocks import RARE
from preprocessing.dialect import duckdb_files, duckdb_text, table_name
from preprocessing.spec import DAY_US, AnySpec, EventsSpec

if TYPE_CHECKING:
    import duckdb

OTHER, NONE, START = "all other", "none", "(start)"
MOST_SERIES = 6
STEPS = 4  # of a path, the last ones


@dataclass(frozen=True)
class Rate:
    """A conversion rate of a cell: with its 95 % interval, over journeys of so many customers."""

    name: str
    journeys: int
    customers: int
    rate: float
    low: float
    high: float


def touch_field(spec: AnySpec) -> str:
    """The categorical field that a touch is told by: channel where there is one, else the first; "" without any."""
    names = spec.sequence.categorical
    return next((name for name in names if name.lower() == "channel"), names[0] if names else "")


def k_of(spec: AnySpec) -> int:
    return spec.privacy.min_customers


class Journeys:
    """Findings from the journeys that preprocessing would make of the events: those of train, eval and test."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, directory: Path, spec: AnySpec) -> None:
        self.connection, self.spec, self.k = connection, spec, k_of(spec)
        source = f"read_parquet({duckdb_files(directory.glob('part-*.parquet'))})"
        span = spec.gap_days + spec.primary_horizon
        field = touch_field(spec)
        touches = table_name(field) if field else "CAST([] AS VARCHAR[])"
        # what the field does not name is no touch; repeats at once are one step of a path
        connection.execute(
            "CREATE TEMP TABLE journeys AS SELECT customer_key, split, as_of, len(event_time) AS length, "
            f"observed_days >= {span} AS known, "
            f"coalesce(days_to_conversion < {spec.primary_horizon}, false) AS converted, "
            "days_to_conversion, observed_days, "
            f"list_transform(list_filter({touches}, lambda value: value <> ''), lambda value: CASE WHEN value = "
            f"{duckdb_text(RARE)} THEN {duckdb_text(OTHER)} ELSE value END) AS touches FROM {source} "
            "WHERE split IN ('train', 'eval', 'test')"
        )
        self.source = source

    def lengths(self) -> list[tuple[int, int]]:
        """(length, journeys)."""
        return self.connection.execute("SELECT length, count(*) FROM journeys GROUP BY 1 ORDER BY 1").fetchall()

    def by_split(self) -> list[dict[str, Any]]:
        """Journeys, customers, conversions and rate at each horizon, of the journeys whose horizon was observed."""
        parts = []
        for split in ("train", "eval", "test"):
            row = self.connection.execute(
                "SELECT count(*), count(DISTINCT customer_key), coalesce(avg(length), 0) FROM journeys WHERE split = ?",
                [split],
            ).fetchone()
            assert row is not None
            one: dict[str, Any] = {
                "split": split,
                "journeys": row[0],
                "customers": row[1],
                "length": row[2],
                "rates": [],
            }
            for horizon in self.spec.horizons_days:
                found = self.connection.execute(
                    f"SELECT count(*), count_if(coalesce(days_to_conversion < {horizon}, false)) FROM journeys "
                    f"WHERE split = ? AND observed_days >= {self.spec.gap_days + horizon}",
                    [split],
                ).fetchone()
                assert found is not None
                one["rates"].append(
                    {"horizon": horizon, "known": found[0], "converted": found[1], "rate": found[1] / max(found[0], 1)}
                )
            parts.append(one)
        return parts

    def first_touch(self) -> list[Rate]:
        return self._rates(f"coalesce(touches[1], {duckdb_text(NONE)})")

    def last_touch(self) -> list[Rate]:
        return self._rates(f"coalesce(touches[-1], {duckdb_text(NONE)})")

    def number_of_touches(self) -> list[Rate]:
        """By the number of touches: 0, 1, 2, then doubling."""
        cell = "CASE WHEN len(touches) = 0 THEN -1 ELSE CAST(floor(log2(len(touches))) AS INT) END"
        found = self._rates(f"CAST({cell} AS VARCHAR)", most=20)
        found.sort(key=lambda one: math.inf if one.name == OTHER else int(one.name))
        return [replace(one, name=_counted(one.name, self.spec.sequence.max_events)) for one in found]

    def paths(self, most: int = 10) -> list[Rate]:
        """The most common last STEPS steps of a journey, and how often they end in a conversion."""
        return self._rates(f"coalesce(nullif(array_to_string({_last()}, ' → '), ''), {duckdb_text(NONE)})", most)

    def flows(self) -> list[tuple[int, str, str, int]]:
        """(step, from, to, journeys) between neighbouring steps of the last STEPS, the outcome last: of train."""
        if not self._has_values():
            return []
        values = [row[0] for row in self.connection.execute(
            "SELECT value FROM (SELECT unnest(touches) AS value, customer_key FROM journeys WHERE split = 'train') "
            f"GROUP BY 1 HAVING count(DISTINCT customer_key) >= {self.k} ORDER BY count(*) DESC, 1 LIMIT {MOST_SERIES}"
        ).fetchall()]  # fmt: skip
        listed = "[" + ", ".join(map(duckdb_text, values)) + "]"
        step = f"CASE WHEN list_contains({listed}, step) THEN step ELSE {duckdb_text(OTHER)} END"
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE steps AS SELECT list_transform({_last()}, lambda step: {step}) AS path, "
            "converted, customer_key FROM journeys WHERE known AND split = 'train'"
        )
        pairs = []
        for i in range(STEPS):
            back = STEPS - i
            here = f"coalesce(CASE WHEN len(path) >= {back} THEN path[-{back}] END, {duckdb_text(START)})"
            following = (
                f"coalesce(CASE WHEN len(path) >= {back - 1} THEN path[-{back - 1}] END, {duckdb_text(START)})"
                if back > 1
                else "CASE WHEN converted THEN 'converts' ELSE 'does not' END"
            )
            pairs.append(
                f"SELECT {i} AS step, {here} AS source, {following} AS target, count(*) AS n FROM steps "
                f"GROUP BY 2, 3 HAVING count(DISTINCT customer_key) >= {self.k}"
            )
        return self.connection.execute(" UNION ALL ".join(pairs) + " ORDER BY 1, 2, 3").fetchall()

    def by_snapshot(self) -> list[Rate]:
        """The label rate at the primary horizon by as_of, or by month where there are more than 60 of them."""
        if not isinstance(self.spec, EventsSpec):
            return []
        row = self.connection.execute("SELECT count(DISTINCT as_of) FROM journeys").fetchone()
        assert row is not None
        day = "as_of" if row[0] <= 60 else "date_trunc('month', as_of)"
        found = self._rates(f"strftime({day}, '%Y-%m-%d')", most=1000, split="")
        return sorted((one for one in found if one.name != OTHER), key=lambda one: one.name)

    def single_features(self, most: int = 50_000) -> list[dict[str, Any]]:
        """Each simple feature of a train journey and the ROC-AUC that it reaches alone, the best first; [] where too
        few convert. Of more than `most` journeys those with the smallest journey_id are looked at."""
        import numpy as np

        from preprocessing.single_feature import FEWEST_CONVERSIONS, binned, rate_auc

        spec = self.spec
        features = {"number of events": "len(event_time)"}
        if isinstance(spec, EventsSpec):
            features["days since the last event"] = f"(epoch_us(as_of) - epoch_us(event_time[-1])) / {DAY_US}.0"
        for name in spec.sequence.categorical:
            features[f"last {name}"] = f"dense_rank() OVER (ORDER BY {table_name(name)}[-1])"
            features[f"share of {name} missing"] = (
                f"len(list_filter({table_name(name)}, lambda v: v = '')) / nullif(len(event_time), 0)"
            )
        for name in spec.sequence_numeric:
            there = f"list_filter({table_name(name)}, lambda v: NOT isnan(v))"
            features[f"mean of {name}"] = f"list_avg({there})"
            features[f"last {name}"] = f"({there})[-1]"
            features[f"share of {name} missing"] = f"1 - len({there}) / nullif(len(event_time), 0)"
        for name in spec.customer_categorical:
            features[name] = f"dense_rank() OVER (ORDER BY {table_name(name)})"
        for name in spec.customer_numeric:
            features[name] = table_name(name)
        held = self.connection.execute(
            f"WITH chosen AS (SELECT * FROM {self.source} WHERE split = 'train' AND observed_days >= "
            f"{spec.gap_days + spec.primary_horizon} ORDER BY journey_id LIMIT {most}) SELECT "
            f"coalesce(days_to_conversion < {spec.primary_horizon}, false) AS y, hash(customer_key) % 2 AS half, "
            + ", ".join(f"CAST({sql} AS DOUBLE) AS f{i}" for i, sql in enumerate(features.values()))
            + " FROM chosen"
        ).fetchnumpy()
        converted, half = np.asarray(held["y"], dtype=bool), np.asarray(held["half"]).astype(np.int64)
        if min(int(converted.sum()), int((~converted).sum())) < FEWEST_CONVERSIONS:
            return []
        found = []
        for i, name in enumerate(features):
            column = np.ma.filled(np.ma.asarray(held[f"f{i}"], dtype=np.float64), np.nan)
            found.append({"feature": name, "roc_auc": rate_auc(binned(column.astype(np.float32)), converted, half)})
        return sorted(found, key=lambda one: (-one["roc_auc"], one["feature"]))

    def _has_values(self) -> bool:
        row = self.connection.execute("SELECT count(*) FROM journeys WHERE len(touches) > 0").fetchone()
        assert row is not None
        return bool(row[0])

    def _rates(self, cell: str, most: int = MOST_SERIES + 2, split: str = "train") -> list[Rate]:
        """Rates by cell, the most common first; cells of fewer than k customers, and those after `most`, as OTHER."""
        where = f" AND split = '{split}'" if split else ""
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE cells AS SELECT cell, customer_key, count(*) AS n, count_if(converted) AS y "
            f"FROM (SELECT {cell} AS cell, customer_key, converted FROM journeys WHERE known{where}) GROUP BY 1, 2"
        )
        rows = self.connection.execute(
            f"WITH sized AS (SELECT cell, count(*) AS customers, sum(n) AS n FROM cells GROUP BY 1), "
            f"named AS (SELECT cell FROM sized WHERE customers >= {self.k} ORDER BY n DESC, cell LIMIT {most}), "
            f"folded AS (SELECT CASE WHEN named.cell IS NULL THEN {duckdb_text(OTHER)} ELSE cells.cell END AS cell, "
            "customer_key, sum(n) AS n, sum(y) AS y FROM cells LEFT JOIN named USING (cell) GROUP BY 1, 2), "
            "rates AS (SELECT cell, sum(y) / sum(n) AS rate FROM folded GROUP BY 1) "
            "SELECT cell, sum(n), count(*), any_value(rate), sum((y - rate * n) ** 2) FROM folded "
            f"JOIN rates USING (cell) GROUP BY 1 HAVING count(*) >= {self.k} "
            f"ORDER BY cell = {duckdb_text(OTHER)}, sum(n) DESC, cell"
        ).fetchall()
        return [
            Rate(name, int(n), customers, rate, *wilson(rate, n, customers, spread))
            for name, n, customers, rate, spread in rows
        ]


def wilson(rate: float, journeys: float, customers: int, spread: float) -> tuple[float, float]:
    """A 95 % interval of a rate over journeys of which several may be one customer's: Wilson's, at the number of
    independent journeys that vary as much as the customers do.

    spread: sum over customers of (converted - rate * journeys)^2, whose quotient by journeys^2 is the variance of the
    ratio estimator (Cochran, Sampling Techniques, 3rd ed., section 6.3). Without any, the customers are what counts.
    """
    from statsmodels.stats.proportion import proportion_confint

    variance = spread / journeys**2
    n = rate * (1 - rate) / variance if variance > 0 else float(customers)
    low, high = proportion_confint(rate * n, n, method="wilson")
    return float(low), float(high)


def _last() -> str:
    """SQL: the last STEPS steps of the touches, repeats at once taken for one."""
    steps = "list_filter(touches, lambda value, i: i = 1 OR value <> touches[i - 1])"
    return f"({steps})[-{STEPS}:]"


def doubled(power: int, most: int) -> str:
    """The numbers from 2^power to below the next power of two, or to `most`, in words: 4-7."""
    low, high = 2**power, min(2 ** (power + 1) - 1, most)
    return f"{low}-{high}" if low < high else f"{low}"


def _counted(name: str, most: int) -> str:
    if name == OTHER:
        return name
    return "0" if int(name) < 0 else doubled(int(name), most)
