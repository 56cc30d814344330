"""The official Python SDK works against the simulator, unchanged, with both signature versions."""

import json

import pytest
from alibabacloud_tea_openapi.exceptions import ClientException
from alibabacloud_tea_openapi.models import Config
from alibabacloud_vpcpeer20220101 import models
from alibabacloud_vpcpeer20220101.client import Client
from conftest import PEERGATE, Program, fetch, wait_for
from darabonba.exceptions import DaraException

REQUESTER = ("requester-key", "requester-secret")
ACCEPTER = ("accepter-key", "accepter-secret")


@pytest.fixture(params=["v3", "v1"])
def client(request, simulator):
    def make(key, token=None):
        config = Config(
            access_key_id=key[0],
            access_key_secret=key[1],
            security_token=token,
            endpoint=simulator.url.removeprefix("http://"),
            protocol="http",
        )
        if request.param == "v1":
            # The SDK's `v2` is SignatureVersion=1.0.
            config.signature_algorithm = "v2"
        return Client(config)

    return make


def create(client, vpc="vpc-b", **more):
    return client.create_vpc_peer_connection(
        models.CreateVpcPeerConnectionRequest(
            region_id="cn-hangzhou",
            vpc_id="vpc-a",
            accepting_ali_uid=2222222222222222,
            accepting_region_id="cn-shanghai",
            accepting_vpc_id=vpc,
            name="ünïcode + spaces/*~",
            **more,
        )
    ).body


def accept(client, instance_id, **more):
    request = models.AcceptVpcPeerConnectionRequest(instance_id=instance_id, **more)
    return client.accept_vpc_peer_connection(request).body


def get(client, instance_id):
    request = models.GetVpcPeerConnectionAttributeRequest(instance_id=instance_id)
    return client.get_vpc_peer_connection_attribute(request).body


def refused(call, *arguments, **more):
    with pytest.raises((ClientException, DaraException)) as caught:
        call(*arguments, **more)
    return caught.value.code


def test_connection_is_created_accepted_and_activated(client):
    requester, accepter = client(REQUESTER), client(ACCEPTER)
    instance_id = create(requester).instance_id
    seen = get(accepter, instance_id)
    assert (seen.status, seen.biz_status, seen.bandwidth, seen.link_type) == ("Accepting", "Normal", 1024, "Gold")
    assert (seen.owner_id, seen.accepting_owner_uid) == (1111111111111111, 2222222222222222)
    assert seen.name == "ünïcode + spaces/*~"
    assert seen.vpc.ipv_4cidrs and seen.gmt_expired
    assert refused(accept, accepter, instance_id, client_token="dry", dry_run=True) == "DryRunOperation"
    assert get(accepter, instance_id).status == "Accepting"
    assert accept(accepter, instance_id, client_token="token").request_id
    assert get(accepter, instance_id).status in ("Updating", "Activated")
    assert accept(accepter, instance_id, client_token="token").request_id, "the same token: the same answer"
    assert refused(accept, accepter, instance_id, client_token="other") == "IncorrectStatus.VpcPeer"
    assert refused(accept, accepter, instance_id, client_token="dry") == "IdempotentParameterMismatch"
    wait_for("activation", lambda: get(requester, instance_id).status == "Activated")


def test_repeated_accept_takes_effect_once(client, simulator):
    accepter = client(ACCEPTER)
    instance_id = create(client(REQUESTER)).instance_id
    for _ in range(3):
        accept(accepter, instance_id, client_token="token")
    journal = json.loads(fetch(f"{simulator.url}/_simulator/journal")[1])
    effects = [entry["effect"] for entry in journal if entry["action"] == "AcceptVpcPeerConnection"]
    assert effects == [True, False, False]


def test_create_dry_run_creates_nothing(client):
    requester = client(REQUESTER)
    assert refused(create, requester, dry_run=True) == "DryRunOperation"
    listed = requester.list_vpc_peer_connections(models.ListVpcPeerConnectionsRequest(region_id="cn-hangzhou"))
    assert listed.body.total_count == 0


def test_lists_come_in_pages(client):
    requester, accepter = client(REQUESTER), client(ACCEPTER)
    created = {create(requester, vpc=f"vpc-{number}").instance_id for number in range(7)}
    found, token, pages = set(), None, 0
    while True:
        request = models.ListVpcPeerConnectionsRequest(region_id="cn-shanghai", max_results=3, next_token=token)
        page = accepter.list_vpc_peer_connections(request).body
        found |= {item.instance_id for item in page.vpc_peer_connects}
        pages, token = pages + 1, page.next_token
        if not token:
            break
    assert (found, pages, page.total_count) == (created, 3, 7)
    by_vpc = models.ListVpcPeerConnectionsRequest(region_id="cn-shanghai", vpc_id=["vpc-3"])
    assert len(accepter.list_vpc_peer_connections(by_vpc).body.vpc_peer_connects) == 1


def test_rejection_is_final(client):
    accepter = client(ACCEPTER)
    instance_id = create(client(REQUESTER)).instance_id
    accepter.reject_vpc_peer_connection(models.RejectVpcPeerConnectionRequest(instance_id=instance_id))
    assert get(accepter, instance_id).status == "Rejected"
    assert refused(accept, accepter, instance_id) == "IncorrectStatus.VpcPeer"


def test_unauthorized_call_is_refused(client):
    instance_id = create(client(REQUESTER)).instance_id
    assert refused(get, client(("accepter-key", "wrong")), instance_id) == "SignatureDoesNotMatch"
    assert refused(get, client(("nobody", "accepter-secret")), instance_id) == "InvalidAccessKeyId.NotFound"
    assert refused(get, client(ACCEPTER), "pcc-unknown") == "ResourceNotFound.InstanceId"
    assert refused(accept, client(REQUESTER), instance_id) == "ResourceNotFound.InstanceId"
    assert get(client(ACCEPTER), instance_id).status == "Accepting"


def test_deleted_connection_is_gone(client):
    requester = client(REQUESTER)
    instance_id = create(requester).instance_id
    requester.delete_vpc_peer_connection(models.DeleteVpcPeerConnectionRequest(instance_id=instance_id))
    assert refused(get, requester, instance_id) == "ResourceNotFound.InstanceId"


def test_quota_throttles_and_names_the_wait():
    simulator = Program([PEERGATE, "simulate", "--quota", "5", "--well-known-keys"], r"listening on (http://\S+)")
    try:
        client = Client(
            Config(
                access_key_id=ACCEPTER[0],
                access_key_secret=ACCEPTER[1],
                endpoint=simulator.url.removeprefix("http://"),
                protocol="http",
            )
        )
        for _ in range(5):
            assert refused(get, client, "pcc-unknown") == "ResourceNotFound.InstanceId"
        with pytest.raises((ClientException, DaraException)) as caught:
            get(client, "pcc-unknown")
        assert caught.value.code == "Throttling.User"
        assert 0 < caught.value.retry_after <= 60_000
    finally:
        simulator.stop()
