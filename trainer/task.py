"""`python -m trainer.task --run_dir DIR`: trains on records/, then writes model/ and evaluation/.

The whole job, and a smoke run in under a minute:

    python -m trainer.task --run_dir runs/demo
    python -m trainer.task --run_dir runs/demo --epochs 1 --max_steps 50 --no_baselines

Reads transform/ and records/ (and journeys/, for the evaluation) of the run directory. training/ holds checkpoints and
TensorBoard logs: stopped in the middle, the same command goes on from there. model/ and evaluation/ change places with
the old ones only when both are whole. A trial of a tuning job writes below trials/ID/ of the run directory; of several
machines that train together (TF_CONFIG, CLUSTER_SPEC) the chief alone writes. On Vertex AI, AIP_MODEL_DIR,
AIP_CHECKPOINT_DIR and AIP_TENSORBOARD_LOG_DIR are honoured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError, import_quietly, run
from preprocessing.rundir import RunDir
from preprocessing.storage import exists, localised
from trainer import __version__
from trainer.accelerators import require_gpu
from trainer.budget import Guard, Meter, bill
from trainer.cluster import Cluster, is_chief
from trainer.settings import Arguments, Settings, parse
from trainer.tracking import Tracker, final_metrics, require_client, run_name
from trainer.tuning import trial

if TYPE_CHECKING:
    from preprocessing.spec import AnySpec
    from trainer.fit import Habits, Task
    from trainer.support import Support

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the job. Raises UserError for what the user can mend."""
    meter = Meter()
    arguments = parse(argv)
    run_dir = RunDir(arguments.run_dir)
    if not run_dir.exists():
        run_dir.require("records")  # says how to make it; a lock would make an empty one
    output = RunDir(f"{run_dir.place}/trials/{trial()}") if trial() else run_dir
    tracker = _tracker(arguments, output)
    with output.lock() if is_chief() else contextlib.nullcontext(), tracker:
        run_dir.require("journeys", "records", "transform")
        run_dir.fetch("journeys", "transform")  # records are read where they lie
        if arguments.truth is not None:
            _require_truth(run_dir, arguments.truth)
        train(run_dir, output, arguments, meter, tracker)


def train(run_dir: RunDir, output: RunDir, arguments: Arguments, meter: Meter, tracker: Tracker) -> None:
    """Trains on what lies in `run_dir`, exports and evaluates into `output`, which is locked: the same or a trial's."""
    import_quietly("tensorflow", "keras")
    import keras
    import tensorflow as tf

    from preprocessing.manifest import write_manifest
    from preprocessing.spec import load_spec
    from trainer.evaluate import evaluate
    from trainer.evolution import exported
    from trainer.export import export
    from trainer.fit import fit
    from trainer.model import Scorer, in_float32
    from trainer.predictions import Predictor
    from trainer.projector import write_embeddings
    from trainer.schema import read_vocabulary
    from trainer.statistics import journey_statistics
    from trainer.summary import summarise

    cluster = Cluster.join()
    if arguments.require_gpu:
        require_gpu()
    tf.config.experimental.enable_op_determinism()
    spec = load_spec(run_dir.transform / "spec.yaml")
    task, test_files, test_journeys = _task(run_dir, spec)
    settings = arguments.settings(task.train.journeys, task.eval.journeys)
    keras.utils.set_random_seed(settings.seed)
    guard = Guard(meter, arguments.budget, task.eval.journeys + test_journeys)
    habits = _habits(run_dir, output, arguments, settings, guard=guard, tracker=tracker)
    watch = habits.watch
    tracker.begin(habits.identity | {"train_journeys": task.train.journeys, "eval_journeys": task.eval.journeys})
    model, history = fit(task, settings, habits, cluster)
    if not cluster.is_chief:
        cluster.wait()  # a machine that leaves is taken for one that failed
        return

    write_embeddings(habits.logs, model.members[0], read_vocabulary(run_dir.transform))
    raw = Scorer(in_float32(model, settings), task.negative_rate / settings.positive_weight)
    eval_raw = Predictor(raw, task.schema, task.horizons, task.gap)(task.eval_files, "eval", task.eval.journeys)
    calibration, eval_scored = eval_raw.calibrated()
    scorer = dataclasses.replace(raw, calibration=calibration)
    with output.stage("model", "evaluation") as staged:
        version = export(scorer, run_dir.transform, spec, settings, staged["model"], support=_support(task, spec))
        log.info("scoring the test journeys with model %s", version)
        test_scored = Predictor(scorer, task.schema, task.horizons, task.gap)(test_files, "test", test_journeys)
        scored = {"eval": eval_scored.table("eval", version), "test": test_scored.table("test", version)}
        _write_beside(
            staged["model"],
            {
                "statistics": journey_statistics(
                    run_dir.journeys, "train", spec, spec.privacy.min_customers, scores=scored["test"]
                )
            },
        )
        write_manifest(staged["model"])
        measured = evaluate(
            run_dir,
            spec,
            scored,
            history,
            staged["evaluation"],
            truth=None if arguments.truth is None else localised(arguments.truth),
            seed=settings.seed,
            bootstrap=arguments.bootstrap,
            settings=dataclasses.asdict(settings),
            model_version=version,
            baselines=arguments.baselines,
            contact_cost=arguments.contact_cost,
            conversion_value=arguments.conversion_value,
            evolution=exported(staged["model"]),
            calibrated=calibration.described(task.horizons),
            remarks=[guard.stopped] if guard.stopped else [],
            resources=watch.summary(),
            bill=None if arguments.budget is None else partial(bill, meter, arguments.budget, task.train.journeys),
        )
        tracker.finish(final_metrics(history, measured))
        ran = bill(meter, arguments.budget, task.train.journeys) | {"stopped_by_budget": guard.stopped is not None}
        # of this run alone: metrics.json is the same in every run
        _write_beside(staged["evaluation"], {"run": ran | tracker.told, "resources": watch.summary()})
    _publish(output)
    print(summarise(output))
    cluster.wait()


def _require_truth(run_dir: RunDir, place: str) -> None:
    """Raises UserError unless the evaluation can take what lies there, which it wants after the training only."""
    from preprocessing.spec import load_spec
    from trainer.joins import require_truth
    from trainer.outcomes import read_outcomes

    if not exists(place):
        raise UserError(f"--truth {place}: no such file")
    spec = load_spec(run_dir.transform / "spec.yaml")
    test = read_outcomes(run_dir.journeys, "test")
    require_truth(localised(place), test, spec.horizons_days, spec.gap_days, f"--truth {place}")


def _tracker(arguments: Arguments, output: RunDir) -> Tracker:
    """Of the chief alone, as one run. Raises UserError where it cannot be called so, or the client is missing."""
    if arguments.experiment is None or not is_chief():
        return Tracker()
    require_client()
    name = run_name(arguments.experiment, arguments.run_dir, arguments.experiment_run, trial())
    return Tracker(arguments.experiment, name, output.place)


def _write_beside(directory: Path, files: dict[str, dict[str, Any]]) -> None:
    """JSON files beside what is in the directory."""
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")


def _publish(output: RunDir) -> None:
    """Puts the model where Vertex AI wants it, if it says so."""
    from trainer.export import publish

    published = os.environ.get("AIP_MODEL_DIR")
    if published:
        if published.rstrip("/") != output.url("model"):  # Vertex AI's place may be the very same
            output.fetch("model")
            publish(output.model, published)
        print(f"published to {published}")


def _support(task: Task, spec: AnySpec) -> Support | None:
    """Of whom training saw enough treated by each campaign, and enough held out; None without assignments."""
    from preprocessing.spec import EventsSpec
    from trainer.support import count_support

    if not isinstance(spec, EventsSpec) or spec.assignments is None:
        return None
    fields = spec.customer.categorical if spec.customer else ()
    return count_support(task.train_files, task.schema, fields, spec.privacy.min_customers)


def _task(run_dir: RunDir, spec: AnySpec) -> tuple[Task, list[str], int]:
    """What is to be learnt, and the test split's files and journeys. Raises UserError where a split won't do."""
    from trainer.dataset import record_files, scan
    from trainer.fit import Task
    from trainer.schema import RecordSchema

    schema = RecordSchema.load(run_dir.transform)
    files = {split: record_files(run_dir.url("records"), split) for split in ("train", "eval", "test")}
    trained = [record_files(run_dir.url("records"), split) for split in spec.train_splits]
    files["train"] = [file for part in trained for file in part]
    horizons, gap = spec.horizons_days, spec.gap_days
    with ThreadPoolExecutor(len(files)) as pool:
        found = pool.map(lambda split: scan(files[split], schema, horizons, gap), files)
        counts = dict(zip(files, found, strict=True))
    place = run_dir.url("records")
    for split, held in counts.items():
        if not held.journeys:
            raise UserError(f"{place}: the {split} split holds no journey; change split or snapshots in the spec")
    train = counts["train"]
    for horizon, at_risk, events in zip(horizons, train.at_risk, train.events, strict=True):
        if not at_risk:
            raise UserError(
                f"{place}: no train journey is observed for {gap + horizon} days not having converted, "
                f"so {horizon} days can't be learnt; move data_until or the split, or take the horizon away"
            )
        if not events:
            log.warning("warning: no train journey converts first in the interval that ends at %d days", horizon)
    if not train.events.any():
        raise UserError(
            f"{place}: none of the {train.journeys:,} train journeys converts within {horizons[-1]} days: "
            "there is nothing to learn; check conversion.where, or take more data"
        )
    if not counts["eval"].events.any():
        log.warning("warning: no eval journey converts: training stops by the eval loss in place of PR-AUC")
    task = Task(
        schema,
        horizons,
        gap,
        spec.primary_horizon,
        spec.sampling.negative_rate,
        files["train"],
        train,
        files["eval"],
        counts["eval"],
    )
    return task, files["test"], counts["test"].journeys


def _habits(
    run_dir: RunDir, output: RunDir, arguments: Arguments, settings: Settings, *, guard: Guard, tracker: Tracker
) -> Habits:
    """Where training writes: the run directory, or where Vertex AI says; and what hears of its epochs."""
    import tensorflow as tf

    from trainer.fit import Habits
    from trainer.monitoring import job_monitoring
    from trainer.watch import Watch

    checkpoints = os.environ.get("AIP_CHECKPOINT_DIR") or output.url("training/checkpoints")
    identity: dict[str, Any] = {
        **dataclasses.asdict(settings),
        "records": run_dir.stamp("records"),
        "package_version": __version__,
        "tensorflow_version": tf.__version__,
    }
    return Habits(
        checkpoints=checkpoints,
        settings_file=(
            f"{checkpoints.rstrip('/')}/settings.json"
            if os.environ.get("AIP_CHECKPOINT_DIR")
            else output.url("training/settings.json")
        ),
        logs=os.environ.get("AIP_TENSORBOARD_LOG_DIR") or output.url("training/logs"),
        identity=identity,
        restart=arguments.restart,
        checkpoint_every=arguments.checkpoint_every,
        log_every=arguments.log_every,
        profile_steps=arguments.profile_steps,
        guard=guard,
        watch=Watch(tell=job_monitoring()),
        tell=tracker.epoch,
    )


if __name__ == "__main__":
    run(main)
