"""Cloud Monitoring: points of user-defined metrics, refused as the real one refuses them.

https://cloud.google.com/monitoring/custom-metrics/creating-metrics and …/api/ref_v3/rest/v3/projects.timeSeries/create:
one point a series and call, at most 200 series, ends that grow, five seconds between two, none from the future.
"""

from __future__ import annotations

import time

from google.cloud.monitoring_v3.types import CreateTimeSeriesRequest, TimeSeries
from google.protobuf import empty_pb2

from tests.cloud.service import ApiError
from tests.cloud.transcoding import TranscodingService, rpc

_LABELS = {"generic_task": {"project_id", "location", "namespace", "job", "task_id"}}
_MOST, _BETWEEN_S, _AHEAD_S = 200, 5, 300


class Monitoring(TranscodingService):
    """`points`: {(metric type, resource labels as sorted pairs): [(seconds since 1970, value)]}."""

    name = "monitoring"
    hosts = ("monitoring.googleapis.com",)
    grpc_services = ("google.monitoring.v3.MetricService",)

    def reset(self) -> None:
        super().reset()
        self.points: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = {}

    @rpc("google.monitoring.v3.MetricService")
    def CreateTimeSeries(self, request: CreateTimeSeriesRequest) -> empty_pb2.Empty:
        if len(request.time_series) > _MOST:
            raise ApiError(400, f"Field timeSeries had {len(request.time_series)} elements; at most {_MOST}")
        with self.lock:
            for number, series in enumerate(request.time_series):
                self._take(f"timeSeries[{number}]", series, request.name)
        return empty_pb2.Empty()

    def _take(self, where: str, series: TimeSeries, project: str) -> None:
        labels = dict(series.resource.labels)
        if not series.metric.type.startswith("custom.googleapis.com/"):
            raise ApiError(400, f"{where}.metric.type: {series.metric.type!r} cannot be written to")
        if set(labels) != _LABELS.get(series.resource.type):
            raise ApiError(400, f"{where}.resource: labels {sorted(labels)} do not identify a {series.resource.type!r}")
        if project != f"projects/{labels['project_id']}":
            raise ApiError(400, f"{where}.resource: of another project than {project}")
        if len(series.points) != 1:
            raise ApiError(400, f"{where}: expected exactly one point, got {len(series.points)}")
        end = series.points[0].interval.end_time.timestamp()
        if end > time.time() + _AHEAD_S:
            raise ApiError(400, f"{where}: the point lies in the future")
        held = self.points.setdefault((series.metric.type, tuple(sorted(labels.items()))), [])
        if held and end < held[-1][0] + _BETWEEN_S:
            raise ApiError(400, f"{where}: points must be written in order, at most one every {_BETWEEN_S} seconds")
        held.append((end, series.points[0].value.double_value))
