"""Cross-fitting: each fold's assignments are scored by a network that was trained without the fold's customers.

So no score, and no state of a network, has seen what its customer did afterwards: as a covariate it is as if measured
before the assignment, and what is fitted on it needs no correction for the network's learning by heart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from preprocessing.blocks import ASKED, NONE
from preprocessing.cli import UserError
from preprocessing.rundir import RunDir
from preprocessing.spec import EventsSpec
from preprocessing.storage import scratch
from trainer import __version__, hazard
from trainer.assignments import Assigned
from trainer.dataset import ordered_batches, record_files, scan
from trainer.fit import Habits, Task, fit
from trainer.folds import Dealt, bucket, campaigns_of, deal
from trainer.model import Scorer
from trainer.predictions import Predictor
from trainer.schema import RecordSchema, read_vocabulary
from trainer.settings import Settings

log = logging.getLogger(__name__)

_BATCH = 1_024
_FIRST_ID, _OUT_OF_VOCABULARY = 2, 1  # as transform/features.json numbers a vocabulary
Features = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class FoldNetwork:
    """A fold's number and the network that was trained without its customers."""

    fold: int
    scorer: Scorer


@dataclasses.dataclass(frozen=True)
class CrossFitted:
    """The assignments scored out of fold, and the networks that did it. vocabulary: values of categorical fields."""

    assigned: Assigned
    networks: list[FoldNetwork]
    vocabulary: dict[str, list[str]]


def cross_fit(
    run_dir: RunDir,
    spec: EventsSpec,
    settings: Settings,
    folds: int,
    *,
    look: Callable[[Sequence[str]], None] = lambda campaigns: None,
) -> CrossFitted:
    """Trains `folds` networks with these settings and scores every assignment of the run directory out of fold.

    To be used while the run directory's lock is held. look: hears the assignments' campaigns before anything is
    trained, and may raise. What is under way lies in training/folds: stopped in the middle, it goes on from there.
    Raises UserError where the records hold no assignment, or a fold has nothing to learn from.
    """
    schema = RecordSchema.load(run_dir.transform)
    files = {split: record_files(run_dir.url("records"), split) for split in spec.splits}
    gap, horizons, rate = spec.gap_days, spec.horizons_days, spec.sampling.negative_rate
    vocabulary = read_vocabulary(run_dir.transform)
    with _aside(run_dir) as aside:
        dealt = deal(files, schema, folds, aside, (gap + horizons[-1], horizons[-1], rate))
        if not scan(dealt.score, schema, horizons, gap).journeys:
            raise UserError(
                f"{run_dir.url('records')}: no journey at an assignment; does the table of assignments hold rows?"
            )
        look(campaigns_of(dealt.score, schema))
        networks = []
        for fold in range(folds):
            log.info("fold %d of %d: training without its customers", fold + 1, folds)
            networks.append(FoldNetwork(fold, _trained(fold, dealt, run_dir, spec, settings)))
        parts = [_score(network, dealt.score[network.fold], schema, spec, vocabulary) for network in networks]
    return CrossFitted(_together(parts), networks, vocabulary)


@contextlib.contextmanager
def _aside(run_dir: RunDir) -> Iterator[Path]:
    """A place for the dealt records, which are customers' data: in the run directory, where whoever holds its lock next
    clears what a kill left; of one under gs:// on this machine, where its copies lie, too."""
    if run_dir.is_remote:
        with tempfile.TemporaryDirectory(prefix="folds-", dir=scratch()) as local:
            yield Path(local)
        return
    place = run_dir.path / "folds.partial"
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _trained(fold: int, dealt: Dealt, run_dir: RunDir, spec: EventsSpec, settings: Settings) -> Scorer:
    schema, horizons, gap = RecordSchema.load(run_dir.transform), spec.horizons_days, spec.gap_days
    learn, stop = ([file for i, file in enumerate(part) if i != fold] for part in (dealt.learn, dealt.stop))
    counts = scan(learn, schema, horizons, gap)
    stop_counts = scan(stop, schema, horizons, gap)
    if not counts.events.any() or not counts.at_risk.all() or not stop_counts.journeys:
        raise UserError(
            f"{run_dir.url('records')}: too few journeys to train without the customers of fold {fold + 1}: "
            f"{counts.journeys:,} to learn from and {stop_counts.journeys:,} to stop by; take more customers"
        )
    rate = spec.sampling.negative_rate
    task = Task(schema, horizons, gap, spec.primary_horizon, rate, learn, counts, stop, stop_counts)
    keras.utils.set_random_seed(settings.seed + 1 + fold)
    place = run_dir.url(f"training/folds/{fold}")
    identity: dict[str, Any] = {
        **dataclasses.asdict(settings),
        "records": run_dir.stamp("records"),
        "fold": [fold, len(dealt.learn)],
        "package_version": __version__,
        "tensorflow_version": tf.__version__,
    }
    habits = Habits(f"{place}/checkpoints", f"{place}/settings.json", f"{place}/logs", identity)
    model, _ = fit(task, settings, habits)
    scorer = Scorer(model, rate / settings.positive_weight)
    calibration, _ = Predictor(scorer, schema, horizons, gap)(stop, "calibrating", stop_counts.journeys).calibrated()
    return dataclasses.replace(scorer, calibration=calibration)


def asked_ids(campaigns: np.ndarray, vocabulary: list[str]) -> np.ndarray:
    """int64 [n]: the ids of campaigns as the network's input; the id of out of vocabulary for those never treated."""
    ids = {value: _FIRST_ID + place for place, value in enumerate(vocabulary)}
    return np.array([ids.get(campaign, _OUT_OF_VOCABULARY) for campaign in campaigns], np.int64)


def scoring(scorer: Scorer, horizon: int) -> Callable[[Features, tf.Tensor, tf.Tensor], tuple[tf.Tensor, ...]]:
    """A function (features, id of no campaign, ids of the campaigns) -> (without, with_it, state) at horizon `horizon`
    of the spec's, by its place. Features' own asked campaign has no part in it."""

    parsing = scorer.model.schema.feature_parsing()
    given = {name: tf.TensorSpec([None, *feature.shape], feature.dtype) for name, feature in parsing.items()}

    @tf.function(input_signature=[given, tf.TensorSpec([], tf.int64), tf.TensorSpec([None], tf.int64)], autograph=False)
    def score(features: Features, none: tf.Tensor, asked: tf.Tensor) -> tuple[tf.Tensor, ...]:
        without = features | {ASKED: tf.fill(tf.shape(asked), none)}
        with_it = features | {ASKED: asked}
        answers = [hazard.probabilities(scorer.logits(arm))[:, horizon] for arm in (without, with_it)]
        return answers[0], answers[1], scorer.model.represent(without)

    return score


def _score(
    network: FoldNetwork, file: str, schema: RecordSchema, spec: EventsSpec, vocabulary: dict[str, list[str]]
) -> dict[str, np.ndarray]:
    """Every assignment of a fold, as columns."""
    score = scoring(network.scorer, spec.horizons_days.index(spec.primary_horizon))
    none = tf.constant(asked_ids(np.array([NONE]), vocabulary[ASKED])[0])
    parts: list[dict[str, np.ndarray]] = []
    for features, labels in ordered_batches([file], schema, batch_size=_BATCH, extra=schema.assignment_parsing()):
        asked = asked_ids(_text(labels["assigned_campaign"].numpy()), vocabulary[ASKED])
        without, with_it, state = (one.numpy() for one in score(features, none, tf.constant(asked)))
        part = {name: value.numpy() for name, value in labels.items()}
        # never under their bare names, which may be those of columns here
        categorical = (name for name in schema.customer_categorical if name != ASKED)
        part |= {f"category {name}": _named(features[name].numpy(), vocabulary[name]) for name in categorical}
        part |= {f"number {name}": features[name].numpy().astype(np.float64) for name in schema.customer_numeric}
        seen = asked != _OUT_OF_VOCABULARY
        part |= {"without": without, "with_it": np.where(seen, with_it, np.nan), "state": state}
        parts.append(part | {"network": np.full(len(asked), network.fold)})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    if columns:
        days, observed = columns["days_to_conversion"], columns["observed_days"]
        columns["converted"] = days < spec.primary_horizon
        columns["known"] = observed >= spec.gap_days + spec.primary_horizon
    return columns


def _together(parts: list[dict[str, np.ndarray]]) -> Assigned:
    parts = [part for part in parts if part]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["journey_id"], kind="stable")  # of no meaning, and the same in every run
    columns = {name: values[order] for name, values in columns.items()}
    by_kind = {
        kind: {name.removeprefix(f"{kind} "): v for name, v in columns.items() if name.startswith(f"{kind} ")}
        for kind in ("category", "number")
    }
    return Assigned(
        journey_id=_text(columns["journey_id"]),
        customer_key=_text(columns["customer_key"]),
        customer=np.unique(columns["customer_key"], return_inverse=True)[1].astype(np.int64),
        campaign=_text(columns["assigned_campaign"]),
        as_of=columns["as_of"].astype(np.int64),
        treated=columns["treated"] == 1,
        converted=columns["converted"].astype(bool),
        known=columns["known"].astype(bool),
        days_since_conversion=columns["days_since_conversion"].astype(np.float64),
        without=columns["without"].astype(np.float64),
        with_it=columns["with_it"].astype(np.float64),
        state=columns["state"],
        network=columns["network"].astype(np.int64),
        bucket=bucket(tf.constant(columns["customer_key"])),
        categories=by_kind["category"],
        numbers=by_kind["number"],
    )


def _named(ids: np.ndarray, vocabulary: list[str]) -> np.ndarray:
    """Values by id; what is out of vocabulary is one value, "(other)", and what was missing "(none)"."""
    names = np.array(["(padding)", "(other)", *("(none)" if value == NONE else value for value in vocabulary)], object)
    return names[ids]


def _text(values: np.ndarray) -> np.ndarray:
    return np.array([value.decode() for value in values], object)
