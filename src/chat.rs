//! What people and machines send to peergate through chat platforms, and what peergate answers, in terms that all
//! platforms share.
//!
//! Each platform is a folder; [`platform`] lists them and says what a folder supplies. Every sentence that a person reads
//! is in [`message`].

mod access_token;
mod answer;
mod answer_budget;
mod authenticity;
pub mod binding;
mod call_turns;
mod card_rate;
mod command;
pub mod command_words;
mod delivery;
pub mod dingtalk;
pub mod feishu;
mod malformed;
pub mod message;
mod pacer;
pub mod platform;
mod reply;
mod request;
pub mod response;
pub mod slack;
pub mod standard_webhooks;
pub mod teams;

use crate::notes::Notes;

pub use access_token::AccessToken;
pub use authenticity::{
    Authentic, MalformedHeader, MergedTenant, RequestOrigin, RequestShape, RequestSigner, SingleUse, Unauthentic,
    VerifyError,
};
pub use card_rate::{CardDigest, CardRateLimiter};
pub use delivery::{
    AskOutcome, Capabilities, ChannelSecrets, DeliveryError, FailureCause, MessageRef, Outgoing, Pace, PostAttempt,
    ProbeError, ReplyRedraw, ThrottleScope, UpdateOutcome,
};
pub use malformed::MalformedRequest;
pub use pacer::{Pacer, PostLane, PostStart, Turn};
pub use reply::{Dependency, Reply, ReplyOutcome};
pub use request::{
    Action, Click, ClickedCard, Command, CommandRequest, CommandScope, ConnectionCommand, ForeignRequest, Incoming,
    TenantMismatch,
};
#[cfg(feature = "local")]
pub use request::{EventSpec, SignedRequest};

/// The longest reason that is stored, in characters.
pub const MAX_REASON_CHARS: usize = 400;

/// What the functions of a platform's folder work with.
#[derive(Debug)]
pub struct PlatformContext<'a, Config, Secrets, State> {
    /// The shared HTTP client.
    pub http: &'a reqwest::Client,
    /// Data that processes share for a limited time, such as a platform's token.
    pub notes: &'a Notes,
    /// The table `[platforms.NAME]`.
    pub config: &'a Config,
    /// The secret `platforms.NAME`.
    pub secrets: &'a Secrets,
    /// What this process has cached for the platform.
    pub state: &'a State,
}

impl<Config, Secrets, State> Clone for PlatformContext<'_, Config, Secrets, State> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Config, Secrets, State> Copy for PlatformContext<'_, Config, Secrets, State> {}
