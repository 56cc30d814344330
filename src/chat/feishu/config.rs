//! The configuration of Feishu: `[platforms.feishu]`, the secret `platforms.feishu`, and channels.

use serde::Deserialize;
use url::Url;

use super::{
    BOT_CAPABILITIES, CARD_CAPABILITIES, CallbackKeys, EncryptKey, InvalidFeishuSecret, Secrets, is_feishu_id,
};
use crate::approval::Principal;
use crate::chat::MergedTenant;
use crate::chat::authenticity::key_forms;
use crate::chat::{Capabilities, ChannelSecrets, RequestSigner};
use crate::http::{check_endpoint, constant_url};
use crate::redaction::{KeyProblem, redact};
use crate::secret::check_printable;

/// The site of the tenant's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "FeishuSite"))]
#[serde(rename_all = "lowercase")]
pub enum Host {
    /// Mainland China.
    Feishu,
    /// All other countries.
    Lark,
}

impl Host {
    /// Source: <https://open.feishu.cn/document/server-docs/api-call-guide/calling-process/overview>
    fn api_url(self) -> &'static str {
        match self {
            Self::Feishu => "https://open.feishu.cn/",
            Self::Lark => "https://open.larksuite.com/",
        }
    }
}

/// The app that posts cards and receives clicks.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "FeishuApp"))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The app's id (`cli_…`).
    pub app: String,
    /// The `tenant_key` of the only tenant whose people may decide.
    pub tenant: String,
    /// The site of the tenant.
    pub host: Host,
    /// Replaces the site's API URL in tests. Ends with a slash.
    pub api: Option<Url>,
}

impl Config {
    /// The URL of the API.
    #[must_use]
    pub fn api_url(&self) -> Url {
        self.api.clone().unwrap_or_else(|| constant_url(self.host.api_url()))
    }
}

/// A channel of kind `feishu`: a chat that our app posts cards to.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "FeishuChannel"))]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The chat's id (`oc_…`).
    pub chat: String,
}

/// A channel of kind `feishu-bot`: the custom bot of a group. It receives no clicks.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "FeishuBotChannel"))]
#[serde(deny_unknown_fields)]
pub struct BotChannel {}

/// How the errors about the form of a secret begin.
pub(in crate::chat) fn secret_format_hints() -> Vec<String> {
    vec![InvalidFeishuSecret::HINT.to_owned()]
}

/// Checks the table of the configuration.
pub(in crate::chat) fn check_config(config: &Config) -> Result<(), KeyProblem> {
    if !is_feishu_id(&config.app, "cli_") {
        let expected = "expected the app's id, `cli_` and letters, digits, `_` or `-`";
        return KeyProblem::err_at("platforms.feishu.app", expected);
    }
    if !is_feishu_id(&config.tenant, "") || config.tenant.starts_with("cli_") {
        return KeyProblem::err_at("platforms.feishu.tenant", "expected the tenant_key: letters, digits, `_` or `-`");
    }
    let Some(api) = &config.api else { return Ok(()) };
    check_endpoint("platforms.feishu.api", api)?;
    if api.path().ends_with('/') {
        Ok(())
    } else {
        KeyProblem::err_at("platforms.feishu.api", "expected a URL that ends with a slash")
    }
}

/// Checks the table of the secrets.
pub(in crate::chat) fn check_secrets(_config: &Config, secrets: &Secrets) -> Result<(), KeyProblem> {
    if secrets.callbacks.is_empty() {
        return KeyProblem::err_at("platforms.feishu.callbacks", "name at least one pair of keys");
    }
    Ok(())
}

/// Refuses a principal that can send no request.
pub(in crate::chat) fn check_principal(config: Option<&Config>, principal: &Principal) -> Result<(), String> {
    let id = redact(principal.as_str());
    let tenant = principal.realm().split_once(':').map_or("", |(_, tenant)| tenant);
    match config {
        None => Err(format!("{id} needs the table [platforms.feishu]")),
        Some(config) if config.tenant != tenant => Err(format!("the tenant of {id} is not `platforms.feishu.tenant`")),
        Some(_) if !is_feishu_id(principal.user(), "ou_") => {
            Err(format!("{id} does not end with a user's open_id, e.g. ou_0123abcd; names can be changed"))
        }
        Some(_) => Ok(()),
    }
}

/// An app has one tenant.
pub(in crate::chat) fn merged_tenants(_config: &Config) -> Vec<MergedTenant> {
    vec![]
}

/// The secrets that its binding keys are derived from.
pub(in crate::chat) fn binding_key_material(secrets: &Secrets) -> Vec<Vec<u8>> {
    // Every viewer of a card can try keys on its MACs, and an Encrypt Key may be short.
    let both =
        |keys: &CallbackKeys| [keys.encrypt_key.expose(), b"\n", keys.verification_token.expose().as_bytes()].concat();
    secrets.callbacks.iter().map(both).collect()
}

/// The app signs with its Encrypt Keys.
pub(in crate::chat) fn request_signers(_config: &Config, secrets: &Secrets) -> Vec<RequestSigner> {
    let forms = |key: &EncryptKey| key_forms(&String::from_utf8_lossy(key.expose()));
    let keys = secrets.callbacks.iter().flat_map(|keys| forms(&keys.encrypt_key)).collect();
    vec![RequestSigner { name: "platforms.feishu".to_owned(), secrets_key: "callbacks", secrets: keys }]
}

impl Channel {
    /// The key of [`Channel::chat`].
    pub(in crate::chat) const ID_KEY: &str = "chat";
    /// What a chat can do.
    pub const CAPABILITIES: Capabilities = CARD_CAPABILITIES;

    /// The chat's id.
    pub(in crate::chat) fn id(&self) -> &str {
        &self.chat
    }

    pub(in crate::chat) fn check_id(&self) -> Result<(), &'static str> {
        if is_feishu_id(&self.chat, "oc_") { Ok(()) } else { Err("expected the chat's id, e.g. oc_0123abcd") }
    }

    pub(in crate::chat) fn check_secrets(secrets: Option<&Secrets>) -> Result<(), KeyProblem> {
        match secrets {
            Some(_) => Ok(()),
            None => KeyProblem::err_at("platforms.feishu", "missing, and a channel of kind `feishu` needs it"),
        }
    }
}

impl BotChannel {
    /// Its messages cannot be updated and have no buttons.
    pub const CAPABILITIES: Capabilities = BOT_CAPABILITIES;

    /// Checks the signing secret, if the bot has one.
    pub(in crate::chat) fn check_endpoint(endpoint: &ChannelSecrets, key: &str) -> Result<(), KeyProblem> {
        let key = format!("{key}.signing_secrets");
        match endpoint.signing_secrets.as_slice() {
            [] => Ok(()),
            [secret] => check_printable(secret.expose())
                .or_else(|problem| KeyProblem::err_at(format!("{key}[0]"), problem.to_string())),
            several => KeyProblem::err_at(key, format!("expected one or none, found {}", several.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(toml)
    }

    const GOOD: &str = "app = \"cli_a6ee8fbe9ffe6d3d\"\ntenant = \"82dfe55c5a220620\"\n";

    #[test]
    fn each_host_has_its_own_api_address() {
        let api = |more: &str| config(&format!("{GOOD}{more}")).unwrap().api_url().to_string();
        assert_eq!(api("host = \"feishu\""), "https://open.feishu.cn/");
        assert_eq!(api("host = \"lark\""), "https://open.larksuite.com/");
        assert_eq!(api("host = \"lark\"\napi = \"http://127.0.0.1:8000/\""), "http://127.0.0.1:8000/");
    }

    #[test]
    fn config_errors_name_the_key() {
        let host = "host = \"feishu\"\n";
        assert_eq!(check_config(&config(&format!("{GOOD}{host}")).unwrap()), Ok(()));
        let cases = [
            (GOOD.replace("cli_a6", "a6"), "app"),
            (GOOD.replace("cli_a6ee8fbe9ffe6d3d", "cli_"), "app"),
            (GOOD.replace("82df", "82/df"), "tenant"),
            (GOOD.replace("82dfe55c5a220620", ""), "tenant"),
            (format!("{GOOD}api = \"http://open.feishu.cn/\"\n"), "api"),
            (format!("{GOOD}api = \"https://open.feishu.cn/x\"\n"), "api"),
            (format!("{GOOD}api = \"https://me@open.feishu.cn/\"\n"), "api"),
        ];
        for (toml, key) in cases {
            let checked = check_config(&config(&format!("{toml}{host}")).unwrap());
            let expected = format!("platforms.feishu.{key}");
            assert_eq!(checked.map_err(|error| error.key), Err(expected), "{toml}");
        }
        assert!(config(GOOD).unwrap_err().to_string().contains("host"));
        assert!(config(&format!("{GOOD}{host}teams = []")).unwrap_err().to_string().contains("teams"));
    }
}
