"""`python -m deploy.upload --run_dir gs://… --env NAME`: a trained model becomes a version in Vertex AI's registry."""

from __future__ import annotations

import argparse
import re

from preprocessing.cli import UserError, run

_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.upload",
        description="Registers RUN_DIR/model as a version, with its test metrics, labels and our serving container. "
        "The same model is registered once, however often this is run.",
        allow_abbrev=False,
    )
    parser.add_argument("--run_dir", required=True, metavar="gs://…", help="the run directory that trainer.task filled")
    parser.add_argument("--env", required=True, metavar="NAME", help="the environment, as for deploy.submit")
    parser.add_argument("--model_id", default="parcours", metavar="ID", help="the model's id (default: %(default)s)")
    parser.add_argument(
        "--alias",
        action="append",
        metavar="NAME",
        help="what the version goes by; taken from the version that had it (default: candidate)",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Registers the model. Raises UserError where there is none, or the registry refuses it."""
    from deploy.environment import load_environment
    from deploy.registry import Registry, read_run
    from preprocessing.manifest import check_manifest
    from preprocessing.storage import localised

    args = _parser().parse_args(argv)
    environment = load_environment(args.env)
    aliases = args.alias or ["candidate"]
    for alias in aliases:
        if not _ALIAS.fullmatch(alias):
            raise UserError(f"--alias {alias}: expected letters, digits and hyphens, a small letter first")
    if not re.fullmatch(r"[a-z0-9_-]{1,63}", args.model_id):
        raise UserError(f"--model_id {args.model_id}: expected small letters, digits, _ and -, 63 at most")
    run_dir = args.run_dir.rstrip("/")
    if not run_dir.startswith(f"gs://{environment.bucket}/"):
        raise UserError(f"--run_dir {run_dir}: expected gs://{environment.bucket}/…, the bucket of --env {args.env}")
    about, metrics = read_run(run_dir, environment)
    manifest = check_manifest(localised(f"{run_dir}/model"), f"{run_dir}/model")
    registry = Registry(environment, args.model_id)
    number, new = registry.register(run_dir, about, metrics, aliases, manifest=manifest)
    said = "registered as" if new else "was registered before as"
    print(f"model {about['model_version']} {said} {registry.name}@{number}, alias {', '.join(aliases)}")


if __name__ == "__main__":
    run(main)
