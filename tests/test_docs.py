"""The documents against the repository: each command's flags are read by the command's own parser, each make target and
path exists, each message that is quoted stands in the code."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import inspect
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from preprocessing.beam_options import beam_options
from preprocessing.cli import UserError
from tests.documents import MARKDOWN, ROOT, Command, commands, make_targets, paths
from tests.messages import said, texts

# Commands whose parser leaves what it does not know to another one.
PASSES_TO_BEAM = {"preprocessing.task", "deploy.predict", "deploy.score_journeys"}


class _Reached(Exception):
    """Raised in place of parsing, with the parser."""


@functools.cache
def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser that `python -m module` makes. Raises ImportError where there is no such module."""
    main = importlib.import_module(module).main

    def stop(self: argparse.ArgumentParser, *_: object) -> None:
        raise _Reached(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        try:
            main(*[[]] * bool(inspect.signature(main).parameters))
        except _Reached as reached:
            return reached.args[0]
    raise AssertionError(f"{module}: main() parses no flags")


def _known(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _known(sub)


def wrong(command: Command) -> str:
    """What the command's own parser says against it; "" where it takes it."""
    try:
        parser = parser_of(command.module)
    except ImportError as error:
        return str(error)
    said = io.StringIO()
    if command.whole:
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                args, more = parser.parse_known_args(command.flags)
        except SystemExit as end:
            return said.getvalue().strip().splitlines()[-1] if end.code else ""
    else:
        known = {*_known(parser)}
        args = argparse.Namespace()
        flags = [flag for flag in command.flags if flag.startswith("--") and flag.strip("-…")]
        more = [flag for flag in flags if flag.partition("=")[0].rstrip("…") not in known]
    return wrong_rest(command, args, more)


def wrong_rest(command: Command, args: argparse.Namespace, more: list[str]) -> str:
    """The same of what the parser itself does not know."""
    if not more:
        return ""
    if command.module == "deploy.on_dataflow":
        step = getattr(args, "step", next((flag for flag in command.flags if "." in flag), "preprocessing.task"))
        return wrong(Command(command.page, step, tuple(more), command.whole))
    if command.module == "trainer.tune":
        return wrong(Command(command.page, "trainer.task", ("--run_dir=DIR", *more), command.whole))
    if command.module in PASSES_TO_BEAM:
        return _wrong_for_beam(
            more if command.whole else [f"{flag.partition('=')[0]}=x" for flag in more], command.module
        )
    return f"{more[0]}: no flag of it"


def _wrong_for_beam(flags: list[str], module: str) -> str:
    try:
        beam_options(flags, module)
    except UserError as error:
        return str(error)
    except SystemExit:
        return f"{' '.join(flags)}: not as Apache Beam expects it"
    return ""


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_documents_is_one_that_its_parser_takes(page):
    faults = [f"{one}: {why}" for one in commands(page.name, page.read_text()) if (why := wrong(one))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_and_path_of_the_documents_exists(page):
    text = page.read_text()
    known = {*re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)}
    assert not make_targets(text) - known
    assert not {path for path in paths(text) if not any(ROOT.glob(path))}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```\npython -m trainer.task --run_dir D --epoch 3\n```", "--epoch"),
        ("```\npython -m trainer.task --epochs 3\n```", "--run_dir"),
        ("```\npython -m trainer.task --run_dir D --epochs many\n```", "--epochs"),
        ("```\npython -m trainer.tasks --run_dir D\n```", "trainer.tasks"),
        ("```\npython -m preprocessing.task --spec S --events E --run_dir D \\\n  --runer X\n```", "--runer"),
        ("```\npython -m deploy.endpoint deploi --env integration\n```", "deploi"),
        ("```\npython -m trainer.tune --config C --run_dir D --epochz 3   # and more\n```", "--epochz"),
        ("```\npython -m deploy.on_dataflow --env E preprocessing.task --specs S\n```", "--spec"),
        ("as `python -m trainer.influence --plan …` says", "--plan"),
        ("`python -m deploy.predict --cmpaigns all` too", "--cmpaigns"),
    ],
)
def test_a_wrong_command_is_seen(text, told):
    (command,) = commands("page.md", text)
    assert told in wrong(command)


def test_wrong_targets_and_paths_are_seen():
    assert make_targets("run `make runs`, or\n```\nmake test-slow  # make more\n```") == {"runs", "test-slow"}
    assert paths("see `trainer/models.py` and\n```\npython x --job job_configs/gpu_jobs.yaml\n```") == {
        "trainer/models.py",
        "job_configs/gpu_jobs.yaml",
    }


def test_the_documents_are_many_enough_for_this_to_mean_something():
    found = [one for page in MARKDOWN for one in commands(page.name, page.read_text())]
    assert len(found) > 60
    assert sum(one.whole for one in found) > 25
    assert all(isinstance(page, Path) for page in MARKDOWN)


def test_every_message_that_troubleshooting_quotes_stands_in_the_code():
    code = texts("preprocessing", "trainer", "deploy")
    quoted = re.findall(r"^\| `(.+?)` \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) > 40
    assert not [message for message in quoted if not said(message, code)]


def test_a_message_that_the_code_does_not_say_is_seen():
    code = texts("preprocessing")
    assert said("…: no such file or directory; expected the events table", code)
    assert not said("…: no such file or folder; expected the events table", code)
    assert not said("…: expected the events table; no such file", code)
    assert not said("…", code)


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/index.md").read_text()
    pages = {page.stem for page in ROOT.glob("docs/*.md")} - {"index"}
    assert not {page for page in pages if not re.search(rf"^{page}$", index, re.MULTILINE)}
