"""DuckDB keeps to the memory that it is given, and says in one line when that is too little."""

import pytest

from preprocessing import engine
from preprocessing.cli import UserError

# of one group DuckDB holds all values in memory
GREEDY = "SELECT LEN(LIST(i ORDER BY HASH(i))) FROM RANGE(3000000) AS t(i)"


def limit(connection):
    return connection.execute("SELECT current_setting('memory_limit')").fetchone()[0]


def test_memory_is_what_is_stated_whatever_the_machine_has(tmp_path, monkeypatch):
    monkeypatch.delenv(engine.ENVIRONMENT, raising=False)
    with engine.opened(tmp_path) as connection:
        assert limit(connection) == "1.3 GiB"  # 1500MB
        assert connection.execute(GREEDY).fetchone() == (3_000_000,)


def test_more_or_less_can_be_allowed(tmp_path, monkeypatch):
    monkeypatch.setenv(engine.ENVIRONMENT, "3GiB")
    with engine.opened(tmp_path) as connection:
        assert limit(connection) == "3.0 GiB"


def test_too_little_memory_is_one_line_that_says_how_to_allow_more(tmp_path, monkeypatch):
    monkeypatch.setenv(engine.ENVIRONMENT, "20MB")
    with (
        pytest.raises(UserError, match=r"^20MB of memory are not enough .* allow more: PARCOURS_MEMORY=8GB, say$"),
        engine.opened(tmp_path) as connection,
    ):
        connection.execute(GREEDY)


@pytest.mark.parametrize("wrong", ["lots", "8 gold", "'; DROP TABLE t"])
def test_what_is_no_size_is_named(tmp_path, monkeypatch, wrong):
    monkeypatch.setenv(engine.ENVIRONMENT, wrong)
    with pytest.raises(UserError, match=r"^PARCOURS_MEMORY: expected a size such as"), engine.opened(tmp_path):
        pass
