//! Connections as the API writes them, and what we make of them.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::peering::{AccountId, Connection, InstanceId, Side, Status};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WirePage {
    /// Each is read by itself: one that is odd must not hide the others.
    pub(super) vpc_peer_connects: Option<Vec<Box<RawValue>>>,
    pub(super) next_token: Option<String>,
    pub(super) total_count: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WireConnection {
    instance_id: String,
    status: String,
    biz_status: Option<String>,
    owner_id: Option<u64>,
    accepting_owner_uid: Option<u64>,
    region_id: Option<String>,
    accepting_region_id: Option<String>,
    vpc: Option<WireVpc>,
    accepting_vpc: Option<WireVpc>,
    bandwidth: Option<i64>,
    link_type: Option<String>,
    name: Option<String>,
    description: Option<String>,
    gmt_expired: Option<String>,
    managed_service: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct WireVpc {
    vpc_id: Option<String>,
    ipv4_cidrs: Option<Vec<String>>,
    ipv6_cidrs: Option<Vec<String>>,
}

/// A field holds something that we do not understand, so that nothing can be decided on it.
pub(super) struct NotUnderstood;

impl TryFrom<WireConnection> for Connection {
    type Error = NotUnderstood;

    fn try_from(wire: WireConnection) -> Result<Self, NotUnderstood> {
        let expires_at = wire.gmt_expired.filter(|text| !text.is_empty());
        let status = Status::from(wire.status);
        // What has ended may have lost its ends: nothing is decided on it any more.
        let over = matches!(status, Status::Rejected | Status::Expired | Status::Deleting | Status::Deleted);
        Ok(Self {
            instance_id: InstanceId::parse(&wire.instance_id).map_err(|_| NotUnderstood)?,
            status,
            business_status: wire.biz_status.unwrap_or_default().into(),
            requester: side(wire.vpc, wire.owner_id, wire.region_id, over)?,
            accepter: side(wire.accepting_vpc, wire.accepting_owner_uid, wire.accepting_region_id, over)?,
            bandwidth_mbps: wire.bandwidth.and_then(|mbps| u32::try_from(mbps).ok()),
            link_type: wire.link_type.unwrap_or_default(),
            name: wire.name.unwrap_or_default(),
            description: wire.description.unwrap_or_default(),
            expires_at: expires_at.map(|text| text.parse()).transpose().map_err(|_| NotUnderstood)?,
            managed_service: wire.managed_service.unwrap_or_default(),
        })
    }
}

fn side(vpc: Option<WireVpc>, account: Option<u64>, region: Option<String>, over: bool) -> Result<Side, NotUnderstood> {
    let vpc = known(vpc, over)?;
    let cidrs = vpc.ipv4_cidrs.into_iter().chain(vpc.ipv6_cidrs).flatten();
    let cidrs = cidrs.map(|cidr| cidr.parse().map(|cidr: ipnet::IpNet| cidr.trunc())).collect::<Result<_, _>>();
    Ok(Side {
        account: AccountId(known(account, over)?),
        region: known(region, over)?,
        vpc: known(vpc.vpc_id, over)?,
        cidrs: cidrs.map_err(|_| NotUnderstood)?,
    })
}

fn known<T: Default>(value: Option<T>, over: bool) -> Result<T, NotUnderstood> {
    value.or_else(|| over.then(T::default)).ok_or(NotUnderstood)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_may_have_lost_its_ends_and_nothing_else_may() {
        let read = |status: &str| {
            let json = format!(r#"{{"InstanceId":"pcc-a","Status":"{status}","OwnerId":null,"Vpc":null}}"#);
            Connection::try_from(serde_json::from_str::<WireConnection>(&json).unwrap()).is_ok()
        };
        assert!(["Deleted", "Deleting", "Rejected", "Expired"].map(read).iter().all(|understood| *understood));
        assert!(!["Accepting", "Updating", "Activated", "Paused"].map(read).iter().any(|understood| *understood));
    }

    #[test]
    fn an_answer_with_nulls_and_large_numbers_is_read() {
        let json = r#"{"InstanceId":"pcc-a","Status":"Accepting","BizStatus":"Normal","OwnerId":253460731706911258,
            "AcceptingOwnerUid":2,"RegionId":"r","AcceptingRegionId":"s","Vpc":{"VpcId":"vpc-a","Ipv4Cidrs":["10.0.0.7/8"],
            "Ipv6Cidrs":null},"AcceptingVpc":{"VpcId":"vpc-b"},"Bandwidth":-1,"LinkType":null,"GmtExpired":""}"#;
        let connection = Connection::try_from(serde_json::from_str::<WireConnection>(json).unwrap()).ok().unwrap();
        assert_eq!(connection.requester.account, AccountId(253_460_731_706_911_258));
        assert_eq!(connection.requester.cidrs.first().unwrap().to_string(), "10.0.0.0/8");
        assert_eq!((connection.bandwidth_mbps, connection.cidrs_are_known()), (None, false));
    }
}
