//! Checks the values of `peergate.toml` that have the right form: their limits, and whether the names that they use exist.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::{ConfigFile, Target};
use crate::approval::Principal;
use crate::chat::platform::Platform;
use crate::policy::{ApproverRef, KnownAccount, Person, Policy, RequestDefaults, Rule};
use crate::redaction::{KeyProblem, redact, unknown_name};

/// A record must outlive its request. Otherwise the request would be decided again, with the old client token.
const MIN_RETENTION_DAYS: u32 = 8;
/// The longest display name of a person. Headlines show it.
const MAX_DISPLAY_NAME_CHARS: usize = 40;
/// The shortest and the longest wait of a reminder.
const MIN_WAIT: SignedDuration = SignedDuration::from_mins(1);
const MAX_WAIT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Checks that a path is one that proxies and API Gateway can put in front of ours.
fn check_base_path(path: &str) -> Result<(), KeyProblem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~$".contains(&byte);
    let is_segment = |segment: &str| !segment.is_empty() && segment.bytes().all(allowed);
    match path.strip_prefix('/') {
        None if path.is_empty() => Ok(()),
        Some(rest) if rest.split('/').all(is_segment) => Ok(()),
        Some(_) | None => {
            let problem =
                "must begin with `/` and name at least one segment of letters, digits and `-._~$`, without a final `/`";
            KeyProblem::err_at("base_path", problem)
        }
    }
}

impl ConfigFile {
    pub(super) fn validate(&self) -> Result<(), KeyProblem> {
        self.check_names()?;
        if self.retention_days < MIN_RETENTION_DAYS {
            let problem = "must be at least 8, because a request can be pending for 7 days";
            return KeyProblem::err_at("retention_days", problem);
        }
        check_base_path(&self.base_path)?;
        self.check_targets()?;
        for platform in Platform::ALL {
            platform.check_config(&self.platforms)?;
        }
        self.check_destinations()?;
        self.check_people()?;
        self.check_requests()?;
        for (position, rule) in self.rule.iter().enumerate() {
            if self.rule.iter().take(position).any(|earlier| earlier.name == rule.name) {
                return KeyProblem::err_at(format!("rule.{}", rule.name), "another rule has this name");
            }
            self.check_rule(rule)?;
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), KeyProblem> {
        let tables = [
            ("targets", self.targets.keys().collect::<Vec<_>>()),
            ("clients", self.platforms.clients().collect()),
            ("channels", self.channels.keys().collect()),
            ("people", self.people.keys().collect()),
            ("groups", self.groups.keys().collect()),
        ];
        for (table, names) in tables {
            for name in names {
                check_name(&format!("{table}.{name}"), name)?;
            }
        }
        Ok(())
    }

    fn check_targets(&self) -> Result<(), KeyProblem> {
        if self.targets.is_empty() {
            return KeyProblem::err_at("targets", "name at least one accepting account");
        }
        for (name, target) in &self.targets {
            target.validate(&format!("targets.{name}"))?;
            let is_duplicate = |(other, one): (&String, &Target)| other < name && one.account == target.account;
            if self.targets.iter().any(is_duplicate) {
                return KeyProblem::err_at(format!("targets.{name}.account"), "another target has this account");
            }
        }
        Ok(())
    }

    /// Checks the channels that an app posts to. The URLs of the other channels are in the secrets, and checked there.
    fn check_destinations(&self) -> Result<(), KeyProblem> {
        let mut names: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        for (name, channel) in &self.channels {
            let Some(id) = channel.id() else { continue };
            let key = |field: &str| format!("channels.{name}.{field}");
            if let Err(problem) = channel.check_id() {
                return KeyProblem::err_at(key(channel.id_key()), problem);
            }
            if let Some(app) = channel.missing_app(&self.platforms) {
                let problem = format!("`{}` requires the table [platforms.{app}]", channel.kind());
                return KeyProblem::err_at(key("kind"), problem);
            }
            if let Some(other) = names.insert((channel.kind(), id), name) {
                let problem = format!("channels.{} posts to the same channel", redact(other));
                return KeyProblem::err_at(key(channel.id_key()), problem);
            }
        }
        Ok(())
    }

    fn check_people(&self) -> Result<(), KeyProblem> {
        for (name, person) in &self.people {
            let key = format!("people.{name}.principals");
            if person.principals.is_empty() {
                let problem = "name at least one identity, so that somebody can act as this person";
                return KeyProblem::err_at(key, problem);
            }
            for principal in &person.principals {
                self.check_principal(&key, principal)?;
            }
            if let Some(display_name) = &person.name {
                check_display_name(&format!("people.{name}.name"), display_name)?;
                let is_taken = |(other, theirs): (&String, &Person)| {
                    other != name && (other == display_name || theirs.name.as_ref() == Some(display_name))
                };
                if self.people.iter().any(is_taken) {
                    return KeyProblem::err_at(format!("people.{name}.name"), "another person has this name");
                }
            }
        }
        for (group, people) in &self.groups {
            if let Some(unknown) = people.iter().find(|person| !self.people.contains_key(*person)) {
                let problem = unknown_name("person", unknown, self.people.keys().map(String::as_str));
                return KeyProblem::err_at(format!("groups.{group}"), problem);
            }
        }
        Ok(())
    }

    fn check_requests(&self) -> Result<(), KeyProblem> {
        for (account, KnownAccount { name, contacts, channels }) in &self.accounts {
            let key = |field: &str| format!("accounts.{account}.{field}");
            if name.trim().is_empty() {
                return KeyProblem::err_at(key("name"), "give the account a name");
            }
            self.check_approvers(&key("contacts"), contacts)?;
            self.check_channels(&key("channels"), channels)?;
            let is_for_programs =
                |name: &&String| self.channels.get(*name).is_some_and(|channel| !channel.capabilities().is_for_people);
            if let Some(name) = channels.iter().find(is_for_programs) {
                let problem = format!("channels.{} is for programs, which get the whole record", redact(name));
                return KeyProblem::err_at(key("channels"), problem);
            }
        }
        let RequestDefaults { channels, remind_after, expiry_notice, stuck_after } = &self.requests;
        self.check_channels("requests.channels", channels)?;
        check_wait("requests.remind_after", remind_after)?;
        check_wait("requests.expiry_notice", expiry_notice)?;
        check_wait("requests.stuck_after", stuck_after)
    }

    /// Refuses a principal that can send no request.
    fn check_principal(&self, key: &str, principal: &Principal) -> Result<(), KeyProblem> {
        let Some(platform) = Platform::from_principal(principal) else {
            let known: Vec<_> = Platform::ALL.iter().map(|platform| format!("`{}`", platform.realm())).collect();
            let id = redact(principal.as_str());
            let problem = format!("{id} has an unknown platform: expected {}", known.join(" or "));
            return KeyProblem::err_at(key, problem);
        };
        platform.check_principal(&self.platforms, principal).or_else(|problem| KeyProblem::err_at(key, problem))
    }

    fn check_approvers(&self, key: &str, approvers: &[ApproverRef]) -> Result<(), KeyProblem> {
        for approver in approvers {
            match approver {
                ApproverRef::Person(name) if !self.people.contains_key(name) => {
                    let problem = unknown_name("person", name, self.people.keys().map(String::as_str));
                    return KeyProblem::err_at(key, problem);
                }
                ApproverRef::Group(name) if !self.groups.contains_key(name) => {
                    let problem = unknown_name("group", name, self.groups.keys().map(String::as_str));
                    return KeyProblem::err_at(key, problem);
                }
                ApproverRef::Principal(principal) => self.check_principal(key, principal)?,
                ApproverRef::Person(_) | ApproverRef::Group(_) => {}
            }
        }
        Ok(())
    }

    fn check_channels(&self, key: &str, channels: &[String]) -> Result<(), KeyProblem> {
        match channels.iter().find(|channel| !self.channels.contains_key(*channel)) {
            Some(unknown) => {
                KeyProblem::err_at(key, unknown_name("channel", unknown, self.channels.keys().map(String::as_str)))
            }
            None => Ok(()),
        }
    }

    fn check_rule(&self, rule: &Rule) -> Result<(), KeyProblem> {
        let key = |field: &str| format!("rule.{}.{field}", rule.name);
        if !self.targets.contains_key(&rule.target) {
            let problem = unknown_name("target", &rule.target, self.targets.keys().map(String::as_str));
            return KeyProblem::err_at(key("target"), problem);
        }
        if rule.approvers.is_empty() && rule.approvals > 0 {
            return KeyProblem::err_at(key("approvers"), "name at least one approver");
        }
        let empty = [
            ("requester_accounts", rule.requester_accounts.as_ref().is_some_and(Vec::is_empty)),
            ("requester_regions", rule.requester_regions.as_ref().is_some_and(Vec::is_empty)),
            ("requester_cidrs_within", rule.requester_cidrs_within.as_ref().is_some_and(Vec::is_empty)),
            ("accepting_vpcs", rule.accepting_vpcs.as_ref().is_some_and(Vec::is_empty)),
        ];
        if let Some((field, _)) = empty.into_iter().find(|(_, is_empty)| *is_empty) {
            return KeyProblem::err_at(key(field), "an empty list matches nothing: fill it, or remove the key");
        }
        self.check_approvers(&key("approvers"), &rule.approvers)?;
        let is_narrow = rule.requester_accounts.is_some() && rule.requester_cidrs_within.is_some();
        if rule.approvals == 0 && !is_narrow {
            let problem = "a rule with 0 approvals accepts without people, so it requires `requester_accounts` and \
                           `requester_cidrs_within`";
            return KeyProblem::err_at(key("approvals"), problem);
        }
        self.check_channels(&key("channels"), &rule.channels)?;
        self.check_channels(&key("escalate_to"), &rule.escalate_to)?;
        if rule.escalate_after.is_some() == rule.escalate_to.is_empty() {
            return KeyProblem::err_at(key("escalate_after"), "`escalate_after` and `escalate_to` require each other");
        }
        for (field, wait) in [("remind_after", rule.remind_after), ("escalate_after", rule.escalate_after)] {
            wait.map_or(Ok(()), |wait| check_wait(&key(field), &wait))?;
        }
        Ok(())
    }
}

/// Refuses a display name that could look like something else in a sentence.
fn check_display_name(key: &str, name: &str) -> Result<(), KeyProblem> {
    let is_plain = |c: char| c.is_alphanumeric() || " -.'’".contains(c);
    if (1..=MAX_DISPLAY_NAME_CHARS).contains(&name.chars().count()) && name.trim() == name && name.chars().all(is_plain)
    {
        return Ok(());
    }
    KeyProblem::err_at(key, "must have 1 to 40 letters, digits, spaces and `-.'`, and no space at an end")
}

fn check_name(key: &str, name: &str) -> Result<(), KeyProblem> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=40).contains(&name.len()) && name.bytes().all(is_allowed) {
        Ok(())
    } else {
        KeyProblem::err_at(key, "a name must have 1 to 40 lower-case letters, digits and `-`")
    }
}

fn check_wait(key: &str, wait: &SignedDuration) -> Result<(), KeyProblem> {
    if (MIN_WAIT..=MAX_WAIT).contains(wait) {
        Ok(())
    } else {
        KeyProblem::err_at(key, "a wait must be 1m to 168h, e.g. `4h` or `90m`")
    }
}

/// Checks what only the whole policy shows: that nobody counts twice, and that each rule has enough approvers.
pub(super) fn check_policy(policy: &Policy) -> Result<(), KeyProblem> {
    let owners = identity_owners(policy)?;
    check_users_unique(policy, &owners)?;
    policy.rules.iter().try_for_each(|rule| check_rule_satisfiable(policy, rule))
}

/// The person of each identity. An identity must belong to one person only.
fn identity_owners(policy: &Policy) -> Result<BTreeMap<Principal, &str>, KeyProblem> {
    let mut owners: BTreeMap<Principal, &str> = BTreeMap::new();
    for (name, person) in &policy.people {
        for principal in &person.principals {
            let earlier = owners.insert(policy.canonical_principal(principal).into_owned(), name);
            if let Some(other) = earlier.filter(|other| other != name) {
                let problem = format!("{} already belongs to {}", redact(principal.as_str()), redact(other));
                return KeyProblem::err_at(format!("people.{name}.principals"), problem);
            }
        }
    }
    Ok(owners)
}

/// On some platforms, a user has the same id in all tenants. Two identities of such a user must belong to one person.
fn check_users_unique(policy: &Policy, owners: &BTreeMap<Principal, &str>) -> Result<(), KeyProblem> {
    let mut users: BTreeMap<(&str, &str), &Principal> = BTreeMap::new();
    for NamedPrincipal { key, principal } in named_principals(policy) {
        let Some(platform) = Platform::from_principal(principal) else { continue };
        let Some(advice) = platform.users_span_tenants() else { continue };
        let user = (platform.realm(), principal.user());
        let Some(earlier) = users.get(&user) else {
            users.insert(user, principal);
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
            return KeyProblem::err_at(key, problem);
        }
    }
    Ok(())
}

/// A principal, and the key of the file that names it.
struct NamedPrincipal<'a> {
    key: String,
    principal: &'a Principal,
}

/// All principals that the file names.
fn named_principals(policy: &Policy) -> Vec<NamedPrincipal<'_>> {
    let mut named = vec![];
    for (name, person) in &policy.people {
        let key = format!("people.{name}.principals");
        named.extend(person.principals.iter().map(|principal| NamedPrincipal { key: key.clone(), principal }));
    }
    let contacts = policy.accounts.iter().map(|(id, account)| (format!("accounts.{id}.contacts"), &account.contacts));
    let rules = policy.rules.iter().map(|rule| (format!("rule.{}.approvers", rule.name), &rule.approvers));
    for (key, approvers) in contacts.chain(rules) {
        for approver in approvers {
            match approver {
                ApproverRef::Principal(principal) => named.push(NamedPrincipal { key: key.clone(), principal }),
                ApproverRef::Person(_) | ApproverRef::Group(_) => {}
            }
        }
    }
    named
}

/// A rule must have enough approvers, and for each of its accounts enough who are not contacts of the account.
fn check_rule_satisfiable(policy: &Policy, rule: &Rule) -> Result<(), KeyProblem> {
    let key = format!("rule.{}.approvals", rule.name);
    let needed = rule.needed_approvers();
    let people = policy.approvers_of(rule, None).len();
    if needed > people {
        return KeyProblem::err_at(key, format!("the rule names only {people} different people as approvers"));
    }
    for account in rule.requester_accounts.iter().flatten() {
        let left = policy.approvers_of(rule, Some(*account)).len();
        if needed > left {
            let problem = format!(
                "the rule requires {needed} approvers, but only {left} of its approvers are not contacts of account \
                 {account}"
            );
            return KeyProblem::err_at(key, problem);
        }
    }
    Ok(())
}
