//! Requests to the webhook, in the form before the signature, so that each can be signed again.

use serde_json::Value;

use super::{CastMember, ChatStage};
use crate::chat::{EventSpec, SignedRequest, dingtalk, feishu, slack};
use crate::clock;
use crate::local::Error;

/// A request that was sent.
#[derive(Debug, Clone)]
pub struct SentRequest {
    /// The bytes that were sent.
    pub signed: SignedRequest,
    /// What was signed, and by whom.
    pub signed_as: SignedAs,
}

/// What is signed, and as which platform.
#[derive(Debug, Clone)]
pub enum SignedAs {
    /// A form, as Slack signs it.
    SlackForm(String),
    /// A form that is signed for one person and sent as another.
    ForgedSlackForm {
        /// The form that is signed.
        form: String,
        /// The person in it.
        signed_for: CastMember,
        /// The person who takes their place after the signature.
        sent_as: CastMember,
    },
    /// A callback, as Feishu encrypts and signs it.
    FeishuCallback(String),
    /// A click on a card, as DingTalk signs it.
    DingTalkCallback(String),
    /// An activity, as the bot service of Teams signs it.
    TeamsActivity(Value),
    /// An event of the client `ci`.
    Event(EventSpec),
}

impl SignedAs {
    /// Signs it, at the time of the sandbox's clock.
    ///
    /// # Errors
    /// When the secrets lack what signs it.
    pub async fn sign(&self, stage: &ChatStage) -> Result<SignedRequest, Error> {
        let now = clock::now();
        let secrets = stage.parts.secrets.current(now).await?;
        let slack = || secrets.platforms.slack.as_ref().ok_or("there is no secret of Slack");
        Ok(match self {
            Self::SlackForm(form) => slack::sign_form(slack()?, form.clone(), now)?,
            Self::ForgedSlackForm { form, signed_for, sent_as } => {
                let signed = slack::sign_form(slack()?, form.clone(), now)?;
                SignedRequest { body: signed.body.replace(signed_for.slack_id(), sent_as.slack_id()), ..signed }
            }
            Self::FeishuCallback(plaintext) => {
                let feishu = secrets.platforms.feishu.as_ref().ok_or("there is no secret of Feishu")?;
                feishu::sign_plaintext(feishu, plaintext, now)?
            }
            Self::DingTalkCallback(body) => {
                let dingtalk = secrets.platforms.dingtalk.as_ref().ok_or("there is no secret of DingTalk")?;
                dingtalk::sign_card_callback(dingtalk, body, stage.next_dingtalk_time(now))?
            }
            Self::TeamsActivity(activity) => stage.teams.sign(activity)?,
            Self::Event(spec) => stage.sign_spec(spec).await?,
        })
    }
}
