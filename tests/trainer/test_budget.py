"""The budget: what is spent by a clock that stands still unless told, when training stops, and how it goes on."""

from __future__ import annotations

import contextlib
from unittest import mock

import numpy as np
import pytest

from preprocessing.cli import UserError
from tests.trainer.test_fit import make_task, train, untimed, weights
from trainer.board import Board
from trainer.budget import Budget, Guard, Meter, bill, bill_lines, spent
from trainer.fit import _Training
from trainer.settings import parse
from trainer.study_budget import StudyBudget
from trainer.trials import TrialProcess


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_is_spent_by_hand():
    clock = Clock()
    meter = Meter(clock)
    guard = Guard(meter, Budget(amount=2.0, hourly_price=7.2, reserve_s=100))  # 1,000 s in all, 900 for training
    meter.earlier = 300.0
    clock.now += 500
    assert meter.seconds == 800
    assert spent(meter.seconds, 7.2) == pytest.approx(1.6)
    assert not guard.over(100)
    assert guard.over(100.5)
    assert bill(meter, Budget(2.0, 7.2), 4_000) == {
        "seconds": 800.0,
        "train_journeys": 4_000,
        "hourly_price": 7.2,
        "cost": 1.6,
        "cost_per_1000": 0.4,
        "budget": 2.0,
    }
    assert bill(meter, None, 4_000) == {"seconds": 800.0, "train_journeys": 4_000}
    assert bill_lines(bill(meter, Budget(2.0, 7.2), 4_000), 0.125) == [
        ("Machine time", "0.222 h at 7.2 an hour"),
        ("Cost until this page was drawn", "1.6 of a budget of 2"),
        ("1,000 train journeys", "0.4"),
        ("PR-AUC for that", "0.1250"),
    ]
    assert bill_lines(bill(meter, Budget(None, 7.2), 4_000))[1] == ("Cost of the run", "1.6")
    assert bill_lines(bill(meter, None, 4_000)) == bill_lines(None) == []


def test_without_a_budget_nothing_stops():
    for budget in (None, Budget(None, 7.2)):
        guard = Guard(Meter(Clock()), budget)
        assert not guard.limited and not guard.over(1e12)


def test_a_budget_that_evaluation_alone_uses_up_is_refused():
    with pytest.raises(UserError, match=r"--budget 0.1: .* 50 s, and evaluation and export alone are given 63 s"):
        Guard(Meter(Clock()), Budget(0.1, 7.2), journeys=1_000)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--budget=1"], "--budget: expected --hourly_price with it"),
        (["--hourly_price=1", "--reserve_minutes=2"], "--reserve_minutes: it is kept of a budget"),
    ],
)
def test_flags_that_do_not_fit_together(flags, message):
    with pytest.raises(UserError, match=message):
        parse(["--run_dir=run", *flags])


def test_the_flags():
    assert parse(["--run_dir=run"]).budget is None
    assert parse(["--run_dir=run", "--hourly_price=2"]).budget == Budget(None, 2.0, None)
    flags = ["--run_dir=run", "--hourly_price=2", "--budget=3", "--reserve_minutes=1.5"]
    assert parse(flags).budget == Budget(3.0, 2.0, 90.0)


@contextlib.contextmanager
def timed(clock: Clock):
    """A call of several steps takes 10 s, a look at eval 5 s; five calls an epoch."""
    tell, look = Board.tell_steps, _Training._look_at_eval

    def told(self, *args):
        clock.now += 10
        tell(self, *args)

    def looked(self):
        clock.now += 5
        return look(self)

    with mock.patch.object(Board, "tell_steps", told), mock.patch.object(_Training, "_look_at_eval", looked):
        yield


def guarded(path, task, amount):
    """At 1 a second, with 50 s kept: (model, history, guard)."""
    clock = Clock()
    guard = Guard(Meter(clock), Budget(amount, 3600.0, reserve_s=50))
    with timed(clock):
        model, history = train(path, task, guard=guard)
    return model, history, guard


def test_training_stops_in_time_and_goes_on_with_more(tmp_path, caplog):
    task = make_task(tmp_path)
    whole, expected = train(tmp_path / "whole", task)
    # 55 s an epoch; in the third, after three calls: 140 s, and 10 + 5 more would be beyond 200 - 50
    stopped, history, guard = guarded(tmp_path / "run", task, 200)
    assert guard.stopped == (
        "Training was stopped by its budget (200 at 3600 an hour) at step 27 of at most 30; "
        "with more, the same command goes on from there."
    )
    assert guard.meter.seconds == 145 and guard.stopped in caplog.text
    assert [entry["epoch"] for entry in history] == [1, 2, 3]

    # the same budget again, as after a kill in evaluation: what was spent is known, and nothing is trained
    again, same, guard = guarded(tmp_path / "run", task, 200)
    assert guard.meter.seconds == 145 and "at step 27" in guard.stopped
    assert untimed(same) == untimed(history)
    for found, wanted in zip(weights(again), weights(stopped), strict=True):
        np.testing.assert_array_equal(found, wanted)

    model, history, guard = guarded(tmp_path / "run", task, 1_000)
    assert guard.stopped is None
    assert guard.meter.seconds == 140 + 2 * 10 + 5
    assert untimed(history) == untimed(expected)
    for found, wanted in zip(weights(model), weights(whole), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_budget_used_up_by_the_last_step_keeps_the_last_look(tmp_path):
    task = make_task(tmp_path)
    whole, expected = train(tmp_path / "whole", task)
    # after the fourth call of the third epoch 150 + 10 + 5 still fit into 220 - 50; after the fifth no look does
    _, history, guard = guarded(tmp_path / "run", task, 220)
    assert "at step 30 of at most 30" in guard.stopped
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    model, history, guard = guarded(tmp_path / "run", task, 1_000)
    assert guard.stopped is None
    assert untimed(history) == untimed(expected)
    for found, wanted in zip(weights(model), weights(whole), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_budget_for_part_of_an_epoch_still_gives_a_model(tmp_path):
    # nothing is known of a look at eval: it is taken to last as long as the training before it, 40 + 10 + 40 > 80
    _, history, guard = guarded(tmp_path / "run", make_task(tmp_path), 130)
    assert "at step 8 of" in guard.stopped
    assert [entry["epoch"] for entry in history] == [1]


def test_a_study_has_one_budget_for_all_its_trials():
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    budget = StudyBudget(study, Budget(100.0, 3600.0, 60.0))  # 1 a second

    def process(seconds: float) -> TrialProcess:
        return mock.create_autospec(TrialProcess, instance=True, seconds=seconds)

    first, second = study.ask(), study.ask()
    assert budget.suffices(2)
    assert budget.begin(0, 2) == ["--hourly_price=3600", "--reserve_minutes=1", "--budget=50"]
    assert budget.begin(1, 1)[-1] == "--budget=50"  # what the first one was not given
    budget.note(first, process(9))
    assert "spent_seconds" not in study.trials[0].user_attrs
    budget.note(first, process(10))
    assert budget.told == "10 of 100 spent, at 3600 an hour"
    budget.note(first, process(30), ended=True)
    study.tell(first, 1.0)
    assert not budget.suffices(1)  # 100 less 30 spent and the second's 50: 20, and the first took 30
    budget.note(second, process(25), ended=True)
    study.tell(second, 1.0)
    assert budget.suffices(1) and not budget.suffices(2)  # 45 are left
    study.ask()
    assert budget.begin(2, 1)[-1] == "--budget=45"


def test_a_study_that_goes_on_knows_what_was_spent():
    import optuna

    study = optuna.create_study()
    cut_off, done = study.ask(), study.ask()
    cut_off.set_user_attr("spent_seconds", 20.0)
    done.set_user_attr("spent_seconds", 30.0)
    study.tell(done, 1.0)
    budget = StudyBudget(study, Budget(100.0, 3600.0))
    assert budget.suffices(1) and not budget.suffices(2)  # 50 are left, and a trial took 30
    assert budget.begin(0, 1)[-1] == "--budget=70"  # the 20 that its own training knows of, and all that is left
    assert StudyBudget(study, Budget(None, 3600.0)).suffices(9)
    assert StudyBudget(study, None).begin(0, 1) == [] and StudyBudget(study, None).told == ""
