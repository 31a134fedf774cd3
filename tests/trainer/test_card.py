"""The model card: filled from the run, in Markdown that holds whatever the data holds."""

import pytest

from tests.trainer.synthetic_run import SPEC, make_run
from trainer.card import Section, markdown, versions
from trainer.evaluate import evaluate


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("card")
    run = make_run(place / "run", customers=200, spec_text=SPEC.replace("web", "we|b"))
    output = place / "evaluation"
    output.mkdir()
    metrics = evaluate(
        run.run_dir, run.spec, run.predictions, run.history, output, bootstrap=20, baselines=False, model_version="v1",
        settings={"lstm_units": 64}, calibrated={"30": {"slope": 1.1, "shift": -0.2}},
        contact_cost=1, conversion_value=8,
    )  # fmt: skip
    return metrics, (output / "model_card.md").read_text()


def test_it_says_what_a_card_must(made):
    metrics, text = made
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles == [
        *("Intended use", "Not to be used for", "Data", "Measured on test", "Calibration", "By slice", "Threshold"),
        *("Checks", "Limits", "Confidentiality", "Settings and versions"),
    ]
    test = metrics["test"]["30"]
    assert f"600 journeys of 200 customers, {test['conversions']} conversions" in text
    assert "train: 800 journeys, as_of 2026-01-05 to 2026-03-02; " in text
    assert "(event_type = 'purchase') within 7, 14, 30 days" in text
    assert f"| ROC-AUC | {test['lstm']['roc_auc']['value']:.3f} [" in text
    assert "| segment: a |" in text
    assert "| Contact all |" in text
    assert "| single feature | ok |" in text
    assert "The hazard up to 30 days is calibrated on eval, in log odds: slope 1.1, shift -0.2." in text
    assert "- lstm_units: 64" in text
    assert (
        "fewer than 20 train customers hold is not learnt; slices and as_ofs of fewer customers are not shown" in text
    )


def test_its_tables_are_whole(made):
    _, text = made
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = [line.count("|") - line.count("\\|") for line in rows]
    for i, line in enumerate(rows):
        if line.startswith("| ---"):
            after = next((j for j in range(i + 1, len(rows)) if rows[j].startswith("| ---")), len(rows) + 1) - 1
            assert set(widths[i - 1 : after]) == {widths[i]}


def test_the_datas_words_are_no_markup():
    text = markdown(
        {"primary_horizon": 30, "model_version": ""},
        [Section("A", ("<b>bold</b> *x*",), ("t", ["h"], [["a|b"]]))],
    )
    assert "\\<b>bold\\</b> \\*x\\*" in text
    assert "| a\\|b |" in text


def test_versions_name_what_is_installed():
    found = versions()
    assert {"parcours", "python", "numpy", "scikit-learn"} <= set(found)
