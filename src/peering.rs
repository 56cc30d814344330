//! VPC peering connections as approvers see them. Pure: knows nothing of HTTP, clocks or stores.

mod fingerprint;
mod id;
mod route;

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use fingerprint::FieldHash;
pub use fingerprint::{Fingerprint, InvalidFingerprint, SeenFingerprint};
pub use id::{AccountId, InstanceId, InvalidAccountId, InvalidInstanceId};
pub use route::{RouteEntry, RouteFinding, RouteReport, RouteState, RouteTable, UnneededRoute};

/// A VPC peering connection between two accounts, as `GetVpcPeerConnectionAttribute` shows it.
///
/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-getvpcpeerconnectionattribute>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The vendor's id of the connection.
    pub instance_id: InstanceId,
    /// Progress of the connection at Alibaba Cloud.
    pub status: Status,
    /// Whether the connection is locked, e.g. for an overdue payment.
    pub business_status: BusinessStatus,
    /// The side that sent the request.
    pub requester: Side,
    /// The side that accepts: our account.
    pub accepter: Side,
    /// Mbit/s. `None` if the vendor says -1 (unlimited) or nothing.
    pub bandwidth_mbps: Option<u32>,
    /// `Platinum`, `Gold` or `Silver` between regions. Empty within one region.
    pub link_type: String,
    /// Text of the requester, untrusted.
    pub name: String,
    /// Text of the requester, untrusted.
    pub description: String,
    /// When the requester created the connection. `None` if the vendor does not say, or an earlier version read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When the request expires. `None` unless the connection is waiting or expired.
    pub expires_at: Option<Timestamp>,
    /// The Alibaba service that owns the connection. Empty if a customer owns it.
    pub managed_service: String,
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Account that owns the VPC.
    pub account: AccountId,
    /// Region of the VPC, e.g. `cn-hangzhou`.
    pub region: String,
    /// Id of the VPC, e.g. `vpc-bp1aevy8sofi8mh1q****`.
    pub vpc: String,
    /// IPv4 and IPv6 CIDR blocks. Empty if the vendor does not report them.
    pub cidrs: BTreeSet<IpNet>,
}

/// The facts of a connection that people decide on. The fingerprint covers exactly these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The side that sent the request.
    pub requester: Side,
    /// The side that accepts: our account.
    pub accepter: Side,
    /// Mbit/s. `None` for unlimited or unknown.
    pub bandwidth_mbps: Option<u32>,
    /// As in [`Connection`].
    pub link_type: String,
}

impl Facts {
    /// Differences between these facts and `later`, as text for approvers.
    #[must_use]
    pub fn changes_to(&self, later: &Self) -> Vec<Change> {
        let facts = |facts: &Self| {
            let cidrs = |side: &Side| side.cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let (requester, accepter) = (&facts.requester, &facts.accepter);
            [
                ("requester account", requester.account.to_string()),
                ("requester region", requester.region.clone()),
                ("requester VPC", requester.vpc.clone()),
                ("requester CIDRs", cidrs(requester)),
                ("accepting account", accepter.account.to_string()),
                ("accepting region", accepter.region.clone()),
                ("accepting VPC", accepter.vpc.clone()),
                ("accepting CIDRs", cidrs(accepter)),
                ("bandwidth", facts.bandwidth_mbps.map_or_else(String::new, |mbps| format!("{mbps} Mbit/s"))),
                ("link type", facts.link_type.clone()),
            ]
        };
        let pairs = facts(self).into_iter().zip(facts(later));
        let changed = pairs.filter(|((_, before), (_, after))| before != after);
        changed.map(|((fact, before), (_, after))| Change { fact: fact.to_owned(), before, after }).collect()
    }
}

impl Connection {
    /// The facts that people decide on.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts {
            requester: self.requester.clone(),
            accepter: self.accepter.clone(),
            bandwidth_mbps: self.bandwidth_mbps,
            link_type: self.link_type.clone(),
        }
    }

    /// Whether the connection is waiting, so that it can be accepted: its status is `Accepting`, and it has not
    /// expired.
    #[must_use]
    pub fn is_waiting(&self, now: Timestamp) -> bool {
        self.status == Status::Accepting && self.expires_at.is_none_or(|expires_at| expires_at > now)
    }

    /// Fingerprint of the facts, see [`Facts::fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.facts().fingerprint()
    }

    /// Pairs of overlapping CIDR blocks, the requester's first. Also empty if the blocks of a side are unknown, see
    /// [`Connection::has_known_cidrs`].
    #[must_use]
    pub fn overlapping_cidrs(&self) -> Vec<(IpNet, IpNet)> {
        let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
        let pairs = |ours: &IpNet| {
            let ours = *ours;
            let theirs = self.requester.cidrs.iter().filter(move |theirs| overlap(theirs, &ours));
            theirs.map(move |theirs| (*theirs, ours)).collect::<Vec<_>>()
        };
        self.accepter.cidrs.iter().flat_map(pairs).collect()
    }

    /// Whether the connection crosses regions. Then its traffic costs money.
    #[must_use]
    pub fn is_cross_region(&self) -> bool {
        self.requester.region != self.accepter.region
    }

    /// Whether the CIDR blocks of both sides are known.
    #[must_use]
    pub fn has_known_cidrs(&self) -> bool {
        !self.requester.cidrs.is_empty() && !self.accepter.cidrs.is_empty()
    }
}

/// A fact that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
pub struct Change {
    /// Name of the fact, e.g. `requester CIDRs`.
    pub fact: String,
    /// Old value. Empty for unlimited, unknown or none.
    pub before: String,
    /// New value. Empty for unlimited, unknown or none.
    pub after: String,
}

/// Why a call to the vendor failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
pub struct Problem {
    /// The vendor's code, one of our own, or the kind of transport failure.
    pub code: String,
    /// The vendor's request id. `None` without an answer.
    pub request_id: Option<String>,
}

/// Declares an enum of the vendor's words. `Other` keeps words that it does not know.
macro_rules! open_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A word that this version does not know.
            Other(String),
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $(stringify!($variant) => Self::$variant,)*
                    _ => Self::Other(word),
                }
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => stringify!($variant),)*
                    Self::Other(word) => word,
                })
            }
        }
    };
}

open_enum! {
    /// Progress of a connection at Alibaba Cloud.
    Status {
        /// Being created on the requester's side.
        Creating,
        /// Waiting for the accepting account.
        Accepting,
        /// Being changed, or being activated after an accept. It does not say which.
        Updating,
        /// Usable.
        Activated,
        /// Rejected by the accepting account. Final.
        Rejected,
        /// Not answered within seven days. Final.
        Expired,
        /// Being deleted.
        Deleting,
        /// Deleted.
        Deleted,
    }
}

open_enum! {
    /// Whether a connection is locked.
    BusinessStatus {
        /// Not locked.
        Normal,
        /// Locked for an overdue payment.
        FinancialLocked,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn connection() -> Connection {
        let side = |account, vpc: &str, cidr: &str| Side {
            account: AccountId(account),
            region: "cn-hangzhou".into(),
            vpc: vpc.into(),
            cidrs: BTreeSet::from([cidr.parse().unwrap()]),
        };
        Connection {
            instance_id: InstanceId::parse("pcc-test1").unwrap(),
            status: Status::Accepting,
            business_status: BusinessStatus::Normal,
            requester: side(1_111_111_111_111_111, "vpc-requester", "10.1.0.0/16"),
            accepter: side(2_222_222_222_222_222, "vpc-accepter", "10.2.0.0/16"),
            bandwidth_mbps: Some(1024),
            link_type: "Gold".into(),
            name: "data to payments".into(),
            description: String::new(),
            created_at: None,
            expires_at: Some("2026-11-29T00:00:00Z".parse().unwrap()),
            managed_service: String::new(),
        }
    }

    #[test]
    fn ids_with_odd_characters_are_refused() {
        for id in [
            "", "pcc-", "pcc-A", "pcc-a/b", "pcc-a b", "vpc-a", "pcc-é", "pcc-a\n", "pcc-a'", "PCC-a", "pcc-a\0",
            "pcc-..", " pcc-a",
        ] {
            assert_eq!(InstanceId::parse(id), Err(InvalidInstanceId), "{id:?}");
        }
        assert_eq!(InstanceId::parse(&format!("pcc-{}", "a".repeat(61))), Err(InvalidInstanceId));
        assert_eq!(InstanceId::parse("pcc-guzvyqlj0n6e10abcd").unwrap().as_str(), "pcc-guzvyqlj0n6e10abcd");
    }

    #[test]
    fn account_ids_survive_beyond_two_to_the_53rd() {
        let json = serde_json::to_string(&AccountId(253_460_731_706_911_258)).unwrap();
        assert_eq!(json, r#""253460731706911258""#);
        assert_eq!(serde_json::from_str::<AccountId>(&json).unwrap(), AccountId(253_460_731_706_911_258));
        assert_eq!(AccountId::try_from("+1".to_owned()), Err(InvalidAccountId));
    }

    #[test]
    fn unknown_statuses_are_kept() {
        assert_eq!(serde_json::from_str::<Status>(r#""Updating""#).unwrap(), Status::Updating);
        assert_eq!(serde_json::to_string(&Status::from("Paused".to_owned())).unwrap(), r#""Paused""#);
    }

    #[test]
    fn every_decisive_fact_changes_the_fingerprint() {
        let changes: [fn(&mut Connection); 8] = [
            |c| c.requester.vpc = "vpc-other".into(),
            |c| c.accepter.vpc = "vpc-other".into(),
            |c| c.requester.account = AccountId(3),
            |c| c.accepter.region = "cn-beijing".into(),
            |c| c.requester.cidrs = ["10.3.0.0/16".parse().unwrap()].into(),
            |c| c.accepter.cidrs = ["2001:db8::/56".parse().unwrap()].into(),
            |c| c.bandwidth_mbps = None,
            |c| c.link_type = "Platinum".into(),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut other = connection();
            change(&mut other);
            assert_ne!(other.fingerprint(), connection().fingerprint(), "change {number}");
        }
        let mut same = connection();
        (same.status, same.name) = (Status::Updating, "renamed".into());
        assert_eq!(same.fingerprint(), connection().fingerprint());
    }

    #[test]
    fn every_change_of_the_fingerprint_is_named() {
        let mut later = connection();
        later.requester.cidrs.insert("fd00:1::/48".parse().unwrap());
        (later.bandwidth_mbps, later.link_type) = (None, "Silver".into());
        (later.accepter.vpc, later.requester.region) = ("vpc-other".into(), "cn-beijing".into());
        (later.requester.account, later.name) = (AccountId(3), "renamed".into());
        let changes = connection().facts().changes_to(&later.facts());
        let named: Vec<_> = changes.iter().map(|change| change.fact.as_str()).collect();
        assert_eq!(
            named,
            ["requester account", "requester region", "requester CIDRs", "accepting VPC", "bandwidth", "link type"]
        );
        assert_eq!(
            (changes[2].before.as_str(), changes[2].after.as_str()),
            ("10.1.0.0/16", "10.1.0.0/16, fd00:1::/48")
        );
        assert_eq!(connection().facts().changes_to(&connection().facts()), []);
    }

    #[test]
    fn overlaps_are_found_in_both_address_families() {
        let mut connection = connection();
        assert!(connection.overlapping_cidrs().is_empty());
        connection.requester.cidrs = ["10.2.128.0/17", "2001:db8::/32"].map(|cidr| cidr.parse().unwrap()).into();
        connection.accepter.cidrs = ["10.2.0.0/16", "2001:db8:1::/48"].map(|cidr| cidr.parse().unwrap()).into();
        assert_eq!(connection.overlapping_cidrs().len(), 2);
    }

    proptest! {
        #[test]
        fn parsing_and_display_are_inverse(id in "pcc-[a-z0-9]{1,60}", account: u64) {
            prop_assert_eq!(InstanceId::parse(&id).unwrap().to_string(), id);
            prop_assert_eq!(AccountId::try_from(account.to_string()), Ok(AccountId(account)));
        }

        #[test]
        fn parsing_arbitrary_text_never_panics(text: String) {
            let _ = InstanceId::parse(&text);
            let _ = Fingerprint::try_from(text.clone());
            let _ = AccountId::try_from(text);
        }
    }
}
