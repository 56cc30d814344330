//! Secrets, as types whose `Debug` shows nothing.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use url::Url;

/// A text that shows itself to nobody by accident.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A URL that is as good as a password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct SecretUrl(Url);

impl SecretUrl {
    /// The URL.
    #[must_use]
    pub fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretUrl(…)")
    }
}

/// A key of buttons: the base64 of 32 to 64 bytes, e.g. of `openssl rand -base64 32`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BindingSecret(Vec<u8>);

/// The text is not a key of buttons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a binding key: expected the base64 of 32 to 64 bytes")]
pub struct InvalidBindingSecret;

impl BindingSecret {
    /// The key's bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<String> for BindingSecret {
    type Error = InvalidBindingSecret;

    fn try_from(text: String) -> Result<Self, InvalidBindingSecret> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| InvalidBindingSecret)?;
        if (32..=64).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(InvalidBindingSecret) }
    }
}

impl fmt::Debug for BindingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BindingSecret(…)")
    }
}

/// Whether all of it can be typed. A file often ends with a line break, which is easily stored with the secret.
#[must_use]
pub fn is_printable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}
