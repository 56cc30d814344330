//! Channels of the requester. They hear what becomes of the request, and nothing of how it is decided. What they show counts
//! for no decision.

use super::upkeep::changes_for_requester;
use super::{Approval, NotificationKind, Verdict};

impl Approval {
    /// Whether a channel is the requester's, and was never one of the approvers.
    #[must_use]
    pub fn is_requesters_only(&self, channel: &str) -> bool {
        let of_approvers = |channel: &str| {
            let policy = &self.policy;
            policy.channels.iter().chain(&policy.escalate_to).any(|other| other == channel)
                || self.cards.contains_key(channel)
                || self.shown.contains_key(channel)
        };
        (self.requester_channels.contains(channel) || self.policy.requester_channels.iter().any(|it| it == channel))
            && !of_approvers(channel)
    }

    /// The channels that hear of this, out of those of the approvers, and those of the requester if it concerns them.
    pub(super) fn audience_of(&mut self, kind: &NotificationKind, mut audience: Vec<String>) -> Vec<String> {
        let concerns = concerns_requester(kind) && self.is_seen_by_requester(kind);
        audience.retain(|channel| concerns || !self.is_requesters_only(channel));
        if concerns {
            for channel in self.policy.requester_channels.clone() {
                if self.is_requesters_only(&channel) {
                    // It stays the requester's, whatever the configuration says later.
                    self.requester_channels.insert(channel.clone());
                }
                if !audience.contains(&channel) {
                    audience.push(channel);
                }
            }
        }
        audience
    }
}

impl Approval {
    /// Whether the requester can see what has changed. A change of our own VPC can be one that the peering does not show.
    fn is_seen_by_requester(&mut self, kind: &NotificationKind) -> bool {
        if let NotificationKind::Drifted { changes } = kind {
            let is_seen = !changes_for_requester(changes).is_empty();
            self.upkeep.requester_knows |= is_seen;
            is_seen
        } else if matches!(kind, NotificationKind::DriftEnded | NotificationKind::DriftAcknowledged { .. }) {
            std::mem::take(&mut self.upkeep.requester_knows)
        } else {
            true
        }
    }
}

/// Whether the requester is to hear of it. They do not hear who is asked again, what is checked, and who has not decided.
fn concerns_requester(kind: &NotificationKind) -> bool {
    match kind {
        NotificationKind::Decided { decision, given, needed } => decision.verdict == Verdict::Reject || given >= needed,
        NotificationKind::DriftAcknowledged { given, needed, .. } => given >= needed,
        NotificationKind::Discovered
        | NotificationKind::Changed { .. }
        | NotificationKind::SentBack { .. }
        | NotificationKind::Activated { .. }
        | NotificationKind::Drifted { .. }
        | NotificationKind::DriftEnded
        | NotificationKind::Removed { .. }
        | NotificationKind::Rejected(_)
        | NotificationKind::Expired
        | NotificationKind::Deleted
        | NotificationKind::Failed { .. }
        | NotificationKind::RuleChanged { .. }
        | NotificationKind::Corrected { .. } => true,
        NotificationKind::Checked
        | NotificationKind::Withdrawn { .. }
        | NotificationKind::Reminder { .. }
        | NotificationKind::Escalated { .. }
        | NotificationKind::ExpiresSoon { .. }
        | NotificationKind::Accepted(_)
        | NotificationKind::Bypassed { .. }
        | NotificationKind::Stuck { .. }
        | NotificationKind::FactsDiffer { .. }
        | NotificationKind::Adopted { .. }
        | NotificationKind::DriftReminder { .. } => false,
    }
}
