//! Checks that no rule can waive: they find reasons not to accept a connection, whoever decides. Pure.
//!
//! They run when a request is discovered, and again at the decision. The card shows their results.

use std::collections::BTreeSet;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::peering::{AccountId, BusinessStatus, Connection, InstanceId, Problem, Side, Status};

/// Maximum number of overlaps that are kept. More would not help the reader.
const MAX_OVERLAPS: usize = 10;

/// One check and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
pub struct Finding {
    /// Which check it is.
    pub check: Check,
    /// Its result.
    #[serde(rename = "found")]
    pub outcome: CheckOutcome,
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The accepting account is the target's.
    Account,
    /// The connection is waiting to be accepted.
    Status,
    /// The request has not expired.
    Expiry,
    /// The connection is not locked, e.g. for an overdue payment.
    BusinessStatus,
    /// No Alibaba service owns the connection.
    ManagedService,
    /// The CIDR blocks of both sides do not overlap.
    Cidrs,
    /// The requester's CIDR blocks do not overlap those of another peering of the accepting VPC.
    OtherPeerings,
    /// No CIDR block of either side is used by another peering of the configured accounts. Only changes of activated
    /// connections are checked for this.
    CidrsInUse,
    /// Alibaba Cloud would accept the connection, according to a `DryRun` of the accept.
    DryRun,
}

/// Result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// The check found no problem.
    Passed,
    /// The check could not be made. Says why if Alibaba Cloud gave a reason.
    Unknown(Option<Problem>),
    /// People should know this. It only stops rules that accept by themselves.
    Warning(Vec<CidrConflict>),
    /// A reason not to accept.
    Objection(Objection),
}

/// A CIDR block of the requester that overlaps another peering of the accepting VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
pub struct CidrConflict {
    /// Id of the other peering.
    pub instance_id: InstanceId,
    /// CIDR block of the requester.
    #[cfg_attr(feature = "local", schemars(with = "String"))]
    pub requested: IpNet,
    /// CIDR block behind the other peering.
    #[cfg_attr(feature = "local", schemars(with = "String"))]
    pub taken: IpNet,
}

/// A reason not to accept a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Objection {
    /// The accepting account is not the target's.
    #[error("the accepting account is not the target's")]
    NotOurs,
    /// The connection is not waiting to be accepted. Holds its status.
    #[error("the connection is not waiting to be accepted")]
    Status(Status),
    /// The request has expired.
    #[error("the request has expired")]
    Expired,
    /// The connection is locked, e.g. for an overdue payment.
    #[error("the connection's business status is not `Normal`")]
    BusinessStatus(BusinessStatus),
    /// An Alibaba service owns the connection. Holds its name.
    #[error("the connection belongs to a managed service")]
    ManagedService(String),
    /// CIDR blocks of both sides overlap. Holds pairs, the requester's block first.
    #[error("CIDR blocks of both sides overlap")]
    #[cfg_attr(feature = "local", schemars(with = "Vec<(String, String)>"))]
    Overlap(Vec<(IpNet, IpNet)>),
    /// Alibaba Cloud would not accept the connection.
    #[error("the dry run of the accept failed")]
    DryRun(Problem),
}

/// Makes the checks that require only the reading. `account` is the target's account.
#[must_use]
pub fn check_connection(connection: &Connection, account: AccountId, now: Timestamp) -> Vec<Finding> {
    let object = |applies: bool, objection: Objection| {
        if applies { CheckOutcome::Objection(objection) } else { CheckOutcome::Passed }
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
                // The vendor reports no status. People must hear of it to fix it.
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

/// Checks the requester's CIDR blocks against the other peerings of the accepting VPC. `others` is `None` if they could
/// not be listed.
#[must_use]
pub fn check_other_peerings(connection: &Connection, others: Option<&[Connection]>) -> Finding {
    let ours = &connection.accepter.vpc;
    let found =
        match others {
            None => CheckOutcome::Unknown(None),
            Some(others) => {
                let in_use = |other: &&Connection| is_in_use(other) && other.instance_id != connection.instance_id;
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

/// Makes the checks of an activated connection again. `used` is what all peerings of the configured accounts use,
/// `None` if they could not be listed.
#[must_use]
pub fn check_active(
    connection: &Connection,
    account: AccountId,
    used: Option<&[UsedCidrs]>,
    now: Timestamp,
) -> Vec<Finding> {
    let remains = |finding: &Finding| match finding.check {
        Check::Account | Check::BusinessStatus | Check::ManagedService | Check::Cidrs => true,
        Check::Status | Check::Expiry | Check::OtherPeerings | Check::CidrsInUse | Check::DryRun => false,
    };
    let mut findings = check_connection(connection, account, now);
    findings.retain(remains);
    findings.push(check_cidrs_in_use(connection, used));
    findings
}

/// The CIDR blocks of one side of a peering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedCidrs {
    instance_id: InstanceId,
    vpc: String,
    cidrs: Vec<IpNet>,
}

impl UsedCidrs {
    /// Those of both sides. None if the connection has ended.
    #[must_use]
    pub fn of(connection: &Connection) -> Vec<Self> {
        let used = |side: &Side| Self {
            instance_id: connection.instance_id.clone(),
            vpc: side.vpc.clone(),
            cidrs: side.cidrs.iter().copied().collect(),
        };
        if is_in_use(connection) { vec![used(&connection.requester), used(&connection.accepter)] } else { vec![] }
    }
}

/// Checks the CIDR blocks of both sides against those of all other VPCs that have a peering.
fn check_cidrs_in_use(connection: &Connection, used: Option<&[UsedCidrs]>) -> Finding {
    let outcome = used.map_or(CheckOutcome::Unknown(None), |used| {
        let own = [&connection.requester, &connection.accepter];
        let is_other =
            |it: &&UsedCidrs| it.instance_id != connection.instance_id && own.iter().all(|own| own.vpc != it.vpc);
        let conflicts = used.iter().filter(is_other).flat_map(|UsedCidrs { instance_id, cidrs, .. }| {
            let pairs =
                own.iter().flat_map(|own| &own.cidrs).flat_map(|own| cidrs.iter().map(move |taken| (own, taken)));
            let overlapping = pairs.filter(|(own, taken)| own.contains(*taken) || taken.contains(*own));
            overlapping.map(|(own, taken)| CidrConflict {
                instance_id: instance_id.clone(),
                requested: *own,
                taken: *taken,
            })
        });
        let conflicts: Vec<_> = conflicts.take(MAX_OVERLAPS).collect();
        if conflicts.is_empty() { CheckOutcome::Passed } else { CheckOutcome::Warning(conflicts) }
    });
    Finding { check: Check::CidrsInUse, outcome }
}

/// Whether a connection uses its CIDR blocks. A waiting one counts as well: it may be accepted first.
fn is_in_use(connection: &Connection) -> bool {
    matches!(connection.status, Status::Accepting | Status::Updating | Status::Activated)
}

/// The first reason not to accept.
#[must_use]
pub fn first_objection(findings: &[Finding]) -> Option<&Objection> {
    findings.iter().find_map(|finding| match &finding.outcome {
        CheckOutcome::Objection(objection) => Some(objection),
        CheckOutcome::Passed | CheckOutcome::Unknown(_) | CheckOutcome::Warning(_) => None,
    })
}

/// The first reason not to reject. A reject only requires that the connection is waiting for our account.
#[must_use]
pub fn first_objection_to_rejecting(findings: &[Finding]) -> Option<&Objection> {
    let relevant = |finding: &&Finding| match finding.check {
        Check::Account | Check::Status | Check::Expiry => true,
        Check::BusinessStatus
        | Check::ManagedService
        | Check::Cidrs
        | Check::OtherPeerings
        | Check::CidrsInUse
        | Check::DryRun => false,
    };
    findings.iter().filter(relevant).find_map(|finding| first_objection(std::slice::from_ref(finding)))
}

/// Whether every check was made and passed. Only then may a rule accept without people.
#[must_use]
pub fn all_passed(findings: &[Finding]) -> bool {
    let made = |check| findings.iter().any(|finding| finding.check == check);
    [Check::Account, Check::Cidrs, Check::OtherPeerings, Check::DryRun].into_iter().all(made)
        && findings.iter().all(|finding| finding.outcome == CheckOutcome::Passed)
}

/// Whether two rounds of checks had the same results. The vendor's request ids are ignored.
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

/// Whether a check that calls Alibaba Cloud is missing or unknown. Then it is worth another try.
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
            assert_eq!(first_objection_to_rejecting(&findings).is_some(), against_rejecting, "{expected:?}");
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
