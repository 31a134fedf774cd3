"""Files for batch prediction, each through what reads it: TensorFlow Serving's rules, and our server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot

from deploy import batch_input
from deploy.requests import Limits
from preprocessing.cli import UserError
from preprocessing.padded import padded
from tests.deploy import tf_serving
from tests.deploy.servers import serving, until
from tests.job import ROOT

FIRST = 70  # journeys; of different lengths, more than one request


@pytest.fixture(scope="module")
def model(job):
    from deploy.scorer import Scorer

    return Scorer(job["run_dir"] / "model")


@pytest.fixture(scope="module")
def signatures(model):
    return model._signatures


@pytest.fixture(scope="module")
def journeys(job):
    parts = sorted((job["run_dir"] / "journeys").glob("part-*.parquet"))
    table = pa.concat_tables(pq.read_table(part) for part in parts).slice(0, FIRST)
    return pa.RecordBatch.from_struct_array(table.to_struct_array().combine_chunks())


@pytest.fixture(scope="module")
def wanted(model, journeys):
    """{key: probabilities}, by the signature itself."""
    assert len(set(journeys.column("event_time").value_lengths().to_pylist())) > 5
    scores = model.score(padded(journeys, model.about))
    return dict(zip(journeys.column("journey_id").to_pylist(), scores, strict=True))


@pytest.fixture(scope="module")
def client(model):
    from deploy.app import create_app
    from deploy.service import Service

    app = create_app(Service(model.about, lambda: model, Limits()))
    with serving(app) as address, httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        until(lambda: client.get("/health").status_code == 200, 120)
        yield client


def command_line(**flags):
    return [str(word) for name, value in flags.items() for word in (f"--{name}", value)]


def written(job, tmp_path, form, **flags):
    output = tmp_path / form
    given = {"model": job["run_dir"] / "model", "journeys": job["run_dir"] / "journeys", "limit": FIRST}
    batch_input.main(command_line(**given, format=form, output=output, **flags))
    return output.read_text().splitlines()


def agree(predictions, wanted):
    """predictions: {key, probabilities} in any order, probabilities as a list or by horizon."""
    found = {
        one["key"]: list(one["probabilities"].values())
        if isinstance(one["probabilities"], dict)
        else one["probabilities"]
        for one in predictions
    }
    assert found.keys() == wanted.keys()
    for key, probabilities in wanted.items():
        np.testing.assert_allclose(found[key], probabilities, rtol=0, atol=1e-6)


def by_service(lines, size):
    """What Vertex AI's batch prediction sends: lines as they are, so many a request."""
    for first in range(0, len(lines), size):
        yield '{"instances": [' + ", ".join(lines[first : first + size]) + "]}"


def test_tensorflow_serving_rows(job, tmp_path, signatures, wanted):
    bodies = written(job, tmp_path, "tf_serving", request_size=32)
    assert len(bodies) == 3
    agree([one for body in bodies for one in tf_serving.predict(signatures, body)["predictions"]], wanted)
    widths = [{len(row["event_time"]) for row in json.loads(body)["instances"]} for body in bodies]
    assert all(len(width) == 1 for width in widths)


def test_tensorflow_serving_examples(job, tmp_path, signatures, wanted):
    bodies = written(job, tmp_path, "tf_serving_examples")
    assert len(bodies) == 2
    agree([one for body in bodies for one in tf_serving.predict(signatures, body)["predictions"]], wanted)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_padded_rows_however_the_service_cuts_them(job, tmp_path, signatures, wanted, size):
    lines = written(job, tmp_path, "padded_jsonl")
    assert len(lines) == FIRST
    predictions = [
        one for body in by_service(lines, size) for one in tf_serving.predict(signatures, body)["predictions"]
    ]
    agree(predictions, wanted)


def test_natural_lines_to_our_container(job, tmp_path, client, wanted):
    lines = written(job, tmp_path, "jsonl")
    assert len(lines) == FIRST
    assert "NaN" not in "".join(lines)
    predictions = []
    for body in by_service(lines, 64):
        answer = client.post("/predict", content=body)
        assert answer.status_code == 200, answer.text
        predictions += answer.json()["predictions"]
    agree(predictions, wanted)


def test_rows_of_the_bigquery_view_to_our_container(job, tmp_path, client, wanted):
    output = tmp_path / "view.sql"
    given = {"model": job["run_dir"] / "model", "journeys": "project.dataset.journeys"}
    batch_input.main(command_line(**given, format="bigquery", output=output))
    query = output.read_text()
    sqlglot.parse_one(query, read="bigquery")
    (local,) = sqlglot.transpile(
        query.replace("`project.dataset.journeys`", "journeys"), read="bigquery", write="duckdb"
    )
    parts = str(job["run_dir"] / "journeys/part-*.parquet")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE VIEW journeys AS SELECT * FROM read_parquet('{parts}')")
        rows = [row for row in connection.sql(local).to_arrow_table().to_pylist() if row["key"] in wanted]
    lines = [json.dumps(row, allow_nan=False) for row in rows]
    answer = client.post("/predict", content=next(by_service(lines, FIRST)))
    assert answer.status_code == 200, answer.text
    agree(answer.json()["predictions"], wanted)
    assert any(event["amount"] is None for row in rows for event in row["events"])


def test_the_emulated_rules_refuse_what_tensorflow_serving_refuses(signatures):
    names = signatures["serving_default"].structured_input_signature[1]
    row = {
        name: (0 if spec.dtype.is_integer else 0.5 if spec.dtype.is_floating else "x") for name, spec in names.items()
    }
    for name, spec in names.items():
        if len(spec.shape) == 2:
            row[name] = [row[name]] * 2
    row["length"] = 2

    def ask(*rows):
        return tf_serving.predict(signatures, json.dumps({"instances": rows}))

    assert len(ask(row, row)["predictions"]) == 2
    lacking = {name: value for name, value in row.items() if name != "age"}
    for wrong, said in [
        (lacking, "keys must be equal"),
        (row | {"more": 1}, "keys must be equal"),
        (row | {"age": None}, "NoneType is not of expected type float32"),
        (row | {"age": 2**24}, "without loss"),
        (row | {"as_of": 1.0}, "float is not of expected type int64"),
        (row | {"segment": 3}, "int is not of expected type string"),
        (row | {"amount": [1.0]}, "expecting shape"),
    ]:
        with pytest.raises(ValueError, match=said):
            ask(row, wrong)


def test_padding_by_hand():
    arrays = {
        "key": np.array([b"a", b"b"], object),
        "as_of": np.array([5, 6]),
        "length": np.array([1, 0]),
        "event_time": np.array([[3], [0]]),
        "kind": np.array([[b"\xc3\xa9"], [b""]], object),
        "amount": np.array([[np.nan], [0]], np.float32),
        "age": np.array([0.5, np.nan], np.float32),
    }
    first, second = batch_input.rows(arrays, width=3)
    assert json.dumps(first, ensure_ascii=False) == (
        '{"key": "a", "as_of": 5, "length": 1, "event_time": [3, 0, 0], "kind": ["é", "", ""], '
        '"amount": [NaN, 0.0, 0.0], "age": 0.5}'
    )
    assert second["event_time"] == [0, 0, 0] and second["length"] == 0
    assert [len(row["amount"]) for row in batch_input.rows(arrays)] == [1, 1]
    with pytest.raises(UserError, match="a journey has 1 events; the model's max_events is 0"):
        batch_input.rows(arrays, width=0)


def test_mistakes(job, tmp_path):
    given = {"model": job["run_dir"] / "model", "output": tmp_path / "out"}
    for more, said in [
        (
            {"journeys": tmp_path, "format": "jsonl"},
            r"--journeys .*: no part-\*.parquet here; expected RUN_DIR/journeys",
        ),
        ({"journeys": "table", "format": "bigquery"}, "expected project.dataset.table"),
        ({"journeys": "a.b.`c", "format": "bigquery"}, "expected project.dataset.table"),
        ({"journeys": tmp_path, "format": "jsonl", "limit": 0}, "--limit: expected 1 or more, got 0"),
        ({"journeys": tmp_path, "format": "jsonl", "output": tmp_path}, "expected a file, found a directory"),
    ]:
        with pytest.raises(UserError, match=said):
            batch_input.main(command_line(**given | more))
    assert not list(tmp_path.iterdir())


DOCS = ROOT / "docs/serving.md"


def blocks(mark):
    """The fenced blocks of docs/serving.md that follow a comment <!-- mark -->."""
    return re.findall(rf"<!-- {mark} -->\n```\w*\n(.*?)```", DOCS.read_text(), re.DOTALL)


def test_the_requests_in_the_docs(client, signatures):
    predictions = []
    for body in blocks("predict"):
        answer = client.post("/predict", content=body)
        assert answer.status_code == 200, answer.text
        predictions += answer.json()["predictions"]
    for body in blocks("tf_serving"):
        predictions += tf_serving.predict(signatures, body)["predictions"]
    assert len(blocks("predict")) >= 2 and len(blocks("tf_serving")) >= 2
    # one journey in every form: one probability
    scores = [list(one["probabilities"].values()) if isinstance(one["probabilities"], dict) else one["probabilities"]
              for one in predictions if one["key"] == "3f2a"]  # fmt: skip
    assert len(scores) >= 4
    np.testing.assert_allclose(scores, [scores[0]] * len(scores), rtol=0, atol=1e-6)


def test_the_wrong_request_in_the_docs(client):
    (body,), (said,) = blocks("refused"), blocks("refusal")
    answer = client.post("/predict", content=body)
    assert (answer.status_code, answer.json()) == (400, json.loads(said))


def test_the_commands_in_the_docs(job, tmp_path):
    ran = 0
    for line in re.findall(r"^python -m deploy\.batch_input .*$", DOCS.read_text(), re.MULTILINE):
        local = line.replace("gs://BUCKET/runs/NAME/instances/", "").replace("gs://BUCKET/runs/NAME", "RUN_DIR")
        parts = local.replace("RUN_DIR", str(job["run_dir"])).split()
        output = parts.index("--output") + 1
        parts[output] = str(tmp_path / parts[output])
        batch_input.main([*parts[3:], "--limit", "20"])
        assert Path(parts[output]).stat().st_size > 100
        ran += 1
    assert ran >= 5
