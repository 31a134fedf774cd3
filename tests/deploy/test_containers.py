"""The images, which no test can build: what they copy and run exists, and what they install is enough and no more."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from deploy import locks
from deploy.locks import STAGES, canonical, closure, subset
from preprocessing.cli import UserError
from trainer import __version__
from trainer.settings import parse

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = ROOT / "deploy/Dockerfile"
FORBIDDEN = {"apache-beam", "tensorflow-transform", "tfx-bsl", "tf-keras", "duckdb", "sqlglot", "lightgbm", "pytest"}


def stages() -> dict[str, list[dict[str, str]]]:
    """The Dockerfile's instructions by stage, {instruction, value}."""
    parser = DockerfileParser(fileobj=DOCKERFILE.open("rb"))
    found: dict[str, list[dict[str, str]]] = {"": []}
    name = ""
    for entry in parser.structure:
        if entry["instruction"] == "FROM":
            name = entry["value"].split(" AS ")[-1]
            found[name] = []
        found[name].append(entry)
    return found


def test_the_linter_has_nothing_to_say():
    hadolint = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert hadolint
    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_path_that_is_copied_exists_and_is_sent_to_the_builder():
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    names = stages()
    paths = 0
    for entries in names.values():
        for entry in entries:
            if entry["instruction"] != "COPY":
                continue
            *sources, _ = entry["value"].split()
            if sources[0].startswith("--from="):
                assert sources[0].removeprefix("--from=") in names
                continue
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source.split("/")[0] in sent, source
                paths += 1
    assert paths >= 7


def test_every_module_that_is_run_is_in_the_image():
    for stage, module in (("trainer", "trainer.task"), ("serving", "deploy.serve")):
        (entry,) = [e for e in stages()[stage] if e["instruction"] == "ENTRYPOINT"]
        assert json.loads(entry["value"]) == ["python", "-m", module]
        copied = [e["value"].split()[0] for s in ("base", stage) for e in stages()[s] if e["instruction"] == "COPY"]
        assert module.split(".")[0] in copied


def test_the_last_stages_are_not_root_and_build_nothing():
    for stage in ("trainer", "serving"):
        entries = stages()[stage]
        assert [e["value"] for e in entries if e["instruction"] == "USER"] == ["10001"]
        assert not [e for e in entries if e["instruction"] == "RUN"]
        assert entries[0]["value"] == "base AS " + stage
    (run,) = [e["value"] for e in stages()["base"] if e["instruction"] == "RUN"]
    assert "pip uninstall --yes" in run
    assert not re.search(r"apt-get|install\b", run.replace("uninstall", ""))


def test_base_images_are_arguments_and_no_registry_of_packages_is_named():
    text = DOCKERFILE.read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${PYTHON_IMAGE}"] * 3 + ["base"] * 2
    assert "://" not in text
    assert "index-url" not in text
    installs = re.findall(r"pip --python \S+ install.*", text)
    assert len(installs) == 2
    assert all("--require-hashes --no-deps" in line for line in installs)


@pytest.mark.parametrize("stage", STAGES)
def test_the_subset_is_what_the_lock_has_for_the_stage(stage):
    """`python -m deploy.locks` would write the same file: nothing is missing, nothing stale, and no Beam in it."""
    content = (ROOT / f"deploy/{stage}.lock").read_text()
    assert content == subset(stage, (ROOT / "requirements.lock").read_text())
    names = {canonical(name) for name in re.findall(r"^([\w.-]+)(?:\[.*\])?==", content, re.MULTILINE)}
    assert names == closure(STAGES[stage])
    assert not names & (FORBIDDEN if stage != "pipeline" else {"lightgbm", "pytest"})
    assert content.count("--hash=sha256:") > len(names)


def test_a_lock_that_lacks_something_is_told():
    lock = re.sub(r"(?m)^keras==.*\n(    .*\n)*", "", (ROOT / "requirements.lock").read_text())
    with pytest.raises(UserError, match="lacks keras, which the trainer image needs"):
        subset("trainer", lock)


@pytest.mark.parametrize("there", [(), ("requirements.lock",), ("deploy/",)])
def test_locks_are_written_in_the_checkouts_root_alone(tmp_path, monkeypatch, there):
    for name in there:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"requirements\.lock: not here, .*; run python -m deploy\.locks in the"):
        locks.main([])


def test_the_gpu_lock_is_nvidias_packages_for_this_tensorflow():
    entries = re.findall(r"^(\S+)==", (ROOT / "deploy/gpu.lock").read_text(), re.MULTILINE)
    wanted = {
        canonical(re.match(r"[\w.-]+", text)[0])
        for text in metadata.requires("tensorflow")
        if 'extra == "and-cuda"' in text or "extra == 'and-cuda'" in text
    }
    assert wanted
    assert wanted <= set(entries)
    assert all(name.startswith("nvidia-") for name in entries)


def installed(stage: str, place: Path) -> Path:
    """A site-packages that holds the stage's packages alone, as links to those of this environment."""
    made: set[Path] = set()
    for name in closure(STAGES[stage]):
        for file in metadata.files(name) or ():
            if file.parts[0] in ("..", "__pycache__") or file.suffix == ".pyc":
                continue
            target = place / file
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            target.symlink_to(file.locate().resolve())
    return place


def alone(place: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python with those packages and the repository, and with nothing else that is installed here."""
    variables = {"PATH": os.environ["PATH"], "HOME": str(place), "PYTHONPATH": f"{place}:{ROOT}"} | environment
    return subprocess.run(
        [sys.executable, "-S", *command], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )


def test_the_trainer_image_has_what_training_imports(tmp_path):
    place = installed("trainer", tmp_path)
    code = "\n".join(
        f"import trainer.{path.stem}" for path in sorted((ROOT / "trainer").glob("*.py")) if path.stem != "__init__"
    )
    done = alone(place, "-c", code + "\nimport tensorboard, sys; assert 'apache_beam' not in sys.modules; print('all')")
    assert done.stdout.strip() == "all", done.stderr[-2000:]
    assert alone(place, "-c", "import apache_beam").returncode != 0
    done = alone(place, "-m", "trainer.task", "--run_dir", str(tmp_path / "none"))
    assert "no such run directory" in done.stderr


def test_the_serving_image_answers(tmp_path, job):
    """All that the server imports, and the model loaded, with nothing but the image's packages."""
    place = installed("serving", tmp_path)
    code = (
        "import sys, json; from deploy.scorer import Scorer; from deploy.explanation import sample;"
        "from deploy.instances import from_instances; import deploy.serve, deploy.app, deploy.page, deploy.draining,"
        "deploy.service, deploy.telemetry, deploy.shadow, uvicorn, uvloop, httptools;"
        f"scorer = Scorer({str(job['run_dir'] / 'model')!r}); from_instances([sample(scorer.about)], scorer.about);"
        "assert 'apache_beam' not in sys.modules; print(len(scorer.about['horizons_days']))"
    )
    done = alone(place, "-c", code)
    assert done.stdout.strip() == "3", done.stderr[-2000:]
    help_text = alone(place, "-m", "deploy.serve", "--help")
    assert help_text.stdout.startswith("usage: python -m deploy.serve")


def test_the_images_versions_are_the_packages():
    for path in (DOCKERFILE, ROOT / "job_configs/kubernetes_job.yaml"):
        tags = re.findall(r"parcours/(?:trainer|serving):([\w.]+)", path.read_text())
        assert tags
        assert set(tags) == {__version__}


def test_the_kubernetes_job_is_the_apis_and_runs_what_the_trainer_knows():
    import kubernetes_validate

    job = yaml.safe_load((ROOT / "job_configs/kubernetes_job.yaml").read_text())
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "trainer.task"]
    assert str(parse(container["args"]).run_dir) == "/runs/demo"
    assert pod["securityContext"]["runAsUser"] == int(re.search(r"--uid (\d+)", DOCKERFILE.read_text())[1])
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    broken = json.loads(json.dumps(job))
    broken["spec"]["template"]["spec"]["containers"][0]["comand"] = ["python"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)
