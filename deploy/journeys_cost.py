"""What making journeys costs: bytes that BigQuery bills, and the workers of a Dataflow job."""

from __future__ import annotations

import dataclasses

from deploy.ceiling import Estimate
from deploy.prices import Prices
from preprocessing.scan_price import TIB, in_words

# GB, of a batch job that shuffles in Dataflow's service (https://cloud.google.com/dataflow/docs/shuffle-for-batch)
WORKER_DISK = 25


@dataclasses.dataclass(frozen=True)
class Workers:
    """A Dataflow job's workers: at most `number` of a machine type, each with `disk_gb` of standard disk."""

    number: int
    machine_type: str
    disk_gb: int = WORKER_DISK


def bigquery(prices: Prices, scanned: int) -> Estimate:
    """What so many bytes cost, billed on demand."""
    rate = prices.bigquery.tib_scanned
    amount = scanned / TIB * rate
    return Estimate(amount, prices.currency, (f"BigQuery: {in_words(scanned)} · {rate:g} a TiB = {amount:.2f}",))


def dataflow(prices: Prices, workers: Workers, worker_hours: float) -> Estimate:
    """What batch workers cost that together run for `worker_hours`; what they shuffle comes on top.

    Raises UserError for a machine type that is not in the price file.
    """
    size, rate = prices.size(workers.machine_type), prices.dataflow
    hour = size.vcpus * rate.vcpu_hour + size.ram_gb * rate.gb_hour + workers.disk_gb * rate.disk_gb_hour
    amount = worker_hours * hour
    return Estimate(
        amount,
        prices.currency,
        (
            f"Dataflow: {worker_hours:g} worker hours · {hour:.4f} an hour ({workers.machine_type}) = {amount:.2f}",
            f"  an hour: {size.vcpus:g} vCPUs · {rate.vcpu_hour:g} + {size.ram_gb:g} GB · {rate.gb_hour:g} "
            f"+ {workers.disk_gb} GB of disk · {rate.disk_gb_hour:g}; what is shuffled comes on top",
        ),
    )
