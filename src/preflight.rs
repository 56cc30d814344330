//! The checks that no rule can waive: what stands against accepting a connection, whoever decides. Pure.
//!
//! They are made when a request is discovered, shown on its card, and made again at the decision.

use std::collections::BTreeSet;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::peering::{AccountId, BusinessStatus, Connection, InstanceId, Problem, Status};

/// The most overlaps that are kept: more make nothing clearer.
const MAX_OVERLAPS: usize = 10;

/// One check and what it found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// What was found.
    #[serde(rename = "found")]
    pub outcome: CheckOutcome,
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
pub enum CheckOutcome {
    /// Nothing against it.
    Passed,
    /// It could not be looked at; says why, if Alibaba Cloud said so.
    Unknown(Option<Problem>),
    /// Something to know. Stops only what would be accepted without people.
    Warning(Vec<CidrConflict>),
    /// Something that stands against it.
    Objection(Objection),
}

/// A range of the requester that another peering of the accepting VPC uses already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CidrConflict {
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
pub fn check_connection(connection: &Connection, account: AccountId, now: Timestamp) -> Vec<Finding> {
    let object = |stands: bool, objection: Objection| {
        if stands { CheckOutcome::Objection(objection) } else { CheckOutcome::Passed }
    };
    let overlaps = connection.overlapping_cidrs();
    let cidrs = match overlaps.as_slice() {
        [] if connection.has_known_cidrs() => CheckOutcome::Passed,
        [] => CheckOutcome::Unknown(None),
        some => CheckOutcome::Objection(Objection::Overlap(some.iter().take(MAX_OVERLAPS).copied().collect())),
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
                BusinessStatus::Normal => CheckOutcome::Passed,
                // People must hear of it to fix it.
                BusinessStatus::Other(word) if word.is_empty() => CheckOutcome::Unknown(None),
                BusinessStatus::FinancialLocked | BusinessStatus::Other(_) => {
                    CheckOutcome::Objection(Objection::BusinessStatus(business.clone()))
                }
            },
        ),
        (Check::ManagedService, object(!managed.is_empty(), Objection::ManagedService(managed.clone()))),
        (Check::Cidrs, cidrs),
    ]
    .map(|(check, found)| Finding { check, outcome: found })
    .into()
}

/// Looks for the requester's addresses behind the other peerings of our VPC; `None` when those could not be listed.
#[must_use]
pub fn check_other_peerings(connection: &Connection, others: Option<&[Connection]>) -> Finding {
    let ours = &connection.accepter.vpc;
    let found =
        match others {
            None => CheckOutcome::Unknown(None),
            Some(others) => {
                // What is only asked for may be accepted first.
                let in_use = |other: &&Connection| {
                    matches!(other.status, Status::Accepting | Status::Updating | Status::Activated)
                        && other.instance_id != connection.instance_id
                };
                let unknown = others.iter().filter(in_use).any(|other| !other.has_known_cidrs());
                let mut overlaps = vec![];
                for other in others.iter().filter(in_use) {
                    let far_side: BTreeSet<IpNet> = match (&other.requester, &other.accepter) {
                        (far, near) | (near, far) if near.vpc == *ours => far.cidrs.clone(),
                        _ => continue,
                    };
                    for taken in far_side {
                        let overlap = |requested: &&IpNet| requested.contains(&taken) || taken.contains(*requested);
                        overlaps.extend(connection.requester.cidrs.iter().filter(overlap).map(|requested| {
                            CidrConflict { instance_id: other.instance_id.clone(), requested: *requested, taken }
                        }));
                    }
                }
                overlaps.truncate(MAX_OVERLAPS);
                match overlaps.is_empty() {
                    true if unknown => CheckOutcome::Unknown(None),
                    true => CheckOutcome::Passed,
                    false => CheckOutcome::Warning(overlaps),
                }
            }
        };
    Finding { check: Check::OtherPeerings, outcome: found }
}

/// The first objection against accepting.
#[must_use]
pub fn first_objection(findings: &[Finding]) -> Option<&Objection> {
    findings.iter().find_map(|finding| match &finding.outcome {
        CheckOutcome::Objection(objection) => Some(objection),
        CheckOutcome::Passed | CheckOutcome::Unknown(_) | CheckOutcome::Warning(_) => None,
    })
}

/// The first objection against rejecting, which needs no more than a request that waits for us.
#[must_use]
pub fn first_objection_to_reject(findings: &[Finding]) -> Option<&Objection> {
    let relevant = |finding: &&Finding| match finding.check {
        Check::Account | Check::Status | Check::Expiry => true,
        Check::BusinessStatus | Check::ManagedService | Check::Cidrs | Check::OtherPeerings | Check::DryRun => false,
    };
    findings.iter().filter(relevant).find_map(|finding| first_objection(std::slice::from_ref(finding)))
}

/// Whether every check was made and none found anything: only then may a rule accept without people.
#[must_use]
pub fn all_passed(findings: &[Finding]) -> bool {
    let made = |check| findings.iter().any(|finding| finding.check == check);
    [Check::Account, Check::Cidrs, Check::OtherPeerings, Check::DryRun].into_iter().all(made)
        && findings.iter().all(|finding| finding.outcome == CheckOutcome::Passed)
}

/// Whether two rounds of checks found the same, whatever the vendor called the requests.
#[must_use]
pub fn is_same_outcome(one: &[Finding], other: &[Finding]) -> bool {
    let nameless = |finding: &Finding| {
        let mut finding = finding.clone();
        if let CheckOutcome::Unknown(Some(problem)) | CheckOutcome::Objection(Objection::DryRun(problem)) =
            &mut finding.outcome
        {
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
    findings.iter().filter(|finding| asked(finding) && !matches!(finding.outcome, CheckOutcome::Unknown(_))).count() < 2
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
        check_connection(&changed, OURS, "2026-11-22T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn every_unwaivable_problem_raises_an_objection() {
        assert_eq!(first_objection(&checked(|_| ())), None);
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
            assert_eq!(first_objection(&findings), Some(&expected));
            assert_eq!(first_objection_to_reject(&findings).is_some(), against_rejecting, "{expected:?}");
        }
    }

    #[test]
    fn unknown_ranges_neither_pass_nor_raise_an_objection() {
        let findings = checked(|c| c.requester.cidrs.clear());
        assert!(findings.contains(&Finding { check: Check::Cidrs, outcome: CheckOutcome::Unknown(None) }));
        assert_eq!((first_objection(&findings), all_passed(&findings)), (None, false));
    }

    #[test]
    fn unknown_status_neither_passes_nor_raises_an_objection() {
        let findings = checked(|c| c.business_status = BusinessStatus::Other(String::new()));
        assert!(findings.contains(&Finding { check: Check::BusinessStatus, outcome: CheckOutcome::Unknown(None) }));
        assert_eq!((first_objection(&findings), all_passed(&findings)), (None, false));
    }

    #[test]
    fn ranges_of_other_peerings_in_the_vpc_raise_a_warning() {
        let other = |change: fn(&mut Connection)| {
            let mut other = connection();
            other.instance_id = InstanceId::parse("pcc-other").unwrap();
            other.status = Status::Activated;
            change(&mut other);
            check_other_peerings(&connection(), Some(&[other])).outcome
        };
        let neighbour = CidrConflict {
            instance_id: InstanceId::parse("pcc-other").unwrap(),
            requested: "10.1.0.0/16".parse().unwrap(),
            taken: "10.1.0.0/16".parse().unwrap(),
        };
        assert_eq!(other(|_| ()), CheckOutcome::Warning(vec![neighbour.clone()]));
        assert_eq!(
            other(|c| std::mem::swap(&mut c.requester, &mut c.accepter)),
            CheckOutcome::Warning(vec![neighbour])
        );
        let inside = other(|c| c.requester.cidrs = ["10.1.7.0/24".parse().unwrap()].into());
        assert!(matches!(inside, CheckOutcome::Warning(overlaps) if overlaps.len() == 1));
        for harmless in [
            (|c| c.status = Status::Rejected) as fn(&mut Connection),
            |c| c.accepter.vpc = "vpc-another".into(),
            |c| c.requester.cidrs = ["10.7.0.0/16".parse().unwrap()].into(),
            |c| c.instance_id = connection().instance_id,
        ] {
            assert_eq!(other(harmless), CheckOutcome::Passed);
        }
        assert!(
            matches!(other(|c| c.status = Status::Accepting), CheckOutcome::Warning(_)),
            "it may be accepted first"
        );
        assert_eq!(other(|c| c.requester.cidrs.clear()), CheckOutcome::Unknown(None));
        assert_eq!(check_other_peerings(&connection(), None).outcome, CheckOutcome::Unknown(None));
    }

    #[test]
    fn incomplete_preflight_does_not_pass() {
        let mut findings = checked(|_| ());
        assert!(!all_passed(&findings) && is_incomplete(&findings));
        findings.push(check_other_peerings(&connection(), Some(&[])));
        findings.push(Finding { check: Check::DryRun, outcome: CheckOutcome::Unknown(None) });
        assert!(!all_passed(&findings) && is_incomplete(&findings));
        findings.last_mut().unwrap().outcome = CheckOutcome::Passed;
        assert!(all_passed(&findings) && !is_incomplete(&findings));
    }
}
