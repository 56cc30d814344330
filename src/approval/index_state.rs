//! As much of a record as the index holds: what it takes to see, without the record, that a reading is no news.

use jiff::Timestamp;

use super::{Approval, ApprovalState, PolicySnapshot, failure_code};
use crate::peering::{Connection, FieldHash, Fingerprint, Status};

/// How far a record has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexState {
    /// Waits for people, who are shown this.
    Pending(ContentDigest),
    /// Decided; the call is not acknowledged yet.
    Decided,
    /// Being activated.
    Activating,
    /// Rejected, expired or deleted: unless it is seen alive.
    Ended,
    /// It failed, and still waits: unless it is seen to be activated.
    Failed,
    /// It was accepted elsewhere: unless it is seen to wait.
    AcceptedElsewhere,
    /// Over, whatever is seen.
    Settled,
}

/// What people are shown of a request: its facts, when it expires, and what the configuration says about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContentDigest(u128);

impl Approval {
    /// How far it has come.
    #[must_use]
    pub fn index_state(&self) -> IndexState {
        match self.state {
            // In doubt, any reading is news.
            ApprovalState::Pending if self.unconfirmed.is_some() => IndexState::Pending(ContentDigest::default()),
            ApprovalState::Pending => {
                IndexState::Pending(ContentDigest::new(&self.fingerprint, self.connection.expires_at, &self.policy))
            }
            ApprovalState::Approved | ApprovalState::Rejecting => IndexState::Decided,
            ApprovalState::Activating => IndexState::Activating,
            ApprovalState::Rejected | ApprovalState::Expired | ApprovalState::Deleted => IndexState::Ended,
            ApprovalState::Activated => IndexState::Settled,
            ApprovalState::Failed { ref code } => match code.as_str() {
                failure_code::ACCEPTED_ELSEWHERE => IndexState::AcceptedElsewhere,
                failure_code::CHANGED_TOO_OFTEN => IndexState::Settled,
                _ => IndexState::Failed,
            },
        }
    }
}

impl IndexState {
    /// Whether somebody has to see how it goes on, although nothing is due.
    #[must_use]
    pub fn needs_polling(self) -> bool {
        matches!(self, Self::Pending(_) | Self::Activating)
    }

    /// Whether nothing is on its way, and nobody is asked.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Ended | Self::Failed | Self::AcceptedElsewhere | Self::Settled)
    }

    /// Whether a reading says something that the record does not. `terms` are what the configuration says about it now.
    #[must_use]
    pub fn is_outdated_by(
        self,
        connection: &Connection,
        now: Timestamp,
        policy: impl FnOnce() -> PolicySnapshot,
    ) -> bool {
        let waits = connection.status == Status::Accepting;
        let is_alive = connection.is_waiting(now);
        match self {
            Self::Pending(mark) if is_alive => {
                mark != ContentDigest::new(&connection.fingerprint(), connection.expires_at, &policy())
            }
            Self::Pending(_) | Self::Activating => {
                waits
                    || matches!(
                        connection.status,
                        Status::Activated | Status::Rejected | Status::Expired | Status::Deleted
                    )
            }
            Self::Ended => is_alive || connection.status == Status::Activated,
            Self::Failed => connection.status == Status::Activated,
            Self::AcceptedElsewhere => is_alive,
            Self::Decided | Self::Settled => false,
        }
    }
}

impl ContentDigest {
    /// The mark of these facts, until then, under these terms.
    #[must_use]
    pub fn new(fingerprint: &Fingerprint, expires_at: Option<Timestamp>, policy: &PolicySnapshot) -> Self {
        let mut hash = FieldHash::new("peergate/mark/3");
        hash.add_field(&fingerprint.to_string());
        hash.add_field(&expires_at.map(|at| at.to_string()).unwrap_or_default());
        hash.add_field(&serde_json::to_string(policy).unwrap_or_default());
        Self(hash.into_u128())
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
