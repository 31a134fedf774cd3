"""Environments: integration is a clone of production, and mistakes are told with their line."""

import re

import pytest
import yaml

from deploy.environment import ENVIRONMENTS, load_environment
from preprocessing.cli import UserError
from trainer import __version__

SHIPPED = ENVIRONMENTS / "integration.yaml"


def test_integration_is_a_clone_of_production():
    """Put the name and the number of the one into the other, and the cost cap alone differs."""
    integration, production = ((ENVIRONMENTS / f"{name}.yaml").read_text() for name in ("integration", "production"))
    cloned = integration.replace("integration", "production").replace("100000000001", "100000000002")
    differing = [
        (ours, theirs)
        for ours, theirs in zip(cloned.splitlines(), production.splitlines(), strict=True)
        if ours != theirs and not ours.startswith("#")
    ]
    assert [re.sub(r"\d+", "N", ours) == re.sub(r"\d+", "N", theirs) for ours, theirs in differing] == [True]
    assert differing[0][0].startswith("cost_cap: ")
    assert list(yaml.safe_load(integration)) == list(yaml.safe_load(production))
    assert load_environment("production").cost_cap > load_environment("integration").cost_cap


def test_nothing_outside_the_environments_names_one():
    """Job files, schedules and images would otherwise differ between environments in more than values."""
    places = [*ENVIRONMENTS.parent.glob("*.yaml"), *ENVIRONMENTS.parent.parent.glob("deploy/*")]
    files = [path for path in places if path.is_file()]
    assert len(files) > 30
    named = re.compile(r"parcours-(integration|production)")
    assert not [path for path in files if named.search(path.read_text())]


@pytest.mark.parametrize("name", ["integration", "production"])
def test_every_environment_is_valid(name):
    environment = load_environment(name)
    assert environment.parent == f"projects/{environment.project}/locations/{environment.region}"
    assert environment.labels["environment"] == name
    assert environment.trainer_image.endswith(f":{__version__}")
    variables = environment.variables()
    assert variables["PROJECT"] == environment.project
    assert not {"LABELS", "COST_CAP"} & set(variables)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("region: us-central1", "region: Iowa", r"region: string should match pattern .*, got 'Iowa'"),
        ("bucket: ", "buckt: ", r"buckt: unknown key; did you mean 'bucket'\?"),
        ("cost_cap: 25", "cost_cap: 0", r"cost_cap: "),
        ("cost_cap: 25", "cost_cap: twenty", r"cost_cap: "),
        ("application: parcours,", "Application: Parcours,", r"labels"),
        ("training_account: parcours-training@", "training_account: me@", r"training_account: "),
        ("network: projects/100000000001", "network: projects/parcours", r"network: "),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, old, new, message):
    text = SHIPPED.read_text()
    assert old in text
    (tmp_path / "mine.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=rf"mine\.yaml:\d+: {message}"):
        load_environment(str(tmp_path / "mine.yaml"))


def test_an_unknown_environment_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"--env staging: no .*; expected one of integration, production, or the path"):
        load_environment("staging")
