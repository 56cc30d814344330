//! Acknowledgments of changes of activated connections.

use tokio::time::timeout_at;

use super::decision::Attempt;
use super::reply::{decision_error_reply, store_failure_reply};
use crate::approval::{Approval, Decision, Principal, Review, Verdict};
use crate::chat::{Dependency, Reply};
use crate::peering::Connection;
use crate::store::Stored;

impl Attempt<'_> {
    /// Counts the sender's acknowledgment of a drift. The reading must show exactly what the sender saw.
    pub(super) async fn acknowledge_drift(self, stored: Option<Stored>, connection: &Connection) -> Reply {
        let Self { app, id, deadline, ref by, .. } = self;
        let policy = &app.config.policy;
        let Some(stored) = stored else { return Reply::NothingToAcknowledge };
        let Some(drift) = stored.approval.drift() else { return Reply::NothingToAcknowledge };
        if stored.approval.drift_fingerprint(connection, None) != drift.fingerprint {
            // The watcher tells what has become of it.
            return Reply::ConnectionChanged;
        }
        if let Err(refusal) = policy.authorize_decision(&id.target, connection, by, Verdict::Approve) {
            return Reply::Refused(refusal);
        }
        let snapshot = policy.snapshot_for(&id.target, connection);
        if !self.has_seen_facts(Some(&stored), &drift.fingerprint, &snapshot) {
            return self.store_refusal(stored).await;
        }
        let decision =
            Decision { fingerprint: drift.fingerprint.clone(), ..self.decision_about(Verdict::Approve, connection) };
        let eligible_approver = |principal: &Principal| policy.eligible_approver(&id.target, connection, principal);
        let review = Review { id, connection, policy: &snapshot, findings: &[], eligible_approver: &eligible_approver };
        let mut error = None;
        let acknowledge = |approval: &mut Approval| {
            error = approval.acknowledge_drift(&review, decision.clone()).err();
            error.is_none()
        };
        match timeout_at(deadline, app.store.update(stored, acknowledge)).await {
            Ok(Ok(stored)) => match error {
                None => Reply::Acknowledged(Box::new(stored.approval)),
                Some(error) => decision_error_reply(error, stored.approval),
            },
            Ok(Err(error)) => store_failure_reply(&error),
            Err(_elapsed) => Reply::Unavailable(Dependency::Store),
        }
    }
}
