"""Microsoft's own SDK verifies what our fake signs, reads what we post and answer, and drives the fake."""

import asyncio
import copy
import json
import os
import re
import time
import urllib.parse
import warnings

import jwt
import pytest
from conftest import PEERGATE, ROOT, Program, fetch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from microsoft_teams.api import Account, ApiClient, ConversationResource, MessageActivityInput
    from microsoft_teams.api.activities import MessageActivity
    from microsoft_teams.api.activities.invoke.adaptive_card.action import AdaptiveCardInvokeActivity
    from microsoft_teams.api.clients.conversation.params import CreateConversationParams
    from microsoft_teams.api.models.adaptive_card.adaptive_card_action_response import AdaptiveCardActionMessageResponse
    from microsoft_teams.apps.auth.token_validator import JwtValidationOptions, TokenValidator
    from microsoft_teams.cards import AdaptiveCard
    from microsoft_teams.common.http import Client, ClientOptions

FIXTURE = json.loads((ROOT / "tests" / "fixtures" / "teams.json").read_text())
APP, SECRET = "6fd21178-5a8a-4fd8-a3bc-16f017de3f7a", "abc8Q~fakeClientSecret0123456789abcdefghi"
TENANT, ALICE = "50703947-19f8-4dd8-af0e-60d29681f7c0", "a11ce000-0000-4000-8000-000000000001"
CHANNEL = "19:bvccYEx8DN6YhhL1f84S2EllsnYhEAEs@thread.tacv2"
FLOW, SIGNATURE = "interop", "fakeWorkflowSignature"
CARD = "application/vnd.microsoft.card.adaptive"


@pytest.fixture(scope="module")
def fake():
    """The address of the fake."""
    running = os.environ.get("PEERGATE_FAKE_TEAMS")
    if running:
        yield running.rstrip("/")
        return
    command = [PEERGATE, "fake", "teams", "--listen", "127.0.0.1:0", "--with", f"workflow:{FLOW}={SIGNATURE}"]
    program = Program(command, r"listening on (http://[^\s/]+)")
    yield program.url
    program.stop()


def invoke(fake):
    return {
        "type": "invoke", "name": "adaptiveCard/action", "id": f"f:{time.time_ns()}", "timestamp": "2026-11-01T00:00:00Z",
        "serviceUrl": f"{fake}/teams/", "channelId": "msteams",
        "from": {"id": f"29:{ALICE}", "name": "alice", "aadObjectId": ALICE},
        "conversation": {"id": f"{CHANNEL};messageid=1", "tenantId": TENANT, "conversationType": "channel", "isGroup": True},
        "recipient": {"id": f"28:{APP}", "name": "peergate"}, "replyToId": "1",
        "channelData": {"tenant": {"id": TENANT}, "channel": {"id": CHANNEL}},
        "value": {"action": {"type": "Action.Execute", "verb": "peergate", "data": {"b": "x", "reason": "größer"}}, "trigger": "manual"},
    }  # fmt: skip


def signed(fake, activity, service_url=None):
    """The token and the body that the fake makes for a program that forwards activities."""
    request = {"activity": activity} | ({"serviceurl": service_url} if service_url else {})
    status, answer = fetch(f"{fake}/fake/sign", json.dumps(request), {"content-type": "application/json"})
    assert status == 200, answer
    answer = json.loads(answer)
    return answer["headers"]["authorization"].removeprefix("Bearer "), answer["body"]


def validator(fake, app=APP):
    keys = json.loads(fetch(f"{fake}/v1/.well-known/openidconfiguration")[1])
    return TokenValidator(JwtValidationOptions([keys["issuer"]], [app], keys["jwks_uri"]))


def test_teams_sdk_accepts_the_tokens_of_the_fake(fake):
    activity = invoke(fake)
    token, body = signed(fake, activity)
    claims = asyncio.run(validator(fake).validate_token(token, activity["serviceUrl"]))
    assert claims["aud"] == APP and json.loads(body) == activity
    assert jwt.get_unverified_header(token)["alg"] == "RS256"
    keys = json.loads(fetch(f"{fake}/v1/.well-known/keys")[1])["keys"]
    assert all("msteams" in key["endorsements"] for key in keys)


@pytest.mark.parametrize("what", ["claims", "signature", "service", "app"])
def test_teams_sdk_refuses_changed_tokens(fake, what):
    activity = invoke(fake)
    token, _ = signed(fake, activity, "https://evil.example/" if what == "service" else None)
    header, claims, signature = token.split(".")
    if what == "claims":
        token = f"{header}.{claims[:-4]}AAAA.{signature}"
    elif what == "signature":
        token = f"{header}.{claims}.{signature[:-8]}AAAAAAAA"
    with pytest.raises(jwt.InvalidTokenError):
        asyncio.run(validator(fake, "other" if what == "app" else APP).validate_token(token, activity["serviceUrl"]))


def test_teams_models_read_what_we_post_and_answer():
    for name in ["activity", "workflow"]:
        made = FIXTURE[name]
        message = MessageActivityInput.model_validate(made)
        (attachment,) = message.attachments
        assert attachment.content_type == CARD and message.summary == made["summary"]
        content = made["attachments"][0]["content"]
        read = AdaptiveCard.model_validate(content).model_dump(by_alias=True, exclude_none=True, mode="json")
        # Every member that we write is known to the model, and survives.
        assert covers(read, content), (read, content)
    answer = FIXTURE["answer"]
    assert AdaptiveCardActionMessageResponse.model_validate(answer).model_dump(by_alias=True) == answer


def covers(read, written):
    if isinstance(written, dict):
        return isinstance(read, dict) and all(key in read and covers(read[key], value) for key, value in written.items())
    if isinstance(written, list):
        return isinstance(read, list) and len(read) == len(written) and all(map(covers, read, written))
    return read == written


def test_teams_models_read_the_activities_of_the_fake(fake):
    activity = AdaptiveCardInvokeActivity.model_validate(invoke(fake))
    assert activity.value.action.data == {"b": "x", "reason": "größer"} and activity.from_.aad_object_id == ALICE
    fallback = {**invoke(fake), "type": "message", "value": {"b": "x"}, "text": ""}
    assert MessageActivity.model_validate(fallback).value == {"b": "x"}


def login(fake, secret=SECRET, app=APP):
    form = {"grant_type": "client_credentials", "client_id": app, "client_secret": secret, "scope": "https://api.botframework.com/.default"}
    kind = {"content-type": "application/x-www-form-urlencoded"}
    return fetch(f"{fake}/{TENANT}/oauth2/v2.0/token", urllib.parse.urlencode(form), kind)


@pytest.fixture()
def client(fake):
    status, answer = login(fake)
    assert status == 200, answer
    token = json.loads(answer)["access_token"]
    # One event loop, because the client keeps connections.
    with asyncio.Runner() as runner:
        api = ApiClient(f"{fake}/teams/", Client(ClientOptions(token=token)))
        yield lambda call: runner.run(call(api.conversations))


def activity():
    return MessageActivityInput.model_validate(FIXTURE["activity"])


def test_teams_client_drives_the_fake(client):
    posted = client(lambda it: it.create_activity(CHANNEL, activity()))
    assert re.fullmatch(r"\d+", posted.id)
    assert client(lambda it: it.update_activity(CHANNEL, posted.id, activity())).id == posted.id
    assert client(lambda it: it.reply_to_activity(CHANNEL, posted.id, activity())).id != posted.id
    client(lambda it: it.delete_activity(CHANNEL, posted.id))
    with pytest.raises(Exception, match="404"):
        client(lambda it: it.update_activity(CHANNEL, posted.id, activity()))


def test_teams_client_opens_a_one_to_one_chat(client):
    person = Account(id=f"29:{ALICE}", name="alice")
    params = CreateConversationParams(members=[person], tenant_id=TENANT, channel_data={"tenant": {"id": TENANT}})
    chat = client(lambda it: it.create(params))
    assert isinstance(chat, ConversationResource) and client(lambda it: it.create(params)).id == chat.id
    assert client(lambda it: it.create_activity(chat.id, MessageActivityInput(text="hello"))).id


def test_fake_refuses_other_apps_secrets_and_tokens(fake):
    assert json.loads(login(fake, secret="another secret")[1])["error_codes"] == [7000215]
    assert json.loads(login(fake, app="0badf00d-0000-4000-8000-000000000000")[1])["error_codes"] == [700016]
    url = f"{fake}/teams/v3/conversations/{urllib.parse.quote(CHANNEL)}/activities"
    status, answer = fetch(url, json.dumps(FIXTURE["activity"]), {"authorization": "Bearer x", "content-type": "application/json"})
    assert status == 401 and json.loads(answer)["error"]["code"] == "Unauthorized"


def test_fake_workflow_takes_our_message(fake):
    url = f"{fake}/workflows/{FLOW}"
    kind = {"content-type": "application/json"}
    assert fetch(f"{url}?sig={SIGNATURE}", json.dumps(FIXTURE["workflow"]), kind) == (202, "")
    assert fetch(f"{url}?sig=other", json.dumps(FIXTURE["workflow"]), kind)[0] == 401


def test_manifest_has_what_teams_requires():
    manifest = copy.deepcopy(FIXTURE["manifest"])
    (bot,) = manifest.pop("bots")
    assert bot["botId"] == manifest["id"] == APP and set(bot["scopes"]) == {"team", "groupChat", "personal"}
    assert {"$schema", "manifestVersion", "version", "developer", "name", "description", "icons", "accentColor"} <= set(manifest)
    assert manifest["manifestVersion"] in manifest["$schema"]
    assert len(manifest["name"]["short"]) <= 30 and len(manifest["name"]["full"]) <= 100
    assert len(manifest["description"]["short"]) <= 80 and len(manifest["description"]["full"]) <= 4000
    (commands,) = bot["commandLists"]
    assert len(commands["commands"]) <= 10 and all(len(it["title"]) <= 32 and len(it["description"]) <= 128 for it in commands["commands"])
    for size, name in [(192, "color"), (32, "outline")]:
        icon = (ROOT / "deploy/teams" / f"{name}.png").read_bytes()
        assert icon.startswith(b"\x89PNG") and int.from_bytes(icon[16:20]) == int.from_bytes(icon[20:24]) == size
