"""What holds of the package as a whole: quick --help, import arrows, an sdist that runs, a lock file without hosts."""

import ast
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHIPPED = (".py", ".sql", ".j2", ".css", ".js")
PACKAGES = ("preprocessing", "trainer", "deploy")
ENTRY_POINTS = (
    "preprocessing.simulate",
    "preprocessing.task",
    "preprocessing.keys",
    "preprocessing.loading",
    "preprocessing.init",
    "preprocessing.explore",
    "trainer.task",
    "trainer.tune",
    "trainer.summary",
    "trainer.influence",
    "preprocessing.manifest",
    "deploy.predict",
    "deploy.serve",
    "deploy.double_run",
    "deploy.monitor",
    "deploy.batch_input",
    "deploy.promote",
    "deploy.forget",
    "deploy.on_dataflow",
    "deploy.score_journeys",
    "deploy.schedule",
    "deploy.cost",
    "deploy.submit",
    "deploy.upload",
    "deploy.endpoint",
    "deploy.locks",
)
HEAVY = (
    "tensorflow",
    "keras",
    "apache_beam",
    "tensorflow_transform",
    "duckdb",
    "sqlglot",
    "optuna",
    "sklearn",
    "matplotlib",
    "fastapi",
    "pandas",
    "google.cloud.aiplatform_v1",
    "google.cloud.storage",
)

NEWER_THAN_3_10 = {
    "dt.UTC",
    "enum.StrEnum",
    "tomllib",
    "typing.Self",
    "hashlib.file_digest",
    "contextlib.chdir",
    "re.NOFLAG",
}


@pytest.mark.parametrize("module", ENTRY_POINTS)
def test_help_answers_before_anything_heavy_is_imported(module):
    code = (
        "import runpy, sys\nsys.argv = ['task', '--help']\n"
        f"try:\n    runpy.run_module({module!r}, run_name='__main__')\n"
        f"except SystemExit as end:\n    print('loaded', sorted(set({HEAVY!r}) & set(sys.modules)), end.code)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.startswith("usage: "), done.stdout
    assert done.stdout.splitlines()[-1] == "loaded [] 0"


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_trainer_needs_no_newer_python_than_ready_made_containers_have():
    """Vertex AI's have 3.10. Counted: what the trainer holds, and what it imports of preprocessing."""
    todo, seen = sorted((ROOT / "trainer").glob("*.py")), set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        tree = ast.parse(path.read_text(), feature_version=(3, 10))
        names = {
            f"{n.value.id}.{n.attr}"
            for n in ast.walk(tree)
            if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
        }
        names |= {name.replace("datetime", "dt") for name in imported(path)}
        assert not names & NEWER_THAN_3_10, (path, names & NEWER_THAN_3_10)
        todo += [
            p
            for name in imported(path)
            if (p := ROOT / f"{name.replace('.', '/')}.py").exists() and "bigquery" not in name
        ]
    assert ROOT / "preprocessing/blocks.py" in seen


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([script, "--no-cache"], capture_output=True, text=True, cwd=root, check=False)


@pytest.mark.parametrize(
    ("place", "line", "broken"),
    [
        ("trainer/card.py", "    from deploy import page", "deploy knows trainer"),
        ("trainer/card.py", "    from preprocessing import features", "between preprocessing and trainer stand files"),
        ("preprocessing/rundir.py", "    import duckdb", "a training needs neither Beam nor tf.Transform nor DuckDB"),
        ("deploy/app.py", "    from trainer import model", "deploy meets trainer in the SavedModel"),
        ("deploy/instances.py", "    import sqlglot", "the server needs neither Beam nor tf.Transform nor Keras"),
        ("preprocessing/columns.py", "    from preprocessing import script", "no import cycles"),
        ("preprocessing/storage.py", "    from preprocessing import blocks", "preprocessing: commands, then"),
    ],
)
def test_the_contracts_see_an_arrow_that_goes_the_wrong_way(tmp_path, place, line, broken):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / place).open("a") as file:
        file.write(f"\n\ndef planted():\n{line}\n")
    done = lint_imports(tmp_path)
    kept = re.sub(r"\s+", " ", done.stdout)
    assert done.returncode == 1, done.stdout
    assert re.search(re.escape(broken) + r"[^.]*? BROKEN", kept), done.stdout


def test_every_module_runs_from_the_sdist(tmp_path):
    """What Vertex AI does with a python package: install the sdist, run a module of it, far from the repository."""
    subprocess.run(
        [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (archive,) = tmp_path.glob("parcours-*.tar.gz")
    with tarfile.open(archive) as content:
        names = {name.split("/", 1)[1] for name in content.getnames() if "/" in name}
    for package in PACKAGES:
        shipped = {str(p.relative_to(ROOT)) for p in (ROOT / package).rglob("*") if p.suffix in SHIPPED}
        assert shipped <= names, shipped - names
    target = tmp_path / "installed"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "--target",
        target,
    ]
    subprocess.run([*install, archive], check=True, capture_output=True)
    for module in ENTRY_POINTS:
        code = f"import importlib.util as u; print(u.find_spec({module!r}).origin)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={"PYTHONPATH": str(target)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith(str(target)), done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "trainer.task", "--run_dir", tmp_path / "none"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no such run directory" in done.stderr


def test_the_version_stands_in_one_place():
    from importlib.metadata import version

    import trainer

    assert version("parcours") == trainer.__version__
    holders = [
        path.name
        for path in ROOT.glob("*")
        if path.is_file() and f'"{trainer.__version__}"' in path.read_text("utf-8", "ignore")
    ]
    assert holders == []


def test_the_lock_file_pins_with_hashes_and_names_no_host():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    blocks = re.split(r"\n(?=\S)", text.strip())
    pins = [block for block in blocks if not block.lstrip().startswith("#")]
    assert len(pins) > 100
    assert all(re.match(r"[\w.\[\],-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", block, re.DOTALL) for block in pins)
    locked = {re.match(r"[\w.-]+", pin)[0].lower().replace("_", "-") for pin in pins}
    wanted = {
        re.match(r'"([\w.-]+)', line.strip())[1].lower()
        for line in (ROOT / "setup.py").read_text().splitlines()
        if re.match(r'\s+"[\w.-]+(\[\w+\])?([<>=]=?[\d.<>=,]+)?",', line)
    }
    assert {"tensorflow", "ruff", "apache-beam"} <= wanted
    assert wanted <= locked, wanted - locked


@pytest.mark.parametrize("path", sorted((ROOT / "job_configs/journeys").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_journey_spec_is_valid(path):
    from preprocessing.spec import load_spec

    assert load_spec(path).horizons_days


def test_the_readmes_spec_is_one():
    from preprocessing.spec import parse_spec

    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert parse_spec(block, "README.md").primary_horizon == 30


def test_the_spec_reference_names_every_key():
    from preprocessing import blocks
    from preprocessing.spec import RESERVED, EventsSpec, JourneysSpec

    text = (ROOT / "docs/journey_spec.md").read_text()
    models = [EventsSpec, JourneysSpec, *(getattr(blocks, name) for name in vars(blocks) if name[0].isupper())]
    keys = {key for model in models if hasattr(model, "model_fields") for key in model.model_fields}
    assert len(keys) > 40
    assert not {key for key in keys if not re.search(rf"\b{key}\b", text)}
    assert not {name for name in RESERVED if f"`{name}`" not in text}
