//! Stores a decision and carries it out. After the write, the decision survives a crash of this process.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use super::reply::{decision_error_reply, store_failure_reply};
use crate::accept::{self, CallOutcome, NextStep};
use crate::app::App;
use crate::approval::{Approval, ApprovalState, CallResult, Decision, DecisionError, Review};
use crate::chat::{Dependency, Reply};
use crate::logging::ErrorChain;
use crate::store::{self, Saved, Stored};

/// How often to try to store a decision while other processes change the record.
const MAX_DECISION_TRIES: u32 = 5;

/// An older reading is repeated before the call.
const MAX_READING_AGE: Duration = Duration::from_secs(1);

/// The record has other facts than the decision. Holds the record.
pub(super) struct OutdatedReading(pub(super) Stored);

/// Stores the decision. If it completes the request, carries it out.
pub(super) async fn store_decision(
    app: &App,
    mut before: Option<Stored>,
    review: &Review<'_>,
    read_at: Instant,
    decision: Decision,
    deadline: Instant,
) -> Result<Reply, OutdatedReading> {
    let now = decision.at;
    for _ in 0..MAX_DECISION_TRIES {
        let earlier = before.as_ref().map(|stored| &stored.approval);
        let approval = match (Approval::apply_decision(earlier, review, decision.clone()), before.as_ref()) {
            (Ok(approval), _) => approval,
            (Err(DecisionError::FactsChanged), Some(earlier)) => return Err(OutdatedReading(earlier.clone())),
            (Err(error), Some(earlier)) => return Ok(decision_error_reply(error, earlier.approval.clone())),
            // A new request takes every decision, so this does not happen.
            (Err(_), None) => return Ok(Reply::Unavailable(Dependency::Store)),
        };
        match timeout_at(deadline, app.store.save(&approval, before.as_ref())).await {
            Ok(Ok(Saved::Done(stored))) if *stored.approval.state() == ApprovalState::Pending => {
                return Ok(Reply::Counted(Box::new(stored.approval)));
            }
            Ok(Ok(Saved::Done(stored))) => {
                return Ok(carry_out_while_sender_waits(app, stored, read_at, now, deadline).await);
            }
            Ok(Ok(Saved::Conflict(theirs))) => before = Some(theirs),
            Ok(Err(error)) => return Ok(store_failure_reply(&error)),
            Err(_elapsed) => return Ok(Reply::Unavailable(Dependency::Store)),
        }
    }
    Ok(Reply::Unavailable(Dependency::Store))
}

/// Carries out a stored decision. Failures here only affect what the sender is told.
async fn carry_out_while_sender_waits(
    app: &App,
    stored: Stored,
    read_at: Instant,
    now: Timestamp,
    deadline: Instant,
) -> Reply {
    let decided = Box::new(stored.approval.clone());
    let finish = async {
        let prepared = if read_at.elapsed() < MAX_READING_AGE {
            NextStep::Call
        } else {
            accept::determine_next_step(app, &stored.approval, false, now).await
        };
        let step = match prepared {
            NextStep::Call => accept::make_call(app, &stored.approval, now).await,
            NextStep::Apply(event) => CallOutcome { event, result: CallResult::NotMade },
        };
        let generation = stored.approval.generation();
        let apply = |approval: &mut Approval| step.apply_to(approval, generation, now);
        let stored = app.store.update(stored, apply).await?;
        accept::log_event(&stored.approval, &step.event);
        Ok::<_, store::Error>(stored.approval)
    };
    match timeout_at(deadline, finish).await {
        // The facts have changed, so the decision no longer counts.
        Ok(Ok(approval))
            if approval.generation() != decided.generation() || *approval.state() == ApprovalState::Pending =>
        {
            Reply::ConnectionChanged
        }
        Ok(Ok(approval)) if matches!(approval.state(), ApprovalState::Approved | ApprovalState::Rejecting) => {
            Reply::InProgress(Box::new(approval))
        }
        Ok(Ok(approval)) => Reply::Done(Box::new(approval)),
        Ok(Err(error)) => {
            tracing::error!(outcome = error.log_outcome(), error = %ErrorChain(&error), "could not store the outcome of a call");
            Reply::InProgress(decided)
        }
        Err(_elapsed) => {
            tracing::warn!(
                outcome = "out_of_time",
                peering.id = decided.id().instance_id.as_str(),
                "ran out of time for a call; the watcher takes it over"
            );
            Reply::InProgress(decided)
        }
    }
}
