//! What must be seen after a step.

use serde::Serialize;

use super::player::StoryPlayer;
use crate::approval::History;
use crate::local::Error;
use crate::local::chat_stage::ChatApp;
use serde_json::json;

/// Something that must be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoryExpectation {
    /// In words. Empty for what the next expectation says.
    pub says: &'static str,
    /// How it is seen.
    pub check: StoryCheck,
}

/// How something is seen. What does not hold yet is awaited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoryCheck {
    /// The webhook replied with this HTTP status.
    Status(u16),
    /// The webhook replied with this name.
    Named(&'static str),
    /// The person reads each of these texts.
    Reads(&'static [&'static str]),
    /// The latest card in Slack has each of these texts.
    Card(&'static [&'static str]),
    /// The latest card in Slack has exactly these buttons.
    Buttons(&'static [&'static str]),
    /// The latest card on another platform has this number of messages in its thread.
    Thread(ChatApp, usize),
    /// The number of events that the auditors' URL got.
    AuditEvents(usize),
    /// How often Alibaba Cloud accepted the connection.
    Accepts(usize),
    /// Alibaba Cloud was asked with the client token of the record only.
    OneToken,
    /// The channel itself shows an alarm with this text.
    Alarm(&'static str),
    /// The record has this state.
    State(&'static str),
    /// The record has no client token: peergate has decided nothing.
    NoToken,
    /// The hash chain of the record holds.
    ChainHolds,
    /// An edit of the record breaks it.
    EditBreaks,
}

impl StoryPlayer {
    /// Whether it holds now.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn holds(&self, check: &StoryCheck) -> Result<bool, Error> {
        let stage = self.stage();
        let card = || stage.last_card();
        Ok(match check {
            StoryCheck::Status(status) => self.last_reply().is_some_and(|reply| reply.status == *status),
            StoryCheck::Named(name) => self.last_reply().is_some_and(|reply| reply.name() == *name),
            StoryCheck::Reads(texts) => texts.iter().all(|text| self.last_answer().contains(text)),
            StoryCheck::Card(texts) => card().is_some_and(|card| texts.iter().all(|text| card.text.contains(text))),
            StoryCheck::Buttons(labels) => card().is_some_and(|card| card.button_labels() == *labels),
            StoryCheck::Thread(app, length) => {
                app.messages(stage).last().is_some_and(|card| card.replies.len() == *length)
            }
            StoryCheck::AuditEvents(number) => stage.slack.posts("/audit").len() == *number,
            StoryCheck::Accepts(number) => self.current().is_some_and(|id| stage.count_accepts(id) == *number),
            StoryCheck::OneToken => {
                let token = self.record().await?.and_then(|it| it.client_token().map(|it| it.as_str().to_owned()));
                token.is_some_and(|token| stage.accept_tokens().iter().all(|used| *used == token))
            }
            StoryCheck::Alarm(text) => {
                card().is_some_and(|card| card.replies.iter().any(|reply| reply.broadcast && reply.text.contains(text)))
            }
            StoryCheck::State(name) => self.record().await?.is_some_and(|record| record.state().name() == *name),
            StoryCheck::NoToken => self.record().await?.is_some_and(|record| record.client_token().is_none()),
            StoryCheck::ChainHolds => match self.record().await? {
                Some(record) => History::verify(&record.id().to_string(), &serde_json::to_value(&record)?).is_ok(),
                None => false,
            },
            StoryCheck::EditBreaks => match self.record().await? {
                Some(record) => {
                    let mut edited = serde_json::to_value(&record)?;
                    if let Some(by) = edited.pointer_mut("/history/1/what/decided/by/person") {
                        *by = json!("mallory");
                    }
                    History::verify(&record.id().to_string(), &edited).is_err()
                }
                None => false,
            },
        })
    }
}
