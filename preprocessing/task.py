"""`python -m preprocessing.task`: events in, journeys, TFRecord sequences and the transform graph out."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import time
from typing import Any

from preprocessing.balance import line
from preprocessing.cli import UserError, import_quietly, run
from preprocessing.rundir import RunDir
from preprocessing.spec import AnySpec, EventsSpec, parse_spec
from preprocessing.staging import Staging
from preprocessing.storage import discard, join, read_text
from preprocessing.tolerance import HELP, SET_ASIDE, tolerance
from preprocessing.warehouse import RUNNER, Warehouse, add_flags, warehouse_of

log = logging.getLogger(__name__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,  # all else goes to Beam
        prog="python -m preprocessing.task",
        description="Builds journeys from an events table, and from them TFRecord sequences and a transform graph.",
        epilog="Every other flag is an option of Apache Beam: --direct_num_workers=2, say.",
    )
    parser.add_argument("--spec", required=True, help="the journey spec, a YAML file")
    parser.add_argument(
        "--events",
        required=True,
        help="the events: a Parquet, CSV or JSONL file, a glob, a directory of tables, a DuckDB database, on disk or "
        "gs://…; or bigquery://project.dataset[.table]",
    )
    parser.add_argument(
        "--run_dir", required=True, help="where journeys/, records/ and transform/ go; on disk or gs://…"
    )
    parser.add_argument(
        "--key_file",
        help="the key of the customers' HMAC (default: PARCOURS_KEY_FILE, else ~/.config/parcours/customer.key)",
    )
    parser.add_argument("--max_bad_rows", default="1%", help=HELP)
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run left in --run_dir")
    parser.add_argument(
        "--runner", default=RUNNER, help="the Beam runner: DataflowRunner, say (default: %(default)s, in this process)"
    )
    add_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parses the flags and runs both steps; what came out is whole or was never there."""
    args, beam_args = _parser().parse_known_args(argv)
    args.max_bad_rows = tolerance(args.max_bad_rows)
    text = read_text(args.spec, "journey spec")  # once: it may be edited while this runs
    spec = parse_spec(text, args.spec)
    run_dir = RunDir(args.run_dir)
    with run_dir.lock():
        if run_dir.holds("transform") and not args.overwrite:
            raise UserError(
                f"{run_dir.place}: already holds records; add --overwrite to replace them, or name another --run_dir"
            )
        from preprocessing.dataflow import worker_flags

        warehouse = warehouse_of(args, worker_flags(args.runner, beam_args, "preprocessing.task", run_dir.place))
        with run_dir.stage("journeys", "records", "transform") as staged:
            summary = _preprocess(spec, args, warehouse, staged)
            (staged["transform"] / "spec.yaml").write_text(text, encoding="utf-8")
        discard(join(run_dir.place, SET_ASIDE))  # of an earlier run, which too many bad rows had stopped
    _say(summary, run_dir, isinstance(spec, EventsSpec))


def _preprocess(spec: AnySpec, args: argparse.Namespace, warehouse: Warehouse, staged: Staging) -> dict[str, Any]:
    from preprocessing import building

    started = time.monotonic()
    log.info("1/2 events to journeys: %s", args.events)
    counts = building.build(
        spec,
        args.events,
        staged["journeys"],
        dataclasses.replace(warehouse, parts=staged.url("journeys")),
        key_file=args.key_file,
        max_bad_rows=args.max_bad_rows,
        bad_rows_at=join(args.run_dir, SET_ASIDE),
    )
    kept = counts["journeys"]["kept"]
    empty = [split for split in ("train", "eval", "test") if not kept.get(split)]
    if empty:
        raise UserError(
            f"{args.spec}: no journey falls into the {' and '.join(empty)} split "
            f"(kept {kept}, dropped {counts['journeys']['dropped']}); "
            "check snapshots, split, eligible and data_until against the dates in the events"
        )
    log.info("    %s journeys in %.0f s", f"{sum(kept.values()):,}", time.monotonic() - started)

    started = time.monotonic()
    log.info("2/2 journeys to TFRecord sequences and the transform graph (Beam, tf.Transform)")
    import_quietly("tensorflow", "preprocessing.pipeline")
    from preprocessing.beam_options import beam_options
    from preprocessing.dataflow import told
    from preprocessing.pipeline import parts_of, run_pipeline

    options = beam_options(list(warehouse.beam), "preprocessing.task")
    with told():
        splits = run_pipeline(
            parts_of(staged.share("journeys")),
            spec,
            records_dir=staged.url("records"),
            transform_dir=staged.url("transform"),
            options=options,
        )
    log.info("    done in %.0f s", time.monotonic() - started)
    written = {split: described["journeys"] for split, described in splits.items() if described["journeys"]}
    if written != kept:
        raise AssertionError(f"journeys kept {kept}, written as records {written}: some were lost, or are another's")
    for split, described in splits.items():
        if described["journeys"] and not any(described["conversions"].values()):
            log.warning("warning: no journey of the %s split converts; check conversion.where and the dates", split)
    summary = {"splits": splits, **counts}
    (staged["transform"] / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def _say(summary: dict[str, Any], run_dir: RunDir, dated: bool) -> None:
    journeys = summary["journeys"]
    for source, counts in {"events": summary["events"], **summary.get("tables", {})}.items():
        print(line(source, counts))
    print(f"journeys dropped: {', '.join(f'{name} {n:,}' for name, n in journeys['dropped'].items() if n) or 'none'}")
    width = max(map(len, summary["splits"]))
    for split, described in summary["splits"].items():
        within = {} if dated else {"1": "convert"}
        rates = ", ".join(f"{rate:.2%} {within.get(h, f'in {h} days')}" for h, rate in described["label_rate"].items())
        unseen = max(described["out_of_vocabulary"].values(), default=0.0)
        print(
            f"{split:{width}} {described['journeys']:>9,} journeys, {described['length']['mean']:.1f} events each, "
            f"{rates}, out of vocabulary at most {unseen:.1%}"
        )
    print(f"journeys, records and the transform graph are in {run_dir.place}/")


if __name__ == "__main__":
    run(main)
