"""Uses the gateway's page as a person does, in a real Chromium, and prints what it saw as JSON.

It runs in an environment of its own that has playwright: python page_driver.py URL CHROMIUM FOLDER
"""

import json
import re
import sys
import time
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import expect, sync_playwright

SCREENS = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
WEATHER = {
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
HOSTILE = (
    "<img src=x onerror=alert(1)><script>alert(1)</script><style>*{display:none}</style><iframe src=//evil.example>"
    "</iframe>[a](javascript:alert(1)) [b](https://example.com) ![c](https://evil.example/x.png) <b onclick=alert(1)>d"
)


class Visit:
    """One screen in one colour scheme."""

    def __init__(self, browser, url, screen, scheme, folder):
        self.url, self.phone, self.folder, self.name = url, screen == "phone", folder, f"{screen}-{scheme}"
        self.context = browser.new_context(viewport=SCREENS[screen], color_scheme=scheme, has_touch=self.phone)
        self.page = self.context.new_page()
        self.complaints, self.elsewhere, self.seen = [], [], {}
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda asked: asked.url.startswith(url) or self.elsewhere.append(asked.url))

    def screenshot(self, what):
        self.page.screenshot(path=self.folder / f"{self.name}-{what}.png")

    def ask(self, question):
        self.page.fill("#question", question)
        self.page.press("#question", "Enter")

    def until_answered(self):
        expect(self.page.locator("#send")).to_be_visible(timeout=60_000)

    def open_settings(self):
        if self.phone:
            self.page.click("#show-settings")
        closed = self.page.locator("aside details:not([open]) > summary")
        while closed.count():
            closed.first.click()

    def close_settings(self):
        if self.phone:
            self.page.click("#show-settings")

    def set(self, **values):
        self.open_settings()
        for selector, value in values.items():
            named = self.page.locator(f"#sampling [name={selector}]")
            (named if named.count() else self.page.locator(f"#{selector}")).fill(value)
        self.close_settings()

    def run(self):
        page, seen = self.page, self.seen
        page.goto(self.url)
        expect(page.locator("#model")).to_have_text("local/model")
        self.screenshot("empty")
        self.set(temperature="0", min_tokens="80", max_tokens="80")
        self.ask("Write a short story about a lighthouse.")
        answer = page.locator(".turn.assistant .text").last
        lengths = []
        while page.locator("#stop").is_visible():
            lengths.append(len(answer.inner_text()))
            page.wait_for_timeout(100)
        seen["lengths"] = sorted(set(lengths))
        seen["record"] = page.locator(".record").last.inner_text()
        self.screenshot("answer")

        self.set(min_tokens="1900", max_tokens="1900")
        self.ask("Go on for ever.")
        expect(page.locator(".turn.assistant .text").nth(1)).to_have_text(
            re.compile(".{60}", re.DOTALL), timeout=60_000
        )
        page.click("#stop")
        self.until_answered()
        seen["stopped"] = page.locator(".turn.assistant .text").last.inner_text()

        self.set(min_tokens="0", max_tokens="30")
        page.locator(".turn.user >> text=Edit").first.click()
        seen["to edit"] = page.input_value("#question")
        self.ask("What is the capital of France?")
        self.until_answered()
        seen["edited"] = [each.inner_text() for each in page.locator(".turn > .text").all()]
        page.click("text=Answer again")
        self.until_answered()
        seen["again"] = [each.inner_text() for each in page.locator(".turn > .text").all()]

        self.set(tools=json.dumps([WEATHER]), tool_choice="get_weather", max_tokens="60")
        self.ask("What is the weather in Oslo?")
        self.until_answered()
        seen["call"] = page.locator(".checked").last.inner_text()
        self.screenshot("call")
        self.set(tools="", tool_choice="", json_schema=json.dumps(CITY))
        self.ask("What is the capital of France?")
        self.until_answered()
        seen["json"] = page.locator(".checked").last.inner_text()
        self.screenshot("json")
        self.open_settings()
        page.fill("#json_schema", "{oops")
        seen["problem"] = page.locator("#json_schema-problem").inner_text()
        page.fill("#json_schema", json.dumps(CITY))
        seen["code"] = {}
        for each in page.locator(".copy").all():
            each.click()
            seen["code"][each.get_attribute("data-language")] = page.locator("#code").inner_text()
        self.screenshot("settings")
        self.close_settings()
        turns = page.locator(".turn").count()
        page.reload()
        expect(page.locator(".turn")).to_have_count(turns)
        complaints = list(self.complaints)  # the browser complains of what DOMPurify then removes
        seen["hostile"] = page.evaluate(
            "async (text) => { const made = document.createElement('div');"
            " made.append((await import('/page/markdown.js')).render(text)); return made.innerHTML; }",
            HOSTILE,
        )
        seen["wider than the screen"] = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        self.context.close()
        return {**seen, "complaints": complaints, "elsewhere": self.elsewhere}


def seconds_to_free_the_slot(browser, url):
    """After a tab was closed in the middle of an answer."""
    page = browser.new_page()
    page.goto(url)
    expect(page.locator("#model")).to_have_text("local/model")
    page.fill("#question", "Count to a million.")
    page.locator("summary", has_text="Sampling").click()
    page.fill("[name=min_tokens]", "1900")
    page.fill("[name=max_tokens]", "1900")
    page.press("#question", "Enter")
    expect(page.locator(".turn.assistant .text")).to_have_text(re.compile(".{20}", re.DOTALL), timeout=60_000)
    assert running(url) == 1
    page.close()
    closed = time.monotonic()
    while running(url):
        assert time.monotonic() - closed < 30, "the slot is not free"
        time.sleep(0.05)
    return time.monotonic() - closed


def running(url):
    lines = urlopen(f"{url}metrics").read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("hermes_gateway_upstream_running{"))


def main():
    url, chromium, folder = sys.argv[1:]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        seen = {
            f"{screen} {scheme}": Visit(browser, url, screen, scheme, Path(folder)).run()
            for screen, scheme in (("desktop", "light"), ("phone", "dark"))
        }
        seen["closed tab"] = seconds_to_free_the_slot(browser, url)
        browser.close()
    print(json.dumps(seen))


main()
