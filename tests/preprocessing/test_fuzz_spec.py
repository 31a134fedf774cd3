"""Specs that are wrong in any place and any way: a spec, or clear lines, and never for long."""

import copy
import datetime as dt
import random
from itertools import pairwise

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.cli import UserError
from preprocessing.spec import parse_spec
from tests.fuzzing import in_time, tried
from tests.job import ROOT
from tests.preprocessing.random_case import random_case

WHOLE = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "job_configs/journeys").glob("*.yaml"))]
WHOLE += [yaml.safe_load(random_case(seed).text) for seed in range(30)]
ODD = st.sampled_from(
    [
        *(
            0,
            -1,
            1,
            2**31,
            2**63,
            10**30,
            0.0,
            -0.5,
            1.0,
            1e300,
            float("nan"),
            float("inf"),
            True,
            False,
            None,
            "",
            " ",
        ),
        *([], {}, [[]], [None], "\x00", "a`b", "'", '"', "; DROP TABLE events", "events", "0001-01-01", "9999-12-31"),
        *(
            dt.date(1, 1, 1),
            dt.date(9999, 12, 31),
            dt.datetime(9999, 12, 31, 23, 59, 59),
            "SELECT",
            "SELECT 1",
            "1 = 1",
        ),
        *(
            "context.x = 1",
            "(" * 50,
            "NOT " * 200 + "TRUE",
            "a" * 10_000,
            "\ud7ff",
            "\U0001d518",
            "é",
            "$",
            "a\nb",
            "{{ 1 }}",
        ),
    ]
)
ANY = st.recursive(
    ODD | st.text(max_size=8) | st.integers() | st.floats() | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places(node, path=()):
    """Where something stands in a spec: keys and indices from its top."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def damaged(content, draw, values):
    """The spec with some of what stands in it replaced, taken out, or set beside."""
    content = copy.deepcopy(content)
    for value in values:
        *path, last = draw.choice(list(places(content)) or [("events",)])
        node = content
        for key in path:
            node = node[key]
        how = draw.random()
        if how < 0.7:
            node[last] = copy.deepcopy(value)
        elif how < 0.85:
            del node[last]
        elif isinstance(node, dict):
            node[str(value)[:20]] = copy.deepcopy(value)
    return content


@tried(quick=60, soak=5_000)
@given(st.sampled_from(WHOLE), st.randoms(use_true_random=False), st.lists(ANY, min_size=1, max_size=3))
def test_a_spec_with_anything_anywhere_is_a_spec_or_clear_lines(content, draw, values):
    text = yaml.safe_dump(damaged(content, draw, values), allow_unicode=True, sort_keys=False)
    with in_time():
        try:
            spec = parse_spec(text, "s")
        except UserError as error:
            assert all(line.startswith("s:") for line in str(error).splitlines()), str(error)
        else:
            assert spec.horizons_days and spec.kinds and spec.splits  # what all later steps ask first


@pytest.mark.parametrize(
    "text",
    [
        "events: &a [*a]",
        "events: &a {b: *a}",
        "a: &a [1]\n" + "\n".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 8)}]" for a, b in pairwise("abcdefghij")),
    ],
)  # fmt: skip
def test_aliases_that_never_end_or_almost(text):
    with in_time(10), pytest.raises(UserError, match=r"s: not YAML that is read here: its aliases come to more than"):
        parse_spec(text, "s")


def test_the_damage_is_done():
    draw = random.Random(0)
    assert sum(damaged(WHOLE[0], draw, [None]) != WHOLE[0] for _ in range(50)) > 40
