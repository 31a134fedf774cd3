"""Customer keys: HMAC-SHA256 of customer ids, the key file, and `python -m preprocessing.keys`, which maps ids to keys.

Whoever holds the key file can tell which customer a key is; nobody else can, not even by trying all ids.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import hmac
import logging
import os
import secrets
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from preprocessing.cli import UserError, run
from preprocessing.storage import Changed, delivered, is_remote, localised, open_place, read_text

ENVIRONMENT = "PARCOURS_KEY_FILE"
DEFAULT = Path("~/.config/parcours/customer.key")
KEY_BYTES = 32
SHARD_LETTERS = 3  # of a customer key, by which journeys.sql goes through the customers
SHARDS = 16**SHARD_LETTERS
_BLOCK = 64
_log = logging.getLogger(__name__)


def customer_key(key: bytes, customer: str) -> str:
    """Lower-case hexadecimal HMAC-SHA256 (RFC 2104) of the id in UTF-8, as journeys.sql makes it."""
    return hmac.new(key, customer.encode(), hashlib.sha256).hexdigest()


def customer_ids(given: Sequence[str], file: str | None) -> list[str]:
    """The ids given, and those of a text with one a line, where there is one. Raises UserError as read_text does."""
    # not splitlines(), which takes U+2028 and others in an id for the end of a line
    lines = read_text(file, "text with one customer id a line").split("\n") if file else []
    return [customer for customer in (*given, *(line.removesuffix("\r") for line in lines)) if customer]


def pads(key: bytes) -> tuple[bytes, bytes]:
    """Inner and outer pad of HMAC (RFC 2104): the key in a block of 64 bytes, XOR 0x36 and XOR 0x5c."""
    block = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    return bytes(b ^ 0x36 for b in block), bytes(b ^ 0x5C for b in block)


def fingerprint(key: bytes) -> str:
    """Twelve letters that tell one key from another and nothing of it."""
    return customer_key(key, "parcours key fingerprint")[:12]


def load_key(path: str | Path | None = None, *, make: bool = False) -> bytes:
    """The key in `path`, else in $PARCOURS_KEY_FILE, else in ~/.config/parcours/customer.key; `make` makes that one.

    A key file holds at least 64 hexadecimal letters. Raises UserError where there is none, or others can write it.
    """
    named = path or os.environ.get(ENVIRONMENT)
    if named:
        return _parsed(read_text(named, "key file"), named) if is_remote(named) else _read(Path(named))
    default = DEFAULT.expanduser()
    if not default.exists() and not make:
        raise UserError(f"no customer key: neither --key_file nor ${ENVIRONMENT} names one, and there is no {default}")
    if not default.exists():
        try:
            new_key(default)
        except UserError:
            return _read(default)  # another run was quicker
        _log.info("made a customer key: %s; keep it, without it no score finds its customer", default)
    return _read(default)


def new_key(path: Path | str) -> None:
    """Writes a new random key for its owner's eyes alone. Raises UserError where a file is already there.

    Under gs:// who may read it is the bucket's to say: IAM on a bucket of its own.
    """
    orphans = f"{path}: exists already; a new key would orphan every score made with the old one"
    if is_remote(path):
        store, name = open_place(str(path))
        try:
            store.write(name, secrets.token_hex(KEY_BYTES).encode() + b"\n", version=None)
        except Changed:
            raise UserError(orphans) from None
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
        os.link(aside, path)  # unlike a rename, never replaces a key that another run has just made
    except FileExistsError:
        raise UserError(orphans) from None
    finally:
        aside.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        text = path.read_text(encoding="ascii").strip()
        mode = path.stat().st_mode
    except OSError as error:
        make = (
            "; make one with: python -m preprocessing.keys --new FILE" if isinstance(error, FileNotFoundError) else ""
        )
        raise UserError(f"{path}: cannot read the key file: {error.strerror}{make}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: no key file; expected {2 * KEY_BYTES} hexadecimal letters") from None
    key = _parsed(text, path)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(f"{path}: others can write this key file; mend it with: chmod 600 {path}")
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning("%s: others can read this key file; mend it with: chmod 600 %s", path, path)
    return key


def _parsed(text: str, place: str | Path) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        raise UserError(f"{place}: no key file; expected {2 * KEY_BYTES} hexadecimal letters") from None
    if len(key) < KEY_BYTES:
        raise UserError(f"{place}: the key is too short: {len(key)} bytes; expected {KEY_BYTES} or more")
    return key


def replace_ids(source: str | Path, column: str, output: str | Path, key: bytes) -> int:
    """Writes the Parquet file `source` with customer_key in place of its id column; returns the number of rows.

    The ids are text or whole numbers. Raises UserError where the file or the column is not of that kind.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(localised(source))
    except (OSError, pa.ArrowInvalid):
        raise UserError(f"{source}: cannot be read; expected a Parquet file") from None
    if column not in table.column_names:
        raise UserError(f"{source}: no column {column!r}; it has {', '.join(table.column_names)}")
    kind = table[column].type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise UserError(f"{source}: {column}: expected text or whole numbers, found {kind}")
    ids = table[column].cast(pa.string()).combine_chunks().dictionary_encode()
    of_each = pa.array([customer_key(key, customer) for customer in ids.dictionary.to_pylist()])
    place = table.column_names.index(column)
    with delivered(output) as aside:
        pq.write_table(table.set_column(place, "customer_key", of_each.take(ids.indices)), aside)
    return int(table.num_rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m preprocessing.keys",
        description="Maps customer ids to keys, as CSV on standard output or in place of a Parquet file's ids.",
    )
    parser.add_argument("--key_file", help=f"the key; default ${ENVIRONMENT}, else {DEFAULT}")
    parser.add_argument(
        "--id", action="append", default=[], metavar="ID", help="a customer id; may be given repeatedly"
    )
    parser.add_argument("--ids", metavar="FILE", help="text with one customer id a line; with --column, a Parquet file")
    parser.add_argument("--column", help="the id column of --ids, whose place customer_key takes in --output")
    parser.add_argument("--output", metavar="FILE", help="the Parquet file that --column makes")
    parser.add_argument("--new", metavar="FILE", help="makes a new key file, and no more")
    parser.add_argument(
        "--to_bigquery",
        metavar="bigquery://P.D.T",
        help="writes what BigQuery needs of the key into this table of one row, made or replaced, and no more",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parses the flags and does one of four things: a new key, its pads in BigQuery, a table or a list with keys."""
    flags = _parser().parse_args(argv)
    asked = {"--new": flags.new, "--to_bigquery": flags.to_bigquery, "--column": flags.column, "--id": flags.id}
    several = [name for name, value in asked.items() if value]
    if len(several) > 1 or (flags.ids and (flags.new or flags.to_bigquery)):
        raise UserError(f"{' and '.join(several)}{' and --ids' if flags.ids else ''}: expected one of them")
    if flags.new:
        new_key(flags.new)
        return
    if flags.to_bigquery:
        from preprocessing import bigquery_pads

        key = load_key(flags.key_file)
        print(bigquery_pads.write(flags.to_bigquery, pads(key), fingerprint(key)))
        return
    if flags.column or flags.output:
        if not (flags.column and flags.output and flags.ids):
            raise UserError("--column, --output and --ids go together; expected all three")
        rows = replace_ids(flags.ids, flags.column, flags.output, load_key(flags.key_file))
        print(f"{flags.output}: {rows:,} rows by customer_key")
        return
    ids = customer_ids(flags.id, flags.ids)
    if not ids:
        raise UserError("no customer ids; expected --ids FILE or --id ID")
    key = load_key(flags.key_file)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["customer_id", "customer_key"])
    writer.writerows((customer, customer_key(key, customer)) for customer in ids)


if __name__ == "__main__":
    run(main)
