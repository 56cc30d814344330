//! The part of a record that the store's index holds. It is enough to see, without the record, whether a reading is
//! new.

use std::collections::BTreeSet;

use ipnet::IpNet;
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
    /// Usable. The digests cover what was seen last.
    Active(ActiveDigest),
    /// Final, whatever a reading shows.
    Settled,
}

/// Digests of an activated connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ActiveDigest {
    /// Of what the last reading showed. Zero if every reading is new.
    pub seen: ContentDigest,
    /// Of the CIDR blocks of our VPC when it was last read. Zero if it never was.
    pub own_vpc: ContentDigest,
}

impl ActiveDigest {
    /// The digests as 64 hexadecimal digits, as the index stores them.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.seen.to_hex() + &self.own_vpc.to_hex()
    }

    /// Parses the output of [`ActiveDigest::to_hex`]. `None` for other text.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let (seen, own_vpc) = text.split_at_checked(32)?;
        Some(Self { seen: ContentDigest::from_hex(seen)?, own_vpc: ContentDigest::from_hex(own_vpc)? })
    }
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
            ApprovalState::Activated => IndexState::Active(ActiveDigest {
                seen: match (&self.unconfirmed, self.upkeep.away()) {
                    (None, None) => ContentDigest::of_active(&self.connection),
                    (None, Some(away)) if away.is_lasting => ContentDigest::of_lasting(&self.connection),
                    (None, Some(away)) => ContentDigest::of_status(&away.status),
                    // Every reading is new.
                    (Some(_), _) => ContentDigest::default(),
                },
                own_vpc: self.own_vpc().map(ContentDigest::of_cidrs).unwrap_or_default(),
            }),
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
        matches!(self, Self::Ended | Self::Failed | Self::AcceptedElsewhere | Self::Active(_) | Self::Settled)
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
            Self::Active(digest) => match connection.status {
                Status::Activated => digest.seen != ContentDigest::of_active(connection),
                Status::Deleted => true,
                // `Updating` means that an owner changes it; the next reading shows what has become of it.
                Status::Creating
                | Status::Accepting
                | Status::Updating
                | Status::Rejected
                | Status::Expired
                | Status::Deleting
                | Status::Other(_) => {
                    digest.seen != ContentDigest::of_status(&connection.status)
                        && digest.seen != ContentDigest::of_lasting(connection)
                }
            },
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

    /// Digests what is compared of an activated connection.
    #[must_use]
    pub fn of_active(connection: &Connection) -> Self {
        let mut hash = FieldHash::new("peergate/active/1");
        hash.add_field(&connection.fingerprint().to_string());
        hash.add_field(&connection.business_status.to_string());
        Self(hash.into_u128())
    }

    /// Digests a status other than `Activated`: what else a reading shows then may pass.
    #[must_use]
    pub fn of_status(status: &Status) -> Self {
        let mut hash = FieldHash::new("peergate/away/1");
        hash.add_field(&status.to_string());
        Self(hash.into_u128())
    }

    /// Digests what is compared of a connection whose status lasts.
    #[must_use]
    pub fn of_lasting(connection: &Connection) -> Self {
        let mut hash = FieldHash::new("peergate/lasting/1");
        hash.add_field(&connection.status.to_string());
        hash.add_field(&connection.fingerprint().to_string());
        hash.add_field(&connection.business_status.to_string());
        Self(hash.into_u128())
    }

    /// Digests the CIDR blocks of a VPC.
    #[must_use]
    pub fn of_cidrs(cidrs: &BTreeSet<IpNet>) -> Self {
        let mut hash = FieldHash::new("peergate/vpc/1");
        for cidr in cidrs {
            hash.add_field(&cidr.to_string());
        }
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
