"""One look for every page: a template that is shown extends base.html.j2, and styles stand in sheets alone."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEMPLATES = sorted(ROOT.glob("*/templates/*.html.j2"))
BASE = ROOT / "preprocessing/templates/base.html.j2"
LOOK = BASE.with_name("look.css")


def faults(text: str) -> list[str]:
    """What a page's template says for itself that is look.css's or base.html.j2's to say."""
    found = re.findall(r"<style|\sstyle=|<head|<body|<h1|<!DOCTYPE", text)
    return found if text.startswith('{% extends "base.html.j2" %}\n') else [*found, "no base"]


@pytest.mark.parametrize("path", [path for path in TEMPLATES if path != BASE], ids=lambda path: path.name)
def test_every_page_has_the_one_look(path):
    assert not faults(path.read_text())


def test_the_pages_are_all_of_them_and_a_look_of_ones_own_is_seen():
    names = {path.name for path in TEMPLATES}
    assert {"report.html.j2", "influence.html.j2", "explore.html.j2", "double_run.html.j2", "monitor.html.j2"} < names
    assert faults("<!DOCTYPE html><style>p {}</style>") == ["<!DOCTYPE", "<style", "no base"]
    assert faults('{% extends "base.html.j2" %}\n<p style="color: red">') == [" style="]


def test_a_sheet_of_a_page_repeats_nothing_of_the_look():
    def rules(path: Path) -> set[tuple[str, str]]:
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        return {
            (" ".join(chosen.split()), line.strip())
            for chosen, body in re.findall(r"([^{}]+)\{([^{}]*)\}", text)
            for line in body.split(";")
            if line.strip()
        }

    assert len(rules(LOOK)) > 150
    assert not rules(ROOT / "deploy/templates/page.css") & rules(LOOK)


@pytest.mark.parametrize("colour", ["ink", "soft", "blue"])
def test_text_is_told_from_its_ground(colour):
    """WCAG 2.1, 1.4.3: 4.5 to 1 for text, on white and on the pale ground of tiles."""

    def light(code: str) -> float:
        parts = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    named = dict(re.findall(r"--(\w+): (#\w{6})", LOOK.read_text()))
    for ground in ("#ffffff", named["pale"]):
        assert (light(ground) + 0.05) / (light(named[colour]) + 0.05) > 4.5
