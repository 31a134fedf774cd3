"""What every local server has from the frame: the proxy, the credentials, the faults, over HTTP and over gRPC."""

import os
import signal
import subprocess
import sys
import time

import pytest
import requests
from google.api_core.exceptions import ServiceUnavailable, Unauthenticated
from google.cloud import dataflow_v1beta3 as api

from tests.cloud.dataflow import Dataflow
from tests.cloud.oauth import EMAIL
from tests.cloud.storage import Storage
from tests.job import ROOT

LIST = api.ListJobsRequest(project_id="local-project", location="europe-west4")


def test_the_proxy_leads_nowhere_else(cloud):
    for url in ("https://example.com/", "https://compute.googleapis.com/", "http://metadata.google.internal/"):
        try:
            assert requests.get(url, timeout=10).status_code == 403
        except requests.exceptions.ProxyError as error:
            assert "403" in str(error)
    assert [asked.removeprefix("http://").split(":")[0].strip("/") for asked in cloud.proxy.refused] == [
        "example.com",
        "compute.googleapis.com",
        "metadata.google.internal",
    ]


def test_tls_is_ended_by_a_certificate_of_the_throwaway_authority_only(cloud, monkeypatch):
    answer = requests.get("https://storage.googleapis.com/storage/v1/b?project=x", timeout=10)
    assert answer.status_code == 401  # reached, and asked for credentials
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.delenv("CURL_CA_BUNDLE")
    with pytest.raises(requests.exceptions.SSLError):
        requests.get("https://storage.googleapis.com/storage/v1/b?project=x", timeout=10)


def test_a_token_is_given_for_an_assertion_that_the_account_signed(cloud):
    from google.auth import crypt, jwt

    now = int(time.time())
    claims = {"iss": EMAIL, "aud": "https://oauth2.googleapis.com/token", "iat": now, "exp": now + 60}
    grant = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}
    for key, status in ((cloud.oauth.key_file()["private_key"], 200), (_another_key(), 400)):
        assertion = jwt.encode(crypt.RSASigner.from_string(key), claims).decode()
        answer = requests.post("https://oauth2.googleapis.com/token", grant | {"assertion": assertion}, timeout=10)
        assert answer.status_code == status
    assert answer.json()["error"] == "invalid_grant"


def _another_key():
    from tests.cloud.oauth import OAuth

    return OAuth().key_file()["private_key"]


def test_faults_wear_off_and_strike_what_they_name(cloud):
    storage = cloud.service(Storage)
    storage.make_bucket("shop")
    storage.put("shop", "a", b"0123456789")
    storage.fail(429, times=2, match="GET .*/o/a", reason="rateLimitExceeded")
    storage.cut(after=4, match="GET .*/o/a")
    url = f"{cloud.url}/storage/v1/b/shop/o/a?alt=media"
    assert requests.get(f"{cloud.url}/storage/v1/b/shop", timeout=10).status_code == 200
    assert [requests.get(url, timeout=10).status_code for _ in range(2)] == [429, 429]
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(url, timeout=10)
    assert requests.get(url, timeout=10).content == b"0123456789"
    assert [request.status for request in storage.seen("/o/a")] == [429, 429, 200, 200]


def test_grpc_meets_the_same_faults_and_the_same_credentials(cloud):
    dataflow, client = cloud.service(Dataflow), api.JobsV1Beta3Client()
    dataflow.fail(503, match="JobsV1Beta3/ListJobs", message="try again")
    with pytest.raises(ServiceUnavailable, match="try again"):
        client.list_jobs(LIST, retry=None)
    assert list(client.list_jobs(LIST)) == []
    assert [request.status for request in dataflow.seen("ListJobs")] == [503, 200]
    cloud.oauth.expire()
    with pytest.raises(Unauthenticated):
        client.list_jobs(LIST, retry=None)


def test_the_servers_run_by_hand_and_a_shell_finds_them(tmp_path):
    """make cloud-local, as a user does it: the environment it writes leads another process to the servers."""
    command = [sys.executable, "-m", "tests.cloud", "--place", tmp_path, "--quiet"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as servers:
        for line in servers.stdout:
            if "Ctrl-C" in line:
                break
        code = (
            "from google.cloud import storage; "
            "print([b.name for b in storage.Client(project='parcours-integration').list_buckets()])"
        )
        shell = f'. {tmp_path}/environment && exec {sys.executable} -c "{code}"'
        plain = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        said = subprocess.run(["sh", "-c", shell], env=plain, capture_output=True, text=True, check=False, timeout=120)
        assert said.stdout.strip() == "['parcours-integration-runs']", said.stderr
        servers.send_signal(signal.SIGINT)
        assert servers.wait(timeout=60) == 0
