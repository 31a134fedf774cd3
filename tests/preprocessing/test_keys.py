import hashlib
import hmac
import stat
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing import keys
from preprocessing.cli import UserError

# RFC 4231, test case 2
RFC_KEY, RFC_DATA = b"Jefe", "what do ya want for nothing?"
RFC_HMAC = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_customer_key_is_hmac_sha256_of_the_rfc():
    assert keys.customer_key(RFC_KEY, RFC_DATA) == RFC_HMAC


@pytest.mark.parametrize("length", [1, 32, 64, 65, 200])
def test_two_sha256_over_the_pads_are_the_hmac(length):
    key = bytes(range(length % 256)) or b"\0"
    inner, outer = keys.pads(key)
    nested = hashlib.sha256(outer + hashlib.sha256(inner + "é7".encode()).digest()).hexdigest()
    assert nested == hmac.new(key, "é7".encode(), hashlib.sha256).hexdigest()


def test_the_default_key_is_made_once_and_for_its_owner_alone(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(keys.ENVIRONMENT, raising=False)
    caplog.set_level("INFO")
    with pytest.raises(UserError, match="no customer key: neither --key_file nor"):
        keys.load_key()
    key = keys.load_key(make=True)
    path = tmp_path / ".config/parcours/customer.key"
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert str(path) in caplog.text and key.hex() not in caplog.text
    assert keys.load_key() == key
    assert [p.name for p in path.parent.iterdir()] == ["customer.key"]


def test_the_flag_goes_before_the_environment(tmp_path, monkeypatch):
    for name in ("flag", "environment"):
        keys.new_key(tmp_path / name)
    monkeypatch.setenv(keys.ENVIRONMENT, str(tmp_path / "environment"))
    assert keys.load_key(tmp_path / "flag").hex() == (tmp_path / "flag").read_text().strip()
    assert keys.load_key().hex() == (tmp_path / "environment").read_text().strip()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ab" * 8, "too short: 8 bytes; expected 32"),
        (b"", "too short"),
        (b"no hexadecimal letters at all, though long enough to be a key", "expected 64 hexadecimal letters"),
        (b"\xff\xfe" * 40, "expected 64 hexadecimal letters"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(tmp_path, content, message):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UserError, match=message) as caught:
        keys.load_key(path)
    assert "though" not in str(caught.value)


def test_a_missing_key_file_that_was_named_is_not_made(tmp_path):
    with pytest.raises(UserError, match="--new FILE"):
        keys.load_key(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_key_that_others_may_write_is_refused_and_one_they_may_read_is_told(tmp_path, caplog):
    path = tmp_path / "key"
    keys.new_key(path)
    path.chmod(0o620)
    with pytest.raises(UserError, match="chmod 600"):
        keys.load_key(path)
    path.chmod(0o644)
    keys.load_key(path)
    assert "others can read" in caplog.text


def test_a_key_is_never_overwritten(tmp_path):
    path = tmp_path / "key"
    keys.new_key(path)
    before = path.read_text()
    with pytest.raises(UserError, match="exists already"):
        keys.new_key(path)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def command(*flags):
    return subprocess.run(
        [sys.executable, "-m", "preprocessing.keys", *map(str, flags)], capture_output=True, text=True, check=False
    )


def test_the_command_maps_ids_to_keys(tmp_path):
    path, ids = tmp_path / "key", tmp_path / "ids.txt"
    assert command("--new", path).returncode == 0
    ids.write_text("17\na, b\n\n", encoding="utf-8")
    done = command("--key_file", path, "--ids", ids, "--id", "é")
    key = bytes.fromhex(path.read_text())
    assert done.stdout.splitlines() == [
        "customer_id,customer_key",
        f"é,{keys.customer_key(key, 'é')}",
        f"17,{keys.customer_key(key, '17')}",
        f'"a, b",{keys.customer_key(key, "a, b")}',
    ]


def test_a_file_of_ids_is_parted_at_the_ends_of_its_lines_alone(tmp_path):
    """A spreadsheet's text begins with a mark and ends lines with two letters; an id may hold U+2028 and its like."""
    ids = tmp_path / "ids.txt"
    ids.write_bytes("\ufeff17\r\na\u2028b\x85c\r\n\r\n18".encode())
    assert keys.customer_ids(["16"], str(ids)) == ["16", "17", "a\u2028b\x85c", "18"]


def test_the_command_says_what_it_lacks(tmp_path):
    done = command("--key_file", tmp_path / "key")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no customer ids; expected --ids FILE or --id ID\n"


def test_the_command_puts_keys_in_place_of_a_tables_ids(tmp_path):
    path, source, output = tmp_path / "key", tmp_path / "truth.parquet", tmp_path / "by_key.parquet"
    command("--new", path)
    key = bytes.fromhex(path.read_text())
    pq.write_table(pa.table({"p": [0.1, 0.2, 0.3], "id": [17, None, 17]}), source)
    done = command("--key_file", path, "--ids", source, "--column", "id", "--output", output)
    assert (done.returncode, done.stdout) == (0, f"{output}: 3 rows by customer_key\n")
    keyed = keys.customer_key(key, "17")
    assert pq.read_table(output).to_pydict() == {"p": [0.1, 0.2, 0.3], "customer_key": [keyed, None, keyed]}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--column", "id"], "--column, --output and --ids go together"),
        (["--ids", "{t}/none", "--column", "id", "--output", "{t}/o"], "none: cannot be read; expected a Parquet file"),
        (["--ids", "{t}/t", "--column", "name", "--output", "{t}/o"], "t: no column 'name'; it has p"),
        (
            ["--ids", "{t}/t", "--column", "p", "--output", "{t}/o"],
            "t: p: expected text or whole numbers, found double",
        ),
    ],
)
def test_tables_that_cannot_be_keyed(tmp_path, flags, message):
    command("--new", tmp_path / "key")
    pq.write_table(pa.table({"p": [0.1]}), tmp_path / "t")
    done = command("--key_file", tmp_path / "key", *(flag.format(t=tmp_path) for flag in flags))
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "o").exists()
