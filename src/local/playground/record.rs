//! The record on the page: its entries with their hashes, what `verify` says, and what it says after an edit of a copy.

use serde_json::{Value, json};

use crate::approval::{Approval, ApprovalState, ClientToken};
use crate::chat::message::describe_entry;
use crate::local::Error;
use crate::local::audit::{check_records, scan_all};
use crate::local::stories::StoryPlayer;

/// What an edit puts into a decision.
const STRANGER: &str = "mallory";

/// The record of the current connection. Null if there is none.
pub(super) async fn describe(player: &StoryPlayer) -> Result<Value, Error> {
    let Some(record) = player.record().await? else { return Ok(Value::Null) };
    let id = record.id().to_string();
    let mut before = id.clone();
    let mut entries = vec![];
    for (number, entry) in record.history().iter().enumerate() {
        let fingerprint = entry.event.fingerprint().map(ToString::to_string);
        entries.push(json!({
            "number": number, "at": entry.at, "state": entry.state.name(), "words": describe_entry(entry),
            "hash": entry.hash, "before": before, "fingerprint": fingerprint,
            "kind": entry_kind(&serde_json::to_value(&entry.event)?, &entry.state),
        }));
        before.clone_from(&entry.hash);
    }
    let verified = check_records(&scan_all(&player.stage().parts.store).await?, None);
    let says = verified.as_ref().map_or_else(ToString::to_string, |text| text.trim().to_owned());
    Ok(json!({
        "id": id, "state": record.state().name(), "generation": record.generation(), "entries": entries,
        "verify": {"holds": verified.is_ok(), "says": says}, "due": due(&record), "token": record.client_token().map(ClientToken::as_str),
        "approved": record.approval_count(), "needed": record.policy().needed_approvals(),
        "attempts": record.attempts(), "problem": record.last_problem().map(|problem| problem.code.clone()),
    }))
}

fn entry_kind(event: &Value, state: &ApprovalState) -> &'static str {
    match (event.get("decided"), state.name()) {
        (Some(_), _) => "decided",
        (None, "activated") => "final",
        (None, "rejected" | "expired" | "deleted" | "failed") => "ended",
        (None, _) => "",
    }
}

/// What is due, in order.
fn due(record: &Approval) -> Vec<Value> {
    let policy = record.policy();
    let is_pending = *record.state() == ApprovalState::Pending;
    let mut due = vec![];
    if is_pending {
        let since = record.since();
        due.push(json!({"what": "reminder", "at": since + policy.remind_after}));
        due.extend(policy.escalate_after.map(|after| json!({"what": "escalation", "at": since + after})));
        if let Some(expires_at) = record.connection().expires_at {
            due.push(json!({"what": "expiry notice", "at": expires_at - policy.expiry_notice}));
            due.push(json!({"what": "expires", "at": expires_at}));
        }
    } else {
        due.extend(record.next_step_at().map(|at| json!({"what": "next step", "at": at})));
        if *record.state() == ApprovalState::Approved || *record.state() == ApprovalState::Activating {
            due.push(json!({"what": "stuck", "at": record.since() + policy.stuck_after}));
        }
    }
    due
}

/// Edits an entry of a copy of the records, and says what `verify` says then.
pub(super) async fn tamper(player: &StoryPlayer, entry: usize) -> Result<Value, Error> {
    let record = player.record().await?.ok_or("there is no record yet")?;
    let id = record.id().to_string();
    let mut records = scan_all(&player.stage().parts.store).await?;
    let scanned = records.iter_mut().find(|scanned| scanned.id == id).ok_or("there is no record yet")?;
    let mut edited = scanned.record.clone();
    let at = edited.pointer_mut(&format!("/history/{entry}")).ok_or("there is no such entry")?;
    let (was, now) = edit_entry(at)?;
    *scanned = scanned.with_record(&edited);
    let says = match check_records(&records, None) {
        Ok(text) => return Err(format!("verify did not notice: {text}").into()),
        Err(problems) => problems.to_string(),
    };
    Ok(json!({"entry": entry, "was": was, "now": now, "says": says}))
}

/// Puts a stranger into a decision, or another state into any other entry.
fn edit_entry(entry: &mut Value) -> Result<(String, String), Error> {
    let place = if entry.pointer("/what/decided/by/person").is_some() { "/what/decided/by/person" } else { "/state" };
    let field = entry.pointer_mut(place).ok_or("the entry has nothing to edit")?;
    let was = field.as_str().map_or_else(|| field.to_string(), ToOwned::to_owned);
    let now = if place == "/state" { if was == "rejected" { "approved" } else { "rejected" } } else { STRANGER };
    *field = now.into();
    Ok((was, now.to_owned()))
}
