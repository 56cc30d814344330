//! A status other than `Activated` of a connection that was activated. It may pass: the change of an owner takes seconds.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::peering::Status;

/// How long such a status lasts before it is told.
const LASTING_STATUS: SignedDuration = SignedDuration::from_hours(1);

/// The status, and how long the readings have shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AwayStatus {
    pub(super) status: Status,
    since: Timestamp,
    pub(super) is_lasting: bool,
}

impl AwayStatus {
    /// What a reading makes of what the last one showed. `None` if the connection is `Activated`.
    pub(super) fn after(before: Option<Self>, status: &Status, now: Timestamp) -> Option<Self> {
        match before {
            _ if *status == Status::Activated => None,
            Some(away) if away.status == *status => {
                let is_lasting = away.is_lasting || now.duration_since(away.since) >= LASTING_STATUS;
                Some(Self { is_lasting, ..away })
            }
            Some(_) | None => Some(Self { status: status.clone(), since: now, is_lasting: false }),
        }
    }

    /// When it will have lasted. `None` if it has.
    pub(super) fn lasting_at(&self) -> Option<Timestamp> {
        self.since.checked_add(LASTING_STATUS).ok().filter(|_| !self.is_lasting)
    }
}
