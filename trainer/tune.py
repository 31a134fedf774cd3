"""`python -m trainer.tune --config JOB.yaml --run_dir DIR`: a hyperparameter tuning job without a cloud, by Optuna.

Reads the file that `gcloud ai hp-tuning-jobs create --config` reads, and trains each trial into trials/NUMBER/ of the
run directory. The study is kept in tuning/: the same command goes on where it was stopped, and takes up the trials that
were under way. At the end tuning/ holds best.json, which `trainer.task --settings` takes, and tuning.html.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError, run
from preprocessing.flags import number
from preprocessing.rundir import RunDir
from preprocessing.storage import delivered, is_remote
from trainer import budget, settings
from trainer.study import TuningJob, load_job
from trainer.study_budget import StudyBudget
from trainer.trials import TrialProcess

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from trainer.budget import Budget

log = logging.getLogger(__name__)

_POLL_S = 0.2
_NAME = "study"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.tune",
        description="Searches settings by the file of a hyperparameter tuning job, without a cloud. The same command "
        "goes on where it was stopped.",
        epilog="Every other flag is one of trainer.task, for each trial: --epochs=5, say.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="the job, as gcloud ai hp-tuning-jobs create --config reads it")
    parser.add_argument("--run_dir", required=True, help="run directory on disk, as preprocessing.task made it")
    parser.add_argument("--trials", type=number(int, 1), metavar="N", help="in place of the file's maxTrialCount")
    parser.add_argument(
        "--parallel", type=number(int, 1), metavar="N", help="in place of the file's parallelTrialCount"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the search (default: 0)")
    budget.add_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the study. Raises UserError for what the user can mend."""
    args, more = _parser().parse_known_args(argv)
    job = load_job(args.config)
    if is_remote(args.run_dir):
        raise UserError(f"--run_dir {args.run_dir}: trials run on this machine; expected a directory on disk")
    run_dir = RunDir(args.run_dir)
    flags = [*job.trialJobSpec.flags, *more]
    fixed = settings.parse([f"--run_dir={run_dir.place}", *flags]).given
    for parameter in job.studySpec.parameters:
        if parameter.parameterId in fixed:
            raise UserError(f"--{parameter.parameterId}: tuned by {args.config}, and given as a flag too")
    if not run_dir.exists():
        run_dir.require("records")  # says how to make it; a lock would make an empty one
    with run_dir.lock():
        run_dir.require("journeys", "records", "transform")
        study = _Study(job, run_dir, flags, args, budget.taken(vars(args)))
        study.run()
        study.tell(fixed)


class _Study:
    """The trials of a run directory, in Optuna's own SQLite storage: whole after any kill."""

    def __init__(
        self, job: TuningJob, run_dir: RunDir, flags: list[str], args: argparse.Namespace, budget: Budget | None
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.job, self.run_dir, self.flags, self.config = job, run_dir, flags, args.config
        self.most, self.parallel = args.trials or job.maxTrialCount, args.parallel or job.parallelTrialCount
        self.place = run_dir.path / "tuning"
        self.place.mkdir(exist_ok=True)
        self.space = {one.parameterId: one.distribution() for one in job.studySpec.parameters}
        self.study = optuna.create_study(
            storage=f"sqlite:///{self.place.absolute()}/study.db",
            study_name=_NAME,
            direction="maximize" if job.maximizes else "minimize",
            pruner=optuna.pruners.MedianPruner()
            if job.studySpec.medianAutomatedStoppingSpec
            else optuna.pruners.NopPruner(),
            load_if_exists=True,
        )
        self.study.sampler = self._sampler(args.seed)
        self.budget = StudyBudget(self.study, budget)
        self.running: dict[int, tuple[optuna.Trial, TrialProcess]] = {}
        self.cut_short = False  # by the budget
        self._same_or_refused()

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """The file's algorithm; Vertex AI's own default is Optuna's here. A study that goes on draws other numbers."""
        from optuna import samplers

        seed += len(self.study.trials)
        algorithm = self.job.studySpec.algorithm
        if algorithm == "RANDOM_SEARCH":
            return samplers.RandomSampler(seed=seed)
        if algorithm == "GRID_SEARCH":
            grid = {
                name: getattr(values, "choices", None) or range(values.low, values.high + 1)
                for name, values in self.space.items()
            }

            class Grid(samplers.GridSampler):
                """As it is, but for the end: after the last point it would stop a loop of Optuna's, and this one is
                ours."""

                def after_trial(self, *told: Any) -> None:
                    pass

            sampler = Grid(grid, seed=0)
            self.most = min(self.most, len(sampler._all_grids))
            return sampler
        return samplers.TPESampler(seed=seed, n_startup_trials=5)

    def _same_or_refused(self) -> None:
        """Refuses a study of other parameters, flags or records; a new one begins with the default setting, but for a
        grid, whose every point has its turn."""
        own = {
            "studySpec": self.job.studySpec.model_dump(exclude_none=True),
            "flags": self.flags,
            "records": self.run_dir.stamp("records"),
        }
        own = json.loads(json.dumps(own))
        kept = self.study.user_attrs.get("of")
        if kept is None:
            self.study.set_user_attr("of", own)
            if self.job.studySpec.algorithm == "GRID_SEARCH":
                return
            first = {one.parameterId: one.default() for one in self.job.studySpec.parameters}
            first = {name: value for name, value in first.items() if value is not None}
            self.study.enqueue_trial(first)
            log.info("trial 1 is the default setting: %s", _in_words(first) or "none lies among the parameters' values")
        elif kept != own:
            changed = " and ".join(name for name in own if kept.get(name) != own[name])
            raise UserError(
                f"{self.place}: holds a study of other {changed}; to begin anew remove it and "
                f"{self.run_dir.place}/trials"
            )

    def run(self) -> None:
        """Trains what is still to be trained. Raises UserError where too many trials fail."""
        from optuna.trial import Trial, TrialState
        from tqdm import tqdm

        done = self.study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
        cut_off = self.study.get_trials(states=[TrialState.RUNNING])
        if done or cut_off:
            log.info("going on: %d trials are done, %d were under way", len(done), len(cut_off))
        begun = len(done) + len(cut_off)
        waiting = list(cut_off)
        with tqdm(total=self.most, initial=len(done), desc="tuning", unit=" trials", leave=False, disable=None) as bar:
            try:
                while True:
                    while len(self.running) < self.parallel and (waiting or begun < self.most):
                        if not self.budget.suffices(self.parallel - len(self.running)):
                            self.cut_short = True
                            break
                        if waiting:
                            self._begin(Trial(self.study, waiting.pop(0)._trial_id), again=True)
                        else:
                            self._begin(self.study.ask(self.space))
                            begun += 1
                    if not self.running:
                        return
                    time.sleep(_POLL_S)
                    for number in list(self.running):
                        self.budget.note(*self.running[number])
                        if self._looked_at(number):
                            del self.running[number]
                            bar.update()
                            self._too_many_failed()
            finally:  # what is under way stays so in the study, and is taken up by the next run
                for _, process in self.running.values():
                    process.stop()

    def _begin(self, trial: optuna.Trial, *, again: bool = False) -> None:
        given = {
            one.parameterId: one.flag_value(trial.params[one.parameterId]) for one in self.job.studySpec.parameters
        }
        flags = [
            f"--run_dir={self.run_dir.place}",
            *self.flags,
            *(f"--{name}={value}" for name, value in given.items()),
            *self.budget.begin(trial.number, self.parallel - len(self.running)),
        ]
        number = trial.number + 1
        log.info("trial %d of %d%s: %s", number, self.most, " again" if again else "", _in_words(given))
        process = TrialProcess(number, self.place, flags, self.job.metric.metricId, again=again)
        self.running[trial.number] = trial, process

    def _looked_at(self, number: int) -> bool:
        """Takes up what a trial reported; whether it has ended."""
        from optuna.trial import TrialState

        trial, process = self.running[number]
        code, limit = (
            process.returncode,
            self.job.trialJobSpec.seconds,
        )  # the code first: what it reported is then whole
        found = process.measurements()
        reported = len(self.study.trials[number].intermediate_values)
        for step, value in enumerate(found[reported:], reported):
            trial.report(value, step)
        if code is None:
            if limit is not None and process.seconds > limit:
                process.stop()
                return self._failed(trial, process, f"it took longer than the file's timeout, {limit:g} s")
            if len(found) > reported and trial.should_prune():
                process.stop()
                self._end(trial, process, state=TrialState.PRUNED)
                log.info("trial %d: stopped early at %s %.4f", process.number, self.job.metric.metricId, found[-1])
                return True
            return False
        if code != 0 or not found:
            return self._failed(trial, process, process.last_words() if code else "it reported no measurement")
        best = max if self.job.maximizes else min
        value = best(found) if self.job.studySpec.measurementSelectionType == "BEST_MEASUREMENT" else found[-1]
        trial.set_user_attr("seconds", round(process.seconds, 1))
        self._end(trial, process, value)
        leads = self.study.best_trial.number == trial.number
        log.info(
            "trial %d: %s %.4f, %.0f s%s",
            process.number,
            self.job.metric.metricId,
            value,
            process.seconds,
            " (best so far)" if leads else "",
        )
        return True

    def _end(self, trial: optuna.Trial, process: TrialProcess, value: float | None = None, **state: Any) -> None:
        self.budget.note(trial, process, ended=True)
        self.study.tell(trial, value, **state)

    def _failed(self, trial: optuna.Trial, process: TrialProcess, why: str) -> bool:
        from optuna.trial import TrialState

        trial.set_user_attr("failed", why)
        self._end(trial, process, state=TrialState.FAIL)
        log.warning("warning: trial %d failed: %s (%s)", process.number, why, self.place / f"{process.number}.log")
        return True

    def _too_many_failed(self) -> None:
        from optuna.trial import TrialState

        failed = self.study.get_trials(states=[TrialState.FAIL])
        if len(failed) >= (self.job.maxFailedTrialCount or 1):  # 0: Vertex AI decides; here the first is one too many
            raise UserError(
                f"{len(failed)} trials failed, the last one: {failed[-1].user_attrs['failed']}; "
                f"{self.config} allows maxFailedTrialCount {self.job.maxFailedTrialCount}"
            )

    def tell(self, fixed: dict[str, Any]) -> None:
        """Writes best.json and tuning.html, and says which setting was the best."""
        from optuna.trial import TrialState

        from trainer.tune_report import render

        if not self.study.get_trials(states=[TrialState.COMPLETE]):
            raise UserError(f"{self.place}: no trial came to its end; their logs say why {self.budget.told}".rstrip())
        best: FrozenTrial = self.study.best_trial
        parameters = {one.parameterId: one for one in self.job.studySpec.parameters}
        found = fixed | {name: parameters[name].flag_value(value) for name, value in best.params.items()}
        self._write("best.json", json.dumps(found, indent=1) + "\n")
        self._write("tuning.html", render(self.study, self.job.metric.metricId, found))
        print(
            f"best of {len(self.study.trials)} trials: {best.number + 1}, {self.job.metric.metricId} {best.value:.4f}"
        )
        print(f"{_in_words(found)}")
        if self.budget.told:
            print(self.budget.told)
        if self.cut_short:
            print(f"the budget ended the search before its {self.most} trials: the next might not have come to an end")
        print(f"{self.place / 'tuning.html'}  the search, to open in a browser")
        print(f"python -m trainer.task --run_dir {self.run_dir.place} --settings {self.place / 'best.json'}")

    def _write(self, name: str, text: str) -> None:
        with delivered(self.place / name) as aside:
            aside.write_text(text, encoding="utf-8")


def _in_words(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


if __name__ == "__main__":
    run(main)
