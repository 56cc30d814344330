//! The people of the sandbox, and who they are on each platform.

use serde::{Deserialize, Serialize};

use crate::local::actions::{ALICE, BOB, CAROL, ERIN};

/// Somebody who clicks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CastMember {
    /// An approver.
    Alice,
    /// An approver.
    Bob,
    /// An approver of the rule that requires two people.
    Carol,
    /// The contact of the requesting account.
    Erin,
    /// A person of the organization whom the configuration does not know.
    Mallory,
}

impl CastMember {
    /// Everybody, in the order of the page.
    pub const ALL: [Self; 5] = [Self::Alice, Self::Bob, Self::Carol, Self::Erin, Self::Mallory];

    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
            Self::Carol => "carol",
            Self::Erin => "erin",
            Self::Mallory => "mallory",
        }
    }

    /// The name at the beginning of a sentence.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Alice => "Alice",
            Self::Bob => "Bob",
            Self::Carol => "Carol",
            Self::Erin => "Erin",
            Self::Mallory => "Mallory",
        }
    }

    /// The user id in Slack.
    #[must_use]
    pub fn slack_id(self) -> &'static str {
        match self {
            Self::Alice => ALICE,
            Self::Bob => BOB,
            Self::Carol => CAROL,
            Self::Erin => ERIN,
            Self::Mallory => "U0MALLORY",
        }
    }

    /// The `open_id` in Feishu.
    #[must_use]
    pub fn feishu_id(self) -> &'static str {
        match self {
            Self::Alice => "ou_alice",
            Self::Bob => "ou_bob",
            Self::Carol => "ou_carol",
            Self::Erin => "ou_erin",
            Self::Mallory => "ou_mallory",
        }
    }

    /// The `userId` in DingTalk.
    #[must_use]
    pub fn dingtalk_id(self) -> &'static str {
        match self {
            Self::Alice => "manager-alice",
            Self::Bob => "0185115183983732",
            Self::Carol => "carol.01",
            Self::Erin => "erin.02",
            Self::Mallory => "mallory.03",
        }
    }

    /// The id for the bot in Teams.
    #[must_use]
    pub fn teams_id(self) -> &'static str {
        match self {
            Self::Alice => "29:a11ce000-0000-4000-8000-000000000001",
            Self::Bob => "29:b0b00000-0000-4000-8000-000000000002",
            Self::Carol => "29:ca401000-0000-4000-8000-000000000003",
            Self::Erin => "29:0badf00d-0000-4000-8000-00006572696e",
            Self::Mallory => "29:0badf00d-0000-4000-8000-6d616c6c6f72",
        }
    }
}
