"""Directories that change places as a whole: on success, on an error, after a kill, beside another run."""

import os
from pathlib import Path

import pytest

from deploy.outputs import replaced
from preprocessing.cli import UserError


def write(output, text):
    with replaced(str(output)) as place:
        (place / "report.html").write_text(text)


def test_the_new_takes_the_place_of_the_old_whole(tmp_path):
    output = tmp_path / "deep/compared"
    write(output, "one")
    (output / "more.txt").touch()
    write(output, "two")
    assert (output / "report.html").read_text() == "two"
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "whole.json"]
    assert [path.name for path in output.parent.iterdir() if not path.name.startswith(".lock")] == ["compared"]


def test_an_error_leaves_the_old(tmp_path):
    write(tmp_path / "compared", "one")
    with pytest.raises(ValueError, match="no"), replaced(str(tmp_path / "compared")) as place:
        (place / "report.html").write_text("two")
        raise ValueError("no")
    assert (tmp_path / "compared/report.html").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".lock")] == ["compared"]


@pytest.mark.parametrize("at", [1, 2])
def test_a_run_killed_as_they_change_places_is_finished_by_the_next(tmp_path, at):
    """The kill comes before the first or the second rename; what else lies there is nobody's to tidy up."""
    (tmp_path / "other.partial").mkdir()
    output = tmp_path / "compared"
    write(output, "one")
    if not (child := os.fork()):
        rename, count = Path.rename, 0

        def killed(self, target):
            nonlocal count
            count += 1
            if count == at:
                os._exit(9)
            return rename(self, target)

        Path.rename = killed
        write(output, "two")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with pytest.raises(ValueError, match="stop"), replaced(str(output)):
        assert (output / "report.html").read_text() == "two"
        raise ValueError("stop")
    assert (tmp_path / "other.partial").is_dir()
    assert not (tmp_path / "compared.old").exists()


def test_two_at_once(tmp_path):
    with (
        replaced(str(tmp_path / "compared")),
        pytest.raises(UserError, match=r"compared: in use by another run; wait for it, or give this one a place of"),
    ):
        write(tmp_path / "compared", "two")
    write(tmp_path / "beside", "three")
