//! The part of a record that the store's index holds. It is enough to see, without the record, whether a reading is
//! new.

use jiff::Timestamp;

use super::{Approval, ApprovalState, PolicySnapshot, failure_code};
use crate::peering::{Connection, FieldHash, Fingerprint, Status};

/// State of a record in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexState {
    /// Pending. The digest covers what people are shown.
    Pending(ContentDigest),
    /// Decided, but Alibaba Cloud has not acknowledged the call yet.
    Decided,
    /// Accepted, but not usable yet.
    Activating,
    /// Rejected, expired or deleted. A reading of a waiting or usable connection contradicts it.
    Ended,
    /// Failed. A reading of a usable connection contradicts it.
    Failed,
    /// Accepted by somebody else. A reading of a waiting connection contradicts it.
    AcceptedElsewhere,
    /// Final, whatever a reading shows.
    Settled,
}

/// Digest of what people are shown of a request: its facts, its expiry, and what the configuration says about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContentDigest(u128);

impl Approval {
    /// The state that the index holds for this record.
    #[must_use]
    pub fn index_state(&self) -> IndexState {
        match self.state {
            // While a reading requires confirmation, every reading is new, because its digest never equals this one.
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
                _ => IndexState::Failed,
            },
        }
    }
}

impl IndexState {
    /// Whether to read the connection regularly, although no step is due.
    #[must_use]
    pub fn needs_polling(self) -> bool {
        matches!(self, Self::Pending(_) | Self::Activating)
    }

    /// Whether no call is due or running, and nobody has to decide.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Ended | Self::Failed | Self::AcceptedElsewhere | Self::Settled)
    }

    /// Whether a reading is new to the record. `policy` returns what the configuration says about the reading. It is
    /// only called for pending requests.
    #[must_use]
    pub fn is_outdated_by(
        self,
        connection: &Connection,
        now: Timestamp,
        policy: impl FnOnce() -> PolicySnapshot,
    ) -> bool {
        let is_accepting = connection.status == Status::Accepting;
        let is_alive = connection.is_waiting(now);
        match self {
            Self::Pending(digest) if is_alive => {
                digest != ContentDigest::new(&connection.fingerprint(), connection.expires_at, &policy())
            }
            Self::Pending(_) | Self::Activating => {
                is_accepting
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
    /// Digests what people are shown.
    #[must_use]
    pub fn new(fingerprint: &Fingerprint, expires_at: Option<Timestamp>, policy: &PolicySnapshot) -> Self {
        let mut hash = FieldHash::new("peergate/mark/3");
        hash.add_field(&fingerprint.to_string());
        hash.add_field(&expires_at.map(|at| at.to_string()).unwrap_or_default());
        hash.add_field(&serde_json::to_string(policy).unwrap_or_default());
        Self(hash.into_u128())
    }

    /// The digest as 32 hexadecimal digits, as the index stores it.
    #[must_use]
    pub fn to_hex(self) -> String {
        format!("{:032x}", self.0)
    }

    /// Parses the output of [`ContentDigest::to_hex`]. `None` for other text.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}
