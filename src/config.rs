//! What the operator decided: wiring from the environment, policy from `peergate.toml`. Read once, at start.
//!
//! Nothing secret is in here; see [`crate::secrets`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use serde::Deserialize;
use url::Url;

use crate::alicloud::sign::SignatureVersion;
use crate::approval::Principal;
use crate::peering::AccountId;
use crate::policy::{Account, ApproverRef, Person, Policy, Requests, Rule};

/// A record must outlive the request that it is about: a new one would decide anew, with the old client token.
const SHORTEST_RETENTION_DAYS: u32 = 8;

/// How this instance is wired up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `PEERGATE_CONFIG`: where `peergate.toml` is; by default in the working directory.
    pub config: PathBuf,
    /// `PEERGATE_TABLE`: the DynamoDB table; by default `peergate`.
    pub table: String,
    /// `PEERGATE_SECRETS`: the id or ARN of a secret in AWS Secrets Manager, or `file:PATH`; by default `peergate`.
    pub secrets: SecretsSource,
    /// `PEERGATE_CA_FILE`: certificates in PEM to trust besides the public roots, e.g. of a proxy or a chat server of
    /// one's own; by default none.
    pub ca_file: Option<PathBuf>,
    /// What AWS itself needs.
    pub aws: Aws,
}

/// Where the secrets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretsSource {
    /// A secret in AWS Secrets Manager, by name or ARN.
    SecretsManager(String),
    /// A local file.
    File(PathBuf),
}

/// The part of the environment that AWS defines. Lambda sets all of it but the endpoints.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Aws {
    /// `AWS_REGION`.
    pub region: String,
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`.
    pub session_token: Option<String>,
    /// `AWS_ENDPOINT_URL_DYNAMODB`, else `AWS_ENDPOINT_URL`.
    pub dynamodb_endpoint: Option<String>,
    /// `AWS_ENDPOINT_URL_SECRETS_MANAGER`, else `AWS_ENDPOINT_URL`.
    pub secrets_manager_endpoint: Option<String>,
    /// `AWS_ENDPOINT_URL_STS`, else `AWS_ENDPOINT_URL`.
    pub sts_endpoint: Option<String>,
    /// `AWS_ENDPOINT_URL_EVENTBRIDGE`, else `AWS_ENDPOINT_URL`; for the doctor.
    pub events_endpoint: Option<String>,
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aws").field("region", &self.region).finish_non_exhaustive()
    }
}

impl Environment {
    /// Reads the process's environment.
    pub fn from_process() -> Result<Self, Error> {
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads an environment.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let required = |name: &'static str| set(name).ok_or(Error::MissingVariable(name));
        let endpoint = |name: &str| set(name).or_else(|| set("AWS_ENDPOINT_URL"));
        let secrets = set("PEERGATE_SECRETS").unwrap_or_else(|| "peergate".into());
        Ok(Self {
            config: set("PEERGATE_CONFIG").unwrap_or_else(|| "peergate.toml".into()).into(),
            table: set("PEERGATE_TABLE").unwrap_or_else(|| "peergate".into()),
            secrets: match secrets.strip_prefix("file:") {
                Some(path) => SecretsSource::File(path.into()),
                None => SecretsSource::SecretsManager(secrets),
            },
            ca_file: set("PEERGATE_CA_FILE").map(PathBuf::from),
            aws: Aws {
                region: required("AWS_REGION")?,
                access_key_id: required("AWS_ACCESS_KEY_ID")?,
                secret_access_key: required("AWS_SECRET_ACCESS_KEY")?,
                session_token: set("AWS_SESSION_TOKEN"),
                dynamodb_endpoint: endpoint("AWS_ENDPOINT_URL_DYNAMODB"),
                secrets_manager_endpoint: endpoint("AWS_ENDPOINT_URL_SECRETS_MANAGER"),
                sts_endpoint: endpoint("AWS_ENDPOINT_URL_STS"),
                events_endpoint: endpoint("AWS_ENDPOINT_URL_EVENTBRIDGE"),
            },
        })
    }
}

/// Everything in `peergate.toml`, checked. Each key is described in `peergate.example.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The accepting accounts, by name.
    pub targets: BTreeMap<String, Target>,
    /// Who may post to `/webhook/{client}`, by name.
    #[expect(clippy::zero_sized_map_values, reason = "a client has no keys yet, but it is a table in the file")]
    pub clients: BTreeMap<String, Client>,
    /// The Slack app, if there is one.
    pub slack: Option<Slack>,
    /// Where notices go, by name.
    pub channels: BTreeMap<String, Channel>,
    /// Who may decide about what.
    pub policy: Policy,
    /// How long the record of a finished approval is kept.
    pub retention: SignedDuration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    targets: BTreeMap<String, Target>,
    #[serde(default)]
    #[expect(clippy::zero_sized_map_values, reason = "as in `Config`")]
    clients: BTreeMap<String, Client>,
    slack: Option<Slack>,
    #[serde(default)]
    channels: BTreeMap<String, Channel>,
    #[serde(default)]
    people: BTreeMap<String, Person>,
    #[serde(default)]
    groups: BTreeMap<String, BTreeSet<String>>,
    #[serde(default)]
    accounts: BTreeMap<AccountId, Account>,
    #[serde(default)]
    requests: Requests,
    #[serde(default)]
    rule: Vec<Rule>,
    #[serde(default = "default_retention_days")]
    retention_days: u32,
}

/// An accepting account.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Whose VPCs are asked for.
    pub account: AccountId,
    /// Where requests are looked for, e.g. `cn-shanghai`; nowhere, when empty.
    pub regions: BTreeSet<String>,
    /// The API's address.
    #[serde(default = "default_endpoint")]
    pub endpoint: Url,
    /// The address of the Security Token Service, for roles.
    #[serde(default = "default_sts_endpoint")]
    pub sts_endpoint: Url,
    /// Who we are there.
    #[serde(default)]
    pub credentials: CredentialsKind,
    /// How calls are signed.
    #[serde(default)]
    pub signature: SignatureVersion,
    /// How many calls of each operation a function makes in 60 s at most.
    #[serde(default = "default_calls_per_minute")]
    pub calls_per_minute: u32,
}

/// Who we are to Alibaba Cloud.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum CredentialsKind {
    /// The access key of the secrets.
    AccessKey {},
    /// A role, assumed with an access key of the secrets.
    AssumeRole {
        /// `acs:ram::ACCOUNT:role/NAME`.
        role: String,
        /// What the role's trust policy asks for, if it does.
        external_id: Option<String>,
        /// Whose access key, by the name under `targets` in the secrets; by default the target's own.
        key_of: Option<String>,
    },
    /// A role, assumed with an identity token of AWS: nothing secret is stored.
    Oidc {
        /// `acs:ram::ACCOUNT:role/NAME`.
        role: String,
        /// `acs:ram::ACCOUNT:oidc-provider/NAME`.
        provider: String,
    },
}

impl Default for CredentialsKind {
    fn default() -> Self {
        Self::AccessKey {}
    }
}

impl CredentialsKind {
    /// Whose access key is needed, by the name under `targets` in the secrets.
    #[must_use]
    pub fn key_of<'a>(&'a self, target: &'a str) -> Option<&'a str> {
        match self {
            Self::AccessKey {} => Some(target),
            Self::AssumeRole { key_of, .. } => Some(key_of.as_deref().unwrap_or(target)),
            Self::Oidc { .. } => None,
        }
    }

    /// Whether a role is assumed.
    #[must_use]
    pub fn is_a_session(&self) -> bool {
        match self {
            Self::AccessKey {} => false,
            Self::AssumeRole { .. } | Self::Oidc { .. } => true,
        }
    }
}

/// A sender of Standard Webhooks. Its signing secrets are in the secrets store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {}

/// The Slack app. Its signing secrets and bot token are in the secrets store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// Workspaces whose people may click, by id (`T…`).
    pub teams: BTreeSet<String>,
    /// The app that may call us, by id (`A…`).
    pub app: String,
    /// The Web API's address.
    #[serde(default = "default_slack_api")]
    pub api: Url,
    /// Where a `response_url` may point to: scheme, host and port.
    #[serde(default = "default_response_origins")]
    pub response_origins: Vec<Url>,
}

/// Where notices go. URLs and tokens are in the secrets store.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum Channel {
    /// `chat.postMessage` with the app's bot token.
    Slack {
        /// The channel's id (`C…`).
        channel: String,
    },
    /// A Slack incoming webhook.
    SlackWebhook {},
    /// Signed Standard Webhooks to any URL.
    StandardWebhooks {},
}

/// What is wrong with the configuration; every message names the variable, file or key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable is not set.
    #[error("environment variable {0} is not set")]
    MissingVariable(&'static str),
    /// The file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown, missing or mistyped key.
    #[error("{path}: {message}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// A value makes no sense.
    #[error("{key}: {problem}")]
    Invalid {
        /// The key, in full.
        key: String,
        /// Why.
        problem: String,
    },
}

impl Config {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })?;
        Self::parse(&text).map_err(|error| match error {
            Error::Parse { message, .. } => Error::Parse { path: path.into(), message },
            Error::MissingVariable(_) | Error::Read { .. } | Error::Invalid { .. } => error,
        })
    }

    /// The target of that name; without a name, the only one.
    #[must_use]
    pub fn target(&self, name: Option<&str>) -> Option<(&str, &Target)> {
        let found = match name {
            Some(name) => self.targets.get_key_value(name),
            None => self.targets.first_key_value().filter(|_| self.targets.len() == 1),
        };
        found.map(|(name, target)| (name.as_str(), target))
    }

    /// Checks the text of a file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let file: File = toml::from_str(text)
            .map_err(|error| Error::Parse { path: "peergate.toml".into(), message: error.to_string() })?;
        file.check()?;
        Ok(Self {
            targets: file.targets,
            clients: file.clients,
            slack: file.slack,
            channels: file.channels,
            policy: Policy {
                rules: file.rule,
                people: file.people,
                groups: file.groups,
                accounts: file.accounts,
                requests: file.requests,
            },
            retention: SignedDuration::from_hours(i64::from(file.retention_days) * 24),
        })
    }
}

impl File {
    fn check(&self) -> Result<(), Error> {
        let names = [
            ("targets", self.targets.keys().collect::<Vec<_>>()),
            ("clients", self.clients.keys().collect()),
            ("channels", self.channels.keys().collect()),
            ("people", self.people.keys().collect()),
            ("groups", self.groups.keys().collect()),
        ];
        for (table, names) in names {
            for name in names {
                check_name(&format!("{table}.{name}"), name)?;
            }
        }
        if self.targets.is_empty() {
            return invalid("targets", "name at least one accepting account");
        }
        if self.retention_days < SHORTEST_RETENTION_DAYS {
            return invalid("retention_days", "at least 8: a request lives for 7");
        }
        for (name, target) in &self.targets {
            check_endpoint(&format!("targets.{name}.endpoint"), &target.endpoint)?;
            check_endpoint(&format!("targets.{name}.sts_endpoint"), &target.sts_endpoint)?;
            check_credentials(&format!("targets.{name}.credentials"), target)?;
            let same = |(other, one): (&String, &Target)| other < name && one.account == target.account;
            if self.targets.iter().any(same) {
                return invalid(format!("targets.{name}.account"), "another target has this account");
            }
            if target.calls_per_minute == 0 {
                return invalid(format!("targets.{name}.calls_per_minute"), "at least 1");
            }
            if let Some(region) = target.regions.iter().find(|region| !is_region(region)) {
                return invalid(format!("targets.{name}.regions"), format!("{region:?} is not the id of a region"));
            }
        }
        if let Some(slack) = &self.slack {
            check_endpoint("slack.api", &slack.api)?;
            for origin in &slack.response_origins {
                check_endpoint("slack.response_origins", origin)?;
            }
            if slack.teams.is_empty() {
                return invalid("slack.teams", "name at least one workspace");
            }
        }
        for (name, channel) in &self.channels {
            let is_id =
                |id: &str| id.len() > 1 && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
            if matches!(channel, Channel::Slack { channel } if !is_id(channel)) {
                return invalid(format!("channels.{name}.channel"), "expected the channel's id, e.g. C0123ABCD");
            }
            if matches!(channel, Channel::Slack { .. }) && self.slack.is_none() {
                return invalid(format!("channels.{name}.kind"), "`slack` needs the table [slack]");
            }
        }
        self.check_people()?;
        self.check_requests()?;
        for (position, rule) in self.rule.iter().enumerate() {
            let same = |earlier: &Rule| earlier.name == rule.name;
            if self.rule.iter().take(position).any(same) {
                return invalid(format!("rule.{}", rule.name), "two rules have this name");
            }
            self.check_rule(rule)?;
        }
        Ok(())
    }

    fn check_people(&self) -> Result<(), Error> {
        let mut owners: BTreeMap<&Principal, &str> = BTreeMap::new();
        for (name, person) in &self.people {
            for principal in &person.principals {
                if let Some(other) = owners.insert(principal, name) {
                    let problem = format!("{principal} already belongs to {other}");
                    return invalid(format!("people.{name}.principals"), problem);
                }
            }
        }
        for (group, people) in &self.groups {
            if let Some(unknown) = people.iter().find(|person| !self.people.contains_key(*person)) {
                return invalid(format!("groups.{group}"), format!("no person is named {unknown}"));
            }
        }
        Ok(())
    }

    fn check_requests(&self) -> Result<(), Error> {
        for (account, Account { name, contacts }) in &self.accounts {
            let key = |field: &str| format!("accounts.{account}.{field}");
            if name.trim().is_empty() {
                return invalid(key("name"), "say what we call it");
            }
            self.check_approvers(&key("contacts"), contacts)?;
        }
        let Requests { channels, remind_after, expiry_notice, stuck_after } = &self.requests;
        self.check_channels("requests.channels", channels)?;
        check_wait("requests.remind_after", remind_after)?;
        check_wait("requests.expiry_notice", expiry_notice)?;
        check_wait("requests.stuck_after", stuck_after)
    }

    fn check_approvers(&self, key: &str, approvers: &[ApproverRef]) -> Result<(), Error> {
        for approver in approvers {
            match approver {
                ApproverRef::Person(name) if !self.people.contains_key(name) => {
                    return invalid(key, format!("no person is named {name}"));
                }
                ApproverRef::Group(name) if !self.groups.contains_key(name) => {
                    return invalid(key, format!("no group is named {name}"));
                }
                ApproverRef::Person(_) | ApproverRef::Group(_) | ApproverRef::Principal(_) => {}
            }
        }
        Ok(())
    }

    fn check_channels(&self, key: &str, channels: &[String]) -> Result<(), Error> {
        match channels.iter().find(|channel| !self.channels.contains_key(*channel)) {
            Some(unknown) => invalid(key, format!("no channel is named {unknown}")),
            None => Ok(()),
        }
    }

    fn check_rule(&self, rule: &Rule) -> Result<(), Error> {
        let key = |field: &str| format!("rule.{}.{field}", rule.name);
        if !self.targets.contains_key(&rule.target) {
            return invalid(key("target"), format!("no target is named {}", rule.target));
        }
        if rule.approvers.is_empty() && rule.approvals > 0 {
            return invalid(key("approvers"), "name at least one");
        }
        let empty = [
            ("requester_accounts", rule.requester_accounts.as_ref().is_some_and(Vec::is_empty)),
            ("requester_regions", rule.requester_regions.as_ref().is_some_and(Vec::is_empty)),
            ("requester_cidrs_within", rule.requester_cidrs_within.as_ref().is_some_and(Vec::is_empty)),
            ("accepting_vpcs", rule.accepting_vpcs.as_ref().is_some_and(Vec::is_empty)),
        ];
        if let Some((field, _)) = empty.into_iter().find(|(_, empty)| *empty) {
            return invalid(key(field), "an empty list matches nothing: name something, or leave it out");
        }
        self.check_approvers(&key("approvers"), &rule.approvers)?;
        let people = self.people_of(rule);
        if usize::try_from(rule.approvals).unwrap_or(usize::MAX) > people {
            return invalid(key("approvals"), format!("only {people} different people are named as approvers"));
        }
        self.check_channels(&key("channels"), &rule.channels)?;
        self.check_channels(&key("escalate_to"), &rule.escalate_to)?;
        if rule.escalate_after.is_some() == rule.escalate_to.is_empty() {
            return invalid(key("escalate_after"), "`escalate_after` and `escalate_to` need each other");
        }
        for (field, wait) in [("remind_after", rule.remind_after), ("escalate_after", rule.escalate_after)] {
            wait.map_or(Ok(()), |wait| check_wait(&key(field), &wait))?;
        }
        Ok(())
    }

    /// How many different people a rule names as approvers.
    fn people_of(&self, rule: &Rule) -> usize {
        let mut people = BTreeSet::new();
        for approver in &rule.approvers {
            match approver {
                ApproverRef::Person(name) => people.extend([name.as_str()]),
                ApproverRef::Group(name) => {
                    people.extend(self.groups.get(name).into_iter().flatten().map(String::as_str));
                }
                ApproverRef::Principal(principal) => {
                    let owner = self.people.iter().find(|(_, person)| person.principals.contains(principal));
                    people.extend([owner.map_or(principal.as_str(), |(name, _)| name.as_str())]);
                }
            }
        }
        people.len()
    }
}

fn invalid<T>(key: impl Into<String>, problem: impl Into<String>) -> Result<T, Error> {
    Err(Error::Invalid { key: key.into(), problem: problem.into() })
}

fn check_name(key: &str, name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=40).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(())
    } else {
        invalid(key, "a name is 1 to 40 lower-case letters, digits and `-`")
    }
}

/// What comes into addresses of the console, and goes to the API.
fn is_region(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=40).contains(&text.len()) && text.bytes().all(allowed)
}

fn check_wait(key: &str, wait: &SignedDuration) -> Result<(), Error> {
    let (least, most) = (SignedDuration::from_mins(1), SignedDuration::from_hours(7 * 24));
    if (least..=most).contains(wait) { Ok(()) } else { invalid(key, "a wait is 1m to 168h, e.g. `4h` or `90m`") }
}

fn check_endpoint(key: &str, url: &Url) -> Result<(), Error> {
    if !is_secure(url) {
        return invalid(key, "only https is allowed, except on loopback");
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return invalid(key, "a URL with a user, password, query or fragment is not allowed");
    }
    Ok(())
}

/// Whether what we send there can't be read on the way: https, or http that does not leave the machine.
#[must_use]
pub fn is_secure(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.host().is_some() && (url.scheme() == "https" || (url.scheme() == "http" && loopback))
}

#[expect(clippy::expect_used, reason = "a constant")]
fn constant_url(text: &str) -> Url {
    Url::parse(text).expect("a valid URL")
}

/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/api-vpcpeer-2022-01-01-endpoint>
/// A role of another account would accept for another account.
fn check_credentials(key: &str, target: &Target) -> Result<(), Error> {
    let is_ours = |arn: &str, what: &str| {
        let rest = arn.strip_prefix(&format!("acs:ram::{}:{what}/", target.account));
        rest.is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        })
    };
    let (role, provider, external_id) = match &target.credentials {
        CredentialsKind::AccessKey {} => return Ok(()),
        CredentialsKind::AssumeRole { role, external_id, .. } => (role, None, external_id.as_deref()),
        CredentialsKind::Oidc { role, provider } => (role, Some(provider), None),
    };
    let expected = |what: &str| format!("expected acs:ram::{}:{what}/NAME", target.account);
    if !is_ours(role, "role") {
        return invalid(format!("{key}.role"), expected("role"));
    }
    if provider.is_some_and(|provider| !is_ours(provider, "oidc-provider")) {
        return invalid(format!("{key}.provider"), expected("oidc-provider"));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte);
    if external_id.is_some_and(|id| !(2..=1224).contains(&id.len()) || !id.bytes().all(plain)) {
        return invalid(format!("{key}.external_id"), "2 to 1224 letters, digits and `_+=,.@:/-`");
    }
    Ok(())
}

fn default_endpoint() -> Url {
    constant_url("https://vpcpeer.aliyuncs.com/")
}

/// Source: <https://www.alibabacloud.com/help/en/ram/developer-reference/api-sts-2015-04-01-endpoint>
fn default_sts_endpoint() -> Url {
    constant_url("https://sts.aliyuncs.com/")
}

/// Of 360, which the account's other users share.
///
/// Source: <https://www.alibabacloud.com/help/en/vpc/developer-reference/throttling>
fn default_calls_per_minute() -> u32 {
    300
}

/// Source: <https://docs.slack.dev/apis/web-api/>
fn default_slack_api() -> Url {
    constant_url("https://slack.com/api/")
}

/// Source: <https://docs.slack.dev/interactivity/handling-user-interaction>
fn default_response_origins() -> Vec<Url> {
    vec![constant_url("https://hooks.slack.com/"), constant_url("https://hooks.slack-gov.com/")]
}

fn default_retention_days() -> u32 {
    400
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "acs:ram::2222222222222222:role/peergate";
    const SMALLEST: &str = "[targets.prod]\naccount = \"2222222222222222\"\nregions = []\n";

    fn problem(text: &str) -> String {
        Config::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_example_is_valid() {
        Config::parse(include_str!("../peergate.example.toml")).unwrap();
    }

    #[test]
    fn defaults_are_the_vendors_addresses() {
        let config = Config::parse(SMALLEST).unwrap();
        assert_eq!(config.targets["prod"].endpoint.as_str(), "https://vpcpeer.aliyuncs.com/");
        assert_eq!(config.targets["prod"].signature, SignatureVersion::V3);
        assert!(config.policy.rules.is_empty());
    }

    #[test]
    fn a_role_must_be_the_targets_own() {
        let cases = [
            (&format!("{SMALLEST}credentials = {{ kind = \"root\" }}\n"), "kind"),
            (
                &format!("{SMALLEST}credentials = {{ kind = \"assume-role\", role = \"acs:ram::1:role/other\" }}\n"),
                "targets.prod.credentials.role: expected acs:ram::2222222222222222:role/NAME",
            ),
            (
                &format!("{SMALLEST}credentials = {{ kind = \"oidc\", role = \"{ROLE}\", provider = \"{ROLE}\" }}\n"),
                "targets.prod.credentials.provider: expected acs:ram::2222222222222222:oidc-provider/NAME",
            ),
            (
                &format!(
                    "{SMALLEST}credentials = {{ kind = \"assume-role\", role = \"{ROLE}\", external_id = \"é\" }}\n"
                ),
                "targets.prod.credentials.external_id",
            ),
            (
                &format!("{SMALLEST}sts_endpoint = \"http://sts.aliyuncs.com/\"\n"),
                "targets.prod.sts_endpoint: only https",
            ),
        ];
        for (text, expected) in cases {
            let problem = problem(text);
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn every_message_names_the_key() {
        let rule = "[people.alice]\nprincipals = [\"slack:T1/U1\"]\n[[rule]]\nname = \"r\"\n";
        let cases = [
            ("", "targets: name at least one accepting account"),
            ("[targets.prod]\naccount = 1\n", "account"),
            ("[targets.prod]\naccuont = \"1\"\n", "accuont"),
            ("[targets.prod]\naccount = \"1\"\n", "regions"),
            ("[targets.prod]\naccount = \"1\"\nregions = [\"a/b\"]\n", "targets.prod.regions"),
            ("[targets.Prod]\naccount = \"1\"\nregions = []\n", "targets.Prod: a name is"),
            (
                "[targets.prod]\naccount = \"1\"\nregions = []\nendpoint = \"http://vpcpeer.aliyuncs.com\"\n",
                "targets.prod.endpoint: only https",
            ),
            (
                "[targets.prod]\naccount = \"1\"\nregions = []\nendpoint = \"https://u:p@h/\"\n",
                "targets.prod.endpoint: a URL with a user",
            ),
            ("[targets.prod]\naccount = \"1\"\nsignature = \"v2\"\n", "signature"),
            (&format!("{SMALLEST}[channels.ops]\nkind = \"slack\"\nchannel = \"C1\"\n"), "channels.ops.kind"),
            (&format!("{SMALLEST}[channels.ops]\nkind = \"pigeon\"\n"), "kind"),
            (
                &format!("{SMALLEST}[channels.ops]\nkind = \"slack\"\nchannel = \"#ops\"\n"),
                "channels.ops.channel: expected",
            ),
            (&format!("{SMALLEST}[slack]\nteams = []\napp = \"A1\"\n"), "slack.teams"),
            (&format!("{SMALLEST}[groups]\nnetops = [\"bob\"]\n"), "groups.netops: no person is named bob"),
            (
                &format!("{SMALLEST}[targets.test]\naccount = \"2222222222222222\"\nregions = []\n"),
                "targets.test.account: another target has this account",
            ),
            (&format!("{SMALLEST}calls_per_minute = 0\n"), "calls_per_minute: at least 1"),
            (&format!("retention_days = 7\n{SMALLEST}"), "retention_days: at least 8"),
            (&format!("{SMALLEST}[people.a]\nprincipals = [\"slack:T1\"]\n"), "principals"),
            (
                &format!("{SMALLEST}{rule}target = \"dev\"\napprovals = 1\napprovers = [\"person:alice\"]\n"),
                "rule.r.target",
            ),
            (
                &format!(
                    "{SMALLEST}{rule}target = \"prod\"\napprovals = 2\napprovers = [\"person:alice\", \"slack:T1/U1\"]\n"
                ),
                "rule.r.approvals: only 1 different people",
            ),
            (&format!("{SMALLEST}{rule}target = \"prod\"\napprovals = 1\napprovers = []\n"), "rule.r.approvers"),
            (
                &format!(
                    "{SMALLEST}{rule}target = \"prod\"\napprovals = 1\napprovers = [\"person:alice\"]\nescalate_after = \"1h\"\n"
                ),
                "rule.r.escalate_after",
            ),
            (
                &format!(
                    "{SMALLEST}{rule}target = \"prod\"\napprovals = 1\napprovers = [\"person:alice\"]\nremind_after = \"1s\"\n"
                ),
                "rule.r.remind_after: a wait is",
            ),
            (&format!("{SMALLEST}[requests]\nstuck_after = \"soon\"\n"), "stuck_after"),
            (&format!("{SMALLEST}[requests]\nchannels = [\"x\"]\n"), "requests.channels: no channel is named x"),
            (&format!("{SMALLEST}[accounts.1]\nname = \"\"\n"), "accounts.1.name"),
            (&format!("{SMALLEST}[accounts.x]\nname = \"a\"\n"), "accounts"),
            (
                &format!("{SMALLEST}[accounts.1]\nname = \"a\"\ncontacts = [\"person:eve\"]\n"),
                "accounts.1.contacts: no person is named eve",
            ),
            (
                &format!("{SMALLEST}{rule}target = \"prod\"\napprovals = 1\napprovers = [\"group:x\"]\n"),
                "no group is named x",
            ),
            (
                &format!(
                    "{SMALLEST}{rule}target = \"prod\"\napprovals = 1\napprovers = [\"person:alice\"]\nchannels = [\"x\"]\n"
                ),
                "rule.r.channels: no channel is named x",
            ),
            (
                &format!(
                    "{SMALLEST}[people.a]\nprincipals = [\"slack:T1/U1\"]\n[people.b]\nprincipals = [\"slack:T1/U1\"]\n"
                ),
                "people.b.principals: slack:T1/U1 already belongs to a",
            ),
        ];
        for (text, expected) in cases {
            let problem = problem(text);
            assert!(problem.contains(expected), "{text}\n→ {problem}");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for (url, secure) in [
            ("https://vpcpeer.aliyuncs.com", true),
            ("http://127.0.0.1:80", true),
            ("http://[::1]:80", true),
            ("http://localhost", true),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
            ("ftp://127.0.0.1", false),
        ] {
            assert_eq!(is_secure(&Url::parse(url).unwrap()), secure, "{url}");
        }
    }

    #[test]
    fn the_environment_is_read_and_what_is_missing_is_named() {
        let read = |set: &[(&str, &str)]| {
            Environment::read(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        let aws = [("AWS_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "hush")];
        let environment = read(&aws).unwrap();
        assert_eq!(environment.secrets, SecretsSource::SecretsManager("peergate".into()));
        assert!(!format!("{environment:?}").contains("hush"));
        let more =
            [&aws[..], &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("PEERGATE_SECRETS", "file:/s.json")]].concat();
        let environment = read(&more).unwrap();
        assert_eq!(environment.aws.dynamodb_endpoint.as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(environment.secrets, SecretsSource::File("/s.json".into()));
        assert!(matches!(read(&aws[1..]), Err(Error::MissingVariable("AWS_REGION"))));
    }
}
