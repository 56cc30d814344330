//! What happened in the playground, as numbered events that a page can read again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::redact::{KnownSecrets, RedactedExchange, is_same_listing};
use crate::fake::traffic::Exchange;

/// The most events that are kept. A page that was away for longer begins with the present state.
const MAX_EVENTS: usize = 1500;
/// The most exchanges that can be copied.
const MAX_EXCHANGES: usize = 600;
/// The most bytes of events, and the most bytes of exchanges.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// All events.
#[derive(Debug)]
pub(super) struct Journal {
    state: Mutex<JournalState>,
    last_id: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct JournalState {
    events: VecDeque<JournalEvent>,
    last_id: u64,
    exchanges: BTreeMap<u64, RecordedExchange>,
    last_exchange: u64,
    secrets: KnownSecrets,
}

/// An exchange, and how often it was repeated without any difference.
#[derive(Debug, Clone)]
struct RecordedExchange {
    exchange: Exchange,
    repeats: u32,
}

/// An event for the page.
#[derive(Debug, Clone)]
pub(super) struct JournalEvent {
    pub(super) id: u64,
    pub(super) kind: EventKind,
    pub(super) data: String,
    /// For an exchange: its number.
    exchange: Option<u64>,
}

/// What an event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventKind {
    /// Everything begins again.
    Reset,
    /// A step begins.
    Step,
    /// An HTTP exchange.
    Http,
    /// The present state of everything. Only the latest one is kept.
    State,
}

impl EventKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Step => "step",
            Self::Http => "http",
            Self::State => "state",
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self { state: Mutex::default(), last_id: watch::Sender::new(0) }
    }
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, JournalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything. Pages begin again, too. No event shows any of these secrets.
    pub(super) fn reset(&self, secrets: KnownSecrets) {
        let mut state = self.lock();
        state.secrets = secrets;
        state.events.clear();
        state.exchanges.clear();
        let id = state.push(EventKind::Reset, &json!({}), None);
        drop(state);
        self.last_id.send_replace(id);
    }

    /// Adds an event. A state that equals the latest one is left out.
    pub(super) fn push(&self, kind: EventKind, data: &Value) {
        let mut state = self.lock();
        if kind == EventKind::State {
            let text = state.secrets.remove_from(data.to_string());
            let is_state = |event: &JournalEvent| event.kind == EventKind::State;
            if state.events.iter().any(|event| is_state(event) && event.data == text) {
                return;
            }
            state.events.retain(|event| !is_state(event));
        }
        let id = state.push(kind, data, None);
        drop(state);
        self.last_id.send_replace(id);
    }

    /// Adds an exchange. A list that shows what the list before it showed is counted with it.
    pub(super) fn push_exchange(&self, exchange: Exchange) {
        let mut state = self.lock();
        let same = state.exchanges.iter().rev().take(12).find(|(_, it)| is_same_listing(&it.exchange, &exchange));
        let (number, repeats) = match same {
            Some((number, it)) => (*number, it.repeats.saturating_add(1)),
            None => (state.last_exchange.saturating_add(1), 1),
        };
        state.last_exchange = state.last_exchange.max(number);
        state.events.retain(|event| event.exchange != Some(number));
        let data = RedactedExchange::of(&exchange).to_json(number, repeats);
        state.exchanges.insert(number, RecordedExchange { exchange, repeats });
        state.forget_old_exchanges();
        let id = state.push(EventKind::Http, &data, Some(number));
        drop(state);
        self.last_id.send_replace(id);
    }

    /// The exchange with this number.
    pub(super) fn exchange(&self, number: u64) -> Option<Exchange> {
        self.lock().exchanges.get(&number).map(|it| it.exchange.clone())
    }

    /// The events after `id`. If some of them are gone, or the id is from another time, all events.
    pub(super) fn events_after(&self, id: u64) -> Vec<JournalEvent> {
        let state = self.lock();
        let from = if id > state.last_id { 0 } else { id };
        state.events.iter().filter(|event| event.id > from).cloned().collect()
    }

    /// A sign of each new event.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.last_id.subscribe()
    }
}

impl JournalState {
    fn push(&mut self, kind: EventKind, data: &Value, exchange: Option<u64>) -> u64 {
        self.last_id = self.last_id.saturating_add(1);
        let data = self.secrets.remove_from(data.to_string());
        self.events.push_back(JournalEvent { id: self.last_id, kind, data, exchange });
        let mut bytes: usize = self.events.iter().map(|event| event.data.len()).sum();
        while self.events.len() > MAX_EVENTS || bytes > MAX_BYTES {
            bytes = bytes.saturating_sub(self.events.pop_front().map_or(bytes, |oldest| oldest.data.len()));
        }
        self.last_id
    }

    fn forget_old_exchanges(&mut self) {
        let mut bytes: usize = self.exchanges.values().map(|recorded| recorded.exchange.size()).sum();
        while self.exchanges.len() > MAX_EXCHANGES || bytes > MAX_BYTES {
            bytes =
                bytes.saturating_sub(self.exchanges.pop_first().map_or(bytes, |(_, oldest)| oldest.exchange.size()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Bytes;
    use axum::http::HeaderMap;

    use super::*;
    use crate::clock;

    fn exchange_of(body: Bytes) -> Exchange {
        Exchange {
            server: "slack",
            step: 1,
            at: clock::now(),
            method: "POST".to_owned(),
            path: "/".to_owned(),
            headers: HeaderMap::new(),
            body,
            status: Some(200),
            answer: Bytes::new(),
            took: Duration::ZERO,
        }
    }

    #[test]
    fn journal_keeps_a_number_of_bytes() {
        let journal = Journal::default();
        let body = Bytes::from(vec![b'x'; 1024 * 1024]);
        for _ in 0..40 {
            journal.push_exchange(exchange_of(body.clone()));
            journal.push(EventKind::Step, &json!({"why": "x".repeat(1024 * 1024)}));
        }
        let state = journal.lock();
        assert_eq!((state.exchanges.len(), state.exchanges.last_key_value().unwrap().0), (31, &40));
        let bytes: usize = state.events.iter().map(|event| event.data.len()).sum();
        assert!((MAX_BYTES / 2..=MAX_BYTES).contains(&bytes), "{bytes}");
    }
}
