"""deploy.schedule before a ScheduleService: created once, replaced by the same command, refused in one line."""

import pytest

from deploy import schedule, vertex_client
from deploy.environment import load_environment
from preprocessing.cli import UserError
from tests.cloud.schedules import Schedules
from tests.deploy.test_schedules import GIVEN, JOB_CONFIGS

FLAGS = [
    "--env", "integration", "--job", str(JOB_CONFIGS / "schedule_retraining.yaml"),
    *(part for name, value in GIVEN.items() for part in ("--set", f"{name}={value}")),
]  # fmt: skip


@pytest.fixture
def schedules(cloud):
    yield cloud.service(Schedules)
    assert cloud.proxy.refused == []


def test_a_schedule_is_made_once_and_replaced_after_that(schedules, tmp_path, capsys):
    schedule.main(FLAGS)
    (made,) = schedules.schedules.values()
    environment = load_environment("integration")
    assert made.name == f"{environment.parent}/schedules/1"
    assert f"created schedule {made.name}: TZ=Europe/Paris 0 2 1 * *" in capsys.readouterr().out
    job = made.create_pipeline_job_request.pipeline_job
    assert job.pipeline_spec["deploymentSpec"]["executors"]["promote"]["container"]["command"][2] == "deploy.promote"

    later = tmp_path / "schedule_retraining.yaml"
    later.write_text((JOB_CONFIGS / "schedule_retraining.yaml").read_text().replace("0 2 1 * *", "0 3 2 * *"))
    schedule.main([flag if flag != FLAGS[3] else str(later) for flag in FLAGS])
    assert [s.cron for s in schedules.schedules.values()] == ["TZ=Europe/Paris 0 3 2 * *"]
    assert "replaced schedule" in capsys.readouterr().out


def test_what_the_service_refuses_is_one_line(schedules, tmp_path):
    wrong = tmp_path / "schedule_retraining.yaml"
    wrong.write_text((JOB_CONFIGS / "schedule_retraining.yaml").read_text().replace("0 2 1 * *", "monthly"))
    with pytest.raises(UserError, match=r"schedule parcours-schedule-retraining: not made: refused \(Invalid cron"):
        schedule.main([flag if flag != FLAGS[3] else str(wrong) for flag in FLAGS])
    schedules.fail(403, match="ScheduleService", message="Permission 'aiplatform.schedules.create' denied")
    with pytest.raises(
        UserError, match=r"permission denied \(Permission 'aiplatform\.schedules\.create' denied\); grant"
    ):
        schedule.main(FLAGS)
    assert schedules.schedules == {}


def test_a_busy_service_is_asked_again(schedules):
    schedules.fail(503, times=2, match="ScheduleService")
    schedule.main(FLAGS)
    assert len(schedules.schedules) == 1
    assert len(schedules.faults.struck) == 2


@pytest.mark.parametrize("status", [503, 504])
def test_an_answer_that_got_lost_makes_no_second_schedule(schedules, capsys, status):
    schedules.lose(status, match="CreateSchedule")
    schedule.main(FLAGS)
    assert len(schedules.seen("CreateSchedule")) == len(schedules.faults.struck) == 1
    ((name, _),) = schedules.schedules.items()
    assert f"created schedule {name}: " in capsys.readouterr().out


@pytest.mark.parametrize("call", ["ListSchedules", "CreateSchedule"])
def test_a_service_that_stays_busy_is_one_line(schedules, monkeypatch, call):
    monkeypatch.setattr(vertex_client, "_PATIENCE_S", 0.3)
    monkeypatch.setitem(vertex_client.call.__kwdefaults__, "patience_s", 0.3)
    schedules.fail(503, times=99, match=call, message="try later")
    with pytest.raises(UserError, match=r"not made: the service is busy .* \(try later\); run the same command again"):
        schedule.main(FLAGS)
    assert schedules.schedules == {}
