"""DingTalk's own SDKs read what we send and what we sign, and our fake accepts what they send."""

import base64
import hashlib
import hmac
import json
import os
import urllib.parse
import uuid

import pytest
from alibabacloud_dingtalk.card_1_0 import models as card_models
from alibabacloud_dingtalk.card_1_0.client import Client as CardClient
from alibabacloud_dingtalk.oauth2_1_0 import models as token_models
from alibabacloud_dingtalk.oauth2_1_0.client import Client as TokenClient
from alibabacloud_dingtalk.robot_1_0 import models as robot_models
from alibabacloud_dingtalk.robot_1_0.client import Client as RobotClient
from alibabacloud_tea_openapi import models as openapi_models
from alibabacloud_tea_util import models as util_models
from conftest import PEERGATE, ROOT, Program, fetch
from dingtalk_stream import CardCallbackMessage, ChatbotMessage
from Tea.exceptions import TeaException

FIXTURE = json.loads((ROOT / "tests" / "fixtures" / "dingtalk.json").read_text())
APP, APP_SECRET = "dingrzmoleRbRMM4wObA", "fakeClientSecret0123456789abcdefghi"
ALICE = "manager-alice"
ROBOT, ROBOT_SECRET = "interop", "SECdemo"
RUNTIME = util_models.RuntimeOptions()


@pytest.fixture(scope="module")
def dingtalk():
    """The address of a fake with this app and robot: one that runs already, or a new one."""
    running = os.environ.get("PEERGATE_FAKE_DINGTALK")
    if running:
        yield running.rstrip("/")
        return
    command = [PEERGATE, "fake", "dingtalk", "--listen", "127.0.0.1:0", "--with", f"robot:{ROBOT}={ROBOT_SECRET}"]
    program = Program(command, r"(http://\S+)")
    try:
        yield program.url.rstrip("/")
    finally:
        program.stop()


def settings(address):
    return openapi_models.Config(protocol="http", endpoint=address.removeprefix("http://"), region_id="central")


@pytest.fixture(scope="module")
def token(dingtalk):
    request = token_models.GetAccessTokenRequest(app_key=APP, app_secret=APP_SECRET)
    answer = TokenClient(settings(dingtalk)).get_access_token(request).body
    assert answer.expire_in <= 7200
    return answer.access_token


def headers(kind, token):
    return kind(x_acs_dingtalk_access_token=token)


def sent(path):
    """What peergate sends to a path, first of all."""
    return next(call["body"] for call in FIXTURE["calls"] if call["path"] == path)


def read(model, body):
    """The model of a body. It knows each member."""
    request = model().from_map(body)
    read = request.to_map()
    # The models add an empty map.
    assert {name: value for name, value in read.items() if value != {}} == body
    return request


def post_card(address, token, body):
    made = headers(card_models.CreateAndDeliverHeaders, token)
    request = read(card_models.CreateAndDeliverRequest, body)
    return CardClient(settings(address)).create_and_deliver_with_options(request, made, RUNTIME).body


def card_body(out_track_id):
    return {**sent("/v1.0/card/instances/createAndDeliver"), "outTrackId": out_track_id}


def test_dingtalk_models_know_all_that_peergate_sends():
    models = {
        "/v1.0/oauth2/accessToken": token_models.GetAccessTokenRequest,
        "/v1.0/card/instances/createAndDeliver": card_models.CreateAndDeliverRequest,
        "/v1.0/card/instances/deliver": card_models.DeliverCardRequest,
        "/v1.0/card/instances": card_models.UpdateCardRequest,
        "/v1.0/card/callbacks/register": card_models.RegisterCallbackRequest,
        "/v1.0/robot/groupMessages/send": robot_models.OrgGroupSendRequest,
        "/v1.0/robot/oToMessages/batchSend": robot_models.BatchSendOTORequest,
    }
    assert {call["path"] for call in FIXTURE["calls"]} == set(models)
    for call in FIXTURE["calls"]:
        read(models[call["path"]], call["body"])


def test_dingtalk_sdk_posts_and_updates_cards_on_the_fake(dingtalk, token):
    out_track_id = f"pg-{uuid.uuid4().hex}"
    posted = post_card(dingtalk, token, card_body(out_track_id))
    assert posted.success and posted.result.out_track_id == out_track_id
    assert [one.success for one in posted.result.deliver_results] == [True]
    with pytest.raises(TeaException, match="param.cardAlreadyExist"):
        post_card(dingtalk, token, card_body(out_track_id))
    request = read(card_models.UpdateCardRequest, {**sent("/v1.0/card/instances"), "outTrackId": out_track_id})
    made = headers(card_models.UpdateCardHeaders, token)
    answer = CardClient(settings(dingtalk)).update_card_with_options(request, made, RUNTIME).body
    assert answer.success and answer.result


def test_dingtalk_sdk_registers_the_callback_on_the_fake(dingtalk, token):
    route = uuid.uuid4().hex

    def register(secret, force):
        body = {"apiSecret": secret, "callbackRouteKey": route, "callbackUrl": "https://a.example.com/", "forceUpdate": force}
        request = card_models.RegisterCallbackRequest().from_map(body)
        made = headers(card_models.RegisterCallbackHeaders, token)
        return CardClient(settings(dingtalk)).register_callback_with_options(request, made, RUNTIME).body.result.api_secret

    assert [register("one", False), register("two", False), register("two", True)] == ["one", "one", "two"]


def test_dingtalk_sdk_sends_messages_on_the_fake(dingtalk, token):
    client = RobotClient(settings(dingtalk))
    request = read(robot_models.OrgGroupSendRequest, sent("/v1.0/robot/groupMessages/send"))
    made = headers(robot_models.OrgGroupSendHeaders, token)
    assert client.org_group_send_with_options(request, made, RUNTIME).body.process_query_key
    request = read(robot_models.BatchSendOTORequest, sent("/v1.0/robot/oToMessages/batchSend"))
    made = headers(robot_models.BatchSendOTOHeaders, token)
    answer = client.batch_send_otowith_options(request, made, RUNTIME).body
    assert answer.process_query_key and answer.invalid_staff_id_list == []


def test_fake_refusals_carry_codes_for_the_dingtalk_sdk(dingtalk, token):
    for change, code in [
        ({"cardTemplateId": "other.schema"}, "param.templateNotExist"),
        ({"outTrackId": ""}, "param.outTrackIdEmpty"),
        ({"openSpaceId": "dtv1.card//IM_GROUP"}, "param.openSpaceIdInvalid"),
        ({"cardData": {"cardParamMap": {"title": "x" * 1025}}}, "param.invalid"),
        ({"imGroupOpenDeliverModel": {"robotCode": "other"}}, "param.openDeliverModelError"),
    ]:
        with pytest.raises(TeaException, match=code):
            post_card(dingtalk, token, {**card_body(f"pg-{uuid.uuid4().hex}"), **change})
    with pytest.raises(TeaException, match="InvalidAuthentication"):
        post_card(dingtalk, "no-token", card_body("pg-1"))
    with pytest.raises(TeaException, match="invalidClientIdOrSecret"):
        request = token_models.GetAccessTokenRequest(app_key=APP, app_secret="other")
        TokenClient(settings(dingtalk)).get_access_token(request)


def test_dingtalk_stream_reads_our_clicks_and_messages():
    click = CardCallbackMessage.from_dict(json.loads(FIXTURE["click"]["body"]))
    sent = click.content["cardPrivateData"]
    assert (click.card_instance_id, click.user_id) == ("pg-card-1", ALICE)
    assert sent["actionIds"] == ["reject"] and sent["params"] == {"binding": "Reject", "reason": "网段重叠 — größer ❌"}
    text = ChatbotMessage.from_dict(json.loads(FIXTURE["text"]["body"]))
    assert (text.text.content, text.sender_staff_id, text.conversation_type) == (" status pcc-a", ALICE, "2")


def test_signatures_match_the_documentation():
    made, (secret,) = FIXTURE["click"]["headers"], FIXTURE["keys"]["api_secrets"]
    mac = hmac.new(secret.encode(), made["x-ddpaas-signature-timestamp"].encode(), hashlib.sha256).digest()
    assert made["x-ddpaas-signature"] == base64.b64encode(mac).decode()
    made, (secret,) = FIXTURE["text"]["headers"], FIXTURE["keys"]["app_secrets"]
    mac = hmac.new(secret.encode(), f"{made['timestamp']}\n{secret}".encode(), hashlib.sha256).digest()
    assert made["sign"] == base64.b64encode(mac).decode()
    query = dict(urllib.parse.parse_qsl(FIXTURE["signed_url"].split("?")[1]))
    mac = hmac.new(ROBOT_SECRET.encode(), f"{query['timestamp']}\n{ROBOT_SECRET}".encode(), hashlib.sha256).digest()
    assert (query["access_token"], query["sign"]) == ("tok", base64.b64encode(mac).decode())


def test_fake_robot_checks_the_signature(dingtalk):
    body = json.dumps({"msgtype": "text", "text": {"content": "news"}})
    url = f"{dingtalk}/robot/send?access_token={ROBOT}"
    answer = json.loads(fetch(url, body, {"content-type": "application/json"})[1])
    assert answer["errcode"] == 310000


def test_answer_to_a_click_has_the_documented_members():
    reply = FIXTURE["reply"]
    assert set(reply) == {"cardUpdateOptions", "cardData", "userPrivateData"}
    options = card_models.UpdateCardRequestCardUpdateOptions().from_map(reply["cardUpdateOptions"])
    assert options.to_map() == reply["cardUpdateOptions"]
    data = card_models.UpdateCardRequestCardData().from_map(reply["cardData"])
    assert data.to_map() == reply["cardData"]
    assert all(isinstance(value, str) and 0 < len(value.encode()) <= 1024 for value in reply["cardData"]["cardParamMap"].values())
