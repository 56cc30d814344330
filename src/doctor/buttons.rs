//! Checks the keys that sign buttons: whether there are any, where they come from, and which open cards they cover.

use std::collections::BTreeMap;

use super::Report;
use crate::app::App;
use crate::approval::CardKey;
use crate::chat::platform::Platform;
use crate::clock;
use crate::secrets::SecretSet;
use crate::store::{self, UNFINISHED_DUE_BEFORE};

/// The check counts the cards of so many records at most.
const MAX_COUNTED_RECORDS: usize = 1000;

/// Checks each configured platform that has buttons.
pub(super) async fn examine_buttons(app: &App, secrets: &SecretSet, report: &mut Report) {
    let context = app.chat_context(secrets);
    let has_buttons =
        |platform: &&Platform| platform.is_configured(&app.config.platforms) && platform.max_binding_chars() > 0;
    let platforms: Vec<_> = Platform::ALL.iter().filter(has_buttons).collect();
    let mut known_keys = vec![];
    for platform in &platforms {
        let keys = context.keyring(**platform).key_ids();
        if keys.is_empty() {
            let subject = format!("buttons of {}", platform.name());
            report.add_problem(subject, "there is no key, so cards have no buttons", "Store `binding_keys`.");
        }
        known_keys.extend(keys);
    }
    if platforms.is_empty() {
        return;
    }
    if secrets.binding_keys.is_empty() {
        report.add_warning(
            "buttons",
            "their keys are derived from the secrets of the platforms, so a rotation of those disables old buttons",
            "Store `binding_keys`: a list with the output of `openssl rand -base64 32`.",
        );
    }
    match count_open_cards(app).await {
        Ok(counts) => report_open_cards(&counts, &known_keys, report),
        Err(error) => report.add_unknown("open cards", error.to_string(), "See the checks of the table."),
    }
}

/// The number of open cards by key.
async fn count_open_cards(app: &App) -> Result<BTreeMap<Option<CardKey>, usize>, store::Error> {
    let (mut ids, mut next) = (vec![], None);
    loop {
        let page = app.store.due_entries(UNFINISHED_DUE_BEFORE, next).await?;
        ids.extend(page.items.into_iter().filter(|entry| !entry.state.is_final()).map(|entry| entry.id));
        next = page.next;
        if next.is_none() || ids.len() >= MAX_COUNTED_RECORDS {
            break;
        }
    }
    ids.truncate(MAX_COUNTED_RECORDS);
    let records = app.store.load_many(&ids).await?;
    let mut counts = BTreeMap::new();
    let now = clock::now();
    for stored in records.values().flatten().filter(|stored| stored.approval.is_open(now)) {
        for card in stored.approval.cards().values() {
            *counts.entry(card.key).or_insert(0) += 1;
        }
    }
    Ok(counts)
}

fn report_open_cards(counts: &BTreeMap<Option<CardKey>, usize>, known_keys: &[CardKey], report: &mut Report) {
    for (key, cards) in counts {
        match key {
            Some(key) if known_keys.contains(key) => {
                report.add_healthy("open cards", format!("{cards} with the key {key}"));
            }
            Some(key) => {
                let detail = format!("{cards} with the key {key}, which is gone: their buttons decide nothing");
                report.add_warning("open cards", detail, "A click on such a card updates it.");
            }
            None => {
                let detail =
                    format!("{cards} without a key: from an earlier version, or with too much text for buttons");
                let fix = "The watcher updates the cards of an earlier version in its next tick.";
                report.add_warning("open cards", detail, fix);
            }
        }
    }
}
