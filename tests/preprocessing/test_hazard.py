"""The simulated state is a function of the visible events: a plain replay of them, day by day, finds it again."""

import datetime as dt
from collections import defaultdict

import numpy as np
import pytest

from preprocessing import population, simulated
from preprocessing.hazard import Process

CLIMBING = {("search", "product_view", "add_to_cart"), ("search", "product_view")}
FALLING = {("add_to_cart", "product_view", "search"), ("product_view", "search")}
LASTS = {1: 12, 2: 12, 3: 10, 4: 10}


def touched(events, of_cycle):
    """The flags that the day's touches set; brand_display changes nothing."""
    received = {event["campaign"] for event in events if event["event_type"] == "campaign_received"}
    if not received - {"brand_display"}:
        return 0
    return 2 if of_cycle == 7 else 1


def moved(kind, stage, age, clicked, types):
    """The next morning's (kind, stage, days in it) after a day that showed these event types."""
    if "purchase" in types or types == ("call_service",):
        return "refractory" if "purchase" in types else "complaint", 0, 0
    if kind != "stage":
        over = age + 1 == {"refractory": 7, "complaint": 14}[kind]
        return ("stage", 0, 0) if over else (kind, 0, age + 1)
    if types in CLIMBING or (types == ("store_visit",) and clicked):
        return "stage", min(stage + 1, 4), 0
    if types in FALLING:
        return "stage", max(stage - 1, 0), 0
    if stage == 0:
        return "stage", 0, 0
    return ("stage", stage - 1, 0) if age + 1 == LASTS[stage] else ("stage", stage, age + 1)


def replay(events, first, until):
    """(kind, stage, days in it, days left of a click, touches) at midnight of `until`, from one customer's events."""
    kind, stage, age, click, touches = "stage", 0, 0, 0, 0
    for day in (first + dt.timedelta(days=i) for i in range((until - first).days)):
        seen = sorted((e for e in events if e["event_time"].date() == day), key=lambda event: event["event_time"])
        of_cycle = (day - dt.date(2025, 10, 6)).days % 28
        touches = (0 if of_cycle in (0, 14, 21) else touches) | touched(seen, of_cycle)
        types = tuple(event["event_type"] for event in seen if event["campaign"] is None)
        kind, stage, age = moved(kind, stage, age, click > 0, types)
        click = 3 if types == ("email_open", "email_click") else max(click - 1, 0)
    return kind, stage, age, click, touches


def test_state_follows_from_the_visible_events():
    first = dt.date(2025, 10, 1)
    process = Process(first, dt.date(2026, 4, 1), intercept=-8.5)  # buys often, so that refractory days are met
    days = [40, 77, 96, 131, 160, 181]
    rng = np.random.default_rng(11)
    people = population.draw(population.Draws(process), 500, rng, days, lambda: None)
    table = simulated.events_table(population.events_of(process, people, rng), simulated.customer_ids(0, 500, 500))
    by_customer = defaultdict(list)
    for event in table.to_pylist():
        by_customer[int(event["customer_id"][1:])].append(event)
    met = set()
    for i, day in enumerate(days):
        for customer in range(people.size):
            known = process.describe(int(people.state[i, customer]))
            assert replay(by_customer[customer], first, first + dt.timedelta(days=day)) == known
            met.add(known[:2])
    assert met == {("stage", k) for k in range(5)} | {("complaint", 0), ("refractory", 0)}


def test_the_order_of_a_session_is_what_climbs():
    """Forward and backward sessions hold the same events, and come about as often."""
    assert {tuple(sorted(types)) for types in CLIMBING} == {tuple(sorted(types)) for types in FALLING}
    process = Process(dt.date(2025, 10, 1), dt.date(2026, 7, 31))
    rates = defaultdict(float)
    for bundle in process.bundles:
        rates[bundle.effect] += bundle.rate
    climb, fall = (rates[effect] for effect in (1, 2))
    assert climb / fall == pytest.approx(1, abs=0.05)
