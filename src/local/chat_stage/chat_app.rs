//! The list of chat platforms that the stage has: what each shows, and how a person clicks there.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ButtonClick, CastMember, ChatStage, ClickOutcome};
use crate::fake::ChatMessage;
use crate::fake::dingtalk::CONVERSATION_ID;
use crate::fake::feishu::CHAT_ID;
use crate::fake::teams::CHANNEL_ID;
use crate::local::Error;
use crate::local::actions::{CHANNEL, ON_CALL};

/// A platform where people click. A new one is a line in each function below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChatApp {
    /// Slack.
    Slack,
    /// Feishu.
    Feishu,
    /// DingTalk.
    #[serde(rename = "dingtalk")]
    DingTalk,
    /// Microsoft Teams.
    Teams,
}

/// A message that only one person reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrivateMessage {
    /// The id of the message.
    pub id: String,
    /// Who reads it.
    pub to: CastMember,
    /// Where.
    pub app: ChatApp,
    /// When it came.
    pub at: Timestamp,
    /// The body, as it was sent.
    pub body: Value,
    /// The text that the person reads.
    pub text: String,
}

impl ChatApp {
    /// Every platform, in the order of the tabs.
    pub const ALL: [Self; 4] = [Self::Slack, Self::Feishu, Self::DingTalk, Self::Teams];

    /// The name in addresses and in the name of the module that draws its cards.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Feishu => "feishu",
            Self::DingTalk => "dingtalk",
            Self::Teams => "teams",
        }
    }

    /// The name for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Slack => "Slack",
            Self::Feishu => "Feishu",
            Self::DingTalk => "DingTalk",
            Self::Teams => "Teams",
        }
    }

    /// The channel that is shown.
    #[must_use]
    pub fn channel(self) -> &'static str {
        match self {
            Self::Slack => "#netops",
            Self::Feishu | Self::DingTalk | Self::Teams => "netops",
        }
    }

    /// Whether a reason is asked for in a modal, not on the card.
    #[must_use]
    pub fn asks_in_modal(self) -> bool {
        match self {
            Self::Slack => true,
            Self::Feishu | Self::DingTalk | Self::Teams => false,
        }
    }

    /// Who somebody is on the platform.
    #[must_use]
    pub fn user_id(self, person: CastMember) -> &'static str {
        match self {
            Self::Slack => person.slack_id(),
            Self::Feishu => person.feishu_id(),
            Self::DingTalk => person.dingtalk_id(),
            Self::Teams => person.teams_id(),
        }
    }

    /// The messages of the channel, the oldest first.
    #[must_use]
    pub fn messages(self, stage: &ChatStage) -> Vec<ChatMessage> {
        match self {
            Self::Slack => stage.slack.bodies_in(CHANNEL),
            Self::Feishu => stage.feishu.bodies_in(CHAT_ID),
            Self::DingTalk => stage.dingtalk.bodies_in(CONVERSATION_ID),
            Self::Teams => stage.teams.bodies_in(CHANNEL_ID),
        }
    }

    /// The messages of the channel of the escalations, `#oncall`, the oldest first.
    #[must_use]
    pub fn escalations(self, stage: &ChatStage) -> Vec<ChatMessage> {
        match self {
            Self::Slack => stage.slack.bodies_in(ON_CALL),
            Self::Feishu | Self::DingTalk | Self::Teams => vec![],
        }
    }

    pub(super) async fn click(self, stage: &ChatStage, click: &ButtonClick) -> Result<ClickOutcome, Error> {
        match self {
            Self::Slack => stage.click_in_slack(click).await,
            Self::Feishu => stage.click_in_feishu(click).await,
            Self::DingTalk => stage.click_in_dingtalk(click).await,
            Self::Teams => stage.click_in_teams(click).await,
        }
    }
}
