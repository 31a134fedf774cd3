"""The local Cloud Storage before its real clients: google-cloud-storage, Beam's GCS I/O, TensorFlow's gs://, gcloud."""

import os
import subprocess
import sys

import pytest

from tests.cloud.storage import Storage


@pytest.fixture
def storage(cloud):
    server = cloud.service(Storage)
    server.make_bucket("shop")
    yield server
    assert cloud.proxy.refused == []


@pytest.fixture
def bucket(storage):
    from google.cloud import storage as client

    return client.Client().bucket("shop")


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_writes_reads_and_deletes(storage, bucket):
    blob = bucket.blob("a/journey 1é.txt")
    blob.upload_from_string("oldest first")
    assert storage.data("shop", "a/journey 1é.txt") == b"oldest first"
    assert bucket.blob("a/journey 1é.txt").download_as_bytes(start=7, end=11) == b"first"
    blob.metadata = {"stamp": "7"}
    blob.patch()
    assert bucket.get_blob(blob.name).metadata == {"stamp": "7"}
    assert bucket.get_blob(blob.name).metageneration == 2
    blob.delete()
    assert storage.names("shop") == []
    assert bucket.get_blob(blob.name) is None


def test_large_files_go_up_and_down_in_parts(storage, bucket, tmp_path):
    content = os.urandom(9 * 2**20 + 5)  # from 8 MiB on the client uploads in parts
    (tmp_path / "large").write_bytes(content)
    bucket.blob("large", chunk_size=4 * 2**20).upload_from_filename(tmp_path / "large")
    assert storage.data("shop", "large") == content
    assert len(storage.seen("PUT /upload")) == 3
    bucket.blob("large", chunk_size=4 * 2**20).download_to_filename(tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_a_generation_precondition_lets_one_writer_win(storage, bucket):
    from google.api_core.exceptions import PreconditionFailed

    first, second = bucket.blob("marker"), bucket.blob("marker")
    first.upload_from_string("first", if_generation_match=0)
    with pytest.raises(PreconditionFailed):
        second.upload_from_string("second", if_generation_match=0)
    second.upload_from_string("second", if_generation_match=first.generation)
    with pytest.raises(PreconditionFailed):
        bucket.blob("marker").delete(if_generation_match=first.generation)
    assert storage.data("shop", "marker") == b"second"


def test_lists_by_prefix_delimiter_and_pages(storage, bucket):
    for name in ("run/a", "run/model/x", "run/model/y", "run/records/z", "other"):
        storage.put("shop", name, b"1")
    found = bucket.client.list_blobs("shop", prefix="run/", delimiter="/", page_size=1)
    assert [blob.name for blob in found] == ["run/a"]
    assert found.prefixes == {"run/model/", "run/records/"}
    assert [blob.name for blob in bucket.client.list_blobs("shop", page_size=2)] == storage.names("shop")


def test_copies_rewrites_composes_and_batches(storage, bucket):
    for name in ("a", "b"):
        bucket.blob(name).upload_from_string(name * 3)
    bucket.copy_blob(bucket.blob("a"), bucket, "copied")
    token, _, _ = bucket.blob("rewritten").rewrite(bucket.blob("b"))
    assert token is None
    bucket.blob("both").compose([bucket.blob("a"), bucket.blob("b")])
    assert storage.data("shop", "both") == b"aaabbb"
    assert bucket.get_blob("both").md5_hash is None
    with bucket.client.batch():
        bucket.blob("a").delete()
        bucket.blob("b").delete()
    assert storage.names("shop") == ["both", "copied", "rewritten"]


def test_what_is_not_there_and_damaged_uploads_are_refused(storage, bucket):
    from google.api_core.exceptions import BadRequest, NotFound

    with pytest.raises(NotFound, match="No such object: shop/none"):
        bucket.blob("none").download_as_bytes()
    with pytest.raises(NotFound, match="bucket does not exist"):
        bucket.client.bucket("none").blob("x").upload_from_string("x")
    damaged = bucket.blob("damaged")
    damaged.crc32c = "AAAAAA=="
    with pytest.raises(BadRequest, match="crc32c"):
        damaged.upload_from_string("whole", checksum=None)


def test_the_client_outlasts_faults_and_a_broken_download(storage, bucket):
    storage.put("shop", "a", b"0123456789" * 1000)
    storage.fail(503, match="GET")
    storage.fail(429, match="GET")
    storage.cut(after=500, match="GET")
    assert bucket.blob("a").download_as_bytes() == storage.data("shop", "a")
    assert len(storage.faults.struck) == 3


def test_dead_credentials_are_refused(cloud, storage, bucket):
    from google.auth.exceptions import RefreshError

    bucket.blob("a").upload_from_string("a")
    cloud.oauth.expire()
    with pytest.raises(RefreshError, match="invalid_grant"):
        bucket.blob("b").upload_from_string("b")
    assert storage.names("shop") == ["a"]


def test_beam_reads_and_writes(storage):
    storage.put("shop", "in/part-0", b"first line\nsecond line\n")
    python(
        "from apache_beam.io.filesystems import FileSystems as fs\n"
        "with fs.open('gs://shop/in/part-0') as file: assert file.read() == b'first line\\nsecond line\\n'\n"
        "with fs.create('gs://shop/out/part-0') as file: file.write(b'written by Beam')\n"
        "fs.rename(['gs://shop/out/part-0'], ['gs://shop/out/final'])\n"
        "(found,) = fs.match(['gs://shop/out/*'])\n"
        "assert [m.path for m in found.metadata_list] == ['gs://shop/out/final'], found\n"
        "fs.delete(['gs://shop/in/'])\n"
    )
    assert storage.data("shop", "out/final") == b"written by Beam"
    assert storage.names("shop") == ["out/final"]


def test_tensorflow_reads_and_writes_and_neither_loses_nor_doubles_a_record_over_faults(storage):
    storage.fail(503, match="POST /upload")
    storage.fail(429, match="PUT /upload")
    storage.fail(503, match="GET /shop/records")
    storage.cut(after=5000, match="GET /shop/records")
    said = python(
        "import tensorflow as tf\n"
        "with tf.io.TFRecordWriter('gs://shop/records/train.tfrecord') as out:\n"
        "    for i in range(1000): out.write(b'%d' % i)\n"
        "read = [int(r) for r in tf.data.TFRecordDataset('gs://shop/records/train.tfrecord').as_numpy_iterator()]\n"
        "assert read == list(range(1000))\n"
        "tf.io.gfile.makedirs('gs://shop/model')\n"
        "tf.io.gfile.rename('gs://shop/records/train.tfrecord', 'gs://shop/records/moved.tfrecord')\n"
        "print(tf.io.gfile.glob('gs://shop/records/*'), tf.io.gfile.exists('gs://shop/none'))\n"
    )
    assert said.strip() == "['gs://shop/records/moved.tfrecord'] False"
    assert len(storage.data("shop", "records/moved.tfrecord")) > 1000
    assert len(storage.faults.struck) == 4, storage.faults.struck


def test_gcloud_copies_lists_and_removes(storage, tmp_path, gcloud):
    (tmp_path / "a.txt").write_text("from gcloud")
    gcloud("storage", "cp", tmp_path / "a.txt", "gs://shop/a.txt")
    assert storage.data("shop", "a.txt") == b"from gcloud"
    assert gcloud("storage", "ls", "gs://shop/").split() == ["gs://shop/a.txt"]
    assert gcloud("storage", "cat", "gs://shop/a.txt") == "from gcloud"
    gcloud("storage", "rm", "gs://shop/a.txt")
    assert storage.names("shop") == []
