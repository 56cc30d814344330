//! Which rule decides about a connection, and why each other rule does not. Pure.

use std::fmt;

use super::{Policy, Rule, RuleFact};
use crate::peering::Connection;

/// One rule, seen from one connection.
#[derive(Debug, Clone)]
pub struct RuleExplanation<'a> {
    /// Its position among the rules, from 1.
    pub number: usize,
    /// The rule.
    pub rule: &'a Rule,
    /// Each fact that rules look at, in a fixed order.
    pub facts: Vec<FactExplanation>,
    /// Whether it decides.
    pub outcome: RuleOutcome,
}

/// Whether a rule decides about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleOutcome {
    /// It is the first rule that matches.
    Decides,
    /// It matches, but an earlier rule decides.
    ComesLater,
    /// It does not match.
    DoesNotMatch,
}

/// One fact of a connection, and what a rule says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactExplanation {
    /// The fact.
    pub fact: RuleFact,
    /// What the connection has. `unknown` if Alibaba Cloud does not say.
    pub value: String,
    /// What the rule allows. `None` if the rule does not restrict the fact.
    pub allowed: Option<String>,
    /// Whether the rule allows the value.
    pub matches: bool,
}

impl Policy {
    /// Explains each rule, in order.
    #[must_use]
    pub fn explain_rules<'a>(&'a self, target: &str, connection: &Connection) -> Vec<RuleExplanation<'a>> {
        let mut is_decided = false;
        let explain = |(position, rule): (usize, &'a Rule)| {
            let facts = rule.explain_facts(target, connection);
            let outcome = match (facts.iter().all(|fact| fact.matches), is_decided) {
                (false, _) => RuleOutcome::DoesNotMatch,
                (true, true) => RuleOutcome::ComesLater,
                (true, false) => RuleOutcome::Decides,
            };
            is_decided = is_decided || outcome == RuleOutcome::Decides;
            RuleExplanation { number: position.saturating_add(1), rule, facts, outcome }
        };
        self.rules.iter().enumerate().map(explain).collect()
    }
}

impl Rule {
    fn explain_facts(&self, target: &str, connection: &Connection) -> Vec<FactExplanation> {
        let explain = |fact: RuleFact| FactExplanation {
            fact,
            value: fact.value_in(target, connection),
            allowed: self.allowed_values(fact),
            matches: self.allows(fact, target, connection),
        };
        RuleFact::ALL.map(explain).into()
    }

    /// What the rule allows for a fact. `None` if it allows everything.
    fn allowed_values(&self, fact: RuleFact) -> Option<String> {
        match fact {
            RuleFact::Target => Some(self.target.clone()),
            RuleFact::RequesterAccount => self.requester_accounts.as_ref().map(join),
            RuleFact::RequesterRegion => self.requester_regions.as_ref().map(join),
            RuleFact::RequesterCidrs => {
                self.requester_cidrs_within.as_ref().map(|list| format!("within {}", join(list)))
            }
            RuleFact::AcceptingVpc => self.accepting_vpcs.as_ref().map(join),
            RuleFact::Bandwidth => self.max_bandwidth_mbps.map(|most| format!("at most {most} Mbit/s")),
        }
    }
}

impl RuleFact {
    /// What a connection has for this fact, in words.
    fn value_in(self, target: &str, connection: &Connection) -> String {
        let requester = &connection.requester;
        match self {
            Self::Target => target.to_owned(),
            Self::RequesterAccount => requester.account.to_string(),
            Self::RequesterRegion => requester.region.clone(),
            Self::RequesterCidrs if requester.cidrs.is_empty() => "unknown".to_owned(),
            Self::RequesterCidrs => join(&requester.cidrs),
            Self::AcceptingVpc => connection.accepter.vpc.clone(),
            Self::Bandwidth => match connection.bandwidth_mbps {
                Some(mbps) => format!("{mbps} Mbit/s"),
                None => "unlimited".to_owned(),
            },
        }
    }
}

/// The values, separated by commas; `nothing` if there are none.
fn join<'a, T: fmt::Display + 'a>(values: impl IntoIterator<Item = &'a T>) -> String {
    let words: Vec<_> = values.into_iter().map(ToString::to_string).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}
