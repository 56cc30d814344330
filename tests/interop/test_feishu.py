"""Feishu's own SDK reads what we sign, and our fake accepts what the SDK sends."""

import base64
import copy
import hashlib
import hmac
import json
import logging
import os
import time
import uuid

import lark_oapi as lark
import pytest
from conftest import PEERGATE, ROOT, Program, fetch
from lark_oapi.api.im.v1 import (
    CreateMessageRequest,
    CreateMessageRequestBody,
    PatchMessageRequest,
    PatchMessageRequestBody,
    ReplyMessageRequest,
    ReplyMessageRequestBody,
)
from lark_oapi.core.exception import ObtainAccessTokenException
from lark_oapi.core.model import RawRequest
from lark_oapi.event.callback.model.p2_card_action_trigger import P2CardActionTriggerResponse

FIXTURE = json.loads((ROOT / "tests" / "fixtures" / "feishu.json").read_text())
KEYS = FIXTURE["keys"]
APP, APP_SECRET = "cli_a6ee8fbe9ffe6d3d", "fakeAppSecret0123456789abcdefghi"
CHAT, ALICE = "oc_38fe598c2984695a42f3e2d3d5fdfd22", "ou_2840498f54cfa60477d0edcf39319ae2"
BOT, BOT_SECRET = "interop", "demoSecret"

logging.getLogger("Lark").setLevel(logging.CRITICAL)


def call(handler, made):
    """Gives a callback of ours to the SDK, as its web adapters do."""
    request = RawRequest()
    request.uri, request.body = "/feishu", made["body"].encode()
    names = {"x-lark-request-timestamp": "X-Lark-Request-Timestamp", "x-lark-request-nonce": "X-Lark-Request-Nonce"}
    names["x-lark-signature"] = "X-Lark-Signature"
    request.headers = {names.get(name, name): value for name, value in made["headers"].items()}
    answer = handler.do(request)
    return answer.status_code, json.loads(answer.content)


def handler(seen, reply=None, key=KEYS["encrypt_key"], token=KEYS["verification_token"]):
    def clicked(event):
        seen.append(event)
        return P2CardActionTriggerResponse(reply or {})

    return lark.EventDispatcherHandler.builder(key, token).register_p2_card_action_trigger(clicked).build()


def test_lark_oapi_verifies_and_decrypts_our_clicks():
    seen = []
    status, _ = call(handler(seen), FIXTURE["click"])
    assert status == 200 and len(seen) == 1
    event, sent = seen[0].event, json.loads(FIXTURE["plaintext"])["event"]
    assert event.operator.open_id == sent["operator"]["open_id"]
    assert event.operator.tenant_key == sent["operator"]["tenant_key"]
    assert event.action.value == sent["action"]["value"] and event.action.name == sent["action"]["name"]
    assert event.action.form_value == sent["action"]["form_value"]
    assert event.context.open_message_id == "om_1" and event.context.open_chat_id == "oc_1"
    assert seen[0].header.event_id == json.loads(FIXTURE["plaintext"])["header"]["event_id"]


@pytest.mark.parametrize("what", ["body", "signature", "key", "token"])
def test_lark_oapi_refuses_changed_clicks(what):
    made, seen, keys = copy.deepcopy(FIXTURE["click"]), [], {}
    if what == "body":
        made["body"] = made["body"] + " "
    elif what == "signature":
        made["headers"]["x-lark-signature"] = "0" * 64
    elif what == "key":
        keys["key"] = "another encrypt key"
    else:
        keys["token"] = "another-token-of-16"
    status, _ = call(handler(seen, **keys), made)
    assert status == 500 and seen == []


def test_lark_oapi_echoes_our_challenge():
    assert call(handler([]), FIXTURE["challenge"]) == (200, {"challenge": "c42e44ca4b602a4c"})


def test_lark_oapi_passes_our_reply_on():
    status, answer = call(handler([], reply=FIXTURE["reply"]), FIXTURE["click"])
    assert status == 200 and answer == FIXTURE["reply"]


@pytest.fixture(scope="module")
def feishu():
    """The address of a fake with this app and bot: one that runs already, or a new one."""
    running = os.environ.get("PEERGATE_FAKE_FEISHU")
    if running:
        yield running.rstrip("/")
        return
    command = [PEERGATE, "fake", "feishu", "--listen", "127.0.0.1:0", "--with", f"bot:{BOT}={BOT_SECRET}"]
    program = Program(command, r"(http://\S+)")
    try:
        yield program.url.rstrip("/")
    finally:
        program.stop()


@pytest.fixture(scope="module")
def client(feishu):
    return lark.Client.builder().app_id(APP).app_secret(APP_SECRET).domain(feishu).build()


def create(client, kind, receiver, card, key):
    body = CreateMessageRequestBody.builder().receive_id(receiver).msg_type("interactive").content(json.dumps(card)).uuid(key)
    request = CreateMessageRequest.builder().receive_id_type(kind).request_body(body.build()).build()
    return client.im.v1.message.create(request)


def patch(client, message_id, card):
    body = PatchMessageRequestBody.builder().content(json.dumps(card)).build()
    return client.im.v1.message.patch(PatchMessageRequest.builder().message_id(message_id).request_body(body).build())


def test_lark_oapi_posts_updates_and_replies_on_the_fake(client):
    key = uuid.uuid4().hex
    posted = create(client, "chat_id", CHAT, FIXTURE["card"], key)
    assert posted.code == 0, posted.msg
    message_id = posted.data.message_id
    assert message_id.startswith("om_") and posted.data.chat_id == CHAT and int(posted.data.create_time) > 0
    assert create(client, "chat_id", CHAT, FIXTURE["card"], key).data.message_id == message_id
    assert patch(client, message_id, FIXTURE["card"]).code == 0
    body = ReplyMessageRequestBody.builder().msg_type("interactive").content(json.dumps(FIXTURE["card"]))
    body = body.reply_in_thread(True).uuid(uuid.uuid4().hex).build()
    reply = client.im.v1.message.reply(ReplyMessageRequest.builder().message_id(message_id).request_body(body).build())
    assert reply.code == 0 and reply.data.root_id == message_id and reply.data.thread_id
    assert create(client, "open_id", ALICE, FIXTURE["card"], uuid.uuid4().hex).code == 0


def test_fake_refusals_carry_codes_for_lark_oapi(client, feishu):
    unshared = copy.deepcopy(FIXTURE["card"])
    unshared["config"]["update_multi"] = False
    refused = create(client, "chat_id", "oc_codes", unshared, uuid.uuid4().hex)
    assert refused.code == 230099 and refused.raw.status_code == 400
    assert create(client, "chat_id", ALICE, FIXTURE["card"], uuid.uuid4().hex).code == 230001
    assert patch(client, "om_unknown", FIXTURE["card"]).code == 230001
    # Another app: the SDK caches tokens by app.
    stranger = lark.Client.builder().app_id("cli_other").app_secret(APP_SECRET).domain(feishu).build()
    with pytest.raises(ObtainAccessTokenException):
        create(stranger, "chat_id", CHAT, FIXTURE["card"], uuid.uuid4().hex)


def test_fake_bot_accepts_only_our_signature(feishu):
    url = f"{feishu}/open-apis/bot/v2/hook/{BOT}"
    post = lambda body: json.loads(fetch(url, json.dumps(body), {"content-type": "application/json"})[1])["code"]  # noqa: E731
    assert post(FIXTURE["bot"]) == 19021, "its timestamp is old"
    timestamp = str(int(time.time()))
    key = f"{timestamp}\n{BOT_SECRET}".encode()
    sign = base64.b64encode(hmac.new(key, digestmod=hashlib.sha256).digest()).decode()
    assert post({**FIXTURE["bot"], "timestamp": timestamp, "sign": sign}) == 0
    assert post({**FIXTURE["bot"], "timestamp": timestamp, "sign": ("y" if sign[0] == "x" else "x") + sign[1:]}) == 19021


def test_bot_signature_matches_the_documentation():
    bot = FIXTURE["bot"]
    key = f"{bot['timestamp']}\n{BOT_SECRET}".encode()
    assert bot["sign"] == base64.b64encode(hmac.new(key, digestmod=hashlib.sha256).digest()).decode()
