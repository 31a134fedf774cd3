"""`python -m deploy.endpoint show|deploy|split|rollback|undeploy`: which model versions answer, and how much each."""

from __future__ import annotations

import argparse
import logging
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preprocessing.cli import UserError, run
from preprocessing.warehouse import PRICES

if TYPE_CHECKING:
    from deploy.environment import Environment

log = logging.getLogger(__name__)

_PREVIOUS = "previous_"  # labels that keep the split before, so that a rollback needs nobody's memory
_PATIENCE_S = 3600.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.endpoint",
        description="Deploys model versions at a Vertex AI endpoint, splits traffic between them, and takes it back.",
        allow_abbrev=False,
    )
    parser.add_argument("action", choices=("show", "deploy", "split", "rollback", "undeploy"))
    parser.add_argument("--env", required=True, metavar="NAME", help="the environment, as for deploy.submit")
    parser.add_argument(
        "--endpoint", default="parcours", metavar="NAME", help="the endpoint's name (default: %(default)s)"
    )
    parser.add_argument("--model_id", default="parcours", metavar="ID", help="the model's id (default: %(default)s)")
    parser.add_argument("--version", metavar="V", help="deploy, undeploy: the version's number or alias")
    parser.add_argument(
        "--traffic",
        nargs="+",
        metavar="P",
        help="deploy: percent for the new version (default: 0, or 100 for the first); split: VERSION=PERCENT …",
    )
    parser.add_argument("--machine", default="n1-standard-2", help="deploy: the machine type (default: %(default)s)")
    parser.add_argument("--replicas", type=int, default=1, help="deploy: machines at least (default: %(default)s)")
    parser.add_argument("--max_replicas", type=int, default=2, help="deploy: machines at most (default: %(default)s)")
    parser.add_argument("--prices", type=Path, default=PRICES, help="deploy: the price file")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Does the action and shows the endpoint. Raises UserError where it cannot be done; nothing is changed then."""
    from deploy.environment import load_environment

    args = _parser().parse_args(argv)
    endpoint = Endpoint(load_environment(args.env), args.endpoint, args.model_id)
    if args.action == "deploy":
        _tell_cost(args)
        endpoint.deploy(_needed(args.version), _share(args.traffic), args.machine, args.replicas, args.max_replicas)
    elif args.action == "undeploy":
        endpoint.undeploy(_needed(args.version))
    elif args.action == "split":
        endpoint.split(args.traffic or [])
    elif args.action == "rollback":
        endpoint.rollback()
    print(endpoint.shown())


class Endpoint:
    """One endpoint by its display name, and the model whose versions are deployed at it."""

    def __init__(self, environment: Environment, name: str, model_id: str) -> None:
        from google.cloud.aiplatform_v1 import EndpointServiceClient

        from deploy.registry import Registry
        from deploy.vertex_client import client

        self._environment, self._name = environment, name
        self._registry = Registry(environment, model_id)
        self._endpoints = client(EndpointServiceClient, environment)

    def find(self) -> Any | None:
        """The endpoint as it is now; None where there is none. Raises UserError where several have the name."""
        request = {"parent": self._environment.parent, "filter": f'display_name="{self._name}"'}
        found = list(self._call(self._endpoints.list_endpoints, request))
        if len(found) > 1:
            raise UserError(f"--endpoint {self._name}: {len(found)} endpoints have this name; delete all but one")
        return found[0] if found else None

    def deploy(self, which: str, share: int | None, machine: str, replicas: int, max_replicas: int) -> None:
        """Deploys a version, with `share` percent of the traffic; the others keep their proportions in the rest.

        share: None is nothing, or all for the first. What is refused is refused before an endpoint is made for it.
        """
        from deploy.traffic import with_newcomer

        if not 1 <= replicas <= max_replicas:
            raise UserError(f"--replicas: expected 1 to --max_replicas {max_replicas}, got {replicas}")
        version = self._registry.version(which)
        found = self.find()
        if found is not None and version.version_id in self._versions(found):
            raise UserError(f"version {version.version_id} is deployed already; change its traffic with: split")
        before = {} if found is None else dict(found.traffic_split)
        split = with_newcomer(before, "0", share)
        endpoint = self._create() if found is None else found
        log.info("deploying version %s; machines take some minutes to come", version.version_id)
        self._wait(self._endpoints.deploy_model, {
            "endpoint": endpoint.name,
            "deployed_model": {
                    # named here, so that a request that is sent again does not deploy twice
                    "id": str(1 + secrets.randbelow(9_999_999_999)),
                "model": f"{version.name}@{version.version_id}",
                "display_name": f"{version.display_name}-{version.version_id}",
                "service_account": self._environment.serving_account,
                "dedicated_resources": {
                    "machine_spec": {"machine_type": machine},
                    "min_replica_count": replicas,
                    "max_replica_count": max_replicas,
                },
            },
            "traffic_split": split,
        })  # fmt: skip
        if before:
            now = self._there()
            self._update(now, dict(now.traffic_split), before)

    def split(self, pairs: list[str]) -> None:
        """Splits the traffic as VERSION=PERCENT pairs say; the split before is kept for a rollback."""
        from deploy.traffic import parse_split

        endpoint = self._there()
        self._update(endpoint, parse_split(pairs, self._versions(endpoint)), dict(endpoint.traffic_split))

    def rollback(self) -> None:
        """Brings back the split before the last change; once more brings back the present one."""
        endpoint = self._there()
        previous = _previous(endpoint)
        gone = sorted(set(previous) - {deployed.id for deployed in endpoint.deployed_models})
        if not previous or gone:
            why = f"deployed model {gone[0]} of the split before is gone" if gone else "no split before is kept"
            raise UserError(f"--endpoint {self._name}: {why}; give one with: split")
        self._update(endpoint, previous, dict(endpoint.traffic_split))

    def undeploy(self, which: str) -> None:
        """Takes away a version that no longer gets traffic."""
        endpoint = self._there()
        versions = self._versions(endpoint)
        number = which if which in versions else self._registry.version(which).version_id
        if number not in versions:
            raise UserError(f"--version {which}: not deployed; expected one of {', '.join(versions)}")
        share = endpoint.traffic_split.get(versions[number], 0)
        if share and len(versions) > 1:
            raise UserError(f"--version {which}: still gets {share} % of the traffic; take it away first with: split")
        self._wait(self._endpoints.undeploy_model, {"endpoint": endpoint.name, "deployed_model_id": versions[number]})

    def shown(self) -> str:
        """The endpoint in lines: each deployed version, its traffic, its traffic before, its machines."""
        endpoint = self.find()
        if endpoint is None:
            return f"no endpoint {self._name} in {self._environment.parent}"
        previous, lines = _previous(endpoint), [endpoint.name]
        for deployed in endpoint.deployed_models:
            machines = deployed.dedicated_resources
            before = f" (before: {previous.get(deployed.id, 0)} %)" if previous else ""
            lines.append(
                f"  version {deployed.model_version_id}: {endpoint.traffic_split.get(deployed.id, 0)} %{before}, "
                f"{machines.min_replica_count} to {machines.max_replica_count} {machines.machine_spec.machine_type}"
            )
        return "\n".join(lines if endpoint.deployed_models else [*lines, "  nothing is deployed"])

    def _create(self) -> Any:
        """Makes the endpoint once: where the answer got lost on its way, it is found by its name."""
        from google.api_core.exceptions import AlreadyExists, ServiceUnavailable
        from google.api_core.operation import Operation

        from deploy.vertex_client import create_once, told

        request = {
            "parent": self._environment.parent,
            "endpoint": {
                "display_name": self._name,
                "labels": self._environment.labels,
                "encryption_spec": {"kms_key_name": self._environment.cmek_key},
            },
            # named here, since one that is still being made is in no list: sent again, it would be made twice
            "endpoint_id": str(100_000_000 + secrets.randbelow(900_000_000)),
        }

        def create() -> Any:
            try:
                return self._endpoints.create_endpoint(request=request, timeout=60.0, retry=None)
            except AlreadyExists as error:  # an attempt's before this one: looked for again until it is there
                raise ServiceUnavailable(error.message) from None

        with told(f"endpoint {self._name}", self._environment):
            made = create_once(create, self.find)
            if isinstance(made, Operation):
                self._end(made, "run the same command again")
        return self._there()

    def _there(self) -> Any:
        found = self.find()
        if found is None:
            raise UserError(
                f"--endpoint {self._name}: no such endpoint in {self._environment.parent}; make it with: deploy"
            )
        return found

    def _versions(self, endpoint: Any) -> dict[str, str]:
        """Deployed model ids by version."""
        return {deployed.model_version_id: deployed.id for deployed in endpoint.deployed_models}

    def _update(self, endpoint: Any, split: dict[str, int], before: dict[str, int]) -> None:
        """The split and what it was before, in one request, so that neither can be without the other."""
        kept = {key: value for key, value in endpoint.labels.items() if not key.startswith(_PREVIOUS)}
        labels = kept | {f"{_PREVIOUS}{key}": str(value) for key, value in before.items() if value}
        self._call(self._endpoints.update_endpoint, {
            "endpoint": {"name": endpoint.name, "traffic_split": split, "labels": labels},
            "update_mask": {"paths": ["traffic_split", "labels"]},
        })  # fmt: skip

    def _call(self, method: Any, request: dict[str, Any]) -> Any:
        from deploy.vertex_client import call, told

        with told(f"endpoint {self._name}", self._environment):
            return call(method, request)

    def _wait(self, method: Any, request: dict[str, Any]) -> None:
        from deploy.vertex_client import call, told

        with told(f"endpoint {self._name}", self._environment):
            self._end(call(method, request), "python -m deploy.endpoint show tells what came of it")

    def _end(self, operation: Any, after: str) -> None:
        from deploy.operations import ended

        ended(operation, f"endpoint {self._name}", self._environment, patience_s=_PATIENCE_S, after=after)


def _previous(endpoint: Any) -> dict[str, int]:
    found = {key: value for key, value in endpoint.labels.items() if key.startswith(_PREVIOUS)}
    return {key.removeprefix(_PREVIOUS): int(value) for key, value in found.items()}


def _needed(version: str | None) -> str:
    if version is None:
        raise UserError("--version: expected a version's number or alias, candidate say")
    return version


def _share(traffic: list[str] | None) -> int | None:
    if traffic is None:
        return None
    if len(traffic) != 1 or not traffic[0].isdecimal():
        raise UserError(f"--traffic: expected one percentage for the new version, got {' '.join(traffic)}")
    return int(traffic[0])


def _tell_cost(args: argparse.Namespace) -> None:
    from deploy.prices import load_prices

    prices = load_prices(args.prices)
    hour = prices.machine_hour("vertex_prediction", args.machine)
    least, most = (count * hour * prices.hours_per_month for count in (args.replicas, args.max_replicas))
    money = f"{least:.2f} to {most:.2f} {prices.currency}"
    print(f"costs {money} a month until it is undeployed (list prices, {prices.noted})")


if __name__ == "__main__":
    run(main)
