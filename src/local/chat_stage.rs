//! A sandbox with every chat platform that has a fake, and the people who click there. The stories play on it, in the
//! terminal and on the playground's page.

mod chat_app;
mod dingtalk_click;
mod feishu_click;
mod person;
mod sent;
mod slack_click;
mod teams_click;

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use url::Url;

pub use chat_app::{ChatApp, PrivateMessage};
pub use person::CastMember;
pub use sent::{SentRequest, SignedAs};

use super::Error;
use super::actions::{Stage, WebhookReply, call_webhook};
use super::sandbox::Sandbox;
use crate::chat::SignedRequest;
use crate::clock;
use crate::fake::dingtalk::FakeDingTalk;
use crate::fake::feishu::FakeFeishu;
use crate::fake::slack::SlackCard;
use crate::fake::teams::FakeTeams;

/// The most requests to the webhook that can be signed again.
const MAX_SENT: usize = 500;
/// The most private messages that are kept.
const MAX_PRIVATE: usize = 200;

/// A stage with all chats.
#[derive(Debug)]
pub struct ChatStage {
    stage: Stage,
    /// The fake of Feishu.
    pub feishu: FakeFeishu,
    /// The fake of DingTalk.
    pub dingtalk: FakeDingTalk,
    /// The fake of Microsoft Teams.
    pub teams: FakeTeams,
    log: Mutex<ClickLog>,
}

/// What people sent, and what only they read.
#[derive(Debug, Default)]
struct ClickLog {
    sent: Vec<SentRequest>,
    private: Vec<PrivateMessage>,
    /// The time in the last signature of DingTalk.
    dingtalk_time: Option<Timestamp>,
}

/// A click of a person on a button.
#[derive(Debug, Clone)]
pub struct ButtonClick {
    /// Who clicks.
    pub by: CastMember,
    /// Where.
    pub app: ChatApp,
    /// The id of the message. Without it, the latest message with such a button.
    pub message: Option<String>,
    /// The visible text of the button.
    pub label: String,
    /// The text of the field beside the button, where a platform has one.
    pub reason: Option<String>,
}

/// What came of a click.
#[derive(Debug)]
pub struct ClickOutcome {
    /// What the webhook replied.
    pub reply: WebhookReply,
    /// The modal that opened.
    pub modal: Option<Value>,
    /// What only the person reads.
    pub private: Option<PrivateMessage>,
}

impl Deref for ChatStage {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl DerefMut for ChatStage {
    fn deref_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }
}

impl ChatStage {
    /// Adds the fakes of the other platforms to a sandbox whose webhook is at `webhook`.
    ///
    /// # Errors
    /// When a fake cannot start.
    pub async fn new(mut sandbox: Sandbox, webhook: Url) -> Result<Self, Error> {
        let feishu = FakeFeishu::default();
        let url = sandbox.add_server("feishu", feishu.clone().router()).await?;
        sandbox.add_extension(&feishu.sandbox_extension(&url))?;
        let dingtalk = FakeDingTalk::default();
        let url = sandbox.add_server("dingtalk", dingtalk.clone().router()).await?;
        sandbox.add_extension(&dingtalk.sandbox_extension(&url))?;
        let teams = FakeTeams::default();
        let url = sandbox.add_server("teams", teams.clone().router()).await?;
        sandbox.add_extension(&teams.sandbox_extension(&url))?;
        install_teams_bot(&sandbox, &teams).await?;
        let stage = Stage::over_http(sandbox, webhook)?;
        Ok(Self { stage, feishu, dingtalk, teams, log: Mutex::default() })
    }

    /// DingTalk signs the time alone, so two clicks of one millisecond would have the same signature.
    fn next_dingtalk_time(&self, now: Timestamp) -> Timestamp {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = log.dingtalk_time.map(|last| last + SignedDuration::from_millis(1));
        let next = earliest.map_or(now, |earliest| earliest.max(now));
        log.dingtalk_time = Some(next);
        next
    }

    /// Clicks a button, and shows the person the answer.
    ///
    /// # Errors
    /// When there is no such button, or the webhook does not reply.
    pub async fn click(&self, click: &ButtonClick) -> Result<ClickOutcome, Error> {
        click.app.click(self, click).await
    }

    /// Sends a request that somebody signed, and remembers how.
    ///
    /// # Errors
    /// When the webhook does not reply.
    pub async fn send_signed(&self, signed_as: SignedAs) -> Result<WebhookReply, Error> {
        let signed = signed_as.sign(self).await?;
        {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let excess = log.sent.len().saturating_sub(MAX_SENT);
            log.sent.drain(..excess);
            log.sent.push(SentRequest { signed: signed.clone(), signed_as });
        }
        self.stage.send(&signed).await
    }

    /// How the request with this body was signed.
    #[must_use]
    pub fn find_sent(&self, body: &[u8]) -> Option<SignedAs> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.sent.iter().rev().find(|sent| sent.signed.body.as_bytes() == body).map(|sent| sent.signed_as.clone())
    }

    /// The last request that somebody sent, with its signature.
    #[must_use]
    pub fn last_signed(&self) -> Option<SignedRequest> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.sent.last().map(|sent| sent.signed.clone())
    }

    /// What only one person reads, the oldest first.
    #[must_use]
    pub fn private_messages(&self) -> Vec<PrivateMessage> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).private.clone()
    }

    fn show_privately(&self, message: &PrivateMessage) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let excess = log.private.len().saturating_sub(MAX_PRIVATE);
        log.private.drain(..excess);
        log.private.push(message.clone());
    }

    /// The card of Slack that was posted last.
    #[must_use]
    pub fn last_card(&self) -> Option<SlackCard> {
        self.slack.messages_in(super::actions::CHANNEL).pop()
    }
}

/// Alice adds the bot to the team. The webhook's server does not answer yet, so its function is called.
async fn install_teams_bot(sandbox: &Sandbox, teams: &FakeTeams) -> Result<(), Error> {
    for activity in teams.install(&teams.user("alice")) {
        let reply = call_webhook(&sandbox.parts, &teams.sign(&activity)?, clock::now()).await?;
        if reply.status != 200 {
            return Err(format!("the bot of Teams cannot be installed: {}", reply.body).into());
        }
    }
    Ok(())
}
