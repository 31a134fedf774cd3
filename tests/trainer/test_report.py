"""The report: one file that loads nothing, says what it shows to those who cannot see, and stands on thin input."""

import dataclasses
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from preprocessing.spec import parse_spec
from tests.trainer.synthetic_run import SPEC, make_run
from tests.trainer.test_evolution import counting
from trainer import plots
from trainer.evaluate import evaluate
from trainer.metrics import Scores
from trainer.outcomes import Outcomes
from trainer.report import _label_rates
from trainer.tables import cell, leaves, percent, split_counts

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects elements and complains of tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("report") / "run", customers=200)


@pytest.fixture(scope="module")
def text(run):
    output = run.run_dir.path / "evaluation"
    output.mkdir()
    evaluate(
        run.run_dir, run.spec, run.predictions, run.history, output,
        truth=run.truth, bootstrap=20, settings={"lstm_units": 64, "note": "<b>&"}, model_version="v<1>",
        evolution=counting, contact_cost=1, conversion_value=7,
    )  # fmt: skip
    return (output / "report.html").read_text()


def test_it_loads_nothing_from_anywhere(text):
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"@import|<script|<link|<iframe|<object|srcset", text)
    for tag, attributes in Page(text).elements:
        for name, value in attributes.items():
            if name in ("src", "href", "data", "poster"):
                assert value.startswith("#"), (tag, name, value)
            for target in re.findall(r"url\((.*?)\)", value or ""):
                assert target.startswith("#")


def test_every_picture_has_a_text_and_every_id_is_unique(text):
    elements = Page(text).elements
    pictures = [attributes for tag, attributes in elements if tag in ("svg", "img")]
    assert len(pictures) == 9 + 1 + 2 * 6
    assert all(len(one["aria-label"]) > 20 and one["role"] == "img" for one in pictures)
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = [a["href"][1:] for _, a in elements if a.get("href", "").startswith("#")]
    referred += [a["aria-labelledby"] for _, a in elements if "aria-labelledby" in a]
    assert set(referred) <= set(ids)


def test_it_reads_on_a_phone_and_aloud(text):
    elements = Page(text).elements
    assert ("html", {"lang": "en"}) in elements
    assert any(tag == "meta" and a.get("name") == "viewport" for tag, a in elements)
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert sum(tag == "title" for tag, _ in elements) == 1


def test_what_it_says(text):
    words = " ".join("".join(Page(text).text).split())
    assert "the probability of a conversion (event_type = 'purchase') within 30 days." in words
    assert re.search(r"Of 600 test journeys of 200 customers, \d+ \([\d.]+ %\) converted\.", words)
    assert re.search(r"times as many as on average, 95 % interval [\d.]+ to [\d.]+\.", words)
    for model in ("recency/frequency LR", "gradient-boosted tree"):
        verdict = r"(better than|worse than|not distinguishable from)"
        assert re.search(rf"By PR-AUC it is {verdict} the {model} \([+−]", words)  # noqa: RUF001 - the report's minus
    for part in ("Reliability", "Journey lengths", "Embargo", "duplicate", "Held out of training", "Calibration (ECE)"):
        assert part in words
    assert "<b>&" in words  # escaped, not markup
    assert "Model v<1>" in words


def test_its_parts_are_all_there(text):
    page = Page(text)
    words = " ".join("".join(page.text).split())
    ids = {a["id"] for _, a in page.elements if "id" in a}
    assert {"checks", "models", "differences", "cut-offs", "slices", "decision", "evolution", "data", "card"} <= ids
    assert re.search(
        r"Over 3 as_ofs, log loss against the gradient-boosted tree: ((better|worse|not distinguishable) at \d[,.] ?)+",
        words,
    )
    assert "A contact costs 1, a conversion is worth 7." in words
    assert "that is prediction, not influence" in words
    assert "not shown: fewer than 20 customers" in words
    assert "Not to be used for" in words
    assert "Differences over time" in words
    assert "The largest rise over the journey" in words


def test_label_rates_by_hand_of_enough_customers():
    """Two at the first as_of, one of them converts; one alone at the second; at the third two whose outcome is open."""
    day = 86_400_000_000
    spec = parse_spec(f"{SPEC}privacy: {{min_customers: 2}}\n")
    found = Outcomes(
        pa.array(list("abcdef")),
        pa.array(["x", "y", "x", "x", "y", "z"]),
        np.array([0, 0, 1, 1, 2, 2]) * day,
        np.zeros(6, bool),
        np.array([5, np.inf, 5, np.inf, np.inf, np.inf]),
        np.array([40, 40, 40, 40, 20, 20.0]),
        np.ones(6, np.int64),
    )
    labels, rates = _label_rates({"test": found, "eval": found.take(np.zeros(0, np.int64))}, spec)
    assert labels == ["1970-01-01", "1970-01-02", "1970-01-03"]
    np.testing.assert_array_equal(rates["test"], [0.5, np.nan, np.nan])
    assert np.isnan(rates["eval"]).all()


def test_thin_input_is_said_not_drawn(run, tmp_path):
    (run.run_dir.transform / "summary.json").rename(tmp_path / "summary.json")
    try:
        evaluate(run.run_dir, run.spec, run.predictions, [], tmp_path, bootstrap=0, baselines=False)
    finally:
        (tmp_path / "summary.json").rename(run.run_dir.transform / "summary.json")
    page = Page((tmp_path / "report.html").read_text())
    words = " ".join("".join(page.text).split())
    assert "Not drawn: the run left no history of its epochs." in words
    assert "The data" not in words
    assert "95 % intervals from" not in words
    assert sum(tag == "svg" for tag, _ in page.elements) == 7


def test_ready_made_journeys_have_no_dates(run, tmp_path):
    spec = parse_spec(
        "journeys: {table: s, journey: id, label: converted, categorical: [segment], numeric: [age]}\n"
        "events: {table: e, journey: id, seconds: t}\n"
        "sequence: {categorical: [event_type, channel], numeric: [amount], max_events: 40}\n"
    )
    predictions = {split: table.append_column("p_1d", table["p_30d"]) for split, table in run.predictions.items()}
    ready = dataclasses.replace(run, spec=spec, predictions=predictions)

    def one_horizon(arrays):
        answer = counting(arrays)
        return answer | {"running": answer["running"][:, :, 2:]}

    metrics = evaluate(ready.run_dir, spec, predictions, [], tmp_path, bootstrap=5, evolution=one_horizon)
    words = " ".join("".join(Page((tmp_path / "report.html").read_text()).text).split())
    assert metrics["by_as_of"] == []
    assert "the model gives the probability that its label is true" in words
    assert "Not drawn: journeys came ready-made, without dates." in words
    assert re.search(r"Customer [0-9a-f]{8}; \d+ events; label (true|false)", words)
    assert {one["by"] for one in metrics["slices"]} == {
        *("event_type of the last event", "channel of the last event", "segment", "events", "customers"),
    }
    assert "label rate over time" not in {one["name"] for one in metrics["checks"]}


@pytest.mark.parametrize("rate", [0.001, 0.5])
def test_plots_stand_on_rare_and_on_tied_scores(rate):
    rng = np.random.default_rng(0)
    converted = rng.random(3000) < rate
    converted[0] = True
    for probability in (np.full(3000, rate), np.clip(rng.beta(1, 1 / rate, size=3000), 1e-9, 1), np.zeros(3000)):
        scores = Scores(converted, probability)
        counts, predicted, observed = scores.reliability()
        bins = [
            {"journeys": int(n), "predicted": p, "observed": {"value": o, "low": None, "high": None}}
            for n, p, o in zip(counts, predicted, observed, strict=True)
        ]
        drawn = [
            plots.pr_curve({"lstm": scores}, converted.mean()),
            plots.roc_curve({"lstm": scores}),
            plots.gain_curve({"lstm": scores}),
            plots.reliability(bins, converted.mean()),
            plots.score_histogram(scores),
        ]
        for svg in drawn:
            assert svg.startswith("<svg viewBox=")
            assert len(svg) < 120_000


def test_training_curves_draw_what_there_is():
    assert plots.training_curves([]) == ""
    assert plots.training_curves([{"epoch": 1, "seconds": 2.0}]) == ""
    history = [{"epoch": 1, "eval_loss": 0.3}, {"epoch": 2, "eval_loss": 0.1}, {"epoch": 3, "eval_loss": 0.2}]
    assert "lowest eval loss: epoch 2" in plots.training_curves(history)


def test_numbers_as_text():
    rates = [percent(rate).replace("\N{NO-BREAK SPACE}", " ") for rate in (0.0769, 0.076, 1.0, 0.000512, None)]
    assert rates == ["7.69 %", "7.60 %", "100 %", "0.0512 %", "n/a"]
    assert cell("roc_auc", {"value": 0.71249, "low": 0.7, "high": 0.72}) == {
        "value": "0.712",
        "interval": "0.700 … 0.720",
    }
    assert cell("log_loss", {"value": -0.00001, "low": -0.001, "high": 0.001}, sign=True) == {
        "value": "+0.0000",
        "interval": "\N{MINUS SIGN}0.0010 … +0.0010",
    }
    assert cell("lift_10", {"value": None, "low": None, "high": None}) == {"value": "n/a", "interval": ""}
    assert leaves({"read": 1200, "set_aside": {"null_time": 3}}) == [("read", "1,200"), ("set aside: null time", "3")]


def test_a_summary_that_lacks_much_is_shown_as_far_as_it_goes():
    (row,) = split_counts({"splits": {"train": {"journeys": 1200}}}, "30")
    assert row == {
        "split": "train", "journeys": "1,200", "conversions": "n/a", "label_rate": "n/a",
        "length": "n/a / n/a / n/a / n/a", "empty": "n/a", "unseen": "n/a",
    }  # fmt: skip
    assert split_counts({}, "30") == []
