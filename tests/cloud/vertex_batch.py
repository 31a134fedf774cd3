"""A batch prediction: instances from Cloud Storage through the model's container, predictions back."""

from __future__ import annotations

import fnmatch
import json
from typing import TYPE_CHECKING, Any

from google.cloud.aiplatform_v1 import types

from tests.cloud.service import ApiError
from tests.cloud.vertex_runs import Outcome
from tests.cloud.vertex_serving import Served

if TYPE_CHECKING:
    from tests.cloud.vertex import Vertex


def predict_files(vertex: Vertex, job: types.BatchPredictionJob) -> Outcome:
    """JSON lines in, a line an instance out: {"instance": …, "prediction": …}, or an error in errors-*.

    manualBatchTuningParameters.batchSize instances make a request, 64 where it is not set.
    """
    if job.input_config.instances_format != "jsonl" or job.output_config.predictions_format != "jsonl":
        return Outcome(12, "the local server knows jsonl alone")
    found = [uri for pattern in job.input_config.gcs_source.uris for uri in _matching(vertex, pattern)]
    if not found:
        return Outcome(5, f"No file matches {', '.join(job.input_config.gcs_source.uris)}")
    instances = [json.loads(line) for uri in found for line in vertex.read_object(uri).splitlines() if line.strip()]
    model = vertex.model(job.model)
    try:
        job_id = job.name.rpartition("/")[2]
        served = Served(model, vertex.house.environment, lambda line: vertex.write_log(job_id, "serving", line))
    except ApiError as error:
        return Outcome(3, error.message)
    good, bad = [], []
    size = job.manual_batch_tuning_parameters.batch_size or 64
    try:
        for start in range(0, len(instances), size):
            batch = instances[start : start + size]
            try:
                answers = served.ask({"instances": batch})["predictions"]
                pairs = zip(batch, answers, strict=True)
                good += [{"instance": instance, "prediction": answer} for instance, answer in pairs]
            except ApiError as error:
                bad += [{"instance": instance, "error": {"code": 3, "message": error.message}} for instance in batch]
    finally:
        served.end()
    place = f"{job.output_config.gcs_destination.output_uri_prefix.rstrip('/')}/prediction-{job.name.split('/')[-1]}"
    vertex.write_object(f"{place}/prediction.results-00000-of-00001", _lines(good))
    vertex.write_object(f"{place}/prediction.errors_stats-00000-of-00001", _lines(bad))
    with vertex.lock:
        job.model_version_id = model.version_id
        job.output_info = {"gcs_output_directory": place}
        job.completion_stats = {"successful_count": len(good), "failed_count": len(bad)}
    return (
        Outcome() if good else Outcome(3, f"All {len(bad)} instances failed; the first: {bad[0]['error']['message']}")
    )


def _matching(vertex: Vertex, pattern: str) -> list[str]:
    directory = pattern.partition("*")[0].rpartition("/")[0]
    return sorted(uri for uri in vertex.objects_below(directory) if fnmatch.fnmatchcase(uri, pattern))


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
