//! Every peering of the configured accounts, in one line each.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Message, cut_text, format_wait, join_with, sanitize_text, with_headline};
use crate::approval::{Attention, InventoryLine, InventoryOrigin, InventoryRole};

/// The most peerings and gaps in a message.
const MAX_LINES: usize = 30;
const MAX_GAPS: usize = 10;
/// The longest line, in characters, and the most people that it names.
const MAX_LINE_CHARS: usize = 250;
const MAX_NAMES: usize = 3;

/// The peerings that need attention are first in `lines`. What is missing stands before them: some platforms cut the end of
/// a long message.
pub(super) fn describe_inventory(
    target: Option<&str>,
    lines: &[InventoryLine],
    gaps: &[String],
    now: Timestamp,
) -> Message {
    let mut sentences: Vec<_> =
        gaps.iter().take(MAX_GAPS).map(|gap| format!("⚠ Not read: {}", sanitize_text(gap))).collect();
    let hidden = gaps.len().saturating_sub(MAX_GAPS);
    sentences.extend((hidden > 0).then(|| format!("⚠ {hidden} more could not be read.")));
    if lines.iter().any(|line| line.origin == InventoryOrigin::NeverApproved) {
        sentences.push(
            "An operator can take over a peering that was never approved here: `peergate adopt ID --by NAME --reason …`."
                .into(),
        );
    }
    if lines.len() > MAX_LINES {
        sentences.push(format!("These are the first {MAX_LINES}. `peergate inventory` on the command line shows all."));
    }
    sentences.extend(lines.iter().take(MAX_LINES).map(|line| inventory_line(line, now)));
    Message { sentences, ..with_headline(headline(target, lines, gaps)) }
}

/// How many peerings there are, and how many of them need attention.
fn headline(target: Option<&str>, lines: &[InventoryLine], gaps: &[String]) -> String {
    // A peering between two of our accounts has a line for each.
    let count = |is_meant: &dyn Fn(&&InventoryLine) -> bool| {
        lines.iter().filter(is_meant).map(|line| line.instance_id.as_str()).collect::<BTreeSet<_>>().len()
    };
    let scope = target.unwrap_or("our accounts");
    let total = match count(&|_| true) {
        0 if gaps.is_empty() => return format!("There is no VPC peering in the configured regions of {scope}"),
        0 => return "No VPC peering could be read".to_owned(),
        1 => "1 VPC peering".to_owned(),
        several => format!("{several} VPC peerings"),
    };
    let parts: Vec<_> = [
        (count(&|line| line.origin == InventoryOrigin::NeverApproved), "never approved here"),
        (count(&|line| line.attention() == Attention::Drifted), "changed"),
        (
            count(&|line| line.routes_complete == Some(false) && line.attention() != Attention::Inactive),
            "with incomplete routes",
        ),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| format!("{number} {what}"))
    .collect();
    let parts = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    let missing = if gaps.is_empty() { "" } else { " (⚠ not all could be read)" };
    format!("{total}{parts}{missing}")
}

fn inventory_line(line: &InventoryLine, now: Timestamp) -> String {
    // Warnings come first: a long line is cut.
    let mut parts = vec![sanitize_text(&line.status.to_string())];
    if line.origin == InventoryOrigin::NeverApproved {
        parts.push("⚠ never approved here".to_owned());
    }
    if !line.drift.is_empty() {
        parts.push(format!("⚠ changed: {}", line.drift.join(", ")));
    }
    let read_on = line.routes_read_at.map(|at| format!(" on {}", day(at))).unwrap_or_default();
    parts.extend(line.routes_complete.map(|complete| {
        if complete { format!("routes complete{read_on}") } else { format!("⚠ routes incomplete{read_on}") }
    }));
    parts.extend(describe_approval(line));
    parts.push(match line.role {
        InventoryRole::Accepting => {
            format!("from account {} to {}", line.requester_account, sanitize_text(&line.accepting_vpc))
        }
        InventoryRole::Requesting => {
            format!("to {} of account {}", sanitize_text(&line.accepting_vpc), line.accepting_account)
        }
    });
    let last_event = line.changed_at.map(day).filter(|last| line.approved_at.map(day).as_ref() != Some(last));
    parts.extend(last_event.map(|last| format!("last event on {last}")));
    parts.extend(describe_age(line, now).map(|age| format!("{age} old")));
    cut_text(&format!("{}/{}: {}", line.target, line.instance_id, parts.join("; ")), MAX_LINE_CHARS)
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// Who approved a peering, when, and under which rule; or why nobody had to. `None` if nobody did.
fn describe_approval(line: &InventoryLine) -> Option<String> {
    let at = line.approved_at.map(|at| format!(" on {}", day(at))).unwrap_or_default();
    let by = if line.approved_by.is_empty() { String::new() } else { format!(" by {}", names(&line.approved_by)) };
    let rule = line.rule.as_deref().map(|rule| format!(" (rule “{}”)", sanitize_text(rule))).unwrap_or_default();
    match line.origin {
        InventoryOrigin::Approved => Some(format!("approved{by}{at}{rule}")),
        InventoryOrigin::Adopted => Some(format!("adopted{by}{at}")),
        InventoryOrigin::NoApprovalNeeded | InventoryOrigin::RequestedByUs => {
            Some(describe_origin(line.origin).to_owned())
        }
        InventoryOrigin::NeverApproved | InventoryOrigin::NotActive => None,
    }
}

fn names(all: &[String]) -> String {
    let mut shown: Vec<_> = all.iter().take(MAX_NAMES).map(|name| sanitize_text(name)).collect();
    let hidden = all.len().saturating_sub(MAX_NAMES);
    shown.extend((hidden > 0).then(|| format!("{hidden} more")));
    join_with(&shown, "and")
}

/// Whether people approved a peering, in words.
#[must_use]
pub const fn describe_origin(origin: InventoryOrigin) -> &'static str {
    match origin {
        InventoryOrigin::Approved => "approved",
        InventoryOrigin::Adopted => "adopted",
        InventoryOrigin::NeverApproved => "never approved here",
        InventoryOrigin::NoApprovalNeeded => "no approval needed",
        InventoryOrigin::NotActive => "not active",
        InventoryOrigin::RequestedByUs => "requested by us",
    }
}

/// How long ago a peering was requested, e.g. `26 d 3 h`. `None` if the vendor does not say.
#[must_use]
pub fn describe_age(line: &InventoryLine, now: Timestamp) -> Option<String> {
    line.created_at.map(|created_at| format_wait(now.duration_since(created_at).as_secs()))
}
