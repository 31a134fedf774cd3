"""A run directory under gs:// holds the old whole or the new whole, as one on disk does, whatever happens in between.

The real google-cloud-storage writes to the local server. A run that dies is one whose requests stop coming; a run that
is slow is one that another takes over from between any two of its writes.
"""

import datetime as dt
import json
import re
import signal
import threading
import time

import pytest

from preprocessing import gcs, lease
from preprocessing.cli import UserError
from preprocessing.rundir import RunDir
from tests.cloud.service import ApiError
from tests.cloud.storage import Storage

URL = "gs://shop/runs/a"
WRITES = ("write", "upload", "copy", "delete")


@pytest.fixture
def storage(cloud, monkeypatch):
    """By the emulator's way, without TLS and tokens, since each test writes a lot."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.url)
    gcs.open_store.cache_clear()
    server = cloud.service(Storage)
    server.make_bucket("shop")
    yield server
    gcs.open_store.cache_clear()
    assert cloud.proxy.refused == []


class Died(BaseException):
    """The process is no more."""


class Watched:
    """A store that calls `event` before the n-th write (from 0) of those that go through it; n None: never."""

    def __init__(self, store, n=None, event=lambda: None):
        self._store, self._n, self._event, self.writes, self._lock = store, n, event, 0, threading.Lock()

    def __getattr__(self, name):
        method = getattr(self._store, name)
        if name not in WRITES:
            return method

        def watched(*args, **kwargs):
            with self._lock:
                mine, self.writes = self.writes, self.writes + 1
            if mine == self._n:
                self._event()
            return method(*args, **kwargs)

        return watched


class Dying(Watched):
    """A store of a process that dies before its n-th write: nothing of it reaches the server from then on."""

    def __getattr__(self, name):
        if self._n is not None and self.writes > self._n:
            raise Died
        return super().__getattr__(name)


def die():
    raise Died


def run_with(store_of):
    run = RunDir(URL)
    run._artefacts._store = store_of(run._artefacts._store)
    return run


def write(run, text, *names):
    with run.lock(), run.stage(*names) as staged:
        for name, directory in staged.items():
            (directory / "data").write_text(f"{text} {name}")
            (directory / "deep").mkdir()
            (directory / "deep" / text).write_text(text)


def read(*names):
    """What a reader finds: the texts of the artefacts, which must be whole and of one run."""
    run = RunDir(URL)
    run.fetch(*names)
    found = {(run.path / name / "data").read_text() for name in names}
    texts = {text.partition(" ")[0] for text in found}
    for name in names:
        files = {p.relative_to(run.path / name).as_posix() for p in (run.path / name).rglob("*") if p.is_file()}
        assert files == {"data", *(f"deep/{text}" for text in texts)}
    assert found == {f"{text} {name}" for text in texts for name in names}
    (text,) = texts
    return text


def age(storage, name="runs/a/.lock", hours=1):
    """The holder stopped renewing its lease an hour ago, by the server's clock."""
    held = storage.buckets["shop"].objects[name]
    held.updated = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=hours)).isoformat().replace("+00:00", "Z")


def test_staged_directories_take_their_places_together(storage):
    write(RunDir(URL), "old", "records", "transform")
    write(RunDir(URL), "new", "records", "transform")
    assert read("records", "transform") == "new"
    run = RunDir(URL)
    assert run.stamp("records") == run.stamp("transform")
    assert storage.names("shop") == [
        f"runs/a/{name}/{file}" for name in ("records", "transform") for file in ("data", "deep/new", "whole.json")
    ]


def test_every_write_has_a_precondition(storage):
    write(RunDir(URL), "old", "records", "transform")
    write(RunDir(URL), "new", "records", "transform")
    starts = [r for r in storage.requests if r.method in ("POST", "DELETE", "PATCH")]
    assert len(starts) > 20
    assert all("ifGenerationMatch" in request.query for request in starts)


def test_a_failure_leaves_the_old_whole(storage):
    write(RunDir(URL), "old", "records", "transform")
    run = RunDir(URL)
    with pytest.raises(OSError, match="disk full"), run.lock(), run.stage("records", "transform") as staged:
        (staged["records"] / "data").write_text("half")
        staged.share("records")
        assert len(storage.names("shop", "runs/a/.staged/")) == 1
        raise OSError("disk full")
    assert read("records", "transform") == "old"
    assert not storage.names("shop", "runs/a/.")


def replacement(storage):
    """(how many writes replace old by new, a function that puts the old back)."""
    write(RunDir(URL), "old", "records", "transform")
    old = dict(storage.buckets["shop"].objects)
    run = run_with(Watched)
    write(run, "new", "records", "transform")

    def put_back():
        storage.buckets["shop"].objects = dict(old)

    return run._artefacts._store.writes, put_back


def test_a_death_between_any_two_writes_leaves_the_old_whole_or_the_new(storage):
    """And a reader in between gets the old, the new, or a refusal, never a mixture."""
    count, put_back = replacement(storage)
    assert count > 15
    ends, between = [], []
    for n in range(count):
        put_back()
        with pytest.raises(Died):
            write(run_with(lambda store, n=n: Dying(store, n, die)), "new", "records", "transform")
        try:
            between.append(read("records", "transform"))
        except UserError as error:
            assert "no whole" in str(error)
            between.append("refused")
        if n:
            with pytest.raises(UserError, match="in use by another run"), RunDir(URL).lock():
                pass
            age(storage)
        with RunDir(URL).lock():
            pass
        ends.append(read("records", "transform"))
        assert not storage.names("shop", "runs/a/."), n
    turn = ends.index("new")
    assert ends == ["old"] * turn + ["new"] * (count - turn)  # one write decides
    assert between[: turn + 1] == ["old"] * (turn + 1) or between[:turn] == ["old"] * turn
    assert set(between[turn:]) == {"old", "refused", "new"} or set(between[turn:]) == {"refused", "new"}


@pytest.mark.slow
def test_a_run_that_is_taken_over_between_any_two_writes_harms_nothing(storage):
    """A is paused before its n-th write for so long that B takes over, replaces the same, and is done."""
    count, put_back = replacement(storage)
    outcomes = set()
    for n in range(1, count):
        put_back()

        def take_over():
            age(storage)
            write(RunDir(URL), "other", "records", "transform")

        try:
            write(run_with(lambda store, n=n, f=take_over: Watched(store, n, f)), "new", "records", "transform")
            outcomes.add("done")
        except UserError as error:
            assert "lost its hold" in str(error), error
            outcomes.add("lost")
        assert read("records", "transform") == "other", n
        with RunDir(URL).lock():
            assert not storage.names("shop", "runs/a/.staged"), n
    assert "lost" in outcomes


def test_one_run_at_a_time(storage):
    with RunDir(URL).lock():
        with pytest.raises(UserError, match=r"gs://shop/runs/a: in use by another run \(process \d+ on "):
            write(RunDir(URL), "other", "records")
        with RunDir("gs://shop/runs/b").lock():
            pass
    write(RunDir(URL), "other", "records")
    assert read("records") == "other"


def test_of_runs_that_begin_at_once_one_gets_the_directory(storage):
    barrier, held, refused = threading.Barrier(6), [], []
    done = threading.Event()

    def begin():
        run = RunDir(URL)
        barrier.wait(30)
        try:
            with run.lock():
                held.append(run)
                done.wait(60)
        except UserError as error:
            refused.append(str(error))
            if len(refused) == 5:
                done.set()

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert (len(held), len(refused)) == (1, 5)
    assert all("in use by another run" in message for message in refused)


def test_a_live_run_renews_its_lease_and_keeps_the_directory(storage, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 1.5)
    with RunDir(URL).lock():
        first = storage.buckets["shop"].objects["runs/a/.lock"].generation
        waited = threading.Event()
        while storage.buckets["shop"].objects["runs/a/.lock"].generation == first:
            waited.wait(0.05)
        with pytest.raises(UserError, match="in use by another run"), RunDir(URL).lock():
            pass


def test_a_run_that_lost_its_lease_is_stopped_at_once(storage, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 0.9)
    write(RunDir(URL), "old", "records")
    ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a shell's background
    lost = "this run has lost its hold of it: another run has taken it over"
    with pytest.raises(UserError, match=lost), RunDir(URL).lock():
        held = storage.buckets["shop"].objects["runs/a/.lock"]
        storage.put("shop", "runs/a/.lock", held.data.replace(b'"process"', b'"process" '))
        threading.Event().wait(60)  # training, say: the interruption ends it
    signal.signal(signal.SIGINT, ctrl_c)
    assert read("records") == "old"
    assert "runs/a/.lock" in storage.names("shop")  # the other's


def test_faults_are_retried(storage, monkeypatch):
    write(RunDir(URL), "old", "records", "transform")
    storage.fail(503, times=2, match="POST /upload")
    storage.fail(429, times=2, match="POST .*rewriteTo")
    storage.fail(503, times=1, match="DELETE")
    storage.fail(500, times=1, match="GET")
    write(RunDir(URL), "new", "records", "transform")
    assert len(storage.faults.struck) == 6
    assert read("records", "transform") == "new"


@pytest.mark.parametrize("match", ["POST /upload.*", "POST .*rewriteTo", "DELETE .*whole.json", "DELETE .*lock"])
def test_a_write_whose_answer_is_lost_counts_once(storage, monkeypatch, match):
    """The server did it and its answer said 503: the client's second attempt fails a precondition, or finds nothing."""
    write(RunDir(URL), "old", "records", "transform")
    real, lost = storage.respond, []

    def lossy(request):
        response = real(request)
        if not lost and response.status < 300 and re.match(match, f"{request.method} {request.path}"):
            lost.append(request)
            return ApiError(503, "lost").response()
        return response

    monkeypatch.setattr(storage, "respond", lossy)
    write(RunDir(URL), "new", "records", "transform")
    assert read("records", "transform") == "new"
    assert len(lost) == 1
    assert not storage.names("shop", "runs/a/.")


@pytest.mark.parametrize("match", ["POST /upload.*", "POST .*rewriteTo"])
def test_a_write_that_answers_too_late_counts_once(storage, monkeypatch, match):
    """The server does it, but after the client has given up waiting and asked again."""
    from google.auth.transport.requests import AuthorizedSession

    write(RunDir(URL), "old", "records", "transform")
    real, asked, late = storage.respond, AuthorizedSession.request, []

    def slow(request):
        response = real(request)
        if not late and response.status < 300 and re.match(match, f"{request.method} {request.path}"):
            late.append(request)
            time.sleep(1.5)
        return response

    monkeypatch.setattr(storage, "respond", slow)
    monkeypatch.setattr(AuthorizedSession, "request", lambda *args, **kw: asked(*args, **kw | {"timeout": 0.7}))
    write(RunDir(URL), "new", "records", "transform")
    assert read("records", "transform") == "new"
    assert len(late) == 1
    assert not storage.names("shop", "runs/a/.")


def test_the_decision_whose_answer_never_comes_is_finished_by_the_next_run(storage, monkeypatch):
    """Nobody knows whether the deciding write came through: nothing is swept, and the lock tells the next run."""
    monkeypatch.setattr(lease, "SECONDS", 3.0)  # a third of it is the patience of a write of the lock
    monkeypatch.setattr(gcs, "PATIENCE", 3.0)
    write(RunDir(URL), "old", "records")
    run = RunDir(URL)
    with pytest.raises(UserError, match="does not answer"), run.lock(), run.stage("records") as staged:
        (staged["records"] / "data").write_text("new records")
        (staged["records"] / "deep").mkdir()
        (staged["records"] / "deep/new").write_text("new")
        real = storage.store

        def decided_then_silent(made):
            stored = real(made)
            if made.name.endswith(".lock") and json.loads(made.data)["replacing"]:
                storage.fail(503, times=1000, match="/o|/upload")
            return stored

        monkeypatch.setattr(storage, "store", decided_then_silent)
    storage.faults.clear()
    monkeypatch.setattr(storage, "store", real)
    age(storage)
    with RunDir(URL).lock():
        pass
    assert read("records") == "new"


def test_a_reader_whose_artefact_is_replaced_meanwhile_is_told(storage):
    write(RunDir(URL), "old", "records")
    run = RunDir(URL)
    mark = run._artefacts.mark("records")
    write(RunDir(URL), "new", "records")
    with pytest.raises(UserError, match="replaced by another run while it was read; start again"):
        run._artefacts.fetch("records", mark)


def test_half_written_and_mixed_artefacts_are_not_taken_for_whole(storage):
    with pytest.raises(UserError, match="no such run directory; make it with"):
        RunDir(URL).require("records")
    storage.put("shop", "runs/a/records/data", b"half")
    with pytest.raises(UserError, match=r"no whole records/ here \(only half written\)"):
        RunDir(URL).require("records")
    write(RunDir(URL), "one", "records", "transform")
    mark = json.loads(storage.data("shop", "runs/a/records/whole.json"))
    storage.put("shop", "runs/a/records/whole.json", json.dumps(mark | {"stamp": "other"}).encode())
    with pytest.raises(UserError, match="come from different runs"):
        RunDir(URL).require("records", "transform")


def test_a_run_directory_that_was_copied_from_a_disk_is_one(storage, tmp_path):
    write(RunDir(tmp_path), "old", "records")
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        storage.put("shop", f"runs/a/{path.relative_to(tmp_path).as_posix()}", path.read_bytes())
    assert storage.data("shop", "runs/a/.lock") == b""
    run = RunDir(URL)
    run.fetch("records")
    assert (run.path / "records/data").read_text() == "old records"
    write(RunDir(URL), "new", "records")
    assert read("records") == "new"


def test_what_only_the_user_can_mend_is_one_line(storage, cloud, monkeypatch):
    with pytest.raises(UserError, match=r"gs://nowhere: no such bucket"), RunDir("gs://nowhere/run").lock():
        pass
    message = "x@y does not have storage.objects.create access"
    storage.fail(403, match="POST", message=message)
    with pytest.raises(UserError, match=f"permission missing: .*{message}.*roles/storage.objectUser"):
        write(RunDir(URL), "new", "records")
    with pytest.raises(UserError, match="expected a bucket, as in gs://bucket/path"):
        RunDir("gs:///run")
    with pytest.raises(UserError, match="s3://b/run: no storage for s3://; expected a local path or gs://"):
        RunDir("s3://b/run")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")  # by way of TLS and tokens
    gcs.open_store.cache_clear()
    RunDir(URL).exists()
    cloud.oauth.expire()
    with pytest.raises(UserError, match="the credentials are refused or have expired"):
        RunDir(URL).require("records")
