"""The same approval as peergate's webhook makes, as a good Python engineer would write it: clients are made once, in
init; the secrets are fetched there, too; connections are kept open; nothing is imported that is not used."""

import base64
import hashlib
import ipaddress
import json
import os
import time
from urllib.parse import parse_qs

import boto3
from alibabacloud_tea_openapi.exceptions import ClientException
from alibabacloud_tea_openapi.models import Config as AlibabaConfig
from alibabacloud_vpcpeer20220101 import models
from alibabacloud_vpcpeer20220101.client import Client as VpcPeer
from botocore.config import Config
from botocore.exceptions import ClientError
from darabonba.exceptions import DaraException
from slack_sdk.models.blocks import MarkdownTextObject, SectionBlock
from slack_sdk.signature import SignatureVerifier

APPROVERS = {"U061F7AUR": "alice", "U0BOB": "bob"}
ACCOUNT = 2222222222222222
REQUESTERS = {1111111111111111}

_config = Config(retries={"mode": "standard", "max_attempts": 2}, connect_timeout=3, read_timeout=3, tcp_keepalive=True)
_session = boto3.session.Session()
_secrets = json.loads(
    _session.client("secretsmanager", config=_config).get_secret_value(SecretId=os.environ["PEERGATE_SECRETS"])[
        "SecretString"
    ]
)
_dynamodb = _session.client("dynamodb", config=_config)
_key = _secrets["targets"]["prod"]
_alibaba = VpcPeer(
    AlibabaConfig(
        access_key_id=_key["access_key_id"],
        access_key_secret=_key["access_key_secret"],
        endpoint=os.environ["ALIBABA_CLOUD_ENDPOINT"],
        protocol="https",
    )
)
_verifiers = [SignatureVerifier(secret) for secret in _secrets["platforms"]["slack"]["signing_secrets"]]
_TABLE = os.environ["PEERGATE_TABLE"]


def handler(event, _context):
    headers = {name.lower(): value for name, value in event["headers"].items()}
    body = base64.b64decode(event["body"]) if event.get("isBase64Encoded") else event["body"].encode()
    if not any(verifier.is_valid_request(body, headers) for verifier in _verifiers):
        return _answer(401, "unauthentic")
    form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
    words = form["text"].split()
    user = form["user_id"]
    if len(words) < 2 or words[0] != "approve" or user not in APPROVERS:
        return _answer(200, "You may not do that.")
    return _answer(200, _approve(words[1], form["team_id"], user))


def _approve(instance_id, team, user):
    record_id = f"python/{instance_id}"
    known = _dynamodb.get_item(TableName=_TABLE, Key={"id": {"S": record_id}}, ConsistentRead=True)
    if "Item" in known:
        return "It was decided before."
    connection = _alibaba.get_vpc_peer_connection_attribute(
        models.GetVpcPeerConnectionAttributeRequest(instance_id=instance_id)
    ).body
    objection = _objection(connection)
    if objection:
        return objection
    token, dry_run_token = (
        hashlib.sha256(f"{team}/{user}/{ACCOUNT}/{instance_id}/{what}/1".encode()).hexdigest()
        for what in ("accept", "dry-run")
    )
    try:
        _accept(instance_id, dry_run_token, dry_run=True)
    except (ClientException, DaraException) as error:
        if error.code != "DryRunOperation":
            return f"Alibaba Cloud would refuse it: {error.code}"
    record = {
        "connection": connection.to_map(),
        "by": f"slack:{team}/{user}",
        "at": time.time(),
        "client_token": token,
        "history": [{"what": "decided", "by": user, "at": time.time()}],
    }
    try:
        _save(record_id, "approved", 1, record, "attribute_not_exists(id)")
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise
        return "Somebody else was first."
    accepted = _accept(instance_id, token)
    record["history"].append({"what": "accepted", "request_id": accepted.request_id, "at": time.time()})
    _save(record_id, "activating", 2, record, "version = :over", {":over": {"N": "1"}})
    return f"{APPROVERS[user]} approved {instance_id}: accepted, it is being activated."


def _objection(connection):
    if connection.status != "Accepting" or connection.biz_status != "Normal":
        return f"It does not wait: {connection.status}"
    if connection.accepting_owner_uid != ACCOUNT or connection.owner_id not in REQUESTERS or connection.managed_service:
        return "No rule allows it."
    theirs, ours = _ranges(connection.vpc), _ranges(connection.accepting_vpc)
    if any(a.version == b.version and a.overlaps(b) for a in theirs for b in ours):
        return "The ranges of both sides overlap."
    others = _alibaba.list_vpc_peer_connections(
        models.ListVpcPeerConnectionsRequest(
            region_id=connection.accepting_region_id, vpc_id=[connection.accepting_vpc.vpc_id], max_results=100
        )
    ).body
    for other in others.vpc_peer_connects or []:
        if other.instance_id != connection.instance_id:
            for side in (other.vpc, other.accepting_vpc):
                if any(a.version == b.version and a.overlaps(b) for a in theirs for b in _ranges(side)):
                    return "Another peering uses these ranges."
    return None


def _ranges(vpc):
    return [ipaddress.ip_network(cidr) for cidr in (vpc.ipv_4cidrs or []) + (vpc.ipv_6cidrs or [])]


def _accept(instance_id, token, dry_run=None):
    request = models.AcceptVpcPeerConnectionRequest(instance_id=instance_id, client_token=token, dry_run=dry_run)
    return _alibaba.accept_vpc_peer_connection(request).body


def _save(record_id, state, version, record, condition, values=None):
    more = {"ExpressionAttributeValues": values} if values else {}
    _dynamodb.put_item(
        TableName=_TABLE,
        Item={
            "id": {"S": record_id},
            "version": {"N": str(version)},
            "state": {"S": state},
            "record": {"S": json.dumps(record)},
        },
        ConditionExpression=condition,
        **more,
    )


def _answer(status, text):
    blocks = [SectionBlock(text=MarkdownTextObject(text=text)).to_dict()]
    body = json.dumps({"response_type": "ephemeral", "text": text, "blocks": blocks})
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": body}
