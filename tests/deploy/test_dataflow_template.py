"""The flex template: parameters that are the step's flags, an image whose parts exist."""

import json
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from deploy import score_journeys
from tests.job import ROOT

PLACE = ROOT / "deploy/dataflow"
METADATA = json.loads((PLACE / "score_journeys.json").read_text())
OF_BEAM = {"sdk_container_image"}  # the others are the step's own
GIVEN = {
    "model": "gs://bucket/model",
    "journeys": "gs://bucket/runs/a/journeys",
    "output": "gs://bucket/scores",
    "sdk_container_image": "europe-west4-docker.pkg.dev/project/parcours/pipeline:1",
    "batch_size": "512",
}


def test_the_parameters_are_the_steps_flags():
    """runner and the rest of Beam's flags are the launcher's to give."""
    actions = {a.dest: a for a in score_journeys._parser()._actions if a.dest not in ("help", "runner")}
    parameters = {p["name"]: p for p in METADATA["parameters"]}
    assert parameters.keys() - OF_BEAM == actions.keys()
    for name, action in actions.items():
        assert parameters[name].get("isOptional", False) is not action.required


def test_every_parameter_is_explained_and_bounded_as_the_api_asks():
    assert set(METADATA) == {"name", "description", "parameters"}
    for parameter in METADATA["parameters"]:
        # google.dataflow.v1beta3.ParameterMetadata, in JSON
        assert set(parameter) <= {"name", "label", "helpText", "isOptional", "regexes", "paramType"}
        assert parameter["label"]
        assert parameter["helpText"].endswith(".")
        assert all(re.fullmatch(regex, GIVEN[parameter["name"]]) for regex in parameter["regexes"])
        assert not any(re.fullmatch(regex, "runs/here") for regex in parameter["regexes"])


def test_it_is_the_apis_own_type():
    from google.cloud import dataflow_v1beta3 as api
    from google.protobuf import json_format

    found = json_format.ParseDict(METADATA, api.TemplateMetadata.pb()())
    assert [p.name for p in found.parameters] == [p["name"] for p in METADATA["parameters"]]


def test_beam_knows_what_is_not_the_steps_own():
    from preprocessing.beam_options import beam_options

    beam_options([f"--{name}={GIVEN[name]}" for name in sorted(OF_BEAM)], "score_journeys")


def test_the_launcher_starts_the_step():
    done = subprocess.run(
        [sys.executable, PLACE / "launch.py", "--help"], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("usage: python -m deploy.score_journeys")


def test_the_image_copies_what_is_there_and_is_of_our_beam():
    lines = (PLACE / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    assert len(copied) > 3
    assert all((ROOT / name).exists() for names in copied for name in names), copied
    stages = {found[1] for line in lines if (found := re.match(r"FROM \S+ AS (\w+)", line))}
    assert set(re.findall(r"(?m)^COPY --from=(\w+) ", "\n".join(lines))) <= stages
    assert f"FROM apache/beam_python3.11_sdk:{version('apache-beam')} AS beam" in lines
    settings = "\n".join(lines)
    assert "FLEX_TEMPLATE_PYTHON_PY_FILE=/app/deploy/dataflow/launch.py" in settings
    assert "--require-hashes --no-deps -r pipeline.lock" in settings
    sent = (PLACE / "Dockerfile.dockerignore").read_text().splitlines()
    assert all(f"!{name.split('/')[0]}" in sent for names in copied for name in names)


@pytest.mark.parametrize("name", ["model", "journeys", "output"])
def test_what_is_missing_is_named(name, capsys):
    flags = [f"--{flag}={value}" for flag, value in GIVEN.items() if flag not in (name, *OF_BEAM)]
    with pytest.raises(SystemExit):
        score_journeys.main(flags)
    assert f"--{name}" in capsys.readouterr().err
