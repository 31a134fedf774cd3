"""Models that an earlier version exported still load, and say what they said then."""

import json
import shutil
import tarfile

import numpy as np
import pytest

from deploy.scorer import Scorer, read_metadata
from preprocessing.cli import UserError
from tests.deploy.earlier_model import KEPT, answers

VERSIONS = sorted(path.name.removesuffix(".tar.xz") for path in KEPT.glob("*.tar.xz"))


@pytest.fixture(scope="module", params=VERSIONS)
def earlier(request, tmp_path_factory):
    """A kept model's directory, and what it answered when it was made."""
    model = tmp_path_factory.mktemp("earlier") / "model"
    archive = KEPT / f"{request.param}.tar.xz"
    assert archive.stat().st_size < 300_000
    with tarfile.open(archive) as content:
        content.extractall(model, filter="data")
    return model, json.loads((KEPT / f"{request.param}.json").read_text())


def test_a_model_of_an_earlier_version_answers_as_it_did(earlier):
    model, then = earlier
    now = answers(model, then["instances"])
    assert len(then["instances"]) == 8
    assert {len(one["events"]) for one in then["instances"]} >= {0, 12}
    spread = np.ptp(np.array(then["probabilities"])[:, -1])
    assert spread > 0.01  # journeys differ, so that one answer for all would be seen
    np.testing.assert_allclose(now["probabilities"], then["probabilities"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(now["with_campaign"], then["with_campaign"], rtol=0, atol=1e-6)


def test_it_says_which_version_it_is(earlier):
    about = read_metadata(earlier[0])
    assert about["package_version"] in VERSIONS
    assert len(about["horizons_days"]) == len(earlier[1]["probabilities"][0])


def test_an_altered_one_is_not_loaded(earlier, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(earlier[0], model)
    variables = next(model.glob("variables/variables.data*"))
    content = bytearray(variables.read_bytes())
    content[len(content) // 2] ^= 1
    variables.write_bytes(content)
    with pytest.raises(UserError, match="altered since the export"):
        Scorer(model)
