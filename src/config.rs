//! The operator's configuration: the environment of the process, and `peergate.toml`. It is read once, at start.
//!
//! It contains no secrets. Those are in [`crate::secrets`].

mod environment;
mod place;
mod target;
mod validate;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use environment::{Environment, SecretsSource};
pub use target::{CredentialsKind, Target, is_region};

use crate::approval::InvalidPrincipal;
use crate::chat::platform::{self, Channel, Platform};
use crate::document::{TextPlace, decode_text};
use crate::peering::{AccountId, InvalidAccountId};
use crate::policy::{KnownAccount, Person, Policy, RequestDefaults, Rule};
use crate::redaction::{self, KeyProblem};
use place::Located;

/// Keys whose values are parsed by other crates, and what these expect. Their own messages quote the value.
const FORMS: [(&str, &str); 6] = [
    ("endpoint", "a URL, e.g. `https://vpcpeer.aliyuncs.com/`"),
    ("api", "a URL that ends with a slash, e.g. `https://api.example.com/`"),
    ("response_origins", "a list of URLs, e.g. `https://hooks.example.com/`"),
    ("cidrs_within", "a CIDR block, e.g. `10.0.0.0/8`"),
    ("_after", "a duration, e.g. `4h` or `90m`"),
    ("expiry_notice", "a duration, e.g. `24h`"),
];

/// The content of `peergate.toml`, checked. `peergate.example.toml` describes each key.
#[derive(Debug, Clone)]
pub struct Config {
    /// The accepting accounts, by name.
    pub targets: BTreeMap<String, Target>,
    /// The apps on chat platforms, and the clients of `/webhook/{client}`.
    pub platforms: platform::AppConfigs,
    /// The channels that get notifications, by name.
    pub channels: BTreeMap<String, Channel>,
    /// Who may decide about which connection.
    pub policy: Policy,
    /// How long the record of a finished approval is kept.
    pub retention: SignedDuration,
    /// The path in front of every path of the webhook, e.g. `/peergate`. Empty if there is none.
    pub base_path: String,
    /// The tables with a name that only earlier versions used.
    pub renamed_tables: Vec<&'static str>,
}

#[derive(Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    /// The accepting accounts, by name.
    #[serde(default)]
    targets: BTreeMap<String, Target>,
    /// The programs that may post to `/webhook/NAME`, by name.
    #[serde(default)]
    clients: platform::ClientConfigs,
    /// The apps on chat platforms.
    #[serde(default)]
    platforms: platform::AppConfigs,
    /// Where notifications go, by name.
    #[serde(default)]
    channels: BTreeMap<String, Channel>,
    /// People with all their identities, by name.
    #[serde(default)]
    people: BTreeMap<String, Person>,
    /// Names of people, by the name of the group.
    #[serde(default)]
    groups: BTreeMap<String, BTreeSet<String>>,
    /// Accounts that request peerings, by account id.
    #[serde(default)]
    accounts: BTreeMap<AccountId, KnownAccount>,
    /// Defaults for all requests.
    #[serde(default)]
    requests: RequestDefaults,
    /// Who decides about which requests. The first matching rule applies.
    #[serde(default)]
    rule: Vec<Rule>,
    /// How long the record of a finished approval is kept, in days.
    #[serde(default = "default_retention_days")]
    retention_days: u32,
    /// The path in front of every path of the webhook, e.g. `/peergate`. Empty if there is none.
    #[serde(default)]
    base_path: String,
    #[serde(skip)]
    renamed_tables: Vec<&'static str>,
}

fn default_retention_days() -> u32 {
    400
}

/// What is wrong with the environment or the configuration. Each text names the variable, or the file, its line and the key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A required environment variable is missing or empty.
    #[error("environment variable {name} is not set: expected {expected}")]
    MissingVariable {
        /// The name of the variable.
        name: &'static str,
        /// What it must have.
        expected: &'static str,
    },
    /// An environment variable has a value of the wrong form.
    #[error("environment variable {name} is malformed: expected {expected}, found {found}")]
    MalformedVariable {
        /// The name of the variable.
        name: &'static str,
        /// What it must have.
        expected: &'static str,
        /// What it has, without secrets.
        found: String,
    },
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file is not TOML, or a key in it is unknown, missing, mistyped or wrong.
    #[error("{path}: {message}")]
    Invalid {
        /// The path of the file.
        path: PathBuf,
        /// The key, its place, what was expected there, and what was found.
        message: String,
    },
}

impl Config {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let text = decode_text(&bytes).map_err(|problem| problem.to_string());
        text.and_then(Self::parse_text).map_err(|message| Error::Invalid { path: path.into(), message })
    }

    /// Checks the text of a file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::parse_text(text).map_err(|message| Error::Invalid { path: "peergate.toml".into(), message })
    }

    /// Checks the text of a file.
    ///
    /// # Errors
    /// The key, its place, what was expected there, and what was found. Of values, the message repeats only what cannot be
    /// a secret.
    fn parse_text(text: &str) -> Result<Self, String> {
        let file = ConfigFile::parse(text)?;
        Self::from_file(file).map_err(|problem| describe_problem(text, &problem, "", None))
    }

    fn from_file(mut file: ConfigFile) -> Result<Self, KeyProblem> {
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
            routed_targets: file.targets.iter().filter(|(_, it)| it.read_vpcs).map(|(name, _)| name.clone()).collect(),
        };
        validate::check_policy(&policy)?;
        Ok(Self {
            targets: file.targets,
            platforms: file.platforms,
            channels: file.channels,
            policy,
            renamed_tables: file.renamed_tables,
            retention: SignedDuration::from_hours(i64::from(file.retention_days) * 24),
            base_path: file.base_path,
        })
    }

    /// The form of the file, as a JSON Schema.
    #[cfg(feature = "local")]
    #[must_use]
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(ConfigFile)
    }

    /// The target with this name; without a name, the only target.
    #[must_use]
    pub fn find_target(&self, name: Option<&str>) -> Option<(&str, &Target)> {
        let entry = match name {
            Some(name) => self.targets.get_key_value(name),
            None => self.targets.first_key_value().filter(|_| self.targets.len() == 1),
        };
        entry.map(|(name, target)| (name.as_str(), target))
    }
}

impl ConfigFile {
    /// Parses the text.
    ///
    /// # Errors
    /// See [`Config::parse_text`].
    fn parse(text: &str) -> Result<Self, String> {
        let mut table = DeTable::parse(text).map_err(|error| describe_malformed(text, &error))?;
        let renamed_tables = rename_tables(table.get_mut()).map_err(|name| {
            let (key, problem) = (name.to_owned(), format!("`platforms.{name}` exists, too"));
            describe_problem(text, &KeyProblem { key, problem }, "", None)
        })?;
        let document = toml::Deserializer::from(table);
        let ours = [InvalidPrincipal.to_string(), InvalidAccountId.to_string()];
        let file = Self::deserialize(document).map_err(|error| {
            let document = parse_renamed(text);
            let key = error.span().zip(document).map(|(span, document)| place::key_at(document.get_ref(), &span));
            let key = key.unwrap_or_default();
            let message = error.message();
            let form = FORMS.iter().find(|(name, _)| key.rsplit('.').next().unwrap_or_default().contains(name));
            let problem = match (redaction::describe_expected(message, &ours), form) {
                (problem, Some((_, expected))) if problem == redaction::UNKNOWN_FORM => format!("expected {expected}"),
                (problem, _) => problem,
            };
            let at = error.span().map(|span| TextPlace::of(text, span.start));
            describe_problem(text, &KeyProblem { key, problem }, message, at)
        })?;
        Ok(Self { renamed_tables, ..file })
    }
}

/// What is not TOML, and where. The messages of the TOML parser are constants.
fn describe_malformed(text: &str, error: &toml::de::Error) -> String {
    let span = error.span().unwrap_or_default();
    let message = error.message();
    let repeated = text.get(span.clone()).filter(|_| message == "duplicate key");
    let repeated = repeated.map(|key| format!(" {}", redaction::redact_value(key))).unwrap_or_default();
    format!("{}: not TOML: {message}{repeated}", TextPlace::of(text, span.start))
}

/// Names the key, its place, the problem, and the value that was found there. `message` is serde's, and `at` the place that
/// serde named.
fn describe_problem(text: &str, problem: &KeyProblem, message: &str, at: Option<TextPlace>) -> String {
    let document = parse_renamed(text);
    let located = document.and_then(|document| place::locate(text, document.get_ref(), &problem.key, message));
    let Some(Located { key, place, found }) = located else {
        let place = at.map(|at| format!(", {at}")).unwrap_or_default();
        return format!("{}{place}: {}", problem.key, problem.problem);
    };
    // serde names the place of an unknown key. A value in a table with a `kind` is found only here.
    let place = if key == problem.key { at.unwrap_or(place) } else { place };
    let problem = problem.problem.as_str();
    // Other problems name the value, or are about something else.
    let is_about_value = message.is_empty() && (problem.starts_with("expected ") || problem.contains("must "));
    let is_form = !message.is_empty() && !message.starts_with("unknown ");
    let expected = match found {
        Some(found) if is_form || is_about_value && !problem.contains("found ") => {
            let without = problem.split_once(", found ").map_or(problem, |(expected, _)| expected);
            format!("{without}, found {found}")
        }
        Some(_) | None => problem.to_owned(),
    };
    format!("{key}, {place}: {expected}")
}

/// The document with its tables in their present places, if that is possible. `None` if it is not TOML.
fn parse_renamed(text: &str) -> Option<Spanned<DeTable<'_>>> {
    let parsed = || DeTable::parse(text).ok();
    let renamed = parsed().and_then(|mut document| rename_tables(document.get_mut()).is_ok().then_some(document));
    renamed.or_else(parsed)
}

/// Moves the tables of apps, which earlier versions had at the top level, to `platforms`. Returns their names.
///
/// # Errors
/// The name of a table that is in both places.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alicloud::sign::SignatureVersion;
    use crate::approval::Principal;
    use crate::redaction::tests::is_leaked;

    const ROLE: &str = "acs:ram::2222222222222222:role/peergate";
    const SMALLEST: &str = "[targets.prod]\naccount = \"2222222222222222\"\nregions = []\n";

    /// The problem without the file, the place and the value that was found.
    fn problem(text: &str) -> String {
        let whole = Config::parse(text).unwrap_err().to_string();
        let without_file = whole.strip_prefix("peergate.toml: ").unwrap_or_else(|| panic!("{whole}"));
        let (key, problem) = without_file.split_once(": ").unwrap();
        let key = key.split(", line ").next().unwrap();
        let problem = problem.rsplit_once(", found ").map_or(problem, |(problem, _)| problem);
        if key.starts_with("line ") { problem.to_owned() } else { format!("{key}: {problem}") }
    }

    #[test]
    fn example_config_is_valid() {
        Config::parse(include_str!("../peergate.example.toml")).unwrap();
    }

    #[test]
    fn error_about_an_element_of_a_list_names_the_element() {
        let rule = "[[rule]]\nname = \"a\"\ntarget = \"prod\"\n";
        let whole = "[[rule]]\nname = \"b\"\ntarget = \"prod\"\napprovals = 1\napprovers = []\n";
        assert!(problem(&format!("{SMALLEST}{rule}")).starts_with("rule[0]: missing field"));
        assert!(problem(&format!("{SMALLEST}{whole}{rule}")).starts_with("rule[1]: missing field"));
        assert!(problem(&format!("slack.teams = [\"T1\"]\n{SMALLEST}")).starts_with("platforms.slack: missing field"));
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
    fn display_names_are_plain_and_unique() {
        let slack = "[slack]\nteams = [\"T1\"]\napp = \"A1\"\n";
        let cases = [
            (
                &format!("{SMALLEST}{slack}[people.a]\nprincipals = [\"slack:T1/U1\"]\nname = \"Eve <!channel>\"\n"),
                "people.a.name: must have 1 to 40 letters",
            ),
            (
                &format!("{SMALLEST}{slack}[people.a]\nprincipals = [\"slack:T1/U1\"]\nname = \" \"\n"),
                "people.a.name: must have 1 to 40 letters",
            ),
            (
                &format!(
                    "{SMALLEST}{slack}[people.a]\nprincipals = [\"slack:T1/U1\"]\nname = \"b\"\n[people.b]\nprincipals = [\"slack:T1/U2\"]\n"
                ),
                "people.a.name: another person has this name",
            ),
        ];
        for (text, expected) in cases {
            let problem = problem(text);
            assert!(problem.contains(expected), "{text}\n→ {problem}");
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
            ("[targets.Prod]\naccount = \"1\"\nregions = []\n", "targets.Prod: a name must"),
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
            (&format!("{SMALLEST}calls_per_minute = 0\n"), "calls_per_minute: must be at least 1"),
            (&format!("retention_days = 7\n{SMALLEST}"), "retention_days: must be at least 8"),
            (&format!("base_path = \"peergate\"\n{SMALLEST}"), "base_path: must begin with `/`"),
            (&format!("base_path = \"/peergate/\"\n{SMALLEST}"), "base_path: must begin with `/`"),
            (&format!("base_path = \"/\"\n{SMALLEST}"), "base_path: must begin with `/`"),
            (&format!("base_path = \"/a//b\"\n{SMALLEST}"), "base_path: must begin with `/`"),
            (&format!("base_path = \"/a b\"\n{SMALLEST}"), "base_path: must begin with `/`"),
            (&format!("base_path = \"/a?b\"\n{SMALLEST}"), "base_path: must begin with `/`"),
            (&format!("base_path = 1\n{SMALLEST}"), "base_path"),
            (&format!("{SMALLEST}[people.a]\nprincipals = [\"slack:T1\"]\n"), "principals"),
            (
                &format!("{SMALLEST}{rule}target = \"dev\"\napprovals = 1\napprovers = [\"person:alice\"]\n"),
                "rule.r.target",
            ),
            (
                &format!(
                    "{SMALLEST}{rule}target = \"prod\"\napprovals = 2\napprovers = [\"person:alice\", \"slack:T1/U1\"]\n"
                ),
                "rule.r.approvals: the rule names only 1 different people",
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
                "rule.r.remind_after: a wait must",
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
        assert!(problem(&both).contains("`platforms.slack` exists, too"), "{}", problem(&both));
        let mistyped = world("aps = 1", "", BOB, "");
        let mistyped = Config::parse(&mistyped).unwrap_err().to_string();
        assert!(mistyped.contains("platforms.slack.aps, line 8, column 1: unknown field `aps`"), "{mistyped}");
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
        assert_eq!(problem(&two), "rule.r.approvals: the rule names only 1 different people as approvers");
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
                "the rule requires 2 approvers, but only 1 of its approvers are not contacts of account 1",
            ),
            (2, "requester_accounts = [\"5\", \"1\"]\n", both, "only 1 of its approvers are not contacts of account 1"),
            (
                1,
                "requester_accounts = [\"1\"]\n",
                "\"webhook:ci/alice\"",
                "the rule requires 1 approvers, but only 0 of its approvers are not contacts",
            ),
            (
                0,
                "requester_accounts = [\"1\"]\n",
                "\"person:alice\"",
                "the rule requires 1 approvers, but only 0 of its approvers are not contacts",
            ),
            (0, "", both, "a rule with 0 approvals accepts without people"),
        ] {
            let problem = problem(&world("", alice, BOB, &rule(approvals, accounts, approvers)));
            assert!(problem.starts_with("rule.r.approvals: ") && problem.contains(expected), "{problem}");
        }
        let anywhere =
            rule(0, "requester_accounts = [\"5\"]\n", both).replace("requester_cidrs_within = [\"10.0.0.0/8\"]", "");
        assert!(problem(&world("", alice, BOB, &anywhere)).starts_with("rule.r.approvals: a rule with 0 approvals"));
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
                    let shown = format!("{error} {error:?}");
                    assert!(!is_leaked(secret, &shown), "{changed}\n→ {shown}");
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
                "peergate.toml: targets.prod.account, line 2, column 11: expected a string, found 1",
            ),
            (
                "[targets.prod]\naccuont = \"1\"\n",
                "targets.prod.accuont, line 2, column 1: unknown field `accuont`, expected one of `account`",
            ),
            ("[targets.prod]\naccount = \"1\"\n", "targets.prod, line 1, column 1: missing field `regions`"),
            (
                "[targets.prod]\naccount = \"x\"\nregions = []",
                "line 2, column 11: not an account id: expected digits, as text, found \"x\"",
            ),
            (
                "[targets.prod]\naccount = \"1\"\nregions = 7\n",
                "targets.prod.regions, line 3, column 11: expected a list, found 7",
            ),
            ("[targets.prod\naccount", "peergate.toml: line 1, column 14: not TOML: "),
            ("[requests]\nstuck_after = \"soon\"\n", "requests.stuck_after, line 2, column 15: expected a duration"),
        ] {
            let problem = Config::parse(text).unwrap_err().to_string();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
