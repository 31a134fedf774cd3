"""A candidate takes the incumbent's place on a double run's go, of these two models, and on nothing else."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy import double_run, promote
from preprocessing.cli import UserError
from preprocessing.manifest import write_manifest
from tests.deploy.double_journeys import journey_id, write_journeys
from tests.job import command

COUNT = 1200
THRESHOLDS = "outcomes: {min_conversions: 50}\nquality: {roc_auc: {margin: 0.01}}\n"


def converted(i):
    return i * 7919 % 10 < 3


def good(i):
    return (0.6 if converted(i) else 0.2) + (i * 31 % 100) / 400


def poor(i):
    return 0.3 + (i * 17 % 100) / 1000


def model(path, version):
    """The files of a model that promotion looks at; it loads none."""
    path.mkdir(parents=True)
    (path / "parcours.json").write_text(json.dumps({"model_version": version}))
    (path / "saved_model.pb").write_bytes(version.encode())
    write_manifest(path)
    (path / "whole.json").write_text("{}")
    return path


def scores(path, version, score):
    ids = [journey_id(i) for i in range(COUNT)]
    values = [score(i) for i in range(COUNT)]
    pq.write_table(pa.table({"journey_id": ids, "p_30d": values, "model_version": [version] * COUNT}), path)
    return path


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Double runs: `go` lets v2 replace v1, `no-go` would let v1 replace v2."""
    place = tmp_path_factory.mktemp("compared")
    write_journeys(place / "journeys.parquet", COUNT, converted=converted)
    (place / "thresholds.yaml").write_text(THRESHOLDS)
    v1, v2 = scores(place / "v1.parquet", "v1", poor), scores(place / "v2.parquet", "v2", good)
    for name, incumbent, candidate in (("go", v1, v2), ("no-go", v2, v1)):
        flags = {
            "incumbent": incumbent, "candidate": candidate, "journeys": place / "journeys.parquet",
            "output": place / name, "thresholds": place / "thresholds.yaml", "horizon": 30, "gap_days": 0,
            "bootstrap": 50, "latency_requests": 0,
        }  # fmt: skip
        double_run.main([part for flag, value in flags.items() for part in (f"--{flag}", str(value))])
        assert json.loads((place / name / "verdict.json").read_text())["verdict"] == name
    return place


def promoted(candidate, to, *flags):
    promote.main(["--candidate", str(candidate), "--to", str(to), *map(str, flags)])


def test_a_go_puts_the_candidate_in_the_incumbents_place(compared, tmp_path, capsys):
    to = tmp_path / "current"
    promoted(model(tmp_path / "v1", "v1"), to, "--first")
    promoted(model(tmp_path / "v2", "v2"), to, "--double_run", compared / "go")
    assert sorted(p.name for p in to.iterdir()) == [
        "manifest.json",
        "parcours.json",
        "promotion.json",
        "saved_model.pb",
        "whole.json",
    ]
    assert (to / "saved_model.pb").read_bytes() == b"v2"
    told = json.loads((to / "promotion.json").read_text())
    assert (told["model_version"], told["replaced"], told["verdict"]["verdict"]) == ("v2", "v1", "go")
    assert "promoted: model v2" in capsys.readouterr().out
    promoted(tmp_path / "v2", to, "--double_run", compared / "go")  # a repeated step of a schedule
    assert "stands there already" in capsys.readouterr().out
    assert json.loads((to / "promotion.json").read_text()) == told


@pytest.mark.parametrize(
    ("pair", "flags", "message"),
    [
        (("v1", "v2"), ("--double_run", "no-go"), "the verdict is no-go: quality.roc_auc"),
        (("v3", "v1"), ("--double_run", "go"), "its candidate was model v2, not v3"),
        (("v2", "v0"), ("--double_run", "go"), "its incumbent was model v1, not v0"),
        (("v2", None), ("--double_run", "go"), "its incumbent was model v1, not none"),
        (("v2", "v1"), ("--double_run", "nowhere"), "cannot read the double run's answer"),
        (("v2", "v1"), ("--first",), "--first: model v1 stands in"),
        (("v2", "v1"), (), "--double_run: expected the output of deploy.double_run"),
    ],
)
def test_nothing_else_does(compared, tmp_path, pair, flags, message):
    candidate, incumbent = pair
    to = tmp_path / "current"
    if incumbent:
        model(to, incumbent)
    before = {p: p.read_bytes() for p in to.rglob("*")}
    where = [compared / flag if flag in ("go", "no-go", "nowhere") else flag for flag in flags]
    with pytest.raises(UserError, match=message):
        promoted(model(tmp_path / candidate, candidate), to, *where)
    assert {p: p.read_bytes() for p in to.rglob("*")} == before


def test_a_wait_and_a_damaged_verdict_are_no_go_either(compared, tmp_path):
    for name, content, message in (
        ("wait", {"verdict": "wait", "rule": "outcomes", "why": "too few"}, "the verdict is wait: outcomes: too few"),
        ("none", {}, "the verdict is None"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "verdict.json").write_text(json.dumps(content))
        (tmp_path / name / "comparison.json").write_bytes((compared / "go/comparison.json").read_bytes())
        with pytest.raises(UserError, match=message):
            promoted(model(tmp_path / f"v2-{name}", "v2"), tmp_path / "to", "--double_run", tmp_path / name)
    (tmp_path / "none/verdict.json").write_text("{")
    with pytest.raises(UserError, match="damaged: not JSON"):
        promoted(tmp_path / "v2-none", tmp_path / "to", "--double_run", tmp_path / "none")
    assert not (tmp_path / "to").exists()


def test_the_command_tells_it_in_one_line(compared, tmp_path):
    said = command(
        "deploy.promote", "--candidate", model(tmp_path / "v1", "v1"), "--to", tmp_path / "to",
        "--double_run", compared / "no-go", code=2,
    )  # fmt: skip
    assert said.startswith("error: ")
    assert "nothing is promoted" in said
