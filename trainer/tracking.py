"""A training in Vertex AI Experiments, where --experiment asks for it: one run, its settings and what was measured.

By Google's own client, since what makes a context a run of an experiment (its schema, `_params`, `_metrics`, `_state`,
its place under the experiment) is that client's convention and no API's. Metrics are a run's summary: while it trains
those of the epoch before, in the end those of the epoch that was kept, and test's. Curves over epochs are not written
here: they want a TensorBoard, and Vertex AI uploads the job's own logs to the one that the job names.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import logging
import math
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any

from preprocessing.cli import UserError

log = logging.getLogger(__name__)

FORM = "projects/PROJECT/locations/REGION/metadataStores/default/contexts/NAME"
_ID = r"[a-z0-9][a-z0-9-]{0,127}"  # of a context
_LONGEST = 121  # experiment-run: the client keeps the rest of 128 for the name of a TensorBoard run
_TIMEOUT_S = 60.0  # of all that is written at once; the client's own calls have no limit


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Where a training is written to."""

    project: str
    region: str
    name: str

    def __str__(self) -> str:
        return FORM.replace("PROJECT", self.project).replace("REGION", self.region).replace("NAME", self.name)


def experiment(text: str) -> Experiment | None:
    """The experiment of a resource name, None of an empty text. Raises ArgumentTypeError for anything else."""
    if not text:
        return None
    form = FORM.replace("PROJECT", r"([\w:.-]+)").replace("REGION", r"([a-z]+-[a-z]+\d+)").replace("NAME", f"({_ID})")
    found = re.fullmatch(form, text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected {FORM} with NAME like {_ID}, got {text!r}")
    return Experiment(*found.groups())


def run_id(text: str) -> str:
    """A run's name. Raises ArgumentTypeError where it cannot be one."""
    if not re.fullmatch(_ID, text):
        raise argparse.ArgumentTypeError(f"expected a name like {_ID}, got {text!r}")
    return text


def run_name(of: Experiment, place: str, given: str | None, trial: str | None) -> str:
    """What the run is called: as given, else as its run directory's last part; a trial adds its number.

    Raises UserError where that is too long beside the experiment's name, or where no letter or digit is left.
    """
    last = re.sub(r"[^a-z0-9]+", "-", place.rstrip("/").rpartition("/")[2].lower()).strip("-")
    name = "-".join(part for part in (given or last, trial) if part)
    if not re.fullmatch(_ID, name) or len(f"{of.name}-{name}") > _LONGEST:
        longest = _LONGEST - len(of.name) - 1
        raise UserError(
            f"--experiment {of.name}: its run would be called {name!r}; expected a name of lower-case letters, digits "
            f"and -, at most {longest} of them beside that experiment's name: give one with --experiment_run"
        )
    return name


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a tracker."""
    parser.add_argument(
        "--experiment",
        type=experiment,
        metavar="CONTEXT",
        help=f"write settings and metrics to this Vertex AI experiment, {FORM}; empty: to none (default)",
    )
    parser.add_argument(
        "--experiment_run",
        type=run_id,
        metavar="NAME",
        help="what the run is called there (default: the last part of --run_dir); a trial adds its number",
    )


def require_client() -> None:
    """Raises UserError where Google's client is not installed."""
    if importlib.util.find_spec("google.cloud.aiplatform") is None:
        raise UserError(
            "--experiment: google-cloud-aiplatform is not installed here; the extra tracking brings it, and our "
            "trainer's image has it"
        )


class Tracker:
    """Writes a run; without an experiment it does nothing. It stops no training.

    What cannot be written is said once, and held in `told`. After a failure epochs are passed over; at the end all is
    tried once more, since a service that was away for a minute is no cause to lose what came of hours.
    """

    def __init__(self, of: Experiment | None = None, run: str = "", place: str = "", timeout_s: float = _TIMEOUT_S):
        """place: the run directory that the run belongs to; timeout_s: for what is written at once."""
        self._of, self._name, self._place, self._timeout_s = of, run, place, timeout_s
        self._params: dict[str, Any] = {}
        self._run: Any = None
        self._error: str | None = None
        self._hangs = self._written = False

    def begin(self, params: Mapping[str, Any]) -> None:
        """Makes the run, or takes up that of an attempt before. params: numbers, texts; None is left out."""
        self._params = {"run_dir": self._place} | {name: value for name, value in params.items() if value is not None}
        self._attempt(self._open)

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """Metrics after an epoch: fit's history entry. What is None or no finite number is left out."""
        if self._error is None:
            self._attempt(lambda: self._run.log_metrics(_numbers(entry)))

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Metrics of the model that was kept, and the run's end."""

        def write() -> None:
            if self._error is not None:
                self._open()
            self._run.log_metrics(_numbers(metrics))
            self._end("COMPLETE")
            self._written = True

        self._attempt(write)

    @property
    def told(self) -> dict[str, Any]:
        """For run.json: {"experiment": {"context", "run", "written": whether all was in the end, "error": the first}}.

        Without an error that key is left out, without an experiment all.
        """
        if self._of is None:
            return {}
        error = {} if self._error is None else {"error": self._error}
        return {"experiment": {"context": str(self._of), "run": self._name, "written": self._written, **error}}

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """A training that fails is told so; one that is stopped goes on some time, and its run stays as it is."""
        if kind is not None and issubclass(kind, Exception) and self._run is not None and self._error is None:
            self._attempt(lambda: self._end("FAILED"))

    def _open(self) -> None:
        from google.api_core.exceptions import NotFound
        from google.cloud import aiplatform
        from google.cloud.aiplatform_v1 import MetadataServiceClient

        assert self._of is not None
        # update() goes to init's region, whatever region the run was opened in
        aiplatform.init(project=self._of.project, location=self._of.region)
        store = str(self._of).partition("/contexts/")[0]
        host = f"{self._of.region}-aiplatform.googleapis.com"
        try:  # the client would make a store with a key of Google's, which no store gets rid of
            MetadataServiceClient(client_options={"api_endpoint": host}).get_metadata_store(name=store)
        except NotFound:
            raise RuntimeError(f"there is no {store}; make it first, under your key") from None
        parent = aiplatform.Experiment.get_or_create(self._of.name)
        run = aiplatform.ExperimentRun.get(self._name, experiment=parent)
        if run is None:
            run = aiplatform.ExperimentRun.create(self._name, experiment=parent)
        elif run.get_params().get("run_dir", self._place) != self._place:
            raise RuntimeError(f"it belongs to {run.get_params()['run_dir']}; name another run with --experiment_run")
        else:
            run.update_state(aiplatform.gapic.Execution.State.RUNNING)
        run.log_params(self._params)
        self._run = run

    def _end(self, state: str) -> None:
        from google.cloud import aiplatform

        self._run.end_run(state=getattr(aiplatform.gapic.Execution.State, state))

    def _attempt(self, call: Callable[[], None]) -> None:
        """Calls, within the time that there is for it; says the first failure."""
        if self._of is None or self._hangs:
            return
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        try:
            _within(self._timeout_s, call)
        except (GoogleAPIError, GoogleAuthError, OSError, RuntimeError, TypeError, ValueError) as error:
            self._hangs = isinstance(error, TimeoutError)
            if self._error is None:
                self._error = (str(error).splitlines() or [type(error).__name__])[0]
                log.warning(
                    "warning: run %s of the experiment %s was not written: %s; training goes on",
                    *(self._name, self._of.name, self._error),
                )


def final_metrics(history: list[dict[str, Any]], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is compared by: the kept epoch's metrics on eval, and test_<metric>_<h>d of each horizon.

    history: fit's; the kept epoch is that of the lowest eval loss. metrics: what evaluate returns.
    """
    kept = min(history, key=lambda entry: entry["eval_loss"])
    found = {**kept, "epochs": len(history)}
    for horizon in metrics["horizons_days"]:
        measured = metrics["test"][str(horizon)]["lstm"]
        found |= {f"test_{name}_{horizon}d": one["value"] for name, one in measured.items()}
    return found


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Calls in a thread, left behind where it takes longer. Raises TimeoutError then, else what the call does."""
    ended: Future[None] = Future()

    def work() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised by result(), in the thread that waits
            ended.set_exception(error)
        else:
            ended.set_result(None)

    # no executor: at exit it would wait for a call that hangs
    threading.Thread(target=work, name="experiment", daemon=True).start()
    if not wait([ended], seconds).done:
        raise TimeoutError(f"no answer within {seconds:g} s")
    ended.result()
