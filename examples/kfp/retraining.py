"""Scheduled retraining as a KFP pipeline: prepare, train, double run, promotion. Compile it with

    python examples/kfp/retraining.py --pipeline_image IMAGE --trainer_image IMAGE --output retraining.yaml

It chains the commands of job_configs/schedule_retraining.yaml, which `python -m deploy.schedule` submits without KFP:
take this one where retraining is to be a part of a larger pipeline.
"""

import argparse
from collections.abc import Callable

from kfp import compiler, dsl

PYTHON = ["python", "-m"]


def retraining(pipeline_image: str, trainer_image: str) -> Callable[..., object]:
    """The pipeline over these two images (deploy/Dockerfile, deploy/dataflow/Dockerfile), which KFP wants as constants.

    Its parameters are places under gs:// and Dataflow's project, region, account and subnetwork. The dates in the spec
    say what is trained on.
    """

    @dsl.container_component
    def prepare(  # noqa: PLR0917
        spec: str, events: str, key_file: str, run_dir: str, project: str, region: str, account: str, subnetwork: str
    ):
        return dsl.ContainerSpec(
            image=pipeline_image,
            command=[*PYTHON, "preprocessing.task"],
            args=[
                f"--spec={spec}",
                f"--events={events}",
                f"--key_file={key_file}",
                f"--run_dir={run_dir}",
                "--overwrite",
                "--runner=DataflowRunner",
                f"--project={project}",
                f"--region={region}",
                f"--service_account_email={account}",
                f"--subnetwork={subnetwork}",
                "--no_use_public_ips",
                f"--sdk_container_image={pipeline_image}",
                "--sdk_location=container",
            ],
        )

    @dsl.container_component
    def train(run_dir: str):
        return dsl.ContainerSpec(
            image=trainer_image, command=[*PYTHON, "trainer.task"], args=[f"--run_dir={run_dir}", "--require_gpu"]
        )

    @dsl.container_component
    def double_run(run_dir: str, current: str, output: str, thresholds: str):
        return dsl.ContainerSpec(
            image=pipeline_image,
            command=[*PYTHON, "deploy.double_run"],
            args=[
                f"--incumbent={current}",
                f"--candidate={run_dir}/model",
                f"--journeys={run_dir}",
                f"--output={output}",
                f"--thresholds={thresholds}",
                "--fail_unless_go",
            ],
        )

    @dsl.container_component
    def promote(run_dir: str, output: str, current: str):
        return dsl.ContainerSpec(
            image=pipeline_image,
            command=[*PYTHON, "deploy.promote"],
            args=[f"--candidate={run_dir}/model", f"--double_run={output}", f"--to={current}"],
        )

    @dsl.pipeline(name="parcours-retraining")
    def pipeline(  # noqa: PLR0917
        spec: str,
        events: str,
        key_file: str,
        thresholds: str,
        run_dir: str,
        double_run_dir: str,
        current: str,
        project: str,
        region: str,
        account: str,
        subnetwork: str,
    ):
        prepared = prepare(
            spec=spec,
            events=events,
            key_file=key_file,
            run_dir=run_dir,
            project=project,
            region=region,
            account=account,
            subnetwork=subnetwork,
        )
        trained = train(run_dir=run_dir).after(prepared)
        trained.set_accelerator_type("NVIDIA_TESLA_T4").set_accelerator_limit(1)
        compared = double_run(run_dir=run_dir, current=current, output=double_run_dir, thresholds=thresholds)
        compared.after(trained)
        promoted = promote(run_dir=run_dir, output=double_run_dir, current=current).after(compared)
        machines = ((prepared, "8", "32G"), (trained, "8", "30G"), (compared, "4", "16G"), (promoted, "4", "16G"))
        for step, cpus, memory in machines:
            step.set_cpu_limit(cpus).set_memory_limit(memory)
            step.set_caching_options(False)  # the same places hold other data next month

    return pipeline


def main() -> None:
    """Writes the compiled pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for image in ("pipeline", "trainer"):
        parser.add_argument(f"--{image}_image", required=True, metavar="IMAGE")
    parser.add_argument("--output", required=True, metavar="FILE", help="the compiled pipeline, .yaml or .json")
    args = parser.parse_args()
    compiler.Compiler().compile(retraining(args.pipeline_image, args.trainer_image), args.output)


if __name__ == "__main__":
    main()
