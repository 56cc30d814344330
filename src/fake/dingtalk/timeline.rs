//! What a group or a person reads, in order, with the bodies that were sent.

use serde_json::json;

use super::{CardInstance, FakeDingTalk, FakeDingTalkState};
use crate::fake::ChatMessage;

/// Something that appeared in a group, or at a person.
#[derive(Debug, Clone)]
pub(super) struct ShownPart {
    /// The group or the person.
    pub(super) place: String,
    pub(super) kind: ShownKind,
}

#[derive(Debug, Clone)]
pub(super) enum ShownKind {
    /// A card, by its `outTrackId`.
    Card(String),
    Text(String),
}

impl FakeDingTalk {
    /// The cards and the messages of the app's robot in a group, or to a person, the oldest first. DingTalk has no threads.
    #[must_use]
    pub fn bodies_in(&self, place: &str) -> Vec<ChatMessage> {
        let state = self.lock();
        let here = state.timeline.iter().enumerate().filter(|(_, part)| part.place == place);
        here.filter_map(|(number, part)| state.show_part(number, part)).collect()
    }
}

impl FakeDingTalkState {
    fn show_part(&self, number: usize, part: &ShownPart) -> Option<ChatMessage> {
        let message = |id, body, edits| ChatMessage { id, body, edits, broadcast: false, replies: vec![] };
        match &part.kind {
            ShownKind::Text(text) => {
                Some(message(format!("text-{number}"), json!({"msgtype": "text", "text": {"content": text}}), 0))
            }
            ShownKind::Card(id) => {
                let card: &CardInstance = self.cards.iter().find(|card| card.out_track_id == *id)?;
                Some(message(id.clone(), json!({"cardParamMap": card.variables}), card.updates))
            }
        }
    }
}
