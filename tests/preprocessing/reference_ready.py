"""The reference for ready-made journeys: one row a journey, its label beside it, events in seconds since its start."""

# ruff: noqa: PLR0912, PLR0915 - long and plain on purpose

import datetime as dt
import math
from collections import Counter

from preprocessing.blocks import HashSplit
from preprocessing.spec import JourneysSpec
from tests.preprocessing.reference import known_values, places_by_fate, ranked, summarise, table
from tests.preprocessing.reference_values import (
    blank,
    digest,
    micros,
    none_first,
    number,
    numbers_of,
    plain,
    seconds_in_micros,
    share,
    text,
)


def build(spec: JourneysSpec, events, sessions, key, holds, *, predict=False):
    """(rows of the journeys table in order, summary) for raw rows of the events table and of the journeys table."""
    good, set_aside = [], Counter()
    names = spec.events
    for row in events:
        values, bad_number = numbers_of(row, spec.sequence.numeric)
        seconds, time = row[names.seconds], seconds_in_micros(row[names.seconds])
        if row[names.journey] is None or row[names.journey] == "":
            set_aside["null journey"] += 1
        elif blank(seconds) or (isinstance(seconds, float) and math.isnan(seconds)):
            set_aside["null time"] += 1
        elif isinstance(seconds, str) and (number(seconds)[0] is None):
            set_aside["unparsable time"] += 1
        elif time is None or not micros(dt.date(1900, 1, 1)) <= time < micros(dt.date(2200, 1, 1)):
            set_aside["absurd time"] += 1
        elif bad_number:
            set_aside[bad_number] += 1
        else:
            categories = [text(row[c]) for c in spec.sequence.categorical]
            order = (time, none_first(plain(row[names.order])) if names.order else None, *categories)
            order = (*order, *map(none_first, values))
            good.append({"id": str(row[names.journey]), "time": time, "order": order, "row": row})
            good[-1] |= {"categories": categories, "numbers": values}
    by_journey, duplicates = ranked(good, names.duplicates == "drop")
    journeys, aside = [], Counter()
    split = spec.journeys.split
    for row in sessions:
        values, bad_number = numbers_of(row, spec.journeys.numeric)
        if row[spec.journeys.journey] is None or row[spec.journeys.journey] == "":
            aside["null journey"] += 1
            continue
        if bad_number:
            aside[bad_number] += 1
            continue
        journey = str(row[spec.journeys.journey])
        own = by_journey.get(journey, [])
        first = own[: spec.first_events] if spec.first_events else own
        as_of = (first[-1]["time"] if first else 0) + 1
        label = None if predict else row[spec.journeys.label] in (1, True)
        if spec.journeys.where and holds["journeys.where"](row) is not True:
            fate = "ineligible"
        elif predict:
            fate = "predict"
        elif isinstance(split, HashSplit):
            bucket = digest(split.salt, journey)
            fate = "train" if bucket >= share(split.test + split.eval) else "eval"
            fate = "test" if bucket < share(split.test) else fate
        else:
            parts = {split.test: "test", split.eval: "eval", split.train: "train"}
            fate = parts.get(text(row[split.column]), "outside_split")
        journeys.append(
            {"id": journey, "as_of": as_of, "fate": fate, "held_out": False, "window": first, "label": None}
            | {"categories": [text(row[c]) for c in spec.journeys.categorical], "numbers": values}
            | {"wire": f"{journey}\x1f{as_of}", "days": 0.0 if label else None, "observed": 0.0 if predict else 1.0}
            | {"max_events": spec.sequence.max_events, "positive": label}
        )
    for j in journeys:
        salt = split.salt if isinstance(split, HashSplit) else "v1"
        thinned = digest(salt, "negative", j["id"], str(j["as_of"])) >= share(spec.sampling.negative_rate)
        if thinned and spec.sampling.negative_rate < 1 and j["fate"] == "train" and not j["positive"]:
            j["fate"] = "sampled_out"
    known = None if predict else known_values(spec, journeys, by_journey, None)
    for j in journeys:  # beyond the first few, events are truncated: they count as in the window, but are not seen
        j["seen"] = j["window"][-spec.sequence.max_events :]
        j["window"] = by_journey.get(j["id"], [])
    summary = summarise_ready(events, by_journey, journeys, set_aside, duplicates)
    summary["tables"] = {"journeys": {"read": len(sessions), **places_by_fate(journeys), "set_aside": dict(aside)}}
    for j in journeys:
        j["window"] = j["seen"]
    return table(spec, journeys, key, known), summary


def summarise_ready(events, by_journey, journeys, set_aside, duplicates):
    fates = {j["id"]: j for j in journeys}
    places = Counter()
    for journey, own in by_journey.items():
        j = fates.get(journey)
        for e in own:
            if j is None or j["fate"] in ("outside_split", "sampled_out"):
                places["outside_windows"] += 1
            elif j["fate"] == "ineligible":
                places["ineligible"] += 1
            elif any(e is seen for seen in j["seen"]):
                places["used"] += 1
                places["used_as_feature"] += 1
            else:
                places["truncated"] += 1
    bare = summarise(events, {}, journeys, set_aside, duplicates)
    bare["events"] |= dict(places)
    return bare
