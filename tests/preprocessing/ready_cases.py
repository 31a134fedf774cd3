"""Random small tables of ready-made journeys and their events."""

from __future__ import annotations

import math
import random

import pyarrow as pa
import yaml

from preprocessing.spec import parse_spec
from tests.preprocessing.cases import FIELD_TYPES, ORDER, Case, event_fields, maybe, sequence


def ready_case(draw: random.Random) -> Case:
    ids = ["s1", "s2", "s3", "s4", "s5", "s6"]
    as_text = draw.random() < 0.3
    seconds = [0.0, 0.5, 10.0, 10.0000005, 86400.0, 1e12, math.nan, 3.25]
    texts = ["0", "0.5", " 10", "1e3", "later", "", "inf", "3.25"]
    events = [
        {
            "session": maybe(draw, draw.choice([*ids, "s9"]), 0.04),
            "clock": maybe(draw, draw.choice(texts if as_text else seconds), 0.04),
            ORDER: maybe(draw, draw.randrange(3)),
            **event_fields(draw),
        }
        for _ in range(draw.randrange(3, 30))
    ]
    events += [dict(draw.choice(events)) for _ in range(draw.randrange(4))]
    label = draw.choice([pa.bool_(), pa.int8()])
    others = [
        {
            "session": session,
            "bought": draw.random() < 0.5 if label == pa.bool_() else draw.randrange(2),
            "whole": maybe(draw, draw.random() < 0.8),
            "part": maybe(draw, draw.choice(["train", "val", "test", "train", "other"])),
            "device": maybe(draw, draw.choice(["app", "web", ""])),
            "size": maybe(draw, draw.choice([1.0, math.nan, 2.5])),
        }
        for session in ids[: draw.randrange(1, 7)]
    ]
    holds = {}
    split = draw.choice([{"column": "part", "eval": "val"}, {"eval": 0.3, "test": 0.3, "salt": "s"}])
    content: dict = {
        "journeys": {
            "table": "others",
            "journey": "session",
            "label": "bought",
            "split": split,
            "categorical": ["device"],
            "numeric": ["size"],
        },
        "events": {"journey": "session", "seconds": "clock", "duplicates": draw.choice(["drop", "keep"])},
        "sequence": sequence(draw),
        "privacy": {"min_customers": draw.choice([1, 2])},
        "sampling": {"negative_rate": draw.choice([1.0, 0.5])},
    }
    if draw.random() < 0.5:
        content["journeys"]["where"] = "whole"
        holds["journeys.where"] = lambda row: row["whole"]
    if draw.random() < 0.5:
        content["events"]["order"] = ORDER
    if draw.random() < 0.6:
        content["events"]["first"] = draw.choice([1, 2, 4])
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    return Case(
        spec=parse_spec(text),
        text=text,
        events=events,
        others=others,
        holds=holds,
        predicate_columns={"events": [], "subjects": []},
        event_types={"session": pa.string(), "clock": pa.string() if as_text else pa.float64(), ORDER: pa.int32()}
        | FIELD_TYPES,
        other_types={
            "session": pa.string(),
            "bought": label,
            "whole": pa.bool_(),
            "part": pa.string(),
            "device": pa.string(),
            "size": pa.float64(),
        },
        predict=draw.random() < 0.15,
    )
