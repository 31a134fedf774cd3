"""Vertex AI's ScheduleService: keeps schedules, runs none.

Source: cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.schedules
"""

from __future__ import annotations

import re
from typing import ClassVar

from google.cloud import aiplatform_v1 as api

from tests.cloud.service import ApiError
from tests.cloud.transcoding import TranscodingService, rpc

_SERVICE = "google.cloud.aiplatform.v1.ScheduleService"
_CRON = re.compile(r"((CRON_)?TZ=[\w/+-]+ )?(\S+ ){4}\S+")  # the Schedule resource's documentation


class Schedules(TranscodingService):
    """`schedules`: what was created, by name."""

    name = "schedules"
    hosts = ("*-aiplatform.googleapis.com",)
    grpc_services = (_SERVICE,)
    transports: ClassVar[dict[str, str]] = {
        _SERVICE: "google.cloud.aiplatform_v1.services.schedule_service.transports.rest_base"
    }

    def reset(self) -> None:
        super().reset()
        self.schedules: dict[str, api.Schedule] = {}

    @rpc(_SERVICE)
    def CreateSchedule(self, request: api.CreateScheduleRequest) -> api.Schedule:
        made = api.Schedule(request.schedule)
        self._check(made, request.parent)
        made.name = f"{request.parent}/schedules/{len(self.schedules) + 1}"
        made.state = api.Schedule.State.ACTIVE
        self.schedules[made.name] = made
        return made

    @rpc(_SERVICE)
    def UpdateSchedule(self, request: api.UpdateScheduleRequest) -> api.Schedule:
        """Fields of the mask alone, as the documentation says; the pipeline's parent may not change."""
        known = self.schedules.get(request.schedule.name)
        if known is None:
            raise ApiError(404, f"Schedule not found: {request.schedule.name}")
        if not request.update_mask.paths:
            raise ApiError(400, "update_mask: required")
        for path in request.update_mask.paths:
            setattr(known, path, getattr(request.schedule, path))
        self._check(known, known.name.partition("/schedules/")[0])
        return known

    @rpc(_SERVICE)
    def ListSchedules(self, request: api.ListSchedulesRequest) -> api.ListSchedulesResponse:
        wanted = re.fullmatch(r'display_name="([^"]*)"', request.filter)
        if request.filter and not wanted:
            raise ApiError(400, f"the local server knows display_name=… alone, not {request.filter!r}")
        found = [s for s in self.schedules.values() if s.name.startswith(f"{request.parent}/")]
        return api.ListSchedulesResponse(schedules=[s for s in found if not wanted or s.display_name == wanted[1]])

    def _check(self, schedule: api.Schedule, parent: str) -> None:
        if not _CRON.fullmatch(schedule.cron):
            raise ApiError(400, f"Invalid cron string: {schedule.cron}")
        if schedule.max_concurrent_run_count < 1:
            raise ApiError(400, "max_concurrent_run_count: required")
        if schedule.create_pipeline_job_request.parent != parent:
            raise ApiError(400, "create_pipeline_job_request.parent: expected the schedule's own")
