//! The checks that no rule can waive: what stands against accepting a connection, whoever decides. Pure.
//!
//! They are made when a request is discovered, shown on its card, and made again at the decision.

use std::collections::BTreeSet;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::peering::{AccountId, BusinessStatus, Connection, InstanceId, Problem, Status};

/// The most overlaps that are kept: more make nothing clearer.
const MOST_OVERLAPS: usize = 10;

/// One check and what it found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// What was found.
    pub found: Found,
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The accepting account is the target's.
    Account,
    /// It waits to be accepted.
    Status,
    /// It has not expired.
    Expiry,
    /// It is paid for.
    BusinessStatus,
    /// No Alibaba service owns it.
    ManagedService,
    /// Both sides use different addresses.
    Cidrs,
    /// The requester's addresses are not those of another peering of the accepting VPC.
    OtherPeerings,
    /// Alibaba Cloud would accept it: a `DryRun` of the accept.
    DryRun,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// Nothing against it.
    Passed,
    /// It could not be looked at; says why, if Alibaba Cloud said so.
    Unknown(Option<Problem>),
    /// Something to know. Stops only what would be accepted without people.
    Warning(Vec<Neighbour>),
    /// Something that stands against it.
    Objection(Objection),
}

/// A range of the requester that another peering of the accepting VPC uses already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The other peering.
    pub instance_id: InstanceId,
    /// The requester's range.
    pub requested: IpNet,
    /// The range behind the other peering.
    pub taken: IpNet,
}

/// What stands against accepting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objection {
    /// The accepting account is not the target's.
    #[error("the accepting account is not the target's")]
    NotOurs,
    /// Not waiting for us (any more).
    #[error("the connection is not waiting to be accepted")]
    Status(Status),
    /// The time to answer has passed.
    #[error("the request has expired")]
    Expired,
    /// Locked, e.g. for an overdue payment.
    #[error("the connection's business status is not Normal")]
    BusinessStatus(BusinessStatus),
    /// An Alibaba service owns it.
    #[error("the connection belongs to a managed service")]
    ManagedService(String),
    /// Both sides use the same addresses. Pairs of ranges, the requester's first.
    #[error("CIDRs of both sides overlap")]
    Overlap(Vec<(IpNet, IpNet)>),
    /// Alibaba Cloud would not accept it.
    #[error("the dry run of the accept failed")]
    DryRun(Problem),
}

/// Makes the checks that need nothing but the reading.
#[must_use]
pub fn check(connection: &Connection, account: AccountId, now: Timestamp) -> Vec<Finding> {
    let object = |stands: bool, objection: Objection| {
        if stands { Found::Objection(objection) } else { Found::Passed }
    };
    let overlaps = connection.overlapping_cidrs();
    let cidrs = match overlaps.as_slice() {
        [] if connection.cidrs_are_known() => Found::Passed,
        [] => Found::Unknown(None),
        some => Found::Objection(Objection::Overlap(some.iter().take(MOST_OVERLAPS).copied().collect())),
    };
    let expired = connection.expires_at.is_some_and(|expires_at| expires_at <= now);
    let (status, business) = (&connection.status, &connection.business_status);
    let managed = &connection.managed_service;
    [
        (Check::Account, object(connection.accepter.account != account, Objection::NotOurs)),
        (Check::Status, object(*status != Status::Accepting, Objection::Status(status.clone()))),
        (Check::Expiry, object(expired, Objection::Expired)),
        (
            Check::BusinessStatus,
            match business {
                BusinessStatus::Normal => Found::Passed,
                // People must hear of it to fix it.
                BusinessStatus::Other(word) if word.is_empty() => Found::Unknown(None),
                BusinessStatus::FinancialLocked | BusinessStatus::Other(_) => {
                    Found::Objection(Objection::BusinessStatus(business.clone()))
                }
            },
        ),
        (Check::ManagedService, object(!managed.is_empty(), Objection::ManagedService(managed.clone()))),
        (Check::Cidrs, cidrs),
    ]
    .map(|(check, found)| Finding { check, found })
    .into()
}

/// Looks for the requester's addresses behind the other peerings of our VPC; `None` when those could not be listed.
#[must_use]
pub fn check_other_peerings(connection: &Connection, others: Option<&[Connection]>) -> Finding {
    let ours = &connection.accepter.vpc;
    let found = match others {
        None => Found::Unknown(None),
        Some(others) => {
            // What is only asked for may be accepted first.
            let in_use = |other: &&Connection| {
                matches!(other.status, Status::Accepting | Status::Updating | Status::Activated)
                    && other.instance_id != connection.instance_id
            };
            let unknown = others.iter().filter(in_use).any(|other| !other.cidrs_are_known());
            let mut overlaps = vec![];
            for other in others.iter().filter(in_use) {
                let far_side: BTreeSet<IpNet> = match (&other.requester, &other.accepter) {
                    (far, near) | (near, far) if near.vpc == *ours => far.cidrs.clone(),
                    _ => continue,
                };
                for taken in far_side {
                    let overlap = |requested: &&IpNet| requested.contains(&taken) || taken.contains(*requested);
                    overlaps.extend(connection.requester.cidrs.iter().filter(overlap).map(|requested| Neighbour {
                        instance_id: other.instance_id.clone(),
                        requested: *requested,
                        taken,
                    }));
                }
            }
            overlaps.truncate(MOST_OVERLAPS);
            match overlaps.is_empty() {
                true if unknown => Found::Unknown(None),
                true => Found::Passed,
                false => Found::Warning(overlaps),
            }
        }
    };
    Finding { check: Check::OtherPeerings, found }
}

/// The first objection against accepting.
#[must_use]
pub fn objection(findings: &[Finding]) -> Option<&Objection> {
    findings.iter().find_map(|finding| match &finding.found {
        Found::Objection(objection) => Some(objection),
        Found::Passed | Found::Unknown(_) | Found::Warning(_) => None,
    })
}

/// The first objection against rejecting, which needs no more than a request that waits for us.
#[must_use]
pub fn objection_to_reject(findings: &[Finding]) -> Option<&Objection> {
    let relevant = |finding: &&Finding| match finding.check {
        Check::Account | Check::Status | Check::Expiry => true,
        Check::BusinessStatus | Check::ManagedService | Check::Cidrs | Check::OtherPeerings | Check::DryRun => false,
    };
    findings.iter().filter(relevant).find_map(|finding| objection(std::slice::from_ref(finding)))
}

/// Whether every check was made and none found anything: only then may a rule accept without people.
#[must_use]
pub fn all_passed(findings: &[Finding]) -> bool {
    let made = |check| findings.iter().any(|finding| finding.check == check);
    [Check::Account, Check::Cidrs, Check::OtherPeerings, Check::DryRun].into_iter().all(made)
        && findings.iter().all(|finding| finding.found == Found::Passed)
}

/// Whether two rounds of checks found the same, whatever the vendor called the requests.
#[must_use]
pub fn same(one: &[Finding], other: &[Finding]) -> bool {
    let nameless = |finding: &Finding| {
        let mut finding = finding.clone();
        if let Found::Unknown(Some(problem)) | Found::Objection(Objection::DryRun(problem)) = &mut finding.found {
            problem.request_id = None;
        }
        finding
    };
    one.iter().map(nameless).eq(other.iter().map(nameless))
}

/// Whether Alibaba Cloud could not be asked for everything: it is worth asking again.
#[must_use]
pub fn is_incomplete(findings: &[Finding]) -> bool {
    let asked = |finding: &Finding| matches!(finding.check, Check::OtherPeerings | Check::DryRun);
    findings.iter().filter(|finding| asked(finding) && !matches!(finding.found, Found::Unknown(_))).count() < 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peering::tests::connection;

    type Case = (fn(&mut Connection), Objection, bool);

    const OURS: AccountId = AccountId(2_222_222_222_222_222);

    fn checked(change: fn(&mut Connection)) -> Vec<Finding> {
        let mut changed = connection();
        change(&mut changed);
        check(&changed, OURS, "2026-11-22T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn each_thing_that_no_rule_can_waive_is_objected_to() {
        assert_eq!(objection(&checked(|_| ())), None);
        let cases: [Case; 6] = [
            (|c| c.accepter.account = AccountId(3), Objection::NotOurs, true),
            (|c| c.status = Status::Activated, Objection::Status(Status::Activated), true),
            (|c| c.expires_at = Some("2026-11-22T00:00:00Z".parse().unwrap()), Objection::Expired, true),
            (
                |c| c.business_status = BusinessStatus::FinancialLocked,
                Objection::BusinessStatus(BusinessStatus::FinancialLocked),
                false,
            ),
            (|c| c.managed_service = "SWAS".into(), Objection::ManagedService("SWAS".into()), false),
            (
                |c| c.requester.cidrs = c.accepter.cidrs.clone(),
                Objection::Overlap(vec![("10.2.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap())]),
                false,
            ),
        ];
        for (change, expected, against_rejecting) in cases {
            let findings = checked(change);
            assert_eq!(objection(&findings), Some(&expected));
            assert_eq!(objection_to_reject(&findings).is_some(), against_rejecting, "{expected:?}");
        }
    }

    #[test]
    fn unknown_ranges_are_neither_passed_nor_objected_to() {
        let findings = checked(|c| c.requester.cidrs.clear());
        assert!(findings.contains(&Finding { check: Check::Cidrs, found: Found::Unknown(None) }));
        assert_eq!((objection(&findings), all_passed(&findings)), (None, false));
    }

    #[test]
    fn an_unknown_business_status_is_no_objection_and_no_pass() {
        let findings = checked(|c| c.business_status = BusinessStatus::Other(String::new()));
        assert!(findings.contains(&Finding { check: Check::BusinessStatus, found: Found::Unknown(None) }));
        assert_eq!((objection(&findings), all_passed(&findings)), (None, false));
    }

    #[test]
    fn ranges_behind_other_peerings_of_the_same_vpc_are_warned_about() {
        let other = |change: fn(&mut Connection)| {
            let mut other = connection();
            other.instance_id = InstanceId::parse("pcc-other").unwrap();
            other.status = Status::Activated;
            change(&mut other);
            check_other_peerings(&connection(), Some(&[other])).found
        };
        let neighbour = Neighbour {
            instance_id: InstanceId::parse("pcc-other").unwrap(),
            requested: "10.1.0.0/16".parse().unwrap(),
            taken: "10.1.0.0/16".parse().unwrap(),
        };
        assert_eq!(other(|_| ()), Found::Warning(vec![neighbour.clone()]));
        assert_eq!(other(|c| std::mem::swap(&mut c.requester, &mut c.accepter)), Found::Warning(vec![neighbour]));
        let inside = other(|c| c.requester.cidrs = ["10.1.7.0/24".parse().unwrap()].into());
        assert!(matches!(inside, Found::Warning(overlaps) if overlaps.len() == 1));
        for harmless in [
            (|c| c.status = Status::Rejected) as fn(&mut Connection),
            |c| c.accepter.vpc = "vpc-another".into(),
            |c| c.requester.cidrs = ["10.7.0.0/16".parse().unwrap()].into(),
            |c| c.instance_id = connection().instance_id,
        ] {
            assert_eq!(other(harmless), Found::Passed);
        }
        assert!(matches!(other(|c| c.status = Status::Accepting), Found::Warning(_)), "it may be accepted first");
        assert_eq!(other(|c| c.requester.cidrs.clear()), Found::Unknown(None));
        assert_eq!(check_other_peerings(&connection(), None).found, Found::Unknown(None));
    }

    #[test]
    fn only_a_complete_and_clean_preflight_has_passed() {
        let mut findings = checked(|_| ());
        assert!(!all_passed(&findings) && is_incomplete(&findings));
        findings.push(check_other_peerings(&connection(), Some(&[])));
        findings.push(Finding { check: Check::DryRun, found: Found::Unknown(None) });
        assert!(!all_passed(&findings) && is_incomplete(&findings));
        findings.last_mut().unwrap().found = Found::Passed;
        assert!(all_passed(&findings) && !is_incomplete(&findings));
    }
}
