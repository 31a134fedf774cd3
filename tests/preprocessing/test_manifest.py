"""A model whose files are not those of its export is told from one that is whole, and loaded nowhere."""

import hashlib
import json
import shutil

import pytest

from deploy.scorer import Scorer, read_metadata
from preprocessing.cli import UserError
from preprocessing.manifest import check_manifest, main, write_manifest
from tests.job import command
from trainer.export import publish


@pytest.fixture
def model(job, tmp_path):
    return shutil.copytree(job["run_dir"] / "model", tmp_path / "model")


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files_of(model):
    return sorted(p.relative_to(model).as_posix() for p in model.rglob("*") if p.is_file())


def test_the_manifest_names_every_file_with_its_sha256_and_size(model):
    manifest = json.loads((model / "manifest.json").read_text())
    assert sorted([*manifest["files"], "manifest.json", "whole.json"]) == files_of(model)
    assert "variables/variables.data-00000-of-00001" in manifest["files"]
    for name, told in manifest["files"].items():
        content = (model / name).read_bytes()
        assert told == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    own = hashlib.sha256((model / "manifest.json").read_bytes()).hexdigest()
    assert check_manifest(model, "here") == own


def test_each_file_altered_or_gone_is_told_by_its_name(model):
    names = json.loads((model / "manifest.json").read_text())["files"]
    for name in names:
        before = (model / name).read_bytes()
        alter(model / name)
        with pytest.raises(UserError, match=f"^here: {name}: altered since the export; the model is not loaded"):
            check_manifest(model, "here")
        (model / name).unlink()
        with pytest.raises(UserError, match=f"^here: {name}: missing; "):
            check_manifest(model, "here")
        (model / name).write_bytes(before)
    check_manifest(model, "here")


def test_what_was_added_is_told_links_to_directories_too(model, tmp_path):
    (model / "assets/more.txt").write_text("x")
    with pytest.raises(UserError, match=r"here: assets/more.txt: not among the exported files; "):
        check_manifest(model, "here")
    (model / "assets/more.txt").unlink()
    (model / "assets.extra").symlink_to(tmp_path)
    (model / "zzz").mkdir()
    (model / "zzz/b").touch()
    with pytest.raises(UserError, match=r"here: assets.extra: not among the exported files \(and 1 more\); "):
        check_manifest(model, "here")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2, "files": {}}', '{"format": 1, "files": 3}'])
def test_a_damaged_manifest_is_told(model, content):
    (model / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json: damaged, or of another version"):
        read_metadata(model)


def test_no_manifest_is_no_model_until_someone_vouches_for_it(model, capsys):
    written = (model / "manifest.json").read_bytes()
    (model / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"no manifest.json here.* python -m preprocessing.manifest --model DIR"):
        Scorer(model)
    main(["--model", str(model)])
    assert (model / "manifest.json").read_bytes() == written
    assert hashlib.sha256(written).hexdigest() in capsys.readouterr().out
    with pytest.raises(UserError, match=r"has a manifest\.json already"):
        main(["--model", str(model)])
    with pytest.raises(UserError, match="no exported model here"):
        main(["--model", str(model / "assets")])


def test_one_byte_stops_every_command_that_loads_a_model(job, model, tmp_path):
    alter(model / "variables/variables.data-00000-of-00001")
    told = "variables/variables.data-00000-of-00001: altered since the export"
    flags = dict(zip(job["flags"][::2], job["flags"][1::2], strict=True)) | {"--model": model}
    scores, other = ("--as_of", "2026-06-08", "--output", tmp_path / "scores.parquet"), job["base"] / "scores.parquet"
    output = ("--output", tmp_path / "out")
    for module, *given in (
        ("deploy.predict", *(part for pair in flags.items() for part in pair), *scores),
        ("deploy.serve", "--model", model, "--port", 0),
        ("deploy.double_run", "--incumbent", other, "--candidate", model, "--journeys", job["run_dir"], *output),
        ("deploy.monitor", "--model", model, "--journeys", job["run_dir"] / "journeys", *output),
        ("deploy.promote", "--candidate", model, "--first", "--to", tmp_path / "current"),
    ):
        said = command(module, *given, code=2)
        assert [told in line for line in said.splitlines() if line.startswith("error: ")] == [True], said
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_server_takes_no_other_export_than_the_one_named(model):
    other = "0" * 64
    with pytest.raises(UserError, match=f"expected {other}: another export"):
        read_metadata(model, manifest=other)
    assert read_metadata(model, manifest=check_manifest(model, "here"))
    said = command("deploy.serve", "--model", model, "--port", 0, "--manifest_sha256", other, code=2)
    assert "another export" in said


def test_what_is_published_over_an_earlier_model_is_whole(model, tmp_path):
    place = tmp_path / "published"
    publish(model, str(place))
    (model / "assets/of_a_field").write_text("x")
    write_manifest(model)
    publish(model, str(place))
    check_manifest(place, "there")
    (model / "assets/of_a_field").unlink()
    write_manifest(model)
    publish(model, str(place))
    check_manifest(place, "there")
