"""The page of speed: bars on the right side of their limits, and an item that fails told on the page."""

from __future__ import annotations

import sys

import pytest

from preprocessing.cli import UserError
from tests.bench import speed
from tests.bench.bars import MISSED, Bar, ours, table


@pytest.mark.parametrize(("value", "at_most", "kept"), [(2, True, True), (2.1, True, False), (1.9, False, False)])
def test_a_bar_is_kept_on_its_side_of_the_limit_only(value, at_most, kept):
    bar = Bar("a / b", value, 2, at_most, "4 s and 2 s")
    assert bar.kept is kept
    assert (MISSED in table([bar])) is not kept


def test_an_item_that_cannot_be_measured_is_told_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def section(item):
        def measure(place):
            if item == "training":
                raise UserError("no PyTorch here")
            return table([Bar("a / b", 1.0, 2, True)])

        return measure

    page = tmp_path / "speed.md"
    monkeypatch.setattr(speed, "_section", section)
    monkeypatch.setattr(sys, "argv", ["speed", "--output", str(page), "--place", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        speed.main()
    text = page.read_text(encoding="utf-8")
    assert end.value.code == 1
    assert "**Not measured**: no PyTorch here" in text
    assert text.count("| a / b | 1.00 | at most 2 | kept |") == len(speed.TITLES) - 1
    assert "missed, or not measured" in capsys.readouterr().out


def test_a_measuring_process_that_fails_is_one_line():
    with pytest.raises(UserError, match=r"-m tests\.bench\.nothing ended with 1: .*No module named"):
        ours("tests.bench.nothing")
