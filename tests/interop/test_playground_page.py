"""The playground's page, in a real browser: `peergate playground`, and everything through its real functions."""

import base64
import json
import pathlib
import re
import urllib.request

import axe_playwright_python
import pytest
from browser import find_browser

from playground import (
    click_button,
    open_scenario,
    person,
    playground,
    shown,
    step_number,
    steps_played,
    tick,
    wait,
    wait_for_button,
    wait_for_state,
)

AXE = (pathlib.Path(axe_playwright_python.__path__[0]) / "axe.min.js").read_text()
STORIES = ["two", "forged", "replay", "late", "changed", "overlap", "bypass", "throttled", "contact"]
HOSTILE = "<!channel> <img src=x onerror=alert(1)> [pay](https://evil.example)"
TOKEN = re.compile(r"[0-9a-f]{32}")


@pytest.fixture
def server():
    find_browser()
    with playground() as program:
        yield program


@pytest.fixture
def page(server):
    with shown(server.url) as page:
        yield page
        # A refused request of the page itself would be one of these, too.
        assert page.problems == []
        foreign = [url for url in page.requests if not url.startswith(("http://127.0.0.1:", "data:", "about:"))]
        assert foreign == []


def test_three_clicks_lead_from_load_to_activated(page):
    page.click("#send")
    wait_for_button(page, "Approve")
    assert person(page) == "alice"
    click_button(page, "Approve")
    wait(page, "that Bob is chosen", "document.querySelector('input[value=bob]').checked")
    wait_for_button(page, "Approve")
    click_button(page, "Approve")
    wait_for_state(page, "activated")
    wait(page, "the end on the card", "document.querySelector('#room').innerText.includes('is Activated')")
    assert page.run("return document.querySelector('.private').innerText").startswith("Only Bob sees this")


@pytest.mark.parametrize("second", ["Approve", "Withdraw my approval"])
def test_click_without_a_new_approval_keeps_the_person(page, second):
    page.click("#send")
    click_button(page, "Approve")
    wait(page, "that Bob is chosen", "document.querySelector('input[value=bob]').checked")
    page.click("input[value=alice]")
    answered = page.run("return document.querySelector('.private').dataset.private")
    click_button(page, second)
    wait(page, "another answer", "document.querySelector('.private')?.dataset.private !== a[0]", answered)
    tick(page)
    assert person(page) == "alice"
    assert page.run("return document.querySelector('.private').innerText").startswith("Only Alice sees this")


def test_screen_reader_hears_answers_progress_and_the_end(page):
    page.run("window.heard = []; new MutationObserver(() => heard.push(document.querySelector('#announce').textContent)).observe(document.querySelector('#announce'), {childList: true, characterData: true, subtree: true})")
    page.click("#send")
    for name in ["alice", "bob"]:
        wait(page, f"that {name} is chosen", "document.querySelector(`input[value=${a[0]}]`).checked", name)
        click_button(page, "Approve")
    wait_for_state(page, "activated")
    heard = wait(page, "the end", "heard.some(it => it.includes('is activated')) && heard.join(' ')")
    for words in ["is pending, 0 of 2.", "Only Alice sees: Your approval of prod/", "is pending, 1 of 2.", "You now click as Bob.", "Only Bob sees: "]:
        assert words in heard, (words, heard)


def test_tabs_and_messages_have_names(page):
    page.click("#send")
    wait_for_button(page, "Approve")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    names = {(it["role"]["value"], it["name"]["value"]) for it in nodes if "name" in it and "role" in it}
    assert {("tab", "Slack 1 message"), ("article", "peergate in #netops")} <= names, [it for it in names if it[0] in ("tab", "article")]


def test_page_fits_a_laptop_and_drops_the_token(server, page):
    page.click("#send")
    wait_for_button(page, "Approve")
    assert page.run("return [document.documentElement.scrollHeight, document.documentElement.scrollWidth]") == [720, 1280]
    assert not TOKEN.search(page.run("return location.href"))
    loaded = page.run("return performance.getEntriesByType('resource').map(it => it.name)")
    assert any(url.endswith("/page/main.js") for url in loaded) and not TOKEN.search("\n".join(loaded))
    assert [url for url in page.requests if TOKEN.search(url)] == [server.url]
    place = page.run("const it = document.querySelector('#room [data-key=\"button Approve\"]').getBoundingClientRect(); return it.bottom")
    headline = page.run("return document.querySelector('#room .card').getBoundingClientRect().top")
    room = page.run("const it = document.querySelector('#room').getBoundingClientRect(); return [it.top, it.bottom]")
    assert room[0] <= headline and place <= room[1], "the card does not show from headline to buttons"


@pytest.mark.parametrize("story", STORIES)
def test_scenario_plays_to_its_end(page, story):
    open_scenario(page, f"#story={story}")
    played, steps = steps_played(page)
    assert played == 0 and not page.run("return document.body.dataset.state")
    while played < steps:
        page.click("#next")
        wait(page, f"step {played + 1}", "document.querySelector('#step-of').textContent.startsWith(`Step ${a[0]} `)", played + 1)
        wait(page, "the end of the step", "!document.body.hasAttribute('data-busy')")
        assert page.run("return document.querySelector('#problem').hidden"), page.run("return document.querySelector('#problem').innerText")
        played += 1
    wait(page, "what must be seen", "document.querySelector('.seen span') !== null")
    assert page.run("return document.querySelectorAll('.seen .bad').length") == 0
    assert page.run("return document.querySelector('#problem').hidden")


def test_scenario_plays_itself_and_stops_at_any_step(page):
    open_scenario(page, "#story=two")
    page.click("#play")
    wait(page, "two steps", "Number(document.querySelector('#step-of').textContent.split(' ')[1]) >= 2")
    page.click("#play")
    wait(page, "the button Play", "document.querySelector('#play').innerText.trim() === 'Play'")
    wait(page, "the end of the step", "document.querySelector('#next').getAttribute('aria-disabled') === 'false'")
    stopped, steps = steps_played(page)
    assert stopped < steps
    page.click("#next")
    wait(page, "the next step", "document.querySelector('#step-of').textContent.startsWith(`Step ${a[0]} `)", stopped + 1)


def test_shared_steps_are_shown_and_do_not_start(page):
    page.click("#send")
    wait_for_button(page, "Approve")
    click_button(page, "Approve")
    wait(page, "one approval", "document.querySelector('#room').innerText.includes('1 of 2')")
    page.click("#share")
    text = wait(page, "the share text", "document.body.dataset.copied")
    assert text.startswith("#play=") and "127.0.0.1" not in text and not TOKEN.search(text)
    open_scenario(page, text)
    assert steps_played(page) == (0, 2)
    assert "Nothing runs yet" in page.run("return document.querySelector('#room').innerText")
    with playground("--scenario", text) as other, shown(other.url) as second:
        assert steps_played(second) == (0, 2)
        assert second.run("return document.querySelector('#room .card') === null")


def test_shared_step_shows_everything_it_does(page):
    config = "# <img src=x onerror=alert(1)>\n[[rule]]\nname = \"all\u202e\u200b\"\n"
    actions = [
        {"do": "rules", "config": config},
        {"do": "request", "name": HOSTILE, "accepting_vpc": "vpc-secret"},
        {"do": "replay", "later_minutes": 77},
        {"do": "click", "by": "bob", "app": "feishu", "button": "Approve", "reason": "because\u061c"},
    ]
    text = base64.urlsafe_b64encode(json.dumps({"actions": actions}).encode()).decode().rstrip("=")
    open_scenario(page, f"#play={text}")
    assert page.run("return document.querySelectorAll('.outline details').length") == len(actions)
    page.run("for (const it of document.querySelectorAll('.outline summary')) it.click()")
    shown = page.run("return [...document.querySelectorAll('.outline dl')].map(it => it.innerText)")
    assert '<img src=x onerror=alert(1)>\n[[rule]]\nname = "all\\u{202e}\\u{200b}"' in shown[0]
    assert HOSTILE in shown[1] and "vpc-secret" in shown[1]
    assert "later_minutes" in shown[2] and "77" in shown[2]
    assert "because\\u{61c}" in shown[3] and "feishu" in shown[3]
    assert page.run("return document.querySelectorAll('#room img').length") == 0
    assert violations(page) == []
    page.run("document.querySelector('.outline summary').focus()")
    page.run("document.querySelector('#tick').click(); document.querySelector('input[value=bob]').click()")
    wait(page, "that Bob is chosen", "document.querySelector('input[value=bob]').checked")
    assert page.run("return document.querySelectorAll('.outline details[open]').length") == len(actions)


def test_field_for_share_texts_uses_its_row(page):
    page.click(".picker")
    width = wait(page, "the field", "document.querySelector('#open-text').getBoundingClientRect().width")
    assert width > 200


@pytest.mark.parametrize("platform", ["dingtalk", "teams"])
def test_click_in_another_tab_is_answered_privately(page, platform):
    page.click("#send")
    wait_for_button(page, "Approve")
    page.click(f"#tab-{platform}")
    wait(page, "its card", "document.querySelector(`#room .card-${a[0]}`)", platform)
    wait_for_button(page, "Approve")
    click_button(page, "Approve")
    wait(page, "one approval", "document.querySelector('#room').innerText.includes('1 of 2')")
    page.click("input[value=alice]")
    wait(page, "the private answer", "document.querySelector('.private .body')?.innerText")


ANNOUNCED = "document.querySelector('#announce').textContent.includes(a[0])"


@pytest.mark.parametrize("selector", ['#room [data-key="button Approve"]', "#tab-http", "#persons label:nth-of-type(2)"])
def test_events_while_the_mouse_is_down_lose_no_click(page, selector):
    page.click("#send")
    wait_for_button(page, "Approve")
    page.run("window.clicked = false; document.addEventListener('click', event => { clicked ||= event.target.closest(a[0]) !== null; }, true)", selector)
    page.hold_mouse(selector)
    page.run("document.querySelector('#kill-watcher').click()")
    wait(page, "the event", ANNOUNCED, "The watcher is killed")
    page.release_mouse()
    wait(page, "the click", "clicked")
    wait(page, "that it is shown", "document.querySelector('#kill-watcher').innerText === 'Start the watcher'")


@pytest.mark.parametrize("selector", ["#room .card", "#why .matrix", "#because"])
def test_events_leave_the_selection(page, selector):
    page.click("#send")
    wait_for_button(page, "Approve")
    wait(page, "the matrix", "document.querySelector('#why .matrix')")
    if selector == "#because":
        tick(page)
    selected = page.run("getSelection().selectAllChildren(document.querySelector(a[0])); return getSelection().toString()", selector)
    assert len(selected) > 20
    tick(page)
    assert page.run("return getSelection().toString()") == selected


@pytest.mark.parametrize("platform", ["slack", "feishu", "dingtalk", "teams"])
def test_contact_is_known_in_each_tab(page, platform):
    page.click("#send")
    wait_for_button(page, "Approve")
    page.click(f"#tab-{platform}")
    wait(page, "its card", "document.querySelector(`#room .card-${a[0]}`)", platform)
    page.click("input[value=erin]")
    wait_for_button(page, "Approve")
    click_button(page, "Approve")
    wait(page, "why not", "document.querySelector('.private')?.innerText.includes('contact')")
    page.click("input[value=bob]")
    assert "1 private answer is hidden: only the reader sees it." in page.run("return document.querySelector('#room').innerText")


def test_nothing_is_lit_before_anything_happens(page):
    page.run("document.querySelector('#tab-http').click()")
    page.run("document.querySelector('#tab-rules').click()")
    assert page.run("return document.querySelectorAll('.flow .lit, .flow .done, .flow .touched').length") == 0
    assert page.run("return document.querySelector('#tab-http').innerText") == "HTTP"
    heads = page.run("return [...document.querySelectorAll('.sides h3')].filter(it => it.checkVisibility()).map(it => it.innerText)")
    assert heads == ["Requester", "Accepting"]
    assert "clicks may get no answer" in page.run("return document.querySelector('[data-fault=slow]').innerText")


def choose_preset(page, name):
    page.run("const it = document.querySelector('#preset'); it.value = a[0]; it.dispatchEvent(new Event('change'))", name)


def type_reason(page, text):
    """Types where the platform of the chosen tab asks for a reason."""
    page.run(f"const it = {FIELD}; it.focus(); it.value = a[0]; it.dispatchEvent(new Event('input'))", text)


FIELD = "[...document.querySelectorAll('#room [data-key^=\"field \"], dialog [data-key^=\"field \"]')].find(it => it.checkVisibility())"


@pytest.mark.parametrize("platform", ["slack", "feishu", "teams", "dingtalk"])
def test_click_with_a_reason_counts(page, platform):
    choose_preset(page, "reason")
    page.click("#send")
    wait_for_button(page, "Approve")
    page.click(f"#tab-{platform}")
    wait(page, "its card", "document.querySelector(`#room .card-${a[0]}`)", platform)
    if platform == "slack":
        click_button(page, "Approve")
        wait(page, "the dialog", "document.querySelector('dialog.in-chat[open]')")
    if platform == "teams":
        page.click('[data-key="open Approve"]')
    wait(page, "the field", FIELD)
    type_reason(page, "The data team moves its reports")
    where = "dialog.in-chat" if platform == "slack" else "#room"
    page.click(f'{where} [data-key="button Approve"]')
    wait_for_state(page, "activated")
    page.click("#tab-record")
    wait(page, "the reason in the record", "document.querySelector('#why').innerText.includes('The data team moves its reports')")


DIALOG = "document.querySelector('dialog.in-chat[open]')"


def share(page):
    page.run("delete document.body.dataset.copied")
    page.click("#share")
    return wait(page, "the share text", "document.body.dataset.copied")


def play_step(page):
    """Presses Step, and waits until the step has ended."""
    played, _ = steps_played(page)
    page.click("#next")
    wait(page, f"step {played + 1}", "document.querySelector('#step-of').textContent.startsWith(`Step ${a[0]} `)", played + 1)
    wait(page, "the end of the step", "!document.body.hasAttribute('data-busy')")


def test_problem_is_gone_after_the_next_success(page):
    script = "document.querySelector('#open-text').value = a[0]; document.querySelector('#open').requestSubmit()"
    for text, words in [("#story=none", "no scenario of that name"), ("x" * 300_000, "too large")]:
        page.run(script, text)
        wait(page, "the problem", "document.querySelector('#problem-text').textContent.includes(a[0])", words)
    open_scenario(page, "#story=two")
    wait(page, "that the problem is gone", "document.querySelector('#problem').hidden")
    # The browser itself logs a refusal.
    page.problems.clear()


@pytest.mark.parametrize("button", ["#play", "#next"])
def test_press_without_a_scenario_shows_one_and_waits(page, button):
    page.click(button)
    wait(page, "the scenario", "document.querySelector('.outline h3')")
    wait(page, "an idle page", "!document.body.hasAttribute('data-busy')")
    assert steps_played(page) == (0, 9)
    page.click(button)
    wait(page, "the first step", "Number(document.querySelector('#step-of').textContent.split(' ')[1]) >= 1")


@pytest.mark.parametrize("button", ["#play", "#next"])
def test_press_in_free_play_deletes_nothing(page, button):
    page.click("#send")
    wait_for_button(page, "Approve")
    page.click(button)
    wait(page, "the list of scenarios", "document.querySelector('#scenarios').matches(':popover-open')")
    tick(page)
    assert page.run("return document.querySelectorAll('#room .card').length") == 1


def test_play_stops_at_the_step_of_the_sender(page):
    open_scenario(page, "#story=two&step=2")
    assert page.run("return document.querySelector('#step-of').innerText") == "Step 0 of 9 (shared at step 2)"
    page.click("#play")
    wait(page, "that Play stops", "document.querySelector('#announce').textContent.includes('Stopped at step 2')")
    wait(page, "the button Play", "document.querySelector('#play').innerText.trim() === 'Play'")
    assert steps_played(page) == (2, 9)


def test_dialog_leaves_the_scenario_its_buttons_and_keys(page):
    choose_preset(page, "reason")
    page.click("#send")
    click_button(page, "Approve")
    wait(page, "the dialog", DIALOG)
    type_reason(page, "Reports move")
    page.click('dialog.in-chat [data-key="button Approve"]')
    wait_for_state(page, "activated")
    open_scenario(page, share(page))
    play_step(page)
    wait_for_button(page, "Approve")
    play_step(page)
    wait(page, "the dialog", DIALOG)
    page.press("p")
    wait(page, "that P plays", "document.querySelector('#play').innerText.trim() === 'Stop' || document.body.dataset.state === 'activated'")
    wait(page, "that the dialog is closed", f"!{DIALOG}")
    wait_for_state(page, "activated")


def test_what_was_seen_belongs_to_its_step(page):
    open_scenario(page, "#story=two")
    play_step(page)
    play_step(page)
    wait(page, "what was seen", "document.querySelector('.seen span')")
    page.run("window.under = []; new MutationObserver(() => under.push(document.querySelector('#because').innerText)).observe(document.querySelector('#because'), {childList: true})")
    play_step(page)
    wait(page, "what was seen", "document.querySelector('.seen span')")
    shown = page.run("return under")
    assert any("forges" in it for it in shown)
    assert not [it for it in shown if "forges" in it and "Feishu has the card" in it], shown


@pytest.mark.parametrize("platform", ["feishu", "dingtalk"])
def test_news_leave_what_was_typed(page, platform):
    choose_preset(page, "reason")
    page.click("#send")
    wait_for_button(page, "Approve")
    page.click(f"#tab-{platform}")
    wait(page, "its field", FIELD)
    type_reason(page, "Half a sen")
    page.run("const it = " + FIELD + "; it.setSelectionRange(4, 6)")
    tick(page)
    kept = page.run(f"const it = {FIELD}; return [it.value, it.selectionStart, it.selectionEnd, it === document.activeElement]")
    assert kept == ["Half a sen", 4, 6, True]


def test_narrow_window_shows_what_it_must(server):
    with shown(server.url, 1024, 700) as page:
        open_scenario(page, "#story=two")
        play_step(page)
        play_step(page)
        boxes = "return [...document.querySelectorAll(a[0])].filter(it => it.checkVisibility()).map(it => { const box = it.getBoundingClientRect(); return [box.left, box.right]; })"
        for selector in ["#platforms [role=tab]", "#whys [role=tab]", "#why .head > *", ".top > *", ".kill > *"]:
            found = page.run(boxes, selector)
            assert len(found) > 2 and all(one[1] <= other[0] for one, other in zip(found, found[1:])), (selector, found)
            assert found[-1][1] <= 1024, (selector, found)
        page.click("#tab-audit")
        tabs, audit = page.run(boxes, "#platforms")[0], page.run(boxes, "#tab-audit")[0]
        assert tabs[0] <= audit[0] and audit[1] <= tabs[1] + 1
        assert page.run("return ['#step-of', '#ticked'].map(it => document.querySelector(it).innerText)") == ["Step 2 of 9", "Watcher: runs"]


def test_hostile_name_neither_runs_nor_links(page):
    choose_preset(page, "hostile")
    assert page.run("return document.querySelector('#name').value") == HOSTILE
    page.click("#send")
    wait_for_button(page, "Approve")
    for view in ["card", "body"]:
        page.click(f"input[name=view][value={view}]")
        for tab in ["#tab-slack", "#tab-feishu", "#tab-dingtalk", "#tab-teams"]:
            page.click(tab)
            wait(page, "the name", "document.querySelector('#room').innerText.includes('onerror')")
            assert page.run("return document.querySelectorAll('img, [onerror], a[href*=evil]').length") == 0
    for tab in ["#tab-record", "#tab-http"]:
        page.click(tab)
        assert page.run("return document.querySelectorAll('img, [onerror], a[href*=evil]').length") == 0
    # An alert would stop the page.
    assert "Page.javascriptDialogOpening" not in page.events


def test_events_of_any_shape_are_shown(server, page):
    exported = page.run("return (await (await fetch('/api/export', {headers: {'x-playground-token': a[0]}})).json()).secrets", TOKEN.search(server.url).group())
    for event in ["null", "[]", "3", '{"type": {"toString": 1}, "data": {"summary": null}}']:
        urllib.request.urlopen(exported["channels"]["audit"]["url"], data=event.encode()).close()
    page.click("#tab-audit")
    wait(page, "four events", "document.querySelectorAll('#room details').length === 4")
    page.click("#send")
    page.click("#tab-slack")
    wait_for_button(page, "Approve")


def test_long_text_is_painted_at_once(page):
    # With a search that is quadratic, this takes many minutes.
    nodes = page.run("const { painted } = await import(a[0]); return painted('\"\\\\'.repeat(500000)).length", "/page/dom.js")
    assert nodes > 0


def tab_to(page, condition):
    """Presses Tab until the focus is there."""
    for _ in range(120):
        if page.run(f"const it = document.activeElement; return {condition}"):
            return
        page.press("Tab")
    raise AssertionError(f"Tab does not lead to {condition}: {page.run('return document.activeElement.outerHTML')}")


def test_everything_can_be_done_by_keyboard(page):
    tab_to(page, "it.className === 'skip'")
    tab_to(page, "it.id === 'send'")
    page.press("Enter")
    wait_for_button(page, "Approve")
    for name in ["alice", "bob"]:
        wait(page, f"that {name} is chosen", "document.querySelector(`input[value=${a[0]}]`).checked", name)
        wait_for_button(page, "Approve")
        tab_to(page, "it.dataset.key === 'button Approve'")
        page.press("Enter")
    wait_for_state(page, "activated")
    page.press("F6")
    page.press("ArrowRight")
    wait(page, "the record", "document.querySelector('#tab-record').getAttribute('aria-selected') === 'true'")
    page.press("?")
    wait(page, "the list of keys", "document.querySelector('#help').open")
    page.press("Escape")
    wait(page, "that the list is closed", "!document.querySelector('#help').open")


FOCUSED = "document.activeElement.dataset.key ?? document.activeElement.id"


def focused(page):
    return page.run(f"return {FOCUSED}")


def press_on(page, selector, key="Enter"):
    page.run("document.querySelector(a[0]).focus()", selector)
    page.press(key)


def test_step_keeps_the_focus_to_its_end(page):
    open_scenario(page, "#story=bypass")
    for _ in range(steps_played(page)[1]):
        played = steps_played(page)[0]
        press_on(page, "#next")
        wait(page, "the step", "document.querySelector('#step-of').textContent.startsWith(`Step ${a[0]} `)", played + 1)
        wait(page, "its end", "!document.body.hasAttribute('data-busy')")
        assert focused(page) == "next"


def test_mark_of_the_time_keeps_the_focus(page):
    page.click("#send")
    wait_for_button(page, "Approve")
    wait(page, "the marks", "document.querySelectorAll('#marks button').length === 5")
    press_on(page, '[data-key="mark Reminder"]')
    wait(page, "that it is past", "document.querySelector('[data-key=\"mark Reminder\"]').className === 'past'")
    assert focused(page) == "mark Reminder"


def test_decision_keeps_the_focus_or_leads_to_the_answer(page):
    page.click("#send")
    wait_for_button(page, "Approve")
    page.click("#send")
    wait(page, "two cards", "document.querySelectorAll('#room article').length === 2")
    press_on(page, "#room article:last-of-type [data-key='button Approve']")
    wait(page, "one approval", "document.querySelector('#room article:last-of-type').innerText.includes('1 of 2')")
    assert focused(page) == "button Approve"
    assert page.run("return document.activeElement.closest('article') === document.querySelector('#room article:last-of-type')")
    page.press("Enter")
    wait_for_state(page, "activated")
    wait(page, "the end on the card", "document.querySelector('#room article:last-of-type').innerText.includes('is Activated')")
    assert page.run("return document.activeElement.closest('.private') !== null"), page.run("return document.activeElement.outerHTML")


def test_sent_dialog_leads_to_the_answer(page):
    choose_preset(page, "reason")
    page.click("#send")
    wait_for_button(page, "Approve")
    press_on(page, '#room [data-key="button Approve"]')
    wait(page, "the dialog", DIALOG)
    type_reason(page, "Reports move")
    press_on(page, 'dialog.in-chat [data-key="button Approve"]')
    wait(page, "the end on the card", "document.querySelector('#room').innerText.includes('is Activated')")
    assert page.run("return document.querySelector('#room').contains(document.activeElement)"), page.run("return document.activeElement.outerHTML")


def test_tampering_breaks_the_proof_of_a_copy(page):
    page.click("#send")
    click_button(page, "Approve")
    wait(page, "an entry of the decision", "document.querySelector('#tab-record').innerText.includes('2')")
    page.click("#tab-record")
    wait(page, "the proof", "document.querySelector('.proof.holds')")
    page.click(".proof button")
    words = wait(page, "the broken proof", "document.querySelector('.proof.broken .says')?.textContent")
    assert "entry 1 does not follow from those before it" in words
    page.click(".proof button")
    wait(page, "that it holds again", "document.querySelector('.proof.holds')")


def test_wrong_rules_are_named_and_not_applied(page):
    page.click("#send")
    wait_for_button(page, "Approve")
    script = "const it = document.querySelector('.editor textarea'); it.value = it.value.replace(a[0], a[1]); it.dispatchEvent(new Event('input'))"
    page.run(script, "approvals = 2", "approvals = true")
    words = wait(page, "what is wrong", "document.querySelector('#verdict.wrong')?.innerText")
    assert "rule" in words and "line " in words and "approvals" in words
    page.run(script, "approvals = true", "aprovals = 2")
    words = wait(page, "the hint first", "document.querySelector('#verdict .says').textContent.includes('mean') && document.querySelector('#verdict .says').textContent")
    assert words.startswith("Not in force: the old rules are. Did you mean `approvals`? rule[0].aprovals, line ")
    heights = page.run("return ['#verdict', '.editor'].map(it => document.querySelector(it).clientHeight)")
    assert heights[0] < heights[1] and heights[0] < 64, heights
    wait(page, "its line", "(() => { const [line, editor] = ['.editor .wrong', '.editor'].map(it => document.querySelector(it).getBoundingClientRect()); return editor.top <= line.top && line.bottom <= editor.bottom; })()")
    page.run("document.querySelector('.editor').scrollTop = 0")
    page.click("#verdict button")
    assert page.run("const it = document.querySelector('.editor textarea'); return it === document.activeElement && it.value.slice(it.selectionStart)").startswith("aprovals = 2")
    page.run(script, "aprovals = 2", "approvals = true")
    wait(page, "what is wrong", "document.querySelector('#verdict').innerText.includes('true')")
    assert page.run("return document.querySelector('#verdict .primary').disabled")
    page.run(script, "approvals = true", "approvals = 3")
    wait(page, "that it is valid", "document.querySelector('#verdict').innerText.includes('Valid')")
    page.click("#verdict .primary")
    wait(page, "the new rule on the card", "document.querySelector('#room').innerText.includes('of 3 approvals')")


def test_http_list_scrolls_to_the_message_of_the_step(page):
    open_scenario(page, "#story=two")
    page.click("#tab-http")
    for _ in range(4):
        play_step(page)
    shown = """(() => {
        const [list, chosen] = ['.wire .list', '.call[aria-current]'].map(it => document.querySelector(it).getBoundingClientRect());
        return list.height < document.querySelector('.wire .list').scrollHeight && list.top <= chosen.top && chosen.bottom <= list.bottom;
    })()"""
    wait(page, "the message of the step", shown)


@pytest.mark.parametrize("field, text", [("cidr", "10.0.0.0/99"), ("bandwidth", "-5"), ("bandwidth", "many"), ("accepting-vpc", "payments")])
def test_refused_request_is_an_error_at_its_field(page, field, text):
    page.run("const it = document.querySelector(`#${a[0]}`); window.before = it.value; it.value = a[1]", field, text)
    page.click("#send")
    wait(page, "the error", "document.querySelector(`#${a[0]}-error`)?.textContent", field)
    assert page.run("return document.activeElement.id") == field
    assert page.run("return document.querySelector('#problem').hidden")
    wait(page, "that it reads as not done", "document.querySelector('#because').innerText.startsWith('Not done: ')")
    page.run("document.querySelector(`#${a[0]}`).value = before", field)
    page.click("#send")
    wait_for_button(page, "Approve")
    assert page.run("return document.querySelectorAll('.error, [aria-invalid]').length") == 0
    # The browser itself logs a refusal.
    page.problems.clear()


def test_killed_watcher_has_not_found_the_request(page):
    page.click("#kill-watcher")
    wait(page, "that it is killed", "document.querySelector('#ticked').innerText === 'Watcher: killed'")
    page.click("#send")
    wait(page, "the words", "document.querySelector('#room').innerText.includes('has not found the request yet')")
    page.click("#kill-watcher")
    wait_for_button(page, "Approve")


@pytest.mark.parametrize("account", ["1111111111111111", "3333333333333333"])
def test_request_of_each_account_can_be_changed(page, account):
    page.run("document.querySelector('#account').value = a[0]", account)
    page.click("#send")
    wait(page, "the card", "document.querySelector('#room .card')")
    page.click("#change")
    wait(page, "the new bandwidth on the card", "document.querySelector('#room .card').innerText.includes('Bandwidth: 2048 Mbit/s')")


def test_each_change_of_the_bandwidth_changes_it(page):
    page.click("#send")
    wait_for_button(page, "Approve")
    for words, value in [("Change to 2048 Mbit/s", 2048), ("Change to 1024 Mbit/s", 1024), ("Change to 2048 Mbit/s", 2048)]:
        assert page.run("return document.querySelector('#change').innerText") == words
        page.click("#change")
        wait(page, "the new bandwidth on the card", "document.querySelector('#room .card').innerText.includes(`Bandwidth: ${a[0]} Mbit/s`)", value)
        wait(page, "the next one", "document.querySelector('#change').innerText !== a[0]", words)
    page.run("const it = document.querySelector('#bandwidth'); it.value = '300'; it.dispatchEvent(new Event('input'))")
    page.click("#change")
    wait(page, "the edited bandwidth on the card", "document.querySelector('#room .card').innerText.includes('Bandwidth: 300 Mbit/s')")


def test_keys_of_the_clock_make_one_step_when_it_is_sent(page):
    page.click("#send")
    wait_for_button(page, "Approve")
    wait(page, "the marks", "document.querySelectorAll('#marks button').length === 5")
    before = step_number(page)
    page.run("document.querySelector('#slider').focus()")
    for _ in range(3):
        page.press("ArrowRight")
    chosen = page.run("return Number(document.querySelector('#slider').value)")
    assert 145 < chosen < 160 and step_number(page) == before
    page.press("Enter")
    wait(page, "the step", "Number(document.body.dataset.step) > a[0]", before)
    assert step_number(page) == before + 1
    moved = "Math.abs(Number(document.querySelector('#slider').value) - a[0]) < 3 && document.activeElement.id === 'slider'"
    wait(page, "the new time on the focused slider", moved, chosen)
    page.press("End")
    assert step_number(page) == before + 1
    page.press("Tab")
    wait_for_state(page, "expired")


def test_deletion_says_what_it_waits_for(page):
    page.click("#send")
    wait_for_button(page, "Approve")
    page.click("[data-act=delete]")
    wait(page, "that it cannot be deleted twice", "document.querySelector('[data-act=delete]').disabled")
    assert "second reading, a minute later" in page.run("return document.querySelector('#acts-note').innerText")
    page.run("const it = document.querySelector('#slider'); it.value = 10; for (const kind of ['input', 'change']) it.dispatchEvent(new Event(kind))")
    wait_for_state(page, "deleted")
    wait(page, "that nothing is left to say", "document.querySelector('#acts-note').innerText === ''")


def test_moved_clock_reminds_and_expires(page):
    page.click("#send")
    wait_for_button(page, "Approve")
    wait(page, "the marks", "document.querySelectorAll('#marks button').length === 5")
    page.click('[data-key="mark Reminder"]')
    wait(page, "a reminder", "document.querySelector('#room').innerText.includes('has been pending')")
    page.run("document.querySelector('[data-act=expire]').click()")
    wait_for_state(page, "expired")


def test_escalation_shows_its_channel_and_can_be_clicked(page):
    page.click("#send")
    wait_for_button(page, "Approve")
    wait(page, "the marks", "document.querySelectorAll('#marks button').length === 5")
    page.click('[data-key="mark Escalation"]')
    oncall = "document.querySelector('#room article[aria-label=\"peergate in #oncall\"]')"
    wait(page, "the escalation", oncall)
    assert page.run("return document.querySelector('#room .day').textContent") == "also in #oncall"
    wait(page, "an idle page", "!document.body.hasAttribute('data-busy')")
    page.run(f"{oncall}.querySelector('[data-key=\"button Approve\"]').click()")
    wait(page, "the approval", "document.querySelector('input[value=bob]').checked")


def test_killed_webhook_leaves_the_call_to_the_watcher(page):
    page.click("#send")
    click_button(page, "Approve")
    wait(page, "that Bob is chosen", "document.querySelector('input[value=bob]').checked")
    page.click("#kill-webhook")
    wait(page, "that it is armed", "document.querySelector('#kill-webhook').getAttribute('aria-pressed') === 'true'")
    click_button(page, "Approve")
    wait_for_state(page, "activated")
    page.click("#tab-http")
    statuses = page.run("return [...document.querySelectorAll('.call')].filter(it => it.innerText.includes('/slack')).map(it => it.querySelector('.status').textContent)")
    assert statuses == ["200", "502"]


def test_lost_connection_is_an_alert(server, page):
    server.stop()
    wait(page, "the alert", "!document.querySelector('#lost').hidden")
    assert page.run("return document.querySelector('#live').textContent") == "not connected"
    page.click("#send")
    words = wait(page, "the problem", "!document.querySelector('#problem').hidden && document.querySelector('#problem').innerText")
    assert "open the address that it prints" in words and "fetch" not in words
    # The browser itself logs that it cannot connect.
    page.problems.clear()


def violations(page):
    page.call("Runtime.evaluate", expression=AXE)
    found = page.run("return (await axe.run(document, {resultTypes: ['violations']})).violations")
    grave = [it for it in found if it["impact"] in ("serious", "critical")]
    return [(it["id"], [node["html"][:160] for node in it["nodes"][:3]]) for it in grave]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(server, theme):
    with shown(server.url, theme=theme) as page:
        assert violations(page) == []
        page.click("#send")
        click_button(page, "Approve")
        wait(page, "that Bob is chosen", "document.querySelector('input[value=bob]').checked")
        assert violations(page) == []
        page.click("#tab-feishu")
        page.click("#tab-record")
        page.click(".proof button")
        wait(page, "the broken proof", "document.querySelector('.proof.broken')")
        assert violations(page) == []
        page.click("#tab-http")
        page.click("#tab-audit")
        assert violations(page) == []
        assert page.problems == []


