"""One budget for all trials of a tuning study: what they spent, what the next one may, and when there is too little."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.budget import Budget, spent

if TYPE_CHECKING:
    import optuna

    from trainer.trials import TrialProcess

_NOTE_S = 10.0  # between notes of what a trial under way has spent: what a kill may lose of the count
_SPENT = "spent_seconds"  # of all attempts at a trial


class StudyBudget:
    """The study's own count, kept in its trials' attributes, so that it outlives a kill as they do.

    An hour of a trial has the price of an hour: as Vertex AI runs them, each has its own machines.
    """

    def __init__(self, study: optuna.Study, budget: Budget | None) -> None:
        self._study, self._budget = study, budget
        self._allowed: dict[int, float] = {}  # of trials under way, in currency
        self._earlier: dict[int, float] = {}  # seconds of attempts before, by trial

    def begin(self, number: int, free: int) -> list[str]:
        """The flags by which trial `number`, counted from 0, guards its part of what is left; free: how many trials
        could begin now, this one with them, each of which gets as much."""
        self._earlier[number] = self._seconds(number)
        if self._budget is None:
            return []
        flags = [f"--hourly_price={self._budget.hourly_price:g}"]
        if self._budget.reserve_s is not None:
            flags.append(f"--reserve_minutes={self._budget.reserve_s / 60:g}")
        if self._budget.amount is not None:
            own = spent(self._earlier[number], self._budget.hourly_price)
            self._allowed[number] = own + self._left(number) / free
            flags.append(f"--budget={self._allowed[number]:.6g}")
        return flags

    def note(self, trial: optuna.Trial, process: TrialProcess, *, ended: bool = False) -> None:
        """Keeps what the trial has spent so far; now and then while it runs, and at its end."""
        seconds = self._earlier[trial.number] + process.seconds
        if ended or seconds - self._seconds(trial.number) >= _NOTE_S:
            trial.set_user_attr(_SPENT, round(seconds, 1))
        if ended:
            self._allowed.pop(trial.number, None)

    def suffices(self, free: int) -> bool:
        """Whether what is left, shared by `free` trials, pays for one as long as the longest so far; the first trial is
        begun in any case."""
        if self._budget is None or self._budget.amount is None:
            return True
        longest = max((self._seconds(one.number) for one in self._study.trials if one.state.is_finished()), default=0.0)
        left = self._left(None) / free
        return left > 0 and left >= spent(longest, self._budget.hourly_price)

    @property
    def told(self) -> str:
        """What was spent, in words; "" where an hour has no price."""
        if self._budget is None:
            return ""
        of = "" if self._budget.amount is None else f" of {self._budget.amount:g}"
        return f"{self._spent(None):.4g}{of} spent, at {self._budget.hourly_price:g} an hour"

    def _left(self, beside: int | None) -> float:
        """What neither was spent nor is allowed to trials under way, trial `beside` left out of both."""
        assert self._budget is not None and self._budget.amount is not None
        return self._budget.amount - self._spent(beside, reserved=True) - self._own(beside)

    def _own(self, number: int | None) -> float:
        assert self._budget is not None
        return 0.0 if number is None else spent(self._seconds(number), self._budget.hourly_price)

    def _spent(self, beside: int | None, *, reserved: bool = False) -> float:
        assert self._budget is not None
        total = 0.0
        for one in self._study.trials:
            if one.number != beside:
                cost = spent(one.user_attrs.get(_SPENT, 0.0), self._budget.hourly_price)
                total += max(cost, self._allowed.get(one.number, 0.0)) if reserved else cost
        return total

    def _seconds(self, number: int) -> float:
        return float(self._study.trials[number].user_attrs.get(_SPENT, 0.0))
