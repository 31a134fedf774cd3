"""Journeys in slow, obvious Python: dicts, loops, no SQL. It is the truth that journeys.sql is held to.

Predicates come as Python functions of a row (and of the context), beside the SQL that the spec has for them; they
answer True, False or None, as SQL does.
"""

# ruff: noqa: PLR0911, PLR0912, PLR0915, PLR0917 - long and plain on purpose: what is said once in one place is easy to check

from __future__ import annotations

import datetime as dt
import math
from collections import Counter, defaultdict

from preprocessing.spec import EventsSpec
from tests.preprocessing.reference_values import (
    DAY,
    blank,
    context_text,
    digest,
    instant,
    micros,
    none_first,
    numbers_of,
    plain,
    share,
    sign,
    text,
    truth,
)

FOREVER = 10**18
TRAIN = ("train", "assigned_train")
KEPT = ("train", "eval", "test", "predict", "assigned_train", "assigned")


def ranked(events, drop):
    """Events of each customer in order, numbered by their place; of duplicates one stays."""
    by_customer = defaultdict(list)
    for event in events:
        by_customer[event["id"]].append(event)
    result, duplicates = {}, 0
    for customer, told in by_customer.items():
        own = sorted(told, key=lambda e: e["order"])
        unique = [e for i, e in enumerate(own) if i == 0 or e["order"] != own[i - 1]["order"]]
        result[customer] = unique if drop else own
        duplicates += len(own) - len(result[customer])
    return result, duplicates


def read_events(spec, rows, columns_of_predicates):
    names, good, set_aside = spec.events, [], Counter()
    for row in rows:
        values, bad_number = numbers_of(row, spec.sequence.numeric)
        customer, time = row[names.customer], micros(row[names.time])
        available = micros(row[names.available]) if names.available else time
        if customer is None or customer == "":
            set_aside["null customer"] += 1
        elif blank(row[names.time]):
            set_aside["null time"] += 1
        elif time is None:
            set_aside["unparsable time"] += 1
        elif not micros(dt.date(1900, 1, 1)) <= time < micros(dt.date(2200, 1, 1)):
            set_aside["absurd time"] += 1
        elif bad_number:
            set_aside[bad_number] += 1
        elif names.available and blank(row[names.available]):
            set_aside["null available"] += 1
        elif available is None:
            set_aside["unparsable available"] += 1
        else:
            categories = [text(row[c]) for c in spec.sequence.categorical]
            order = (
                time,
                none_first(plain(row[names.order])) if names.order else None,
                available,
                *categories,
                *map(none_first, values),
                *(none_first(plain(row[c])) for c in columns_of_predicates),
            )
            good.append(
                {"id": str(customer), "time": time, "seen": max(time, available), "order": order, "row": row}
                | {"categories": categories, "numbers": values, "rank": order}
            )
    return good, set_aside


def read_customers(spec, rows, columns_of_predicates):
    good, set_aside = defaultdict(list), Counter()
    block = spec.customer
    for row in rows:
        values, bad_number = numbers_of(row, block.numeric)
        customer = row[block.customer or spec.events.customer]
        valid = micros(row[block.valid_from]) if block.valid_from else -FOREVER
        if customer is None or customer == "":
            set_aside["null customer"] += 1
        elif block.valid_from and blank(row[block.valid_from]):
            set_aside["null time"] += 1
        elif valid is None:
            set_aside["unparsable time"] += 1
        elif bad_number:
            set_aside[bad_number] += 1
        else:
            categories = [text(row[c]) for c in block.categorical]
            order = (
                valid,
                *categories,
                *map(none_first, values),
                *(none_first(plain(row[c])) for c in columns_of_predicates),
            )
            good[str(customer)].append(
                {"valid": valid, "categories": categories, "numbers": values, "row": row, "order": order}
            )
    return {customer: sorted(own, key=lambda r: r["order"]) for customer, own in good.items()}, set_aside


def read_assignments(names, rows):
    """[(customer, time, campaign, treated)], each once, and what became of the other rows."""
    told, set_aside = defaultdict(list), Counter()
    for row in rows:
        customer, campaign, time = row[names.customer], row[names.campaign], micros(row[names.time])
        treated = truth(row[names.treated])
        if customer is None or customer == "":
            set_aside["null customer"] += 1
        elif campaign is None or campaign == "":
            set_aside["null campaign"] += 1
        elif blank(row[names.time]):
            set_aside["null time"] += 1
        elif time is None:
            set_aside["unparsable time"] += 1
        elif not micros(dt.date(1900, 1, 1)) <= time < micros(dt.date(2200, 1, 1)):
            set_aside["absurd time"] += 1
        elif blank(row[names.treated]):
            set_aside["null treated"] += 1
        elif treated is None:
            set_aside["unreadable treated"] += 1
        else:
            told[str(customer), time, text(campaign)].append(int(treated))
    good, duplicates = [], 0
    for (customer, time, campaign), answers in told.items():
        if len(set(answers)) > 1:
            set_aside["contradictory treated"] += len(answers)
        else:
            good.append((customer, time, campaign, answers[0]))
            duplicates += len(answers) - 1
    return good, set_aside, duplicates


def build(spec: EventsSpec, events, customers, key, holds, predicate_columns, *, predict_as_of=None, assignments=None):
    """(rows of the journeys table in order, summary) for raw rows of the events, customer and assignments tables."""
    good, set_aside = read_events(spec, events, predicate_columns["events"])
    by_customer, duplicates = ranked(good, spec.events.duplicates == "drop")
    people, customers_aside = ({}, Counter())
    if customers is not None:
        people, customers_aside = read_customers(spec, customers, predicate_columns["subjects"])
    predict = predict_as_of is not None
    until = FOREVER if predict else micros(spec.data_until)
    lookback, gap = spec.lookback_us, spec.gap_days * DAY
    shortest, longest = gap + spec.horizons_days[0] * DAY, gap + spec.horizons_days[-1] * DAY
    context_columns = spec.snapshots.context

    asked = []  # customer, as_of, context row, assignment
    for customer in sorted(set(by_customer) | set(people)):
        own, versions = by_customer.get(customer, []), people.get(customer, [])
        if spec.snapshots.at is None:
            for at in [predict_as_of] if predict else spec.snapshots.instants:
                as_of = micros(at)
                if any(e["seen"] < as_of for e in own) or any(v["valid"] < as_of for v in versions):
                    asked.append((customer, as_of, None, None))
        else:
            first = predict_as_of or spec.snapshots.first
            last = None if predict else spec.snapshots.last
            seen = set()
            for e in own:
                if holds["snapshots.at"](e["row"]) is not True or e["time"] >= until:
                    continue
                if (first and e["time"] < micros(first)) or (last and e["time"] > micros(last)):
                    continue
                identity = (e["time"], *(context_text(e["row"][c]) for c in context_columns))
                if identity not in seen:
                    seen.add(identity)
                    asked.append((customer, e["time"], e, None))
    assigns = spec.assignments is not None
    told, told_aside, told_twice = [], Counter(), 0
    if assigns and not predict:
        told, told_aside, told_twice = read_assignments(spec.campaigns.assignments, assignments)
        asked += [(customer, time, None, (campaign, treated)) for customer, time, campaign, treated in told]

    journeys = []
    for customer, as_of, trigger, assignment in asked:
        own, versions = by_customer.get(customer, []), people.get(customer, [])
        current = [v for v in versions if v["valid"] < as_of]
        eligible = True
        if spec.eligible.where:
            eligible = bool(current) and holds["eligible.where"](current[-1]["row"]) is True
        if spec.eligible.after_event:
            eligible &= any(holds["eligible.after_event"](e["row"]) is True and e["seen"] < as_of for e in own)
        bucket = digest(spec.split.salt, customer)
        held_out = not predict and bucket < share(spec.split.holdout_customers)
        context = {c: trigger["row"][c] for c in context_columns} if trigger else {}
        context = {c: None if v == "" else plain(v) for c, v in context.items()}
        fate = fate_of(spec, as_of, eligible, held_out, bucket, until, shortest) if not predict else "predict"
        if predict and not eligible:
            fate = "ineligible"
        if assignment and fate != "ineligible":
            part = share(spec.assignments.share)
            if digest(spec.split.salt, "assignment", customer, str(as_of), assignment[0]) >= part:
                fate = "sampled_out"
            elif as_of > until:
                fate = "unobserved"
            elif spec.snapshots.assignments:
                fate = fate if fate in ("train", "eval", "test") else "assigned"
            else:
                fate = "assigned_train" if fate == "train" else "assigned"
        window = [e for e in own if as_of - lookback <= e["time"] < as_of and e["seen"] < as_of]
        label = None
        since = None
        if fate in KEPT and not predict:
            for e in own:
                if e["time"] < as_of and holds["conversion.where"](e["row"], context) is True:
                    since = (as_of - e["time"]) / DAY
            for e in own:
                if as_of + gap <= e["time"] < until and holds["conversion.where"](e["row"], context) is True:
                    label = e
                    break
        scalars = (current[-1]["categories"], current[-1]["numbers"]) if current else None
        if scalars is None and spec.customer is not None:
            scalars = ([""] * len(spec.customer.categorical), [None] * len(spec.customer.numeric))
        categories, numbers = scalars or ([], [])
        if trigger:
            at = spec.sequence.categorical
            categories = categories + [trigger["categories"][at.index(c)] for c in context_columns if c in at]
            at = spec.sequence_numeric
            numbers = numbers + [trigger["numbers"][at.index(c)] for c in context_columns if c in at]
        if assigns:
            campaign, treated = assignment or ("", -1)
            categories = [*categories, campaign if treated == 1 else ""]
        wire = (
            "\x1f".join([customer, str(as_of), *(context_text(trigger["row"][c]) for c in context_columns)])
            if (trigger)
            else f"{customer}\x1f{as_of}"
        )
        if assignment:
            wire += "\x1f" + assignment[0]
        journeys.append(
            {"id": customer, "as_of": as_of, "fate": fate, "held_out": held_out, "window": window, "label": label}
            | {"categories": categories, "numbers": numbers, "wire": wire, "max_events": spec.sequence.max_events}
            | {"days": None if label is None else (label["time"] - as_of - gap) / DAY}
            | {"observed": 0.0 if predict else (until - as_of) / DAY, "weight": 1.0, "since": since}
            | {"assignment": assignment or ("", -1), "current": current[-1] if current else None}
        )

    rate = spec.sampling.negative_rate
    for j in journeys:
        if predict or j["fate"] not in TRAIN or rate >= 1 or j["as_of"] + longest > until:
            continue
        negative = j["label"] is None or j["label"]["time"] >= j["as_of"] + longest
        if negative and j["assignment"][0]:
            j["weight"] = rate
        elif negative and digest(spec.split.salt, "negative", j["id"], str(j["as_of"])) >= share(rate):
            j["fate"] = "sampled_out"
    known = None if predict else known_values(spec, journeys, by_customer, lookback)
    summary = summarise(events, by_customer, journeys, set_aside, duplicates)
    if customers is not None:
        summary["tables"] = {
            "customers": {
                "read": len(customers),
                **places_of_customers(people, journeys),
                "set_aside": dict(customers_aside),
            }
        }
    if assigns and not predict:
        summary.setdefault("tables", {})["assignments"] = {
            "read": len(assignments), "set_aside": dict(told_aside), "duplicate": told_twice,
            **places_by_fate([j for j in journeys if j["assignment"][0]]),
        }  # fmt: skip
    return table(spec, journeys, key, known), summary


def fate_of(spec, as_of, eligible, held_out, bucket, until, shortest):
    split, embargo = spec.split, spec.embargo_days * DAY
    observed = as_of + shortest <= until
    if not eligible:
        return "ineligible"
    if split.test_from is None:
        if not observed:
            return "unobserved"
        is_eval = bucket < share(split.holdout_customers + split.eval_customers)
        return "test" if held_out else "eval" if is_eval else "train"
    test_from = micros(split.test_from)
    if as_of >= test_from:
        return "test" if observed else "unobserved"
    if split.eval_from is not None:
        is_eval = as_of >= micros(split.eval_from)
        next_part = test_from if is_eval else micros(split.eval_from)
    else:
        is_eval = bucket < share(split.holdout_customers + split.eval_customers)
        next_part = test_from
    if as_of + embargo > next_part:
        return "embargo"
    if held_out:
        return "held_out"
    if not observed:
        return "unobserved"
    return "eval" if is_eval else "train"


def known_values(spec, journeys, by_customer, lookback):
    """The categorical values, by field, that at least min_customers train customers hold."""
    as_ofs = defaultdict(list)
    holders = defaultdict(set)
    for j in journeys:
        if j["fate"] in TRAIN:
            as_ofs[j["id"]].append(j["as_of"])
            for field, value in zip(spec.customer_categorical, j["categories"], strict=True):
                holders[field, value].add(j["id"])
    for customer, own in as_ofs.items():
        for e in by_customer.get(customer, []):
            is_held = True if lookback is None else e["seen"] < max(own) and e["time"] >= min(own) - lookback
            if lookback is None and spec.first_events:
                is_held = e in by_customer[customer][: spec.first_events]
            if is_held:
                for field, value in zip(spec.sequence.categorical, e["categories"], strict=True):
                    holders[field, value].add(customer)
    return {item for item, who in holders.items() if len(who) >= spec.privacy.min_customers}


def summarise(events, by_customer, journeys, set_aside, duplicates):
    kept = [j for j in journeys if j["fate"] in KEPT]
    places = Counter()
    for customer, own in by_customer.items():
        mine = [j for j in kept if j["id"] == customer]
        refused = [j for j in journeys if j["id"] == customer and j["fate"] == "ineligible"]
        features = {id(seen) for j in mine for seen in last_events(j)}
        windows = {id(seen) for j in mine for seen in j["window"]}
        refused_windows = {id(seen) for j in refused for seen in j["window"]}
        for e in own:
            feature = id(e) in features
            label = any(e is j["label"] for j in mine)
            places["used_as_feature"] += feature
            places["used_as_conversion"] += label
            if feature or label:
                places["used"] += 1
            elif id(e) in windows:
                places["truncated"] += 1
            elif id(e) in refused_windows:
                places["ineligible"] += 1
            else:
                places["outside_windows"] += 1
    names = ("used", "used_as_feature", "used_as_conversion", "truncated", "ineligible", "outside_windows")
    fates = Counter(j["fate"] for j in journeys)
    return {
        "events": {"read": len(events), **{n: places[n] for n in names}}
        | {"duplicate": duplicates, "set_aside": dict(set_aside)},
        "journeys": {
            "considered": len(journeys),
            "kept": {f: n for f, n in fates.items() if f in KEPT},
            "dropped": {f: n for f, n in fates.items() if f not in KEPT},
        },
    }


def places_by_fate(journeys):
    """Rows that each are a journey, by what became of it."""
    places = Counter("used" if j["fate"] in KEPT else j["fate"] for j in journeys)
    return {"used": 0, **places}


def places_of_customers(people, journeys):
    """Rows of the customer table by the journeys that read them as the current one."""
    places = {"used": 0, "ineligible": 0, "outside_windows": 0}
    for versions in people.values():
        for v in versions:
            fates = {j["fate"] for j in journeys if j["current"] is v}
            used = fates & set(KEPT)
            places["used" if used else "ineligible" if "ineligible" in fates else "outside_windows"] += 1
    return places


def last_events(journey):
    return journey["window"][-journey["max_events"] :]


def table(spec, journeys, key, known):
    def shown(field, value):
        return value if value == "" or known is None or (field, value) in known else "__rare__"

    def missing(value):
        return math.nan if value is None else value

    rows = []
    for j in journeys:
        if j["fate"] not in KEPT:
            continue
        steps = last_events(j)
        row = {
            "journey_id": sign(key, j["wire"]),
            "customer_key": sign(key, j["id"]),
            "as_of": instant(j["as_of"]),
            "split": j["fate"],
            "held_out": j["held_out"],
        }
        for i, name in enumerate(spec.sequence.categorical):
            row[name] = [shown(name, e["categories"][i]) for e in steps]
        for i, name in enumerate(spec.sequence_numeric):
            row[name] = [missing(e["numbers"][i]) for e in steps]
        row["event_time"] = [instant(e["time"]) for e in steps]
        for name, value in zip(spec.customer_categorical, j["categories"], strict=True):
            row[name] = shown(name, value)
        for name, value in zip(spec.customer_numeric, j["numbers"], strict=True):
            row[name] = missing(value)
        row |= {"days_to_conversion": j["days"], "observed_days": j["observed"], "weight": j.get("weight", 1.0)}
        if spec.assignments is not None:
            campaign, treated = j["assignment"]
            row |= {"assigned_campaign": campaign, "treated": treated, "days_since_conversion": j["since"]}
        rows.append(row)
    return sorted(rows, key=lambda r: (r["customer_key"], r["as_of"], r["journey_id"]))
