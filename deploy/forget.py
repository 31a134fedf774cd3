"""`python -m deploy.forget`: removes customers from run directories and scores, and names models trained on them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

from preprocessing.cli import UserError, run
from preprocessing.keys import ENVIRONMENT, customer_ids, customer_key, load_key
from preprocessing.rundir import RunDir

ARTEFACTS = ("journeys", "records", "transform", "model", "evaluation")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.forget",
        description="Removes customers from stored journeys, records, predictions, single journeys of reports, and "
        "scores; all else stays as it is. Lists the models that were trained on them.",
    )
    parser.add_argument("--customer", action="append", default=[], metavar="ID", help="a customer's id; repeatable")
    parser.add_argument("--customers", metavar="FILE", help="text with one customer's id a line")
    parser.add_argument("--run_dir", action="append", default=[], metavar="DIR", help="a run directory; repeatable")
    parser.add_argument(
        "--scores", action="append", default=[], metavar="FILE", help="scores or pairs, a Parquet file; repeatable"
    )
    parser.add_argument("--key_file", help=f"the key of the customers' HMAC (default: ${ENVIRONMENT})")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags, removes, searches what was written. Raises UserError where something cannot be read."""
    args = _parser().parse_args(argv)
    ids = customer_ids(args.customer, args.customers)
    if not ids:
        raise UserError("no customer; expected --customer ID or --customers FILE")
    if not args.run_dir and not args.scores:
        raise UserError("nowhere to look; expected --run_dir DIR, --scores FILE or both")
    key = load_key(args.key_file)
    keys = {customer_key(key, customer) for customer in ids}
    marks = set(keys)  # and their journeys' ids, of all places before the first changes: some hold nothing else of them
    run_dirs = [RunDir(place) for place in args.run_dir]
    for run_dir in run_dirs:
        _learn(run_dir, marks)
    for place in args.scores:
        _learn_scores(place, marks)
    found = sum(_in_run_dir(run_dir, marks) for run_dir in run_dirs)
    found += sum(_in_scores(place, marks) for place in args.scores)
    if not found:
        names = ", ".join(f"{name[:12]}…" for name in sorted(keys))
        print(
            f"nothing of {names} in any of them: removed before, never there, or kept under another key than this one"
        )


def _learn(run_dir: RunDir, marks: set[str]) -> None:
    """Adds the ids of their journeys that a run directory tells to the marks."""
    from deploy.erasure import Eraser

    if not run_dir.exists():
        raise UserError(f"--run_dir {run_dir.place}: no such run directory")
    with run_dir.lock():
        names = [name for name in ARTEFACTS if run_dir.holds(name)]
        if not names:
            raise UserError(f"--run_dir {run_dir.place}: holds none of {', '.join(ARTEFACTS)}")
        run_dir.fetch(*names)
        for name in names:
            Eraser(marks).learn(run_dir.path / name)


def _learn_scores(place: str, marks: set[str]) -> None:
    """The same of a file of scores. Raises UserError for a file that tells nobody's rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from deploy.erasure import KEYS, Eraser
    from preprocessing.storage import localised

    local = localised(place)
    if not local.is_file() or local.suffix != ".parquet":
        raise UserError(f"--scores {place}: expected a Parquet file")
    try:
        columns = pq.read_schema(local).names
    except (OSError, pa.ArrowInvalid):
        raise UserError(f"--scores {place}: cannot be read; expected a Parquet file") from None
    if not {*KEYS} & {*columns}:
        raise UserError(f"--scores {place}: expected a column {' or '.join(KEYS)}; it has {', '.join(columns)}")
    Eraser(marks).learn(local)


def _in_run_dir(run_dir: RunDir, marks: set[str]) -> int:
    """Removes them from one run directory; returns how many rows there were."""
    from deploy.erasure import Eraser, linked, searched

    with run_dir.lock():
        names = [name for name in ARTEFACTS if run_dir.holds(name)]
        run_dir.fetch(*names)
        eraser = Eraser(marks)
        with_them = {name: eraser.files_with(run_dir.path / name) for name in names}
        if not any(with_them.values()):
            print(f"{run_dir.place}: nothing of them here")
            return 0
        with run_dir.stage(*names) as staged:
            for name in names:
                linked(run_dir.path / name, staged[name])
                for path in with_them[name]:
                    eraser.erase(staged[name] / path.relative_to(run_dir.path / name))
            files = sum(searched(staged[name], eraser.marks) for name in names)
    removed = eraser.removed
    print(f"{run_dir.place}: removed {', '.join(f'{what} {n:,}' for what, n in removed.items() if n)}")
    print(f"{run_dir.place}: searched afterwards, nothing left of them in {files} files")
    _say_models(run_dir, removed)
    return sum(removed.values())


def _say_models(run_dir: RunDir, removed: Counter[str]) -> None:
    import json

    learnt = {split: removed[f"records/{split}"] for split in ("train", "assigned_train", "eval")}
    about = run_dir.model / "parcours.json"
    if any(learnt.values()) and about.exists():
        version = json.loads(about.read_text(encoding="utf-8"))["model_version"]
        parts = ", ".join(f"{n} {split}" for split, n in learnt.items() if n)
        print(
            f"{run_dir.place}/model: version {version} was trained on them ({parts} journeys); its weights, and those "
            f"of training/, stay as they are; train anew: python -m trainer.task --run_dir {run_dir.place} --restart"
        )


def _in_scores(place: str, marks: set[str]) -> int:
    """Removes them from one Parquet file of scores; returns how many rows there were."""
    import shutil

    from deploy.erasure import Eraser, searched
    from preprocessing.storage import delivered, localised

    eraser = Eraser(marks)
    local = localised(place)
    if not eraser.files_with(local):
        print(f"{place}: nothing of them here")
        return 0
    with delivered(place) as aside:
        copy = aside.with_name(f"{aside.name}.parquet")
        try:
            shutil.copyfile(local, copy)
            eraser.erase(copy)
            searched(copy, eraser.marks)
            copy.replace(aside)
        finally:
            copy.unlink(missing_ok=True)
    rows = sum(eraser.removed.values())
    print(f"{place}: removed {rows:,} rows; searched afterwards, nothing left of them")
    return rows


if __name__ == "__main__":
    run(main)
