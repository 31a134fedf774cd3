"""`python -m deploy.on_dataflow --env E preprocessing.task …`: a step with Dataflow's workers, in one environment."""

from __future__ import annotations

import argparse
import importlib
import logging
import shlex
from typing import TYPE_CHECKING

from preprocessing.cli import UserError, run
from preprocessing.dataflow import DATAFLOW

if TYPE_CHECKING:
    from deploy.environment import Environment

log = logging.getLogger(__name__)

STEPS = ("preprocessing.task", "deploy.predict")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.on_dataflow",
        description="Runs a step on Dataflow: project, region, account, network, key, labels and image are those of "
        "the environment; every other flag goes to the step.",
        allow_abbrev=False,
    )
    parser.add_argument("--env", required=True, help="integration, production, or the path of an environment file")
    parser.add_argument("step", choices=STEPS, help="the command that is run")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parses the flags, says the command that they amount to, and runs it in this process."""
    from deploy.environment import load_environment

    args, given = _parser().parse_known_args(argv)
    flags = [*given, *dataflow_flags(load_environment(args.env), given)]
    log.info("python -m %s %s", args.step, shlex.join(flags))
    importlib.import_module(args.step).main(flags)


def dataflow_flags(environment: Environment, given: list[str]) -> list[str]:
    """Beam's flags for a job in this environment. Raises UserError where `given` holds one that is its to say.

    Without --setup_file in `given` the workers are the environment's pipeline image.
    """
    flags = {
        "runner": DATAFLOW,
        "project": environment.project,
        "region": environment.region,
        "service_account_email": environment.pipeline_account,
        "subnetwork": environment.subnetwork,
        "dataflow_kms_key": environment.cmek_key,
        "temp_location": f"gs://{environment.bucket}/dataflow/temp",
        "staging_location": f"gs://{environment.bucket}/dataflow/staging",
    }
    named = {flag.partition("=")[0].removeprefix("--") for flag in given if flag.startswith("--")}
    if taken := sorted(named & flags.keys()):
        raise UserError(
            f"--{taken[0]}: the environment's to say; change its file, or run the step itself, with all of Dataflow's "
            "flags, without deploy.on_dataflow"
        )
    if "setup_file" not in named:
        flags |= {"sdk_container_image": environment.pipeline_image, "sdk_location": "container"}
    labels = [f"--labels={name}={value}" for name, value in sorted(environment.labels.items())]
    return [*(f"--{name}={value}" for name, value in flags.items()), *labels, "--no_use_public_ips"]


if __name__ == "__main__":
    run(main)
