"""Every mistake in a spec is one line with file, line, key and what was expected."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.cli import UserError
from preprocessing.spec import EventsSpec, JourneysSpec, load_spec, parse_spec

SPEC = """\
events:      {table: events, customer: customer_id, time: event_time, available: ingest_time}
sequence:    {categorical: [event_type, channel, campaign], numeric: [amount], max_events: 64}
customer:    {table: customers, valid_from: updated_at, categorical: [segment], numeric: [age]}
eligible:    "country = 'FR' AND consent"
conversion:  {where: "event_type = 'purchase'", gap_days: 0, horizons_days: [7, 14, 30], primary_horizon: 30}
snapshots:   {first: 2026-01-05, last: 2026-06-29, every_days: 7, lookback_days: 90}
data_until:  2026-07-31
split:       {eval_from: 2026-04-06, test_from: 2026-06-01, holdout_customers: 0.2, salt: v1}
sampling:    {negative_rate: 1.0}
campaigns:   {column: campaign, assignments: {table: assignments, customer: customer_id, campaign: campaign,
              time: assigned_at, treated: treated, consequences: [email_open, email_click]}}
"""
READY = """\
journeys: {table: sessions, journey: session_id, label: converted, split: {column: split0, eval: val}}
events: {table: pages, journey: session_id, seconds: t_s, order: seq, first: 5}
sequence: {categorical: [page_type], max_events: 5}
"""
DAY = dt.timedelta(days=1)


def utc(*day):
    return dt.datetime(*day, tzinfo=dt.UTC)


def test_every_block_is_read():
    spec = parse_spec(SPEC)
    assert isinstance(spec, EventsSpec)
    assert spec.snapshots.instants[:2] == (utc(2026, 1, 5), utc(2026, 1, 12))
    assert spec.snapshots.instants[-1] == utc(2026, 6, 29)
    assert len(spec.snapshots.instants) == 26
    assert spec.lookback_us == 90 * 86_400_000_000
    assert spec.customer_categorical == (
        "segment",
        "asked_campaign",
    )  # the campaign asked about is a field of a journey
    assert spec.splits == ("train", "eval", "test", "assigned_train", "assigned")
    assert spec.train_splits == ("train", "assigned_train")
    assert spec.customer_numeric == ("age",)
    assert spec.eligible.where == "country = 'FR' AND consent"
    assert spec.embargo_days == 30
    assert spec.campaigns.assignments.consequences == ("email_open", "email_click")
    assert not spec.assignments.is_randomised("x")  # by default nobody drew lots


@pytest.mark.parametrize(
    ("written", "drawn", "not_drawn"), [("true", ["x", "y"], []), ("false", [], ["x"]), ("[x]", ["x"], ["y"])]
)
def test_for_which_campaigns_lots_were_drawn(written, drawn, not_drawn):
    found = parse_spec(SPEC.replace("treated: treated", f"treated: treated, randomised: {written}")).assignments
    assert all(found.is_randomised(campaign) for campaign in drawn)
    assert not any(found.is_randomised(campaign) for campaign in not_drawn)


GRID = "{first: 2026-01-05, last: 2026-06-29, every_days: 7, lookback_days: 90}"


def test_predictions_at_assignments_only():
    text = SPEC.replace(GRID, "{assignments: true, lookback_days: 90}").replace("column: campaign, ", "")
    with pytest.raises(UserError, match=r"s:9: sampling.negative_rate: no journey at an assignment is thinned"):
        parse_spec(text.replace("negative_rate: 1.0", "negative_rate: 0.5"), "s")
    spec = parse_spec(text.replace("eval_from: 2026-04-06, test_from: 2026-06-01", "eval_customers: 0.2"))
    assert spec.snapshots.instants == ()
    assert spec.splits == ("train", "eval", "test", "assigned")
    assert spec.split.test_from is None  # the held-out customers are the test


def test_ready_made_form():
    spec = parse_spec(READY)
    assert isinstance(spec, JourneysSpec)
    assert (spec.horizons_days, spec.primary_horizon, spec.gap_days, spec.first_events) == ((1,), 1, 0, 5)
    assert spec.journeys.split.eval == "val"


def test_snapshots_at_events_bring_context_fields():
    text = SPEC.replace(
        "{first: 2026-01-05, last: 2026-06-29, every_days: 7, lookback_days: 90}",
        "{at: \"event_type = 'sent'\", context: [campaign, amount, sender], lookback_days: 90}",
    ).partition("campaigns:")[0]
    spec = parse_spec(text)
    assert spec.customer_categorical == ("segment", "context_campaign")
    assert spec.customer_numeric == (
        "age",
        "context_amount",
    )  # `sender` is no sequence field: for conversion.where only


def test_dates_are_midnight_utc_and_zones_are_honoured():
    text = SPEC.replace("data_until:  2026-07-31", "data_until: 2026-07-31T02:00:00+02:00")
    assert parse_spec(text).data_until == utc(2026, 7, 31)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("eval_from: 2026", "eval_form: 2026", "s.yaml:8: split.eval_form: unknown key; did you mean 'eval_from'?"),
        ("sampling:  ", "sampel:", "s.yaml:9: sampel: unknown key; did you mean 'sampling'?"),
        ("customer: customer_id, time: event_time, a", "customer: customer_id, a", "s.yaml:1: events.time: missing"),
        ("max_events: 64", "max_events: many", "s.yaml:2: sequence.max_events: expected a valid integer, got 'many'"),
        ("max_events: 64", "max_events: 0", "s.yaml:2: sequence.max_events: expected greater than 0, got 0"),
        ("[segment]", "segment", "s.yaml:3: customer.categorical: expected a list, got 'segment'"),
        ("numeric: [age]", "numeric: [{column: age, max: old}]", "s.yaml:3: customer.numeric.0.max: expected a valid"),
        ("valid_from: updated_at,", "", "s.yaml:3: customer: expected either valid_from (a column) or static: true"),
        ("[7, 14, 30]", "[7, 30, 14]", "s.yaml:5: conversion.horizons_days: expected increasing days"),
        ("primary_horizon: 30", "primary_horizon: 31", "s.yaml:5: conversion.primary_horizon: expected one of"),
        ("gap_days: 0", "gap_days: -1", "s.yaml:5: conversion.gap_days: expected greater than or equal to 0, got -1"),
        (
            "first: 2026-01-05",
            "first: 2026-02-30",
            "s.yaml:6: not YAML: no such date or time, '2026-02-30': day is out",
        ),
        ("salt: v1", "salt: {{ salt }}", "s.yaml:8: not YAML: expected a plain key"),
        (
            "where: \"event_type = 'purchase'\"",
            "where: ' '",
            "s.yaml:5: conversion.where: expected a condition, got ' '",
        ),
        (
            "numeric: [age]",
            "numeric: [{column: age, min: -.inf}]",
            "s.yaml:3: customer.numeric.0.min: expected a finite",
        ),
        (
            "numeric: [age]",
            "numeric: [{column: age, min: 2, max: 1}]",
            "s.yaml:3: customer.numeric.0.max: expected 2, the",
        ),
        ("numeric: [amount]", "numeric: [class]", "s.yaml:1: column 'class': the name is taken by Parcours; rename it"),
        ("first: 2026-01-05", "first: soon", "s.yaml:6: snapshots.first: expected a date such as 2026-01-05"),
        (
            "first: 2026-01-05",
            "first: 0001-01-01",
            "s.yaml:6: snapshots.first: expected a date within 1900 to 2199, got",
        ),
        ("2026-06-29", "9999-12-31", "s.yaml:6: snapshots.last: expected a date within 1900 to 2199, got 9999-12-31"),
        ("gap_days: 0", "gap_days: 999999", "s.yaml:5: conversion.gap_days: expected less than or equal to 36500"),
        ("last: 2026-06-29", "last: 2025-06-29", "s.yaml:6: snapshots.last: expected a date from first (2026-01-05)"),
        ("every_days: 7, l", "every_days: 7, dates: [2026-01-05], l", "s.yaml:6: snapshots: expected one of {first"),
        ("data_until:  2026-07-31", "data_until: 2026-06-01", "s.yaml:7: data_until: expected a date from the last"),
        ("data_until:  2026-07-31", "data_until: 2026-06-29", "s.yaml:7: data_until: no test snapshot can be scored"),
        ("2026-06-01", "2026-04-01", "s.yaml:8: split: eval_from 2026-04-06 and test_from 2026-04-01 overlap"),
        ("2026-06-01", "2026-07-20", "s.yaml:8: split: no snapshot tests: the last as_of is 2026-06-29"),
        ("2026-06-01", "2026-05-01", "s.yaml:8: split: no snapshot evaluates: none from eval_from 2026-04-06"),
        ("eval_from: 2026-04-06", "eval_from: 2026-02-01", "s.yaml:8: split: no snapshot trains: the first as_of"),
        ("holdout_customers: 0.2", "holdout_customers: 1", "s.yaml:8: split.holdout_customers: expected less than 1"),
        ("eval_from: 2026-04-06", "eval_customers: 0.9", "s.yaml:8: split: eval_customers and holdout_customers leave"),
        ("negative_rate: 1.0", "negative_rate: 0", "s.yaml:9: sampling.negative_rate: expected greater than 0"),
        ("{column: campaign,", "{column: promo,", "s.yaml:10: campaigns.column: expected one of sequence.categorical"),
        ("{column: campaign, assignments", "{assignment", "s.yaml:10: campaigns.assignment: unknown key; did you mean"),
        (
            "treated: treated",
            "treated: treated, randomised: often",
            "randomised: expected true, false or a list of camp",
        ),
        (GRID, "{at: consent, lookback_days: 90}", "s.yaml:6: snapshots.at: has no part beside campaigns.assignments"),
        (
            GRID,
            "{assignments: true, first: 2026-01-05, lookback_days: 9}",
            "s.yaml:6: snapshots.assignments: first and",
        ),
        (GRID, "{assignments: true, every_days: 7, lookback_days: 9}", "s.yaml:6: snapshots: expected one of {first"),
        (
            "test_from: 2026-06-01",
            "embargo_days: 1",
            "s.yaml:8: split.test_from: without it, expected holdout_customers",
        ),
        (
            "eval_from: 2026-04-06, test_from: 2026-06-01",
            "eval_customers: 0.1",
            "s.yaml:8: split.test_from: missing; only",
        ),
        ("[segment]", "[treated]", "column 'treated': the name is taken by Parcours"),
        ("sampling:   ", "events: {}\nsampling:   ", "s.yaml:9: not YAML: key 'events' is given twice"),
        ("sequence: ", "sequence: [", "s.yaml:3: not YAML"),
        ("[amount]", "['total amount']", "column 'total amount': a field's name becomes a tensor's"),
        ("[amount]", "[weight]", "column 'weight': the name is taken by Parcours"),
        ("[amount]", "[channel]", "column 'channel': expected each field once"),
        ("[age]", "[amount]", "column 'amount': expected each field once"),
    ],
)
def test_a_mistake_is_one_clear_line(old, new, message):
    assert old in SPEC
    with pytest.raises(UserError) as raised:
        parse_spec(SPEC.replace(old, new, 1), "s.yaml")
    lines = str(raised.value).splitlines()
    assert any(message in line for line in lines), lines
    assert all(line.startswith("s.yaml:") for line in lines)


def test_several_mistakes_are_several_lines():
    with pytest.raises(UserError) as raised:
        parse_spec(SPEC.replace("max_events: 64", "max_events: x").replace("salt: v1", "slat: v1"), "s.yaml")
    assert len(str(raised.value).splitlines()) == 2


def test_customer_predicate_needs_a_customer_block():
    text = "".join(line for line in SPEC.splitlines(keepends=True) if not line.startswith("customer:"))
    with pytest.raises(UserError, match=r"s:3: eligible: a predicate over customer columns needs the customer block"):
        parse_spec(text, "s")


def test_assignments_and_snapshots_at_them_need_each_other_s_table():
    text = SPEC.partition("campaigns:")[0]
    with pytest.raises(UserError, match=r"s:6: snapshots.assignments: expected campaigns.assignments, the table"):
        parse_spec(text.replace(GRID, "{assignments: true, lookback_days: 90}"), "s")
    with pytest.raises(UserError, match="s:10: campaigns: expected column, assignments or both"):
        parse_spec(text + "campaigns: {}\n", "s")


def test_missing_file_and_wrong_encoding(tmp_path):
    with pytest.raises(UserError, match=r"none.yaml: cannot read the journey spec: No such file"):
        load_spec(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("events: été".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        load_spec(tmp_path / "latin.yaml")


@settings(deadline=None)  # a busy machine is no mistake
@given(st.text())
def test_any_text_is_a_spec_or_a_clear_line(text):
    try:
        parse_spec(text, "s")
    except UserError as error:
        assert str(error).startswith("s:")


@settings(deadline=None)  # a busy machine is no mistake
@given(st.integers(0, len(SPEC) - 1), st.integers(1, 30), st.text(max_size=5))
def test_a_damaged_spec_is_a_spec_or_a_clear_line(start, length, replacement):
    try:
        parse_spec(SPEC[:start] + replacement + SPEC[start + length :], "s")
    except UserError as error:
        assert str(error).startswith("s:")
