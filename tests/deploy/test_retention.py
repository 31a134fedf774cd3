"""What docs/confidentiality.md says of periods is what terraform and the code set; every job is private."""

import datetime as dt
import re

import pytest
import yaml

from preprocessing.bigquery_session import TABLE_LIFE
from tests.job import ROOT

TERRAFORM = ROOT / "deploy/terraform"
STORAGE = (TERRAFORM / "storage.tf").read_text()
PAGE = (ROOT / "docs/confidentiality.md").read_text()


def resource(kind, name):
    return re.search(rf'resource "{kind}" "{name}" \{{(.*?)\n\}}', STORAGE, re.DOTALL)[1]


def number(pattern, text):
    (found,) = re.findall(pattern, text)
    return int(found)


def periods_set():
    """Days by place, as they are set."""
    runs, found = resource("google_storage_bucket", "runs"), {}
    for rule in re.findall(r"lifecycle_rule \{(.*?)\n  \}", runs, re.DOTALL):
        prefixes = re.findall(r'"([a-z_]+/)"', rule)
        (age,) = re.findall(r"(?:age|days_since_noncurrent_time)\s+= (\S+)", rule)
        place = ", ".join(prefixes) or ("multipart" if "Multipart" in rule else "noncurrent")
        if age == "var.keep_runs_days":
            for name in ("production", "integration"):
                found[f"{place} {name}"] = number(
                    r"keep_runs_days\s+= (\d+)", (TERRAFORM / f"{name}.tfvars").read_text()
                )
        else:
            found[place] = int(age)
    found["soft delete"] = number(r"retention_duration_seconds = (\d+)", runs) / 86_400
    models = resource("google_storage_bucket", "models")
    found["at least"] = number(r"retention_period = (\d+)", models) / 86_400
    scores = resource("google_bigquery_dataset", "parcours")
    found["parcours"] = number(r"default_partition_expiration_ms = (\d+)", scores) / 86_400_000
    temporary = resource("google_bigquery_dataset", "temporary")
    found["parcours_temporary"] = number(r"default_table_expiration_ms = (\d+)", temporary) / 86_400_000
    found["own expiry"] = TABLE_LIFE / dt.timedelta(days=1)
    return found


def periods_told():
    """Days by place, as the page says; places in the words of periods_set."""
    section = PAGE.partition("## How long each thing is kept")[2].partition("\n## ")[0]
    found = {}
    for _, place, days in re.findall(r"^\| (.+?) \| (.+?) \| (\d+) \|$", section, re.MULTILINE):
        prefixes = ", ".join(re.findall(r"`([a-z_]+/)`", place))
        dataset = re.search(r"dataset `(\w+)`", place)
        words = [w for w in ("noncurrent", "multipart", "soft delete", "at least", "own expiry") if w in place]
        environment = [name for name in ("production", "integration") if name in place]
        key = " ".join([prefixes, *environment]) if prefixes else dataset[1] if dataset else words[0]
        assert key not in found
        found[key] = int(days)
    return found


def test_every_period_that_is_told_is_set_and_every_one_set_is_told():
    assert periods_told() == periods_set()
    assert len(periods_told()) == 12


def test_scores_and_pairs_lie_where_they_expire():
    """Where the schedules write is under a prefix with a period."""
    prefixes = {p for place in periods_set() for p in re.findall(r"[a-z_]+/", place)}
    kept = {"models/", "specs/", "packages/", "events/"}  # models/current, and what is the owner's
    for path in sorted((ROOT / "job_configs").glob("schedule_*.yaml")):
        written = set(re.findall(r"gs://\$\{BUCKET\}/([a-z_]+/?)", re.sub(r"(?m)^#.*", "", path.read_text())))
        assert written
        assert {f"{place.rstrip('/')}/" for place in written} <= prefixes | kept, path


def test_the_tests_that_the_page_names_are_there():
    named = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 15
    for name, function in named:
        texts = [path.read_text() for path in (ROOT / "tests").rglob(name)]
        assert texts, name
        assert any(f"def {function or 'test_'}" in text for text in texts), (name, function)


JOBS = sorted(
    path
    for path in (ROOT / "job_configs").glob("*.yaml")
    if {"workerPoolSpecs", "studySpec", "inputConfig", "cron", "kind"} & set(yaml.safe_load(path.read_text()))
)


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_job_is_private(path):
    """Service account, network, no interactive access, no public address; CMEK is given by what submits it."""
    text = re.sub(r"(?m)#.*", "", path.read_text())
    content = yaml.safe_load(text)
    assert "enableWebAccess: true" not in text
    assert "enableDashboardAccess" not in text
    if content.get("kind") == "Job":
        pod = content["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert all(c["securityContext"]["allowPrivilegeEscalation"] is False for c in pod["containers"])
        assert not pod.get("hostNetwork")
        return
    assert re.search(r"serviceAccount: \$\{(TRAINING|SERVING|PIPELINE)_ACCOUNT\}", text)
    if "inputConfig" in content:
        return  # batch prediction's machines are Google's own, in no network of ours
    assert "network: ${NETWORK}" in text
    if "cron" not in content:
        assert "enableWebAccess: false" in text
    for container in re.findall(r"--runner=DataflowRunner.*?(?=resources:|$)", text, re.DOTALL):
        for flag in ("--no_use_public_ips", "--subnetwork=${SUBNETWORK}", "--dataflow_kms_key=${CMEK_KEY}"):
            assert flag in container


def test_all_jobs_are_looked_at():
    others = {"prices", "monitor", "double_run", "double_run_costs"}  # settings, not jobs
    assert {path.stem for path in JOBS} | others == {path.stem for path in (ROOT / "job_configs").glob("*.yaml")}
