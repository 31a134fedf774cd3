"""The notebook: its code compiles and imports what there is; and all of it runs and shows what it should."""

import ast
import importlib.util
import json
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "notebooks/journeys.ipynb"
PICTURES = {"explore": 4, "quality": 4, "customer": 2, "credit": 3}  # by cell
CAMPAIGNS = {"spring_sale_email", "newsletter_tip", "brand_display", "vip_offer"}
# asked of the kernel when all has run
ASKED = """
print("ANSWER", json.dumps({
    "figures": metrics["test"]["30"]["lstm"], "base_rate": base_rate, "oracle": metrics["test"]["30"]["oracle"],
    "probabilities": [scored[f"p_{h}d"].to_pylist() for h in spec.horizons_days], "customers": scored.num_rows,
    "ids": ids[best["customer_key"][0]], "running": one_running, "measured": measured["campaigns"],
    "true": true.to_dict(), "touches": [player["name"] for player in channel["players"]], "train": train,
}))
""".replace("one_running", 'told["rise"].running[:, -1].tolist()')


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(PLACE, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def absent(text):
    """What the code imports and is not there."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            wanted = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            wanted = [(node.module, alias.name) for alias in node.names]
        else:
            continue
        for module, name in wanted:
            try:
                there = importlib.import_module(module)
                if name and not hasattr(there, name):
                    importlib.import_module(f"{module}.{name}")
            except ImportError:
                found.append(f"{module}.{name}" if name else module)
    return found


def attributes_absent(text):
    """Attributes of the package's modules that the code names and that are not there."""
    tree = ast.parse(text)
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("preprocessing", "trainer", "deploy"):
            for alias in node.names:
                modules[alias.name] = importlib.import_module(f"{node.module}.{alias.name}")
    return [
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in modules
        and not hasattr(modules[node.value.id], node.attr)
    ]


def test_each_cell_compiles_and_what_it_names_is_there(notebook):
    nbformat.validate(notebook)
    for cell in code(notebook):
        compile(cell.source, cell.id, "exec")
    everything = "\n".join(cell.source for cell in code(notebook))
    assert not absent(everything)
    assert not attributes_absent(everything)
    assert {*PICTURES} < {cell.id for cell in notebook.cells}


def test_a_name_that_is_gone_is_seen():
    assert absent("from trainer.plots import pr_curves\nimport trainer.nothing") == [
        "trainer.plots.pr_curves",
        "trainer.nothing",
    ]
    assert attributes_absent("from trainer import plots\nplots.pr_curve(1), plots.prc(2)") == ["plots.prc"]


def test_it_is_kept_without_outputs_and_its_links_lead_somewhere(notebook):
    for cell in code(notebook):
        assert not cell.outputs and cell.execution_count is None, f"{cell.id}: take its outputs out"
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert len(links) > 5
    assert not [link for link in links if not (PLACE.parent / link).is_file()]


def test_its_spec_is_one(notebook):
    from preprocessing.spec import parse_spec

    (cell,) = (cell for cell in notebook.cells if cell.id == "spec")
    (text,) = re.findall(r'"""\n(.*?)"""', cell.source, re.DOTALL)
    assert parse_spec(text, "journeys.ipynb").primary_horizon == 30


FRAME = """
{first}
import tempfile
from pathlib import Path
import pyarrow as pa
from preprocessing import engine, frames
try:
    with frames.as_files(pa.table({{"a": [1]}})), tempfile.TemporaryDirectory() as place:
        with engine.opened(Path(place)) as db:
            print(db.execute("SELECT 42").fetchall())
except frames.UserError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("first", "told"), [("", "[(42,)]"), ("import duckdb", "pip install ipywidgets, or import it later")]
)
def test_frames_work_in_a_kernel_where_duckdb_would_want_widgets(first, told):
    from nbclient import NotebookClient

    assert importlib.util.find_spec("ipywidgets") is None  # else this shows nothing
    ran = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(FRAME.format(first=first))])
    NotebookClient(ran, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    assert told in printed(ran.cells[0])


def pictures(cell):
    return [svg for out in cell.outputs for svg in re.findall(r"<svg .*?</svg>", html_of(out), re.DOTALL)]


def html_of(out):
    return "".join(out.get("data", {}).get("text/html", ""))


def printed(cell):
    return "".join(out.text for out in cell.outputs if out.output_type == "stream" and out.name == "stdout")


def test_it_runs_from_end_to_end_and_shows_what_it_says(notebook):
    """Leaves the notebook with its outputs in build/, to look at."""
    from nbclient import NotebookClient

    ran = nbformat.from_dict(notebook)
    ran.cells.append(nbformat.v4.new_code_cell(ASKED))
    client = NotebookClient(ran, timeout=3600, resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    (ROOT / "build").mkdir(exist_ok=True)
    asked = ran.cells.pop()
    nbformat.write(ran, ROOT / f"build/{PLACE.name}")

    by_id = {cell.id: cell for cell in code(ran)}
    for name, most in PICTURES.items():
        drawn = pictures(by_id[name])
        assert len(drawn) == most, f"{name}: {len(drawn)} pictures of {most}"
        assert all('role="img" aria-label="' in svg and svg.count("<path") > 3 for svg in drawn)
    for name in ("customers", "features", "journeys", "truth", "scores"):
        assert "<table" in html_of(by_id[name].outputs[-1]), name
    assert "LSTM" in printed(by_id["training"]) and "percentage points" in printed(by_id["influence"])

    answer = json.loads(printed(asked).partition("ANSWER ")[2])
    assert 0.02 < answer["base_rate"] < 0.1
    assert 0.6 < answer["figures"]["roc_auc"]["value"] <= answer["oracle"]["roc_auc"]["value"] + 0.02
    assert answer["figures"]["calibration_error"]["value"] < 0.02
    assert answer["customers"] > 1500
    for values in answer["probabilities"]:
        assert all(0 <= value <= 1 for value in values)
        assert 0.002 < sum(values) / len(values) < 0.1
    for short, long in zip(answer["probabilities"], answer["probabilities"][1:], strict=False):
        assert all(a <= b for a, b in zip(short, long, strict=True))
    assert re.fullmatch(r"[a-z]*-?\d+", answer["ids"], re.IGNORECASE), answer["ids"]
    assert all(0 < value < 1 for value in answer["running"]) and answer["running"][-1] > answer["running"][0]
    assert {one["campaign"] for one in answer["measured"]} == CAMPAIGNS
    claims = {one["campaign"]: one["claim"] for one in answer["measured"]}
    assert claims["spring_sale_email"] == "randomised" and claims["vip_offer"] in ("association", "none")
    sale = next(one for one in answer["measured"] if one["campaign"] == "spring_sale_email")["effect"]
    assert sale["low"] - 0.02 < answer["true"]["spring_sale_email"] < sale["high"] + 0.02
    assert {"web", "email"} & {*answer["touches"]}
