//! The secrets of a DingTalk app. No error and no `Debug` output shows one.

use std::fmt;

use serde::Deserialize;

use crate::from_text::from_text;
use crate::secret::{FormatProblem, check_printable};

/// The shortest `apiSecret` and app secret, in bytes. The operator chooses the first one; DingTalk's own have 64.
const MIN_SECRET_BYTES: usize = 16;
/// The longest secret, in bytes.
const MAX_SECRET_BYTES: usize = 256;
/// The shortest path secret, in characters.
const MIN_PATH_SECRET_CHARS: usize = 32;
/// The longest path secret, in characters.
const MAX_PATH_SECRET_CHARS: usize = 128;

/// The secret `platforms.dingtalk`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "DingTalkSecrets"))]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// Each may sign clicks, the newest first. The first one is registered.
    pub api_secrets: Vec<ApiSecret>,
    /// Each may sign messages to the robot, the newest first. The first one fetches the app's token.
    pub app_secrets: Vec<DingTalkSecret>,
    /// Each may end the path of a request, the newest first. The first one is registered.
    pub path_secrets: Vec<PathSecret>,
}

/// The text is not a secret of this kind. The error never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDingTalkSecret {
    /// Not an `apiSecret`.
    #[error("not a DingTalk apiSecret: {0}; expected 16 to 256 characters")]
    ApiSecret(FormatProblem),
    /// Not an app secret.
    #[error("not a DingTalk app secret: {0}; expected 16 to 256 characters")]
    AppSecret(FormatProblem),
    /// Not a path secret.
    #[error("not a DingTalk path secret: {0}; expected 32 to 128 letters and digits")]
    PathSecret(FormatProblem),
    /// A path secret that could be a word or a number, so that a log could show it.
    #[error("not a DingTalk path secret: it has only letters or only digits; expected 32 to 128 letters and digits")]
    PlainPathSecret,
}

impl InvalidDingTalkSecret {
    /// How each message begins.
    pub(super) const HINT: &str = "not a DingTalk ";
}

/// The `apiSecret` of the card callback. Without one, DingTalk signs no click.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "DingTalkApiSecret", with = "String"))]
pub struct ApiSecret(String);

/// The app's Client Secret.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "DingTalkClientSecret", with = "String"))]
pub struct DingTalkSecret(String);

/// The last part of the path of a request, e.g. from `openssl rand -hex 24`.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "DingTalkPathSecret", with = "String"))]
pub struct PathSecret(String);

from_text!(ApiSecret, DingTalkSecret, PathSecret);

impl TryFrom<String> for ApiSecret {
    type Error = InvalidDingTalkSecret;

    fn try_from(text: String) -> Result<Self, InvalidDingTalkSecret> {
        check_length(&text, MIN_SECRET_BYTES, MAX_SECRET_BYTES).map_err(InvalidDingTalkSecret::ApiSecret)?;
        Ok(Self(text))
    }
}

impl TryFrom<String> for DingTalkSecret {
    type Error = InvalidDingTalkSecret;

    fn try_from(text: String) -> Result<Self, InvalidDingTalkSecret> {
        check_length(&text, MIN_SECRET_BYTES, MAX_SECRET_BYTES).map_err(InvalidDingTalkSecret::AppSecret)?;
        Ok(Self(text))
    }
}

impl TryFrom<String> for PathSecret {
    type Error = InvalidDingTalkSecret;

    fn try_from(text: String) -> Result<Self, InvalidDingTalkSecret> {
        check_length(&text, MIN_PATH_SECRET_CHARS, MAX_PATH_SECRET_CHARS)
            .and_then(|()| match text.bytes().position(|byte| !byte.is_ascii_alphanumeric()) {
                None => Ok(()),
                Some(position) => Err(FormatProblem::Unprintable(position.saturating_add(1))),
            })
            .map_err(InvalidDingTalkSecret::PathSecret)?;
        let is_mixed =
            text.bytes().any(|byte| byte.is_ascii_digit()) && text.bytes().any(|byte| byte.is_ascii_alphabetic());
        if is_mixed { Ok(Self(text)) } else { Err(InvalidDingTalkSecret::PlainPathSecret) }
    }
}

fn check_length(text: &str, min: usize, max: usize) -> Result<(), FormatProblem> {
    check_printable(text)?;
    if (min..=max).contains(&text.len()) { Ok(()) } else { Err(FormatProblem::Characters(text.len())) }
}

impl ApiSecret {
    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl DingTalkSecret {
    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PathSecret {
    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiSecret(…)")
    }
}

impl fmt::Debug for DingTalkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DingTalkSecret(…)")
    }
}

impl fmt::Debug for PathSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PathSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const API: &str = "MevvFKK3yNYKD0OLNoS0dQLGC7DJXekHi9Z85cJ3adU";
    const APP: &str = "HPzv5FYAUAT6HwjQdoCu2Etq2DXa5jrhId5Y2fx9BfjAflzYC1kx9ZJ9n4N7Rh9R";
    const PATH: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";

    fn read(api: &str, app: &str, path: &str) -> Result<Secrets, String> {
        let json = json!({"api_secrets": [api], "app_secrets": [app], "path_secrets": [path]});
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn debug_output_hides_every_dingtalk_secret() {
        let shown = format!("{:?}", read(API, APP, PATH).unwrap());
        assert!(["Mevv", "HPzv", "0a1b"].iter().all(|secret| !shown.contains(secret)), "{shown}");
    }

    #[test]
    fn invalid_dingtalk_secret_is_named_but_not_shown() {
        let (letters, digits) = ("abcdefgh".repeat(4), "12345678".repeat(4));
        for (wrong, expected) in [
            (read("short", APP, PATH), "not a DingTalk apiSecret: it has 5 characters; expected 16 to 256"),
            (read(&format!("{API}\n"), APP, PATH), "DingTalk apiSecret: it ends with a space or a line break"),
            (read("", APP, PATH), "DingTalk apiSecret: it is empty"),
            (read(API, "short", PATH), "not a DingTalk app secret: it has 5 characters; expected 16 to 256"),
            (read(API, &"a".repeat(257), PATH), "DingTalk app secret: it has 257 characters"),
            (read(API, APP, "0a1b"), "not a DingTalk path secret: it has 4 characters; expected 32 to 128"),
            (read(API, APP, &format!("{PATH}/a")), "DingTalk path secret: character 33 is"),
            (read(API, APP, &format!("{PATH}-a")), "DingTalk path secret: character 33 is"),
            (read(API, APP, &letters), "not a DingTalk path secret: it has only letters or only digits"),
            (read(API, APP, &digits), "not a DingTalk path secret: it has only letters or only digits"),
        ] {
            let error = wrong.unwrap_err();
            assert!(error.contains(expected) && !error.contains("Mevv") && !error.contains("0a1b"), "{error}");
        }
    }
}
