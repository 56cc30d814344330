//! As much of a record as the index holds: what it takes to see, without the record, that a reading is no news.

use super::{Approval, State, Terms};
use crate::peering::{Connection, FieldHash, Fingerprint, Status};

/// How far a record has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waits for people, who are shown this.
    Pending(Mark),
    /// Decided; the call is not acknowledged yet.
    Decided,
    /// Being activated.
    Activating,
    /// Over; channels may still be owed something.
    Over,
}

/// What people are shown of a request: its facts, and what the configuration says about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark(u128);

impl Approval {
    /// How far it has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.state {
            State::Pending => Stage::Pending(Mark::of(&self.fingerprint, &self.terms)),
            State::Approved | State::Rejecting => Stage::Decided,
            State::Activating => Stage::Activating,
            State::Activated | State::Rejected | State::Expired | State::Deleted | State::Failed { .. } => Stage::Over,
        }
    }
}

impl Stage {
    /// Whether somebody has to see how it goes on, although nothing is due.
    #[must_use]
    pub fn is_followed(self) -> bool {
        matches!(self, Self::Pending(_) | Self::Activating)
    }

    /// Whether a reading says something that the record does not. `terms` are what the configuration says about it now.
    #[must_use]
    pub fn is_news(self, connection: &Connection, terms: impl FnOnce() -> Terms) -> bool {
        match (self, &connection.status) {
            (Self::Pending(mark), Status::Accepting) => mark != Mark::of(&connection.fingerprint(), &terms()),
            (Self::Pending(_), Status::Updating) | (Self::Pending(_) | Self::Activating, Status::Activated) => true,
            (Self::Pending(_) | Self::Activating, status) => {
                matches!(status, Status::Rejected | Status::Expired | Status::Deleting | Status::Deleted)
            }
            (Self::Decided | Self::Over, _) => false,
        }
    }
}

impl Mark {
    /// The mark of these facts under these terms.
    #[must_use]
    pub fn of(fingerprint: &Fingerprint, terms: &Terms) -> Self {
        let mut hash = FieldHash::new("peergate/mark/1");
        hash.field(&fingerprint.to_string());
        hash.field(&serde_json::to_string(terms).unwrap_or_default());
        Self(hash.short())
    }

    /// As it is stored: 32 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        format!("{:032x}", self.0)
    }

    /// Reads what [`Mark::to_hex`] wrote.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}
