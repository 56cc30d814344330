//! Ids of connections and accounts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::from_text::from_text;

/// Id of a peering connection, `pcc-…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(extend("pattern" = "^pcc-[a-z0-9]{1,60}$")))]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(String);

/// The text is not the id of a peering connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a peering connection id: expected `pcc-` and up to 60 lower-case letters and digits")]
pub struct InvalidInstanceId;

impl InstanceId {
    /// Parses `pcc-…`. Only lower-case ASCII letters and digits may follow, because ids go into URLs, store keys and
    /// messages.
    pub fn parse(text: &str) -> Result<Self, InvalidInstanceId> {
        let rest = text.strip_prefix("pcc-").ok_or(InvalidInstanceId)?;
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if (1..=60).contains(&rest.len()) && rest.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidInstanceId)
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InstanceId {
    type Error = InvalidInstanceId;

    fn try_from(text: String) -> Result<Self, InvalidInstanceId> {
        Self::parse(&text)
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Id of an Alibaba Cloud account. Ids are larger than 2^53, so that our JSON holds them as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(with = "String", extend("pattern" = "^[0-9]+$")))]
#[serde(into = "String")]
pub struct AccountId(pub u64);

from_text!(AccountId);

/// The text is not an account id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an account id: expected digits, as text")]
pub struct InvalidAccountId;

impl TryFrom<String> for AccountId {
    type Error = InvalidAccountId;

    fn try_from(text: String) -> Result<Self, InvalidAccountId> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten().map(Self).ok_or(InvalidAccountId)
    }
}

impl From<AccountId> for String {
    fn from(id: AccountId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
