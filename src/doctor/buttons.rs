//! The keys of buttons: whether there are any, where they come from, and which cards are under which.

use std::collections::BTreeMap;

use super::{Health, Report};
use crate::app::App;
use crate::approval::CardKey;
use crate::chat::platform::Platform;
use crate::secrets::SecretSet;
use crate::store::UNFINISHED_DUE_BEFORE;

/// The most records that are counted.
const MAX_COUNTED_RECORDS: usize = 1000;

/// Looks at the keys of each configured platform that has buttons.
pub(super) async fn examine_buttons(app: &App, secrets: &SecretSet, report: &mut Report) {
    let context = app.chat_context(secrets);
    let has_buttons = |it: &&Platform| it.is_configured(&app.config.platforms) && it.max_binding_chars() > 0;
    let platforms: Vec<_> = Platform::ALL.iter().filter(has_buttons).collect();
    let mut known = vec![];
    for platform in &platforms {
        let keys = context.keyring(**platform).key_ids();
        if keys.is_empty() {
            let what = format!("buttons of {}", platform.name());
            report.add_problem(what, "there is no key, so cards have no buttons", "Store `binding_keys`.");
        }
        known.extend(keys);
    }
    if platforms.is_empty() {
        return;
    }
    if secrets.binding_keys.is_empty() {
        report.add(
            Health::Warning,
            "buttons",
            "their keys are derived from the platforms' own secrets, so rotating those makes old buttons useless",
            "Store `binding_keys`: a list with the output of `openssl rand -base64 32`.",
        );
    }
    match count_open_cards(app).await {
        Ok(counted) => report_open_cards(&counted, &known, report),
        Err(error) => report.add(Health::Unknown, "open cards", error.to_string(), "Look again."),
    }
}

/// How many open cards there are under each key.
async fn count_open_cards(app: &App) -> Result<BTreeMap<Option<CardKey>, usize>, crate::store::Error> {
    let (mut ids, mut from) = (vec![], None);
    loop {
        let (page, more) = app.store.due_entries(UNFINISHED_DUE_BEFORE, from).await?;
        ids.extend(page.into_iter().filter(|entry| !entry.state.is_final()).map(|entry| entry.id));
        from = more;
        if from.is_none() || ids.len() >= MAX_COUNTED_RECORDS {
            break;
        }
    }
    ids.truncate(MAX_COUNTED_RECORDS);
    let records = app.store.load_many(&ids).await?;
    let mut counted = BTreeMap::new();
    let now = crate::clock::now();
    for stored in records.values().flatten().filter(|stored| stored.approval.is_open(now)) {
        for card in stored.approval.cards.values() {
            *counted.entry(card.key).or_insert(0) += 1;
        }
    }
    Ok(counted)
}

fn report_open_cards(counted: &BTreeMap<Option<CardKey>, usize>, known: &[CardKey], report: &mut Report) {
    for (key, cards) in counted {
        let what = "open cards";
        match key {
            Some(key) if known.contains(key) => report.add_healthy(what, format!("{cards} with the key {key}")),
            Some(key) => {
                let detail = format!("{cards} with the key {key}, which is gone: their buttons decide nothing");
                report.add(Health::Warning, what, detail, "A click on one has it redrawn.");
            }
            None => {
                let detail =
                    format!("{cards} without a key: of an earlier version, or with too much on it for buttons");
                report.add(
                    Health::Warning,
                    what,
                    detail,
                    "The watcher redraws those of an earlier version in its next tick.",
                );
            }
        }
    }
}
