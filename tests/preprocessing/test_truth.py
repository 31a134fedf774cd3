"""The dynamic programme against values worked out by hand, and against what customers then do."""

import datetime as dt
import math

import numpy as np
import pytest

from preprocessing import population
from preprocessing.bundles import CLIMB, PURCHASE, Bundle
from preprocessing.cli import UserError
from preprocessing.hazard import GROUPS, Process
from preprocessing.truth import calibrated, purchase_probabilities, state_shares
from preprocessing.waves import CYCLE_START, Campaign

REGULAR_HIGH = 5  # segment log odds 0, activity factor 1.2


def plain(days, **settings):
    settings = {"bundles": (), "campaigns": (), "seasonal": False, "intercept": math.log(0.1 / 0.9)} | settings
    return Process(CYCLE_START, CYCLE_START + dt.timedelta(days=days), **settings)


def test_constant_hazard_by_hand():
    # 10 % a day at stage 0: 1 - 0.9 ** 3
    found, _ = purchase_probabilities(plain(5), [(1, 3)])
    assert found[1, 3].shape == (GROUPS, plain(5).states)
    assert found[1, 3][REGULAR_HIGH, 0] == pytest.approx(0.271, abs=1e-12)


def test_climb_and_decay_by_hand():
    # stage 1 multiplies the odds 1/9 by 9: 50 % a day, and lasts two days; a climb comes at 0.25 * 1.2 = 0.3 a day.
    # The rates grow by 4 % a stage, so at stage 1 a climb (to stage 2, as good as 1) comes at 0.312.
    odds = math.log(9)
    process = plain(
        4, bundles=(Bundle((), CLIMB, 0.25),), stage_log_odds=(0, odds, odds, odds, odds), stage_days=(0, 2, 2, 2, 2)
    )
    found, _ = purchase_probabilities(process, [(0, 2), (0, 3), (0, 4)])
    cold = 0.9 * (0.3 * 0.5 + 0.7 * 0.9)  # survives two days
    assert found[0, 2][REGULAR_HIGH, 0] == pytest.approx(1 - cold, abs=1e-12)
    warm = 0.5 * 0.5  # climbed yesterday: two days at 50 %, whatever comes in between
    cold_three = 0.9 * (0.3 * warm + 0.7 * cold)
    assert found[0, 3][REGULAR_HIGH, 0] == pytest.approx(1 - cold_three, abs=1e-12)
    # the third day after a climb is cold again unless one more climb came on either of the two days
    kept = 1 - (1 - 0.312) ** 2
    warm_three = 0.5 * 0.5 * (kept * 0.5 + (1 - kept) * 0.9)
    assert found[0, 4][REGULAR_HIGH, 0] == pytest.approx(1 - 0.9 * (0.3 * warm_three + 0.7 * cold_three), abs=1e-12)


def test_campaign_effect_by_hand():
    # One touch on day 14 of the cycle counts on that day only: 10 % becomes 50 %. It comes again 28 days later, for a
    # quarter of the customers: half are in the audience, half of them treated.
    campaign = Campaign("one_day", "email", (14,), 15, (math.log(9),) * 4, ("email_open",))
    process = plain(44, campaigns=(campaign,))
    found, arms = purchase_probabilities(process, [(14, 30)], process.waves.values())
    later = 0.9**27 * (0.25 * 0.5 + 0.75 * 0.9) * 0.9
    treated, control = (p[REGULAR_HIGH, 0] for p in arms[14])
    assert treated == pytest.approx(1 - 0.5 * later, abs=1e-12)
    assert control == pytest.approx(1 - 0.9 * later, abs=1e-12)
    assert found[14, 30][REGULAR_HIGH, 0] == pytest.approx(0.25 * treated + 0.75 * control, abs=1e-12)


def test_second_touch_saturates_by_hand():
    # no fading, saturation 3: two touches act as (1 - e^-6) / (1 - e^-3) = 1.0498 of one
    campaign = Campaign("twice", "email", (0, 7), 14, (1.0,) * 4, ("email_open",))
    process = plain(14, campaigns=(campaign,), fading_days=1e12)
    _, exposure = process.exposure(8)
    assert exposure == pytest.approx([0, 1, 1, 1.049787], abs=1e-6)
    assert process.exposure(3)[1] == pytest.approx([0, 1, 0, 1], abs=1e-9)  # the second is not sent yet


def test_overlapping_campaigns_are_refused():
    one, two = (Campaign(name, "email", (day,), day + 5, (1.0,) * 4, ()) for name, day in (("one", 3), ("two", 6)))
    with pytest.raises(ValueError, match="overlap"):
        plain(30, campaigns=(one, two))


def test_horizon_beyond_the_data_is_refused():
    with pytest.raises(ValueError, match="leave the 5 days"):
        purchase_probabilities(plain(5), [(3, 3)])


def test_unreachable_base_rate_is_refused():
    with pytest.raises(UserError, match="cannot buy"):
        calibrated(Process(dt.date(2025, 10, 1), dt.date(2025, 12, 1)), 1.5, [20])


@pytest.fixture(scope="module")
def crowd():
    """60,000 customers, and which of them buy within 30 days of six as_ofs a horizon and more apart."""
    process = Process(dt.date(2025, 10, 1), dt.date(2026, 7, 31))
    days = [96 + 35 * i for i in range(6)]  # 2026-01-05 on
    process = calibrated(process, 0.02, days)
    draws = population.Draws(process)
    people = population.draw(draws, 60_000, np.random.default_rng(3), days, lambda: None)
    buys = draws.effect[people.occurrence_bundle] == PURCHASE
    customer, day = people.occurrence_customer[buys], people.occurrence_day[buys]
    outcome = np.zeros((len(days), people.size), bool)
    for i, start in enumerate(days):
        outcome[i, customer[(day >= start) & (day < start + 30)]] = True
    found, _ = purchase_probabilities(process, [(d, 30) for d in days])
    truth = np.array([found[d, 30][people.group, state] for d, state in zip(days, people.state, strict=True)])
    return process, days, people, truth, outcome


def within_four_errors(outcome, truth):
    return abs(outcome.sum() - truth.sum()) <= 4 * np.sqrt((truth * (1 - truth)).sum())


def test_customers_buy_as_often_as_the_truth_says(crowd):
    _, _, _, truth, outcome = crowd
    for bought, probability in zip(outcome, truth, strict=True):
        assert within_four_errors(bought, probability), (bought.sum(), probability.sum())


def test_customers_buy_as_the_truth_says_at_every_level_of_it(crowd):
    _, _, _, truth, outcome = crowd
    edges = np.quantile(truth, np.linspace(0, 1, 16)[1:-1])
    place = np.searchsorted(edges, truth)
    assert len(np.unique(place)) >= 12
    for level in np.unique(place):
        assert within_four_errors(outcome[place == level], truth[place == level]), level
    hot = truth > 0.2
    assert hot.sum() > 1000
    assert within_four_errors(outcome[hot], truth[hot])


def test_customers_spread_over_states_as_expected(crowd):
    process, days, people, _, _ = crowd
    expected = state_shares(process, [days[3]])[days[3]]
    assert expected.sum() == pytest.approx(1, abs=1e-12)
    share = expected.sum(axis=0)
    counts = np.bincount(people.state[3], minlength=process.states)
    large = share * people.size > 50
    error = np.sqrt(share * (1 - share) * people.size)[large]
    assert large.sum() > 50
    assert np.all(np.abs(counts[large] - share[large] * people.size) <= 5 * error)
