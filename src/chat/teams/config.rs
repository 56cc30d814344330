//! The configuration of Teams: `[platforms.teams]`, the secret `platforms.teams`, and channels. It also says to which hosts
//! the bot's token may be sent.

use serde::Deserialize;
use url::Url;

use super::{CARD_CAPABILITIES, InvalidClientSecret, Secrets, WORKFLOW_CAPABILITIES, is_guid, is_teams_id};
use crate::approval::Principal;
use crate::chat::MergedTenant;
use crate::chat::{Capabilities, ChannelSecrets, RequestSigner};
use crate::http::{check_endpoint, constant_url, is_secure};
use crate::redaction::{KeyProblem, redact, redact_value};

/// The most conversations of the configuration. For each of them, the table has two notes.
const MAX_CONVERSATIONS: usize = 100;

/// The cloud of the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "TeamsCloud"))]
#[serde(rename_all = "kebab-case")]
pub enum Cloud {
    /// All countries, and GCC.
    Public,
    /// `GCC High` and `DoD` of the US government.
    UsGov,
    /// China, operated by 21Vianet.
    China,
}

/// The addresses of a cloud.
struct CloudAddresses {
    /// Where the bot gets its token.
    login: &'static str,
    /// Who issues the tokens of requests.
    issuer: &'static str,
    /// The document that names the keys of requests.
    metadata: &'static str,
    /// What the bot's token is for.
    scope: &'static str,
    /// The hosts that a `serviceUrl` may have.
    service_hosts: &'static [&'static str],
}

impl Cloud {
    /// Source: <https://learn.microsoft.com/en-us/azure/bot-service/rest-api/bot-framework-rest-connector-authentication> and
    /// <https://microsoft.github.io/teams-sdk/python/essentials/app-configuration/service-url-validation>
    fn addresses(self) -> CloudAddresses {
        match self {
            Self::Public => CloudAddresses {
                login: "https://login.microsoftonline.com/",
                issuer: "https://api.botframework.com",
                metadata: "https://login.botframework.com/v1/.well-known/openidconfiguration",
                scope: "https://api.botframework.com/.default",
                service_hosts: &[
                    "smba.trafficmanager.net",
                    "smba.onyx.prod.teams.trafficmanager.net",
                    "smba.infra.gcc.teams.microsoft.com",
                ],
            },
            Self::UsGov => CloudAddresses {
                login: "https://login.microsoftonline.us/",
                issuer: "https://api.botframework.us",
                metadata: "https://login.botframework.azure.us/v1/.well-known/openidconfiguration",
                scope: "https://api.botframework.us/.default",
                service_hosts: &["smba.infra.gov.teams.microsoft.us", "smba.infra.dod.teams.microsoft.us"],
            },
            Self::China => CloudAddresses {
                login: "https://login.partner.microsoftonline.cn/",
                issuer: "https://api.botframework.azure.cn",
                metadata: "https://login.botframework.azure.cn/v1/.well-known/openidconfiguration",
                scope: "https://api.botframework.azure.cn/.default",
                service_hosts: &["frontend.botapi.msg.infra.teams.microsoftonline.cn"],
            },
        }
    }

    /// Who issues the tokens of requests, e.g. `https://api.botframework.com`.
    #[must_use]
    pub fn issuer(self) -> &'static str {
        self.addresses().issuer
    }

    /// What the bot's token is for, e.g. `https://api.botframework.com/.default`.
    #[must_use]
    pub fn scope(self) -> &'static str {
        self.addresses().scope
    }
}

/// The bot that posts cards and receives clicks.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "TeamsApp"))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The id of the app in Entra (its client id), a GUID in lower case.
    pub app: String,
    /// The id of the only tenant whose people may decide, a GUID in lower case.
    pub tenant: String,
    /// The cloud of the tenant.
    pub cloud: Cloud,
    /// The teams, channels and chats whose people are answered, by id (`19:…`). One-to-one chats with the bot need none.
    pub conversations: Vec<String>,
    /// Hosts that a `serviceUrl` may have besides those of the cloud. In tests, also an address on loopback with its port.
    #[serde(default)]
    pub service_hosts: Vec<String>,
    /// Replaces the URL where the bot gets its token in tests. Ends with a slash.
    pub login: Option<Url>,
    /// Replaces the URL of the document that names the keys of requests in tests.
    pub keys: Option<Url>,
}

impl Config {
    /// Where the bot gets its token.
    ///
    /// Source: <https://learn.microsoft.com/en-us/azure/bot-service/rest-api/bot-framework-rest-connector-authentication>
    #[must_use]
    pub fn token_url(&self) -> Url {
        let mut url = self.login.clone().unwrap_or_else(|| constant_url(self.cloud.addresses().login));
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend([self.tenant.as_str(), "oauth2", "v2.0", "token"]);
        }
        url
    }

    /// The document that names the keys of requests.
    #[must_use]
    pub fn metadata_url(&self) -> Url {
        self.keys.clone().unwrap_or_else(|| constant_url(self.cloud.addresses().metadata))
    }

    /// The URL of a `serviceUrl`. `None` if the bot's token must not be sent there: the host must be exactly one that is known.
    #[must_use]
    pub fn parse_service_url(&self, text: &str) -> Option<Url> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\@".contains(&byte));
        let url = Url::parse(text).ok().filter(|_| is_plain && text.len() <= 512)?;
        let host = url.host_str()?;
        let is_bare = url.query().is_none() && url.fragment().is_none() && !url.cannot_be_a_base();
        let known = self.cloud.addresses().service_hosts;
        let is_known = known.contains(&host) || self.service_hosts.iter().any(|allowed| allowed == host);
        let is_service = url.scheme() == "https" && url.port().is_none() && is_known;
        let with_port = url.port().map(|port| format!("{host}:{port}"));
        let is_local = is_loopback(&url) && with_port.is_some_and(|address| self.service_hosts.contains(&address));
        (is_bare && (is_service || is_local)).then_some(url)
    }

    /// Whether people of this team, channel or chat are answered.
    pub(super) fn has_conversation(&self, id: &str) -> bool {
        self.conversations.iter().any(|known| known == id)
    }
}

/// Whether a URL is http on this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    url.scheme() == "http" && is_secure(url)
}

/// A channel of kind `teams`: a channel of a team, or a group chat, that our bot posts cards to.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "TeamsChannel"))]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The id of the channel or chat (`19:…`).
    pub conversation: String,
}

/// A channel of kind `teams-workflow`: a workflow that posts what it receives. It receives no clicks.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "TeamsWorkflowChannel"))]
#[serde(deny_unknown_fields)]
pub struct WorkflowChannel {}

/// How the errors about the form of a secret begin.
pub(in crate::chat) fn secret_format_hints() -> Vec<String> {
    vec![InvalidClientSecret::HINT.to_owned()]
}

/// Checks the table of the configuration.
pub(in crate::chat) fn check_config(config: &Config) -> Result<(), KeyProblem> {
    for (key, id) in [("app", &config.app), ("tenant", &config.tenant)] {
        if !is_guid(id) {
            let expected = "expected a GUID in lower case, e.g. 50703947-19f8-4dd8-af0e-60d29681f7c0";
            return KeyProblem::err_at(format!("platforms.teams.{key}"), expected);
        }
    }
    let (count, key) = (config.conversations.len(), "platforms.teams.conversations");
    if !(1..=MAX_CONVERSATIONS).contains(&count) {
        let expected = format!("name 1 to {MAX_CONVERSATIONS} teams, channels or chats, found {count}");
        return KeyProblem::err_at(key, expected);
    }
    if let Some(id) = config.conversations.iter().find(|id| !is_conversation_id(id)) {
        let expected = "expected ids of teams, channels or chats, e.g. 19:0123abcd@thread.tacv2";
        return KeyProblem::err_at(key, format!("{expected}; found {}", redact_value(id)));
    }
    if let Some(host) = config.service_hosts.iter().find(|host| !is_service_host(host)) {
        let expected = "expected hosts, e.g. smba.trafficmanager.net, or addresses on loopback with their ports";
        return KeyProblem::err_at(
            "platforms.teams.service_hosts",
            format!("{expected}; found {}", redact_value(host)),
        );
    }
    if let Some(keys) = &config.keys {
        check_endpoint("platforms.teams.keys", keys)?;
    }
    let Some(login) = &config.login else { return Ok(()) };
    check_endpoint("platforms.teams.login", login)?;
    if login.path().ends_with('/') {
        Ok(())
    } else {
        KeyProblem::err_at("platforms.teams.login", "expected a URL that ends with a slash")
    }
}

/// Whether a text is the id of a team, channel or group chat, without the id of a message after `;`.
fn is_conversation_id(id: &str) -> bool {
    id.strip_prefix("19:").is_some_and(|rest| !rest.is_empty()) && is_teams_id(id)
}

/// Whether a text is a host in the form that URLs have, or an address on loopback with its port.
fn is_service_host(text: &str) -> bool {
    let is_host = |url: Url| url.host_str() == Some(text) && url.path() == "/" && text.contains('.');
    let is_local = |url: Url| {
        let address = url.host_str().zip(url.port()).map(|(host, port)| format!("{host}:{port}"));
        is_loopback(&url) && address.as_deref() == Some(text)
    };
    Url::parse(&format!("https://{text}/")).is_ok_and(is_host)
        || Url::parse(&format!("http://{text}/")).is_ok_and(is_local)
}

/// Checks the table of the secrets.
pub(in crate::chat) fn check_secrets(_config: &Config, secrets: &Secrets) -> Result<(), KeyProblem> {
    match secrets.client_secrets.len() {
        1..=4 => Ok(()),
        found => {
            let expected = format!("expected 1 to 4 client secrets, found {found}");
            KeyProblem::err_at("platforms.teams.client_secrets", expected)
        }
    }
}

/// Refuses a principal that can send no request.
pub(in crate::chat) fn check_principal(config: Option<&Config>, principal: &Principal) -> Result<(), String> {
    let tenant = principal.realm().split_once(':').map_or("", |(_, tenant)| tenant);
    // A GUID has the form of a secret, but is none.
    let is_shown = is_guid(&tenant.to_ascii_lowercase()) && is_guid(&principal.user().to_ascii_lowercase());
    let id = if is_shown { principal.as_str().into() } else { redact(principal.as_str()) };
    match config {
        None => Err(format!("{id} needs the table [platforms.teams]")),
        Some(config) if config.tenant != tenant => Err(format!("the tenant of {id} is not `platforms.teams.tenant`")),
        Some(_) if !is_guid(principal.user()) => Err(format!(
            "{id} does not end with a user's object id, a GUID in lower case; names and addresses can be changed"
        )),
        Some(_) => Ok(()),
    }
}

/// An app has one tenant.
pub(in crate::chat) fn merged_tenants(_config: &Config) -> Vec<MergedTenant> {
    vec![]
}

/// The secrets that its binding keys are derived from. Microsoft chooses them, and nobody can guess one.
pub(in crate::chat) fn binding_key_material(secrets: &Secrets) -> Vec<Vec<u8>> {
    secrets.client_secrets.iter().map(|secret| secret.expose().as_bytes().to_vec()).collect()
}

/// Microsoft signs with keys that nobody else has, so no secret of ours can sign.
pub(in crate::chat) fn request_signers(_config: &Config, _secrets: &Secrets) -> Vec<RequestSigner> {
    vec![]
}

impl Channel {
    /// The key of [`Channel::conversation`].
    pub(in crate::chat) const ID_KEY: &str = "conversation";
    /// What a conversation can do.
    pub const CAPABILITIES: Capabilities = CARD_CAPABILITIES;

    /// The conversation's id.
    pub(in crate::chat) fn id(&self) -> &str {
        &self.conversation
    }

    pub(in crate::chat) fn check_id(&self) -> Result<(), &'static str> {
        if is_conversation_id(&self.conversation) {
            Ok(())
        } else {
            Err("expected the id of a channel or chat, e.g. 19:0123abcd@thread.tacv2")
        }
    }

    pub(in crate::chat) fn check_secrets(secrets: Option<&Secrets>) -> Result<(), KeyProblem> {
        match secrets {
            Some(_) => Ok(()),
            None => KeyProblem::err_at("platforms.teams", "missing, and a channel of kind `teams` needs it"),
        }
    }
}

impl WorkflowChannel {
    /// Its messages cannot be updated and have no buttons.
    pub const CAPABILITIES: Capabilities = WORKFLOW_CAPABILITIES;

    /// A workflow checks no signature: its URL is the secret.
    pub(in crate::chat) fn check_endpoint(endpoint: &ChannelSecrets, key: &str) -> Result<(), KeyProblem> {
        match endpoint.signing_secrets.len() {
            0 => Ok(()),
            found => KeyProblem::err_at(format!("{key}.signing_secrets"), format!("expected none, found {found}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "app = \"6fd21178-5a8a-4fd8-a3bc-16f017de3f7a\"\ntenant = \"50703947-19f8-4dd8-af0e-60d29681f7c0\"\n\
                        conversations = [\"19:abc@thread.tacv2\"]\n";

    fn config(toml: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(toml)
    }

    #[test]
    fn each_cloud_has_its_own_addresses() {
        let of = |cloud: &str| config(&format!("{GOOD}cloud = \"{cloud}\"")).unwrap();
        let token = |config: &Config| config.token_url().to_string();
        let end = "/50703947-19f8-4dd8-af0e-60d29681f7c0/oauth2/v2.0/token";
        for (cloud, login, issuer, host) in [
            ("public", "login.microsoftonline.com", "https://api.botframework.com", "smba.trafficmanager.net"),
            ("us-gov", "login.microsoftonline.us", "https://api.botframework.us", "smba.infra.gov.teams.microsoft.us"),
            (
                "china",
                "login.partner.microsoftonline.cn",
                "https://api.botframework.azure.cn",
                "frontend.botapi.msg.infra.teams.microsoftonline.cn",
            ),
        ] {
            let config = of(cloud);
            assert_eq!(token(&config), format!("https://{login}{end}"));
            assert_eq!((config.cloud.issuer(), config.cloud.scope()), (issuer, format!("{issuer}/.default").as_str()));
            assert!(config.metadata_url().path().ends_with("/v1/.well-known/openidconfiguration"));
            for other in ["public", "us-gov", "china"] {
                let url = format!("https://{host}/emea/");
                assert_eq!(of(other).parse_service_url(&url).is_some(), other == cloud, "{url} in {other}");
            }
        }
    }

    #[test]
    fn token_goes_only_to_known_hosts() {
        let more = "cloud = \"public\"\nservice_hosts = [\"smba.teams.example.com\", \"127.0.0.1:3978\"]";
        let config = config(&format!("{GOOD}{more}")).unwrap();
        assert_eq!(check_config(&config), Ok(()));
        for good in [
            "https://smba.trafficmanager.net/emea/50703947-19f8-4dd8-af0e-60d29681f7c0/",
            "https://smba.trafficmanager.net",
            "https://SMBA.trafficmanager.net:443/teams",
            "https://smba.teams.example.com/x/",
            "http://127.0.0.1:3978/",
        ] {
            assert!(config.parse_service_url(good).is_some(), "{good}");
        }
        for bad in [
            "http://smba.trafficmanager.net/",
            "https://smba.trafficmanager.net.evil.example/",
            "https://smba.trafficmanager.net./",
            "https://evil.example/smba.trafficmanager.net/",
            "https://smba.trafficmanager.net@evil.example/",
            "https://me@smba.trafficmanager.net/",
            "https://@smba.trafficmanager.net/",
            "https://smba.trafficmanager.net:8443/",
            "https://evil.example\\@smba.trafficmanager.net/",
            "https://smba.trafficmanager.net/?x=1",
            "https://smba.trafficmanager.net/#x",
            "https://x.smba.trafficmanager.net/",
            "https://smbа.trafficmanager.net/",
            "https://xn--smb-7cd.trafficmanager.net/",
            "https://smba%2etrafficmanager.net/",
            " https://smba.trafficmanager.net/",
            "https://smba.traffic\tmanager.net/",
            "//smba.trafficmanager.net/",
            "smba.trafficmanager.net",
            "ftp://smba.trafficmanager.net/",
            "data:smba.trafficmanager.net",
            "http://127.0.0.1/",
            "http://127.0.0.1:3979/",
            "http://localhost:3978/",
            "http://10.0.0.1:3978/",
            "",
        ] {
            // A percent sign in a host is decoded, so this one is the host itself.
            let is_same_host = bad.contains("%2e");
            assert_eq!(config.parse_service_url(bad).is_some(), is_same_host, "{bad}");
        }
    }

    #[test]
    fn principal_of_teams_is_an_object_id_of_the_tenant() {
        let config = config(&format!("{GOOD}cloud = \"public\"")).unwrap();
        let check = |tenant: &str, user: &str| {
            let principal = Principal::new("teams", tenant, user).unwrap();
            (check_principal(Some(&config), &principal), check_principal(None, &principal))
        };
        let (ours, user) = ("50703947-19f8-4dd8-af0e-60d29681f7c0", "c97a97e7-dcc9-4395-a81f-c029c016f011");
        let (known, unknown) = check(ours, user);
        assert_eq!(known, Ok(()));
        assert_eq!(unknown, Err(format!("teams:{ours}/{user} needs the table [platforms.teams]")));
        let (foreign, _) = check("c47f831e-96eb-43b3-aaae-84fddbfe3619", user);
        assert!(foreign.unwrap_err().ends_with("is not `platforms.teams.tenant`"));
        for user in ["alice", "alice@example.com", &user.to_uppercase()] {
            let (refused, _) = check(ours, user);
            assert!(refused.unwrap_err().contains("a user's object id"), "{user}");
        }
    }

    #[test]
    fn config_errors_name_the_teams_key() {
        let cloud = "cloud = \"public\"\n";
        assert_eq!(check_config(&config(&format!("{GOOD}{cloud}")).unwrap()), Ok(()));
        let cases = [
            (GOOD.replace("6fd21178", "6FD21178"), "app"),
            (GOOD.replace("6fd21178-", ""), "app"),
            (GOOD.replace("50703947-19f8", "common"), "tenant"),
            (GOOD.replace("\"19:abc@thread.tacv2\"", ""), "conversations"),
            (GOOD.replace("19:abc@thread.tacv2", "19:abc@thread.tacv2;messageid=1"), "conversations"),
            (GOOD.replace("19:abc@thread.tacv2", "General"), "conversations"),
            (format!("{GOOD}service_hosts = [\"https://smba.trafficmanager.net/\"]\n"), "service_hosts"),
            (format!("{GOOD}service_hosts = [\"Smba.trafficmanager.net\"]\n"), "service_hosts"),
            (format!("{GOOD}service_hosts = [\"smba.trafficmanager.net:444\"]\n"), "service_hosts"),
            (format!("{GOOD}login = \"http://login.example.com/\"\n"), "login"),
            (format!("{GOOD}login = \"https://login.example.com/x\"\n"), "login"),
            (format!("{GOOD}keys = \"http://login.example.com/\"\n"), "keys"),
        ];
        for (toml, key) in cases {
            let checked = check_config(&config(&format!("{toml}{cloud}")).unwrap());
            assert_eq!(checked.map_err(|error| error.key), Err(format!("platforms.teams.{key}")), "{toml}");
        }
        assert!(config(GOOD).unwrap_err().to_string().contains("cloud"));
    }
}
