from __future__ import annotations

import math

import pytest

from trainer.experiment import Effect
from trainer.sensitivity import e_value, e_value_of


def test_e_value_by_hand_and_as_published() -> None:
    """VanderWeele & Ding 2017: a risk ratio of 3.9 has an E-value of 7.26."""
    assert e_value(2) == pytest.approx(2 + math.sqrt(2))
    assert e_value(3.9) == pytest.approx(7.26, abs=0.005)
    assert e_value(0.5) == pytest.approx(e_value(2))
    assert e_value(1) == 1
    with pytest.raises(ValueError, match="above 0"):
        e_value(0)


def test_e_value_of_a_difference() -> None:
    """0.1 without and 0.2 with the campaign: a risk ratio of 2, of 1.804 at the interval's near end."""
    found = e_value_of(Effect(0.1, 0.01), 0.1)
    assert found is not None
    assert found.estimate == pytest.approx(e_value(2))
    assert found.interval == pytest.approx(e_value(2 - 0.1959964), abs=1e-5)


def test_an_interval_with_no_effect_needs_no_confounder() -> None:
    found = e_value_of(Effect(0.01, 0.01), 0.1)
    assert found is not None
    assert (found.estimate, found.interval) == (pytest.approx(e_value(1.1)), 1.0)


def test_a_campaign_that_harms() -> None:
    found = e_value_of(Effect(-0.05, 0.01), 0.1)
    assert found is not None
    assert found.estimate == pytest.approx(e_value(2))
    assert found.interval == pytest.approx(e_value((0.05 + 0.01959964) / 0.1), abs=1e-5)


def test_where_nothing_can_be_said() -> None:
    assert e_value_of(Effect(0.1, 0.01), 0.0) is None
    assert e_value_of(Effect(-0.2, 0.01), 0.1) is None
