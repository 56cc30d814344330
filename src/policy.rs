//! Who may decide about which connection. Default deny: the first rule that matches decides, and no match refuses.
//!
//! Pure: knows the rules of the configuration and the facts of a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Deserialize;

use crate::approval::{Approver, InvalidPrincipal, Principal, Verdict};
use crate::peering::{AccountId, BusinessStatus, Connection, Status};

/// The rules, and the people that they name.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// In order of precedence.
    pub rules: Vec<Rule>,
    /// By name.
    pub people: BTreeMap<String, Person>,
    /// Group name → names of people.
    pub groups: BTreeMap<String, BTreeSet<String>>,
}

/// Somebody, with all the identities they own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Their identities on the platforms.
    pub principals: Vec<Principal>,
}

/// Which connections a rule is about, and who decides about them. A list that is left out matches everything.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Said in answers, notices and logs.
    pub name: String,
    /// The accepting account, by its configured name.
    pub target: String,
    /// Accounts that may ask.
    pub requester_accounts: Option<Vec<AccountId>>,
    /// Regions that they may ask from.
    pub requester_regions: Option<Vec<String>>,
    /// Ranges that contain every range of the requester.
    pub requester_cidrs_within: Option<Vec<IpNet>>,
    /// Our VPCs that may be asked for.
    pub accepting_vpcs: Option<Vec<String>>,
    /// The most bandwidth that may be asked for, Mbit/s. Unlimited bandwidth is more than any number.
    pub max_bandwidth_mbps: Option<u32>,
    /// How many different people must approve.
    pub approvals: u32,
    /// Who may decide.
    pub approvers: Vec<ApproverRef>,
    /// Where the outcome is told.
    #[serde(default)]
    pub channels: Vec<String>,
}

/// How a rule names those who may decide: `person:alice`, `group:netops`, or a principal such as `slack:T0001/U061F7AUR`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ApproverRef {
    /// One person, whichever identity they use.
    Person(String),
    /// Any person of a group.
    Group(String),
    /// One identity.
    Principal(Principal),
}

impl TryFrom<String> for ApproverRef {
    type Error = InvalidPrincipal;

    fn try_from(text: String) -> Result<Self, InvalidPrincipal> {
        match text.split_once(':') {
            Some(("person", name)) => Ok(Self::Person(name.to_owned())),
            Some(("group", name)) => Ok(Self::Group(name.to_owned())),
            Some(_) | None => Principal::try_from(text).map(Self::Principal),
        }
    }
}

/// A fact of a connection that rules look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// The accepting account.
    Target,
    /// The account that asks.
    RequesterAccount,
    /// The region that it asks from.
    RequesterRegion,
    /// The ranges that it brings.
    RequesterCidrs,
    /// Our VPC that it asks for.
    AcceptingVpc,
    /// The bandwidth that it asks for.
    Bandwidth,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Target => "target",
            Self::RequesterAccount => "requester account",
            Self::RequesterRegion => "requester region",
            Self::RequesterCidrs => "requester CIDRs",
            Self::AcceptingVpc => "accepting VPC",
            Self::Bandwidth => "bandwidth",
        })
    }
}

/// Why the policy refuses a decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No rule is about such a connection. Names the facts that no rule allows; none, when each is allowed by some rule
    /// but no rule allows all.
    #[error("no rule matches this connection")]
    NoRule(Vec<Fact>),
    /// A rule is, but it does not name this person.
    #[error("not an approver of the rule")]
    NotAnApprover {
        /// The rule.
        rule: String,
    },
}

impl Policy {
    /// Who a principal is.
    #[must_use]
    pub fn approver(&self, principal: Principal) -> Approver {
        let owns = |(_, person): &(&String, &Person)| person.principals.contains(&principal);
        let person = self.people.iter().find(owns).map(|(name, _)| name.clone());
        Approver { principal, person }
    }

    /// The rule under which `approver` may decide about `connection`.
    pub fn permit(&self, target: &str, connection: &Connection, approver: &Approver) -> Result<&Rule, Refusal> {
        let mut unmatched = vec![];
        for rule in &self.rules {
            match rule.mismatches(target, connection) {
                none if none.is_empty() => {
                    let named = rule.approvers.iter().any(|who| self.names(who, approver));
                    return if named { Ok(rule) } else { Err(Refusal::NotAnApprover { rule: rule.name.clone() }) };
                }
                some => unmatched.push(some),
            }
        }
        let everywhere = |fact: &Fact| unmatched.iter().all(|facts| facts.contains(fact));
        Err(Refusal::NoRule(Fact::ALL.into_iter().filter(everywhere).collect()))
    }

    fn names(&self, who: &ApproverRef, approver: &Approver) -> bool {
        match who {
            ApproverRef::Principal(principal) => *principal == approver.principal,
            ApproverRef::Person(name) => approver.person.as_ref() == Some(name),
            ApproverRef::Group(group) => {
                let people = self.groups.get(group);
                approver.person.as_ref().is_some_and(|person| people.is_some_and(|people| people.contains(person)))
            }
        }
    }
}

impl Fact {
    const ALL: [Self; 6] = [
        Self::Target,
        Self::RequesterAccount,
        Self::RequesterRegion,
        Self::RequesterCidrs,
        Self::AcceptingVpc,
        Self::Bandwidth,
    ];
}

impl Rule {
    /// The facts of the connection that this rule does not allow.
    fn mismatches(&self, target: &str, connection: &Connection) -> Vec<Fact> {
        let requester = &connection.requester;
        let within = |ranges: &[IpNet], cidr: &IpNet| ranges.iter().any(|range| range.contains(cidr));
        let allows = |fact: &Fact| match fact {
            Fact::Target => self.target == target,
            Fact::RequesterAccount => listed(self.requester_accounts.as_ref(), &requester.account),
            Fact::RequesterRegion => listed(self.requester_regions.as_ref(), &requester.region),
            Fact::RequesterCidrs => self.requester_cidrs_within.as_ref().is_none_or(|ranges| {
                !requester.cidrs.is_empty() && requester.cidrs.iter().all(|cidr| within(ranges, cidr))
            }),
            Fact::AcceptingVpc => listed(self.accepting_vpcs.as_ref(), &connection.accepter.vpc),
            Fact::Bandwidth => match (self.max_bandwidth_mbps, connection.bandwidth_mbps) {
                (None, _) => true,
                (Some(most), Some(asked)) => asked <= most,
                (Some(_), None) => false,
            },
        };
        Fact::ALL.into_iter().filter(|fact| !allows(fact)).collect()
    }
}

fn listed<T: PartialEq>(list: Option<&Vec<T>>, item: &T) -> bool {
    list.is_none_or(|list| list.contains(item))
}

/// What stands against a decision whoever makes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// Both sides use the same addresses.
    #[error("CIDRs of both sides overlap")]
    Overlap(Vec<(IpNet, IpNet)>),
}

/// The checks that no rule can waive. A rejection needs only a request that waits for us.
pub fn preflight(
    connection: &Connection,
    account: AccountId,
    verdict: Verdict,
    now: Timestamp,
) -> Result<(), Objection> {
    if connection.accepter.account != account {
        return Err(Objection::NotOurs);
    }
    if connection.status != Status::Accepting {
        return Err(Objection::Status(connection.status.clone()));
    }
    if connection.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Err(Objection::Expired);
    }
    if verdict == Verdict::Reject {
        return Ok(());
    }
    if connection.business_status != BusinessStatus::Normal {
        return Err(Objection::BusinessStatus(connection.business_status.clone()));
    }
    if !connection.managed_service.is_empty() {
        return Err(Objection::ManagedService(connection.managed_service.clone()));
    }
    match connection.overlapping_cidrs() {
        none if none.is_empty() => Ok(()),
        overlaps => Err(Objection::Overlap(overlaps)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peering::tests::connection;

    fn rule(change: impl FnOnce(&mut Rule)) -> Policy {
        let mut rule = Rule {
            name: "everything".into(),
            target: "prod".into(),
            requester_accounts: None,
            requester_regions: None,
            requester_cidrs_within: None,
            accepting_vpcs: None,
            max_bandwidth_mbps: None,
            approvals: 1,
            approvers: vec![ApproverRef::Group("netops".into())],
            channels: vec![],
        };
        change(&mut rule);
        let alice = Person { principals: vec![principal("slack", "U1"), principal("webhook", "alice")] };
        Policy {
            rules: vec![rule],
            people: [("alice".to_owned(), alice)].into(),
            groups: [("netops".to_owned(), BTreeSet::from(["alice".to_owned()]))].into(),
        }
    }

    fn principal(platform: &str, user: &str) -> Principal {
        Principal::new(platform, "T1", user).unwrap()
    }

    fn decide(policy: &Policy, principal: Principal) -> Result<&Rule, Refusal> {
        policy.permit("prod", &connection(), &policy.approver(principal))
    }

    #[test]
    fn no_rule_at_all_refuses_everybody() {
        let refusal = decide(&Policy::default(), principal("slack", "U1")).unwrap_err();
        assert_eq!(refusal, Refusal::NoRule(Fact::ALL.to_vec()));
    }

    #[test]
    fn a_person_is_known_by_each_of_their_principals() {
        let policy = rule(|_| ());
        decide(&policy, principal("slack", "U1")).unwrap();
        decide(&policy, principal("webhook", "alice")).unwrap();
        let stranger = decide(&policy, principal("slack", "U2")).unwrap_err();
        assert_eq!(stranger, Refusal::NotAnApprover { rule: "everything".into() });
    }

    #[test]
    fn rules_name_principals_and_people_too() {
        let policy = rule(|rule| rule.approvers = vec![ApproverRef::Principal(principal("slack", "U9"))]);
        decide(&policy, principal("slack", "U9")).unwrap();
        decide(&policy, principal("slack", "U1")).unwrap_err();
        let policy = rule(|rule| rule.approvers = vec![ApproverRef::Person("alice".into())]);
        decide(&policy, principal("slack", "U1")).unwrap();
        decide(&policy, principal("slack", "U9")).unwrap_err();
    }

    #[test]
    fn each_fact_is_looked_at_and_named_when_it_matches_nothing() {
        type Narrow = (Fact, fn(&mut Rule));
        let narrow: [Narrow; 6] = [
            (Fact::Target, |rule| rule.target = "other".into()),
            (Fact::RequesterAccount, |rule| rule.requester_accounts = Some(vec![AccountId(5)])),
            (Fact::RequesterRegion, |rule| rule.requester_regions = Some(vec!["eu-central-1".into()])),
            (Fact::RequesterCidrs, |rule| rule.requester_cidrs_within = Some(vec!["10.9.0.0/16".parse().unwrap()])),
            (Fact::AcceptingVpc, |rule| rule.accepting_vpcs = Some(vec!["vpc-other".into()])),
            (Fact::Bandwidth, |rule| rule.max_bandwidth_mbps = Some(1023)),
        ];
        for (fact, change) in narrow {
            let policy = rule(change);
            let refusal = decide(&policy, principal("slack", "U1")).unwrap_err();
            assert_eq!(refusal, Refusal::NoRule(vec![fact]));
        }
    }

    #[test]
    fn unknown_ranges_and_unlimited_bandwidth_do_not_match_a_limit() {
        let policy = rule(|rule| {
            rule.requester_cidrs_within = Some(vec!["10.0.0.0/8".parse().unwrap()]);
            rule.max_bandwidth_mbps = Some(5000);
        });
        decide(&policy, principal("slack", "U1")).unwrap();
        let mut unknown = connection();
        unknown.requester.cidrs.clear();
        unknown.bandwidth_mbps = None;
        let refusal = policy.permit("prod", &unknown, &policy.approver(principal("slack", "U1"))).unwrap_err();
        assert_eq!(refusal, Refusal::NoRule(vec![Fact::RequesterCidrs, Fact::Bandwidth]));
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let mut policy = rule(|rule| rule.approvers = vec![ApproverRef::Person("bob".into())]);
        policy.rules.extend(rule(|_| ()).rules);
        assert!(matches!(decide(&policy, principal("slack", "U1")), Err(Refusal::NotAnApprover { .. })));
    }

    #[test]
    fn preflight_objects_to_each_thing_no_rule_can_waive() {
        let account = AccountId(2_222_222_222_222_222);
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let check = |change: fn(&mut Connection), verdict| {
            let mut changed = connection();
            change(&mut changed);
            preflight(&changed, account, verdict, now)
        };
        assert_eq!(check(|_| (), Verdict::Approve), Ok(()));
        assert_eq!(check(|c| c.accepter.account = AccountId(3), Verdict::Reject), Err(Objection::NotOurs));
        let status = check(|c| c.status = Status::Activated, Verdict::Reject);
        assert_eq!(status, Err(Objection::Status(Status::Activated)));
        let expired = check(|c| c.expires_at = Some("2026-11-22T00:00:00Z".parse().unwrap()), Verdict::Approve);
        assert_eq!(expired, Err(Objection::Expired));
        let locked: fn(&mut Connection) = |c| c.business_status = BusinessStatus::FinancialLocked;
        let objection = Objection::BusinessStatus(BusinessStatus::FinancialLocked);
        assert_eq!(check(locked, Verdict::Approve), Err(objection));
        assert_eq!(check(locked, Verdict::Reject), Ok(()));
        let managed = check(|c| c.managed_service = "SWAS".into(), Verdict::Approve);
        assert_eq!(managed, Err(Objection::ManagedService("SWAS".into())));
        let overlap = check(|c| c.requester.cidrs = c.accepter.cidrs.clone(), Verdict::Approve);
        assert!(matches!(overlap, Err(Objection::Overlap(pairs)) if pairs.len() == 1));
    }
}
