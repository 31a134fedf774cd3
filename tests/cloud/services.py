"""Every local server there is."""

from __future__ import annotations

from tests.cloud.service import Service


def all_services() -> list[Service]:
    """One of each, to be given to a House."""
    from tests.cloud.bigquery import BigQuery
    from tests.cloud.cloud_logging import Logging
    from tests.cloud.cloud_monitoring import Monitoring
    from tests.cloud.dataflow import Dataflow
    from tests.cloud.schedules import Schedules
    from tests.cloud.storage import Storage
    from tests.cloud.vertex import Vertex

    return [Storage(), Dataflow(), BigQuery(), Schedules(), Vertex(), Logging(), Monitoring()]
