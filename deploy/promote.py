"""`python -m deploy.promote`: puts a candidate in the incumbent's place, on a double run's word alone."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shutil
from typing import Any

from deploy.outputs import replaced
from preprocessing.cli import UserError, run
from preprocessing.storage import WHOLE, exists, join, localised, read_text

PROMOTION = "promotion.json"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.promote",
        description="Copies a candidate's model to where the incumbent stands, if a double run of the two said go. "
        "Refuses where it said no-go or wait, or compared other models than these two.",
    )
    parser.add_argument(
        "--candidate", required=True, help="the SavedModel to promote: RUN_DIR/model, on disk or gs://…"
    )
    parser.add_argument("--double_run", metavar="DIR", help="the --output of deploy.double_run")
    parser.add_argument(
        "--to", required=True, metavar="DIR", help="where the incumbent stands; replaced as a whole, on disk or gs://…"
    )
    parser.add_argument("--first", action="store_true", help="there is no incumbent yet: no double run is asked for")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parses the flags, checks the verdict, copies the model. Raises UserError where it may not be promoted."""
    from deploy.scorer import read_metadata
    from preprocessing.manifest import check_manifest

    args = _parser().parse_args(argv)
    if args.first == (args.double_run is not None):
        raise UserError("--double_run: expected the output of deploy.double_run, or --first where nothing stands yet")
    candidate = str(read_metadata(args.candidate)["model_version"])
    if _standing(args.to) == candidate:
        read_metadata(args.to)
        print(f"{args.to}: model {candidate} stands there already; nothing to do")
        return
    with replaced(args.to) as place:  # from here on no other promotion under gs:// can come between
        incumbent = _standing(args.to)
        verdict = None if args.first else _go(args.double_run, candidate, incumbent)
        if args.first and incumbent is not None:
            raise UserError(
                f"--first: model {incumbent} stands in {args.to}; expected --double_run, with it as incumbent"
            )
        shutil.copytree(
            localised(args.candidate), place, ignore=shutil.ignore_patterns(WHOLE, PROMOTION), dirs_exist_ok=True
        )
        check_manifest(place, args.candidate)
        promotion = {
            "model_version": candidate,
            "replaced": incumbent,
            "promoted_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "candidate": args.candidate,
            "double_run": args.double_run,
            "verdict": verdict,
        }
        (place / PROMOTION).write_text(json.dumps(promotion, indent=1) + "\n", encoding="utf-8")
    print(f"promoted: model {candidate} stands in {args.to}, in place of {incumbent or 'nothing'}")


def _standing(place: str) -> str | None:
    """The version of the model that stands there. Raises UserError where something else does."""
    if not exists(place):
        return None
    from deploy.scorer import read_metadata

    # unchecked: what was altered, or exported before there were manifests, is what a promotion replaces
    return str(read_metadata(place, checked=False)["model_version"])


def _go(double_run: str, candidate: str, incumbent: str | None) -> dict[str, Any]:
    """What the double run decided. Raises UserError unless it is go, for this candidate against this incumbent."""
    verdict, comparison = (_read(join(double_run, f"{name}.json")) for name in ("verdict", "comparison"))
    if verdict.get("verdict") != "go":
        raise UserError(
            f"{double_run}: the verdict is {verdict.get('verdict')}: {verdict.get('rule')}: {verdict.get('why')}; "
            "nothing is promoted"
        )
    for side, wanted in (("candidate", candidate), ("incumbent", incumbent)):
        compared = comparison["sides"][side]["model_version"]
        if compared is None or compared != wanted:
            raise UserError(
                f"{double_run}: its {side} was model {compared or 'of no known version'}, not {wanted or 'none'}; "
                "expected a double run of these two: make it anew with deploy.double_run"
            )
    return {name: verdict[name] for name in ("verdict", "rule", "why")}


def _read(path: str) -> dict[str, Any]:
    text = read_text(path, "double run's answer")
    try:
        return dict(json.loads(text))
    except ValueError:
        raise UserError(f"{path}: damaged: not JSON; make it anew with deploy.double_run") from None


if __name__ == "__main__":
    run(main)
