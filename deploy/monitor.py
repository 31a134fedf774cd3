"""`python -m deploy.monitor`: are the journeys that a model is asked about still those that it learnt from?

    python -m deploy.monitor --model runs/demo/model --journeys LOGGED --scores scores.parquet --output runs/monitor

DIR receives monitor.json, monitor.html and alerts.json, all or none.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.outputs import check_replaceable, replaced
from preprocessing.cli import UserError, run
from preprocessing.spec import AnySpec, load_spec
from preprocessing.storage import exists, join, localised

if TYPE_CHECKING:
    import pyarrow as pa

    from deploy.drift import Thresholds

log = logging.getLogger(__name__)

ALERTED = 3
STATISTICS = "statistics.json"
_THRESHOLDS = "job_configs/monitor.yaml"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.monitor",
        description="Compares logged journeys and scores with what the model learnt from, and raises alerts.",
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="the SavedModel, with its statistics.json: RUN_DIR/model")
    model.add_argument("--run_dir", help="a run directory; of a model without statistics.json they are made here")
    parser.add_argument(
        "--journeys", required=True, help="the logged journeys: a journeys table, directory or Parquet file"
    )
    parser.add_argument("--split", help="only journeys of this split (default: all but those at assignments)")
    parser.add_argument("--scores", help="their scores: Parquet, as deploy.predict writes them")
    parser.add_argument("--output", required=True, metavar="DIR", help="replaced only when all is written")
    parser.add_argument("--thresholds", default=_THRESHOLDS, help="when to alert, YAML (default: %(default)s)")
    parser.add_argument("--bootstrap", type=int, default=200, help="draws of customers (default: %(default)s)")
    parser.add_argument("--fail_on_alert", action="store_true", help=f"exit {ALERTED} where there is an alert")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parses the flags, compares, writes, and says what is alerted."""
    args = _parser().parse_args(argv)
    if args.bootstrap < 0:
        raise UserError(f"--bootstrap: expected 0 or more, got {args.bootstrap}")
    check_replaceable(args.output, "monitor.json")
    from deploy.drift import alerts, load_thresholds, shifts
    from deploy.monitor_report import render
    from deploy.scorer import read_metadata
    from trainer.statistics import journey_statistics

    thresholds = load_thresholds(args.thresholds)
    model = localised(args.model or join(args.run_dir, "model"))
    about = read_metadata(model)
    spec = load_spec(model / "spec.yaml")
    reference = _reference(model, args.run_dir, spec)
    scores = None if args.scores is None else _read_scores(localised(args.scores), about)
    log.info("journeys of %s", args.journeys)
    journeys = localised(args.journeys)
    logged = journey_statistics(
        journeys, args.split, spec, thresholds.min_customers, reference=reference, scores=scores
    )
    rows = shifts(reference, logged, thresholds)
    paired: dict[str, Any] = {"pairing": None, "horizons": {}}
    if scores is not None:
        paired = _outcomes(args, journeys, spec, scores, thresholds)
    found = alerts(rows, paired["horizons"])
    document = {
        "model_version": about["model_version"],
        "journeys": {"source": Path(args.journeys).name, "split": args.split, "count": logged["journeys"]},
        "customers": logged["customers"],
        "reference": {name: reference[name] for name in ("split", "journeys", "customers", "min_customers")},
        "scores": paired["pairing"],
        "shifts": rows,
        "calibration": paired["horizons"],
        "thresholds": thresholds.model_dump(mode="json"),
        "alerts": found,
        "notes": _notes(reference, logged, scores, paired, thresholds),
    }
    page = render(document)
    with replaced(args.output) as place:
        for name, content in (("monitor", document), ("alerts", found)):
            (place / f"{name}.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (place / "monitor.html").write_text(page, encoding="utf-8")
    for alert in found:
        print(f"alert: {alert['kind']}: {alert['message']}")
    many = "no alert" if not found else "1 alert" if len(found) == 1 else f"{len(found)} alerts"
    on = f"{logged['journeys']:,} journeys of {logged['customers']:,} customers"
    print(f"{many} on {on}; the report is in {args.output}")
    if found and args.fail_on_alert:
        sys.exit(ALERTED)


def _reference(model: Path, run_dir: str | None, spec: AnySpec) -> dict[str, Any]:
    """The statistics beside the model, or those of its run directory's train journeys and test scores."""
    from trainer.statistics import FORMAT, journey_statistics

    path = model / STATISTICS
    if path.is_file():
        try:
            reference = dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            raise UserError(f"{path}: damaged: not JSON; export the model anew with trainer.task") from None
        if reference.get("format") != FORMAT:
            raise UserError(f"{path}: format {reference.get('format')}, expected {FORMAT}; export the model anew")
        return reference
    if run_dir is None:
        raise UserError(
            f"--model {model}: no {STATISTICS} here; export the model anew with trainer.task, or name its --run_dir"
        )
    import pyarrow.parquet as pq

    log.info("no %s beside the model: made from the train journeys of %s", STATISTICS, run_dir)
    predictions = join(run_dir, "evaluation/predictions.parquet")
    scores = pq.read_table(localised(predictions)) if exists(predictions) else None
    return journey_statistics(
        localised(join(run_dir, "journeys")), "train", spec, spec.privacy.min_customers, scores=scores
    )


def _read_scores(path: Path, about: dict[str, Any]) -> pa.Table:
    """journey_id, customer_key and p_<h>d, one row a journey. Raises UserError where it is not that."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = ["journey_id", "customer_key", *(f"p_{horizon}d" for horizon in about["horizons_days"])]
    try:
        names = pq.read_schema(path).names if path.is_file() else pq.ParquetDataset(path).schema.names
        missing = [name for name in wanted if name not in names]
        if missing:
            raise UserError(f"--scores {path}: no column {missing[0]!r}; expected {', '.join(wanted)}")
        table = pq.read_table(path, columns=wanted).combine_chunks()
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"--scores {path}: expected Parquet, as deploy.predict writes it: {error}") from None
    if pc.count_distinct(table["journey_id"]).as_py() < table.num_rows:
        raise UserError(f"--scores {path}: a journey_id occurs twice; expected one score a journey")
    for name in wanted[2:]:
        inside = pc.and_(pc.greater_equal(table[name], 0), pc.less_equal(table[name], 1))
        if table.num_rows and not pc.all(pc.fill_null(inside, False)).as_py():
            raise UserError(f"--scores {path}: {name} holds what is no probability")
    return table


def _outcomes(
    args: argparse.Namespace, journeys: Path, spec: AnySpec, scores: pa.Table, thresholds: Thresholds
) -> dict[str, Any]:
    """How journeys and scores pair, and by horizon the calibration of those whose outcome is known."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from deploy.drift import calibration
    from trainer.joins import customer_codes
    from trainer.statistics import batches

    columns = ["journey_id", "customer_key", "days_to_conversion", "observed_days"]
    found = list(batches(journeys, args.split, columns))
    table = pa.Table.from_batches([batch.select(columns) for batch in found]).combine_chunks()
    place = pc.index_in(table["journey_id"].combine_chunks().cast(pa.string()), value_set=_texts(scores["journey_id"]))
    paired = table.filter(place.is_valid()).combine_chunks()
    at = place.drop_null().to_numpy(zero_copy_only=False)
    observed = pc.fill_null(paired["observed_days"], -np.inf).to_numpy()
    days = pc.fill_null(paired["days_to_conversion"], np.inf).to_numpy()
    customer = customer_codes(_texts(paired["customer_key"]))
    horizons = {}
    for horizon in spec.horizons_days:
        known = observed >= spec.gap_days + horizon
        if known.any():
            score = scores[f"p_{horizon}d"].to_numpy()[at][known].astype(np.float64)
            horizons[str(horizon)] = calibration(
                days[known] < horizon, score, customer[known], thresholds, draws=args.bootstrap
            )
    return {
        "pairing": {
            "paired": paired.num_rows,
            "journeys_without_score": table.num_rows - paired.num_rows,
            "scores_without_journey": scores.num_rows - len(np.unique(at)),
        },
        "horizons": horizons,
    }


def _texts(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    return column.combine_chunks().cast(pa.string())


def _notes(
    reference: dict[str, Any],
    logged: dict[str, Any],
    scores: pa.Table | None,
    paired: dict[str, Any],
    thresholds: Thresholds,
) -> list[str]:
    notes = []
    if logged["customers"] < thresholds.least_customers:
        few = f"{logged['customers']:,} customers are fewer than {thresholds.least_customers:,}"
        notes.append(f"{few}: nothing is said of shifts.")
    if scores is None:
        notes.append("No --scores: neither a shift of scores nor calibration is measured.")
    elif not reference["scores"]:
        notes.append("The model's statistics hold no scores: their shift is not measured.")
    pairing = paired["pairing"]
    if pairing and (pairing["journeys_without_score"] or pairing["scores_without_journey"]):
        notes.append(
            f"{pairing['journeys_without_score']:,} journeys have no score, {pairing['scores_without_journey']:,} "
            "scores belong to none of these journeys: calibration is of the others."
        )
    if scores is not None and not paired["horizons"]:
        notes.append("No outcome is known yet: calibration comes when observed_days reach gap + horizon.")
    return notes


if __name__ == "__main__":
    run(main)
