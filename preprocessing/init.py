"""`python -m preprocessing.init`: looks at a table of events and writes a journey spec, a reason to each guess."""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

from preprocessing.cli import UserError, run

log = logging.getLogger(__name__)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m preprocessing.init",
        description="Looks at a table of events and writes a journey spec for it: guesses, each with its reason.",
    )
    parser.add_argument(
        "--events", required=True, help="a Parquet, CSV or JSONL file, a glob, a directory of tables, a DuckDB database"
    )
    parser.add_argument("--table", help="which table of a directory or a database holds the events")
    parser.add_argument(
        "--journeys", metavar="TABLE", help="for sessions without dates: the table with a row and a label each"
    )
    parser.add_argument("--output", required=True, help="the spec to write, a YAML file")
    parser.add_argument("--overwrite", action="store_true", help="replace --output where it exists")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Writes --output, and says what it guessed and what is left to decide."""
    args = _parser().parse_args(argv)
    output = Path(args.output)
    if output.is_dir():
        raise UserError(f"--output {output}: expected a file, found a directory")
    if output.exists() and not args.overwrite:
        raise UserError(f"{output}: exists; add --overwrite to replace it, or name another --output")
    if not output.parent.is_dir():
        raise UserError(f"{output.parent}: no such directory; expected one to write {output.name} into")
    from preprocessing import beside, draft, engine, profile
    from preprocessing.spec import parse_spec
    from preprocessing.storage import delivered
    from preprocessing.tables import Tables

    log.info("looking at %s", args.events)
    with tempfile.TemporaryDirectory(prefix="parcours-") as scratch, engine.opened(Path(scratch)) as connection:
        tables = Tables(connection, args.events)
        name, table = profile.choose(tables, args.events, args.table)
        seen = profile.look(connection, table)
        if args.journeys:
            sessions = profile.look(connection, tables.open(args.journeys, "--journeys"))
            made = draft.ready(seen, name, sessions, args.journeys, args.events)
        else:
            others = [one for one in tables.names() or () if one != name]

            def look(who: str, kind: str) -> beside.Beside:
                return beside.look(connection, tables, others, seen, who=who, kind=kind)

            made = draft.dated(seen, name, args.events, look if others else None)
    parse_spec(made.text, str(output))  # what is written is a spec, whatever the columns are called
    with delivered(output) as aside:
        aside.write_text(made.text, "utf-8")
    print(f"{output}: written from {seen.rows:,} rows; read its comments")
    for sentence in made.undecided:
        print(f"to decide: {sentence}")
    if not made.undecided:
        print(f"next: python -m preprocessing.explore --spec {output} --events {args.events}")


if __name__ == "__main__":
    run(main)
