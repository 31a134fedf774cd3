"""`python -m deploy.double_run`: incumbent and candidate on the same journeys, side by side, ending in a verdict.

DIR receives verdict.json, comparison.json, report.html, pairs.parquet and unpaired.parquet, all or none.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import TYPE_CHECKING

from deploy.outputs import check_replaceable, replaced
from preprocessing.cli import UserError, run
from preprocessing.storage import read_text

if TYPE_CHECKING:
    from deploy.live import Live
    from deploy.population import Population
    from deploy.scores import Scored

log = logging.getLogger(__name__)

SIDES = ("incumbent", "candidate")
NOT_GO = 3
_THRESHOLDS = "job_configs/double_run.yaml"
_SOURCES = (
    "a SavedModel directory, http(s)://… of a server, projects/P/locations/L/endpoints/E of Vertex AI, a .parquet or "
    ".csv file of scores (or a glob), or bigquery://project.dataset.table"
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.double_run",
        description="Runs two scorers on the same journeys and says whether the candidate may replace the incumbent.",
    )
    for side in SIDES:
        parser.add_argument(f"--{side}", required=True, help=f"the {side}: {_SOURCES}")
    parser.add_argument(
        "--journeys", required=True, help="a run directory, or Parquet files (a glob) of the journeys table"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="replaced only when all is written")
    parser.add_argument("--split", help="journeys of this split only (default: test of a run directory, all of a file)")
    for side in SIDES:
        parser.add_argument(
            f"--{side}_column", action="append", default=[], metavar="NAME=COLUMN",
            help=f"the column of the {side}'s table that holds NAME: p_30d=score, customer_id=client; repeatable",
        )  # fmt: skip
        parser.add_argument(
            f"--{side}_kind", choices=("probability", "rank"), default="probability",
            help="rank: a table's scores only order the journeys (default: %(default)s)",
        )  # fmt: skip
        parser.add_argument(f"--{side}_token_file", metavar="FILE", help=f"a bearer token for the {side}'s server")
    parser.add_argument("--key_file", help="the key of the customers' HMAC, for a table with customer_id")
    parser.add_argument("--thresholds", default=_THRESHOLDS, help="the verdict's rules, YAML (default: %(default)s)")
    parser.add_argument(
        "--costs", help="volumes and the incumbent's stated cost, YAML: job_configs/double_run_costs.yaml"
    )
    parser.add_argument("--horizon", type=int, help="days; the horizon that the verdict rests on (default: the spec's)")
    parser.add_argument("--gap_days", type=int, help="days between as_of and the horizons' start (default: the spec's)")
    parser.add_argument("--bootstrap", type=int, default=300, help="draws of customers (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument(
        "--latency_requests", type=int, default=200, help="single-journey requests (default: %(default)s)"
    )
    parser.add_argument("--batch_size", type=int, default=64, help="journeys a request (default: %(default)s)")
    parser.add_argument(
        "--concurrency", type=int, default=4, help="requests at once to a server (default: %(default)s)"
    )
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds a request may take (default: %(default)s)")
    parser.add_argument(
        "--attempts", type=int, default=5, help="at a server that is busy: 429, 503 (default: %(default)s)"
    )
    parser.add_argument("--vertex_api_endpoint", metavar="HOST", help="default: LOCATION-aiplatform.googleapis.com")
    parser.add_argument("--bigquery_project", metavar="P", help="pays for the query (default: the table's own)")
    parser.add_argument(
        "--fail_unless_go", action="store_true", help=f"exit {NOT_GO} where the verdict is no-go or wait"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parses the flags, scores with both sides, compares, decides, writes, and says the verdict."""
    args = _parser().parse_args(argv)
    _check(args)
    from deploy.comparison import compare, pairs_table, unpaired_table
    from deploy.double_report import render
    from deploy.population import read_population
    from deploy.running_cost import load_costs, running_cost
    from deploy.scores import leave_out_unasked
    from deploy.thresholds import load_thresholds
    from deploy.verdict import decide

    thresholds = load_thresholds(args.thresholds)
    costs = load_costs(args.costs) if args.costs else None
    journeys = read_population(args.journeys, args.split)
    log.info("%s journeys of %s", f"{len(journeys):,}", args.journeys)
    sides = {side: _scored(side, args, journeys) for side in SIDES}
    unasked = leave_out_unasked(sides)
    if unasked:
        log.info("%s of them are in neither log: they were not mirrored, and do not count", f"{unasked:,}")
    comparison = compare(
        journeys, sides, horizon=args.horizon, gap_days=args.gap_days, draws=args.bootstrap, seed=args.seed
    )
    timings = {side: scored.timing for side, scored in sides.items()}
    comparison["cost"] = running_cost(*costs, timings) if costs else None
    decision = {**decide(comparison, thresholds), "thresholds": thresholds.model_dump(mode="json", exclude_none=True)}

    with replaced(args.output) as place:
        import pyarrow.parquet as pq

        pq.write_table(pairs_table(journeys, sides, comparison), place / "pairs.parquet")
        pq.write_table(unpaired_table(journeys, sides), place / "unpaired.parquet")
        for name, content in (("comparison", comparison), ("verdict", decision)):
            (place / f"{name}.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
        (place / "report.html").write_text(render(comparison, decision, journeys, sides), encoding="utf-8")
    paired = comparison["journeys"]["paired"]
    print(f"{decision['verdict']}: {decision['rule']}: {decision['why']}")
    print(f"{paired:,} of {len(journeys):,} journeys paired; report, figures and keys are in {args.output}")
    if args.fail_unless_go and decision["verdict"] != "go":
        sys.exit(NOT_GO)


def _check(args: argparse.Namespace) -> None:
    for name, least in (
        ("bootstrap", 0), ("latency_requests", 0), ("batch_size", 1), ("concurrency", 1), ("attempts", 1), ("seed", 0),
    ):  # fmt: skip
        if getattr(args, name) < least:
            raise UserError(f"--{name}: expected {least} or more, got {getattr(args, name)}")
    for name in ("horizon", "gap_days"):
        if getattr(args, name) is not None and getattr(args, name) < (name == "horizon"):
            raise UserError(f"--{name}: expected days, got {getattr(args, name)}")
    if not args.timeout > 0:
        raise UserError(f"--timeout: expected seconds above 0, got {args.timeout:g}")
    check_replaceable(args.output, "verdict.json")


def _scored(side: str, args: argparse.Namespace, journeys: Population) -> Scored:
    """One side's scores on all journeys, from whatever kind of source it is."""
    from deploy.address import shown
    from deploy.scores import from_table
    from deploy.sources import TITLES, kind_of, read_scores
    from deploy.timing import latency, score_all

    flag, source = f"--{side}", getattr(args, side)
    kind = kind_of(flag, source)
    mapping, of_kind = getattr(args, f"{side}_column"), getattr(args, f"{side}_kind")
    if kind != "http" and getattr(args, f"{side}_token_file"):
        raise UserError(f"{flag}_token_file: it is for a server over http(s)://; {shown(source)} is none")
    if kind in ("table", "bigquery"):
        as_of = journeys.outcomes.as_of
        table = read_scores(flag, source, mapping, (int(as_of.min()), int(as_of.max())), args.bigquery_project)
        key = None
        if "customer_id" in table.column_names and "journey_id" not in table.column_names:
            from preprocessing.keys import load_key

            key = load_key(args.key_file)
        log.info("%s: %s rows of %s", side, f"{table.num_rows:,}", shown(source))
        return from_table(table, journeys, source=shown(source), title=TITLES[kind], kind=of_kind, key=key)
    if mapping or of_kind == "rank":
        raise UserError(f"{flag}_column, {flag}_kind: these are for tables; {shown(source)} is none")
    live = _live(side, kind, args, journeys)
    scored = score_all(live, journeys, side)
    if args.latency_requests:
        scored.latency = latency(live, journeys, args.latency_requests, side)
    return scored


def _live(side: str, kind: str, args: argparse.Namespace, journeys: Population) -> Live:
    from deploy.endpoints import Http, Vertex
    from deploy.live import FIRST_WAIT_S, SavedModel

    flag, source = f"--{side}", getattr(args, side)
    if kind == "saved_model":
        return SavedModel(flag, source, max(args.batch_size, 512), journeys.fields)
    settings = {
        "batch_size": args.batch_size, "concurrency": args.concurrency, "attempts": args.attempts,
        "first_wait": FIRST_WAIT_S, "timeout": args.timeout,
    }  # fmt: skip
    remote: Http | Vertex
    if kind == "http":
        remote = Http(source, journeys.about, token=_token(side, args), **settings)
    else:
        remote = Vertex(flag, source, journeys.about, api_endpoint=args.vertex_api_endpoint, **settings)
    remote.introduce(flag, next(journeys.batches(1, 1)))
    return remote


def _token(side: str, args: argparse.Namespace) -> str | None:
    name = getattr(args, f"{side}_token_file")
    if name is None:
        return None
    return read_text(name, f"token of --{side}_token_file").strip()


if __name__ == "__main__":
    run(main)
