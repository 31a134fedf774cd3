"""The SavedModel from the outside: a fresh process, TensorFlow alone, the run directory gone."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from preprocessing.spec import load_spec, parse_spec
from trainer.calibration import Calibration
from trainer.export import _metadata, export, model_version, publish
from trainer.model import JourneyModel, Scorer
from trainer.schema import RecordSchema
from trainer.settings import Settings

DAY = 86_400_000_000
SEQUENCE = ("event_type", "channel", "amount")
SMALL = Settings(lstm_units=4, dense_units=4, members=1)
SCORE = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
request = dict(np.load(sys.argv[2], allow_pickle=True))
signature = model.signatures[sys.argv[3]]
_, inputs = signature.structured_input_signature
answer = signature(**{name: tf.constant(request[name], spec.dtype) for name, spec in inputs.items()})
answer = {name: value.numpy() for name, value in answer.items()}
np.savez(sys.argv[4], **{name: value.astype("S") if value.dtype == object else value for name, value in answer.items()})
loaded = sorted({name.split(".")[0] for name in sys.modules})
print([n for n in loaded if n in "tf_keras tensorflow_transform tfx_bsl apache_beam trainer preprocessing".split()])
"""


def journeys(trained) -> list[dict]:
    """The test journeys as a caller would send them, in the order of predictions.parquet; times in microseconds."""
    parts = [pq.read_table(path) for path in sorted(trained.journeys.glob("*.parquet"))]
    table = pa.concat_tables(parts)
    table = table.set_column(
        table.schema.get_field_index("event_time"),
        "event_time",
        table["event_time"].cast(pa.list_(pa.int64())),
    ).set_column(table.schema.get_field_index("as_of"), "as_of", table["as_of"].cast(pa.int64()))
    by_id = {row["journey_id"]: row for row in table.to_pylist()}
    return [by_id[name] for name in pq.read_table(trained.predictions)["journey_id"].to_pylist()]


def disturbed(journey: dict, rng: np.random.Generator) -> dict:
    """The same journey as far as it may be seen: events out of order, some at or after as_of, some too old to count."""
    strange = [("purchase", "web", 1e6), ("cart", "app", np.nan), ("view", "never seen", -1.0)]
    times = [journey["as_of"], journey["as_of"] + int(rng.integers(1, 9 * DAY)), journey["as_of"] - 90 * DAY - 1]
    events = list(zip(*(journey[name] for name in ("event_time", *SEQUENCE)), strict=True))
    if len(events) == 12:  # one more than max_events, and inside the lookback
        events.append((max(min(journey["event_time"]) - 1, journey["as_of"] - 90 * DAY), "purchase", "web", 1e6))
    events += [(time, *event) for time, event in zip(times, strange, strict=True)]
    # events at one and the same instant keep their order; here no two are
    events = [events[i] for i in rng.permutation(len(events))]
    columns = dict(zip(("event_time", *SEQUENCE), map(list, zip(*events, strict=True)), strict=True))
    return journey | columns


def unseen_for_rare(journey: dict) -> dict:
    """A value that training never saw is what a rare one is: out of vocabulary."""
    return journey | {"event_type": ["unheard of" if v == "__rare__" else v for v in journey["event_type"]]}


def padded(rows: list[dict]) -> dict[str, np.ndarray]:
    length = np.array([len(row["event_time"]) for row in rows])
    steps = int(length.max(initial=0))

    def rectangle(name, filler):
        return np.array([list(row[name]) + [filler] * (steps - len(row[name])) for row in rows], object)

    return {
        # what stands in the padding must not matter
        "event_time": rectangle("event_time", 1).astype(np.int64),
        "event_type": rectangle("event_type", "purchase"),
        "channel": rectangle("channel", "web"),
        "amount": rectangle("amount", 5.0).astype(np.float32),
        "segment": np.array([row["segment"] for row in rows], object),
        "age": np.array([row["age"] for row in rows], np.float32),
        "as_of": np.array([row["as_of"] for row in rows]),
        "key": np.array([row["customer_key"] for row in rows], object),
        "length": length,
    }


def serialized(rows: list[dict], leave_out: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    def feature(value):
        values = value if isinstance(value, list) else [value]
        if values and isinstance(values[0], str):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[v.encode() for v in values]))
        if values and isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    names = {"event_time", *SEQUENCE, "segment", "age", "as_of"} - set(leave_out)
    examples = []
    for row in rows:
        # an empty list is simply left out, as writers of tf.train.Example do
        content = {name: feature(row[name]) for name in names if row[name] != []} | {
            "key": feature(row["customer_key"])
        }
        examples.append(tf.train.Example(features=tf.train.Features(feature=content)).SerializeToString())
    return {"examples": np.array(examples, object)}


def score(model: Path, request: dict[str, np.ndarray], signature: str, tmp_path: Path) -> dict[str, np.ndarray]:
    """Answers of a fresh process that stands elsewhere and can't import Parcours."""
    np.savez(tmp_path / "request.npz", **request)
    arguments = [str(model), str(tmp_path / "request.npz"), signature, str(tmp_path / "answer.npz")]
    # importing tf.Transform, as this process may have done, sets TF_USE_LEGACY_KERAS for its children
    clean = {name: value for name, value in os.environ.items() if name not in ("TF_USE_LEGACY_KERAS", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, "-c", SCORE, *arguments], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]", done.stdout  # neither tf.Transform, Beam nor Parcours was loaded
    return dict(np.load(tmp_path / "answer.npz"))


def trained_probabilities(trained) -> np.ndarray:
    table = pq.read_table(trained.predictions)
    return np.stack([table[f"p_{h}d"].to_numpy() for h in (7, 14, 30)], axis=1)


@pytest.fixture(scope="module")
def rows(trained):
    rows = journeys(trained)
    lengths = [len(row["event_time"]) for row in rows]
    assert min(lengths) == 0
    assert max(lengths) == 12  # as many as max_events: `disturbed` puts older ones before them
    assert any("__rare__" in row["event_type"] for row in rows)
    assert any(np.isnan(row["age"]) for row in rows)
    assert (
        np.ptp(trained_probabilities(trained), axis=0).min() > 0.05
    )  # it learnt something, so equality says something
    return rows


def test_padded_answers_what_training_computed(trained, rows, tmp_path):
    rng = np.random.default_rng(0)
    sent = [unseen_for_rare(disturbed(row, rng)) for row in rows]
    assert any("unheard of" in row["event_type"] for row in sent)
    answer = score(trained.model, padded(sent), "serving_default", tmp_path)
    np.testing.assert_allclose(answer["probabilities"], trained_probabilities(trained), rtol=0, atol=1e-6)
    assert answer["key"].tolist() == [row["customer_key"].encode() for row in rows]
    assert answer["probabilities"].dtype == np.float32
    assert (np.diff(answer["probabilities"], axis=1) >= 0).all()


def test_examples_answer_what_training_computed(trained, rows, tmp_path):
    rng = np.random.default_rng(1)
    sent = [disturbed(row, rng) if i % 2 else row for i, row in enumerate(rows)]
    answer = score(trained.model, serialized(sent), "examples", tmp_path)
    np.testing.assert_allclose(answer["probabilities"], trained_probabilities(trained), rtol=0, atol=1e-6)
    assert answer["key"].tolist() == [row["customer_key"].encode() for row in rows]


@pytest.mark.parametrize("wrong", ["event_type", "channel", "amount", "event_time", "segment", "age"])
def test_a_wrong_feature_is_found_out(trained, rows, wrong):
    """The comparison above can fail: each field, sent wrong, moves the answers by far more than it allows."""
    request = padded(rows)
    changed = {
        "event_time": request["event_time"] - 3_600_000_000,
        "amount": request["amount"] * 2,
        "age": request["age"] + 9,
    }
    words = {"event_type": "view", "channel": "app", "segment": "b"}
    request[wrong] = changed[wrong] if wrong in changed else np.full_like(request[wrong], words[wrong])
    answer = _answer(trained.model, request, "serving_default")
    assert np.abs(answer["probabilities"] - trained_probabilities(trained)).max() > 1e-4


def _answer(model, request, signature):
    function = tf.saved_model.load(str(model)).signatures[signature]
    _, inputs = function.structured_input_signature
    answer = function(**{name: tf.constant(request[name], spec.dtype) for name, spec in inputs.items()})
    return {name: value.numpy() for name, value in answer.items()}


def test_no_steps_no_rows_and_missing_fields(trained, rows):
    empty = next(row for row in rows if not row["event_time"])
    one = [row for row in rows if row["event_time"]][:1]
    no_steps = _answer(trained.model, padded([empty] * 2), "serving_default")["probabilities"]
    beside_others = _answer(trained.model, padded([empty, *one]), "serving_default")["probabilities"]
    np.testing.assert_allclose(no_steps[0], beside_others[0], atol=1e-6)
    nobody = {name: value[:0] for name, value in padded(one).items()}
    assert _answer(trained.model, nobody, "serving_default")["probabilities"].shape == (0, 3)
    assert _answer(trained.model, {"examples": np.array([], object)}, "examples")["probabilities"].shape == (0, 3)

    left_out = serialized(one, leave_out=("amount", "segment", "age"))
    written_out = [one[0] | {"amount": [np.nan] * len(one[0]["amount"]), "segment": "", "age": np.nan}]
    np.testing.assert_allclose(
        _answer(trained.model, left_out, "examples")["probabilities"],
        _answer(trained.model, padded(written_out), "serving_default")["probabilities"],
        atol=1e-6,
    )


def test_lengths_that_do_not_fit_are_refused(trained, rows):
    one = [row for row in rows if len(row["event_time"]) > 1][:1]
    request = padded(one)
    with pytest.raises(tf.errors.InvalidArgumentError, match="length: expected no more than the steps"):
        _answer(trained.model, request | {"length": request["length"] + 1}, "serving_default")
    short = [one[0] | {"channel": one[0]["channel"][1:]}]
    with pytest.raises(tf.errors.InvalidArgumentError, match="channel: expected as many values as event_time"):
        _answer(trained.model, serialized(short), "examples")


def test_metadata_says_what_a_server_needs(trained):
    found = json.loads((trained.model / "parcours.json").read_text())
    assert found["horizons_days"] == [7, 14, 30]
    assert found["primary_horizon"] == 30
    assert found["gap_days"] == 0
    assert found["max_events"] == 12
    assert found["lookback_days"] == 90
    assert found["first_events"] is None
    assert found["conversion"] == "event_type = 'purchase'"
    assert found["sequence"] == {"event_type": "categorical", "channel": "categorical", "amount": "numeric"}
    assert found["customer"] == {"segment": "categorical", "age": "numeric"}
    assert found["settings"]["lstm_units"] == 16
    known = found["vocabulary"]["channel"]
    assert found["campaigns"] == {"column": "channel", "assigned": False, "known": known, "randomised": []}
    assert set(found["vocabulary"]["channel"]) == {"web", "app", "store"}
    assert "" not in found["vocabulary"]["segment"]
    assert set(pq.read_table(trained.predictions)["model_version"].to_pylist()) == {found["model_version"]}
    assert (trained.model / "spec.yaml").is_file()


def test_metadata_of_ready_made_journeys(tmp_path):
    words = {"sequence": {"page": {"vocabulary": ["home", "__none__"]}}, "customer": {}}
    (tmp_path / "features.json").write_text(json.dumps(words))
    spec = parse_spec(
        "journeys: {journey: s, label: bought}\nevents: {journey: s, seconds: t, first: 5}\n"
        "sequence: {categorical: [page], max_events: 9}"
    )
    found = _metadata(spec, Settings(), "v", tmp_path)
    assert (found["journeys"], found["conversion"], found["horizons_days"]) == ("ready-made", "bought", [1])
    assert (found["first_events"], found["max_events"], found["lookback_days"]) == (5, 9, None)
    assert (found["vocabulary"], found["campaigns"]) == ({"page": ["home"]}, None)


def test_published_copy_is_whole(trained, tmp_path):
    place = tmp_path / "vertex/model"
    publish(trained.model, str(place))
    publish(trained.model, str(place))  # and once more, over what lies there
    names = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    there = {path.relative_to(trained.model).as_posix() for path in trained.model.rglob("*") if path.is_file()}
    assert names == there - {"whole.json"}  # the run directory's mark, of no meaning elsewhere
    tf.saved_model.load(str(place))


def test_the_version_says_what_is_computed(tmp_path):
    """Another mean, another word or another window is another version; another path to a vocabulary is not."""
    import keras

    def transform(name: str, mean: float, words: str) -> Path:
        vocabulary = tmp_path / name / "words"
        vocabulary.parent.mkdir()
        vocabulary.write_text(words)

        class Graph(tf.Module):
            def __init__(self):
                super().__init__()
                whole, number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
                lines = tf.lookup.TextFileInitializer(str(vocabulary), tf.string, whole, tf.int64, number)
                self.table = tf.lookup.StaticHashTable(lines, -1)

            @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
            def __call__(self, x):
                return x - tf.constant(mean)

        tf.saved_model.save(Graph(), str(tmp_path / name / "transform/transform_fn"))
        return tmp_path / name / "transform"

    ready = "journeys: {journey: s, label: y}\nevents: {journey: s, seconds: t}\nsequence: {categorical: [page]}\n"
    dated = (
        "events: {customer: c, time: t}\nsequence: {categorical: [page]}\ndata_until: 2026-03-01\n"
        "conversion: {where: \"page = 'x'\", horizons_days: [7], primary_horizon: 7}\n"
        "snapshots: {dates: [2026-01-01, 2026-02-01], lookback_days: 9}\n"
        "split: {eval_customers: 0.1, test_from: 2026-02-01}\n"
    )
    spec, another = parse_spec(ready), parse_spec(dated)
    model = Scorer(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]), 1.0)
    one = model_version(model, transform("one", 1.5, "a\nb\n"), spec)
    assert re.fullmatch("[0-9a-f]{12}", one)
    assert model_version(model, transform("same", 1.5, "a\nb\n"), spec) == one
    assert model_version(model, transform("mean", 2.5, "a\nb\n"), spec) != one
    assert model_version(model, transform("word", 1.5, "a\nc\n"), spec) != one
    assert model_version(model, tmp_path / "one/transform", another) != one
    assert model_version(dataclasses.replace(model, negative_rate=0.1), tmp_path / "one/transform", spec) != one
    calibrated = dataclasses.replace(model, calibration=Calibration((1.1,), (0.0,), (0.0,)))
    assert model_version(calibrated, tmp_path / "one/transform", spec) != one
    model.model.layers[0].kernel.assign_add([[1.0]])
    assert model_version(model, tmp_path / "one/transform", spec) != one


def _until(row: dict, time: int) -> dict:
    """The journey as it stood a microsecond after the event of this time."""
    kept = [i for i, event_time in enumerate(row["event_time"]) if event_time <= time]
    return row | {name: [row[name][i] for i in kept] for name in ("event_time", *SEQUENCE)} | {"as_of": time + 1}


def test_evolution_scores_every_prefix_as_if_the_rest_had_not_happened(trained, rows):
    rng = np.random.default_rng(2)
    chosen = [*[row for row in rows if len(row["event_time"]) == 12][:2], next(r for r in rows if not r["event_time"])]
    chosen += [row for row in rows if 2 < len(row["event_time"]) < 9][:3]
    sent = [disturbed(row, rng) for row in chosen]  # with events too old for as_of, which early prefixes do see
    answer = _answer(trained.model, padded(sent), "evolution")
    assert answer["running_length"].tolist() == [len(row["event_time"]) for row in chosen]
    assert answer["running"].shape == (6, 12, 3)
    for i, row in enumerate(chosen):
        count = len(row["event_time"])
        assert not answer["running"][i, count:].any()
        assert answer["running_time"][i, :count].tolist() == [time + 1 for time in sorted(row["event_time"])]
        if count:
            prefixes = [_until(sent[i], time) for time in sorted(row["event_time"])]
            alone = _answer(trained.model, padded(prefixes), "serving_default")["probabilities"]
            np.testing.assert_allclose(answer["running"][i, :count], alone, atol=1e-6)


def test_the_curve_passes_through_the_horizons_and_never_falls(trained, rows):
    request = padded(rows[:50])
    answer = _answer(trained.model, request, "evolution")
    assert answer["days"][0].tolist() == list(range(31))
    at_horizons = answer["curve"][:, [7, 14, 30]]
    np.testing.assert_allclose(
        at_horizons, _answer(trained.model, request, "serving_default")["probabilities"], atol=1e-6
    )
    assert not answer["curve"][:, 0].any()
    assert (np.diff(answer["curve"], axis=1) >= 0).all()
    # a constant hazard inside each interval: survival to day 22 is the geometric mean of those to days 14 and 30
    survival = 1 - answer["curve"].astype(float)
    np.testing.assert_allclose(survival[:, 22], np.sqrt(survival[:, 14] * survival[:, 30]), rtol=1e-5)


def test_influence_is_the_difference_to_the_edited_journey(trained, rows):
    rng = np.random.default_rng(3)
    sent = [disturbed(row, rng) for row in rows[:60]]
    touched = [i for i, row in enumerate(rows[:60]) if "app" in row["channel"]]
    assert 10 < len(touched) < 60
    answer = _answer(trained.model, padded(sent) | {"asked_campaign": np.array(["app"] * 60, object)}, "influence")

    def without(row: dict) -> dict:
        kept = [i for i, channel in enumerate(row["channel"]) if channel != "app"]
        return row | {name: [row[name][i] for i in kept] for name in ("event_time", *SEQUENCE)}

    as_it_is = _answer(trained.model, padded(sent), "serving_default")["probabilities"]
    edited = _answer(trained.model, padded([without(row) for row in sent]), "serving_default")["probabilities"]
    np.testing.assert_allclose(answer["with_campaign"][touched], as_it_is[touched], atol=1e-6)
    np.testing.assert_allclose(answer["without_campaign"][touched], edited[touched], atol=1e-6)
    np.testing.assert_allclose(answer["difference"][touched], (as_it_is - edited)[touched], atol=1e-6)
    assert np.abs(answer["difference"][touched]).max() > 1e-3
    assert all(answer["claim"][i] == b"association" for i in touched)
    assert all(answer["reason"][i] == b"" for i in touched)


def test_influence_claims_nothing_where_nothing_can_be_told(trained, rows):
    untouched = next(row for row in rows if row["event_time"] and "app" not in row["channel"])
    later = untouched | {"channel": ["app", *untouched["channel"][1:]]}
    later["event_time"] = [later["as_of"] + 1, *later["event_time"][1:]]  # touched only after as_of
    request = padded([untouched, later, untouched]) | {"asked_campaign": np.array(["app", "app", "fax"], object)}
    answer = _answer(trained.model, request, "influence")
    assert np.isnan(answer["difference"]).all()
    assert np.isnan(answer["with_campaign"]).all()
    assert set(answer["claim"]) == {b""}
    assert [reason.decode() for reason in answer["reason"]] == [
        "the journey holds no event of this campaign before as_of",
        "the journey holds no event of this campaign before as_of",
        "training saw no campaign of this name",
    ]


def test_no_file_of_the_model_tells_where_it_was_made(trained, prepared):
    """The transform graph still does: TensorFlow names its tables by the path of the file that filled them."""
    graph = (prepared.transform / "transform_fn/saved_model.pb").read_bytes()
    places = [str(prepared.path).encode(), tempfile.gettempdir().encode() + b"/", b"tftransform_tmp", b".partial"]
    assert b"tftransform_tmp" in graph and str(prepared.path).encode() in graph
    for path in trained.model.rglob("*"):
        if path.is_file():
            assert not [place for place in places if place in path.read_bytes()], path


def plain_graph(model: Path) -> str:
    """The graph's functions in an order of their own, without the numbers that TensorFlow counts up in a process."""
    from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

    def told(node: Any) -> str:
        value = b"".join(node.attr["value"].tensor.string_val) if node.op == "Const" else b""
        if b"VARIABLE_VALUE" not in value:
            return str(node)
        return str(trackable_object_graph_pb2.TrackableObjectGraph.FromString(value))  # its numbers are of any length

    graph = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    parts = [told(node) for node in graph.node] + [str(function) for function in graph.library.function]
    return "\n".join(sorted(re.sub(r'_\d+|(?<=s: ")\d+(?=")', "N", part) for part in parts))


def tables_of(model: Path) -> set[bytes]:
    found = (model / "saved_model.pb").read_bytes()
    return set(re.findall(rb"vocabulary_\d+_[0-9a-f]{16}", found))


def test_two_exports_from_two_places_are_one_graph(prepared, tmp_path):
    """Of one run, made in two places by what its graph says; tables of another vocabulary have other names."""
    spec = load_spec(prepared.transform / "spec.yaml")
    scorer = Scorer(JourneyModel(RecordSchema.load(prepared.transform), SMALL, np.zeros(3, np.float32)), 1.0)
    path = str(prepared.path).encode()
    for name in ("here", "there", "other"):
        transform = tmp_path / name / "transform"
        shutil.copytree(prepared.transform, transform)
        if name == "there":  # a path as long, so that the file is still a SavedModel
            graph = transform / "transform_fn/saved_model.pb"
            content = graph.read_bytes()
            assert content.count(path) > 0
            graph.write_bytes(content.replace(path, b"/" + b"x" * (len(path) - 1)))
        if name == "other":
            with next((transform / "transform_fn/assets").iterdir()).open("a") as file:
                file.write("one more\n")
        (tmp_path / name / "model").mkdir()
        export(scorer, transform, spec, SMALL, tmp_path / name / "model")
    here, there, other = (tmp_path / name / "model" for name in ("here", "there", "other"))
    assert plain_graph(here) == plain_graph(there)
    assert len(tables_of(here)) == 3
    assert tables_of(here) == tables_of(there)
    assert not tables_of(here) & tables_of(other)  # both may be loaded in one process
