"""`python -m trainer.influence --run_dir DIR`: what campaigns changed, and whom; writes influence/ beside the model.

Networks are trained anew without the customers that they score (two folds, so about the time of a training), each
campaign of the assignments table is judged, and the conversions of test journeys are credited to their touches:

    python -m trainer.influence --run_dir runs/demo --planned_share 0.5

influence/influence.json holds every number, influence/influence.html says it in plain words. Stopped in the middle, the
same command goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError, import_quietly, run
from preprocessing.flags import number
from preprocessing.manifest import check_manifest
from preprocessing.rundir import RunDir
from preprocessing.storage import read_text

if TYPE_CHECKING:
    from preprocessing.spec import EventsSpec
    from trainer.crossfit import CrossFitted
    from trainer.effects import Question
    from trainer.settings import Settings

log = logging.getLogger(__name__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.influence",
        description="Measures what campaigns changed, from a trained run directory, and writes its influence/.",
        allow_abbrev=False,
    )
    parser.add_argument("--run_dir", required=True, help="run directory, trained by python -m trainer.task")
    parser.add_argument(
        "--folds",
        type=number(int, 2, 20),
        default=2,
        metavar="N",
        help="networks that are trained, each without one part of the customers (default: %(default)s)",
    )
    parser.add_argument(
        "--planned_share",
        action="append",
        default=[],
        metavar="SHARE or CAMPAIGN=SHARE",
        help="the share that was to be treated where lots were drawn, for all campaigns or one; may be repeated. "
        "Without it the sample ratio is not checked",
    )
    parser.add_argument(
        "--draws",
        type=number(int, 20, 10_000),
        default=200,
        metavar="N",
        help="draws of customers behind the intervals of Qini and AUUC (default: %(default)s)",
    )
    parser.add_argument(
        "--journeys",
        type=number(int, 1, 1_000_000),
        default=2_000,
        metavar="N",
        help="converting test journeys, at most, whose conversions are credited to touches (default: %(default)s)",
    )
    return parser


def planned_shares(given: Sequence[str]) -> dict[str | None, float]:
    """--planned_share's values by campaign, None for all others. Raises UserError where one is no share."""
    shares: dict[str | None, float] = {}
    for text in given:
        name, _, value = text.rpartition("=")
        try:
            share = float(value)
        except ValueError:
            share = 0.0
        if not 0 < share < 1:
            raise UserError(f"--planned_share: expected a share such as 0.5, or CAMPAIGN=0.5, got {text!r}")
        shares[name or None] = share
    return shares


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the job. Raises UserError for what the user can mend."""
    arguments = _parser().parse_args(argv)
    shares = planned_shares(arguments.planned_share)
    run_dir = RunDir(arguments.run_dir)
    if not run_dir.exists():
        run_dir.require("model")  # says how to make it; a lock would make an empty one
    with run_dir.lock():
        run_dir.require("journeys", "records", "transform", "model")
        run_dir.fetch("journeys", "transform", "model")  # records are read where they lie
        check_manifest(run_dir.model, run_dir.url("model"))
        require_same_journeys(run_dir)
        found = measured(run_dir, arguments, shares)
        _write(run_dir, found)
    print(_said(run_dir, found))


def require_same_journeys(run_dir: RunDir) -> None:
    """Raises UserError where model/ was trained on other journeys than lie here: it would credit what it never saw.

    What tells is the spec beside the model, and which records the last training in this run directory says it read.
    A model from elsewhere, of the same spec, is not told apart.
    """
    own = run_dir.model / "spec.yaml"
    same = own.is_file() and own.read_bytes() == (run_dir.transform / "spec.yaml").read_bytes()
    note = "training/settings.json"
    if same and run_dir.holds(note):
        try:
            noted = json.loads(read_text(run_dir.url(note), "settings of the training")).get("records")
        except ValueError:  # half written by a training that was killed: it tells of no model
            noted = None
        same = noted is None or noted == run_dir.stamp("records")
    if not same:
        raise UserError(
            f"{run_dir.url('model')}: was trained on other journeys than those in {run_dir.url('journeys')}; train "
            f"anew with: python -m trainer.task --run_dir {run_dir.place}"
        )


def measured(run_dir: RunDir, arguments: argparse.Namespace, shares: dict[str | None, float]) -> dict[str, Any]:
    """All of influence.json. Raises UserError where the spec has no campaigns block, or shares were planned of
    assignments that there are not."""
    from preprocessing.spec import EventsSpec, load_spec

    spec = load_spec(run_dir.transform / "spec.yaml")
    if not isinstance(spec, EventsSpec) or spec.campaigns is None:
        raise UserError(
            f"{run_dir.url('transform/spec.yaml')}: no campaigns block, so there is no influence to measure"
        )
    if spec.assignments is None and shares:
        raise UserError(
            f"--planned_share: {run_dir.url('transform/spec.yaml')} names no campaigns.assignments, whose share it "
            "could be; leave the flag out, or name the table there"
        )
    import_quietly("tensorflow", "keras")
    import tensorflow as tf

    from trainer import credit
    from trainer.settings import Settings

    tf.config.experimental.enable_op_determinism()
    description = json.loads((run_dir.model / "parcours.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {
        "model_version": description["model_version"],
        "horizon_days": spec.primary_horizon,
        "gap_days": spec.gap_days,
        "conversion": spec.conversion.where,
        "folds": arguments.folds,
        "draws": arguments.draws,
        "min_customers": spec.privacy.min_customers,
        "campaigns": [],
        "notes": [],
    }
    if spec.assignments is None:
        found["notes"].append(
            "The journey spec has no campaigns.assignments: without a table of who was assigned, treated or not, no "
            "campaign's effect can be told."
        )
    else:
        found["campaigns"] = _campaigns(run_dir, spec, Settings(**description["settings"]), arguments, shares)
    log.info("crediting conversions of test journeys")
    score = _served(run_dir.model, spec.horizons_days.index(spec.primary_horizon))
    found["attribution"] = credit.credited(
        run_dir.journeys, spec, credit.columns_of(spec), score, most=arguments.journeys
    )
    return found


def _campaigns(
    run_dir: RunDir,
    spec: EventsSpec,
    settings: Settings,
    arguments: argparse.Namespace,
    shares: dict[str | None, float],
) -> list[dict[str, Any]]:
    from trainer.crossfit import cross_fit
    from trainer.effects import Question
    from trainer.threads import one_thread

    def look(names: Sequence[str]) -> None:
        unknown = [name for name in shares if name is not None and name not in names]
        if unknown:
            raise UserError(
                f"--planned_share: no campaign {unknown[0]!r} among the assignments; there are {', '.join(names)}"
            )

    fitted = cross_fit(run_dir, spec, settings, arguments.folds, look=look)
    assert spec.assignments is not None
    found = []
    for name in sorted(set(fitted.assigned.campaign.tolist())):
        log.info("judging %s", name)
        question = Question(
            declared_random=spec.assignments.is_randomised(name),
            planned_share=shares.get(name, shares.get(None)),
            min_customers=spec.privacy.min_customers,
            folds=arguments.folds,
            draws=arguments.draws,
        )
        with one_thread():
            found.append(_judged(name, fitted, run_dir, spec, question))
    return found


def _judged(name: str, fitted: CrossFitted, run_dir: RunDir, spec: EventsSpec, question: Question) -> dict[str, Any]:
    """One campaign, with its placebo where it is told as an association."""
    from trainer.effects import judged
    from trainer.placebo import placebo

    rows = fitted.assigned.take(fitted.assigned.campaign == name)
    found = judged(name, rows, question)
    if found["claim"] == "association":
        found["placebo"] = placebo(rows.take(rows.known), fitted, run_dir, spec)
    return found


def _served(model: Path, horizon: int) -> Any:
    """Padded journeys to probabilities, as the SavedModel's serving_default gives them."""
    import numpy as np
    import tensorflow as tf

    loaded = tf.saved_model.load(str(model))
    answer = loaded.signatures["serving_default"]

    def score(arrays: dict[str, np.ndarray]) -> np.ndarray:
        given = {name: tf.constant(values) for name, values in arrays.items()}
        return answer(**given)["probabilities"].numpy()[:, horizon].astype(np.float64)

    score.keeps = loaded  # type: ignore[attr-defined]  # a signature does not keep its model alive
    return score


def _write(run_dir: RunDir, found: dict[str, Any]) -> None:
    from trainer.influence_report import render

    with run_dir.stage("influence") as staged:
        text = json.dumps(found, indent=1, allow_nan=False) + "\n"
        (staged["influence"] / "influence.json").write_text(text, encoding="utf-8")
        (staged["influence"] / "influence.html").write_text(render(found), encoding="utf-8")


def _said(run_dir: RunDir, found: dict[str, Any]) -> str:
    """What the command prints: where the report lies, and a line a campaign."""
    from trainer.influence_words import headline

    lines = [f"{run_dir.url('influence/influence.html')}  the report, to open in a browser", ""]
    return "\n".join([*lines, *(headline(campaign) for campaign in found["campaigns"]), *found["notes"]])


if __name__ == "__main__":
    run(main)
