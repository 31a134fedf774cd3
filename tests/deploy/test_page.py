"""The server's page in headless Chromium, over answers worked out by hand and over the real server."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import shutil
import time

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from deploy import page
from tests.deploy.servers import deployed, serving, until

ABOUT = {
    "model_version": "abc123",
    "conversion": "event_type = 'purchase' AND amount > 0",
    "horizons_days": [7, 30],
    "primary_horizon": 30,
    "gap_days": 0,
    "sequence": {"channel": "categorical", "event_type": "categorical", "amount": "numeric"},
    "customer": {"segment": "categorical"},
}
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
SAMPLE = {
    "key": "sample",
    "as_of": "2026-06-01T00:00:00Z",
    "segment": "a",
    "events": [
        {"event_time": "2026-05-03T10:00:00.5Z", "event_type": EVIL, "channel": "web", "amount": None},
        {"event_time": "2026-05-01T10:00:00Z", "event_type": "view", "channel": "web", "amount": None},
        {"event_time": "2026-05-02T12:00:00+02:00", "event_type": "click", "channel": "web", "amount": 1.5},
    ],
}
ANSWER = {
    "key": EVIL,
    "model_version": "abc123",
    "probabilities": {"7": 0.04, "30": 0.125},
    "curve": [{"days": d, "probability": 0.04 * d / 7 if d <= 7 else 0.04 + 0.085 * (d - 7) / 23} for d in range(31)],
    "running": [
        {"event_time": "2026-05-01T10:00:00Z", "probabilities": {"7": 0.01, "30": 0.02}},
        {"event_time": "2026-05-02T10:00:00Z", "probabilities": {"7": 0.02, "30": 0.06}},
        {"event_time": "2026-05-03T10:00:00.500000Z", "probabilities": {"7": 0.03, "30": 0.1}},
    ],
    "influence": [
        {
            "campaign": "spring" + EVIL,
            "with": {"7": 0.04, "30": 0.125},
            "without": {"7": 0.03, "30": 0.1},
            "difference": {"7": 0.01, "30": 0.025},
            "claim": "association",
            "reason": "",
        },
        {
            "campaign": "new",
            "with": {"7": None, "30": None},
            "without": {"7": None, "30": None},
            "difference": {"7": None, "30": None},
            "claim": "association",
            "reason": "campaign never seen in training",
        },
    ],
}


class Canned:
    """A server with the page and answers that a test sets; `asked`: bodies and Authorization headers of /explain."""

    def __init__(self):
        self.answer, self.status, self.token, self.asked = copy.deepcopy(ANSWER), 200, None, []
        self.app = FastAPI()
        self.app.include_router(page.router(ABOUT))

        @self.app.get("/model")
        async def model(request: Request):
            return self._guarded(request) or {**ABOUT, "sample": SAMPLE}

        @self.app.post("/explain")
        async def explain(request: Request):
            refused = self._guarded(request)
            self.asked.append(((await request.body()).decode(), request.headers.get("authorization")))
            return refused or JSONResponse(self.answer, self.status)

    def _guarded(self, request):
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return JSONResponse({"error": {"message": "no token"}}, 401)
        return None


@pytest.fixture
def canned():
    made = Canned()
    with serving(made.app) as made.address:
        yield made


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if lacking:
        pytest.skip(f"THE PAGE IS NOT TESTED IN A BROWSER: {', '.join(lacking)} not found (Debian: chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1100,1600"):
        options.add_argument(flag)
    for flag in ("background-networking", "component-update", "sync", "default-apps", "quic"):
        options.add_argument(f"--disable-{flag}")
    options.add_argument("--no-proxy-server")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    browser.set_page_load_timeout(30)
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def browser(chromium):
    chromium.get_log("browser")
    return chromium


def at(browser, selector):
    return browser.find_element("css selector", selector)


def every(browser, selector):
    return browser.find_elements("css selector", selector)


def text(browser, selector):
    return at(browser, selector).get_attribute("textContent")


def opened(browser, address):
    browser.get(address)
    until(lambda: at(browser, "#journey").get_property("value") or at(browser, "#problem").is_displayed())


def pressed(browser):
    at(browser, "#predict").click()
    until(lambda: at(browser, "#result").is_displayed() or at(browser, "#problem").is_displayed())


def write(browser, value):
    browser.execute_script("document.getElementById('journey').value = arguments[0]", value)


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser")]


def test_the_drawn_values_are_the_answers(canned, browser):
    opened(browser, canned.address)
    assert json.loads(at(browser, "#journey").get_property("value")) == SAMPLE
    pressed(browser)
    assert [one.text.split("\n") for one in every(browser, "#tiles li")] == [
        ["4.00 %", "within 7 days"],
        ["12.5 %", "within 30 days"],
    ]
    assert json.loads(canned.asked[0][0])["instance"] == SAMPLE
    assert canned.asked[0][1] is None

    # the curve: a path through all its points, which are where its own axis says
    path = at(browser, "#curve path.line").get_attribute("d")
    points = [tuple(map(float, pair.split(","))) for pair in re.findall(r"[ML]([\d.,-]+)", path)]
    assert len(points) == 31
    by_label = {one.text: one for one in every(browser, "#curve svg text")}
    zero = next(float(one.get_attribute("y")) - 4 for name, one in by_label.items() if name == "0 %")
    ten = next(float(one.get_attribute("y")) - 4 for name, one in by_label.items() if name == "10 %")
    drawn = [(zero - y) / (zero - ten) * 0.1 for _, y in points]
    assert drawn == pytest.approx([point["probability"] for point in ANSWER["curve"]], abs=0.0005)
    assert points[7][0] - points[0][0] == pytest.approx((points[30][0] - points[0][0]) * 7 / 30, abs=0.2)
    titles = [one.get_attribute("textContent") for one in every(browser, "#curve circle title")]
    assert titles == ["within 7 days: 4.00 %", "within 30 days: 12.5 %"]

    # the running probability: events named in order of time, whatever order and zone they came in
    rows = [
        [cell.get_attribute("textContent") for cell in row.find_elements("css selector", "th,td")]
        for row in every(browser, "#running-table tbody tr")
    ]
    assert rows == [
        ["1", "view", "2026-05-01 10:00:00", "1.00 %", "2.00 %"],
        ["2", "click", "2026-05-02 10:00:00", "2.00 %", "6.00 %"],
        ["3", EVIL, "2026-05-03 10:00:00", "3.00 %", "10.0 %"],
    ]
    assert len(every(browser, "#running path.line")) == 2
    assert len(every(browser, "#running circle")) == 6
    assert text(browser, "#running circle:nth-of-type(2) title") == "click, 2026-05-02 10:00:00: 2.00 % within 7 days"

    # each campaign's influence, and what it claims
    rows = [
        [cell.get_attribute("textContent") for cell in row.find_elements("css selector", "th,td")]
        for row in every(browser, "#influence-table tbody tr")
    ]
    assert rows == [
        ["spring" + EVIL, "7 d", "4.00 %", "3.00 %", "+1.00"],
        ["", "30 d", "12.5 %", "10.0 %", "+2.50"],
        ["new", "No number: campaign never seen in training."],
    ]
    assert "An association, not an effect" in text(browser, "#claim")
    assert [one.get_attribute("textContent") for one in every(browser, "#influence circle title")] == [
        "without: 10.0 %",
        "with: 12.5 %",
    ]
    assert complaints(browser) == []


def test_what_looks_like_markup_is_shown_as_text(canned, browser):
    opened(browser, canned.address)
    pressed(browser)
    time.sleep(0.2)
    assert browser.title == "One customer journey"
    assert every(browser, "main img, main script") == []
    assert EVIL in text(browser, "#running-table")
    assert EVIL in text(browser, "#influence-table")
    canned.status, canned.answer = 400, {"error": {"message": EVIL, "field": "key", "instance": 0}}
    pressed(browser)
    until(lambda: EVIL in text(browser, "#problem"))
    assert every(browser, "main img") == []
    assert browser.title == "One customer journey"


def test_the_page_forbids_every_other_script(canned, browser):
    opened(browser, canned.address)
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = \"document.title='owned'\";"
        "document.body.append(s);"
        "const i = document.createElement('img'); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i);"
    )
    time.sleep(0.3)
    assert browser.title == "One customer journey"
    said = complaints(browser)
    assert any("script" in one and "Content Security Policy" in one for one in said), said
    assert any("x.png" in one and "Content Security Policy" in one for one in said), said


def test_mistakes_are_told_in_line(canned, browser):
    opened(browser, canned.address)
    for wrong, said in (
        ('{"key": ', "The journey is not JSON: "),
        ("  ", "Paste a journey, or take the sample."),
    ):
        write(browser, wrong)
        at(browser, "#predict").click()
        until(lambda: at(browser, "#problem").is_displayed())
        assert at(browser, "#problem").text.startswith(said)
        assert at(browser, "#journey").get_attribute("aria-invalid") == "true"
        assert not at(browser, "#result").is_displayed()
    assert canned.asked == []
    message = "instance 0, events[2].amount: expected a number, got text"
    canned.status, canned.answer = 400, {"error": {"message": message, "instance": 0, "field": "events[2].amount"}}
    write(browser, json.dumps(SAMPLE))
    at(browser, "#predict").click()
    until(lambda: at(browser, "#problem").text == message)
    assert at(browser, "#journey").get_attribute("aria-invalid") == "true"
    # and mended
    canned.status, canned.answer = 200, ANSWER
    pressed(browser)
    until(lambda: at(browser, "#result").is_displayed())
    assert not at(browser, "#problem").is_displayed()
    assert at(browser, "#journey").get_attribute("aria-invalid") is None


def test_a_server_that_is_gone_is_told(canned, browser):
    opened(browser, canned.address)
    canned.status, canned.answer = 502, ["proxy"]
    pressed(browser)
    assert at(browser, "#problem").text.startswith("The server answered 502")
    browser.execute_script("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    at(browser, "#predict").click()
    until(lambda: at(browser, "#problem").text == "The server cannot be reached.")


def test_a_bearer_token_is_asked_for_and_sent(canned, browser):
    canned.token = "secret"
    opened(browser, canned.address)
    assert at(browser, "#token").is_displayed()
    assert at(browser, "#problem").text == "The server asks for a bearer token."
    at(browser, "#token").send_keys("wrong")
    at(browser, "#sample").click()
    until(lambda: at(browser, "#problem").text == "The server refuses this bearer token.")
    at(browser, "#token").clear()
    at(browser, "#token").send_keys("secret")
    at(browser, "#sample").click()
    until(lambda: at(browser, "#journey").get_property("value"))
    pressed(browser)
    assert at(browser, "#result").is_displayed()
    assert canned.asked[-1][1] == "Bearer secret"


def test_a_journey_without_events_campaigns_or_curve(canned, browser):
    canned.answer = {"key": None, "model_version": "abc123", "probabilities": {"7": 0.0, "30": 0.0004},
                     "curve": [], "running": [], "influence": []}  # fmt: skip
    opened(browser, canned.address)
    write(browser, '{"as_of": "2026-06-01T00:00:00Z", "events": []}')
    pressed(browser)
    assert [one.text.split("\n")[0] for one in every(browser, "#tiles li")] == ["0.0 %", "0.040 %"]
    assert at(browser, "#running-none").text == "This journey has no events."
    assert not any(at(browser, f"#{name}-figure").is_displayed() for name in ("curve", "running", "influence"))
    assert "no campaign" in at(browser, "#claim").text
    assert complaints(browser) == []


def test_events_as_columns_and_integer_times_keep_every_digit(canned, browser):
    opened(browser, canned.address)
    journey = (
        '{"as_of": 1780272000000000, "event_time": [1777802400500000, 1777629600000000], "event_type": ["b", "a"]}'
    )
    write(browser, journey)
    canned.answer["running"] = [
        {"event_time": "2026-05-01T10:00:00Z", "probabilities": {"7": 0.01, "30": 0.02}},
        {"event_time": "2026-05-03T10:00:00.5Z", "probabilities": {"7": 0.03, "30": 0.1}},
    ]
    pressed(browser)
    names = [one.get_attribute("textContent") for one in every(browser, "#running-table td.left:nth-of-type(1)")]
    assert names == ["a", "b"]
    assert canned.asked[0][0] == f'{{"instance": {journey}}}'


def test_by_keyboard_alone_and_on_a_phone(canned, browser):
    from selenium.webdriver.common.keys import Keys

    browser.set_window_size(500, 900)
    try:
        opened(browser, canned.address)
        at(browser, "#journey").send_keys(Keys.TAB)
        assert browser.switch_to.active_element.get_attribute("id") == "predict"
        browser.switch_to.active_element.send_keys(Keys.ENTER)
        until(lambda: at(browser, "#result").is_displayed())
        assert browser.switch_to.active_element.get_attribute("id") == "h-probability"
        wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0
        for control in every(browser, "textarea, input"):
            assert every(browser, f"label[for={control.get_attribute('id')}]")
        for one in every(browser, "#result svg[role=img]"):
            assert len(one.get_attribute("aria-label")) > 20
    finally:
        browser.set_window_size(1100, 1600)


def test_the_page_is_whole_in_itself_and_its_policy_fits():
    about = ABOUT | {"model_version": EVIL, "conversion": "a < 1 </p><script>alert(1)</script>"}
    content, policy = page.page(about)
    assert EVIL not in content and "<script>alert" not in content
    assert content.count("<script>") == content.count("</script>") == 1
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", content)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", content)
    assert " style=" not in content and " onclick" not in content


def test_the_sample_of_the_real_server(job, browser):
    model = job["run_dir"] / "model"
    about = json.loads((model / "parcours.json").read_text())
    with deployed(model) as address:
        opened(browser, address)
        instance = json.loads(at(browser, "#journey").get_property("value"))
        pressed(browser)
        assert at(browser, "#result").is_displayed(), at(browser, "#problem").text
        answer = httpx.post(f"{address}explain", json={"instance": instance}, trust_env=False, timeout=60).json()
        tiles = [float(one.text.split(" %")[0]) / 100 for one in every(browser, "#tiles li")]
        wanted = [answer["probabilities"][str(h)] for h in about["horizons_days"]]
        assert tiles == pytest.approx(wanted, abs=0.0006)
        names = [one.get_attribute("textContent") for one in every(browser, "#running-table td.left:nth-of-type(1)")]
        assert len(names) == len(answer["running"])
        given = sorted(instance["events"], key=lambda event: event["event_time"])
        assert names == [event["event_type"] for event in given][-len(names) :]
        campaigns = [one.text for one in every(browser, "#influence-table tbody th") if one.text]
        assert campaigns == [one["campaign"] for one in answer["influence"]]
        assert complaints(browser) == []
        # and a mistake, told with its field
        instance["events"][0]["amount"] = "much"
        write(browser, json.dumps(instance))
        at(browser, "#predict").click()
        until(lambda: "events[0].amount" in at(browser, "#problem").text)
