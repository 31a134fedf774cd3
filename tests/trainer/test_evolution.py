"""Which journeys are told, what is told of them, and the raw arrays that the model is asked with."""

import json

import numpy as np
import pytest

from tests.trainer.synthetic_run import make_run
from trainer import timeplots
from trainer.evolution import RULES, chosen, document, tell
from trainer.outcomes import read_outcomes
from trainer.raw_journeys import read_padded

HORIZONS = (7, 14, 30)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("evolution") / "run", customers=200)


@pytest.fixture(scope="module")
def test(run):
    return read_outcomes(run.run_dir.journeys, "test")


def counting(arrays):
    """A model whose probability within 30 days is a hundredth of the purchases so far plus a thousandth of the events.

    At 7 days a quarter of that, at 14 a half.
    """
    length, times = arrays["length"], arrays["event_time"]
    batch, steps = times.shape
    purchases = np.cumsum(arrays["event_type"] == b"purchase", axis=1)
    longest = 0.01 * purchases + 0.001 * np.arange(1, steps + 1)
    inside = np.arange(steps) < length[:, None]
    running = np.where(inside, longest, 0)[:, :, None] * np.array([0.25, 0.5, 1.0])
    final = running[np.arange(batch), np.maximum(length - 1, 0)]
    days = np.arange(31)
    curve = np.stack([np.interp(days, (0, *HORIZONS), (0, *one)) for one in final])
    return {
        "key": arrays["key"],
        "days": np.tile(days, (batch, 1)),
        "curve": curve.astype(np.float32),
        "running_time": np.where(inside, times + 1, 0),
        "running_length": length,
        "running": running.astype(np.float32),
    }


def test_the_arrays_are_the_journeys(run, test):
    rows = np.array([5, 2, 40])
    arrays = read_padded(run.run_dir.journeys, "test", run.spec, test.take(rows))
    assert [key.decode() for key in arrays["key"]] == [test.journey_id[int(row)].as_py() for row in rows]
    assert arrays["length"].tolist() == test.length[rows].tolist()
    assert arrays["as_of"].tolist() == test.as_of[rows].tolist()
    steps = max(1, test.length[rows].max())
    assert arrays["event_time"].shape == arrays["event_type"].shape == arrays["amount"].shape == (3, steps)
    assert (arrays["event_time"].dtype, arrays["amount"].dtype) == (np.int64, np.float32)
    assert set(arrays) == {
        *("key", "as_of", "length", "event_time", "event_type", "channel", "amount", "segment", "age"),
    }
    for row, length in enumerate(arrays["length"]):
        assert (arrays["event_time"][row, :length] < arrays["as_of"][row]).all()
        assert (arrays["event_time"][row, length:] == 0).all()
        assert (arrays["channel"][row, length:] == b"").all()
        assert set(arrays["channel"][row, :length]) <= {b"web", b"store", b"app"}


def test_an_empty_journey_has_no_step(run, test):
    (row,) = np.flatnonzero(test.length == 0)[:1]
    arrays = read_padded(run.run_dir.journeys, "test", run.spec, test.take(np.array([row])))
    assert arrays["event_time"].tolist() == [[]]
    assert arrays["length"].tolist() == [0]


def test_the_rules_by_hand(run, test):
    probability = np.random.default_rng(0).permutation(len(test)) / len(test)
    rows = chosen(run.run_dir.journeys, run.spec, test, probability, counting)
    assert list(rows) == list(RULES)
    fit = test.length >= 3
    converted = test.converted(30)
    assert probability[rows["sure"]] == probability[fit & converted].max()
    assert probability[rows["false_alarm"]] == probability[fit & ~converted].max()
    assert probability[rows["surprise"]] == probability[fit & converted].min()
    assert probability[rows["lowest"]] == pytest.approx(probability[fit].min(), abs=0.01)  # but of another customer
    assert probability[rows["median"]] == pytest.approx(np.median(probability[fit]), abs=0.01)
    customers = [test.customer_key[row].as_py() for row in rows.values()]
    assert len(set(customers)) == len(RULES)
    # the rise: the most of 0.01 a purchase and 0.001 an event after the first, in the pool
    identity = np.array(test.journey_id.to_pylist(), dtype=object)
    pool = np.array(sorted(np.flatnonzero(fit & converted), key=lambda row: identity[row])[:32])
    pool = np.array([row for row in pool if test.customer_key[int(row)].as_py() not in customers[:2]])
    arrays = read_padded(run.run_dir.journeys, "test", run.spec, test.take(pool))
    bought = (arrays["event_type"][:, 1:] == b"purchase").sum(axis=1)
    rise = 0.01 * bought + 0.001 * (arrays["length"] - 1)
    assert rise[list(pool).index(rows["rise"])] == pytest.approx(rise.max())


def test_what_is_told_is_what_the_model_said(run, test):
    probability = np.random.default_rng(0).permutation(len(test)) / len(test)
    told = tell(run.run_dir.journeys, run.spec, test, probability, counting)
    found = document(told, HORIZONS)
    json.dumps(found, allow_nan=False)
    assert [one["rule"] for one in found] == list(RULES.values())
    for one, raw in zip(found, told, strict=True):
        steps = one["running"]
        bought = np.cumsum([step["event"] == "purchase" for step in steps])
        for i, step in enumerate(steps):
            expected = 0.01 * bought[i] + 0.001 * (i + 1)
            assert step["probabilities"]["30"] == pytest.approx(expected, rel=1e-4)
            assert step["probabilities"]["7"] == pytest.approx(expected / 4, rel=1e-4)
        assert [step["event_time"] for step in steps] == sorted(step["event_time"] for step in steps)
        assert steps[-1]["event_time"] < one["as_of"]
        assert one["curve"][30]["probability"] == pytest.approx(steps[-1]["probabilities"]["30"], rel=1e-4)
        assert one["curve"][0] == {"days": 0.0, "probability": 0.0}
        assert (one["days_to_conversion"] is None) == np.isinf(raw.days)
    assert found[0]["days_to_conversion"] < 30
    assert found[1]["days_to_conversion"] is None or found[1]["days_to_conversion"] >= 30


def test_a_model_that_sees_the_last_events_only_is_told_from_there(run, test):
    def last_two(arrays):
        answer = counting(arrays)
        return answer | {"running": answer["running"][:, :2], "running_length": np.minimum(arrays["length"], 2)}

    probability = np.linspace(0, 1, len(test))
    told = tell(run.run_dir.journeys, run.spec, test, probability, last_two)
    for one in told:
        row = test.take(np.array([test.journey_id.index(one.journey_id).as_py()]))
        arrays = read_padded(run.run_dir.journeys, "test", run.spec, row)
        assert one.event_time.tolist() == arrays["event_time"][0, -2:].tolist()
        assert len(one.event) == len(one.running) == 2


def test_without_a_fit_journey_nothing_is_told(run, test):
    short = test.take(np.flatnonzero(test.length < 3))
    assert tell(run.run_dir.journeys, run.spec, short, np.zeros(len(short)), counting) == []


def test_the_plots_show_the_conversion_and_the_events(run, test):
    told = tell(run.run_dir.journeys, run.spec, test, np.linspace(0, 1, len(test)), counting)
    sure = told[0]
    curve = timeplots.curve(sure, HORIZONS, 0)
    assert f"converted on day {sure.days:.1f}" in curve
    steps = timeplots.running(sure, HORIZONS, ["view"], True, "event_type")
    assert "within 30 days" in steps
    assert ("view" in sure.event) == (">view<" in steps)
    assert timeplots.running(sure, HORIZONS, ["view"], True, "event_type") == steps
