"""deploy/terraform and deploy/monitoring: they parse, fit the APIs' types, declare what they use, and grant little."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hcl2
import pytest
from google.protobuf import json_format

from deploy.environment import ENVIRONMENTS, Environment, load_environment

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
FILES = sorted((DEPLOY / "terraform").glob("*.tf"))
TEXT = "\n".join(re.sub(r"(?m)(^|\s)#.*$", "", path.read_text()) for path in FILES)


def parsed(path: Path) -> dict:
    with path.open() as file:
        return hcl2.load(file)


def unquoted(name: str) -> str:
    return name.strip('"')


@pytest.mark.parametrize("path", [*FILES, *sorted((DEPLOY / "terraform").glob("*.tfvars"))], ids=lambda p: p.name)
def test_every_file_is_hcl(path):
    assert parsed(path)


def test_every_variable_that_is_used_is_declared_described_and_given():
    declared = {
        unquoted(name): body
        for block in parsed(DEPLOY / "terraform/variables.tf")["variable"]
        for name, body in block.items()
    }
    used = set(re.findall(r"\bvar\.(\w+)", TEXT))
    assert used == set(declared)
    assert all(body["description"] and body["type"] for body in declared.values())
    for name in ("integration", "production"):
        given = parsed(DEPLOY / f"terraform/{name}.tfvars")
        assert {key for key in given if not key.startswith("__")} == set(declared)


def test_every_resource_and_local_that_is_named_is_there():
    made = {tuple(map(unquoted, pair)) for pair in re.findall(r'(?m)^resource "(\w+)" "(\w+)"', TEXT)}
    assert len(made) > 15
    named = set(re.findall(r"(?<!data\.)\b(google_\w+)\.(\w+)[.\[]", TEXT))
    assert named <= made, named - made
    locals_made = {key for path in FILES for block in parsed(path).get("locals", []) for key in block}
    assert set(re.findall(r"\blocal\.(\w+)", TEXT)) <= locals_made


def test_the_environment_files_hold_what_terraform_makes():
    (block,) = [
        b
        for b in parsed(DEPLOY / "terraform/main.tf")["output"]
        if '"environment_file"' in b or "environment_file" in b
    ]
    (output,) = block.values()
    made = set(output["value"])
    images = {name for name in Environment.model_fields if name.endswith("_image")}
    assert {unquoted(name) for name in made} == set(Environment.model_fields) - images - {"labels", "cost_cap"}
    for name in ("integration", "production"):
        environment, given = load_environment(name), parsed(DEPLOY / f"terraform/{name}.tfvars")
        assert unquoted(given["project"]) == environment.project
        assert unquoted(given["region"]) == environment.region
        assert unquoted(given["environment"]) == environment.labels["environment"]
        assert f"{environment.project}-runs" == environment.bucket
        assert environment.cmek_key.endswith("keyRings/parcours/cryptoKeys/runs")
    assert ENVIRONMENTS.is_dir()


PLACE = "projects/parcours-integration/locations/us-central1"
# What the provider's documentation says of an attribute's form, in the integration project.
ATTRIBUTES = {
    "var.project": "parcours-integration",
    "var.region": "us-central1",
    "data.google_project.this.number": "100000000001",
    "google_compute_network.parcours.id": "projects/parcours-integration/global/networks/parcours",
    "google_compute_network.parcours.name": "parcours",
    "google_compute_subnetwork.parcours.name": "parcours",
    "google_storage_bucket.runs.name": "parcours-integration-runs",
    "google_bigquery_dataset.parcours.dataset_id": "parcours",
    "google_kms_crypto_key.runs.id": f"{PLACE}/keyRings/parcours/cryptoKeys/runs",
    "google_vertex_ai_metadata_store.parcours.id": f"{PLACE}/metadataStores/default",
    "google_vertex_ai_tensorboard.parcours.name": "projects/100000000001/locations/us-central1/tensorboards/"
    "1000000000000000001",
} | {
    f'google_service_account.parcours["{name}"].email': f"parcours-{name}@parcours-integration.iam.gserviceaccount.com"
    for name in ("training", "pipeline", "serving")
}


def test_what_terraform_prints_can_be_pasted_as_it_is():
    """Into the environment file, whose patterns are the services': a network's name has the project's number in it."""
    (block,) = parsed(DEPLOY / "terraform/main.tf")["output"]
    (output,) = block.values()
    printed = {
        unquoted(name): re.sub(r"\$\{(.+?)\}", lambda found: ATTRIBUTES[found[1]], unquoted(value))
        for name, value in output["value"].items()
        if not name.startswith("__")
    }
    given = load_environment("integration")
    assert Environment.model_validate(given.model_dump() | printed) == given.model_copy(
        update={"experiment": printed["experiment"]}
    )


def references() -> dict[str, set[str]]:
    """By each resource, data source and local: what its body names of these."""

    def named(text: str) -> Iterator[str]:
        for data, kind, name in re.findall(r"(data\.)?\b(google_\w+|local)\.(\w+)", text):
            yield f"{data}{kind}.{name}"

    found = {}
    for path in FILES:
        blocks = parsed(path)
        for prefix, section in (("", "resource"), ("data.", "data")):
            for block in blocks.get(section, []):
                ((kind, bodies),) = block.items()
                for name, body in bodies.items():
                    found[f"{prefix}{unquoted(kind)}.{unquoted(name)}"] = set(named(json.dumps(body)))
        for block in blocks.get("locals", []):
            for name, value in block.items():
                found[f"local.{name}"] = set(named(json.dumps(value)))
    return found


def waits_for(name: str, graph: dict[str, set[str]]) -> set[str]:
    """All that is made before `name`."""
    seen: set[str] = set()
    following = {name}
    while following:
        one = following.pop()
        seen.add(one)
        following |= graph[one] - seen
    return seen


APIS, GRANTS = "google_project_service.needed", "google_kms_crypto_key_iam_member.services"


def test_all_waits_for_the_apis_and_what_the_key_encrypts_for_its_grants():
    """Else the first apply of a new project fails, and no other does."""
    graph = references()
    made = {name for name in graph if not name.startswith("local.")}
    assert len(made) > 20
    early = {name for name in made - {APIS} if APIS not in waits_for(name, graph)}
    assert early == set()
    encrypted = {
        f"{kind}.{name}"
        for kind, name, body in re.findall(r'(?ms)^resource "(\w+)" "(\w+)" \{(.*?)^\}', TEXT)
        if re.search(r"kms_key_name\s+=", body)
    }
    assert len(encrypted) == 6
    assert {name for name in encrypted if GRANTS not in waits_for(name, graph)} == set()


def test_a_missing_wait_would_be_seen():
    graph = references()
    without = {name: named - {GRANTS} for name, named in graph.items()}
    assert GRANTS not in waits_for("google_vertex_ai_tensorboard.parcours", without)
    assert APIS not in waits_for(
        "google_compute_network.parcours", {name: named - {APIS} for name, named in graph.items()}
    )


# The API that makes each kind of thing; project_service's own, Service Usage, a new project has.
API_OF = {
    "google_artifact_registry": "artifactregistry",
    "google_bigquery": "bigquery",
    "google_billing_budget": "billingbudgets",
    "google_compute": "compute",
    "google_kms": "cloudkms",
    "google_monitoring": "monitoring",
    "google_project_iam": "cloudresourcemanager",
    "google_project_service": "",
    "google_service_account": "iam",
    "google_service_networking": "servicenetworking",
    "google_storage": "storage",
    "google_vertex_ai": "aiplatform",
}


def test_every_api_that_makes_something_is_turned_on():
    listed = set(
        re.findall(
            r'"(\w+)"',
            re.search(rf'resource "{APIS.replace(".", chr(34) + " " + chr(34))}" \{{(.*?)\]\)', TEXT, re.DOTALL)[1],
        )
    )
    kinds = set(re.findall(r'(?m)^resource "(\w+)"', TEXT))
    for kind in kinds:
        (api,) = (api for prefix, api in API_OF.items() if kind.startswith(prefix))
        assert api in listed | {""}, kind


def test_only_agents_that_are_there_are_granted_something():
    """A service agent's address is asked for, which makes it; Compute Engine's cannot be, and comes with its API."""
    written = re.findall(r"@([\w-]+)\.iam\.gserviceaccount\.com", TEXT)
    assert written == ["compute-system"]
    (asked,) = re.findall(
        r'resource "google_project_service_identity" "agents" \{.*?toset\(\[(.*?)\]\)', TEXT, re.DOTALL
    )
    for service in re.findall(r'"(\w+)"', asked):
        agent = f'google_project_service_identity.agents["{service}"].member'
        # one that is asked for has no role by itself
        assert re.search(rf'member = {re.escape(agent)}, role = "roles/{service}\.serviceAgent"', TEXT)
        assert re.search(rf"= {re.escape(agent)}$", TEXT, re.MULTILINE)


def granted(member: str) -> set[str]:
    return set(re.findall(rf'member = {re.escape(member)}, role = "(roles/[\w.]+)"', TEXT))


def test_schedules_and_analysts_may_do_what_their_commands_do():
    """Roles as Google's pages give them to a pipeline that starts Dataflow's jobs, and to who starts them by hand."""
    starting = {"roles/dataflow.developer", "roles/aiplatform.user"}
    reading = {"roles/bigquery.jobUser", "roles/bigquery.readSessionUser"}
    assert granted("local.pipeline") >= starting | reading | {"roles/dataflow.worker", "roles/storage.objectUser"}
    assert granted("var.analysts") >= starting | reading | {"roles/storage.objectUser"}
    acting = set(re.findall(r'member = ([\w.]+), account = "(\w+)"', TEXT))
    assert ("local.pipeline", "pipeline") in acting
    assert {("var.analysts", account) for account in ("training", "pipeline", "serving")} < acting
    writing = set(re.findall(r"member = ([\w.]+), dataset = google_bigquery_dataset\.(\w+)", TEXT))
    assert writing == {("local.pipeline", "parcours"), ("local.pipeline", "temporary"), ("var.analysts", "temporary")}


def test_roles_are_narrow_and_each_has_its_reason():
    roles = re.findall(r'role\s*=\s*"(roles/[\w.]+)"', TEXT)
    assert len(roles) > 15
    assert not [role for role in roles if re.fullmatch(r"roles/(owner|editor|viewer|.*[aA]dmin)", role)]
    granted = re.findall(r"\{ member = .*?\}", TEXT)
    assert len(granted) > 10
    assert all(re.search(r'why = "[^"]{5,}"', grant) for grant in granted)
    assert "service_account_key" not in TEXT
    assert "allUsers" not in TEXT
    assert "allAuthenticatedUsers" not in TEXT


def test_what_holds_data_is_encrypted_expires_and_is_closed():
    buckets = re.findall(r'resource "google_storage_bucket" "\w+" \{(.*?)\n\}', TEXT, re.DOTALL)
    assert buckets
    for body in buckets:
        assert "default_kms_key_name" in body
        assert 'public_access_prevention    = "enforced"' in body
        assert body.count("lifecycle_rule") >= 3
    assert "default_partition_expiration_ms" in TEXT
    assert "default_table_expiration_ms = 86400000" in TEXT
    assert TEXT.count("default_encryption_configuration") == 2


@pytest.mark.parametrize("path", sorted((DEPLOY / "monitoring").glob("alert_*.json")), ids=lambda p: p.stem)
def test_every_alert_is_the_apis_type_and_says_what_to_do(path):
    from google.cloud.monitoring_v3 import AlertPolicy

    message = AlertPolicy.pb(AlertPolicy())
    json_format.ParseDict(json.loads(path.read_text()), message)
    assert message.documentation.content
    (condition,) = message.conditions
    if condition.HasField("condition_matched_log"):
        assert "resource.type = " in condition.condition_matched_log.filter
        assert message.alert_strategy.notification_rate_limit.period.seconds  # which the API wants of these
    else:
        assert condition.condition_threshold.aggregations
        assert "resource.type = " in condition.condition_threshold.filter
        assert "metric.type = " in condition.condition_threshold.filter
    broken = json.loads(path.read_text()) | {"displayname": "x"}
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict(broken, AlertPolicy.pb(AlertPolicy()))


# By metric, the resource that bears it; those of a training job were not compared with Google's own page. Pages:
# https://cloud.google.com/monitoring/api/metrics_gcp_i_o#gcp-ml, the same
# page's …_a_b#gcp-aiplatform, …_d_h#gcp-dataflow. A name that is none would never raise an alert, and
# nobody would be told.
METRICS = {
    "ml.googleapis.com/training/accelerator/utilization": "cloudml_job",
    "ml.googleapis.com/training/cpu/utilization": "cloudml_job",
    "aiplatform.googleapis.com/prediction/online/response_count": "aiplatform.googleapis.com/Endpoint",
    "aiplatform.googleapis.com/prediction/online/prediction_latencies": "aiplatform.googleapis.com/Endpoint",
    "dataflow.googleapis.com/job/is_failed": "dataflow_job",
}


def policies() -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in (DEPLOY / "monitoring").glob("alert_*.json")}


def thresholds() -> dict[str, dict]:
    """The condition of each policy that watches a metric."""
    conditions = {name: policy["conditions"][0] for name, policy in policies().items()}
    return {name: one["conditionThreshold"] for name, one in conditions.items() if "conditionThreshold" in one}


def test_alerts_watch_metrics_that_there_are():
    assert len(thresholds()) == len(policies()) - 1
    for name, condition in thresholds().items():
        asked = condition["filter"]
        (metric,), (resource,) = (re.findall(rf'{key}\.type = "([^"]+)"', asked) for key in ("metric", "resource"))
        assert METRICS[metric] == resource, name


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_alerts_fit_the_services_limits():
    """A condition may last 23.5 hours at most, in whole minutes, and is aligned over a minute or more."""
    for name, condition in thresholds().items():
        assert seconds(condition["duration"]) % 60 == 0, name
        assert seconds(condition["duration"]) <= 84_600, name
        assert seconds(condition["aggregations"][0]["alignmentPeriod"]) >= 60, name


def test_an_overrun_is_longer_than_every_job_may_run_and_a_long_job_is_not():
    from deploy.jobs import custom_job_spec, load_job, parse_job
    from tests.deploy.test_job_files import OF_VERTEX

    jobs = [load_job(path) for path in OF_VERTEX]
    limits = [
        custom_job_spec(parse_job(job, job.content)).scheduling.timeout.seconds for job in jobs if job.kind != "batch"
    ]
    lasts = {name: seconds(condition["duration"]) for name, condition in thresholds().items()}
    assert lasts["alert_job_overrun"] > max(limits)
    assert lasts["alert_job_long"] < max(limits)


@pytest.mark.parametrize("name", ["alert_gpu_idle", "alert_job_long", "alert_job_overrun"])
def test_each_job_is_watched_for_itself(name):
    """Reduced over all jobs, one that works would hide one that idles."""
    (aggregation,) = thresholds()[name]["aggregations"]
    assert aggregation["groupByFields"] == ["resource.labels.job_id"]
    assert "group_by_fields      = try(condition_threshold.value.aggregations[0].groupByFields" in TEXT


ENDS = {
    "UserError('no such run directory')": True,
    "OSError(28, 'No space left on device')": True,
    "RuntimeError('a bug')": True,
    "KeyboardInterrupt()": True,
    "SystemExit(0)": False,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_job_that_fails_raises_the_alert_and_one_that_only_tells_its_progress_does_not(end):
    """Vertex AI files all of standard error under ERROR, so the lines' text is asked for, and the severity is not."""
    condition = policies()["alert_job_errors"]["conditions"][0]["conditionMatchedLog"]
    (pattern,) = set(re.findall(r'(?:jsonPayload\.message|textPayload) =~ "([^"]+)"', condition["filter"]))
    assert re.findall(r"[^(]*severity[^)]*", condition["filter"]) == [
        'resource.labels.task_name = "service" AND severity >= ERROR'
    ]
    code = f"""
import logging
from preprocessing.cli import UserError, run
def main():
    logging.getLogger("trainer.fit").info("epoch 1: loss 0.31, no error: all well")
    logging.getLogger("trainer.fit").warning("warning: no journey of the eval split converts")
    raise {end}
run(main)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr
    lines = said.splitlines()
    assert lines[0].startswith("epoch 1")
    found = [line for line in lines if re.search(pattern, line)]
    assert bool(found) == ENDS[end]
    assert not [line for line in found if "epoch" in line or "warning" in line]


def test_the_budget_is_the_apis_type():
    from google.cloud.billing.budgets_v1 import Budget

    message = Budget.pb(Budget())
    json_format.ParseDict(json.loads((DEPLOY / "monitoring/budget.json").read_text()), message)
    assert [rule.threshold_percent for rule in message.threshold_rules] == [0.5, 0.9, 1.0]


def test_what_the_alerts_tell_people_to_type_exists():
    from tests.test_package import ENTRY_POINTS

    text = "".join(path.read_text() for path in (DEPLOY / "monitoring").glob("*.json"))
    modules = set(re.findall(r"python -m ([\w.]+)", text))
    assert modules
    assert modules <= set(ENTRY_POINTS)
