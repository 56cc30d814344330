//! What the operator decided: wiring from the environment, policy from `peergate.toml`. Read once, at start.
//!
//! Nothing secret is in here; see [`crate::secrets`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use crate::alicloud::sign::SignatureVersion;
use crate::approval::{InvalidPrincipal, Principal};
use crate::chat::platform::{self, Channel, Platform};
use crate::http::{check_endpoint, constant_url};
use crate::peering::{AccountId, InvalidAccountId};
use crate::policy::{ApproverRef, KnownAccount, Person, Policy, RequestDefaults, Rule};
use crate::redaction::{self, KeyProblem, redact};

/// A record must outlive the request that it is about: a new one would decide again, with the old client token.
const MIN_RETENTION_DAYS: u32 = 8;

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
    pub aws: AwsEnvironment,
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
pub struct AwsEnvironment {
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

impl std::fmt::Debug for AwsEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aws").field("region", &self.region).finish_non_exhaustive()
    }
}

impl Environment {
    /// Reads the process's environment.
    pub fn from_process() -> Result<Self, Error> {
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads an environment.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
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
            aws: AwsEnvironment {
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
    /// The apps of chat platforms, and who may post to `/webhook/{client}`.
    pub platforms: platform::AppConfigs,
    /// Where notices go, by name.
    pub channels: BTreeMap<String, Channel>,
    /// Who may decide about what.
    pub policy: Policy,
    /// How long the record of a finished approval is kept.
    pub retention: SignedDuration,
    /// Tables whose names are those of earlier versions.
    pub renamed_tables: Vec<&'static str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    #[serde(default)]
    targets: BTreeMap<String, Target>,
    #[serde(default)]
    clients: platform::ClientConfigs,
    #[serde(default)]
    platforms: platform::AppConfigs,
    #[serde(default)]
    channels: BTreeMap<String, Channel>,
    #[serde(default)]
    people: BTreeMap<String, Person>,
    #[serde(default)]
    groups: BTreeMap<String, BTreeSet<String>>,
    #[serde(default)]
    accounts: BTreeMap<AccountId, KnownAccount>,
    #[serde(default)]
    requests: RequestDefaults,
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
    pub fn key_holder<'a>(&'a self, target: &'a str) -> Option<&'a str> {
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

impl From<KeyProblem> for Error {
    fn from(KeyProblem { key, problem }: KeyProblem) -> Self {
        Self::Invalid { key, problem }
    }
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
        let (mut file, renamed) =
            ConfigFile::parse(text).map_err(|message| Error::Parse { path: "peergate.toml".into(), message })?;
        file.platforms.set_clients(std::mem::take(&mut file.clients));
        file.validate()?;
        let merged = Platform::ALL.iter().flat_map(|platform| platform.merged_tenants(&file.platforms));
        let realms = merged.map(|merged| (merged.tenant, merged.into)).collect();
        let policy = Policy {
            rules: file.rule,
            people: file.people,
            groups: file.groups,
            accounts: file.accounts,
            defaults: file.requests,
            realms,
        };
        check_identities_unique(&policy)?;
        for rule in &policy.rules {
            check_rule_satisfiable(&policy, rule)?;
        }
        Ok(Self {
            targets: file.targets,
            platforms: file.platforms,
            channels: file.channels,
            policy,
            renamed_tables: renamed,
            retention: SignedDuration::from_hours(i64::from(file.retention_days) * 24),
        })
    }
}

/// An identity has one owner. Where a user id belongs to one user in all tenants, it counts once, too.
fn check_identities_unique(policy: &Policy) -> Result<(), Error> {
    let mut owners: BTreeMap<Principal, &str> = BTreeMap::new();
    for (name, person) in &policy.people {
        for principal in &person.principals {
            let owner = owners.insert(policy.canonical_principal(principal).into_owned(), name);
            if let Some(other) = owner.filter(|other| other != name) {
                let problem = format!("{} already belongs to {}", redact(principal.as_str()), redact(other));
                return invalid_key(format!("people.{name}.principals"), problem);
            }
        }
    }
    let mut seen: BTreeMap<(&str, &str), &Principal> = BTreeMap::new();
    for (key, principal) in named_principals(policy) {
        let Some(platform) = Platform::from_principal(principal) else { continue };
        let Some(advice) = platform.users_span_tenants() else { continue };
        let user = (platform.realm(), principal.user());
        let Some(earlier) = seen.get(&user) else {
            seen.insert(user, principal);
            continue;
        };
        let (one, other) = (policy.canonical_principal(earlier), policy.canonical_principal(principal));
        let owner = owners.get(&*one);
        if one != other && (owner.is_none() || owner != owners.get(&*other)) {
            let problem = format!(
                "{} and {} are the same user in two tenants and would count twice: {advice}",
                redact(principal.as_str()),
                redact(earlier.as_str())
            );
            return invalid_key(key, problem);
        }
    }
    Ok(())
}

/// Every principal of the file, with its key.
fn named_principals(policy: &Policy) -> Vec<(String, &Principal)> {
    let mut named = vec![];
    for (name, person) in &policy.people {
        let key = format!("people.{name}.principals");
        named.extend(person.principals.iter().map(|principal| (key.clone(), principal)));
    }
    let contacts = policy.accounts.iter().map(|(id, account)| (format!("accounts.{id}.contacts"), &account.contacts));
    let rules = policy.rules.iter().map(|rule| (format!("rule.{}.approvers", rule.name), &rule.approvers));
    for (key, list) in contacts.chain(rules) {
        for who in list {
            match who {
                ApproverRef::Principal(principal) => named.push((key.clone(), principal)),
                ApproverRef::Person(_) | ApproverRef::Group(_) => {}
            }
        }
    }
    named
}

/// A rule must have enough approvers without the contacts of each of its accounts.
fn check_rule_satisfiable(policy: &Policy, rule: &Rule) -> Result<(), Error> {
    let key = format!("rule.{}.approvals", rule.name);
    let people = policy.approvers_of(rule, None).len();
    if rule.needed_approvers() > people {
        return invalid_key(key, format!("only {people} different people are named as approvers"));
    }
    for account in rule.requester_accounts.iter().flatten() {
        let left = policy.approvers_of(rule, Some(*account)).len();
        if rule.needed_approvers() > left {
            let problem = format!(
                "{} must approve, but without the contacts of account {account}, only {left} of the approvers may",
                rule.needed_approvers()
            );
            return invalid_key(key, problem);
        }
    }
    Ok(())
}

/// Moves the tables of apps that earlier versions had at the top. Returns their names.
fn rename_tables(document: &mut DeTable<'_>) -> Result<Vec<&'static str>, &'static str> {
    let mut renamed = vec![];
    for name in platform::LEGACY_TABLES {
        let Some((key, table)) = document.remove_entry(name) else { continue };
        let at = key.span();
        let platforms = document
            .entry(Spanned::new(at.clone(), "platforms".into()))
            .or_insert_with(|| Spanned::new(at, DeValue::Table(DeTable::new())));
        let DeValue::Table(platforms) = platforms.get_mut() else { return Err(name) };
        if platforms.insert(key, table).is_some() {
            return Err(name);
        }
        renamed.push(name);
    }
    Ok(renamed)
}

impl ConfigFile {
    /// Reads the text.
    ///
    /// # Errors
    /// The key, its place and what was expected. Repeats nothing of the text but names.
    fn parse(text: &str) -> Result<(Self, Vec<&'static str>), String> {
        let at = |error: &toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            before.map_or_else(String::new, |before| {
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                format!("line {line}, column {column}: ")
            })
        };
        // The messages of the grammar are constants.
        let malformed = |error: toml::de::Error| format!("{}not TOML: {}", at(&error), error.message());
        let mut table = DeTable::parse(text).map_err(malformed)?;
        let renamed =
            rename_tables(table.get_mut()).map_err(|name| format!("{name}: `platforms.{name}` is there, too"))?;
        let document = toml::Deserializer::from(table);
        let ours = [InvalidPrincipal.to_string(), InvalidAccountId.to_string()];
        let file = serde_path_to_error::deserialize(document).map_err(|error| {
            let path = redaction::dotted_path(error.path());
            let key = if path.is_empty() { path } else { format!("{path}, ") };
            format!("{key}{}{}", at(error.inner()), redaction::describe_expected(error.inner().message(), &ours))
        })?;
        Ok((file, renamed))
    }

    fn validate(&self) -> Result<(), Error> {
        let names = [
            ("targets", self.targets.keys().collect::<Vec<_>>()),
            ("clients", self.platforms.clients().collect()),
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
            return invalid_key("targets", "name at least one accepting account");
        }
        if self.retention_days < MIN_RETENTION_DAYS {
            return invalid_key("retention_days", "at least 8: a request lives for 7");
        }
        for (name, target) in &self.targets {
            check_endpoint(&format!("targets.{name}.endpoint"), &target.endpoint)?;
            check_endpoint(&format!("targets.{name}.sts_endpoint"), &target.sts_endpoint)?;
            check_credentials(&format!("targets.{name}.credentials"), target)?;
            let same = |(other, one): (&String, &Target)| other < name && one.account == target.account;
            if self.targets.iter().any(same) {
                return invalid_key(format!("targets.{name}.account"), "another target has this account");
            }
            if target.calls_per_minute == 0 {
                return invalid_key(format!("targets.{name}.calls_per_minute"), "at least 1");
            }
            if let Some(region) = target.regions.iter().find(|region| !is_region(region)) {
                return invalid_key(
                    format!("targets.{name}.regions"),
                    format!("{:?} is not the id of a region", redact(region)),
                );
            }
        }
        for platform in Platform::ALL {
            platform.check_config(&self.platforms)?;
        }
        self.check_destinations()?;
        self.check_people()?;
        self.check_requests()?;
        for (position, rule) in self.rule.iter().enumerate() {
            let same = |earlier: &Rule| earlier.name == rule.name;
            if self.rule.iter().take(position).any(same) {
                return invalid_key(format!("rule.{}", rule.name), "two rules have this name");
            }
            self.check_rule(rule)?;
        }
        Ok(())
    }

    /// Checks the channels that an app posts to. The addresses of other channels are in the secrets, and checked there.
    fn check_destinations(&self) -> Result<(), Error> {
        let mut names: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        for (name, channel) in &self.channels {
            let Some(id) = channel.id() else { continue };
            let key = |field: &str| format!("channels.{name}.{field}");
            if let Err(problem) = channel.check_id() {
                return invalid_key(key(channel.id_key()), problem);
            }
            if let Some(app) = channel.missing_app(&self.platforms) {
                return invalid_key(key("kind"), format!("`{}` needs the table [platforms.{app}]", channel.kind()));
            }
            if let Some(other) = names.insert((channel.kind(), id), name) {
                return invalid_key(
                    key(channel.id_key()),
                    format!("channels.{} posts to the same channel", redact(other)),
                );
            }
        }
        Ok(())
    }

    fn check_people(&self) -> Result<(), Error> {
        for (name, person) in &self.people {
            let key = format!("people.{name}.principals");
            if person.principals.is_empty() {
                return invalid_key(key, "name at least one identity: without any, nobody can act as this person");
            }
            for principal in &person.principals {
                self.check_principal(&key, principal)?;
            }
        }
        for (group, people) in &self.groups {
            if let Some(unknown) = people.iter().find(|person| !self.people.contains_key(*person)) {
                return invalid_key(format!("groups.{group}"), format!("no person is named {}", redact(unknown)));
            }
        }
        Ok(())
    }

    fn check_requests(&self) -> Result<(), Error> {
        for (account, KnownAccount { name, contacts }) in &self.accounts {
            let key = |field: &str| format!("accounts.{account}.{field}");
            if name.trim().is_empty() {
                return invalid_key(key("name"), "say what we call it");
            }
            self.check_approvers(&key("contacts"), contacts)?;
        }
        let RequestDefaults { channels, remind_after, expiry_notice, stuck_after } = &self.requests;
        self.check_channels("requests.channels", channels)?;
        check_wait("requests.remind_after", remind_after)?;
        check_wait("requests.expiry_notice", expiry_notice)?;
        check_wait("requests.stuck_after", stuck_after)
    }

    /// Refuses a principal that can send no request.
    fn check_principal(&self, key: &str, principal: &Principal) -> Result<(), Error> {
        let Some(platform) = Platform::from_principal(principal) else {
            let known: Vec<_> = Platform::ALL.iter().map(|platform| format!("`{}`", platform.realm())).collect();
            let id = redact(principal.as_str());
            return invalid_key(key, format!("{id} has an unknown platform: expected {}", known.join(" or ")));
        };
        platform.check_principal(&self.platforms, principal).or_else(|problem| invalid_key(key, problem))
    }

    fn check_approvers(&self, key: &str, approvers: &[ApproverRef]) -> Result<(), Error> {
        for approver in approvers {
            match approver {
                ApproverRef::Person(name) if !self.people.contains_key(name) => {
                    return invalid_key(key, format!("no person is named {}", redact(name)));
                }
                ApproverRef::Group(name) if !self.groups.contains_key(name) => {
                    return invalid_key(key, format!("no group is named {}", redact(name)));
                }
                ApproverRef::Principal(principal) => self.check_principal(key, principal)?,
                ApproverRef::Person(_) | ApproverRef::Group(_) => {}
            }
        }
        Ok(())
    }

    fn check_channels(&self, key: &str, channels: &[String]) -> Result<(), Error> {
        match channels.iter().find(|channel| !self.channels.contains_key(*channel)) {
            Some(unknown) => invalid_key(key, format!("no channel is named {}", redact(unknown))),
            None => Ok(()),
        }
    }

    fn check_rule(&self, rule: &Rule) -> Result<(), Error> {
        let key = |field: &str| format!("rule.{}.{field}", rule.name);
        if !self.targets.contains_key(&rule.target) {
            return invalid_key(key("target"), format!("no target is named {}", redact(&rule.target)));
        }
        if rule.approvers.is_empty() && rule.approvals > 0 {
            return invalid_key(key("approvers"), "name at least one");
        }
        let empty = [
            ("requester_accounts", rule.requester_accounts.as_ref().is_some_and(Vec::is_empty)),
            ("requester_regions", rule.requester_regions.as_ref().is_some_and(Vec::is_empty)),
            ("requester_cidrs_within", rule.requester_cidrs_within.as_ref().is_some_and(Vec::is_empty)),
            ("accepting_vpcs", rule.accepting_vpcs.as_ref().is_some_and(Vec::is_empty)),
        ];
        if let Some((field, _)) = empty.into_iter().find(|(_, empty)| *empty) {
            return invalid_key(key(field), "an empty list matches nothing: name something, or leave it out");
        }
        self.check_approvers(&key("approvers"), &rule.approvers)?;
        let is_narrow = rule.requester_accounts.is_some() && rule.requester_cidrs_within.is_some();
        if rule.approvals == 0 && !is_narrow {
            let problem = "0 accepts by itself: name `requester_accounts` and `requester_cidrs_within`, too";
            return invalid_key(key("approvals"), problem);
        }
        self.check_channels(&key("channels"), &rule.channels)?;
        self.check_channels(&key("escalate_to"), &rule.escalate_to)?;
        if rule.escalate_after.is_some() == rule.escalate_to.is_empty() {
            return invalid_key(key("escalate_after"), "`escalate_after` and `escalate_to` need each other");
        }
        for (field, wait) in [("remind_after", rule.remind_after), ("escalate_after", rule.escalate_after)] {
            wait.map_or(Ok(()), |wait| check_wait(&key(field), &wait))?;
        }
        Ok(())
    }
}

fn invalid_key<T>(key: impl AsRef<str>, problem: impl Into<String>) -> Result<T, Error> {
    Ok(KeyProblem::err_at(key, problem)?)
}

fn check_name(key: &str, name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=40).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(())
    } else {
        invalid_key(key, "a name is 1 to 40 lower-case letters, digits and `-`")
    }
}

/// What comes into addresses of the console, and goes to the API.
fn is_region(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=40).contains(&text.len()) && text.bytes().all(allowed)
}

fn check_wait(key: &str, wait: &SignedDuration) -> Result<(), Error> {
    let (least, most) = (SignedDuration::from_mins(1), SignedDuration::from_hours(7 * 24));
    if (least..=most).contains(wait) { Ok(()) } else { invalid_key(key, "a wait is 1m to 168h, e.g. `4h` or `90m`") }
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
        return invalid_key(format!("{key}.role"), expected("role"));
    }
    if provider.is_some_and(|provider| !is_ours(provider, "oidc-provider")) {
        return invalid_key(format!("{key}.provider"), expected("oidc-provider"));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&byte);
    if external_id.is_some_and(|id| !(2..=1224).contains(&id.len()) || !id.bytes().all(plain)) {
        return invalid_key(format!("{key}.external_id"), "2 to 1224 letters, digits and `_+=,.@:/-`");
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

fn default_retention_days() -> u32 {
    400
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redaction::tests::is_told;

    const ROLE: &str = "acs:ram::2222222222222222:role/peergate";
    const SMALLEST: &str = "[targets.prod]\naccount = \"2222222222222222\"\nregions = []\n";

    fn problem(text: &str) -> String {
        Config::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn example_config_is_valid() {
        Config::parse(include_str!("../peergate.example.toml")).unwrap();
    }

    #[test]
    fn default_endpoint_is_the_vendors() {
        let config = Config::parse(SMALLEST).unwrap();
        assert_eq!(config.targets["prod"].endpoint.as_str(), "https://vpcpeer.aliyuncs.com/");
        assert_eq!(config.targets["prod"].signature, SignatureVersion::V3);
        assert!(config.policy.rules.is_empty());
    }

    #[test]
    fn credentials_outside_the_target_account_are_refused() {
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
    fn config_error_names_the_key() {
        let slack = "[slack]\nteams = [\"T1\"]\napp = \"A1\"\n";
        let rule = &format!("{slack}[people.alice]\nprincipals = [\"slack:T1/U1\"]\n[[rule]]\nname = \"r\"\n");
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
                    "{SMALLEST}{slack}[people.a]\nprincipals = [\"slack:T1/U1\"]\n[people.b]\nprincipals = [\"slack:T1/U1\"]\n"
                ),
                "people.b.principals: slack:T1/U1 already belongs to a",
            ),
        ];
        for (text, expected) in cases {
            let problem = problem(text);
            assert!(problem.contains(expected), "{text}\n→ {problem}");
        }
    }

    /// Two workspaces, a client, two people with whatever identities, and whatever else.
    fn world(slack: &str, alice: &str, bob: &str, more: &str) -> String {
        format!(
            "{SMALLEST}[clients.ci]\n[slack]\nteams = [\"T1\", \"T2\"]\napp = \"A1\"\n{slack}\n[people.alice]\nprincipals = \
             [{alice}]\n[people.bob]\nprincipals = [{bob}]\n{more}"
        )
    }

    const BOB: &str = "\"webhook:ci/bob\"";

    #[test]
    fn legacy_slack_table_is_read_and_reported() {
        let earlier = Config::parse(&world("", "\"slack:T1/U1\"", BOB, "")).unwrap();
        let now = world("", "\"slack:T1/U1\"", BOB, "").replace("[slack]", "[platforms.slack]");
        let now = Config::parse(&now).unwrap();
        assert_eq!(
            (earlier.renamed_tables.as_slice(), now.renamed_tables.as_slice()),
            (["slack"].as_slice(), [].as_slice())
        );
        assert_eq!(format!("{:?}", earlier.platforms), format!("{:?}", now.platforms));
        let both = world("", "\"slack:T1/U1\"", BOB, "[platforms.slack]\nteams = [\"T1\"]\napp = \"A1\"\n");
        assert!(problem(&both).contains("`platforms.slack` is there, too"), "{}", problem(&both));
        let mistyped = world("aps = 1", "", BOB, "");
        assert!(problem(&mistyped).contains("platforms.slack.aps, line 8, column 1"), "{}", problem(&mistyped));
        assert!(problem(&format!("{SMALLEST}platforms = 7\n")).contains("platforms"));
        assert!(problem(&format!("platforms = 7\n{SMALLEST}[slack]\n")).contains("slack"));
    }

    #[test]
    fn impossible_principal_is_refused_wherever_it_is_named() {
        let cases = [
            ("slak:T1/U1", "slak:T1/U1 has an unknown platform: expected `slack`"),
            ("Slack:T1/U1", "Slack:T1/U1 has an unknown platform"),
            ("peergate:prod/rule", "has an unknown platform"),
            ("slack:T9/U1", "the workspace of slack:T9/U1 is not in `platforms.slack.teams`"),
            ("slack:E1/U1", "the workspace of slack:E1/U1 is not in `platforms.slack.teams`"),
            ("slack:t1/U1", "the workspace of slack:t1/U1"),
            ("slack:T1/u1", "slack:T1/u1 does not end with a user's id"),
            ("slack:T1/@alice", "slack:T1/@alice does not end with a user's id"),
            ("slack:T1/alice.smith", "slack:T1/alice.smith does not end with a user's id"),
            ("slack:T1/B1", "slack:T1/B1 does not end with a user's id"),
            ("slack:T1/U", "slack:T1/U does not end with a user's id"),
            ("webhook:nobody/zed", "the client of webhook:nobody/zed is not in [clients]"),
            ("webhook:CI/zed", "the client of webhook:CI/zed is not in [clients]"),
        ];
        let rule = "[[rule]]\nname = \"r\"\ntarget = \"prod\"\napprovals = 1\napprovers =";
        for (principal, expected) in cases {
            let quoted = format!("\"{principal}\"");
            let places = [
                ("people.alice.principals: ", world("", &format!("\"slack:T1/U7\", {quoted}"), BOB, "")),
                (
                    "rule.r.approvers: ",
                    world("", "\"slack:T1/U7\"", BOB, &format!("{rule} [\"person:bob\", {quoted}]")),
                ),
                (
                    "accounts.1.contacts: ",
                    world("", "\"slack:T1/U7\"", BOB, &format!("[accounts.1]\nname = \"a\"\ncontacts = [{quoted}]")),
                ),
            ];
            for (key, text) in places {
                let problem = problem(&text);
                assert!(problem.starts_with(key) && problem.contains(expected), "{principal}: {problem}");
            }
        }
        let without = format!("{SMALLEST}[people.a]\nprincipals = [\"slack:T1/U1\"]\n");
        assert_eq!(problem(&without), "people.a.principals: slack:T1/U1 needs the table [platforms.slack]");
        assert!(problem(&world("", "", BOB, "")).starts_with("people.alice.principals: name at least one"));
        Config::parse(&world("", "\"slack:T1/W1\"", BOB, "")).unwrap();
    }

    #[test]
    fn same_user_in_two_workspaces_is_one_person_or_refused() {
        let rule = "[[rule]]\nname = \"r\"\ntarget = \"prod\"\napprovals = 1\napprovers =";
        let twice = "\"slack:T1/W0EVE\", \"slack:T2/W0EVE\"";
        let contact = |id: &str| format!("[accounts.1]\nname = \"a\"\ncontacts = [\"slack:{id}/W0EVE\"]\n");
        let refused = [
            ("people.bob.principals: ", world("", "\"slack:T1/W0EVE\"", "\"slack:T2/W0EVE\"", "")),
            ("rule.r.approvers: ", world("", "\"slack:T1/U7\"", BOB, &format!("{rule} [{twice}]"))),
            ("rule.r.approvers: ", world("", "\"slack:T1/W0EVE\"", BOB, &format!("{rule} [\"slack:T2/W0EVE\"]"))),
            ("accounts.1.contacts: ", world("", "\"slack:T1/W0EVE\"", BOB, &contact("T2"))),
            (
                "rule.r.approvers: ",
                world("", "\"slack:T1/U7\"", BOB, &format!("{}{rule} [\"slack:T1/W0EVE\"]", contact("T2"))),
            ),
        ];
        for (key, text) in &refused {
            let problem = problem(text);
            assert!(problem.starts_with(key) && problem.contains("`platforms.slack.enterprise`"), "{problem}");
        }
        Config::parse(&world("", twice, BOB, &format!("{rule} [{twice}]\n{}", contact("T2")))).unwrap();
        // With the organization named, they are one identity.
        let enterprise = "enterprise = \"E1\"";
        let grid = world(enterprise, "\"slack:T1/W0EVE\"", "\"slack:E1/W0EVE\"", "");
        assert_eq!(problem(&grid), "people.bob.principals: slack:E1/W0EVE already belongs to alice");
        let two = world(
            enterprise,
            "\"slack:T1/U7\"",
            BOB,
            &format!("{rule} [{twice}]").replace("approvals = 1", "approvals = 2"),
        );
        assert_eq!(problem(&two), "rule.r.approvals: only 1 different people are named as approvers");
        let one = world(enterprise, twice, BOB, &format!("{rule} [\"slack:E1/W0EVE\"]\n{}", contact("T2")));
        let policy = Config::parse(&one).unwrap().policy;
        for realm in ["slack:T1", "slack:T2", "slack:E1"] {
            let eve = policy.approver_for(Principal::try_from(format!("{realm}/W0EVE")).unwrap());
            assert_eq!((eve.principal.as_str(), eve.person.as_deref()), ("slack:E1/W0EVE", Some("alice")));
        }
        for (bad, expected) in [
            ("enterprise = \"T1\"", "slack.enterprise: expected the organization's id"),
            ("enterprise = \"e1\"", "slack.enterprise: expected"),
        ] {
            assert!(problem(&world(bad, "\"slack:T1/U1\"", BOB, "")).contains(expected));
        }
        let team = world("", "\"slack:T1/U1\"", BOB, "").replace("\"T2\"", "\"E2\"");
        assert!(problem(&team).starts_with("platforms.slack.teams: expected ids of workspaces"));
    }

    #[test]
    fn rule_without_enough_non_contact_approvers_is_refused() {
        let rule = |approvals: u32, accounts: &str, approvers: &str| {
            format!(
                "[accounts.1]\nname = \"a\"\ncontacts = [\"slack:T1/U1\"]\n[[rule]]\nname = \"r\"\ntarget = \
                 \"prod\"\napprovals = {approvals}\n{accounts}approvers = [{approvers}]\nrequester_cidrs_within = [\"10.0.0.0/8\"]\n"
            )
        };
        let alice = "\"slack:T1/U1\", \"webhook:ci/alice\"";
        let both = "\"person:alice\", \"person:bob\"";
        for (approvals, accounts, approvers, expected) in [
            (
                2,
                "requester_accounts = [\"1\"]\n",
                both,
                "2 must approve, but without the contacts of account 1, only 1 of",
            ),
            (2, "requester_accounts = [\"5\", \"1\"]\n", both, "without the contacts of account 1, only 1 of"),
            (1, "requester_accounts = [\"1\"]\n", "\"webhook:ci/alice\"", "1 must approve, but without the contacts"),
            (0, "requester_accounts = [\"1\"]\n", "\"person:alice\"", "1 must approve, but without the contacts"),
            (0, "", both, "0 accepts by itself: name `requester_accounts` and `requester_cidrs_within`, too"),
        ] {
            let problem = problem(&world("", alice, BOB, &rule(approvals, accounts, approvers)));
            assert!(problem.starts_with("rule.r.approvals: ") && problem.contains(expected), "{problem}");
        }
        let anywhere =
            rule(0, "requester_accounts = [\"5\"]\n", both).replace("requester_cidrs_within = [\"10.0.0.0/8\"]", "");
        assert!(problem(&world("", alice, BOB, &anywhere)).starts_with("rule.r.approvals: 0 accepts by itself"));
        for (approvals, accounts) in [
            (1, "requester_accounts = [\"1\"]\n"),
            (2, "requester_accounts = [\"5\"]\n"),
            (2, ""),
            (0, "requester_accounts = [\"1\"]\n"),
        ] {
            Config::parse(&world("", alice, BOB, &rule(approvals, accounts, both))).unwrap();
        }
    }

    #[test]
    fn channels_with_the_same_destination_are_refused() {
        let channel = |name: &str, id: &str| format!("[channels.{name}]\nkind = \"slack\"\nchannel = \"{id}\"\n");
        let two = |one: &str, other: &str| {
            world("", "\"slack:T1/U1\"", BOB, &[channel("a", one), channel("b", other)].concat())
        };
        assert_eq!(problem(&two("C1", "C1")), "channels.b.channel: channels.a posts to the same channel");
        Config::parse(&two("C1", "C2")).unwrap();
    }

    /// Puts secrets in the place of each value and key, and where no TOML belongs: no message repeats any of them.
    #[test]
    fn config_error_never_repeats_a_secret() {
        let example = include_str!("../peergate.example.toml");
        let lines: Vec<&str> =
            example.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
        let mut refused = 0;
        for secret in [
            "xoxb-17653672481-19874698323",
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "8f742231b10e8888abcd99yyyzzz85a5",
            "LTAI5tExampleKeyId1234",
            "https://hooks.chat.test/services/T1/B1/ayo83Mkd74Ks",
        ] {
            for (at, line) in lines.iter().enumerate() {
                let (key, value) = line.split_once(" = ").unwrap_or((line, ""));
                let changed = [
                    format!("{key} = \"{secret}\""),
                    format!("{key} = [\"{secret}\"]"),
                    format!("{key} = {secret}"),
                    format!("{key} = \"{secret}"),
                    format!("{key} = {{ kind = \"{secret}\" }}"),
                    format!("{key} = {{ \"{secret}\" = 1 }}"),
                    format!("{key} = {{ kind = \"assume-role\", role = \"{secret}\" }}"),
                    format!("\"{secret}\" = {value}"),
                    format!("{secret} = {value}"),
                    format!("[\"{secret}\"]"),
                    format!("[{key}.\"{secret}\"]").replace("[[", "[").replace("].", "."),
                    format!("{line}\n{secret}"),
                    format!("{line} {secret}"),
                    format!("{line}\n\"{secret}\" = 1\n\"{secret}\" = 2"),
                    line.replacen('"', &format!("\"{secret}"), 1),
                    line.replacen("prod", secret, 1).replacen("alice", secret, 1).replacen("netops", secret, 1),
                ];
                for changed in changed {
                    let mut text = lines.clone();
                    text[at] = &changed;
                    let Err(error) = Config::parse(&text.join("\n")) else { continue };
                    refused += 1;
                    let told = format!("{error} {error:?}");
                    assert!(!is_told(secret, &told), "{changed}\n→ {told}");
                }
            }
        }
        assert!(refused > 1000, "{refused}");
    }

    #[test]
    fn parse_error_names_the_place_and_the_expectation() {
        for (text, expected) in [
            (
                "[targets.prod]\naccount = 1\n",
                "peergate.toml: targets.prod.account, line 2, column 11: invalid type, expected",
            ),
            (
                "[targets.prod]\naccuont = \"1\"\n",
                "targets.prod.accuont, line 2, column 1: unknown field, expected one of `account`",
            ),
            ("[targets.prod]\naccount = \"1\"\n", "targets.prod, line 1, column 1: missing field `regions`"),
            ("[targets.prod]\naccount = \"x\"\nregions = []", "line 2, column 11: not an account id: expected digits"),
            ("[targets.prod]\naccount = \"1\"\nregions = 7\n", "targets.prod.regions, line 3, column 11: invalid type"),
            ("[targets.prod\naccount", "peergate.toml: line 1, column 14: not TOML: "),
            ("[requests]\nstuck_after = \"soon\"\n", "requests.stuck_after, line 2, column 15: the value is not"),
        ] {
            let problem = problem(text);
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn plain_http_is_allowed_on_loopback_only() {
        for (url, secure) in [
            ("https://vpcpeer.aliyuncs.com", true),
            ("http://127.0.0.1:80", true),
            ("http://[::1]:80", true),
            ("http://localhost", true),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
            ("ftp://127.0.0.1", false),
        ] {
            assert_eq!(crate::http::is_secure(&Url::parse(url).unwrap()), secure, "{url}");
        }
    }

    #[test]
    fn environment_is_read_and_a_missing_variable_is_named() {
        let read = |set: &[(&str, &str)]| {
            Environment::from_variables(|name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
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
