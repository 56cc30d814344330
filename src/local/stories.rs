//! The stories: what people, machines and Alibaba Cloud do, step by step, and what must be seen then. The demo plays them in
//! a terminal, and the playground on its page.

mod action;
mod catalog;
mod check;
mod player;

use serde::{Deserialize, Serialize};

pub use action::{FaultKind, PeeringRequest, StoryAction};
pub use catalog::stories;
pub use check::{StoryCheck, StoryExpectation};
pub use player::{CLOCK_LIMIT, OTHER_ACCOUNT, StepOutcome, StoryPlayer};

/// A story with a beginning and an end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Story {
    /// A word for the command line and for share texts.
    pub id: String,
    /// A few words.
    pub title: String,
    /// One sentence.
    pub about: String,
    /// In order.
    pub steps: Vec<StoryStep>,
}

/// A step of a story.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoryStep {
    /// Up to six words.
    pub title: String,
    /// One or two sentences: why it happens so.
    pub why: String,
    /// What somebody does.
    pub action: StoryAction,
    /// What must be seen then. Steps that people share have none.
    #[serde(default, skip_deserializing)]
    pub expects: Vec<StoryExpectation>,
}

impl Story {
    /// The story with this id.
    #[must_use]
    pub fn find(id: &str) -> Option<Self> {
        stories().into_iter().find(|story| story.id == id)
    }
}
