"""Microsoft's Agents Playground, a Teams client for bots on one machine, without a screen.

It signs nothing, and peergate takes nothing unsigned. So the fake of Teams signs what the Playground sends, with a key that
this peergate trusts, and forwards it. peergate's own calls reach the Playground directly.

The tests say to its server what its page says. `make agents-playground` installs it.
"""

import contextlib
import http.server
import json
import os
import queue
import re
import shlex
import shutil
import socket
import threading
import urllib.parse

import pytest
from alibabacloud_tea_openapi.models import Config
from alibabacloud_vpcpeer20220101 import models
from alibabacloud_vpcpeer20220101.client import Client
from conftest import BIN, PEERGATE, ROOT, Program, environment, fetch, wait_for
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

CONFIG = ROOT / "tests" / "interop" / "agents_playground" / ".m365agentsplayground.yml"
PAGE = (ROOT / "docs" / "agents-playground.md").read_text()
if not (BIN / "agentsplayground").exists() and not os.environ.get("CI"):
    pytest.skip("the Agents Playground is missing: `make agents-playground` installs it", allow_module_level=True)
PATIENCE_S = 60

BOT = {"id": "28:6fd21178-5a8a-4fd8-a3bc-16f017de3f7a", "name": "peergate"}
TENANT = "50703947-19f8-4dd8-af0e-60d29681f7c0"
TEAM, CHANNEL, CHAT = "19:DZ8W7MtrH7cFRqFdINWRLZTxzMKBCrVh@thread.tacv2", "19:bvccYEx8DN6YhhL1f84S2EllsnYhEAEs@thread.tacv2", "a:alice"
ALICE, BOB = "29:alice", "29:bob"
BOB_OBJECT = "b0b00000-0000-4000-8000-000000000002"


def documented(beginning, replacements, language="sh"):
    """The words of the page's only command that begins so, or its only block. Each replacement is made."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)
    lines = [line for block in blocks for line in (block.splitlines() if language == "sh" else [block])]
    (text,) = [line for line in lines if line.startswith(beginning)]
    for old, new in replacements.items():
        assert old in text, (old, text)
        text = text.replace(old, new)
    return shlex.split(text) if language == "sh" else text


class Playground:
    """A running Playground, whose bot answers at `endpoint`."""

    def __init__(self, endpoint, directory):
        shutil.copy(CONFIG, directory)
        command = documented("agentsplayground", {"http://127.0.0.1:9002/playground": endpoint})
        self.program = Program([BIN / command[0], *command[1:], "--port", "0"], r"Listening on (\d+)", cwd=directory)
        self.port = self.program.url
        self.messages, self.log = {}, []
        self.changed = threading.Condition()
        self.follow("_ws_conversation/v1/conversations/stream", self.show)
        self.follow("_ws/log/stream", self.note)

    def follow(self, path, take):
        socket = connect(f"ws://127.0.0.1:{self.port}/{path}", max_size=None)

        def read():
            with contextlib.suppress(ConnectionClosed):
                for text in socket:
                    with self.changed:
                        take(json.loads(text))
                        self.changed.notify_all()

        threading.Thread(target=read, daemon=True).start()

    def show(self, event):
        """Keeps every message as the page would show it."""
        if event["action"] in {"createMessage", "updateMessage"}:
            message = event["message"]
            before = self.messages.get(message["messageId"], {})
            shown = message | {"conversation": event["actionConversationId"], "versions": before.get("versions", 0) + 1}
            self.messages[message["messageId"]] = before | shown

    def note(self, event):
        """Keeps the requests between the Playground and the bot."""
        if event.get("logAction") == "appendLog" and event["log"].get("type") != "text":
            self.log.append(event["log"])

    def wait(self, what, condition):
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE_S), f"never happened: {what}\n{self.story()}"
            return condition()

    def story(self):
        exchanges = [f"{log['from']}: {log['activityName']} {log['response']['statusCode']}" for log in self.log]
        return "\n".join([*exchanges, *(f"{one['conversation']}: {shown(one)}" for one in self.messages.values())])

    def wait_for_message(self, what, condition):
        return self.wait(what, lambda: next((one for one in self.messages.values() if condition(one)), None))

    def wait_for_exchange(self, name, condition=lambda log: True):
        found = lambda: next((log for log in self.log if log["activityName"] == name and condition(log)), None)
        return self.wait(name, found)

    def post(self, path, body):
        headers = {"content-type": "application/json"}
        status, text = fetch(f"http://127.0.0.1:{self.port}/{path}", json.dumps(body), headers)
        return status, json.loads(text) if text else None

    def open(self, conversation):
        """Opens a conversation for the first time: the bot learns that it was added there."""
        assert self.post(f"_debug/conversation/{urllib.parse.quote(conversation)}/installation", {})[0] == 200

    def say(self, person, conversation, text, mention=False):
        mentioned = [{"mentioned": BOT, "text": "<at>peergate</at>"}] if mention else []
        message = {"type": "text", "text": text, "textFormat": "plain", "from": {"id": person}, "mentions": mentioned}
        path = f"_conversation/v1/conversations/{urllib.parse.quote(conversation)}/messages"
        status, answer = self.post(path, message)
        assert status == 200, answer
        return answer

    def click(self, person, message, action, **inputs):
        """What a bot answers to a click. The page puts the inputs of the card into the data of the action."""
        sent = {name: action[name] for name in ("type", "title", "verb", "data") if name in action}
        sent["data"] = action.get("data", {}) | inputs
        thread = message.get("postConversationId") or message["conversation"]
        invoke = {"name": "adaptiveCard/action", "value": {"action": sent}, "from": {"id": person}}
        return self.post("_conversation/v1/invoke", invoke | {"conversation": {"id": thread}, "replyToId": message["messageId"]})

    def stop(self):
        self.program.stop()


def cards(message):
    return [one["content"] for one in message["attachments"] if one["contentType"] == "application/vnd.microsoft.card.adaptive"]


def actions(card):
    """The buttons of a card, with those that a button opens."""
    for part in parts(card):
        if str(part.get("type", "")).startswith("Action."):
            yield part


def parts(value):
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from parts(one)


class Bot(http.server.ThreadingHTTPServer):
    """Takes every activity, and thanks for a click."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.received = queue.Queue()
        self.url = f"http://127.0.0.1:{self.server_port}/api/messages"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(405)

    def do_POST(self):
        activity = json.loads(self.rfile.read(int(self.headers["content-length"])))
        thanks = {"statusCode": 200, "type": "application/vnd.microsoft.activity.message", "value": "Thank you"}
        body = json.dumps(thanks).encode() if activity["type"] == "invoke" else b""
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.received.put((dict(self.headers), activity))

    def log_message(self, *_):
        pass


def test_playground_signs_nothing_and_has_the_ids_of_its_file(tmp_path):
    bot = Bot()
    playground = Playground(bot.url, tmp_path)
    try:
        playground.open(CHANNEL)
        added = [bot.received.get(timeout=PATIENCE_S) for _ in range(2)]
        assert {activity["type"] for _, activity in added} == {"installationUpdate", "conversationUpdate"}
        connector = f"http://localhost:{playground.port}/_connector"
        conversation = f"{connector}/v3/conversations/{urllib.parse.quote(CHANNEL)}/activities"
        approve = {"type": "Action.Execute", "title": "Approve", "verb": "approve", "data": {"id": "1"}}
        card = {"type": "AdaptiveCard", "version": "1.5", "body": [], "actions": [approve]}
        activity = {"type": "message", "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}]}
        status, text = fetch(conversation, json.dumps(activity), {"content-type": "application/json"})
        assert status == 201, text
        message = playground.wait_for_message("the card", lambda one: one["messageId"] == json.loads(text)["id"])
        assert cards(message) == [card] and list(actions(card)) == [approve]
        status, answer = playground.click(BOB, message, approve, reason="because")
        assert (status, answer["value"]) == (200, "Thank you")
        clicked = bot.received.get(timeout=PATIENCE_S)
        for headers, activity in [*added, clicked]:
            assert "Authorization" not in headers and headers["x-ms-agents-playground"] == "true"
            assert activity["channelData"]["tenant"]["id"] == TENANT and activity["recipient"] == BOT
            assert activity["channelId"] == "msteams" and activity["serviceUrl"] == connector
        _, click = clicked
        assert click["from"] == {"id": BOB, "name": "Bob", "aadObjectId": "b0b00000-0000-4000-8000-000000000002"}
        assert click["conversation"]["id"] == f"{CHANNEL};messageid={message['messageId']}"
        assert click["replyToId"] == message["messageId"]
        assert click["value"] == {"action": approve | {"data": {"id": "1", "reason": "because"}}}
    finally:
        playground.stop()
        bot.shutdown()


# peergate.


class Installation:
    """peergate, the fake of Teams as the bridge, and the Playground."""

    def __init__(self, simulator, directory):
        with socket.create_server(("127.0.0.1", 0)) as unused:
            self.address = f"127.0.0.1:{unused.getsockname()[1]}"
        self.simulator, self.directory, self.programs = simulator, directory, []
        try:
            addresses = {"127.0.0.1:9002": "127.0.0.1:0", "127.0.0.1:8080": self.address}
            self.fake = self.start(*documented("peergate fake", addresses)).url.rstrip("/")
            self.playground = Playground(f"{self.fake}/playground", directory)
            self.programs.append(self.playground)
            configure(simulator, directory, self.fake, self.playground.port)
            self.peergate = self.serve()
        except BaseException:
            self.stop()
            raise

    def start(self, *command, **more):
        program = Program([PEERGATE, *command[1:]], r"listening on (http://\S+)", **more)
        self.programs.append(program)
        return program

    def serve(self):
        command = documented("peergate serve", {"127.0.0.1:8080": self.address})
        return self.start(*command, env=environment(self.directory), cwd=self.directory)

    def request_peering(self):
        """Requests a peering. peergate looks for requests when it starts, and then once in a minute."""
        request = request_peering(self.simulator)
        self.peergate.stop()
        self.programs.remove(self.peergate)
        self.peergate = self.serve()
        return request

    def stop(self):
        for program in reversed(self.programs):
            program.stop()


@pytest.fixture
def installation(simulator, tmp_path):
    running = Installation(simulator, tmp_path)
    try:
        running.playground.open(CHANNEL)
        for name in ["installationUpdate", "conversationUpdate"]:
            assert running.playground.wait_for_exchange(name)["response"]["statusCode"] == 200
        yield running
    finally:
        running.stop()


def configure(simulator, directory, fake, port):
    """As the page says, but with Bob, and two approvals."""
    bob = f'[people.bob]\nprincipals = ["teams:{TENANT}/{BOB_OBJECT}"]\n\n[[rule]]'
    replacements = {"http://127.0.0.1:9000": simulator.url, "http://127.0.0.1:9002": fake, "localhost:56150": f"localhost:{port}"}
    replacements |= {"approvals = 1": "approvals = 2", '["person:alice"]': '["person:alice", "person:bob"]', "[[rule]]": bob}
    (directory / "peergate.toml").write_text(documented("[targets.prod]", replacements, "toml"))
    (directory / "peergate.secrets.json").write_text(documented("{", {}, "json"))


def request_peering(simulator):
    config = Config(access_key_id="requester-key", access_key_secret="requester-secret", protocol="http")
    config.endpoint = simulator.url.removeprefix("http://")
    wanted = {"region_id": "cn-hangzhou", "vpc_id": "vpc-a", "accepting_region_id": "cn-shanghai", "accepting_vpc_id": "vpc-b"}
    request = models.CreateVpcPeerConnectionRequest(accepting_ali_uid=2222222222222222, **wanted)
    return Client(config).create_vpc_peer_connection(request).body.instance_id


def journal(simulator, action):
    """The calls that had an effect."""
    entries = json.loads(fetch(f"{simulator.url}/_simulator/journal")[1])
    return [entry for entry in entries if entry["action"] == action and entry["effect"]]


def shown(message):
    """The text of a message."""
    texts = [part["text"] for card in cards(message) for part in parts(card) if "text" in part]
    return "\n".join([message.get("text") or "", *texts])


def button(message, title):
    """The button with this title that sends a click. It may be in the form of another button."""
    found = [action for card in cards(message) for action in actions(card)]
    found = [action for action in found if action["type"] == "Action.Execute" and action["title"] == title]
    assert len(found) == 1, f"{len(found)} buttons {title!r}:\n{json.dumps(message, indent=1)}"
    return found[0]


def titles(message):
    return [action["title"] for card in cards(message) for action in card.get("actions", [])]


def is_update_of(card, words):
    return lambda one: one["messageId"] == card["messageId"] and one["versions"] > card["versions"] and words in shown(one)


def decide(playground, person, card, title, **inputs):
    """Clicks, and returns the message that only the person sees."""
    status, answer = playground.click(person, card, button(card, title), **inputs)
    assert status == 200 and answer["type"] == "application/vnd.microsoft.activity.message", (status, answer)
    return answer["value"]


def test_two_people_approve_a_peering_in_the_playground(simulator, installation):
    playground, request = installation.playground, installation.request_peering()
    card = playground.wait_for_message("the card", lambda one: request in shown(one) and "Approve" in titles(one))
    assert card["conversation"] == CHANNEL
    assert "1 of 2 approvals" in decide(playground, ALICE, card, "Approve")
    # The clicks that follow are on the updated card.
    card = playground.wait_for_message("the first approval", is_update_of(card, "1 of 2 approvals"))
    assert "nothing changed" in decide(playground, ALICE, card, "Approve")
    assert not journal(simulator, "AcceptVpcPeerConnection")
    assert "You approved" in decide(playground, BOB, card, "Approve")
    card = playground.wait_for_message("the end on the card", is_update_of(card, "is Activated"))
    assert "Approve" not in titles(card)
    thread = f"{CHANNEL};messageid={card['messageId']}"
    playground.wait_for_message("the news", lambda one: one["conversation"] == thread and "is Activated" in shown(one))
    assert len(journal(simulator, "AcceptVpcPeerConnection")) == 1


def test_reason_of_a_rejection_is_literal_in_the_playground(simulator, installation):
    playground, request = installation.playground, installation.request_peering()
    card = playground.wait_for_message("the card", lambda one: request in shown(one) and "Reject" in titles(one))
    (field,) = [part["id"] for part in parts(cards(card)) if part.get("type") == "Input.Text"]
    reason = "see [this](https://evil.example) <at>Bob</at>"
    assert "You rejected" in decide(playground, ALICE, card, "Reject", **{field: reason})
    card = playground.wait_for_message("the end on the card", is_update_of(card, reason))
    assert not any(reason in json.dumps(part) for part in parts(cards(card)) if part.get("type") == "TextBlock")
    assert len(journal(simulator, "RejectVpcPeerConnection")) == 1


def test_words_in_the_playground_ask_but_decide_nothing(simulator, installation):
    playground, request = installation.playground, installation.request_peering()
    playground.wait_for_message("the card", lambda one: request in shown(one) and "Approve" in titles(one))
    playground.say(ALICE, CHANNEL, "<at>peergate</at> list", mention=True)
    playground.wait_for_message("the list", lambda one: one["conversation"] == CHAT and request in shown(one))
    playground.say(ALICE, CHAT, f"approve {request}")
    in_private = lambda one: one["conversation"] == CHAT and "Approve" in titles(one)  # noqa: E731
    card = playground.wait_for_message("the private card", in_private)
    assert "only buttons decide" in shown(card) and not journal(simulator, "AcceptVpcPeerConnection")
    assert "1 of 2 approvals" in decide(playground, ALICE, card, "Approve")


def test_peergate_refuses_what_the_playground_sends_unsigned(installation):
    activity = json.dumps(installation.playground.wait_for_exchange("installationUpdate")["request"]["body"])
    headers = {"content-type": "application/json"}
    assert fetch(f"http://{installation.address}/teams", activity, headers)[0] == 401
    # The bridge signs it. It does nothing, so it may come twice.
    assert fetch(f"{installation.fake}/playground", activity, headers)[0] == 200
    page = headers | {"origin": "https://evil.example"}
    assert fetch(f"{installation.fake}/playground", activity, page)[0] == 403
