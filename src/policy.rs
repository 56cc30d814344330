//! The policy: who may decide about which connection. The first matching rule applies. Without a matching rule, nobody
//! may decide.
//!
//! Pure: knows the rules of the configuration and the facts of a connection.

#[cfg(feature = "local")]
mod explain;
mod snapshot;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use jiff::SignedDuration;
use serde::Deserialize;

use crate::approval::{Approver, InvalidPrincipal, Principal, Verdict};
use crate::from_text::from_text;
use crate::peering::{AccountId, Connection};

#[cfg(feature = "local")]
pub use explain::{FactExplanation, RuleExplanation, RuleOutcome};

/// A suggested rule leaves out longer lists, because it must fit on a card.
const MAX_SUGGESTED_ITEMS: usize = 30;

/// The configured rules, people and accounts.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// In order of precedence: the first matching rule applies.
    pub rules: Vec<Rule>,
    /// By name of the person.
    pub people: BTreeMap<String, Person>,
    /// Group name → names of people.
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// Configured requesting accounts.
    pub accounts: BTreeMap<AccountId, KnownAccount>,
    /// Values for requests whose rule does not set them.
    pub defaults: RequestDefaults,
    /// Tenants that are part of an organization: `slack:T0001` → `slack:E0001`. A user is the same in both.
    pub realms: BTreeMap<String, String>,
    /// Targets whose VPCs and route tables are read.
    pub routed_targets: BTreeSet<String>,
}

/// A requesting account that the configuration names.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KnownAccount {
    /// Shown beside the account id.
    pub name: String,
    /// People of this account. They never count as approvers of its requests.
    #[serde(default)]
    pub contacts: Vec<ApproverRef>,
    /// Channels of this account. They hear what becomes of its requests, without buttons.
    #[serde(default)]
    pub channels: Vec<String>,
}

/// Values for requests whose rule does not set them.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RequestDefaults {
    /// Channels for requests that no rule matches.
    pub channels: Vec<String>,
    /// How long a request is pending before the first reminder. Later waits double, up to a day.
    #[cfg_attr(feature = "local", schemars(with = "String", extend("examples" = ["4h", "90m"])))]
    pub remind_after: SignedDuration,
    /// How long before the expiry of a request people are warned.
    #[cfg_attr(feature = "local", schemars(with = "String", extend("examples" = ["24h"])))]
    pub expiry_notice: SignedDuration,
    /// How long an activation may take before people are told.
    #[cfg_attr(feature = "local", schemars(with = "String", extend("examples" = ["10m"])))]
    pub stuck_after: SignedDuration,
}

impl Default for RequestDefaults {
    fn default() -> Self {
        Self {
            channels: vec![],
            remind_after: SignedDuration::from_hours(4),
            expiry_notice: SignedDuration::from_hours(24),
            stuck_after: SignedDuration::from_mins(10),
        }
    }
}

/// A person, with all identities of that person.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Identities on the platforms.
    pub principals: Vec<Principal>,
    /// Display name in messages, beside the identity. Default: the person's key.
    #[serde(default)]
    pub name: Option<String>,
}

/// A rule: which connections it matches, and who decides about them. A list that is left out matches everything.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Name of the rule, shown in replies, notifications and logs.
    pub name: String,
    /// Configured name of the accepting account.
    pub target: String,
    /// Accounts that may send requests.
    pub requester_accounts: Option<Vec<AccountId>>,
    /// Regions that requests may come from.
    pub requester_regions: Option<Vec<String>>,
    /// CIDR blocks that must contain every CIDR block of the requester.
    #[cfg_attr(feature = "local", schemars(with = "Option<Vec<String>>"))]
    pub requester_cidrs_within: Option<Vec<IpNet>>,
    /// VPCs of the accepting account that requests may be for.
    pub accepting_vpcs: Option<Vec<String>>,
    /// Maximum bandwidth, in Mbit/s. Unlimited bandwidth is above any maximum.
    pub max_bandwidth_mbps: Option<u32>,
    /// How many different people must approve. With 0, the rule accepts by itself.
    pub approvals: u32,
    /// Who may decide.
    #[serde(default)]
    pub approvers: Vec<ApproverRef>,
    /// Whether a decision requires a reason.
    #[serde(default)]
    pub require_reason: bool,
    /// Whether cards and reminders mention the approvers who are needed.
    #[serde(default = "mentions_by_default")]
    pub mention: bool,
    /// Channels that hear of requests and their outcome.
    #[serde(default)]
    pub channels: Vec<String>,
    /// How long a request is pending before the first reminder. Default: that of `[requests]`.
    #[cfg_attr(feature = "local", schemars(with = "Option<String>", extend("examples" = ["4h", "90m"])))]
    pub remind_after: Option<SignedDuration>,
    /// How long a request is pending before `escalate_to` hears of it. Default: never.
    #[cfg_attr(feature = "local", schemars(with = "Option<String>", extend("examples" = ["30h"])))]
    pub escalate_after: Option<SignedDuration>,
    /// More channels that hear of the request after the escalation.
    #[serde(default)]
    pub escalate_to: Vec<String>,
}

fn mentions_by_default() -> bool {
    true
}

/// How a rule names approvers: `person:alice`, `group:netops`, or a principal such as `slack:T0001/U061F7AUR`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(with = "String"))]
pub enum ApproverRef {
    /// One person, with any of their identities.
    Person(String),
    /// Any person of a group.
    Group(String),
    /// One identity.
    Principal(Principal),
}

from_text!(ApproverRef);

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

/// A fact of a connection that a rule can restrict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleFact {
    /// The accepting account.
    Target,
    /// The requesting account.
    RequesterAccount,
    /// The region of the requester.
    RequesterRegion,
    /// The CIDR blocks of the requester.
    RequesterCidrs,
    /// The accepting VPC.
    AcceptingVpc,
    /// The requested bandwidth.
    Bandwidth,
}

impl fmt::Display for RuleFact {
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
    /// No rule matches. Holds the facts that no rule allows. Empty if some rule allows each fact, but none allows all
    /// of them.
    #[error("no rule matches this connection")]
    NoRule(Vec<RuleFact>),
    /// A rule matches, but it does not name this person.
    #[error("not an approver of the rule")]
    NotAnApprover {
        /// Name of the rule.
        rule: String,
    },
    /// The person belongs to the requesting account.
    #[error("a contact of the requesting account")]
    Contact {
        /// Id of the requesting account.
        account: AccountId,
    },
}

impl Policy {
    /// The approver to whom a principal belongs.
    #[must_use]
    pub fn approver_for(&self, principal: Principal) -> Approver {
        let principal = self.principal_in_organization(&principal).unwrap_or(principal);
        let is_theirs = |other: &Principal| *self.canonical_principal(other) == principal;
        let owns = |(_, person): &(&String, &Person)| person.principals.iter().any(is_theirs);
        let (person, name) = match self.people.iter().find(owns) {
            Some((key, person)) => (Some(key.clone()), person.name.clone()),
            None => (None, None),
        };
        Approver { principal, person, name }
    }

    /// The principal in its organization, if its tenant is part of one. Otherwise the principal itself.
    #[must_use]
    pub fn canonical_principal<'a>(&self, principal: &'a Principal) -> Cow<'a, Principal> {
        self.principal_in_organization(principal).map_or(Cow::Borrowed(principal), Cow::Owned)
    }

    fn principal_in_organization(&self, principal: &Principal) -> Option<Principal> {
        principal.with_realm(self.realms.get(principal.realm())?).ok()
    }

    /// The first rule that matches `connection`.
    ///
    /// # Errors
    /// The facts that no rule allows. Empty if some rule allows each fact, but none allows all of them.
    pub fn matching_rule(&self, target: &str, connection: &Connection) -> Result<&Rule, Vec<RuleFact>> {
        let mut unmatched = vec![];
        for rule in &self.rules {
            match rule.mismatched_facts(target, connection) {
                none if none.is_empty() => return Ok(rule),
                some => unmatched.push(some),
            }
        }
        let everywhere = |fact: &RuleFact| unmatched.iter().all(|facts| facts.contains(fact));
        Err(RuleFact::ALL.into_iter().filter(everywhere).collect())
    }

    /// The rule under which `approver` may decide about `connection`. Approvers of the rule may decide. Contacts of the
    /// requesting account may only reject.
    pub fn authorize_decision(
        &self,
        target: &str,
        connection: &Connection,
        approver: &Approver,
        verdict: Verdict,
    ) -> Result<&Rule, Refusal> {
        let rule = self.matching_rule(target, connection).map_err(Refusal::NoRule)?;
        let account = connection.requester.account;
        let is_named = rule.approvers.iter().any(|approver_ref| self.is_named_by(approver_ref, approver));
        match (verdict, is_named, self.is_contact(account, approver)) {
            (Verdict::Approve, true, false) | (Verdict::Reject, true, _) | (Verdict::Reject, false, true) => Ok(rule),
            (Verdict::Approve, true, true) => Err(Refusal::Contact { account }),
            (Verdict::Approve, false, _) | (Verdict::Reject, false, false) => {
                Err(Refusal::NotAnApprover { rule: rule.name.clone() })
            }
        }
    }

    /// The approver to whom a principal belongs, if that approver may approve `connection` now. peergate itself may if
    /// the rule requires nobody.
    #[must_use]
    pub fn eligible_approver(&self, target: &str, connection: &Connection, principal: &Principal) -> Option<Approver> {
        let approver = self.approver_for(principal.clone());
        let by_rule = || self.matching_rule(target, connection).is_ok_and(|rule| rule.approvals == 0);
        if approver == Approver::peergate(target) {
            return by_rule().then_some(approver);
        }
        self.authorize_decision(target, connection, &approver, Verdict::Approve).is_ok().then_some(approver)
    }

    /// A rule that matches only such connections, as TOML for the configuration.
    fn suggest_rule(&self, target: &str, connection: &Connection) -> String {
        let (requester, accepter) = (&connection.requester, &connection.accepter);
        // These are words of the vendor. A word that would break out of its quotes is left out.
        let quoted = |words: Vec<String>| {
            let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
            let words = words.into_iter().filter(|word| word.bytes().all(plain));
            words.map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
        };
        let approvers: Vec<_> = if self.groups.is_empty() {
            self.people.keys().map(|person| format!("person:{person}")).collect()
        } else {
            self.groups.keys().map(|group| format!("group:{group}")).collect()
        };
        let cidrs: Vec<_> = requester.cidrs.iter().map(ToString::to_string).collect();
        let (approvers, cidrs) =
            [approvers, cidrs].map(|list| if list.len() > MAX_SUGGESTED_ITEMS { vec![] } else { list }).into();
        let lists = [
            ("requester_accounts", vec![requester.account.to_string()]),
            ("requester_regions", vec![requester.region.clone()]),
            ("requester_cidrs_within", cidrs),
            ("accepting_vpcs", vec![accepter.vpc.clone()]),
            ("approvers", approvers),
            ("channels", self.defaults.channels.clone()),
        ];
        let mut lines = vec![
            "[[rule]]".to_owned(),
            format!(
                "name = \"account {} to {}\"",
                requester.account,
                quoted(vec![accepter.vpc.clone()]).replace('"', "")
            ),
            format!("target = \"{target}\""),
            "approvals = 1".to_owned(),
        ];
        let lists = lists.into_iter().map(|(key, words)| (key, quoted(words))).filter(|(_, words)| !words.is_empty());
        lines.extend(lists.map(|(key, words)| format!("{key} = [{words}]")));
        lines.extend(connection.bandwidth_mbps.map(|mbps| format!("max_bandwidth_mbps = {mbps}")));
        lines.join("\n")
    }

    /// Approvers of a rule for requests of `requester`, without the contacts of that account. People appear by name,
    /// other identities as principals.
    #[must_use]
    pub fn approvers_of(&self, rule: &Rule, requester: Option<AccountId>) -> Vec<String> {
        let mut names = BTreeSet::new();
        let person = |key: &String| {
            let principal = self.people.get(key).and_then(|person| person.principals.first());
            principal.map(|principal| Approver {
                principal: self.canonical_principal(principal).into_owned(),
                person: Some(key.clone()),
                name: None,
            })
        };
        for approver_ref in &rule.approvers {
            let approvers: Vec<_> = match approver_ref {
                ApproverRef::Person(name) => person(name).into_iter().collect(),
                ApproverRef::Group(group) => self.groups.get(group).into_iter().flatten().filter_map(person).collect(),
                ApproverRef::Principal(principal) => vec![self.approver_for(principal.clone())],
            };
            let is_contact = |approver: &Approver| requester.is_some_and(|account| self.is_contact(account, approver));
            let others = approvers.into_iter().filter(|approver| !is_contact(approver));
            names.extend(others.map(|approver| approver.person.unwrap_or_else(|| approver.principal.to_string())));
        }
        names.into_iter().collect()
    }

    /// The identities to mention for some approvers of a rule, as [`Policy::approvers_of`] names them. Empty if the rule
    /// mentions nobody.
    #[must_use]
    pub fn identities_to_mention(&self, rule: &str, approvers: &[String]) -> Vec<Principal> {
        if !self.rules.iter().any(|known| known.name == rule && known.mention) {
            return vec![];
        }
        let identities = |key: &String| match self.people.get(key) {
            Some(person) => person.principals.clone(),
            None => Principal::try_from(key.clone()).into_iter().collect(),
        };
        approvers.iter().flat_map(identities).collect()
    }

    /// Whether any rule or account names the approver, so that they may decide about some request.
    #[must_use]
    pub fn may_decide_anything(&self, approver: &Approver) -> bool {
        self.rules.iter().flat_map(|rule| &rule.approvers).any(|approver_ref| self.is_named_by(approver_ref, approver))
            || self.accounts.keys().any(|account| self.is_contact(*account, approver))
    }

    fn is_contact(&self, account: AccountId, approver: &Approver) -> bool {
        let contacts = self.accounts.get(&account).map(|account| account.contacts.as_slice()).unwrap_or_default();
        contacts.iter().any(|approver_ref| match approver_ref {
            // One identity of a person stands for the person.
            ApproverRef::Principal(principal) => self.approver_for(principal.clone()).is_same_person(approver),
            ApproverRef::Person(_) | ApproverRef::Group(_) => self.is_named_by(approver_ref, approver),
        })
    }

    fn is_named_by(&self, approver_ref: &ApproverRef, approver: &Approver) -> bool {
        match approver_ref {
            ApproverRef::Principal(principal) => {
                self.canonical_principal(principal) == self.canonical_principal(&approver.principal)
            }
            ApproverRef::Person(name) => approver.person.as_ref() == Some(name),
            ApproverRef::Group(group) => {
                let people = self.groups.get(group);
                approver.person.as_ref().is_some_and(|person| people.is_some_and(|people| people.contains(person)))
            }
        }
    }
}

impl RuleFact {
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
    /// How many people must approve at most. A rule that accepts by itself asks one of its approvers if a check does
    /// not pass.
    #[must_use]
    pub fn needed_approvers(&self) -> usize {
        let least = u32::from(!self.approvers.is_empty());
        usize::try_from(self.approvals.max(least)).unwrap_or(usize::MAX)
    }

    /// The facts of the connection that this rule does not allow.
    fn mismatched_facts(&self, target: &str, connection: &Connection) -> Vec<RuleFact> {
        RuleFact::ALL.into_iter().filter(|fact| !self.allows(*fact, target, connection)).collect()
    }

    fn allows(&self, fact: RuleFact, target: &str, connection: &Connection) -> bool {
        let requester = &connection.requester;
        let within = |ranges: &[IpNet], cidr: &IpNet| ranges.iter().any(|range| range.contains(cidr));
        match fact {
            RuleFact::Target => self.target == target,
            RuleFact::RequesterAccount => is_listed(self.requester_accounts.as_ref(), &requester.account),
            RuleFact::RequesterRegion => is_listed(self.requester_regions.as_ref(), &requester.region),
            RuleFact::RequesterCidrs => self.requester_cidrs_within.as_ref().is_none_or(|ranges| {
                !requester.cidrs.is_empty() && requester.cidrs.iter().all(|cidr| within(ranges, cidr))
            }),
            RuleFact::AcceptingVpc => is_listed(self.accepting_vpcs.as_ref(), &connection.accepter.vpc),
            RuleFact::Bandwidth => match (self.max_bandwidth_mbps, connection.bandwidth_mbps) {
                (None, _) => true,
                (Some(max), Some(asked)) => asked <= max,
                (Some(_), None) => false,
            },
        }
    }
}

fn is_listed<T: PartialEq>(list: Option<&Vec<T>>, item: &T) -> bool {
    list.is_none_or(|list| list.contains(item))
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
            require_reason: false,
            mention: true,
            channels: vec![],
            remind_after: None,
            escalate_after: None,
            escalate_to: vec![],
        };
        change(&mut rule);
        let principals = vec![principal("slack", "U1"), principal("webhook", "alice")];
        let alice = Person { principals, name: None };
        Policy {
            rules: vec![rule],
            people: [("alice".to_owned(), alice)].into(),
            groups: [("netops".to_owned(), BTreeSet::from(["alice".to_owned()]))].into(),
            ..Policy::default()
        }
    }

    fn principal(platform: &str, user: &str) -> Principal {
        Principal::new(platform, "T1", user).unwrap()
    }

    fn decide(policy: &Policy, principal: Principal) -> Result<&Rule, Refusal> {
        policy.authorize_decision("prod", &connection(), &policy.approver_for(principal), Verdict::Approve)
    }

    #[test]
    fn empty_policy_refuses_everybody() {
        let refusal = decide(&Policy::default(), principal("slack", "U1")).unwrap_err();
        assert_eq!(refusal, Refusal::NoRule(RuleFact::ALL.to_vec()));
    }

    #[test]
    fn person_is_recognized_by_each_principal() {
        let policy = rule(|_| ());
        decide(&policy, principal("slack", "U1")).unwrap();
        decide(&policy, principal("webhook", "alice")).unwrap();
        let stranger = decide(&policy, principal("slack", "U2")).unwrap_err();
        assert_eq!(stranger, Refusal::NotAnApprover { rule: "everything".into() });
    }

    #[test]
    fn rule_may_name_principals_and_people() {
        let policy = rule(|rule| rule.approvers = vec![ApproverRef::Principal(principal("slack", "U9"))]);
        decide(&policy, principal("slack", "U9")).unwrap();
        decide(&policy, principal("slack", "U1")).unwrap_err();
        let policy = rule(|rule| rule.approvers = vec![ApproverRef::Person("alice".into())]);
        decide(&policy, principal("slack", "U1")).unwrap();
        decide(&policy, principal("slack", "U9")).unwrap_err();
    }

    #[test]
    fn unmatched_fact_is_named_in_the_refusal() {
        type Narrow = (RuleFact, fn(&mut Rule));
        let narrow: [Narrow; 6] = [
            (RuleFact::Target, |rule| rule.target = "other".into()),
            (RuleFact::RequesterAccount, |rule| rule.requester_accounts = Some(vec![AccountId(5)])),
            (RuleFact::RequesterRegion, |rule| rule.requester_regions = Some(vec!["eu-central-1".into()])),
            (RuleFact::RequesterCidrs, |rule| rule.requester_cidrs_within = Some(vec!["10.9.0.0/16".parse().unwrap()])),
            (RuleFact::AcceptingVpc, |rule| rule.accepting_vpcs = Some(vec!["vpc-other".into()])),
            (RuleFact::Bandwidth, |rule| rule.max_bandwidth_mbps = Some(1023)),
        ];
        for (fact, change) in narrow {
            let policy = rule(change);
            let refusal = decide(&policy, principal("slack", "U1")).unwrap_err();
            assert_eq!(refusal, Refusal::NoRule(vec![fact]));
        }
    }

    #[test]
    fn unknown_ranges_and_bandwidth_never_match_a_limit() {
        let policy = rule(|rule| {
            rule.requester_cidrs_within = Some(vec!["10.0.0.0/8".parse().unwrap()]);
            rule.max_bandwidth_mbps = Some(5000);
        });
        decide(&policy, principal("slack", "U1")).unwrap();
        let mut unknown = connection();
        unknown.requester.cidrs.clear();
        unknown.bandwidth_mbps = None;
        let refusal = policy.matching_rule("prod", &unknown).unwrap_err();
        assert_eq!(refusal, [RuleFact::RequesterCidrs, RuleFact::Bandwidth]);
    }

    #[test]
    fn first_matching_rule_decides() {
        let mut policy = rule(|rule| rule.approvers = vec![ApproverRef::Person("bob".into())]);
        policy.rules.extend(rule(|_| ()).rules);
        assert!(matches!(decide(&policy, principal("slack", "U1")), Err(Refusal::NotAnApprover { .. })));
    }

    #[test]
    fn requesters_contact_may_reject_but_never_approve() {
        let requester = connection().requester.account;
        for contact in [
            ApproverRef::Person("alice".into()),
            ApproverRef::Group("netops".into()),
            ApproverRef::Principal(principal("webhook", "alice")),
        ] {
            let mut policy = rule(|_| ());
            let account = KnownAccount { name: "data".into(), contacts: vec![contact], channels: vec![] };
            policy.accounts = [(requester, account)].into();
            assert_eq!(decide(&policy, principal("slack", "U1")).unwrap_err(), Refusal::Contact { account: requester });
            assert_eq!(policy.eligible_approver("prod", &connection(), &principal("slack", "U1")), None);
            let approver = policy.approver_for(principal("slack", "U1"));
            policy.authorize_decision("prod", &connection(), &approver, Verdict::Reject).unwrap();
            let snapshot = policy.snapshot_for("prod", &connection());
            assert_eq!((snapshot.requester.as_deref(), snapshot.approvers.len()), (Some("data"), 0));
        }
    }

    #[test]
    fn contact_may_reject_only_their_accounts_request() {
        let requester = connection().requester.account;
        let dave = principal("slack", "U7");
        let mut policy = rule(|_| ());
        let account = |contact: &Principal| KnownAccount {
            name: "data".into(),
            contacts: vec![ApproverRef::Principal(contact.clone())],
            channels: vec![],
        };
        policy.accounts = [(requester, account(&dave)), (AccountId(5), account(&principal("slack", "U8")))].into();
        let permit = |policy: &Policy, who: &Principal, verdict| {
            policy.authorize_decision("prod", &connection(), &policy.approver_for(who.clone()), verdict).map(|_| ())
        };
        let not_an_approver = Err(Refusal::NotAnApprover { rule: "everything".into() });
        assert_eq!(permit(&policy, &dave, Verdict::Reject), Ok(()));
        assert_eq!(permit(&policy, &dave, Verdict::Approve), not_an_approver);
        assert_eq!(permit(&policy, &principal("slack", "U8"), Verdict::Reject), not_an_approver);
        policy.rules.clear();
        assert!(matches!(permit(&policy, &dave, Verdict::Reject), Err(Refusal::NoRule(_))));
    }

    #[test]
    fn organization_user_is_the_same_in_every_workspace() {
        let of = |team: &str, user: &str| Principal::new("slack", team, user).unwrap();
        let requester = connection().requester.account;
        let mut policy = rule(|rule| {
            rule.approvals = 2;
            rule.approvers.extend([ApproverRef::Principal(of("T2", "U9")), ApproverRef::Principal(of("E1", "U9"))]);
        });
        policy.realms =
            [("slack:T1", "slack:E1"), ("slack:T2", "slack:E1")].map(|(from, to)| (from.into(), to.into())).into();
        for team in ["T1", "T2", "E1"] {
            let permitted = policy.eligible_approver("prod", &connection(), &of(team, "U9")).unwrap();
            assert_eq!(permitted, Approver { principal: of("E1", "U9"), person: None, name: None });
            let alice = policy.eligible_approver("prod", &connection(), &of(team, "U1")).unwrap();
            assert_eq!(alice.person.as_deref(), Some("alice"));
        }
        // A user of another organization, or of another platform.
        assert_eq!(policy.eligible_approver("prod", &connection(), &of("T3", "U9")), None);
        assert_eq!(
            policy.eligible_approver("prod", &connection(), &Principal::new("webhook", "T1", "U9").unwrap()),
            None
        );
        assert_eq!(policy.snapshot_for("prod", &connection()).approvers, ["alice", "slack:E1/U9"]);
        let contacts = vec![ApproverRef::Principal(of("T1", "U9"))];
        policy.accounts = [(requester, KnownAccount { name: "data".into(), contacts, channels: vec![] })].into();
        for team in ["T1", "T2", "E1"] {
            assert_eq!(policy.eligible_approver("prod", &connection(), &of(team, "U9")), None);
        }
        assert_eq!(policy.snapshot_for("prod", &connection()).approvers, ["alice"]);
    }

    #[test]
    fn policy_snapshot_names_approvers_or_unmatched_facts() {
        let policy = rule(|rule| rule.approvers.push(ApproverRef::Principal(principal("slack", "U9"))));
        let snapshot = policy.snapshot_for("prod", &connection());
        assert_eq!(
            (snapshot.rule.as_deref(), snapshot.approvers),
            (Some("everything"), vec!["alice".into(), "slack:T1/U9".into()])
        );
        let nobody = rule(|rule| rule.max_bandwidth_mbps = Some(1)).snapshot_for("prod", &connection());
        assert_eq!((nobody.rule, nobody.unmatched), (None, vec!["bandwidth".to_owned()]));
    }

    #[test]
    fn only_a_zero_approval_rule_lets_peergate_decide() {
        let itself = Approver::peergate("prod").principal;
        let decides = |policy: &Policy| policy.eligible_approver("prod", &connection(), &itself).is_some();
        assert!(decides(&rule(|rule| rule.approvals = 0)));
        assert!(!decides(&rule(|_| ())) && !decides(&Policy::default()));
    }

    #[test]
    fn suggested_rule_parses_and_covers_the_connection() {
        let policy = rule(|rule| rule.target = "other".into());
        let suggestion = policy.snapshot_for("prod", &connection()).suggestion.unwrap();
        let file = format!(
            "[targets.prod]\naccount = \"2222222222222222\"\nregions = []\n[slack]\nteams = [\"T1\"]\napp = \
             \"A1\"\n[people.alice]\nprincipals = [\"slack:T1/U1\"]\n[groups]\nnetops = [\"alice\"]\n{suggestion}"
        );
        let pasted = crate::config::Config::parse(&file).unwrap().policy;
        let rule = pasted.authorize_decision(
            "prod",
            &connection(),
            &pasted.approver_for(principal("slack", "U1")),
            Verdict::Approve,
        );
        assert_eq!(rule.unwrap().name, "account 1111111111111111 to vpc-accepter");
        let mut odd = connection();
        (odd.accepter.vpc, odd.requester.region) = ("vpc\"\n[x]".into(), "\u{202E}".into());
        let suggestion = policy.snapshot_for("prod", &odd).suggestion.unwrap();
        assert!(!suggestion.contains("[x]") && !suggestion.contains('\u{202E}'), "{suggestion}");
    }
}
