//! Share texts: `#story=two&step=3`, or `#play=…` with the steps of a free play. They have no host and no token.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::clock::jump::MAX_AHEAD;
use crate::local::Error;
use crate::local::stories::{CLOCK_LIMIT, Story, StoryAction, StoryStep};

/// The longest share text.
const MAX_TEXT_CHARS: usize = 64 * 1024;
/// The most steps of a scenario.
const MAX_STEPS: usize = 200;

/// Steps that can be played.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Scenario {
    /// The id of the story. Empty if somebody shared their own steps.
    pub(super) id: String,
    pub(super) title: String,
    pub(super) about: String,
    pub(super) steps: Vec<StoryStep>,
    /// The step at which the sender was.
    pub(super) until: usize,
}

/// The steps of a free play, as they are shared.
#[derive(Debug, Serialize, Deserialize)]
struct SharedPlay {
    actions: Vec<StoryAction>,
}

/// The share text of these actions.
pub(super) fn encode_actions(actions: Vec<StoryAction>) -> Result<String, Error> {
    Ok(format!("#play={}", BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&SharedPlay { actions })?)))
}

impl Scenario {
    /// Reads a share text, with or without an address before it.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_TEXT_CHARS {
            return Err("the share text is too long".into());
        }
        let text = text.trim();
        let text = text.rsplit_once('#').map_or(text, |(_, rest)| rest);
        let member =
            |name: &str| form_urlencoded::parse(text.as_bytes()).find(|(it, _)| it == name).map(|(_, value)| value);
        if let Some(id) = member("story") {
            let Story { id, title, about, steps } = Story::find(&id).ok_or("there is no scenario of that name")?;
            let until = member("step").and_then(|step| step.parse().ok()).unwrap_or(0).min(steps.len());
            return Ok(Self { id, title, about, steps, until });
        }
        let play = member("play").ok_or("this is no share text: expected #story=… or #play=…")?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(play.as_bytes()).map_err(|_| "the share text is damaged")?;
        let play: SharedPlay = serde_json::from_slice(&bytes).map_err(|_| "the share text is damaged")?;
        if play.actions.len() > MAX_STEPS {
            return Err("the share text has too many steps".into());
        }
        let minutes: i64 = play.actions.iter().map(|action| i64::from(action.minutes_ahead())).sum();
        if SignedDuration::from_mins(minutes) > MAX_AHEAD {
            return Err(CLOCK_LIMIT.into());
        }
        let steps: Vec<_> = play.actions.into_iter().map(step_of).collect();
        let about = "Steps that somebody shared.".to_owned();
        Ok(Self { id: String::new(), title: "A shared scenario".to_owned(), about, until: steps.len(), steps })
    }
}

fn step_of(action: StoryAction) -> StoryStep {
    let words = action.describe();
    StoryStep { title: words.title, why: words.why, action, expects: vec![] }
}
