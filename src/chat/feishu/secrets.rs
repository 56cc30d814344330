//! The secrets of a Feishu app. No error and no `Debug` output shows one.

use std::fmt;

use serde::Deserialize;

use crate::from_text::from_text;
use crate::secret::{FormatProblem, check_ends, check_printable};

/// The shortest Encrypt Key, in bytes. The developer chooses it, and Feishu's own example has eight.
///
/// Source: <https://open.feishu.cn/document/server-docs/event-subscription-guide/event-subscription-configure-/encrypt-key-encryption-configuration-case>
const MIN_ENCRYPT_KEY_BYTES: usize = 8;
/// The shortest Verification Token and app secret, in bytes. Feishu's own have 32.
const MIN_SECRET_BYTES: usize = 16;
/// The longest of all these secrets, in bytes.
const MAX_SECRET_BYTES: usize = 256;

/// The secret `platforms.feishu`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "FeishuSecrets"))]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// The pairs that may authenticate a callback, the newest first. Several exist while keys are rotated.
    pub callbacks: Vec<CallbackKeys>,
    /// Required to fetch the tenant's token.
    pub app_secret: AppSecret,
}

/// The two secrets that authenticate a callback.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "FeishuCallbackKeys"))]
#[serde(deny_unknown_fields)]
pub struct CallbackKeys {
    /// Signs and encrypts the callback.
    pub encrypt_key: EncryptKey,
    /// Part of the plaintext.
    pub verification_token: VerificationToken,
}

/// The text is not a secret of this kind. The error never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFeishuSecret {
    /// Not an Encrypt Key.
    #[error("not a Feishu Encrypt Key: {0}; expected 8 to 256 characters")]
    EncryptKey(FormatProblem),
    /// Not a Verification Token.
    #[error("not a Feishu Verification Token: {0}; expected 16 to 256 characters")]
    VerificationToken(FormatProblem),
    /// Not an app secret.
    #[error("not a Feishu app secret: {0}; expected 16 to 256 characters")]
    AppSecret(FormatProblem),
}

impl InvalidFeishuSecret {
    /// How each message begins.
    pub(super) const HINT: &str = "not a Feishu ";
}

/// The Encrypt Key of the app. Without one, Feishu signs no callback.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "FeishuEncryptKey", with = "String"))]
pub struct EncryptKey(String);

/// The Verification Token of the app.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "local",
    derive(schemars::JsonSchema),
    schemars(rename = "FeishuVerificationToken", with = "String")
)]
pub struct VerificationToken(String);

/// The App Secret.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "FeishuAppSecret", with = "String"))]
pub struct AppSecret(String);

from_text!(EncryptKey, VerificationToken, AppSecret);

impl TryFrom<String> for EncryptKey {
    type Error = InvalidFeishuSecret;

    fn try_from(text: String) -> Result<Self, InvalidFeishuSecret> {
        let is_allowed = |character: char| character.is_ascii_graphic() || character == ' ';
        check_ends(&text)
            .and_then(|()| match text.chars().position(|character| !is_allowed(character)) {
                None => check_length(&text, MIN_ENCRYPT_KEY_BYTES),
                Some(position) => Err(FormatProblem::Unprintable(position.saturating_add(1))),
            })
            .map_err(InvalidFeishuSecret::EncryptKey)?;
        Ok(Self(text))
    }
}

impl TryFrom<String> for VerificationToken {
    type Error = InvalidFeishuSecret;

    fn try_from(text: String) -> Result<Self, InvalidFeishuSecret> {
        check_secret(&text).map_err(InvalidFeishuSecret::VerificationToken)?;
        Ok(Self(text))
    }
}

impl TryFrom<String> for AppSecret {
    type Error = InvalidFeishuSecret;

    fn try_from(text: String) -> Result<Self, InvalidFeishuSecret> {
        check_secret(&text).map_err(InvalidFeishuSecret::AppSecret)?;
        Ok(Self(text))
    }
}

fn check_secret(text: &str) -> Result<(), FormatProblem> {
    check_printable(text).and_then(|()| check_length(text, MIN_SECRET_BYTES))
}

fn check_length(text: &str, min: usize) -> Result<(), FormatProblem> {
    if (min..=MAX_SECRET_BYTES).contains(&text.len()) { Ok(()) } else { Err(FormatProblem::Characters(text.len())) }
}

impl EncryptKey {
    /// The key's bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl VerificationToken {
    /// The token.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl AppSecret {
    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EncryptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptKey(…)")
    }
}

impl fmt::Debug for VerificationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerificationToken(…)")
    }
}

impl fmt::Debug for AppSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn debug_output_hides_every_secret() {
        let pair = json!({"encrypt_key": "test key", "verification_token": "v4rificationT0ken"});
        let json = json!({"callbacks": [pair], "app_secret": "0123456789abcdef"});
        let secrets: Secrets = serde_json::from_value(json).unwrap();
        let shown = format!("{secrets:?}");
        assert!(["test key", "v4rification", "01234567"].iter().all(|secret| !shown.contains(secret)), "{shown}");
    }

    #[test]
    fn invalid_secret_is_named_but_not_shown() {
        let read = |encrypt_key: &str, verification_token: &str, app_secret: &str| {
            let pair = json!({"encrypt_key": encrypt_key, "verification_token": verification_token});
            let json = json!({"callbacks": [pair], "app_secret": app_secret});
            serde_json::from_value::<Secrets>(json).map(|_| ()).map_err(|error| error.to_string())
        };
        let (key, token, secret) = ("7ZJAhsHk6WV3zn4T", "NOMQnKOlLVbqgBfo", "0123456789abcdef");
        assert_eq!(read(key, token, secret), Ok(()));
        for (wrong, expected) in [
            (read("7ZJAhsH", token, secret), "not a Feishu Encrypt Key: it has 7 characters; expected 8 to 256"),
            (read("7ZJAhsHk6WV3zn4T\n", token, secret), "Encrypt Key: it ends with a space or a line break"),
            (read("7ZJA\thsHk6WV3zn4T", token, secret), "Encrypt Key: character 5 is a space, a line break"),
            (
                read(key, "NOMQnKOlLVbqgBf", secret),
                "not a Feishu Verification Token: it has 15 characters; expected 16",
            ),
            (read(key, "NOMQnKOlLVbqgBfo ", secret), "Verification Token: it ends with a space or a line break"),
            (read(key, token, "0123456789abcde\n"), "not a Feishu app secret: it ends with a space or a line break"),
            (read(key, token, ""), "not a Feishu app secret: it is empty"),
            (read(key, token, &"a".repeat(257)), "not a Feishu app secret: it has 257 characters; expected 16 to 256"),
        ] {
            let error = wrong.unwrap_err();
            assert!(error.contains(expected) && !error.contains("7ZJA") && !error.contains("NOMQ"), "{error}");
        }
    }
}
