"""Both sides' scores held together: what pairs, how far they agree, what they are worth; comparison.json and tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deploy.agreement import agreement, disagreements, percentiles
from deploy.population import Population
from deploy.quality import SIDES, quality
from deploy.scores import STRAY, Floats, Scored
from preprocessing.cli import UserError

_TIME = pa.timestamp("us", "UTC")
_NO_LATENCY = "a table was scored elsewhere: there is no request to time"


def compare(
    journeys: Population,
    sides: dict[str, Scored],
    *,
    horizon: int | None,
    gap_days: int | None,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """comparison.json but for its cost: journeys, horizons, sides, agreement, disagreements, quality.

    horizon, gap_days: as asked for; None: as the journeys' spec says. Raises UserError where the sides share no horizon
    or not one journey has both scores.
    """
    horizons = sorted(set(sides["incumbent"].values) & set(sides["candidate"].values))
    if not horizons:
        offered = (", ".join(map(str, sorted(one.values))) for one in sides.values())
        raise UserError("no horizon in common: incumbent {}, candidate {} days".format(*offered))
    primary = horizon or journeys.primary_horizon
    if primary is None:
        primary = horizons[-1]
        if len(horizons) > 1:
            raise UserError(f"--horizon: the journeys come without a spec; expected one of {_listed(horizons)} days")
    if primary not in horizons:
        raise UserError(f"--horizon: both sides score {_listed(horizons)} days, not {primary}; expected one of these")
    gap = journeys.gap_days if gap_days is None else gap_days
    if gap is None:
        raise UserError("--gap_days: the journeys come without a spec; expected days, 0 where there is no gap")
    rows = paired(sides)
    if not len(rows):
        raise UserError(
            "not one journey has a score of both sides: "
            + "; ".join(f"{side}: {_counted(one)}" for side, one in sides.items())
            + "; are the keys of one key file?"
        )
    outcomes = journeys.outcomes.take(rows)
    kinds = {side: scored.kind for side, scored in sides.items()}
    scores = {side: {h: sides[side].values[h][rows] for h in horizons} for side in SIDES}
    comparable = "rank" not in kinds.values()
    return {
        "journeys": {
            "source": journeys.source,
            "split": journeys.split,
            "count": len(journeys),
            "paired": len(rows),
            "unpaired": len(journeys) - len(rows),
        },
        "horizons_days": horizons,
        "primary_horizon": primary,
        "gap_days": gap,
        "sides": {side: _described(scored) for side, scored in sides.items()},
        "agreement": {
            str(h): agreement(scores["incumbent"][h], scores["candidate"][h], comparable=comparable) for h in horizons
        },
        "disagreements": _disagreements(journeys, rows, scores, primary, gap, comparable=comparable),
        "quality": quality(
            outcomes, scores, kinds, gap=gap, primary=primary, dated=journeys.dated, draws=draws, seed=seed
        ),
    }


def paired(sides: dict[str, Scored]) -> NDArray[np.int64]:
    """int64: the journeys that both sides scored."""
    return np.flatnonzero((sides["incumbent"].code == 0) & (sides["candidate"].code == 0)).astype(np.int64)


def pairs_table(journeys: Population, sides: dict[str, Scored], comparison: dict[str, Any]) -> pa.Table:
    """A row a paired journey: its keys, both sides' p_<h>d, and converted_<h>d, null where it is not known."""
    rows = paired(sides)
    outcomes, gap = journeys.outcomes.take(rows), comparison["gap_days"]
    columns: dict[str, Any] = _keys(journeys, rows)
    for side in SIDES:
        columns |= {f"{side}_p_{h}d": sides[side].values[h][rows] for h in comparison["horizons_days"]}
    for h in comparison["horizons_days"]:
        columns[f"converted_{h}d"] = pa.array(outcomes.converted(h), mask=~outcomes.known(h, gap))
    return pa.table(columns)


def unpaired_table(journeys: Population, sides: dict[str, Scored]) -> pa.Table:
    """A row for each side and journey that lacks a score, and for each score that belongs to no journey.

    side, journey_id, customer_key, as_of (null where the score's table did not say), what: "missing", "error",
    "unasked" or "stray", reason.
    """
    tables = []
    for side, scored in sides.items():
        rows = np.flatnonzero(scored.code).astype(np.int64)
        whats, reasons = zip(*scored.reasons, strict=True)
        codes = pa.array(scored.code[rows])
        tables.append(
            pa.table(
                {
                    "side": pa.array([side] * len(rows), pa.string()),
                    **_keys(journeys, rows),
                    "what": pa.array(whats, pa.string()).take(codes),
                    "reason": pa.array(reasons, pa.string()).take(codes),
                }
            )
        )
        stray = scored.strays
        columns = {name: stray[name] for name in STRAY.names}
        columns["as_of"] = stray["as_of"].cast(_TIME)
        count = stray.num_rows
        columns |= {"side": pa.array([side] * count, pa.string()), "what": pa.array(["stray"] * count, pa.string())}
        tables.append(pa.table({name: columns[name] for name in tables[-1].column_names}))
    return pa.concat_tables(tables)


def _keys(journeys: Population, rows: NDArray[np.int64]) -> dict[str, Any]:
    taken = journeys.outcomes.take(rows)
    return {
        "journey_id": taken.journey_id,
        "customer_key": taken.customer_key,
        "as_of": pa.array(taken.as_of).cast(_TIME),
    }


def _described(scored: Scored) -> dict[str, Any]:
    return {
        "source": scored.source,
        "title": scored.title,
        "kind": scored.kind,
        "model_version": scored.version,
        "live": scored.timing is not None or scored.latency is not None,
        "horizons_days": sorted(scored.values),
        "counts": scored.counts,
        "timing": scored.timing,
        "latency": scored.latency,
        "latency_reason": None
        if scored.latency
        else (_NO_LATENCY if scored.timing is None else "not measured: --latency_requests is 0"),
    }


def _disagreements(
    journeys: Population,
    rows: NDArray[np.int64],
    scores: dict[str, dict[int, Floats]],
    primary: int,
    gap: int,
    *,
    comparable: bool,
) -> dict[str, Any]:
    """The largest differences at the primary horizon; of percentiles where one side only ranks. Keys, no field."""
    one, other = (scores[side][primary] for side in SIDES)
    shown = (one, other) if comparable else (percentiles(one), percentiles(other))
    outcomes = journeys.outcomes.take(rows)
    known, converted = outcomes.known(primary, gap), outcomes.converted(primary)
    return {
        "of": "probability" if comparable else "percentile",
        "journeys": [
            {
                "journey_id": outcomes.journey_id[i].as_py(),
                "customer_key": outcomes.customer_key[i].as_py(),
                "as_of": str(np.datetime64(int(outcomes.as_of[i]), "us")) + "Z",
                "events": int(outcomes.length[i]),
                "incumbent": float(shown[0][i]),
                "candidate": float(shown[1][i]),
                "difference": float(shown[1][i] - shown[0][i]),
                "converted": bool(converted[i]) if known[i] else None,
            }
            for i in map(int, disagreements(*shown))
        ],
    }


def _counted(scored: Scored) -> str:
    why = ", ".join(f"{text} ({count:,})" for text, count in scored.counts["reasons"].items())
    return f"{scored.counts['scored']:,} scored{', ' + why if why else ''}"


def _listed(horizons: list[int]) -> str:
    return ", ".join(map(str, horizons))
