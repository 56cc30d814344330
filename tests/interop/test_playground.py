"""Microsoft's Agents Playground, a Teams client for bots on one machine, without a screen.

It signs nothing, and peergate takes nothing unsigned. So the fake of Teams signs what the Playground sends, with a key that
this peergate trusts, and forwards it. peergate's own calls reach the Playground directly.

The tests say to its server what its page says. `make playground` installs it.
"""

import contextlib
import http.server
import json
import os
import queue
import shutil
import threading
import urllib.parse

import pytest
from conftest import BIN, ROOT, Program, fetch
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

CONFIG = ROOT / "tests" / "interop" / "playground" / ".m365agentsplayground.yml"
COMMAND = BIN / "agentsplayground"
if not COMMAND.exists() and not os.environ.get("CI"):
    pytest.skip("the Agents Playground is missing: `make playground` installs it", allow_module_level=True)
PATIENCE_S = 60

BOT = {"id": "28:6fd21178-5a8a-4fd8-a3bc-16f017de3f7a", "name": "peergate"}
TENANT, CHANNEL = "50703947-19f8-4dd8-af0e-60d29681f7c0", "19:approvals@thread.tacv2"
ALICE, BOB = "29:alice", "29:bob"


class Playground:
    """A running Playground, whose bot answers at `endpoint`."""

    def __init__(self, endpoint, directory):
        shutil.copy(CONFIG, directory)
        command = [COMMAND, "start", "--port", "0", "--app-endpoint", endpoint]
        self.program = Program(command, r"Listening on (\d+)", cwd=directory)
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
        return "\n".join([*exchanges, json.dumps(list(self.messages.values()), indent=1)])

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
        assert click["from"] == {"id": BOB, "name": "Bob", "aadObjectId": "00000000-0000-4000-8000-000000000b0b"}
        assert click["conversation"]["id"] == f"{CHANNEL};messageid={message['messageId']}"
        assert click["replyToId"] == message["messageId"]
        assert click["value"] == {"action": approve | {"data": {"id": "1", "reason": "because"}}}
    finally:
        playground.stop()
        bot.shutdown()
