"""`python -m deploy.score_journeys`: scores journeys that lie under gs:// already, by a pipeline and nothing after it.

That is what a Dataflow flex template can run: its launcher is gone when the pipeline begins. deploy.predict, which
builds the journeys first and puts one file in place at the end, needs a process that stays.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from preprocessing.cli import UserError, run
from preprocessing.storage import join

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,  # all else goes to Beam
        prog="python -m deploy.score_journeys",
        description="Scores a journeys table by a Beam pipeline: one Parquet file of scores a worker's bundle.",
        epilog="Every other flag is an option of Apache Beam.",
    )
    parser.add_argument("--model", required=True, help="the SavedModel: RUN_DIR/model, where every worker reads")
    parser.add_argument("--journeys", required=True, help="the directory of part-*.parquet, where every worker reads")
    parser.add_argument("--output", required=True, help="the directory of scores-*.parquet, where every worker writes")
    parser.add_argument(
        "--batch_size", type=int, default=2048, help="journeys a call of the model (default: %(default)s)"
    )
    parser.add_argument("--runner", default="FnApiRunner", help="the Beam runner (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parses the flags and runs the pipeline, or leaves it at --template_location for a flex template's launcher."""
    args, beam_flags = _parser().parse_known_args(argv)
    if args.batch_size < 1:
        raise UserError(f"--batch_size: expected 1 or more, got {args.batch_size}")
    from deploy.beam_scores import ScoreRowGroup, check_free, parts_in, scoring
    from deploy.scorer import read_metadata
    from preprocessing.beam_options import beam_options
    from preprocessing.dataflow import told, worker_flags

    options = beam_options(
        worker_flags(args.runner, beam_flags, "deploy.score_journeys", args.output), "score_journeys"
    )
    about = read_metadata(args.model)
    output = join(args.output, "scores")
    check_free(output)
    parts = parts_in(args.journeys)
    with told():
        scorer = ScoreRowGroup(args.model, about, args.batch_size)
        result = scoring(parts, scorer, about, output, options).run()
        if not _is_template(options):
            result.wait_until_finish()
            print(f"{len(parts)} parts of journeys scored by model {about['model_version']}; see {args.output}/")


def _is_template(options: PipelineOptions) -> bool:
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    return bool(options.view_as(GoogleCloudOptions).template_location)


if __name__ == "__main__":
    run(main)
