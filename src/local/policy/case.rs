//! Cases: requests, and what the rules must say about them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use ipnet::IpNet;
use serde::Deserialize;

use super::{PolicyReport, shown_path};
use crate::approval::{Principal, Verdict};
use crate::chat::message::{sanitize_lines, sanitize_text};
use crate::config::{Config, is_region};
use crate::fake::Error;
use crate::local::count_of;
use crate::peering::{AccountId, BusinessStatus, Connection, InstanceId, Side, Status};
use crate::policy::Policy;
use crate::redaction::{KeyProblem, redact};

/// The facts of a request that rules look at.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DescribedRequest {
    /// The configured name of the accepting account. May be left out if there is only one.
    pub(super) target: Option<String>,
    /// The account that sends the request.
    requester_account: AccountId,
    /// The region of its VPC.
    requester_region: String,
    /// The CIDR blocks of its VPC. Empty if Alibaba Cloud does not show them.
    requester_cidrs: BTreeSet<IpNet>,
    /// The VPC of the accepting account.
    accepting_vpc: String,
    /// In Mbit/s. Left out for unlimited bandwidth.
    bandwidth_mbps: Option<u32>,
}

impl DescribedRequest {
    /// A pending connection with these facts.
    ///
    /// # Errors
    /// When the target is not configured, or the region or the VPC can be none.
    pub(super) fn to_connection(&self, config: &Config) -> Result<DescribedConnection, Error> {
        let (target, accepting) = config.find_target(self.target.as_deref()).ok_or_else(|| match &self.target {
            Some(name) => format!("no target is named {}", sanitize_text(name)),
            None => "name the target: there are several".to_owned(),
        })?;
        if !is_region(&self.requester_region) {
            let problem = format!("{:?} is not a region id", redact(&self.requester_region));
            return KeyProblem::err_at("requester_region", problem);
        }
        if !is_vpc(&self.accepting_vpc) {
            let problem = format!("{:?} is not the id of a VPC", redact(&self.accepting_vpc));
            return KeyProblem::err_at("accepting_vpc", problem);
        }
        let requester = Side {
            account: self.requester_account,
            region: self.requester_region.clone(),
            vpc: "vpc-requester".to_owned(),
            cidrs: self.requester_cidrs.clone(),
        };
        let accepter = Side {
            account: accepting.account,
            region: accepting.regions.first().cloned().unwrap_or_default(),
            vpc: self.accepting_vpc.clone(),
            cidrs: BTreeSet::new(),
        };
        let connection = Connection {
            instance_id: InstanceId::parse("pcc-described")?,
            status: Status::Accepting,
            business_status: BusinessStatus::Normal,
            requester,
            accepter,
            bandwidth_mbps: self.bandwidth_mbps,
            link_type: String::new(),
            name: String::new(),
            description: String::new(),
            created_at: None,
            expires_at: None,
            managed_service: String::new(),
        };
        Ok(DescribedConnection { target: target.to_owned(), connection })
    }
}

/// Whether the text can be the id of a VPC.
fn is_vpc(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// A connection and its target.
pub(super) struct DescribedConnection {
    pub(super) target: String,
    pub(super) connection: Connection,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    #[serde(rename = "case")]
    cases: Vec<PolicyCase>,
}

/// A request, and what the rules must say. A key that is left out may have any value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyCase {
    /// What the case shows.
    name: String,
    /// The request.
    request: DescribedRequest,
    /// What the rules must say.
    expect: Expectation,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    /// The name of the deciding rule; empty if no rule may match.
    rule: Option<String>,
    /// How many people must approve.
    approvals: Option<u32>,
    /// Everybody who may approve: names of people, or identities of people without a name.
    approvers: Option<BTreeSet<String>>,
    /// People and identities who may approve, among others.
    #[serde(default)]
    may_approve: Vec<String>,
    /// People and identities who may not approve.
    #[serde(default)]
    may_not_approve: Vec<String>,
    /// Whether a decision requires a reason.
    require_reason: Option<bool>,
    /// The channels that hear of the request.
    channels: Option<BTreeSet<String>>,
}

/// Runs the cases of a file. The report has a line for each, and what differs.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn test_policy(config: &Config, text: &str, path: &Path) -> Result<PolicyReport, Error> {
    let parsed: CaseFile = toml::from_str(text)
        .map_err(|error| format!("{}: {}", shown_path(path), sanitize_lines(&error.to_string())))?;
    let (mut report, mut failed) = (String::new(), 0_usize);
    for case in &parsed.cases {
        let name = sanitize_text(&case.name);
        let differences = case.differences(config).map_err(|error| format!("case “{name}”: {error}"))?;
        let mark = if differences.is_empty() { '✓' } else { '✗' };
        writeln!(report, "{mark} {name}")?;
        for difference in &differences {
            writeln!(report, "    {difference}")?;
        }
        failed = failed.saturating_add(usize::from(!differences.is_empty()));
    }
    let all = count_of(parsed.cases.len(), "case", "cases");
    match (parsed.cases.len(), failed) {
        (0, _) => Err(format!("{} has no case", shown_path(path)).into()),
        (_, 0) => {
            let text = format!("{report}{all}: the rules say what each case expects\n");
            Ok(PolicyReport { text, failure: None })
        }
        (_, failed) => {
            let failure = format!("{failed} of {all}: the rules say something else");
            Ok(PolicyReport { text: report, failure: Some(failure) })
        }
    }
}

impl PolicyCase {
    /// What the rules say, and the case does not expect.
    fn differences(&self, config: &Config) -> Result<Vec<String>, Error> {
        let described = self.request.to_connection(config)?;
        let policy = &config.policy;
        let snapshot = policy.snapshot_for(&described.target, &described.connection);
        let Expectation { rule, approvals, approvers, require_reason, channels, .. } = &self.expect;
        let found_rule = snapshot.rule.clone().unwrap_or_default();
        let found_approvers: BTreeSet<_> = snapshot.approvers.iter().cloned().collect();
        let found_channels: BTreeSet<_> = snapshot.channels.iter().cloned().collect();
        let mut differences: Vec<_> = [
            difference("rule", rule.as_ref(), &found_rule),
            difference("approvals", approvals.as_ref(), &snapshot.approvals),
            difference("approvers", approvers.as_ref(), &found_approvers),
            difference("require_reason", require_reason.as_ref(), &snapshot.require_reason),
            difference("channels", channels.as_ref(), &found_channels),
        ]
        .into_iter()
        .flatten()
        .collect();
        let expected = [(&self.expect.may_approve, true), (&self.expect.may_not_approve, false)];
        for (name, may) in expected.into_iter().flat_map(|(names, may)| names.iter().map(move |name| (name, may))) {
            if may_approve(policy, &described, name)? != may {
                let found = if may { "may not approve" } else { "may approve" };
                differences.push(format!("{} {found}", sanitize_text(name)));
            }
        }
        Ok(differences)
    }
}

fn difference<T: PartialEq + std::fmt::Debug>(key: &str, expected: Option<&T>, found: &T) -> Option<String> {
    let expected = expected.filter(|expected| *expected != found)?;
    Some(format!("{key}: expected {expected:?}, found {found:?}"))
}

/// Whether a person or an identity may approve. A person with several identities may approve with each.
fn may_approve(policy: &Policy, described: &DescribedConnection, name: &str) -> Result<bool, Error> {
    let principals = match policy.people.get(name) {
        Some(person) => person.principals.clone(),
        None => vec![
            Principal::try_from(name.to_owned()).map_err(|_| format!("no person is named {}", sanitize_text(name)))?,
        ],
    };
    let DescribedConnection { target, connection } = described;
    let may = |principal: &Principal| {
        let approver = policy.approver_for(principal.clone());
        policy.authorize_decision(target, connection, &approver, Verdict::Approve).is_ok()
    };
    Ok(principals.iter().any(may))
}
