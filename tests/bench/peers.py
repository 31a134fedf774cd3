"""What an analyst would put beside the network: LightGBM and logistic regression on hand-made aggregates.

Both are fitted on train and chosen on eval, by log loss; the test journeys are read afterwards, once. `fit_peers` takes
no test journeys, so no choice can see them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.spec import DAY_US, AnySpec
from tests.bench.steps import say
from trainer.aggregates import Aggregates, fit_aggregates
from trainer.metrics import EPSILON, Floats
from trainer.outcomes import KEYS, microseconds, scan
from trainer.threads import one_thread

SHORT = 8  # journeys of so many events at most are also laid out event by event
TREES, PATIENCE = 3000, 100
# leaves, rows a leaf at least; all with a learning rate of 0.03
TREE_GRID = ((4, 50), (8, 50), (16, 50), (31, 100))
# strength of the fit: scikit-learn's C, small is strongly regularised
LOGISTIC_GRID = (0.001, 0.01, 0.1, 1.0)
QUICK_TREES = 30
Predict = Callable[[NDArray[np.float32]], Floats]


@dataclass(frozen=True)
class Part:
    """The journeys of a split whose outcome at the primary horizon is known.

    matrix: float32 [n, columns]; converted: bool [n]; journey_id, customer_key: Arrow string; as_of: int64 UTC µs.
    """

    matrix: NDArray[np.float32]
    converted: NDArray[np.bool_]
    journey_id: pa.Array
    customer_key: pa.Array
    as_of: NDArray[np.int64]


@dataclass(frozen=True)
class Inputs:
    """Journeys to numbers: the aggregates, and of short journeys each event's value and the gap before it.

    The positions make the peers stronger than the aggregates alone would, where an analyst would lay events out.
    """

    spec: AnySpec
    aggregates: Aggregates

    @property
    def positions(self) -> int:
        return self.spec.sequence.max_events if self.spec.sequence.max_events <= SHORT else 0

    @property
    def is_category(self) -> NDArray[np.bool_]:
        """bool [columns]: which columns are codes."""
        steps = self.positions
        laid_out = np.repeat([True, False], [steps * len(self.spec.sequence.categorical), steps])
        return np.concatenate([self.aggregates.is_category, laid_out])

    def of(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        """float32 [rows, columns]; NaN where there is no such event."""
        matrix = self.aggregates.of(batch)
        steps = self.positions
        if not steps:
            return matrix
        length = pc.list_value_length(batch["event_time"]).to_numpy(zero_copy_only=False).astype(np.int64)
        inside = np.arange(steps) < length[:, None]
        columns = [matrix]
        for field in self.spec.sequence.categorical:
            values = pa.array(self.aggregates.values[field], pa.string())
            code = pc.index_in(pc.list_flatten(batch[field]), value_set=values)
            columns.append(_spread(pc.fill_null(code, -1).to_numpy(zero_copy_only=False) + 1, inside))
        days = _spread(microseconds(pc.list_flatten(batch["event_time"])) / DAY_US, inside, np.float64)
        gaps = np.full(days.shape, np.nan, dtype=np.float32)
        gaps[:, 1:] = np.diff(days, axis=1)
        return np.concatenate([*columns, gaps], axis=1)


@dataclass(frozen=True)
class Peer:
    """A fitted and chosen peer: predict: matrix to P(converts), float64 [n]; chosen: how, with its log loss on eval."""

    name: str
    predict: Predict
    eval_log_loss: float
    chosen: dict[str, Any]


def learn_inputs(journeys: Path, spec: AnySpec) -> Inputs:
    """Which values are counted is learnt from train. Raises ValueError where train is downsampled."""
    if spec.sampling.negative_rate != 1:
        raise ValueError("the peers do not undo downsampling: expected sampling.negative_rate 1")
    return Inputs(spec, fit_aggregates(journeys, spec))


def read_part(journeys: Path, split: str, inputs: Inputs) -> Part:
    """All journeys of a split whose outcome is known, in the order of the files."""
    spec = inputs.spec
    horizon, gap = spec.primary_horizon, spec.gap_days
    batches, matrices = [], []
    for batch in scan(journeys, split, tuple(dict.fromkeys((*KEYS, *inputs.aggregates.columns)))):
        known = batch.filter(pc.greater_equal(batch["observed_days"], float(gap + horizon)))
        if known.num_rows:
            matrices.append(inputs.of(known))
            batches.append(known.select(["journey_id", "customer_key", "as_of", "days_to_conversion"]))
    table = pa.Table.from_batches(batches).combine_chunks()
    days = pc.fill_null(table["days_to_conversion"], np.inf).to_numpy()
    return Part(
        np.concatenate(matrices),
        days < horizon,
        table["journey_id"].combine_chunks().cast(pa.string()),
        table["customer_key"].combine_chunks().cast(pa.string()),
        microseconds(table["as_of"]),
    )


@one_thread()
def fit_peers(train: Part, evaluation: Part, inputs: Inputs, seeds: tuple[int, ...], quick: bool) -> list[Peer]:
    """LightGBM once a seed, and one logistic regression (it has no chance in it), in this order."""
    peers = [_lightgbm(train, evaluation, inputs.is_category, seed, quick) for seed in seeds]
    return [*peers, _logistic(train, evaluation, inputs.is_category, quick)]


def log_loss(converted: NDArray[np.bool_], probability: Floats) -> float:
    """Mean of -ln(probability given to what happened)."""
    clipped = np.clip(probability, EPSILON, 1 - EPSILON)
    return float(-np.where(converted, np.log(clipped), np.log1p(-clipped)).mean())


def _lightgbm(train: Part, evaluation: Part, is_category: NDArray[np.bool_], seed: int, quick: bool) -> Peer:
    """Trees of a small grid, each stopped by log loss on eval; the best there is kept."""
    import lightgbm as lgb

    codes = np.flatnonzero(is_category).tolist()
    options = {"categorical_feature": codes, "free_raw_data": False}
    learnt = lgb.Dataset(train.matrix, train.converted.astype(float), params={"verbosity": -1}, **options)
    chosen_on = lgb.Dataset(evaluation.matrix, evaluation.converted.astype(float), reference=learnt, **options)
    best: Peer | None = None
    for leaves, rows in TREE_GRID[:1] if quick else TREE_GRID:
        settings = {"num_leaves": leaves, "min_data_in_leaf": rows}
        parameters = {
            **settings,
            **{"objective": "binary", "metric": "binary_logloss", "learning_rate": 0.03, "verbosity": -1},
            **{"feature_fraction": 0.7, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 1.0},
            **{"num_threads": 1, "deterministic": True, "seed": seed, "feature_pre_filter": False},
        }
        model = lgb.train(
            parameters,
            learnt,
            num_boost_round=QUICK_TREES if quick else TREES,
            valid_sets=[chosen_on],
            callbacks=[lgb.early_stopping(PATIENCE, verbose=False)],
        )
        predict = _trees(model)
        loss = log_loss(evaluation.converted, predict(evaluation.matrix))
        say(f"    LightGBM, seed {seed}, {leaves} leaves: {model.best_iteration} trees, eval log loss {loss:.5f}")
        if best is None or loss < best.eval_log_loss:
            best = Peer(f"lightgbm_{seed}", predict, loss, {**settings, "trees": model.best_iteration})
    assert best is not None
    return best


def _trees(model: Any) -> Predict:
    return lambda matrix: np.asarray(model.predict(matrix, num_iteration=model.best_iteration), np.float64)


def _logistic(train: Part, evaluation: Part, is_category: NDArray[np.bool_], quick: bool) -> Peer:
    """L2-regularised logistic regression on signed logs and one-hot codes; its strength is chosen on eval."""
    from sklearn.compose import ColumnTransformer
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    numbers = make_pipeline(
        FunctionTransformer(_signed_log, feature_names_out="one-to-one"),
        SimpleImputer(add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    words = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=20, sparse_output=False)
    laid_out = ColumnTransformer(
        [("numbers", numbers, np.flatnonzero(~is_category)), ("words", words, np.flatnonzero(is_category))]
    )
    inputs = np.asarray(laid_out.fit_transform(train.matrix), np.float32)
    chosen_on = np.asarray(laid_out.transform(evaluation.matrix), np.float32)
    best: Peer | None = None
    for strength in LOGISTIC_GRID[:1] if quick else LOGISTIC_GRID:
        model = LogisticRegression(C=strength, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # eval decides on what the steps so far have found
            model.fit(inputs, train.converted)
        loss = log_loss(evaluation.converted, model.predict_proba(chosen_on)[:, 1])
        say(f"    logistic regression, C {strength}: eval log loss {loss:.5f}")
        if best is None or loss < best.eval_log_loss:
            best = Peer("logistic_regression", _linear(laid_out, model), loss, {"C": strength})
    assert best is not None
    return best


def _linear(laid_out: Any, model: Any) -> Predict:
    return lambda matrix: np.asarray(model.predict_proba(laid_out.transform(matrix))[:, 1], np.float64)


def _signed_log(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sign(values) * np.log1p(np.abs(values))


def _spread(flat: NDArray[Any], inside: NDArray[np.bool_], dtype: type = np.float32) -> NDArray[Any]:
    spread = np.full(inside.shape, np.nan, dtype=dtype)
    spread[inside] = flat
    return spread
