//! Types for secrets. Their `Debug` shows nothing.

use std::fmt;

use base64::DecodeError;
use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use url::Url;

use crate::from_text::from_text;

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
    /// A secret with this URL.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self(url)
    }

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
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct BindingSecret(Vec<u8>);

from_text!(BindingSecret);

/// The text is not a binding key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a binding key: {0}; expected the base64 of 32 to 64 bytes")]
pub struct InvalidBindingSecret(FormatProblem);

impl InvalidBindingSecret {
    /// How each message begins.
    pub const HINT: &str = "not a binding key: ";
}

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
        let bytes = decode_base64(&text, "").map_err(InvalidBindingSecret)?;
        match bytes.len() {
            32..=64 => Ok(Self(bytes)),
            found => Err(InvalidBindingSecret(FormatProblem::Bytes(found))),
        }
    }
}

impl fmt::Debug for BindingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BindingSecret(…)")
    }
}

/// Why a text is not a secret of its kind. It shows nothing of the text but its length and a position, which counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatProblem {
    /// There is no character.
    #[error("it is empty")]
    Empty,
    /// Often a mistake of copying.
    #[error("it begins with a space or a line break")]
    SpaceBefore,
    /// A line break at the end of a file is easily stored as a part of a secret.
    #[error("it ends with a space or a line break")]
    SpaceAfter,
    /// A character inside cannot be part of it.
    #[error("character {0} is a space, a line break, or not one of ASCII")]
    Unprintable(usize),
    /// Too short or too long.
    #[error("it has {0} characters")]
    Characters(usize),
    /// Too short or too long when it is decoded.
    #[error("it has {0} bytes")]
    Bytes(usize),
    /// Not even similar to this kind of secret.
    #[error("its prefix is not `{0}`")]
    Prefix(&'static str),
    /// A character that base64 does not have there.
    #[error("it is not base64 at character {0}")]
    Base64Character(usize),
    /// Often a character is missing at the end.
    #[error("it is not base64: after {0} characters, a part or a `=` is missing at its end")]
    Base64Length(usize),
}

/// Checks that the text is not empty, and has no space at an end.
pub fn check_ends(text: &str) -> Result<(), FormatProblem> {
    if text.is_empty() {
        Err(FormatProblem::Empty)
    } else if text.trim_start() != text {
        Err(FormatProblem::SpaceBefore)
    } else if text.trim_end() != text {
        Err(FormatProblem::SpaceAfter)
    } else {
        Ok(())
    }
}

/// Checks that the text has only printable characters of ASCII, and no space.
pub fn check_printable(text: &str) -> Result<(), FormatProblem> {
    check_ends(text)?;
    match text.chars().position(|character| !character.is_ascii_graphic()) {
        None => Ok(()),
        Some(position) => Err(FormatProblem::Unprintable(position.saturating_add(1))),
    }
}

/// The bytes of a text in base64. The prefix is optional.
pub fn decode_base64(text: &str, prefix: &'static str) -> Result<Vec<u8>, FormatProblem> {
    check_printable(text)?;
    let encoded = text.strip_prefix(prefix).unwrap_or(text);
    let is_prefix =
        |start: &str| (2..=6).contains(&start.len()) && start.bytes().all(|byte| byte.is_ascii_alphabetic());
    // Base64 has no underscore.
    if !prefix.is_empty() && encoded.split_once('_').is_some_and(|(start, _)| encoded == text && is_prefix(start)) {
        return Err(FormatProblem::Prefix(prefix));
    }
    let skipped = text.len().saturating_sub(encoded.len());
    BASE64_STANDARD.decode(encoded).map_err(|error| match error {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => {
            FormatProblem::Base64Character(skipped.saturating_add(at).saturating_add(1))
        }
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => FormatProblem::Base64Length(encoded.len()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_problem_names_length_and_position() {
        let good = BASE64_STANDARD.encode([7; 32]);
        assert_eq!(decode_base64(&good, "whsec_"), Ok(vec![7; 32]));
        assert_eq!(decode_base64(&format!("whsec_{good}"), "whsec_"), Ok(vec![7; 32]));
        for (text, expected) in [
            (String::new(), FormatProblem::Empty),
            (format!(" {good}"), FormatProblem::SpaceBefore),
            (format!("{good}\r\n"), FormatProblem::SpaceAfter),
            (format!("whsec_AA\n{good}"), FormatProblem::Unprintable(9)),
            (format!("whsec_ä{good}"), FormatProblem::Unprintable(7)),
            (format!("whsec_AA-A{good}"), FormatProblem::Base64Character(9)),
            (format!("whsec_{}", good.trim_end_matches('=')), FormatProblem::Base64Length(43)),
            (format!("whsec_{good}="), FormatProblem::Base64Character(50)),
            (format!("whsk_{good}"), FormatProblem::Prefix("whsec_")),
            (format!("WHSEC_{good}"), FormatProblem::Prefix("whsec_")),
            ("whsec_".to_owned(), FormatProblem::Bytes(0)),
        ] {
            let found = decode_base64(&text, "whsec_").and_then(|bytes| Err(FormatProblem::Bytes(bytes.len())));
            assert_eq!(found, Err::<(), _>(expected), "{text:?}");
        }
    }
}
