"""The simulated tables: the truth is a function of the visible events, campaigns do what they say, bytes repeat."""

import itertools
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from preprocessing import simulate, simulated
from preprocessing.cli import UserError
from preprocessing.spec import load_spec
from preprocessing.waves import CAMPAIGNS

FILES = ("events", *simulate.TABLES)
SHORT = ("--first", "2026-01-01", "--last", "2026-05-20")


def run(directory, *flags):
    simulate.main(["--output", str(directory / "events.parquet"), *flags])
    return {name: pq.read_table(directory / f"{name}.parquet").to_pandas() for name in FILES}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return run(tmp_path_factory.mktemp("demo"), "--customers", "8000", "--seed", "7")


def test_columns_and_types(tmp_path):
    run(tmp_path, *SHORT, "--customers", "20")
    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "events.parquet")}
    assert types == {
        "customer_id": "string",
        "event_time": "timestamp[us, tz=UTC]",
        "ingest_time": "timestamp[us, tz=UTC]",
        "event_type": "string",
        "channel": "string",
        "campaign": "string",
        "amount": "double",
    }
    assert set(pq.read_schema(tmp_path / "truth.parquet").names) == {"customer_id", "as_of", "p_7d", "p_14d", "p_30d"}


def test_events_lie_within_the_day_and_the_dates(demo):
    events = demo["events"]
    hours = events.event_time.dt.hour + events.event_time.dt.minute / 60
    assert hours.min() >= 7
    assert hours.max() < 22
    late = (events.ingest_time - events.event_time).dt.total_seconds()
    assert late.min() > 0
    assert late.max() <= 3601
    assert str(events.event_time.min().date()) == "2025-10-01"
    assert str(events.event_time.max().date()) == "2026-07-30"


def test_channels_and_amounts(demo):
    events = demo["events"]
    assert set(events.channel) == {"web", "store", "email", "app", "sms", "display", "call_centre"}
    assert (events[events.event_type == "return"].amount < 0).all()
    assert (events[events.event_type.isin(["purchase", "add_to_cart"])].amount > 0).all()
    assert events[events.event_type == "page_view"].amount.isna().all()


def test_journeys_have_a_moderate_and_varied_length(demo):
    events = demo["events"]
    until = np.datetime64("2026-04-06")
    times = events.event_time.dt.tz_localize(None)
    window = events[(times >= until - np.timedelta64(90, "D")) & (times < until)]
    lengths = window.groupby("customer_id").size().reindex(demo["customers"].customer_id.unique(), fill_value=0)
    assert 15 <= lengths.mean() <= 26
    assert lengths.quantile(0.1) < 12
    assert lengths.quantile(0.9) > 35
    assert (lengths > 64).mean() < 0.01


def test_only_age_changes_and_first_rows_precede_the_events(demo):
    customers = demo["customers"].sort_values("updated_at")
    first = customers.groupby("customer_id").first()
    assert len(first) == 8000
    assert first.updated_at.max() < demo["events"].event_time.min()
    changes = customers.groupby("customer_id").nunique()
    assert (changes[["segment", "activity", "country", "consent"]] == 1).all().all()
    assert 0.07 < (changes.age == 2).mean() < 0.13


# ---- the truth as written


def test_truth_grid_and_horizons(demo):
    truth = demo["truth"]
    as_ofs = sorted(truth.as_of.unique())
    assert str(as_ofs[0])[:10] == "2026-01-05"
    assert {(b - a).days for a, b in itertools.pairwise(as_ofs)} == {7}
    last = {h: str(truth[truth[f"p_{h}d"].notna()].as_of.max())[:10] for h in (7, 14, 30)}
    assert last == {7: "2026-07-20", 14: "2026-07-13", 30: "2026-06-29"}
    known = truth.dropna()
    assert ((known.p_7d <= known.p_14d) & (known.p_14d <= known.p_30d)).all()
    assert len(truth) == len(as_ofs) * 8000


@pytest.mark.parametrize("base_rate", [0.02, 0.005, 0.001])
def test_base_rate_is_honoured(tmp_path, base_rate):
    tables = run(tmp_path, "--customers", "4000", "--base_rate", str(base_rate), "--seed", "1")
    mean = tables["truth"].groupby("customer_id").p_30d.mean()
    error = mean.std() / np.sqrt(len(mean))
    assert abs(mean.mean() - base_rate) <= 4 * error
    assert error < 0.05 * base_rate
    purchases = (tables["events"].event_type == "purchase").sum()
    # about base_rate / 30 a day over 303 days, the winter peak and repeated purchases on top
    assert 0.9 < purchases / (4000 * base_rate / 30 * 303) < 1.6


# ---- campaigns


@pytest.fixture(scope="module")
def effects(demo):
    keys = ["customer_id", "campaign", "wave", "assigned_at"]
    both = demo["assignments"].merge(demo["campaign_effects"], on=keys, validate="one_to_one")
    assert len(both) == len(demo["assignments"]) == len(demo["campaign_effects"])
    both = both.merge(demo["customers"].drop_duplicates("customer_id")[["customer_id", "segment"]], on="customer_id")
    return both[both.effect.notna()]


def test_randomised_campaigns_treat_half(demo):
    for name in ("spring_sale_email", "newsletter_tip", "brand_display"):
        rows = demo["assignments"]
        rows = rows[rows.campaign == name]
        assert (rows.propensity == 0.5).all()
        assert abs(rows.treated.mean() - 0.5) <= 4 * 0.5 / np.sqrt(len(rows))
        assert abs(len(rows) / (8000 * rows.assigned_at.nunique()) - 0.5) < 0.02


def test_treated_and_only_treated_receive(demo):
    received = demo["events"].query("event_type == 'campaign_received'")
    days = set(zip(received.customer_id, received.campaign, received.event_time.dt.floor("D"), strict=True))
    treated = demo["assignments"].query("treated")
    assert days == set(zip(treated.customer_id, treated.campaign, treated.assigned_at, strict=True))
    assert len(days) == len(received)


def test_effects_are_strong_weak_and_exactly_none(effects):
    mean = effects.groupby("campaign").effect.mean()
    assert mean["spring_sale_email"] > 0.003
    assert 0.0002 < mean["newsletter_tip"] < 0.25 * mean["spring_sale_email"]
    assert (effects[effects.campaign == "brand_display"].effect == 0).all()


def test_effects_differ_by_segment(effects):
    mean = effects[effects.campaign == "spring_sale_email"].groupby("segment").effect.mean()
    assert mean["bargain"] > 3 * mean["new"] > 0


def test_a_second_touch_adds_less(effects):
    rows = effects[effects.campaign == "spring_sale_email"]
    first = rows[rows.wave % 2 == 1].set_index(["customer_id", "wave"]).treated
    reminders = rows[rows.wave % 2 == 0].copy()
    before = first.reindex([(c, w - 1) for c, w in zip(reminders.customer_id, reminders.wave, strict=True)])
    reminders["touched"] = before.to_numpy()
    assert reminders.touched.notna().mean() > 0.4
    touched = reminders[reminders.touched.eq(True)].effect.mean()
    untouched = reminders[reminders.touched.eq(False)].effect.mean()
    assert 0 < touched < 0.5 * untouched


def test_a_touch_shows_in_what_customers_do(effects, demo):
    """The naive difference in conversions of the randomised strong campaign meets its mean true effect."""
    rows = effects[effects.campaign == "spring_sale_email"]
    purchases = demo["events"].query("event_type == 'purchase'")[["customer_id", "event_time"]]
    joined = rows.reset_index().merge(purchases, on="customer_id")
    days = (joined.event_time - joined.assigned_at).dt.total_seconds() / 86400
    bought = rows.index.isin(joined[(days >= 0) & (days < 30)]["index"])
    treated = rows.treated.to_numpy()
    difference = bought[treated].mean() - bought[~treated].mean()
    error = np.sqrt(2 * bought.var() / (len(rows) / 2))
    assert abs(difference - rows.effect.mean()) <= 4 * error
    assert difference > 4 * error


def test_the_targeted_campaign_seeks_likely_buyers(effects):
    rows = effects[effects.campaign == "vip_offer"]
    assert rows.propensity.between(0.05, 0.9).all()
    ranked = rows[["propensity", "p_30d_control"]].rank().corr().iloc[0, 1]
    assert ranked > 0.6
    assert rows[rows.treated].p_30d_control.mean() > 1.5 * rows[~rows.treated].p_30d_control.mean()


def test_homogeneous_effects(tmp_path):
    tables = run(tmp_path, *SHORT, "--customers", "1500", "--homogeneous")
    effect = tables["campaign_effects"].query("campaign == 'newsletter_tip'").effect.dropna()
    assert effect.std() < 0.1 * effect.mean()


def test_strong_effect_is_settable(tmp_path):
    tables = run(tmp_path, *SHORT, "--customers", "1500", "--strong_effect", "0")
    assert (tables["campaign_effects"].query("campaign == 'spring_sale_email'").effect.dropna() == 0).all()


# ---- running it


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("one", "5"), ("two", "5"), ("other", "6")):
        (tmp_path / name).mkdir()
        run(tmp_path / name, *SHORT, "--customers", "400", "--seed", seed)
    for name in FILES:
        one, two, other = ((tmp_path / seed / f"{name}.parquet").read_bytes() for seed in ("one", "two", "other"))
        assert one == two
        assert one != other


def test_customers_come_in_chunks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(simulate, "CHUNK", 300)
    tables = run(tmp_path, *SHORT, "--customers", "700")
    assert sorted(tables["customers"].customer_id.unique()) == [f"C{i:07d}" for i in range(700)]
    assert tables["truth"].customer_id.nunique() == 700
    line = capsys.readouterr().out
    assert f"{len(tables['events']):,} events of 700 customers" in line
    assert line.count("\n") == 1


def test_shorter_dates(tmp_path):
    tables = run(tmp_path, "--customers", "50", "--first", "2026-01-01", "--last", "2026-05-10", "--every_days", "2")
    assert [str(t)[:10] for t in sorted(tables["truth"].as_of.unique())[:2]] == ["2026-04-06", "2026-04-08"]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(simulated, "effects_table", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, *SHORT, "--customers", "10")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--customers", "0"], "--customers: expected a whole number from 1 up to 1,000,000,000, got '0'"),
        (["--customers", "many"], "--customers: expected a whole number"),
        (["--base_rate", "nan"], "--base_rate: expected a number"),
        (["--first", "2025-13-01"], "--first: expected a date such as 2025-10-01, got '2025-13-01'"),
        (["--last", "2025-09-01"], "--last: expected a date after --first"),
        (["--last", "2026-01-31"], "--last: expected 2026-02-04 or later"),
        (["--every_days", "0"], "--every_days: expected a whole number"),
        (["--output", "truth.parquet"], "expected a .parquet file not called"),
        (["--output", "events.csv"], "expected a .parquet file"),
        (["--output", "."], "is a directory"),
    ],
)
def test_mistakes_are_told(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        simulate.main(["--output", "events.parquet", *flags])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "preprocessing.simulate", "--output", str(tmp_path / "file" / "events.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "cannot make its directory" in done.stderr


def test_the_demo_spec_fits_the_tables(demo):
    spec = load_spec("job_configs/journeys/demo.yaml")
    assert set(spec.sequence.categorical) | set(spec.sequence_numeric) <= set(demo["events"].columns)
    assert set(spec.customer.categorical) | set(spec.customer_numeric) <= set(demo["customers"].columns)
    assert {"customer_id", "campaign", "assigned_at", "treated"} <= set(demo["assignments"].columns)
    assert set(spec.assignments.randomised) == {campaign.name for campaign in CAMPAIGNS if not campaign.targeted}
    assert {t.date() for t in spec.snapshots.instants} <= {t.date() for t in demo["truth"].as_of.unique()}
    assert str(spec.data_until.date()) == "2026-07-31"
    assert set(spec.campaigns.assignments.consequences) <= set(demo["events"].event_type)
