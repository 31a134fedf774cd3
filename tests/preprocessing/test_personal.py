"""What looks like personal data stops the run; codes, names of products and places do not."""

import datetime as dt
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.cli import UserError
from preprocessing.journeys import build_journeys
from preprocessing.personal import fields_of, kind_of, suspicious
from preprocessing.spec import load_spec, parse_spec
from tests.job import ROOT

MAIL, PHONE, CARD, ADDRESS, TEXT = (
    *("e-mail addresses", "telephone numbers", "card numbers", "IP addresses"),
    "free text",
)
PERSONAL = {
    "ann.o'neil+shop@example.co.uk": MAIL,
    "Ann <ann@example.com>": MAIL,
    "https://shop.example/unsubscribe?email=ann%40example.com": MAIL,
    "mailto:ANN@EXAMPLE.ORG": MAIL,
    "+44 20 7946 0958": PHONE,
    "+33 (0)6 12 34 56 78": PHONE,
    "+15555550123": PHONE,
    "call +49 171 1234567 please": PHONE,
    "020 7946 0958": PHONE,
    "06 12 34 56 78": PHONE,
    "06.12.34.56.78": PHONE,
    "0171/1234567": PHONE,
    "(555) 555-0123": PHONE,
    "555-555-0123": PHONE,
    "4111 1111 1111 1111": CARD,
    "4111111111111111": CARD,
    "5500-0000-0000-0004": CARD,
    "3782 822463 10005": CARD,
    "378282246310005": CARD,
    "card 4111-1111-1111-1111 declined": CARD,
    "203.0.113.77": ADDRESS,
    "203.0.113.77:443": ADDRESS,
    "http://203.0.113.77/cart": ADDRESS,
    "2001:db8:0:0:1:0:0:1": ADDRESS,
    "2001:db8:85a3::8a2e:370:7334": ADDRESS,
    "fe80::1": ADDRESS,
    "I have waited for two weeks now and nobody answers my letters at all": TEXT,
    "The parcel was wet. Please send a new one soon.": TEXT,
}
HARMLESS = """
85123A | 84029E | POST | C2 | gift_0001_20 | 4006381333931 | 012345678905 | 978-3-16-148410-0 | 0-306-40615-2
00123456789 | 0001-23 | SKU-000123456789 | B07XJ8C8F5 | 100-200-300 | 404.020.64 | 1234567 | 20260105 | SW1A 1AA
EC1A 1BB | 75008 | 10115 | K1A 0B1 | Rural | Urban | 2026-01-05 | 05.01.2026 | 01/02/2026 | 2026-01-05 10:20:30
2026-01-05T10:20:30+01:00 | 10:20:30 | +01:00 | 1.2.3.4 | v10.0.0.12 | 10.0.19041.1288 | 91.0.4472.77
999.999.999.999 | 0.0.0.0 | 1,234.50 | +10.5 % | 00:1A:2B:3C:4D:5E | std::string | a::b | 12:30-13:45 | @home
50% @ summer | user@ | (not set) | (direct) | WHITE HANGING HEART T-LIGHT HOLDER | SET 7 BABUSHKA NESTING BOXES
PACK OF 72 RETROSPOT CAKE CASES | ?? missing | RED WOOLLY HOTTIE WHITE HEART. | JUMBO  BAG RED RETROSPOT
wrongly marked 23343 | Dr. Oetker Vanille-Zucker 8 x 8 g
Home & Garden > Kitchen & Dining > Kitchen Appliances > Coffee Makers & Espresso Machines > Drip Coffee Makers
Spring sale 2026: 20 % off all garden furniture for loyal customers | email_open | cpc | google / organic
Köln, Nordrhein-Westfalen | 6011 Kriens | 4 for 3 (2026) | 1/2 price
"""


@pytest.mark.parametrize(("value", "kind"), PERSONAL.items(), ids=range(len(PERSONAL)))
def test_what_looks_like_personal_data_is_seen(value, kind):
    assert suspicious([value, "view", "purchase"], "note") == {value: kind}


def test_codes_products_places_and_times_are_left_alone():
    values = [value for line in HARMLESS.strip().split("\n") for value in line.split(" | ")]
    assert len(values) > 60
    assert suspicious(values, "note") == {}
    assert [value for value in values if kind_of(value)] == []


def test_long_codes_are_not_cards_by_chance_and_cards_are():
    draw = random.Random(4)
    codes = {f"4{draw.randrange(10**15):015}" for _ in range(2000)} | {
        f"0{draw.randrange(10**9):09}" for _ in range(200)
    }
    assert suspicious(codes, "item") == {}
    cards = {code for code in codes if suspicious([code], "item")}
    assert 100 < len(cards) < 400  # each by itself could be one
    assert set(suspicious(cards, "item").values()) == {CARD}


def test_plain_digits_are_telephone_numbers_where_the_column_says_so():
    numbers = [f"1715550{n:03}" for n in range(50)]
    assert suspicious(numbers, "item") == {}
    assert set(suspicious(numbers, "customer_phone").values()) == {PHONE}
    assert suspicious(numbers, "hotel") == {}


SPEC = """
events:     {customer: customer, time: time}
sequence:   {categorical: [event_type, note], numeric: [amount]}
customer:   {table: customers, customer: customer, static: true, categorical: [segment]}
conversion: {where: "event_type = 'buy'", horizons_days: [7], primary_horizon: 7}
snapshots:  {first: 2026-01-05, last: 2026-04-06, every_days: 7, lookback_days: 90}
data_until: 2026-05-01
split:      {eval_from: 2026-02-10, test_from: 2026-03-10}
"""


def tables(place, notes, segment="a", suffix="parquet"):
    place.mkdir()
    start = dt.datetime(2026, 1, 1)
    rows = [
        {"customer": f"c{n % 9}", "time": start + dt.timedelta(days=n), "event_type": "buy" if n % 5 == 0 else "view",
         "note": note, "amount": 1.0, "comment": "nobody@example.com"}
        for n, note in enumerate(notes * 30)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), place / "events.parquet")
    people = [{"customer": f"c{n}", "segment": segment} for n in range(9)]
    pq.write_table(pa.Table.from_pylist(people), place / "customers.parquet")
    return str(place)


def built(spec, events, output, **more):
    output.mkdir()
    return build_journeys(parse_spec(spec), events, output, bytes(range(32)), progress=False, **more)


def test_a_run_stops_with_column_count_and_a_masked_example(tmp_path):
    notes = ["seen", "ann.smith@example.com", "bob@example.com", None, "+44 20 7946 0958"]
    events = tables(tmp_path / "t", notes, segment="203.0.113.77")
    with pytest.raises(UserError) as caught:
        built(SPEC, events, tmp_path / "out")
    of_events, of_customers = str(caught.value).split("\n")
    assert "events.parquet: sequence.categorical: column 'note': 2 distinct values look like e-mail" in of_events
    assert "('xxx.xxxxx@xxxxxxx.xxx', in 30 rows), 1 like telephone numbers; " in of_events
    assert "allow it: privacy: {allow: [note]}" in of_events
    assert "column 'segment': 1 distinct values look like IP addresses ('999.9.999.99', in 9 rows)" in of_customers
    assert "ann" not in str(caught.value) and "7946" not in str(caught.value)
    assert not list((tmp_path / "out").glob("part-*"))


def test_an_allowed_column_is_read_and_a_column_that_is_not_named_never_was(tmp_path):
    events = tables(tmp_path / "t", ["seen", "ann.smith@example.com"])
    built(SPEC + "privacy: {allow: [note]}\n", events, tmp_path / "out")
    without = SPEC.replace("[event_type, note]", "[event_type]")
    built(without, events, tmp_path / "without")  # `comment` holds addresses, too
    with pytest.raises(UserError, match="column 'note'"):
        built(SPEC + "privacy: {allow: [segment]}\n", events, tmp_path / "other")


def test_predictions_are_not_stopped(tmp_path):
    events = tables(tmp_path / "t", ["seen", "ann.smith@example.com"])
    built(SPEC, events, tmp_path / "out", predict_as_of=dt.datetime(2026, 4, 1, tzinfo=dt.UTC))


def test_what_is_allowed_must_be_a_column_of_the_spec():
    with pytest.raises(
        UserError,
        match=r"privacy\.allow: 'notes': expected a categorical column of the spec: event_type, note, segment",
    ):
        parse_spec(SPEC + "privacy: {allow: [notes]}\n")


def test_every_categorical_column_is_looked_at():
    demo = fields_of(load_spec(ROOT / "job_configs/journeys/demo.yaml"))
    assert [(f.relation, f.column, f.name) for f in demo] == [
        ("events_read", "c0", "event_type"),
        ("events_read", "c1", "channel"),
        ("events_read", "c2", "campaign"),
        ("subjects_read", "k0", "segment"),
        ("subjects_read", "k1", "activity"),
        ("assignments_read", "campaign", "campaign"),
    ]
    ready = fields_of(load_spec(ROOT / "job_configs/journeys/clickstream.yaml"))
    assert [(f.key, f.name) for f in ready] == [("sequence.categorical", "page_type")]
