//! Types for secrets. Their `Debug` shows nothing.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use url::Url;

/// A secret text.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
pub struct Secret(String);

impl Secret {
    /// A secret with this text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret text.
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

/// A URL that must be as secret as a password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
pub struct SecretUrl(Url);

impl SecretUrl {
    /// The secret URL.
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

/// A key that signs buttons. As text it is the base64 of 32 to 64 bytes, e.g. from `openssl rand -base64 32`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
#[serde(try_from = "String")]
pub struct BindingSecret(Vec<u8>);

/// The text is not a binding key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a binding key: expected the base64 of 32 to 64 bytes")]
pub struct InvalidBindingSecret;

impl BindingSecret {
    /// The bytes of the key.
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

/// Whether the text has only printable characters. A line break at the end of a file is easily stored as a part of a
/// secret.
#[must_use]
pub fn is_printable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}
