"""A running playground, and a browser that shows its page."""

import time
from contextlib import contextmanager

from browser import Browser
from conftest import PATIENCE_S, PEERGATE, Program


@contextmanager
def playground(*arguments):
    program = Program([PEERGATE, "playground", *arguments], r"^(http://\S+)")
    try:
        yield program
    finally:
        program.stop()


@contextmanager
def shown(url, width=1280, height=720, theme="light"):
    """The page in a window of this size."""
    with Browser() as browser:
        page = browser.open("about:blank")
        page.show_as(width, height, theme)
        page.go(url)
        wait(page, "the first state", "document.body.dataset.step !== undefined")
        yield page


def wait(page, what, condition, *arguments):
    """Waits until the expression is true, and returns its value."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        value = page.run(f"const it = {condition}; return it instanceof Node || it", *arguments)
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"never seen: {what}; {page.run('return document.body.innerText')}")


BUTTON = "!document.body.hasAttribute('data-busy') && [...document.querySelectorAll('#room .card button')].some(it => it.textContent === a[0] && !it.disabled)"


def wait_for_button(page, label):
    wait(page, f"the button {label}", BUTTON, label)


def click_button(page, label):
    """Clicks a button of the card."""
    wait_for_button(page, label)
    page.click(f'#room [data-key="button {label}"]')


def step_number(page):
    return int(page.run("return document.body.dataset.step"))


def tick(page):
    """Lets the watcher tick, and waits until the page shows it."""
    before = step_number(page)
    page.run("document.querySelector('#tick').click()")
    wait(page, "the tick", "Number(document.body.dataset.step) > a[0]", before)


def person(page):
    return page.run("return document.querySelector('input[name=person]:checked')?.value")


def wait_for_state(page, state):
    wait(page, f"the state {state}", "document.body.dataset.state === a[0]", state)


def open_scenario(page, text):
    page.run("document.querySelector('#scenarios').showPopover(); document.querySelector('#open-text').value = a[0];", text)
    page.run("document.querySelector('#open').requestSubmit();")
    wait(page, f"the scenario {text}", "document.querySelector('.outline h3')")


def steps_played(page):
    """E.g. (2, 9)."""
    words = page.run("return document.querySelector('#step-of').textContent").split()
    return int(words[1]), int(words[3])
