//! Parses the connections that the API sends: facts strictly, other fields leniently.
//!
//! A fact is a field that people decide on, the status or the id. If a fact cannot be understood, neither can the
//! connection, and the error names the fact. A malformed name, description, expiry or count is no error.

use std::collections::BTreeSet;

use ipnet::IpNet;
use jiff::{Timestamp, civil, tz};

use super::Page;
use super::json::{self, JsonField, JsonFields};
use crate::peering::{AccountId, Connection, InstanceId, Side, Status};

/// A longer name or description is cut. The vendor's limit is 256.
const MAX_SHOWN_CHARS: usize = 512;
/// The longest valid id, region, status or link type.
const MAX_WORD_CHARS: usize = 128;
/// A longer invalid id is cut before it is logged.
const MAX_LOGGED_ID_CHARS: usize = 40;
/// Plausible times, in seconds: 2015 to 2100. The vendor may send 0 for no time.
const PLAUSIBLE_EPOCH_SECONDS: std::ops::Range<i64> = 1_420_070_400..4_102_444_800;
/// Larger numbers are milliseconds.
const MAX_EPOCH_SECONDS: i128 = 100_000_000_000;

macro_rules! required_fields {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A required part of an answer that cannot be understood.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum RequiredField {
            $($(#[$doc])* $variant,)*
        }

        impl RequiredField {
            /// The name of the field in the API.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The code of the error.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("NotUnderstood.", $name),)*
                }
            }
        }
    };
}

required_fields! {
    /// The connection is not an object.
    Connection = "VpcPeerConnect",
    /// The list of connections.
    Connections = "VpcPeerConnects",
    /// The id, or it is not the requested id.
    InstanceId = "InstanceId",
    /// The status.
    Status = "Status",
    /// The requester's account.
    Owner = "OwnerId",
    /// The accepting account.
    AcceptingOwner = "AcceptingOwnerUid",
    /// The requester's region.
    Region = "RegionId",
    /// The accepting region.
    AcceptingRegion = "AcceptingRegionId",
    /// The requester's VPC.
    Vpc = "Vpc.VpcId",
    /// The accepting VPC.
    AcceptingVpc = "AcceptingVpc.VpcId",
    /// The requester's IPv4 CIDR blocks.
    Ipv4 = "Vpc.Ipv4Cidrs",
    /// The requester's IPv6 CIDR blocks.
    Ipv6 = "Vpc.Ipv6Cidrs",
    /// The accepting IPv4 CIDR blocks.
    AcceptingIpv4 = "AcceptingVpc.Ipv4Cidrs",
    /// The accepting IPv6 CIDR blocks.
    AcceptingIpv6 = "AcceptingVpc.Ipv6Cidrs",
    /// The bandwidth limit.
    Bandwidth = "Bandwidth",
    /// The link type, e.g. `Gold`.
    LinkType = "LinkType",
}

/// A listed connection that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableConnection {
    /// The id without characters that are unsafe in logs; `?` if there is none.
    pub id: String,
    /// The field that cannot be understood.
    pub field: RequiredField,
}

/// Parses a page. A missing list counts as empty only if the page says that the total is 0.
pub(super) fn parse_page(fields: &JsonFields) -> Result<Page, RequiredField> {
    let total =
        fields.get("TotalCount").first().and_then(json::parse_whole_number).and_then(|total| u32::try_from(total).ok());
    let token = fields.get("NextToken").first();
    let next_token = token.and_then(json::parse_word).filter(|token| !token.trim().is_empty() && token != "false");
    let has_unreadable_token =
        token.is_some_and(|token| json::parse_word(token).is_none() && !["{}", "[]"].contains(&token));
    let (mut connections, mut unreadable) = (vec![], vec![]);
    let listed = match fields.get("VpcPeerConnects") {
        JsonField::Once(value) => json::parse_list(value).ok_or(RequiredField::Connections)?,
        JsonField::Absent if total == Some(0) && next_token.is_none() && !has_unreadable_token => vec![],
        JsonField::Absent | JsonField::Repeated(_) => return Err(RequiredField::Connections),
    };
    for value in listed {
        let value = value.get();
        match JsonFields::parse(value) {
            None => unreadable.push(UnreadableConnection {
                id: sanitize_id(json::parse_word(value).as_deref()),
                field: RequiredField::Connection,
            }),
            Some(fields) => match parse_connection(&fields) {
                Ok(connection) => connections.push(connection),
                Err(fact) => unreadable.push(UnreadableConnection { id: id_for_log(&fields), field: fact }),
            },
        }
    }
    Ok(Page { connections, unreadable, total, next_token, has_unreadable_token })
}

/// The id of a connection that cannot be understood.
fn id_for_log(fields: &JsonFields) -> String {
    sanitize_id(fields.get("InstanceId").first().and_then(json::parse_word).as_deref())
}

fn sanitize_id(text: Option<&str>) -> String {
    let shown = |character: &char| character.is_ascii_alphanumeric() || "._-".contains(*character);
    let id: String = text.unwrap_or_default().chars().filter(shown).take(MAX_LOGGED_ID_CHARS).collect();
    if id.is_empty() { "?".to_owned() } else { id }
}

/// Parses a connection.
pub(super) fn parse_connection(fields: &JsonFields) -> Result<Connection, RequiredField> {
    let instance_id = require_identifier(fields.get("InstanceId"), RequiredField::InstanceId)?;
    let status = Status::from(require_identifier(fields.get("Status"), RequiredField::Status)?);
    // A new connection may not have its sides yet, and an ended one may have lost them. People decide about neither.
    let is_open = match status {
        Status::Creating | Status::Rejected | Status::Expired | Status::Deleting | Status::Deleted => false,
        Status::Accepting | Status::Updating | Status::Activated | Status::Other(_) => true,
    };
    let requester = EndFields {
        account: FactField { value: fields.get("OwnerId"), fact: RequiredField::Owner },
        region: FactField { value: fields.get("RegionId"), fact: RequiredField::Region },
        vpc: FactField { value: fields.get("Vpc"), fact: RequiredField::Vpc },
        ipv4_fact: RequiredField::Ipv4,
        ipv6_fact: RequiredField::Ipv6,
    };
    let accepter = EndFields {
        account: FactField { value: fields.get("AcceptingOwnerUid"), fact: RequiredField::AcceptingOwner },
        region: FactField { value: fields.get("AcceptingRegionId"), fact: RequiredField::AcceptingRegion },
        vpc: FactField { value: fields.get("AcceptingVpc"), fact: RequiredField::AcceptingVpc },
        ipv4_fact: RequiredField::AcceptingIpv4,
        ipv6_fact: RequiredField::AcceptingIpv6,
    };
    Ok(Connection {
        instance_id: InstanceId::parse(&instance_id).map_err(|_| RequiredField::InstanceId)?,
        status,
        business_status: parse_business_status(fields.get("BizStatus")).into(),
        requester: requester.parse_side(is_open)?,
        accepter: accepter.parse_side(is_open)?,
        bandwidth_mbps: required_if_open(parse_bandwidth(fields.get("Bandwidth")), is_open)?,
        link_type: required_if_open(parse_link_type(fields.get("LinkType")), is_open)?,
        name: parse_display_text(fields.get("Name")),
        description: parse_display_text(fields.get("Description")),
        created_at: fields.get("GmtCreate").first().and_then(parse_time),
        expires_at: fields.get("GmtExpired").first().and_then(parse_time),
        managed_service: parse_managed_service(fields.get("ManagedService")),
    })
}

/// A fact. If it cannot be understood, that is an error only for an open connection.
fn required_if_open<T: Default>(fact: Result<T, RequiredField>, is_open: bool) -> Result<T, RequiredField> {
    if is_open { fact } else { Ok(fact.unwrap_or_default()) }
}

/// An unparsed field, and the fact that it must have.
#[derive(Clone, Copy)]
struct FactField<'a> {
    value: JsonField<'a>,
    fact: RequiredField,
}

/// The unparsed fields of one end of a connection.
struct EndFields<'a> {
    account: FactField<'a>,
    region: FactField<'a>,
    vpc: FactField<'a>,
    ipv4_fact: RequiredField,
    ipv6_fact: RequiredField,
}

impl EndFields<'_> {
    fn parse_side(&self, is_open: bool) -> Result<Side, RequiredField> {
        let Self { account, region, vpc, .. } = self;
        let fields = match vpc.value {
            JsonField::Once(value) => JsonFields::parse(value),
            JsonField::Absent | JsonField::Repeated(_) => None,
        };
        let fields = fields.as_ref().ok_or(vpc.fact);
        let vpc_id = fields.and_then(|fields| require_identifier(fields.get("VpcId"), vpc.fact));
        let mut cidrs = BTreeSet::new();
        for (name, fact) in [("Ipv4Cidrs", self.ipv4_fact), ("Ipv6Cidrs", self.ipv6_fact)] {
            let parsed = fields.and_then(|fields| parse_cidrs(fields.get(name)).ok_or(fact));
            cidrs.extend(required_if_open(parsed, is_open)?);
        }
        Ok(Side {
            account: AccountId(required_if_open(parse_account(account.value).ok_or(account.fact), is_open)?),
            region: required_if_open(require_identifier(region.value, region.fact), is_open)?,
            vpc: required_if_open(vpc_id, is_open)?,
            cidrs,
        })
    }
}

/// An identifier of the vendor: an id, a region or a status.
fn require_identifier(field: JsonField<'_>, fact: RequiredField) -> Result<String, RequiredField> {
    let JsonField::Once(value) = field else { return Err(fact) };
    let text = json::parse_text(value).ok_or(fact)?;
    let word = text.trim();
    let is_valid = (1..=MAX_WORD_CHARS).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic());
    if is_valid { Ok(word.to_owned()) } else { Err(fact) }
}

/// An account id: at most 64 bits, and never 0.
fn parse_account(field: JsonField<'_>) -> Option<u64> {
    match field {
        JsonField::Once(value) => u64::try_from(json::parse_whole_number(value)?).ok().filter(|number| *number > 0),
        JsonField::Absent | JsonField::Repeated(_) => None,
    }
}

/// CIDR blocks: a list, or one block. Empty entries are ignored. `None` for anything else.
fn parse_cidrs(field: JsonField<'_>) -> Option<BTreeSet<IpNet>> {
    let value = match field {
        JsonField::Absent => return Some(BTreeSet::new()),
        JsonField::Repeated(_) => return None,
        JsonField::Once(value) => value,
    };
    let parse_cidr = |value: &str| match json::parse_text(value) {
        None if value == "null" => Some(None),
        None => None,
        Some(text) if text.trim().is_empty() => Some(None),
        Some(text) => Some(Some(text.trim().parse::<IpNet>().ok()?.trunc())),
    };
    let cidrs: Option<Vec<_>> = match json::parse_list(value) {
        Some(list) => list.iter().map(|value| parse_cidr(value.get())).collect(),
        None => parse_cidr(value).map(|cidr| vec![cidr]),
    };
    Some(cidrs?.into_iter().flatten().collect())
}

/// In Mbit/s. Only -1 and an absent value mean that there is no limit.
fn parse_bandwidth(field: JsonField<'_>) -> Result<Option<u32>, RequiredField> {
    match field {
        JsonField::Absent => Ok(None),
        JsonField::Once(value) => match json::parse_whole_number(value).ok_or(RequiredField::Bandwidth)? {
            -1 => Ok(None),
            mbps => u32::try_from(mbps).map(Some).map_err(|_| RequiredField::Bandwidth),
        },
        JsonField::Repeated(_) => Err(RequiredField::Bandwidth),
    }
}

/// A value of the wrong type is kept as text, because people see it and the fingerprint covers it.
fn parse_link_type(field: JsonField<'_>) -> Result<String, RequiredField> {
    let link_type = match field {
        JsonField::Absent => return Ok(String::new()),
        JsonField::Repeated(_) => return Err(RequiredField::LinkType),
        JsonField::Once(value) => json::parse_text(value).unwrap_or_else(|| value.to_owned()),
    };
    let link_type = link_type.trim();
    if link_type.chars().count() > MAX_WORD_CHARS { Err(RequiredField::LinkType) } else { Ok(link_type.to_owned()) }
}

/// Empty if it is absent or repeated.
fn parse_business_status(field: JsonField<'_>) -> String {
    match field {
        JsonField::Absent | JsonField::Repeated(_) => String::new(),
        JsonField::Once(value) => truncate_display_text(json::parse_text(value).unwrap_or_default().trim()),
    }
}

/// The service that manages the connection; empty if none does. A value of the wrong type counts as a service, too. Such a
/// connection cannot be accepted.
fn parse_managed_service(field: JsonField<'_>) -> String {
    let text = match field {
        JsonField::Absent => return String::new(),
        JsonField::Once(value) => json::parse_text(value).unwrap_or_else(|| value.to_owned()),
        JsonField::Repeated(_) => "more than one".to_owned(),
    };
    let service = text.trim();
    if ["false", "0", "[]", "{}"].contains(&service) { String::new() } else { truncate_display_text(service) }
}

/// Text that is only displayed. A value of the wrong type is kept as JSON.
fn parse_display_text(field: JsonField<'_>) -> String {
    let value = field.first().unwrap_or_default();
    truncate_display_text(&json::parse_text(value).unwrap_or_else(|| value.to_owned()))
}

fn truncate_display_text(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

/// A time. Without a time zone it is in UTC. `None` if it cannot be understood.
pub(super) fn parse_time(value: &str) -> Option<Timestamp> {
    let is_plausible = |time: &Timestamp| PLAUSIBLE_EPOCH_SECONDS.contains(&time.as_second());
    if let Some(number) = json::parse_whole_number(value) {
        let time = if number.abs() < MAX_EPOCH_SECONDS {
            Timestamp::from_second(i64::try_from(number).ok()?)
        } else {
            Timestamp::from_millisecond(i64::try_from(number).ok()?)
        };
        return time.ok().filter(is_plausible);
    }
    let text = json::parse_text(value)?;
    let text = text.trim();
    let text = ["UTC", "GMT"].iter().find_map(|zone| text.strip_suffix(zone)).unwrap_or(text).trim_end();
    let without_zone = || {
        // A date without a time of day is not a time.
        let time = text.contains(':').then(|| text.parse::<civil::DateTime>().ok()).flatten()?;
        time.to_zoned(tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    text.parse().ok().or_else(without_zone).filter(is_plausible)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peering::BusinessStatus;
    use serde_json::{Value, json};

    fn whole() -> Value {
        json!({
            "InstanceId": "pcc-a", "Status": "Accepting", "BizStatus": "Normal", "OwnerId": 253_460_731_706_911_258_u64,
            "AcceptingOwnerUid": 2, "RegionId": "r", "AcceptingRegionId": "s",
            "Vpc": {"VpcId": "vpc-a", "Ipv4Cidrs": ["10.0.0.7/8"], "Ipv6Cidrs": null},
            "AcceptingVpc": {"VpcId": "vpc-b"}, "Bandwidth": -1, "LinkType": null, "GmtExpired": "",
        })
    }

    fn read(json: &str) -> Result<Connection, RequiredField> {
        parse_connection(&JsonFields::parse(&json::repair_json(json.as_bytes())).unwrap())
    }

    /// The connection with another value for a field: `Name`, or `Vpc.Ipv6Cidrs`.
    fn with(field: &str, value: Value) -> Result<Connection, RequiredField> {
        let mut json = whole();
        match field.split_once('.') {
            Some((object, field)) => json[object][field] = value,
            None => json[field] = value,
        }
        read(&json.to_string())
    }

    #[test]
    fn ended_connection_may_lack_sides_but_an_open_one_may_not() {
        let read = |status: &str| {
            let lost = format!(r#"{{"InstanceId":"pcc-a","Status":"{status}","OwnerId":null,"Vpc":null}}"#);
            let odd = format!(r#"{{"InstanceId":"pcc-a","Status":"{status}","OwnerId":"?","Vpc":7,"Bandwidth":"?"}}"#);
            (read(&lost).is_ok(), read(&odd).is_ok())
        };
        for status in ["Deleted", "Deleting", "Rejected", "Expired", "Creating"] {
            assert_eq!(read(status), (true, true), "{status}");
        }
        for status in ["Accepting", "Updating", "Activated", "Paused"] {
            assert_eq!(read(status), (false, false), "{status}");
        }
    }

    #[test]
    fn nulls_and_large_numbers_are_read() {
        let connection = read(&whole().to_string()).unwrap();
        assert_eq!(connection.requester.account, AccountId(253_460_731_706_911_258));
        assert_eq!(connection.requester.cidrs.first().unwrap().to_string(), "10.0.0.0/8");
        assert_eq!((connection.bandwidth_mbps, connection.has_known_cidrs()), (None, false));
    }

    #[test]
    fn malformed_display_fields_hide_no_connection() {
        let odd =
            [json!(null), json!(7), json!(true), json!(["a"]), json!({"a": 1}), json!(""), json!("x".repeat(9999))];
        for field in
            ["Name", "Description", "GmtExpired", "BizStatus", "LinkType", "GmtCreate", "Tags", "ManagedService"]
        {
            for value in &odd {
                let read = with(field, value.clone());
                assert!(read.is_ok() || field == "LinkType" && *value == *odd.last().unwrap(), "{field} {value}");
            }
        }
        let named = whole().to_string().replace("\"GmtExpired\":\"\"", r#""Name":"team \ud83d","Name":"b""#);
        assert_eq!(read(&named).unwrap().name, "team \u{fffd}");
        assert_eq!(with("LinkType", json!({"a": 1})).unwrap().link_type, r#"{"a":1}"#);
        assert_eq!(with("ManagedService", json!(true)).unwrap().managed_service, "true");
        assert_eq!(with("ManagedService", json!(false)).unwrap().managed_service, "");
        assert_eq!(with("BizStatus", json!(null)).unwrap().business_status, BusinessStatus::Other(String::new()));
    }

    #[test]
    fn expiry_is_read_in_all_common_forms_or_unknown() {
        let expiry = |value: Value| with("GmtExpired", value).unwrap().expires_at.map(|time| time.to_string());
        let ten = "2026-12-01T10:00:00Z";
        for same in [
            json!("2026-12-01T10:00:00Z"),
            json!("2026-12-01 10:00:00"),
            json!("2026-12-01T10:00Z"),
            json!("2026-12-01 10:00"),
            json!("2026-12-01T10:00:00"),
            json!("2026-12-01T18:00:00+08:00"),
            json!("2026-12-01T18:00:00+0800"),
            json!("2026-12-01 18:00:00+08:00"),
            json!(" 2026-12-01T10:00:00.000Z "),
            json!("2026-12-01 10:00:00 UTC"),
            json!("2026-12-01t10:00:00z"),
            json!(1_796_119_200_000_u64),
            json!("1796119200000"),
            json!(1_796_119_200),
            json!("1796119200"),
        ] {
            assert_eq!(expiry(same.clone()).as_deref(), Some(ten), "{same}");
        }
        for unknown in [
            json!("soon"),
            json!("2026-12-01"),
            json!(0),
            json!("0"),
            json!(-1),
            json!("1970-01-01T00:00:00Z"),
            json!("0001-01-01T00:00:00Z"),
            json!(1e300),
            json!("9999-12-31T23:59:59Z"),
            json!("2026-13-01T10:00:00Z"),
            json!([]),
            json!({}),
            json!(true),
            json!("01/12/2026 10:00:00"),
            json!(i64::MAX),
            json!("\u{fffd}"),
        ] {
            assert_eq!(expiry(unknown.clone()), None, "{unknown}");
        }
    }

    #[test]
    fn decisive_facts_are_read_in_every_clear_form() {
        assert_eq!(
            with("OwnerId", json!("1111111111111111")).unwrap().requester.account,
            AccountId(1_111_111_111_111_111)
        );
        assert_eq!(with("Bandwidth", json!("1024")).unwrap().bandwidth_mbps, Some(1024));
        assert_eq!(with("Bandwidth", json!(1024.0)).unwrap().bandwidth_mbps, Some(1024));
        for none in [json!(null), json!(-1), json!("-1"), json!(-1.0)] {
            assert_eq!(with("Bandwidth", none).unwrap().bandwidth_mbps, None);
        }
        assert_eq!(with("Vpc.VpcId", json!(" vpc-a ")).unwrap().requester.vpc, "vpc-a");
        let v6 = |value: Value| with("Vpc.Ipv6Cidrs", value).unwrap().requester.cidrs.len();
        for none in [json!([""]), json!([null]), json!([]), json!(null), json!(" "), json!(["", null, " "])] {
            assert_eq!(v6(none.clone()), 1, "{none}");
        }
        for one in [json!([" 2408:4000::/56 "]), json!("2408:4000::/56"), json!(["2408:4000::1/56", ""])] {
            assert_eq!(v6(one.clone()), 2, "{one}");
        }
    }

    #[test]
    fn unreadable_fact_is_named() {
        for (field, values, fact) in [
            ("InstanceId", vec![json!(null), json!(7), json!("pcc-UPPER"), json!("")], RequiredField::InstanceId),
            ("Status", vec![json!(null), json!(7), json!(""), json!("\u{fffd}"), json!("a b")], RequiredField::Status),
            (
                "OwnerId",
                vec![json!(null), json!(0), json!(-1), json!(1.5), json!("x"), json!(1e30)],
                RequiredField::Owner,
            ),
            ("AcceptingOwnerUid", vec![json!([]), json!("1e9999")], RequiredField::AcceptingOwner),
            ("RegionId", vec![json!(null), json!(1), json!("")], RequiredField::Region),
            ("AcceptingRegionId", vec![json!({}), json!("a\nb")], RequiredField::AcceptingRegion),
            ("Vpc", vec![json!(null), json!("vpc-a"), json!([]), json!({})], RequiredField::Vpc),
            (
                "AcceptingVpc.VpcId",
                vec![json!(null), json!(7), json!(""), json!("x".repeat(200))],
                RequiredField::AcceptingVpc,
            ),
            (
                "Vpc.Ipv4Cidrs",
                vec![json!(["10.0.0.0"]), json!([7]), json!({}), json!("x"), json!([["a"]])],
                RequiredField::Ipv4,
            ),
            ("AcceptingVpc.Ipv6Cidrs", vec![json!(["::/129"]), json!(true)], RequiredField::AcceptingIpv6),
            (
                "Bandwidth",
                vec![json!(""), json!(-2), json!("unlimited"), json!(1.5), json!(true), json!([]), json!(u64::MAX)],
                RequiredField::Bandwidth,
            ),
        ] {
            for value in values {
                assert_eq!(with(field, value.clone()).map(|_| ()), Err(fact), "{field} {value}");
            }
        }
    }

    #[test]
    fn duplicate_fact_is_named_as_unreadable() {
        for (field, fact) in [
            ("Status", RequiredField::Status),
            ("InstanceId", RequiredField::InstanceId),
            ("OwnerId", RequiredField::Owner),
            ("Vpc", RequiredField::Vpc),
            ("Bandwidth", RequiredField::Bandwidth),
            ("LinkType", RequiredField::LinkType),
        ] {
            let twice = whole().to_string().replacen('{', &format!("{{\"{field}\":null,"), 1);
            assert_eq!(read(&twice).map(|_| ()), Err(fact), "{field}");
        }
    }

    #[test]
    fn missing_list_is_empty_only_if_the_page_says_so() {
        let read = |json: &str| {
            parse_page(&JsonFields::parse(json).unwrap()).map(|page| (page.next_token, page.has_unreadable_token))
        };
        assert_eq!(read(r#"{"TotalCount":0}"#), Ok((None, false)));
        assert_eq!(read(r#"{"TotalCount":"0","NextToken":"","VpcPeerConnects":null}"#), Ok((None, false)));
        for odd in [
            r"{}",
            r#"{"TotalCount":null}"#,
            r#"{"TotalCount":1}"#,
            r#"{"TotalCount":0,"NextToken":"a"}"#,
            r#"{"VpcPeerConnects":{"InstanceId":"pcc-a"}}"#,
            r#"{"VpcPeerConnects":""}"#,
            r#"{"VpcPeerConnects":[],"VpcPeerConnects":[]}"#,
        ] {
            assert_eq!(read(odd), Err(RequiredField::Connections), "{odd}");
        }
        let of = |rest: &str| read(&format!(r#"{{"VpcPeerConnects":[],{rest}}}"#)).unwrap();
        assert_eq!(of(r#""TotalCount":[],"NextToken":7"#), (Some("7".into()), false));
        assert_eq!(of(r#""TotalCount":-1,"NextToken":false"#), (None, false));
        assert_eq!(of(r#""TotalCount":1e99,"NextToken":{"a":1}"#), (None, true));
    }

    #[test]
    fn every_skipped_list_element_is_named() {
        let json = r#"{"TotalCount":6,"VpcPeerConnects":[null,[],"pcc-a",7,{"InstanceId":"pcc-b","Status":null},
            {"InstanceId":"<pcc>\n","Status":"Accepting"},{"InstanceId":"pcc-c","Status":"Deleted"}]}"#;
        let page = parse_page(&JsonFields::parse(json).unwrap()).unwrap();
        let named: Vec<_> = page.unreadable.iter().map(|out| (out.id.as_str(), out.field)).collect();
        let expected = [
            ("null", RequiredField::Connection),
            ("?", RequiredField::Connection),
            ("pcc-a", RequiredField::Connection),
            ("7", RequiredField::Connection),
            ("pcc-b", RequiredField::Status),
            ("pcc", RequiredField::InstanceId),
        ];
        assert_eq!((named.as_slice(), page.connections.len()), (expected.as_slice(), 1));
    }
}
