"""A training that is told to go, or killed, and started again by the same command, ends as one that never stopped."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests.job import ROOT
from tests.trainer.test_fit import SETTINGS, make_task, train, untimed, weights
from trainer.board import Board
from trainer.fit import _Training
from trainer.notice import exit_code, noticed

KILLS = 20


def test_sigterm_saves_the_step_and_the_same_command_goes_on(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    task = make_task(tmp_path)
    whole, expected = train(tmp_path / "whole", task)
    tell = Board.tell_steps

    def told_to_go(self, step, *more):
        tell(self, step, *more)
        if step == 15:  # between two checkpoints, in the second epoch
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with mock.patch.object(Board, "tell_steps", told_to_go), pytest.raises(SystemExit) as ended:
        train(tmp_path / "stopped", task)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert "stopped by SIGTERM after step 15; the same command goes on from there" in caplog.text
    model, history = train(tmp_path / "stopped", task)
    assert "stopped after step 15; going on" in caplog.text
    assert untimed(history) == untimed(expected)
    for found, wanted in zip(weights(model), weights(whole), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.fixture
def interruptible():
    """As in a terminal; in a shell's background Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_what_is_ignored_stays_ignored(interruptible):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with noticed() as notice:
        os.kill(os.getpid(), signal.SIGINT)
    assert not notice.given


def test_the_first_signal_waits_the_second_ctrl_c_does_not(interruptible):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), noticed() as notice:
        os.kill(os.getpid(), signal.SIGINT)
        assert notice.number == signal.SIGINT and exit_code(notice.number) == 130
        # nobody acted on it: on leaving it does its work
    with pytest.raises(KeyboardInterrupt, match=r"^$"), noticed():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second one was noted, too")
    assert signal.getsignal(signal.SIGINT) == before


def test_sigterm_while_eval_is_looked_at_for_the_last_time_is_not_forgotten(tmp_path):
    task = make_task(tmp_path)
    look = _Training._look_at_eval

    def told_to_go(self):
        if self.checkpoints.progress.epoch == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return look(self)

    with mock.patch.object(_Training, "_look_at_eval", told_to_go), pytest.raises(SystemExit) as ended:
        train(tmp_path / "stopped", task)
    assert ended.value.code == 143
    _, history = train(tmp_path / "stopped", task)
    assert [entry["epoch"] for entry in history] == [1, 2, 3]


@pytest.mark.parametrize(("epochs", "told"), [(3, True), (1, False)])
def test_a_stop_between_the_last_step_and_the_last_look_at_eval_loses_no_look(tmp_path, epochs, told):
    """`told`: by SIGTERM; else killed after the checkpoint of the last step, which is a tenth one."""
    task, settings = make_task(tmp_path), dataclasses.replace(SETTINGS, epochs=epochs)
    whole, expected = train(tmp_path / "whole", task, settings, checkpoint_every=10)
    tell = Board.tell_steps
    look = _Training._look_at_eval

    def told_to_go(self, step, *more):
        tell(self, step, *more)
        if told and step == 10 * epochs:
            os.kill(os.getpid(), signal.SIGTERM)

    def killed(self):
        if self.checkpoints.progress.epoch == epochs:
            raise KeyboardInterrupt
        return look(self)

    stop = mock.patch.multiple(_Training, _look_at_eval=killed)
    with mock.patch.object(Board, "tell_steps", told_to_go), stop, pytest.raises((SystemExit, KeyboardInterrupt)) as by:
        train(tmp_path / "stopped", task, settings, checkpoint_every=10)
    assert isinstance(by.value, SystemExit) == told
    model, history = train(tmp_path / "stopped", task, settings, checkpoint_every=10)
    assert untimed(history) == untimed(expected) and len(history) == epochs
    for found, wanted in zip(weights(model), weights(whole), strict=True):
        np.testing.assert_array_equal(found, wanted)


class Training:
    """tiny_training as a process, in a place of its own."""

    def __init__(self, records: Path, place: Path) -> None:
        self.place = place
        place.mkdir(exist_ok=True)
        self._log = place / "log"
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "tests.trainer.tiny_training", str(records), str(place)]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def seen(self, pattern: str) -> bool:
        return any(self.place.glob(pattern))

    def until(self, *patterns: str) -> None:
        """Waits for a file that matches; as often as possible, since a checkpoint is written within milliseconds."""
        limit = time.monotonic() + 120
        while not any(self.seen(pattern) for pattern in patterns):
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < limit, patterns

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def result(self) -> list[np.ndarray]:
        assert self.process.wait(240) == 0, self._log.read_text()
        with np.load(self.place / "weights.npz") as found:
            return [found[name] for name in found.files]


def killed_and_resumed(records: Path, place: Path, wait: float, *, writing: bool) -> list[np.ndarray]:
    """The result after a SIGKILL, `wait` seconds after the first checkpoint; `writing`: amid the next one."""
    training = Training(records, place)
    training.until("checkpoints/latest/checkpoint")
    time.sleep(wait)
    if writing:
        training.until("checkpoints/latest/*_temp/*", "checkpoints/latest/*.tempstate*", "checkpoints/latest/*.tmp*")
    assert not training.seen("weights.npz"), "it was over before the kill"
    training.kill()
    return Training(records, place).result()


def same(found: list[np.ndarray], wanted: list[np.ndarray]) -> bool:
    return len(found) == len(wanted) and all(map(np.array_equal, found, wanted))


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    """Half of the kills at a random moment, half in the midst of the writing of a checkpoint."""
    records, generator = tmp_path / "records", random.Random(7)
    wanted = Training(records, tmp_path / "whole").result()
    held = []
    for number in range(KILLS):
        wait, writing = generator.uniform(0, 1.5), number % 2 == 1
        found = killed_and_resumed(records, tmp_path / f"killed-{number}", wait, writing=writing)
        held.append(same(found, wanted))
        print(f"kill {number + 1}: after {wait:.1f} s{', a checkpoint half written' if writing else ''}: {held[-1]}")
    assert held == [True] * KILLS
    assert not same([wanted[0], *(one + 1e-6 for one in wanted[1:])], wanted)
