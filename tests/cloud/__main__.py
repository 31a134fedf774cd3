"""`python -m tests.cloud` (make cloud-local): all local servers, and the environment that leads a shell to them."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

import yaml

from tests.cloud.bigquery import BigQuery
from tests.cloud.house import House
from tests.cloud.service import Request, Response, Service
from tests.cloud.services import all_services
from tests.cloud.storage import Storage

ENVIRONMENT = Path("job_configs/environments/integration.yaml")


def main() -> None:
    """Serves until Ctrl-C. The bucket and the dataset are integration's; beside it lies one for the key's pads."""
    parser = argparse.ArgumentParser(prog="python -m tests.cloud", description="Google Cloud's protocols on loopback.")
    parser.add_argument("--place", type=Path, default=Path("runs/cloud-local"), help="where keys and files go")
    parser.add_argument("--quiet", action="store_true", help="do not print each request")
    args = parser.parse_args()
    args.place.mkdir(parents=True, exist_ok=True)
    house = House(args.place.absolute(), all_services())
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        environment = yaml.safe_load(ENVIRONMENT.read_text())
        house.service(Storage).make_bucket(environment["bucket"], location=environment["region"].upper())
        for dataset in (environment["dataset"], f"{environment['dataset']}_keys"):
            resource = {"datasetReference": {"datasetId": dataset}, "location": environment["region"]}
            house.service(BigQuery).store.add_dataset(environment["project"], resource)
        if not args.quiet:
            for service in house.services:
                _show_requests(service)
        exports = "".join(
            f"export {name}={value}\n"
            for name, value in (house.environment | {"GOOGLE_CLOUD_PROJECT": environment["project"]}).items()
        )
        (args.place / "environment").write_text(exports)
        print(exports)
        print(f"in another shell:\n  source {args.place}/environment\n{_examples(environment)}", flush=True)
        stop.wait()
    finally:
        house.close()
        if house.proxy.refused:
            print("asked of the world outside, and refused:", *sorted(set(house.proxy.refused)), file=sys.stderr)


def _examples(environment: dict[str, str]) -> str:
    bucket, table = environment["bucket"], f"{environment['project']}.{environment['dataset']}.events"
    return (
        f"  make run CUSTOMERS=2000 RUN_DIR=gs://{bucket}/demo EVENTS=bigquery://{table}\n"
        f"  gcloud storage ls --recursive gs://{bucket}/demo\nCtrl-C ends the servers, and what they hold is gone."
    )


def _show_requests(service: Service) -> None:
    answer = service.respond

    def shown(request: Request) -> Response:
        response = answer(request)
        print(f"{service.name:10} {response.status} {request.method} {request.path}", file=sys.stderr, flush=True)
        return response

    service.respond = shown  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
