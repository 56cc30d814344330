//! What somebody does in a step. The page and the share text use the same form.

use serde::{Deserialize, Serialize};

use crate::local::chat_stage::{CastMember, ChatApp};

/// What somebody does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum StoryAction {
    /// The requester requests a peering.
    Request(PeeringRequest),
    /// The watcher discovers requests.
    Discover,
    /// A person clicks a button.
    Click {
        /// Who.
        by: CastMember,
        /// Where.
        app: ChatApp,
        /// The visible text of the button.
        button: String,
        /// The id of the message. Without it, the latest one with such a button.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// The number of the request whose card it is, from 1. Share texts have it, because ids of messages belong to a
        /// sandbox.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<usize>,
        /// The reason, where the platform has a field for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A person answers the modal that opened last.
    AnswerModal {
        /// Who.
        by: CastMember,
        /// What they write.
        reason: String,
    },
    /// Somebody sends a click of one person as that of another.
    ForgeClick {
        /// The person whose click was signed.
        signed_for: CastMember,
        /// The person who is said to click.
        sent_as: CastMember,
    },
    /// A program sends a signed event for a person.
    Event {
        /// For whom.
        by: CastMember,
        /// E.g. `approve`.
        verb: String,
    },
    /// Somebody sends the last request again, byte by byte.
    Replay {
        /// How much later.
        later_minutes: u32,
    },
    /// The requester changes the bandwidth.
    Change {
        /// In Mbit/s.
        bandwidth: u32,
    },
    /// The requester deletes the connection.
    Delete,
    /// Somebody of the accepting account accepts in the console.
    AcceptInConsole,
    /// A fault of Alibaba Cloud begins or ends.
    Fault {
        /// Which one.
        fault: FaultKind,
        /// Whether it begins.
        on: bool,
        /// The number of calls. Without it, until it ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        times: Option<u32>,
    },
    /// The clock moves ahead.
    Advance {
        /// By how much.
        minutes: u32,
    },
    /// The watcher is killed.
    KillWatcher,
    /// The watcher starts again.
    StartWatcher,
    /// The webhook dies after its next complete decision, or no longer does.
    KillWebhook {
        /// Whether it will die.
        armed: bool,
    },
    /// The rules change.
    Rules {
        /// The text of peergate.toml.
        config: String,
    },
    /// Time passes until the watcher has seen what comes next.
    Follow,
    /// Somebody reads the record.
    ReadRecord,
}

/// What a requester asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeeringRequest {
    /// The requesting account.
    pub account: String,
    /// Its region.
    pub region: String,
    /// Its VPC.
    pub vpc: String,
    /// The CIDR blocks of its VPC, separated by commas. Empty for those that the simulator gives it.
    pub cidrs: String,
    /// The region of the accepting VPC.
    pub accepting_region: String,
    /// The accepting VPC.
    pub accepting_vpc: String,
    /// The CIDR blocks of the accepting VPC.
    pub accepting_cidrs: String,
    /// In Mbit/s. Empty for Alibaba Cloud's default.
    pub bandwidth: String,
    /// `Gold`, `Silver`, or empty.
    pub link_type: String,
    /// The name of the connection.
    pub name: String,
}

impl Default for PeeringRequest {
    /// The request that two people must approve.
    fn default() -> Self {
        Self {
            account: "1111111111111111".to_owned(),
            region: "cn-hangzhou".to_owned(),
            vpc: "vpc-requester".to_owned(),
            cidrs: "10.0.0.0/24".to_owned(),
            accepting_region: "cn-shanghai".to_owned(),
            accepting_vpc: "vpc-two-people".to_owned(),
            accepting_cidrs: "10.0.1.0/24".to_owned(),
            bandwidth: "1024".to_owned(),
            link_type: "Gold".to_owned(),
            name: "data to payments".to_owned(),
        }
    }
}

/// A fault of Alibaba Cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Accepts and rejects are refused for now.
    Throttle,
    /// An accept takes effect, and its answer is lost.
    LoseAnswer,
    /// Each call of the accepting account takes two seconds more.
    Slow,
    /// The credentials of the accepting account are refused.
    RefuseCredentials,
    /// Readings show the status of before.
    StatusLags,
}

impl FaultKind {
    /// Every fault, in the order of the page.
    pub const ALL: [Self; 5] =
        [Self::Throttle, Self::LoseAnswer, Self::Slow, Self::RefuseCredentials, Self::StatusLags];
}

/// A step of nobody's story: what it is called, and why it happens so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionWords {
    /// Up to six words.
    pub title: String,
    /// One or two sentences.
    pub why: String,
}

impl StoryAction {
    /// The words for an action outside a story.
    #[must_use]
    pub fn describe(&self) -> ActionWords {
        let words = |title: &str, why: &str| ActionWords { title: title.to_owned(), why: why.to_owned() };
        match self {
            Self::Request(_) => words(
                "The requester asks for a peering",
                "The requester calls Alibaba Cloud, not peergate. The watcher finds the request when it lists the region.",
            ),
            Self::Discover => words("The watcher ticks", "A tick lists the regions and does what is due."),
            Self::Click { by, button, app, .. } => ActionWords {
                title: format!("{} clicks {button}", by.title()),
                why: format!(
                    "{} signs the click and sends it to the webhook. The answer is for {} alone.",
                    app.title(),
                    by.title()
                ),
            },
            Self::AnswerModal { by, .. } => ActionWords {
                title: format!("{} gives a reason", by.title()),
                why: "The platform signs the answer to the modal, as it signs a click.".to_owned(),
            },
            Self::ForgeClick { signed_for, sent_as } => ActionWords {
                title: "Somebody forges a click".to_owned(),
                why: format!(
                    "The bytes are signed for {} and sent as {}. The signature covers the raw bytes.",
                    signed_for.title(),
                    sent_as.title()
                ),
            },
            Self::Event { by, verb } => ActionWords {
                title: format!("A program sends “{verb}”"),
                why: format!("The client ci signs the event, for {}.", by.title()),
            },
            Self::Replay { .. } => words("Somebody replays a request", "The same bytes are sent again."),
            Self::Change { .. }
            | Self::Delete
            | Self::AcceptInConsole
            | Self::Fault { .. }
            | Self::Advance { .. }
            | Self::KillWatcher
            | Self::StartWatcher
            | Self::KillWebhook { .. } => self.describe_event(),
            Self::Rules { .. } => words(
                "The rules change",
                "The webhook and the watcher start again with the new peergate.toml. Open requests are checked against it.",
            ),
            Self::Follow => words("Time passes", "The watcher follows the connection."),
            Self::ReadRecord => words("Somebody reads the record", "Everything that happened is an entry of it."),
        }
    }

    /// How far the clock moves ahead.
    #[must_use]
    pub fn minutes_ahead(&self) -> u32 {
        if let Self::Advance { minutes } | Self::Replay { later_minutes: minutes } = self { *minutes } else { 0 }
    }

    /// What happens around people's decisions.
    fn describe_event(&self) -> ActionWords {
        let words = |title: &str, why: &str| ActionWords { title: title.to_owned(), why: why.to_owned() };
        match self {
            Self::Change { .. } => words(
                "The requester changes the bandwidth",
                "The facts of the request are different now, so earlier approvals no longer count.",
            ),
            Self::Delete => {
                words("The requester deletes it", "The watcher confirms that with a second reading, a minute later.")
            }
            Self::AcceptInConsole => words(
                "Somebody accepts in the console",
                "peergate cannot prevent it; a RAM policy can. It reports who had approved until then.",
            ),
            Self::Fault { on: true, .. } => {
                words("A fault of Alibaba Cloud begins", "It lasts until somebody ends it.")
            }
            Self::Fault { on: false, .. } => words("A fault of Alibaba Cloud ends", "Calls are answered as before."),
            Self::Advance { .. } => {
                words("The clock moves ahead", "The watcher does what is due by then, at its next tick.")
            }
            Self::KillWatcher => {
                words("The watcher is killed", "Nobody discovers or follows anything. Decisions still count.")
            }
            Self::StartWatcher => words("The watcher starts again", "It continues with what the table holds."),
            Self::KillWebhook { armed: true } => words(
                "The webhook will die",
                "It stores the approval that decides, and dies before it calls Alibaba Cloud.",
            ),
            Self::KillWebhook { armed: false } => {
                words("The webhook will not die", "It carries out decisions as before.")
            }
            Self::Request(_)
            | Self::Discover
            | Self::Click { .. }
            | Self::AnswerModal { .. }
            | Self::ForgeClick { .. }
            | Self::Event { .. }
            | Self::Replay { .. }
            | Self::Rules { .. }
            | Self::Follow
            | Self::ReadRecord => words("Time passes", "The watcher follows the connection."),
        }
    }
}
