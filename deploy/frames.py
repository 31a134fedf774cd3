"""Scores into a notebook: what deploy.predict writes, as an Arrow table, for events that are frames."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from preprocessing.frames import Frames, as_files

if TYPE_CHECKING:
    import pyarrow as pa


def scores(model: str | Path, spec: str | Path, events: Frames, *flags: str) -> pa.Table:
    """One row a customer: customer_key, as_of, the probability within each horizon, as deploy.predict writes them.

    events: as preprocessing.frames.journeys takes them. flags: deploy.predict's others, `--as_of=2026-07-01` say.
    `.to_pandas()` or `polars.from_arrow` makes a frame of it. Raises UserError.
    """
    import pyarrow.parquet as pq

    from deploy import predict

    with as_files(events) as place, tempfile.TemporaryDirectory(prefix="parcours-") as aside:
        output = Path(aside, "scores.parquet")
        predict.main([f"--model={model}", f"--spec={spec}", f"--events={place}", f"--output={output}", *flags])
        return pq.read_table(output)
