"""Traffic splits: shares by hand, and that they always sum to 100."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.traffic import parse_split, with_newcomer
from preprocessing.cli import UserError


def test_the_first_model_gets_everything():
    for share in (None, 100):
        assert with_newcomer({}, "0", share) == {"0": 100}
        assert with_newcomer({"a": 0}, "0", share) == {"0": 100}


@pytest.mark.parametrize("share", [0, 10])
def test_a_part_of_the_traffic_wants_somebody_who_takes_the_rest(share):
    for split in ({}, {"a": 0}):
        with pytest.raises(UserError, match=f"--traffic {share}: no other version gets traffic there, .* expected 100"):
            with_newcomer(split, "0", share)


def test_a_newcomer_takes_its_share_from_all():
    """90 % are left: 70 and 30 become 63 and 27."""
    assert with_newcomer({"a": 70, "b": 30}, "0", 10) == {"a": 63, "b": 27, "0": 10}
    assert with_newcomer({"a": 100}, "0", 0) == with_newcomer({"a": 100}, "0", None) == {"a": 100, "0": 0}
    assert with_newcomer({"a": 100, "b": 0}, "0", 100) == {"a": 0, "0": 100}


def test_whole_percent_by_largest_remainder():
    """50 % over 33, 33, 34: 16.5, 16.5 and 17; the one that is left goes to the first of equal remainders."""
    assert with_newcomer({"a": 33, "b": 33, "c": 34}, "0", 50) == {"a": 17, "b": 16, "c": 17, "0": 50}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(0, 100))
def test_every_split_sums_to_100(weights, share):
    split = with_newcomer({str(number): weight for number, weight in enumerate(weights, 1)}, "0", share)
    assert sum(split.values()) == 100
    assert split["0"] == share
    assert min(split.values()) >= 0


def test_pairs_are_by_version():
    versions = {"3": "111", "4": "222"}
    assert parse_split(["3=90", "4=10"], versions) == {"111": 90, "222": 10}
    assert parse_split(["4=100"], versions) == {"111": 0, "222": 100}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["5=100"], "--traffic 5=100: version '5' is not deployed; expected one of 3, 4"),
        (["3=half"], "--traffic 3=half: expected VERSION=PERCENT, in whole percent"),
        (["3=90", "4=20"], "--traffic: expected percentages that sum to 100, got 110"),
        ([], "--traffic: expected percentages that sum to 100, got 0"),
    ],
)
def test_mistakes_are_named(pairs, message):
    with pytest.raises(UserError, match=message):
        parse_split(pairs, {"3": "111", "4": "222"})


def test_a_share_is_a_percentage():
    with pytest.raises(UserError, match="--traffic: expected a percentage, 0 to 100, got 101"):
        with_newcomer({"a": 100}, "0", 101)
