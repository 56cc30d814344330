//! The configuration of DingTalk: `[platforms.dingtalk]`, the secret `platforms.dingtalk`, and channels.

use serde::Deserialize;
use url::Url;

use super::{
    CARD_CAPABILITIES, InvalidDingTalkSecret, MAX_ID_CHARS, ROBOT_CAPABILITIES, Secrets, is_conversation_id,
    is_dingtalk_id,
};
use crate::approval::Principal;
use crate::chat::MergedTenant;
use crate::chat::authenticity::key_forms;
use crate::chat::{Capabilities, ChannelSecrets, RequestSigner};
use crate::http::{check_endpoint, constant_url};
use crate::redaction::{KeyProblem, redact};
use crate::secret::check_printable;

/// The app that posts cards and receives clicks.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "DingTalkApp"))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The app's Client ID (`ding…`). It is also the code of its robot.
    pub app: String,
    /// The `corpId` of the only corporation whose people may decide.
    pub corp: String,
    /// The id of the published card template (`….schema`).
    pub template: String,
    /// The `callbackRouteKey` under which the callback is registered.
    #[serde(default = "default_route")]
    pub route: String,
    /// The URL of the API. Ends with a slash.
    #[serde(default = "default_api")]
    pub api: Url,
    /// The origins that a `sessionWebhook` may have: scheme, host and port.
    #[serde(default = "default_session_origins")]
    pub session_origins: Vec<Url>,
}

fn default_route() -> String {
    "peergate".to_owned()
}

/// Source: <https://open.dingtalk.com/document/development/create-and-deliver-cards>
fn default_api() -> Url {
    constant_url("https://api.dingtalk.com/")
}

/// Source: <https://open.dingtalk.com/document/orgapp/receive-message>
fn default_session_origins() -> Vec<Url> {
    vec![constant_url("https://oapi.dingtalk.com/")]
}

/// A channel of kind `dingtalk`: a group that our app posts cards to.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "DingTalkChannel"))]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The group's `openConversationId` (`cid…`).
    pub conversation: String,
}

/// A channel of kind `dingtalk-robot`: the custom robot of a group. It receives no clicks.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "DingTalkRobotChannel"))]
#[serde(deny_unknown_fields)]
pub struct RobotChannel {}

/// How the errors about the form of a secret begin.
pub(in crate::chat) fn secret_format_hints() -> Vec<String> {
    vec![InvalidDingTalkSecret::HINT.to_owned()]
}

/// Checks the table of the configuration.
pub(in crate::chat) fn check_config(config: &Config) -> Result<(), KeyProblem> {
    let problem = |key: &str, expected: &str| KeyProblem::err_at(format!("platforms.dingtalk.{key}"), expected);
    if !is_dingtalk_id(&config.app, "") {
        return problem("app", "expected the app's Client ID: letters and digits");
    }
    if !is_dingtalk_id(&config.corp, "") || config.corp == config.app {
        return problem("corp", "expected the corpId of the organization: letters and digits");
    }
    if !is_dingtalk_id(&config.template, "") || !config.template.ends_with(".schema") {
        return problem("template", "expected the id of a card template, which ends with .schema");
    }
    if !is_dingtalk_id(&config.route, "") {
        return problem("route", "expected letters, digits, `_`, `-` or `.`");
    }
    check_endpoint("platforms.dingtalk.api", &config.api)?;
    if !config.api.path().ends_with('/') {
        return problem("api", "expected a URL that ends with a slash");
    }
    for origin in &config.session_origins {
        check_endpoint("platforms.dingtalk.session_origins", origin)?;
    }
    Ok(())
}

/// Checks the table of the secrets.
pub(in crate::chat) fn check_secrets(_config: &Config, secrets: &Secrets) -> Result<(), KeyProblem> {
    let lists = [
        ("api_secrets", secrets.api_secrets.is_empty()),
        ("app_secrets", secrets.app_secrets.is_empty()),
        ("path_secrets", secrets.path_secrets.is_empty()),
    ];
    if let Some((name, _)) = lists.iter().find(|(_, is_empty)| *is_empty) {
        return KeyProblem::err_at(format!("platforms.dingtalk.{name}"), "name at least one");
    }
    // Proxies see paths.
    let signs = |path: &str| {
        let mut api = secrets.api_secrets.iter().map(super::ApiSecret::expose);
        let mut app = secrets.app_secrets.iter().map(super::DingTalkSecret::expose);
        api.any(|secret| secret == path) || app.any(|secret| secret == path)
    };
    if secrets.path_secrets.iter().any(|path| signs(path.expose())) {
        return KeyProblem::err_at("platforms.dingtalk.path_secrets", "one of them is also a secret that signs");
    }
    Ok(())
}

/// Refuses a principal that can send no request.
pub(in crate::chat) fn check_principal(config: Option<&Config>, principal: &Principal) -> Result<(), String> {
    let id = redact(principal.as_str());
    let tenant = principal.realm().split_once(':').map_or("", |(_, tenant)| tenant);
    match config {
        None => Err(format!("{id} needs the table [platforms.dingtalk]")),
        Some(config) if config.corp != tenant => {
            Err(format!("the organization of {id} is not `platforms.dingtalk.corp`"))
        }
        Some(_) if !is_dingtalk_id(principal.user(), "") || principal.user().starts_with('@') => {
            Err(format!("{id} does not end with a person's userId, e.g. 0185115183983732; names can be changed"))
        }
        Some(_) => Ok(()),
    }
}

/// An app has one corporation.
pub(in crate::chat) fn merged_tenants(_config: &Config) -> Vec<MergedTenant> {
    vec![]
}

/// The secrets that its binding keys are derived from.
pub(in crate::chat) fn binding_key_material(secrets: &Secrets) -> Vec<Vec<u8>> {
    secrets.api_secrets.iter().map(|secret| secret.expose().as_bytes().to_vec()).collect()
}

/// Clicks are signed with an `apiSecret`, and messages to the robot with an app secret.
pub(in crate::chat) fn request_signers(_config: &Config, secrets: &Secrets) -> Vec<RequestSigner> {
    let signer = |secrets_key, secrets: Vec<Vec<u8>>| RequestSigner {
        name: "platforms.dingtalk".to_owned(),
        secrets_key,
        secrets,
    };
    vec![
        signer("api_secrets", secrets.api_secrets.iter().flat_map(|secret| key_forms(secret.expose())).collect()),
        signer("app_secrets", secrets.app_secrets.iter().flat_map(|secret| key_forms(secret.expose())).collect()),
    ]
}

impl Channel {
    /// The key of [`Channel::conversation`].
    pub(in crate::chat) const ID_KEY: &str = "conversation";
    /// What a group can do.
    pub const CAPABILITIES: Capabilities = CARD_CAPABILITIES;

    /// The group's id.
    pub(in crate::chat) fn id(&self) -> &str {
        &self.conversation
    }

    pub(in crate::chat) fn check_id(&self) -> Result<(), &'static str> {
        if is_conversation_id(&self.conversation) {
            Ok(())
        } else {
            Err("expected the group's openConversationId, e.g. cid0123abcd==")
        }
    }

    pub(in crate::chat) fn check_secrets(secrets: Option<&Secrets>) -> Result<(), KeyProblem> {
        match secrets {
            Some(_) => Ok(()),
            None => KeyProblem::err_at("platforms.dingtalk", "missing, and a channel of kind `dingtalk` needs it"),
        }
    }
}

impl RobotChannel {
    /// Its messages cannot be updated and have no buttons.
    pub const CAPABILITIES: Capabilities = ROBOT_CAPABILITIES;

    /// Checks the signing secret, if the robot has one.
    pub(in crate::chat) fn check_endpoint(endpoint: &ChannelSecrets, key: &str) -> Result<(), KeyProblem> {
        let key = format!("{key}.signing_secrets");
        match endpoint.signing_secrets.as_slice() {
            [] => Ok(()),
            [secret] if secret.expose().len() > 2 * MAX_ID_CHARS => {
                KeyProblem::err_at(format!("{key}[0]"), "expected the secret of the robot, e.g. SEC…")
            }
            [secret] => check_printable(secret.expose())
                .or_else(|problem| KeyProblem::err_at(format!("{key}[0]"), problem.to_string())),
            several => KeyProblem::err_at(key, format!("expected one or none, found {}", several.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "app = \"dingrzmoleRbRMM4wObA\"\ncorp = \"ding6b3e09a504900d75\"\n\
                        template = \"2c278d79-fc0b-41b4-b14e-8b8089dc08e8.schema\"\n";

    fn config(toml: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(toml)
    }

    #[test]
    fn dingtalk_defaults_are_those_of_the_vendor() {
        let config = config(GOOD).unwrap();
        assert_eq!(check_config(&config), Ok(()));
        assert_eq!((config.api.as_str(), config.route.as_str()), ("https://api.dingtalk.com/", "peergate"));
        let origins: Vec<_> = config.session_origins.iter().map(Url::as_str).collect();
        assert_eq!(origins, ["https://oapi.dingtalk.com/"]);
    }

    #[test]
    fn dingtalk_config_errors_name_the_key() {
        let cases = [
            (GOOD.replace("dingrzmoleRbRMM4wObA", ""), "app"),
            (GOOD.replace("dingrzmole", "ding/rzmole"), "app"),
            (GOOD.replace("ding6b3e09a504900d75", "ding;6b"), "corp"),
            (GOOD.replace("ding6b3e09a504900d75", "dingrzmoleRbRMM4wObA"), "corp"),
            (GOOD.replace(".schema", ""), "template"),
            (format!("{GOOD}route = \"a b\"\n"), "route"),
            (format!("{GOOD}api = \"http://api.dingtalk.com/\"\n"), "api"),
            (format!("{GOOD}api = \"https://api.dingtalk.com/x\"\n"), "api"),
            (format!("{GOOD}session_origins = [\"http://oapi.dingtalk.com/\"]\n"), "session_origins"),
        ];
        for (toml, key) in cases {
            let checked = check_config(&config(&toml).unwrap());
            assert_eq!(checked.map_err(|error| error.key), Err(format!("platforms.dingtalk.{key}")), "{toml}");
        }
        assert!(config(&format!("{GOOD}teams = []")).unwrap_err().to_string().contains("teams"));
    }

    #[test]
    fn path_secret_that_signs_is_refused() {
        let secrets = |path: &str| {
            let json = serde_json::json!({
                "api_secrets": ["0a1b2c3d4e5f60718293a4b5c6d7e8f9"], "app_secrets": ["1a1b2c3d4e5f60718293a4b5c6d7e8f9"],
                "path_secrets": [path],
            });
            serde_json::from_value::<Secrets>(json).unwrap()
        };
        let config = config(GOOD).unwrap();
        assert_eq!(check_secrets(&config, &secrets("2a1b2c3d4e5f60718293a4b5c6d7e8f9")), Ok(()));
        for shared in ["0a1b2c3d4e5f60718293a4b5c6d7e8f9", "1a1b2c3d4e5f60718293a4b5c6d7e8f9"] {
            let error = check_secrets(&config, &secrets(shared)).unwrap_err();
            assert_eq!(error.key, "platforms.dingtalk.path_secrets");
            assert!(!error.to_string().contains("a1b2"), "{error}");
        }
    }

    #[test]
    fn only_ids_of_groups_are_channels() {
        let check = |id: &str| Channel { conversation: id.to_owned() }.check_id().is_ok();
        assert!(check("cidN6rWUSvigj4Yv3ubjDlJF0==") && check("cida/b+c="));
        for wrong in ["", "cid", "N6rW", "cid;dtv1.card//IM_GROUP.x", "cid a", &format!("cid{}", "a".repeat(126))] {
            assert!(!check(wrong), "{wrong}");
        }
    }
}
