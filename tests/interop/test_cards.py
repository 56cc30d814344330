"""The playground's cards, in a real browser, from bodies of the program: `cards/record.rs` records them.

`PEERGATE_CARD_PICTURES=<folder>` also takes pictures of every state, to look at.
"""

import functools
import http.server
import json
import os
import pathlib
import re
import threading
import urllib.parse

import pytest
from browser import Browser

ROOT = pathlib.Path(__file__).resolve().parents[2]
CARDS = ROOT / "src" / "local" / "playground" / "page" / "cards"
HERE = pathlib.Path(__file__).parent / "cards"
PLATFORMS = ["slack", "feishu", "teams", "dingtalk"]
BODIES = {platform: json.loads((HERE / f"{platform}.json").read_text()) for platform in PLATFORMS}
STATES = ["pending", "half", "activated", "rejected", "bypass", "overlap", "no_rule", "hostile", "reason_required"]
STATES += ["alarm", "details"]
EACH = [pytest.param(platform, state, id=f"{platform}-{state}") for platform in PLATFORMS for state in STATES]
# As the playground's page: no inline script or style, and nothing from elsewhere.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"

# Draws a card as the only one, and keeps what it is told.
DRAW = """
const module = await import(`/${a[0]}.js`);
const [, body, options = {}, how = 'render'] = a;
window.clicks = [];
window.actions = {click: click => clicks.push(click), close: () => clicks.push('closed'), ...options};
window.element = module[how](body, actions);
document.querySelector('main').replaceChildren(element);
return element.innerText;
"""


@pytest.fixture(scope="session", autouse=True)
def built():
    """Cards need a browser, and none of the programs that the other tests need."""


@pytest.fixture(scope="module")
def site():
    """Serves the modules and the page for them."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path):
            name = urllib.parse.urlsplit(path).path.strip("/") or "page.html"
            return str(next((it / name for it in [CARDS, HERE] if (it / name).is_file()), HERE / "missing"))

        def end_headers(self):
            self.send_header("content-security-policy", POLICY)
            super().end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture
def page(browser, site):
    page = browser.open(site)
    page.show_as(width=800)
    page.site = site
    yield page
    problems, requests = page.problems, page.requests
    page.close()
    assert not problems
    foreign = [url for url in requests if not url.startswith((site, "data:"))]
    assert not foreign, "a card fetches nothing"


def draw(page, platform, body, how="render", **options):
    """Draws a card; returns its visible text."""
    return page.run(DRAW, platform, body, options, how)


def clicks(page):
    return page.run("return clicks.splice(0)")


def labels(page):
    return page.run("return [...element.querySelectorAll('button')].filter(it => it.checkVisibility()).map(it => it.innerText)")


def strings(value):
    """Every text in a body, without those that are not for people."""
    if isinstance(value, dict):
        hidden = {"type", "tag", "style", "action_id", "value", "url", "default_url", "template", "name", "id", "verb"}
        hidden |= {"$schema", "schema", "version", "summary", "fallback", "data", "behaviors", "errorMessage", "width"}
        hidden |= {"width_mode", "flex_mode", "form_action_type", "input_type", "spacing", "weight", "size", "fontType"}
        hidden |= {"user_id", "entities", "placeholder", "card"}
        # Slack's text is for notifications.
        hidden |= {"text"} if "blocks" in value else set()
        return [text for key, part in value.items() if key not in hidden for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def shown_lines(platform, body):
    """What a person has to see of a body, line by line."""
    if platform == "dingtalk":
        variables = body["cardParamMap"]
        texts = [text for name, text in variables.items() if name == "title" or name.startswith("body_")]
        texts += [variables[name] for name in ["reason_label", "link_label"] if name in variables]
    else:
        texts = strings(body)
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    return [line for line in lines if line != "```" and "<at" not in line.removesuffix("</at>") or "evil" in line]


def squeezed(text):
    return re.sub(r"\s+", " ", text.replace("\u00a0", " ").replace("\u200b", "")).strip()


@pytest.mark.parametrize(("platform", "state"), EACH)
def test_card_shows_all_text(page, platform, state):
    body = BODIES[platform][state]
    shown = squeezed(draw(page, platform, body))
    missing = [line for line in shown_lines(platform, body) if squeezed(line) not in shown]
    assert not missing
    assert page.run("return element.className") == f"card card-{platform}"
    assert page.run("return element.querySelectorAll('.card-unknown').length") == 0


@pytest.mark.parametrize("platform", PLATFORMS)
def test_buttons_follow_the_state(page, platform):
    def shown(state):
        draw(page, platform, BODIES[platform][state])
        return sorted(label.rstrip(" ▾") for label in labels(page))

    assert shown("pending") == ["Approve", "Details", "Reject"]
    assert shown("half") == ["Approve", "Details", "Reject", "Withdraw my approval"]
    assert shown("overlap") == ["Approve", "Details", "Reject"]
    assert shown("activated") == shown("rejected") == shown("bypass") == []
    assert page.run("return element.querySelector('a').href").startswith("https://vpc.console.aliyun.com/")


# What runs, loads, links or mentions.
DANGER = "script, style, img, iframe, object, embed, svg, math, base, meta, form, [style], [onerror], [onload], [onclick]"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_hostile_text_neither_runs_links_nor_mentions(page, platform):
    shown = draw(page, platform, BODIES[platform]["hostile"])
    assert "<img src=x onerror=" in shown and "[free](https://evil.example/)" in shown and "**b** `c`" in shown
    assert page.run("return element.querySelectorAll(a[0]).length", DANGER) == 0
    assert page.run("return [...element.querySelectorAll('a')].map(it => new URL(it.href).host)") == [
        "vpc.console.aliyun.com"
    ]
    assert page.run("return element.querySelectorAll('.card-mention, b b, code').length") == 0
    assert page.run("return 'ran' in window") is False


@pytest.mark.parametrize("platform", PLATFORMS)
def test_hostile_values_of_a_body_stay_text(page, platform):
    """Wherever a text of a body stands: also where peergate puts only its own."""

    def poisoned(value, key=None):
        if isinstance(value, dict):
            return {name: poisoned(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [poisoned(part, key) for part in value]
        if key in ("type", "tag") or key and key.startswith(("can_", "has_")):
            return value
        if key in ("url", "default_url", "link_url"):
            return "javascript:window.ran=1"
        return '"><img src=x onerror=window.ran=1><a href=https://evil.example/>x</a>' if isinstance(value, str) else value

    for state in STATES:
        draw(page, platform, poisoned(BODIES[platform][state]), names={})
        assert page.run("return element.querySelectorAll(a[0] + ', a').length", DANGER) == 0
        page.run("element.querySelectorAll('button').forEach(it => it.click())")
    assert page.run("return 'ran' in window") is False


@pytest.mark.parametrize("platform", PLATFORMS)
def test_mentions_are_those_of_the_body(page, platform):
    expected = {
        "slack": ["@U061F7AUR"],
        "feishu": ["@ou_2840498f54cfa60477d0edcf39319ae2"],
        "teams": ["@approver 1"],
        "dingtalk": [],
    }
    draw(page, platform, BODIES[platform]["alarm"])
    script = "return [...element.querySelectorAll('.card-mention')].map(it => it.innerText)"
    assert page.run(script) == expected[platform]
    if platform == "slack":
        draw(page, platform, BODIES[platform]["alarm"], names={"U061F7AUR": "alice"})
        assert page.run(script) == ["@alice"]


def find_all(value, **wanted):
    found = [value] if isinstance(value, dict) and wanted.items() <= value.items() else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return found + [it for part in parts for it in find_all(part, **wanted)]


def button(label):
    return f'[data-key="button {label}"]'


def test_click_in_slack_is_a_block_action(page):
    body = BODIES["slack"]["half"]
    draw(page, "slack", body)
    sent = {one["text"]["text"]: one for one in find_all(body, type="button")}
    for label, one in sent.items():
        page.click(button(label))
        value = {"action_id": one["action_id"], "value": one["value"]}
        assert clicks(page) == [{"label": label, "value": value, "reason": None}]
    assert len(sent) == 4
    body["blocks"][-1]["block_id"] = "B1"
    draw(page, "slack", body)
    page.click(button("Details"))
    assert clicks(page)[0]["value"]["block_id"] == "B1"


def open_modal(page, body, **options):
    draw(page, "slack", body, "renderModal", **options)
    page.run("element.showModal()")


def test_modal_of_slack_sends_its_state(page):
    modal = BODIES["slack"]["reason_modal"]
    open_modal(page, modal)
    assert page.run("return document.activeElement.tagName") == "TEXTAREA", "the field has the focus"
    page.click(button("Approve"))
    assert clicks(page) == []
    assert "Fill in this field." in page.run("return element.innerText")
    assert page.run("return document.activeElement.getAttribute('aria-invalid')") == "true"
    page.write("ticket 42")
    assert "Fill in this field." not in page.run("return element.innerText")
    page.click(button("Approve"))
    values = {"reason": {"reason": {"type": "plain_text_input", "value": "ticket 42"}}}
    value = {"callback_id": modal["callback_id"], "private_metadata": "metadata", "state": {"values": values}}
    assert clicks(page) == [{"label": "Approve", "value": value, "reason": "ticket 42"}]
    page.run("(await import('/slack.js')).showErrors(element, {reason: 'Give a reason. <b>'})")
    assert "⚠ Give a reason. <b>" in page.run("return element.innerText")
    assert page.run("return element.querySelector('textarea').value") == "ticket 42"
    page.press("Escape")
    # The browser sends the event later.
    closed = "while (!clicks.length) await new Promise(done => setTimeout(done)); return clicks.splice(0)"
    assert page.run(closed) == ["closed"]
    open_modal(page, modal, skipChecks=True)
    page.click(button("Approve"))
    assert clicks(page)[0]["value"]["state"]["values"]["reason"]["reason"]["value"] is None
    open_modal(page, BODIES["slack"]["reply_modal"])
    assert labels(page) == ["✕", "Close"]


def test_text_of_slack_is_unescaped_and_literal(page):
    shown = draw(page, "slack", {"text": "a &lt;!channel&gt; &amp;amp; <b>"}, "renderText")
    assert shown.strip() == "a <!channel> &amp; (<b>)" or "<!channel> &amp;" in shown
    assert page.run("return element.querySelectorAll('.card-mention, a').length") == 0
    draw(page, "slack", {"text": "*now* `x` <https://example.com/|here> <@U1> <javascript:x|y>"}, "renderText")
    assert page.run("return [...element.querySelectorAll('b, code, a, .card-mention')].map(it => it.innerText)") == [
        "now",
        "x",
        "here",
        "@U1",
    ]


def test_click_in_feishu_carries_the_form(page):
    body = BODIES["feishu"]["half"]
    draw(page, "feishu", body)
    elements = {one["text"]["content"]: one for one in find_all(body, tag="button")}
    for label in ["Approve", "Withdraw my approval", "Details"]:
        page.click(button(label))
        own = elements[label]
        value = {"value": own["behaviors"][0]["value"], "name": own["name"]}
        assert clicks(page) == [{"label": label, "value": value, "reason": None}]
    page.click("textarea")
    page.write("not ours\nto share")
    page.click(button("Reject"))
    own = elements["Reject"]
    value = {"value": own["behaviors"][0]["value"], "name": own["name"], "form_value": {"reason": "not ours\nto share"}}
    assert clicks(page) == [{"label": "Reject", "value": value, "reason": "not ours\nto share"}]


def required(platform):
    """A body whose reason is required."""
    body = json.loads(json.dumps(BODIES[platform]["reason_required"]))
    for field in find_all(body, tag="input"):
        field["required"] = True
    return body


def test_required_reason_in_feishu_is_asked_for_at_its_field(page):
    draw(page, "feishu", required("feishu"))
    page.click(button("Approve"))
    assert clicks(page) == [] and "⚠ Fill in this field." in page.run("return element.innerText")
    page.write("ticket 42")
    page.click(button("Approve"))
    assert clicks(page)[0]["value"]["form_value"] == {"reason": "ticket 42"}
    draw(page, "feishu", required("feishu"), skipChecks=True)
    page.click(button("Approve"))
    assert clicks(page)[0]["value"]["form_value"] == {"reason": ""}


def test_click_in_teams_merges_the_inputs(page):
    body = BODIES["teams"]["half"]
    draw(page, "teams", body)
    data = {one["title"]: one["data"] for one in find_all(body, type="Action.Execute")}
    for label in ["Approve", "Withdraw my approval", "Details"]:
        page.click(button(label))
        assert clicks(page) == [{"label": label, "value": {"verb": "peergate", "data": data[label]}, "reason": None}]
    page.click('[data-key="open Reject"]')
    assert page.run("return document.activeElement.tagName") == "TEXTAREA", "the field has the focus"
    page.write("not ours")
    page.click(button("Reject"))
    value = {"verb": "peergate", "data": {**data["Reject"], "reason": "not ours"}}
    assert clicks(page) == [{"label": "Reject", "value": value, "reason": "not ours"}]
    page.press("Escape")
    assert page.run("return document.activeElement.dataset.key") == "open Reject"
    assert page.run("return element.querySelector('.card-show').hidden")


def test_required_reason_in_teams_is_asked_for_at_its_field(page):
    draw(page, "teams", BODIES["teams"]["reason_required"])
    page.click('[data-key="open Reject"]')
    page.click('[data-key="open Approve"]')
    assert page.run("return element.querySelectorAll('.card-show:not([hidden])').length") == 1
    page.click(f"[aria-label=Approve] {button('Approve')}")
    assert clicks(page) == [] and "⚠ Give a reason." in page.run("return element.innerText")
    page.write("ticket 42")
    page.press("Tab")
    page.press("Enter")
    assert clicks(page)[0]["value"]["data"]["approve_reason"] == "ticket 42"
    draw(page, "teams", BODIES["teams"]["reason_required"], skipChecks=True)
    page.click('[data-key="open Approve"]')
    page.click(f"[aria-label=Approve] {button('Approve')}")
    assert set(clicks(page)[0]["value"]["data"]) == {"b"}


def test_click_in_dingtalk_carries_the_parameters_of_its_template(page):
    body = BODIES["dingtalk"]["half"]
    draw(page, "dingtalk", body)
    page.click("textarea")
    page.write("ticket 42")
    for action, label in [("approve", "Approve"), ("reject", "Reject")]:
        page.click(button(label))
        params = {"binding": body["cardParamMap"][f"{action}_binding"], "reason": "ticket 42"}
        assert clicks(page) == [
            {"label": label, "value": {"actionIds": [action], "params": params}, "reason": "ticket 42"}
        ]
    for action, label in [("withdraw", "Withdraw my approval"), ("details", "Details")]:
        page.click(button(label))
        params = {"binding": body["cardParamMap"][f"{action}_binding"]}
        assert clicks(page) == [{"label": label, "value": {"actionIds": [action], "params": params}, "reason": None}]
    notice = "You approved. <b>"
    draw(page, "dingtalk", {**body, "userPrivateData": {"cardParamMap": {"notice": notice}}})
    assert page.run("return element.querySelector('[role=status]').innerText") == notice


def test_template_of_dingtalk_is_the_documented_one(page):
    """Each variable of the contract is understood: what is not would show as JSON."""
    path = ROOT / "docs" / "dingtalk-template.json"
    if not path.exists():
        pytest.skip("docs/dingtalk-template.json is not there")
    contract = json.loads(path.read_text())
    variables = {one["name"]: f"value of {one['name']}" for one in contract["variables"]}
    conditions = [one["visible_if"] for one in [*contract["buttons"], contract["input"], contract["link"]]]
    variables |= {one["variable"]: one["is"] for one in conditions} | {"link_url": "https://example.com/"}
    shown = draw(page, "dingtalk", {"cardParamMap": variables})
    assert page.run("return element.querySelectorAll('.card-unknown').length") == 0
    texts = [one["name"] for one in contract["variables"] if "text" in one["shown_by"] or "label" in one["shown_by"]]
    assert [name for name in texts if f"value of {name}" not in shown] == []
    assert labels(page) == [one["label"] for one in contract["buttons"]]
    assert page.run("return element.querySelector('textarea').maxLength") == contract["input"]["max_length"]
    for own in contract["buttons"]:
        page.click(button(own["label"]))
        value = clicks(page)[0]["value"]
        assert (value["actionIds"], list(value["params"])) == ([own["action_id"]], [it["name"] for it in own["params"]])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_keyboard_reaches_and_presses_each_button(page, platform):
    draw(page, platform, BODIES[platform]["reason_required"])
    expected = set(page.run("return [...element.querySelectorAll('button, a, textarea')].filter(it => it.checkVisibility()).map(it => it.dataset.key)"))
    reached = []
    for _ in range(len(expected)):
        page.press("Tab")
        reached.append(page.run("return document.activeElement.dataset.key"))
        outline = page.run("const {outlineStyle, outlineWidth} = getComputedStyle(document.activeElement); return [outlineStyle, outlineWidth]")
        assert outline == ["solid", "2px"], "the focus is visible"
    assert set(reached) == expected
    page.press("Tab", shift=True)
    page.run("element.querySelector(a[0]).focus()", button("Details"))
    page.press(" ")
    page.press("Enter")
    assert [click["label"] for click in clicks(page)] == ["Details", "Details"]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_buttons_are_disabled_without_somebody_who_takes_clicks(page, platform):
    for options in [{"enabled": False}, {"click": None}]:
        draw(page, platform, BODIES[platform]["half"], **options)
        assert page.run("return [...element.querySelectorAll('button')].every(it => it.disabled)")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_each_part_has_a_name(page, platform):
    draw(page, platform, BODIES[platform]["reason_required"])
    page.run("element.querySelectorAll('[aria-expanded]').forEach(it => it.click())")
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = ["button", "link", "textbox", "group", "heading", "alert", "status"]
    named = [(node["role"]["value"], node.get("name", {}).get("value")) for node in tree if not node["ignored"]]
    assert [role for role, name in named if role in ("button", "link", "textbox", "group") and not name] == []
    assert {role for role, _ in named} & set(roles) >= {"button", "link"}
    assert page.run("const ids = [...document.querySelectorAll('[id]')].map(it => it.id); return ids.length === new Set(ids).size")


ODD = [
    {"type": "poll", "tag": "poll", "question": "<b>unheard of</b>"},
    None,
    7,
    "text",
]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_unknown_part_shows_as_its_json(page, platform):
    wrap = {
        "slack": lambda part: {"blocks": [part]},
        "feishu": lambda part: {"schema": "2.0", "body": {"elements": [part]}},
        "teams": lambda part: {"type": "AdaptiveCard", "body": [part]},
        "dingtalk": lambda part: {"cardParamMap": {"other": part}},
    }[platform]
    for part in ODD:
        assert json.dumps(part).strip('"{}')[:8] in draw(page, platform, wrap(part))
        assert page.run("return element.querySelector('pre.card-unknown').tabIndex") == 0
    for body in [None, {}, [], "text", 7, {"blocks": 7, "body": 7, "cardParamMap": 7, "type": "AdaptiveCard"}]:
        draw(page, platform, body)


def test_notes_to_one_person_are_drawn(page):
    shown = draw(page, "feishu", BODIES["feishu"]["toast"], "renderText")
    assert "You approved. <img src=x" in shown and page.run("return element.dataset.kind") == "success"
    answer = {"statusCode": 200, "type": "application/vnd.microsoft.activity.message", "value": "You approved. <b>"}
    assert draw(page, "teams", answer, "renderText") == "You approved. <b>"
    assert "1 of 2" in draw(page, "dingtalk", BODIES["dingtalk"]["reply"], "renderText")
    text = BODIES["dingtalk"]["text"]["text"]
    assert squeezed(draw(page, "dingtalk", {"text": text}, "renderText")) == squeezed(text["content"])
    private = {"msgKey": "sampleText", "msgParam": json.dumps(text)}
    assert squeezed(draw(page, "dingtalk", private, "renderText")) == squeezed(text["content"])
    for platform in PLATFORMS:
        for body in [None, {}, 7, {"msgParam": "{"}]:
            draw(page, platform, body, "renderText")


@pytest.mark.parametrize("platform", ["feishu", "teams", "dingtalk"])
def test_redrawing_keeps_what_a_person_has_begun(page, platform):
    body = BODIES[platform]["half"]
    draw(page, platform, body)
    page.run("element.querySelector('[aria-expanded]')?.click(); element.querySelector('textarea').value = 'because'")
    page.run(
        """const {carryOver, markNew} = await import('/dom.js');
        const {render} = await import(`/${a[0]}.js`);
        const before = element;
        before.querySelector('textarea').focus();
        const key = document.activeElement.dataset.key;
        window.element = render(a[1], actions);
        before.replaceWith(element);
        carryOver(before, element, key);
        markNew(element, before);""",
        platform,
        BODIES[platform]["reason_required"] if platform == "dingtalk" else body,
    )
    assert page.run("return [document.activeElement.tagName, document.activeElement.value]") == ["TEXTAREA", "because"]


def test_lines_that_are_new_are_marked(page):
    draw(page, "slack", BODIES["slack"]["pending"])
    new = page.run(
        """const {markNew} = await import('/dom.js');
        const now = (await import('/slack.js')).render(a[0], actions);
        markNew(now, element);
        return [...now.querySelectorAll('.is-new')].map(it => it.textContent);""",
        BODIES["slack"]["half"],
    )
    assert [line.split(":")[0] for line in new] == ["bob or carol", "Approved by", "Reason", "Still needed"]


# Every visible text with its contrast to what is behind it.
CONTRAST = """
const parse = color => {
  const probe = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  probe.fillStyle = color;
  probe.fillRect(0, 0, 1, 1);
  const [r, g, b, alpha] = probe.getImageData(0, 0, 1, 1).data;
  return [r, g, b, alpha / 255];
};
const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
const ground = node => {
  const layers = [];
  for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
};
const light = color => {
  const [r, g, b] = color.slice(0, 3).map(c => c / 255).map(c => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
  const behind = ground(node);
  const [one, other] = [light(over(parse(getComputedStyle(node).color), behind)), light(behind)].sort((x, y) => y - x);
  const ratio = (one + 0.05) / (other + 0.05);
  if (ratio < a[0]) found.push(`${ratio.toFixed(2)} ${node.className} ${walker.currentNode.data.trim().slice(0, 40)}`);
}
return found;
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_text_has_contrast(page, platform, theme):
    page.show_as(theme=theme)
    for state in STATES:
        for options in [{}, {"enabled": False}]:
            draw(page, platform, BODIES[platform][state], **options)
            assert page.run(CONTRAST, 4.5) == [], state
    draw(page, platform, required(platform))
    page.run("element.querySelectorAll('[aria-expanded], textarea ~ .card-actions button, .card-form button').forEach(it => it.click())")
    page.run("element.querySelectorAll('.card-line').forEach(it => it.classList.add('is-new'))")
    assert page.run(CONTRAST, 4.5) == []
    if platform == "slack":
        open_modal(page, BODIES["slack"]["reason_modal"])
        page.click(button("Approve"))
        assert page.run(CONTRAST, 4.5) == []


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_nothing_is_wider_than_its_container(page, platform, width):
    page.show_as(width=width)
    script = """
    const edge = document.querySelector('main').getBoundingClientRect();
    const parts = [...document.querySelectorAll('.card, .card *')].filter(it => it.checkVisibility() && !it.closest('pre > *'));
    const wide = parts.filter(it => it.getBoundingClientRect().right > edge.right + 0.5 || it.getBoundingClientRect().left < edge.left - 0.5);
    return [document.documentElement.scrollWidth <= innerWidth, wide.map(it => it.className)];
    """
    for state in STATES:
        draw(page, platform, BODIES[platform][state])
        page.run("element.querySelector('[aria-expanded]')?.click()")
        assert page.run(script) == [True, []], state
    draw(page, platform, {"blocks": [ODD[0]], "type": "x" * 400})
    assert page.run(script) == [True, []]
    if platform == "slack":
        for modal in ["reason_modal", "reply_modal"]:
            open_modal(page, BODIES["slack"][modal])
            box = page.run("const {left, right, bottom} = element.getBoundingClientRect(); return [left, right, bottom]")
            assert box[0] >= 0 and box[1] <= width and box[2] <= 800


def test_styles_use_what_the_page_defines():
    used = set(re.findall(r"var\((--[\w-]+)", (CARDS / "cards.css").read_text()))
    own = set(re.findall(r"(--p-[\w-]+):", (CARDS / "cards.css").read_text()))
    defined = set(re.findall(r"(--[\w-]+):", (HERE / "page.css").read_text()))
    assert used - own - defined == set()


def test_modules_write_no_markup():
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc"
    code = r"eval\(|Function\(|\.style(\.|\s*=[^=])|cssText|'style'"
    for path in CARDS.glob("*.js"):
        assert not re.search(f"{markup}|{code}", path.read_text()), path


@pytest.mark.skipif("PEERGATE_CARD_PICTURES" not in os.environ, reason="nobody looks")
def test_pictures(page):
    folder = pathlib.Path(os.environ["PEERGATE_CARD_PICTURES"])
    folder.mkdir(parents=True, exist_ok=True)
    script = """
    const main = document.querySelector('main');
    main.replaceChildren();
    for (const [platform, state, body] of a) {
      const {render} = await import(`/${platform}.js`);
      const heading = document.createElement('h2');
      heading.textContent = `${platform}: ${state}`;
      const card = render(body, {click: () => {}});
      main.append(heading, card);
      if (state === 'reason_required') card.querySelectorAll('[aria-expanded], .card-form button').forEach(it => it.click());
    }
    """
    for theme in ["light", "dark"]:
        for width in [700, 320]:
            page.show_as(width=width, theme=theme)
            for platform in PLATFORMS:
                page.run(script, *[[platform, state, BODIES[platform][state]] for state in STATES])
                page.picture(folder / f"{platform}-{theme}-{width}.png")
        page.show_as(width=700, theme=theme)
        open_modal(page, BODIES["slack"]["reason_modal"])
        page.click(button("Approve"))
        page.picture(folder / f"modal-{theme}.png", full=False)
        page.run("element.close()")
