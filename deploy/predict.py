"""`python -m deploy.predict`: the scores of all customers at one as_of, by the SavedModel alone, in bounded memory."""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.bigquery_client import SCHEME
from preprocessing.cli import UserError, run
from preprocessing.spec import AnySpec, JourneysSpec, load_spec
from preprocessing.storage import delivered
from preprocessing.tolerance import HELP, SET_ASIDE, tolerance
from preprocessing.warehouse import RUNNER, add_flags, warehouse_of

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

_AT_ONCE = 2  # batches that are scored side by side


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,  # all else goes to Beam
        prog="python -m deploy.predict",
        description="Scores every eligible customer as of a date, on journeys built as for training.",
    )
    parser.add_argument("--model", required=True, help="the SavedModel: RUN_DIR/model, on disk or gs://…")
    parser.add_argument("--spec", required=True, help="the journey spec, a YAML file")
    parser.add_argument("--events", required=True, help="the events, as preprocessing.task takes them")
    parser.add_argument(
        "--as_of", help="the date or instant of the prediction, UTC, or today; not for ready-made journeys"
    )
    parser.add_argument(
        "--output",
        required=True,
        help="the scores: a Parquet file, on disk or gs://…, replaced when all are written; or "
        "bigquery://project.dataset.table, where the partition of as_of's day is replaced",
    )
    parser.add_argument(
        "--campaigns",
        help="all, or names with commas between: instead of scores, what each campaign would change for each customer",
    )
    parser.add_argument("--key_file", help="the key of the customers' HMAC, as preprocessing.task takes it")
    parser.add_argument(
        "--batch_size", type=int, default=2048, help="journeys a call of the model (default: %(default)s)"
    )
    parser.add_argument(
        "--runner", help="score by a Beam pipeline on this runner, with any of Beam's options; default: in this process"
    )
    parser.add_argument("--max_bad_rows", default="1%", help=HELP)
    add_flags(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parses the flags, builds the journeys aside, scores them batch by batch."""
    parser = _parser()
    args, beam_flags = parser.parse_known_args(argv)
    if beam_flags and args.runner is None:
        parser.error(f"unrecognized arguments: {' '.join(beam_flags)} (options of Beam need --runner)")
    if args.batch_size < 1:
        raise UserError(f"--batch_size: expected 1 or more, got {args.batch_size}")
    most = tolerance(args.max_bad_rows)
    from deploy.scorer import read_metadata

    spec = load_spec(args.spec)
    as_of = _as_of(args.as_of, spec)
    about = read_metadata(args.model)
    _check_fields(spec, about, args)
    campaigns = _campaigns(args.campaigns, about, args.model)

    from preprocessing import building

    with (
        _delivered(args.output, as_of, args.bigquery_project) as written,
        tempfile.TemporaryDirectory(dir=written.parent, prefix=".predict-") as aside,
    ):
        log.info("1/2 events to journeys: %s", args.events)
        journeys = Path(aside) / "journeys"
        journeys.mkdir()
        building.build(
            spec,
            args.events,
            journeys,
            warehouse_of(args, [f"--runner={RUNNER}"]),
            key_file=args.key_file,
            predict=True,
            predict_as_of=as_of,
            max_bad_rows=most,
            # beside a table in BigQuery no file can lie
            bad_rows_at=None if args.output.startswith(SCHEME) else f"{args.output}.{SET_ASIDE}",
        )
        parts = sorted(journeys.glob("part-*.parquet"))
        log.info("2/2 journeys to scores: %s", args.model)
        if args.runner is None:
            batches = score_parts(args.model, about, parts, args.batch_size, campaigns)
        else:
            from deploy.beam_scores import score_by_beam
            from preprocessing.beam_options import beam_options
            from preprocessing.dataflow import told, worker_flags

            place = _workplace(args.output, beam_flags)
            options = beam_options(worker_flags(args.runner, beam_flags, "deploy.predict", place), "deploy.predict")
            with told():
                found = score_by_beam(
                    args.model,
                    about,
                    parts,
                    Path(aside),
                    batch_size=args.batch_size,
                    options=options,
                    campaigns=campaigns,
                )
            batches = _batches(found, args.batch_size)
        count, known, mean = _write(batches, about, written, campaigns)
    if not count:
        log.warning("no customer is eligible at that as_of: the scores are empty")
    if campaigns:
        print(
            f"{count // len(campaigns):,} journeys asked about {len(campaigns)} campaigns of model "
            f"{about['model_version']}: {known:,} of {count:,} answers, mean difference {mean:+.3%} within "
            f"{about['primary_horizon']} days; a row a customer and campaign is in {args.output}"
        )
        return
    print(
        f"{count:,} journeys scored by model {about['model_version']}, mean probability {mean:.3%} within "
        f"{about['primary_horizon']} days; scores with their keys are in {args.output}"
    )


def _delivered(output: str, as_of: dt.datetime | None, project: str | None) -> AbstractContextManager[Path]:
    """Where to write the scores; at the end they are in `output`, whole."""
    if not output.startswith(SCHEME):
        return delivered(output)
    from deploy.bigquery_scores import loaded

    return loaded(output, as_of, project)


def _workplace(output: str, beam_flags: list[str]) -> str:
    """Where a runner's workers may write: beside the scores, or where they go to a table, at --temp_location."""
    if not output.startswith(SCHEME):
        return output.rpartition("/")[0] or "."
    return next((flag.partition("=")[2] for flag in beam_flags if flag.startswith("--temp_location=")), ".")


def score_parts(
    model: str, about: dict[str, Any], parts: list[Path], batch_size: int, campaigns: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """Yields the scores of the journeys in `parts`, as deploy.score_table lays them down, batch by batch."""
    import pyarrow.parquet as pq
    from tqdm import tqdm

    from deploy.score_table import answered
    from deploy.scorer import Scorer

    scorer = Scorer(model)
    total = sum(pq.ParquetFile(path).metadata.num_rows for path in parts)
    with tqdm(total=total, unit=" journeys", desc="scoring") as progress:
        for scores in _in_turn(_batches(parts, batch_size), lambda batch: answered(scorer, batch, about, campaigns)):
            yield scores
            progress.update(scores.num_rows // max(len(campaigns), 1))


def _in_turn(
    batches: Iterator[pa.RecordBatch], answer: Callable[[pa.RecordBatch], pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Answers in the order of the batches, two of which are under way at a time: while one waits for TensorFlow's many
    small steps, which one core takes, the other's arrays are made."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting: deque[Future[pa.RecordBatch]] = deque()
        for batch in batches:
            waiting.append(pool.submit(answer, batch))
            if len(waiting) > _AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _write(
    batches: Iterator[pa.RecordBatch], about: dict[str, Any], output: Path, campaigns: Sequence[str]
) -> tuple[int, int, float]:
    """Writes the scores; returns how many, of how many there is an answer, and their mean at the primary horizon."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from deploy.score_table import headline, score_schema

    count, known, mass = 0, 0, 0.0
    with pq.ParquetWriter(output, score_schema(about, campaigns)) as writer:
        for batch in batches:
            writer.write_batch(batch)
            column = batch[headline(about, campaigns)]
            count, known = count + len(column), known + len(column) - column.null_count
            mass += pc.sum(column).as_py() or 0.0
    return count, known, mass / max(known, 1)


def _batches(parts: list[Path], batch_size: int) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    for path in parts:
        yield from pq.ParquetFile(path).iter_batches(batch_size)


def _campaigns(text: str | None, about: dict[str, Any], model: str) -> tuple[str, ...]:
    """The campaigns asked about; none without --campaigns. One that the model does not know is answered by a reason."""
    if text is None:
        return ()
    if not about.get("campaigns"):
        raise UserError(f"--campaigns: {model} knows of no campaigns; its spec would need the block campaigns")
    if text != "all":
        named = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if not named:
            raise UserError(f"--campaigns: expected all, or names with commas between, got {text!r}")
        return named
    known: list[str] = about["campaigns"]["known"]
    if not known:
        raise UserError(f"--campaigns all: {model} saw no campaign with enough customers treated and held out")
    return tuple(known)


def _as_of(text: str | None, spec: AnySpec) -> dt.datetime | None:
    if isinstance(spec, JourneysSpec):
        if text is not None:
            raise UserError("--as_of: ready-made journeys carry their own time; leave the flag out")
        return None
    if text is None:
        raise UserError("--as_of: expected a date such as 2026-07-01: features see only events before it")
    if text == "today":
        return dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        instant = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"--as_of: expected a date such as 2026-07-01, got {text!r}") from None
    return instant.replace(tzinfo=dt.UTC) if instant.tzinfo is None else instant.astimezone(dt.UTC)


def _check_fields(spec: AnySpec, about: dict[str, Any], args: argparse.Namespace) -> None:
    """The model answers for the fields it was trained on; a spec that names others would be answered with nonsense."""
    for part, fields in spec.kinds.items():
        differing = sorted(set(fields.items()) ^ set(about[part].items()))
        if differing:
            raise UserError(
                f"{args.spec}: {part} fields differ from those that {args.model} was trained on: "
                f"{', '.join(f'{name} ({kind})' for name, kind in differing)}; expected the spec of its training"
            )


if __name__ == "__main__":
    run(main)
