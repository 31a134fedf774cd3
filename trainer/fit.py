"""The training loop: a custom `tf.distribute` one, since Keras 3's own does not run under every strategy."""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from preprocessing.cli import UserError
from trainer import tuning
from trainer.board import Board
from trainer.budget import Guard, Meter
from trainer.cluster import Cluster, local_strategy
from trainer.dataset import train_batches
from trainer.model import JourneyModel, Scorer
from trainer.notice import exit_code, noticed
from trainer.predictions import Predictor, ranking
from trainer.profiler import Profiler
from trainer.settings import Settings
from trainer.state import Checkpoints
from trainer.steps import Step, Task
from trainer.watch import Watch

log = logging.getLogger(__name__)

_LOG_SECONDS = 20  # between progress lines where no progress bar can be drawn


@dataclasses.dataclass(frozen=True)
class Habits:
    """What does not touch the weights: where training writes, and how often."""

    checkpoints: str
    settings_file: str
    logs: str
    identity: dict[str, Any]
    restart: bool = False
    checkpoint_every: int = 200
    log_every: int = 20
    profile_steps: tuple[int, int] | None = None
    guard: Guard = dataclasses.field(default_factory=lambda: Guard(Meter()))
    watch: Watch = dataclasses.field(default_factory=Watch)
    tell: Callable[[dict[str, Any]], None] | None = None  # each epoch's entry of the history, on the chief


def fit(
    task: Task, settings: Settings, habits: Habits, cluster: Cluster | None = None
) -> tuple[JourneyModel, list[dict[str, Any]]]:
    """Trains until eval no longer improves, from a checkpoint where there is one.

    cluster: the machines that train together; all call this, and only the chief's model has the best epoch's weights.
    Where the guard's budget is used up, training ends before its time, the guard says so, and a training with a larger
    budget goes on from the checkpoint.
    At SIGTERM on any machine, or Ctrl-C, it is saved and all processes end with exit code 143 or 130: SystemExit passes
    through.
    Returns the model with the weights of the best epoch, and the history: a dict an epoch with epoch, train_loss,
    eval_loss, eval_pr_auc and eval_roc_auc (at the primary horizon; None where eval holds one outcome only),
    learning_rate and seconds. Raises UserError where there is nothing to learn from, or the loss leaves the numbers.
    """
    return _Training(task, settings, habits, cluster or Cluster(local_strategy())).run()


class _Training:
    def __init__(self, task: Task, settings: Settings, habits: Habits, cluster: Cluster) -> None:
        self.task, self.settings, self.habits, self.cluster = task, settings, habits, cluster
        self.strategy, self.guard = cluster.strategy, habits.guard
        replicas = self.strategy.num_replicas_in_sync
        self.batch_size = max(replicas, min(settings.batch_size, task.train.journeys) // replicas * replicas)
        self.steps_per_epoch = task.train.journeys // self.batch_size
        if self.steps_per_epoch == 0:
            raise UserError(f"{task.train.journeys} train journeys are fewer than the {replicas} replicas")
        self.steps = min(settings.epochs * self.steps_per_epoch, settings.max_steps or math.inf)
        self.step = Step(task, settings, self.strategy, self.batch_size, int(self.steps))
        self.model, self.optimizer = self.step.model, self.step.optimizer
        scorer = Scorer(self.model, task.negative_rate / settings.positive_weight)
        self.predictor = Predictor(scorer, task.schema, task.horizons, task.gap)
        self.checkpoints = Checkpoints(
            habits.checkpoints,
            habits.settings_file,
            habits.identity,
            self.model,
            self.step.state,
            cluster=cluster,
        )

    def run(self) -> tuple[JourneyModel, list[dict[str, Any]]]:
        resumed = self.checkpoints.resume(self.habits.restart)
        progress = self.checkpoints.progress
        self.guard.meter.earlier = progress.spent_seconds
        if not resumed and self.cluster.is_chief and tf.io.gfile.exists(self.habits.logs):
            tf.io.gfile.rmtree(self.habits.logs)
        if progress.finished:
            return self._kept()
        log.info(
            "training: %s journeys, %s steps an epoch of %s journeys each, %s weights",
            *(
                f"{n:,}"
                for n in (self.task.train.journeys, self.steps_per_epoch, self.batch_size, self.model.count_params())
            ),
        )
        self.board = Board(self.habits.logs, self.cluster.is_chief)
        trace = Profiler(self.habits.logs, self.habits.profile_steps if self.cluster.is_chief else None)
        with trace as self.profiler, self.habits.watch, noticed() as self.notice:
            while self._goes_on():
                self._epoch()
        self.checkpoints.restore_best()
        if self.guard.stopped is None:
            progress.finished = True
            self._save()
        log.info(
            "training: done after %d epochs; the weights are those of epoch %d", progress.epoch - 1, progress.best_epoch
        )
        return self._kept()

    def _kept(self) -> tuple[JourneyModel, list[dict[str, Any]]]:
        """The model and the history; a trial's last measurement is that of the epoch which was kept."""
        progress = self.checkpoints.progress
        if self.cluster.is_chief:
            tuning.report(progress.history[progress.best_epoch - 1], progress.step + 1)
        return self.model, progress.history

    def _goes_on(self) -> bool:
        progress = self.checkpoints.progress
        waited = progress.epoch - 1 - progress.best_epoch
        # A training that was stopped after its last step has its last look at eval before it.
        trained = progress.step >= self.steps and not progress.step_in_epoch
        if trained or waited >= self.settings.patience or self.guard.stopped is not None:
            return False
        return not (progress.best_epoch and not progress.step_in_epoch and self._spent())

    def _epoch(self) -> None:
        """One pass over train, or what is left of it, then a look at eval."""
        progress = self.checkpoints.progress
        started, before = time.monotonic(), progress.seconds
        self._epoch_began = told = self.guard.meter.seconds
        calls = iter(()) if progress.step_in_epoch and self._spent() else self._advance()
        for loss in calls:
            progress.call_seconds, told = self.guard.meter.seconds - told, self.guard.meter.seconds
            progress.seconds = before + time.monotonic() - started
            self.board.tell_steps(progress.step, loss, self.optimizer.learning_rate)
            self.board.tell_resources(progress.step, self.habits.watch.latest())
            if progress.step % self.habits.checkpoint_every == 0:
                self._save()
            self._heed()
            if self._spent():
                break
        looked = self.guard.meter.seconds
        entry = self._look_at_eval()
        progress.look_seconds = self.guard.meter.seconds - looked
        progress.seconds = before + time.monotonic() - started
        entry["seconds"] = round(progress.seconds, 3)
        # By the loss, which says all that eval knows; on a few conversions PR-AUC jumps from epoch to epoch.
        better = progress.best_score is None or entry["eval_loss"] < progress.best_score
        if better:
            progress.best_score, progress.best_epoch = entry["eval_loss"], progress.epoch
            self.checkpoints.save_best()
        self.board.tell_epoch(progress.step, entry, self.settings.epochs, better)
        if self.cluster.is_chief:
            tuning.report(entry, progress.step)
            if self.habits.tell is not None:
                self.habits.tell(entry)
        progress.history.append(entry)
        progress.epoch, progress.step_in_epoch, progress.loss_sum, progress.seconds = progress.epoch + 1, 0, 0.0, 0.0
        self._heed()
        if self.guard.stopped is None:
            self._save()

    def _spent(self) -> bool:
        """Whether the budget ends training here: then what there is is saved, in the midst of the epoch, for one that
        is given more. The look at eval that follows is not: it is taken again."""
        if not self.guard.limited:
            return False
        progress = self.checkpoints.progress
        look = progress.look_seconds
        if look is None:  # no eval split takes longer than what of the epoch was trained
            look = self.guard.meter.seconds - self._epoch_began
        if not self.cluster.agree(float(self.guard.over(progress.call_seconds + look))):
            return False
        self._save()
        self.guard.stop(progress.step, int(self.steps))
        return True

    def _save(self) -> None:
        self.checkpoints.progress.spent_seconds = self.guard.meter.seconds
        self.checkpoints.save()

    def _heed(self) -> None:
        """Saves what there is and ends the process where a notice has come, on this machine or another."""
        if not self.cluster.any(self.notice.given):
            return
        self._save()
        number = signal.SIGTERM if self.notice.number is None else self.notice.number  # another machine's
        log.warning(
            "training: stopped by %s after step %d; the same command goes on from there",
            signal.Signals(number).name,
            self.checkpoints.progress.step,
        )
        self.cluster.wait()  # until the chief has saved
        raise SystemExit(exit_code(number))

    def _advance(self) -> Iterator[float]:
        """Trains to the end of the epoch, several steps a call; yields the mean loss of each call."""
        progress, every = self.checkpoints.progress, self.habits.checkpoint_every
        dataset = train_batches(
            self.task.train_files,
            self.task.schema,
            batch_size=self.batch_size,
            window=self.settings.length_window,
            seed=self.settings.seed,
            epoch=progress.epoch,
            skip=progress.step_in_epoch,
        )
        batches = iter(self.strategy.experimental_distribute_dataset(dataset))
        left = int(min(self.steps_per_epoch - progress.step_in_epoch, self.steps - progress.step))
        description = f"epoch {progress.epoch}/{self.settings.epochs}"
        with tqdm(total=left, desc=description, unit=" steps", leave=False, disable=None) as bar:
            told = time.monotonic()
            while left:
                until_trace = self.profiler.at(progress.step)
                count = min(self.habits.log_every, left, every - progress.step % every, until_trace)
                called = time.monotonic()
                loss_sum, waited = (float(value) for value in self.step.several(batches, tf.constant(count)))
                self.habits.watch.steps(count, time.monotonic() - called, waited)
                progress.step, progress.step_in_epoch, left = (
                    progress.step + count,
                    progress.step_in_epoch + count,
                    left - count,
                )
                self.profiler.at(progress.step)
                if not math.isfinite(loss_sum):
                    raise UserError(f"the loss is no longer a number at step {progress.step:,}: lower --learning_rate")
                progress.loss_sum += loss_sum
                bar.update(count)
                bar.set_postfix(loss=f"{progress.loss_sum / progress.step_in_epoch:.4f}")
                if bar.disable and time.monotonic() - told > _LOG_SECONDS:
                    told = time.monotonic()
                    log.info("%s: step %d of %d", description, progress.step_in_epoch, self.steps_per_epoch)
                yield loss_sum / count

    def _look_at_eval(self) -> dict[str, Any]:
        progress = self.checkpoints.progress
        predictions = self.predictor(self.task.eval_files, "eval", self.task.eval.journeys)
        pr_auc, roc_auc = ranking(predictions, self.task.primary_horizon)
        outcome = predictions.outcome(self.task.primary_horizon)
        self.board.tell_ranking(progress.step, self.task.primary_horizon, *outcome)
        return {
            "epoch": progress.epoch,
            "train_loss": progress.loss_sum / progress.step_in_epoch,
            "eval_loss": self.cluster.agree(predictions.mean_loss()),
            "eval_pr_auc": pr_auc,
            "eval_roc_auc": roc_auc,
            "learning_rate": float(np.asarray(self.optimizer.learning_rate)),
        }
