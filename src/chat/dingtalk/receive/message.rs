//! Messages that people write to the robot, and where they are answered.

use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use url::Url;

use super::super::{Config, is_dingtalk_id};
use super::{allowed_principal, wrong_tenant};
use crate::chat::command::parse_command;
use crate::chat::command_words::{CommandProblem, UnknownCommand};
use crate::chat::malformed::JsonObject;
use crate::chat::{CommandRequest, Incoming, MalformedRequest, MessageRef, RequestOrigin};
use crate::http::is_secure;
use crate::secret::SecretUrl;

/// The longest text command, in bytes.
const MAX_TEXT_BYTES: usize = 16 * 1024;
/// The `conversationType` of a chat of one person with the robot.
const PRIVATE_CHAT: &str = "1";

/// Where DingTalk shows the answer.
#[derive(Clone, PartialEq, Eq)]
pub enum ReplyTo {
    /// To a click: in the HTTP response, which only the person sees. A longer answer is also sent to the person.
    Click {
        /// The person's `userId`.
        user_id: String,
    },
    /// To a message: sent to the person.
    Message {
        /// The person's `userId`.
        user_id: String,
        /// Posts to the chat that only the person and the robot are in. `None` for a group.
        private_chat: Option<SecretUrl>,
    },
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.log_label())
    }
}

impl ReplyTo {
    pub(in crate::chat) fn log_label(&self) -> &'static str {
        match self {
            Self::Click { .. } => "Click",
            Self::Message { .. } => "Text",
        }
    }

    /// The person.
    pub(in crate::chat::dingtalk) fn user_id(&self) -> &str {
        match self {
            Self::Click { user_id } | Self::Message { user_id, .. } => user_id,
        }
    }

    /// DingTalk's messages have no address.
    #[expect(clippy::unused_self, reason = "other platforms have links")]
    pub(in crate::chat) fn message_link(&self, _place: &MessageRef) -> Option<String> {
        None
    }
}

/// Source: <https://open.dingtalk.com/document/orgapp/receive-message>
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RobotCallback {
    conversation_type: Option<String>,
    sender_staff_id: Option<String>,
    sender_corp_id: Option<String>,
    chatbot_corp_id: Option<String>,
    msgtype: String,
    text: Option<RobotText>,
    session_webhook: Option<String>,
    session_webhook_expired_time: Option<i64>,
}

#[derive(Deserialize)]
struct RobotText {
    content: String,
}

/// Parses a message to the robot. DingTalk leaves the mention of the robot out of the text.
pub(super) fn parse_message(
    body: &[u8],
    origin: RequestOrigin,
    config: &Config,
) -> Result<Incoming<ReplyTo>, MalformedRequest> {
    let JsonObject(message) = MalformedRequest::parse_json::<JsonObject<RobotCallback>>(body)?;
    // Every organization that the message names must be ours.
    let corps: Vec<_> = [&message.sender_corp_id, &message.chatbot_corp_id].into_iter().flatten().collect();
    let foreign = corps.iter().find(|corp| ***corp != config.corp);
    if let Some(corp) = foreign.map(|corp| corp.as_str()).or_else(|| corps.is_empty().then_some("")) {
        return Ok(wrong_tenant(corp, config, None));
    }
    // The other ids and names of a sender are not those that the configuration lists.
    let Some(user_id) = message.sender_staff_id.clone().filter(|id| is_dingtalk_id(id, "")) else {
        return Err(MalformedRequest::new("senderStaffId: missing: the sender is not a member of the organization"));
    };
    let by = allowed_principal(&config.corp, &user_id)?;
    let reply_to = ReplyTo::Message { private_chat: private_chat(&message, &origin, config), user_id };
    let not_understood = |problem| UnknownCommand::NotUnderstood { problem, suggestions: vec![] };
    let parsed = match &message.text {
        Some(RobotText { content }) if message.msgtype == "text" && content.len() > MAX_TEXT_BYTES => {
            Err(not_understood(CommandProblem::TooLong))
        }
        Some(RobotText { content }) if message.msgtype == "text" => parse_command(content),
        Some(_) | None => Err(not_understood(CommandProblem::NotText)),
    };
    Ok(match parsed {
        Ok(command) => {
            Incoming::Command { request: CommandRequest { command, by, origin, clicked_card: None }, reply_to }
        }
        Err(error) => Incoming::UnknownCommand { error, reply_to },
    })
}

/// The `sessionWebhook` of a private chat, if it is DingTalk's and has not expired. The body is not signed.
fn private_chat(message: &RobotCallback, origin: &RequestOrigin, config: &Config) -> Option<SecretUrl> {
    let is_private = message.conversation_type.as_deref() == Some(PRIVATE_CHAT);
    let url = Url::parse(message.session_webhook.as_deref().filter(|_| is_private)?).ok()?;
    let is_allowed = |origin: &Url| origin.origin() == url.origin();
    let is_plain = url.username().is_empty() && url.password().is_none();
    let expires_at = message.session_webhook_expired_time.and_then(|at| Timestamp::from_millisecond(at).ok());
    let is_valid = expires_at.is_none_or(|at| at > origin.signed_at);
    let fits = is_plain && is_valid && is_secure(&url) && config.session_origins.iter().any(is_allowed);
    fits.then(|| SecretUrl::new(url))
}
