"""What docs/confidentiality.md says of periods is what terraform and the code set; every job is private."""

import datetime as dt
import re

import pytest
import yaml

from deploy.environment import load_environment
from preprocessing.bigquery_session import TABLE_LIFE
from tests.job import ROOT

TERRAFORM = ROOT / "deploy/terraform"
STORAGE = (TERRAFORM / "storage.tf").read_text()
PAGE = (ROOT / "docs/confidentiality.md").read_text()
SCHEDULES = "".join(path.read_text() for path in sorted((ROOT / "job_configs").glob("schedule_*.yaml")))


def resource(kind, name):
    return re.search(rf'resource "{kind}" "{name}" \{{(.*?)\n\}}', STORAGE, re.DOTALL)[1]


def number(pattern, text):
    (found,) = re.findall(pattern, text)
    return int(found)


def rules():
    """(what a lifecycle rule counts from, its prefixes, its days as they are written) of the bucket."""
    for rule in re.findall(r"lifecycle_rule \{(.*?)\n  \}", resource("google_storage_bucket", "runs"), re.DOTALL):
        ((counted, days),) = re.findall(r"(age|days_since_noncurrent_time)\s+= (\S+)", rule)
        yield "multipart" if "Multipart" in rule else counted, re.findall(r'"([a-z_./]+)"', rule), days


def lasting(name):
    """Days that a replaced version of the object of that name lasts."""
    return min(
        int(days)
        for counted, prefixes, days in rules()
        if counted == "days_since_noncurrent_time" and (not prefixes or name.startswith(tuple(prefixes)))
    )


def expiring():
    """The prefixes under which objects expire by their age."""
    return {prefix for counted, prefixes, _ in rules() if counted == "age" for prefix in prefixes}


def periods_set():
    """Days by place, as they are set."""
    found = {}
    for counted, prefixes, days in rules():
        words = {"age": [], "multipart": ["multipart"], "days_since_noncurrent_time": ["noncurrent"]}[counted]
        place = " ".join([*words, *([", ".join(prefixes)] if prefixes else [])])
        if days == "var.keep_runs_days":
            for name in ("production", "integration"):
                found[f"{place} {name}"] = number(
                    r"keep_runs_days\s+= (\d+)", (TERRAFORM / f"{name}.tfvars").read_text()
                )
        else:
            found[place] = int(days)
    runs = resource("google_storage_bucket", "runs")
    found["soft delete"] = number(r"retention_duration_seconds = (\d+)", runs) / 86_400
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
        prefixes = ", ".join(re.findall(r"`([a-z_.]+/[a-z_./]*)`", place))
        dataset = re.search(r"dataset `(\w+)`", place)
        words = [w for w in ("noncurrent", "multipart", "soft delete", "own expiry") if w in place]
        environment = [name for name in ("production", "integration") if name in place]
        key = dataset[1] if dataset else " ".join([*words, *([prefixes] if prefixes else []), *environment])
        assert key not in found
        found[key] = int(days)
    return found


def test_every_period_that_is_told_is_set_and_every_one_set_is_told():
    assert periods_told() == periods_set()
    assert len(periods_told()) == 12


def test_scores_and_pairs_lie_where_they_expire():
    """Where the schedules write is under a prefix with a period."""
    kept = {"models/", "specs/", "packages/", "events/"}  # models/current, and what is the owner's
    for path in sorted((ROOT / "job_configs").glob("schedule_*.yaml")):
        written = set(re.findall(r"gs://\$\{BUCKET\}/([a-z_]+/?)", re.sub(r"(?m)^#.*", "", path.read_text())))
        assert written
        assert {f"{place.rstrip('/')}/" for place in written} <= expiring() | kept, path


def in_between():
    """Where Dataflow's jobs write what is nobody's result, in the bucket: deploy.on_dataflow's and the schedules'."""
    from deploy import predict
    from deploy.on_dataflow import dataflow_flags
    from preprocessing import task
    from preprocessing.dataflow import DATAFLOW, worker_flags
    from tests.deploy.test_schedules import spec_of

    environment = load_environment("integration")
    given = {"deploy.on_dataflow": dataflow_flags(environment, [])}
    for name, step, module in (("scoring", "score", predict), ("retraining", "prepare", task)):
        executors = spec_of(ROOT / f"job_configs/schedule_{name}.yaml")["deploymentSpec"]["executors"]
        args, beam = module._parser().parse_known_args(executors[step]["container"]["args"])
        place = predict._workplace(args.output, beam) if module is predict else args.run_dir
        given[name] = worker_flags(DATAFLOW, beam, step, place)
    found = {}
    for name, flags in given.items():
        places = [flag.partition("=")[2] for flag in flags if re.match(r"--(temp|staging)_location=", flag)]
        assert len(places) == 2, name
        assert all(place.startswith(f"gs://{environment.bucket}/") for place in places)
        found[name] = {place.removeprefix(f"gs://{environment.bucket}/") + "/" for place in places}
    return found


def test_what_dataflow_writes_in_between_lies_where_it_expires():
    """A killed job leaves journeys there: in a week they are gone, or, in a run directory, with its own."""
    (prefixes,) = [prefixes for counted, prefixes, days in rules() if (counted, days) == ("age", "7")]
    found = in_between()
    short = found["deploy.on_dataflow"] | found["scoring"]
    assert all(place.startswith(tuple(prefixes)) for place in short), short
    assert all(any(place.startswith(prefix) for place in short) for prefix in prefixes), prefixes
    assert found["retraining"] == {"runs/candidate/.dataflow/temp/", "runs/candidate/.dataflow/staging/"}


def test_what_may_hold_journeys_is_gone_a_week_after_it_was_replaced():
    assert "enabled = true" in re.search(r"versioning \{(.*?)\}", STORAGE, re.DOTALL)[1]
    for prefix in (*expiring(), "events/", "specs/", "packages/"):
        assert lasting(f"{prefix}x") == 7, prefix


def test_a_model_can_be_replaced_and_had_back_for_a_year():
    """Not by a retention_policy: deploy.promote deletes and overwrites; tests/cloud/test_promotion.py says what."""
    assert "retention_policy" not in STORAGE
    (current,) = set(re.findall(r"gs://\$\{BUCKET\}/(models/\w+)", SCHEDULES))
    assert lasting(f"{current}/saved_model.pb") == 365
    assert not current.startswith(tuple(expiring()))


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
