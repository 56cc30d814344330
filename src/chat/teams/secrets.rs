//! The secrets of a bot in Teams. No error and no `Debug` output shows one.

use std::fmt;

use serde::Deserialize;

use crate::from_text::from_text;
use crate::secret::{FormatProblem, check_printable};

/// The shortest client secret, in bytes. Those of Entra have 40.
const MIN_SECRET_BYTES: usize = 16;
/// The longest client secret, in bytes.
const MAX_SECRET_BYTES: usize = 256;

/// The secret `platforms.teams`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "TeamsSecrets"))]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// The client secrets of the app, the newest first. Several exist while they are rotated: the keys of buttons derive from
    /// each of them.
    pub client_secrets: Vec<ClientSecret>,
}

/// The text is not a client secret. The error never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a client secret of Entra: {0}; expected 16 to 256 characters")]
pub struct InvalidClientSecret(FormatProblem);

impl InvalidClientSecret {
    /// How the message begins.
    pub(super) const HINT: &str = "not a client secret of Entra: ";
}

/// A client secret of the app: its value, not its id.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "TeamsClientSecret", with = "String"))]
pub struct ClientSecret(String);

from_text!(ClientSecret);

impl TryFrom<String> for ClientSecret {
    type Error = InvalidClientSecret;

    fn try_from(text: String) -> Result<Self, InvalidClientSecret> {
        let fits = (MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&text.len());
        let length = || if fits { Ok(()) } else { Err(FormatProblem::Characters(text.len())) };
        check_printable(&text).and_then(|()| length()).map_err(InvalidClientSecret)?;
        Ok(Self(text))
    }
}

impl ClientSecret {
    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn client_secret_is_checked_and_never_shown() {
        let read = |secret: &str| {
            let read = serde_json::from_value::<Secrets>(json!({"client_secrets": [secret]}));
            read.map(|secrets| format!("{secrets:?}")).map_err(|error| error.to_string())
        };
        let good = "abc8Q~fakeClientSecret0123456789abcdefghi";
        assert_eq!(read(good).unwrap(), "Secrets { client_secrets: [ClientSecret(…)] }");
        for (wrong, expected) in [
            (format!("{good}\n"), "not a client secret of Entra: it ends with a space or a line break"),
            ("short".to_owned(), "not a client secret of Entra: it has 5 characters; expected 16 to 256"),
            (String::new(), "not a client secret of Entra: it is empty"),
            (good.repeat(9), "it has 369 characters"),
        ] {
            let error = read(&wrong).unwrap_err();
            assert!(error.contains(expected) && !error.contains("abc8Q"), "{error}");
        }
    }
}
