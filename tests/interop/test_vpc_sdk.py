"""The official SDK of the VPC API works against the simulator, so the simulator answers as the SDK reads."""

import pytest
from alibabacloud_tea_openapi.exceptions import ClientException
from alibabacloud_tea_openapi.models import Config
from alibabacloud_vpc20160428 import models
from alibabacloud_vpc20160428.client import Client
from conftest import wait_for
from darabonba.exceptions import DaraException
from test_alibaba_sdk import ACCEPTER, REQUESTER, accept, client, create, get  # noqa: F401

REGION = "cn-shanghai"


@pytest.fixture
def vpc_client(simulator):
    def make(key):
        host = simulator.url.removeprefix("http://")
        return Client(Config(access_key_id=key[0], access_key_secret=key[1], endpoint=host, protocol="http"))

    return make


@pytest.fixture
def active(client):  # noqa: F811
    instance_id = create(client(REQUESTER)).instance_id
    accept(client(ACCEPTER), instance_id)
    wait_for("the activation", lambda: get(client(ACCEPTER), instance_id).status == "Activated")
    return instance_id


def tables(client, vpc="vpc-b"):
    request = models.DescribeRouteTableListRequest(region_id=REGION, vpc_id=vpc, page_size=50)
    return client.describe_route_table_list(request).body.router_table_list.router_table_list_type


def routes(client, table):
    request = models.DescribeRouteEntryListRequest(region_id=REGION, route_table_id=table, max_result=100)
    return client.describe_route_entry_list(request).body.route_entrys.route_entry


def test_own_vpcs_are_described_to_their_owner_only(vpc_client, active):
    request = models.DescribeVpcsRequest(region_id=REGION, vpc_id="vpc-b,vpc-unknown", page_size=50)
    body = vpc_client(ACCEPTER).describe_vpcs(request).body
    assert [(it.vpc_id, it.cidr_block) for it in body.vpcs.vpc] == [("vpc-b", "10.0.1.0/24")]
    assert vpc_client(REQUESTER).describe_vpcs(request).body.total_count == 0


def test_route_is_made_listed_and_deleted(vpc_client, active):
    owner = vpc_client(ACCEPTER)
    (table,) = tables(owner)
    assert (table.route_table_type, table.associate_type, table.v_switch_ids.v_switch_id) == ("System", "VSwitch", ["vsw-vpc-b"])
    made = owner.create_route_entry(
        models.CreateRouteEntryRequest(
            region_id=REGION,
            route_table_id=table.route_table_id,
            destination_cidr_block="10.0.0.0/24",
            next_hop_type="VpcPeer",
            next_hop_id=active,
            client_token="token-1",
        )
    ).body
    found = lambda: [it for it in routes(owner, table.route_table_id) if it.route_entry_id == made.route_entry_id]
    (route,) = found()
    (hop,) = route.next_hops.next_hop
    assert (route.status, route.destination_cidr_block, hop.next_hop_type, hop.next_hop_id) == ("Pending", "10.0.0.0/24", "VpcPeer", active)
    wait_for("the route", lambda: found()[0].status == "Available")
    assert {it.type for it in routes(owner, table.route_table_id)} == {"System", "Custom"}
    owner.delete_route_entry(models.DeleteRouteEntryRequest(region_id=REGION, route_entry_id=made.route_entry_id))
    assert found() == []


def test_taken_destinations_and_foreign_tables_are_refused(vpc_client, active):
    (table,) = tables(vpc_client(ACCEPTER))

    def refused(key, destination, hop=active):
        request = models.CreateRouteEntryRequest(
            region_id=REGION,
            route_table_id=table.route_table_id,
            destination_cidr_block=destination,
            next_hop_type="VpcPeer",
            next_hop_id=hop,
        )
        with pytest.raises((ClientException, DaraException)) as caught:
            vpc_client(key).create_route_entry(request)
        return caught.value.code

    assert refused(REQUESTER, "10.0.0.0/24") == "InvalidRouteTableId.NotFound"
    assert refused(ACCEPTER, "10.0.1.0/25") == "InvalidRouteEntry.Duplicate"
    assert refused(ACCEPTER, "10.0.0.0/24", "pcc-unknown") == "ResourceNotFound.VpcPeer"
