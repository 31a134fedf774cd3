"""Metrics against tables worked out by hand, and against scikit-learn on random data with ties and weights."""

import numpy as np
import pytest
from sklearn import metrics as reference

from trainer.metrics import METRICS, Scores, equal_mass_bins

# Ten journeys, best score first; 1 = converted.
RANKED = np.array([1, 0, 1, 0, 0, 0, 1, 0, 0, 0], dtype=bool)
PROBABILITY = np.linspace(0.95, 0.05, 10)


def evaluated(converted, probability, weight=None, **options):
    weight = None if weight is None else np.asarray(weight, dtype=float)
    values = Scores(np.asarray(converted, dtype=bool), probability, **options).evaluate(weight)
    return dict(zip(METRICS, values, strict=True))


def test_ranking_metrics_by_hand():
    found = evaluated(RANKED, PROBABILITY)
    # conversions at ranks 1, 3, 7: 7, 6 and 3 of the 7 others lie below them
    assert found["roc_auc"] == pytest.approx((7 + 6 + 3) / 21)
    assert found["pr_auc"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 7) / 3)
    assert found["base_rate"] == pytest.approx(0.3)
    assert found["lift_10"] == pytest.approx(1 / 0.3)  # the first journey converts
    assert found["lift_20"] == pytest.approx(0.5 / 0.3)  # one of the first two
    assert found["lift_1"] == pytest.approx(1 / 0.3)  # a tenth of the first journey


def test_tied_scores_count_half_in_auc_and_in_proportion_in_lift():
    found = evaluated([1, 0, 0, 0, 1, 0, 0, 0, 0, 0], [0.9] * 4 + [0.5] * 2 + [0.1] * 4)
    # first conversion: ties with 3, beats 5; second: ties with 1, beats 4
    assert found["roc_auc"] == pytest.approx((5 + 1.5 + 4 + 0.5) / 16)
    assert found["pr_auc"] == pytest.approx((1 / 4 + 2 / 6) / 2)
    assert found["lift_20"] == pytest.approx((0.5 / 2) / 0.2)  # two of the four tied, half a conversion expected
    tied = evaluated(RANKED, np.full(10, 0.3))
    assert tied["roc_auc"] == pytest.approx(0.5)
    assert tied["pr_auc"] == pytest.approx(0.3)
    assert [tied[f"lift_{k}"] for k in (1, 5, 10, 20)] == pytest.approx([1, 1, 1, 1])


def test_probability_metrics_by_hand():
    found = evaluated([1, 0, 0, 1], [0.8, 0.4, 0.1, 0.5], constant=0.25, truth=[0.7, 0.4, 0.3, 0.5])
    loss = -(np.log(0.8) + np.log(0.6) + np.log(0.9) + np.log(0.5)) / 4
    assert found["log_loss"] == pytest.approx(loss)
    assert found["log_loss_skill"] == pytest.approx(1 - loss / (-(2 * np.log(0.25) + 2 * np.log(0.75)) / 4))
    assert found["brier"] == pytest.approx((0.04 + 0.16 + 0.01 + 0.25) / 4)
    assert found["mean_prediction"] == pytest.approx(0.45)
    assert found["gap_to_truth"] == pytest.approx((0.1 + 0 + 0.2 + 0) / 4)


def test_log_loss_stays_finite_at_zero_and_one():
    assert evaluated([1, 0], [0.0, 1.0])["log_loss"] == pytest.approx(-np.log(1e-7), rel=1e-6)


def test_calibration_error_by_hand():
    # 30 journeys in 15 bins of two; only the uppermost bin is wrong: 0.9 given, none of the two converts
    probability = np.concatenate([np.linspace(0.01, 0.28, 28), [0.9, 0.9]])
    scores = Scores(np.zeros(30, dtype=bool), probability)
    assert np.bincount(scores.bin).tolist() == [2] * 15
    weights, predicted, observed = scores.reliability()
    assert weights.tolist() == [2.0] * 15
    assert predicted[-1] == pytest.approx(0.9)
    assert observed.tolist() == [0.0] * 15
    assert evaluated(np.zeros(30), probability)["calibration_error"] == pytest.approx(probability.mean())
    # over- and underestimates cancel within a bin, and nowhere else
    assert evaluated([1, 0, 1, 0], [0.5, 0.5, 0.25, 0.25])["calibration_error"] == pytest.approx((0 + 0.25) / 2)


def test_bins_keep_ties_together_and_have_no_holes():
    assert equal_mass_bins(np.array([0.2] * 20 + [0.9] * 3)).tolist() == [0] * 20 + [1] * 3
    assert equal_mass_bins(np.array([0.2] * 20 + [0.9])).tolist() == [0] * 21  # a rest below a bin's mass joins in
    assert equal_mass_bins(np.full(7, 0.3)).tolist() == [0] * 7
    assert equal_mass_bins(np.array([0.3, 0.1, 0.2])).tolist() == [2, 0, 1]
    assert equal_mass_bins(np.zeros(0)).tolist() == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [0.02, 0.4])
def test_weighted_metrics_equal_scikit_learn_with_ties(seed, rate):
    rng = np.random.default_rng(seed)
    probability = np.round(rng.beta(1, 3, size=2000), 2).clip(0.01, 0.99)
    converted = rng.random(2000) < rate * 2 * probability
    weight = rng.poisson(1, size=2000).astype(float)
    found = evaluated(converted, probability, weight)
    chosen = weight > 0  # scikit-learn would keep thresholds of weight zero
    args = converted[chosen], probability[chosen]
    assert found["roc_auc"] == pytest.approx(reference.roc_auc_score(*args, sample_weight=weight[chosen]))
    assert found["pr_auc"] == pytest.approx(reference.average_precision_score(*args, sample_weight=weight[chosen]))
    assert found["log_loss"] == pytest.approx(reference.log_loss(*args, sample_weight=weight[chosen]))
    assert found["brier"] == pytest.approx(reference.brier_score_loss(*args, sample_weight=weight[chosen]))


def test_whole_weights_are_copies_of_rows():
    rng = np.random.default_rng(3)
    probability, converted = rng.random(60).round(1), rng.random(60) < 0.3
    weight = rng.integers(0, 4, size=60)
    weighted = evaluated(converted, probability, weight, constant=0.3)
    copied = evaluated(np.repeat(converted, weight), np.repeat(probability, weight), constant=0.3)
    # bins are those of the journeys themselves, which copies would move
    same = [name for name in METRICS if name not in ("calibration_error", "gap_to_truth")]
    assert [weighted[name] for name in same] == pytest.approx([copied[name] for name in same])


def test_rows_may_come_in_any_order():
    rng = np.random.default_rng(4)
    probability, converted, order = rng.random(500).round(2), rng.random(500) < 0.1, rng.permutation(500)
    assert evaluated(converted, probability, truth=probability) == pytest.approx(
        evaluated(converted[order], probability[order], truth=probability[order]), nan_ok=True
    )


def test_what_one_class_does_not_define_is_nan():
    none = evaluated(np.zeros(5), np.linspace(0, 1, 5))
    undefined = {"roc_auc", "pr_auc", "lift_1", "lift_5", "lift_10", "lift_20", "log_loss_skill", "gap_to_truth"}
    assert {name for name, value in none.items() if np.isnan(value)} == undefined
    every = evaluated(np.ones(5), np.linspace(0, 1, 5))
    assert np.isnan(every["roc_auc"])
    assert every["pr_auc"] == every["lift_10"] == pytest.approx(1)
    assert all(np.isnan(value) for value in evaluated([], []).values())


def test_probabilities_outside_their_range_are_refused():
    with pytest.raises(ValueError, match="within"):
        Scores(np.array([True]), np.array([1.1]))
    with pytest.raises(ValueError, match="within"):
        Scores(np.array([True]), np.array([np.nan]))
    with pytest.raises(ValueError, match="one length"):
        Scores(np.array([True]), np.array([0.1, 0.2]))
