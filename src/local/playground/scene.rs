//! What is on the stage: the sandbox with its player, the scenario, and what was done so far.

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use super::scenario::{Scenario, encode_actions};
use crate::fake::alicloud::{SimulatedAccount, SimulatorSettings};
use crate::fake::traffic::Recorder;
use crate::local::Error;
use crate::local::chat_stage::ChatStage;
use crate::local::sandbox::{Confinement, Sandbox};
use crate::local::stories::{OTHER_ACCOUNT, StoryAction, StoryPlayer, StoryStep};
use crate::local::table::KillSwitch;

/// What is on the stage.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) player: StoryPlayer,
    pub(super) kill_switch: KillSwitch,
    /// The number of the current step.
    pub(super) step: u32,
    pub(super) scenario: Option<Scenario>,
    /// The number of steps of the scenario that were played.
    pub(super) played: usize,
    /// Everything that was done, in order.
    pub(super) actions: Vec<StoryStep>,
    pub(super) generation: u32,
}

impl Scene {
    /// Whether the scenario is not one of ours, so that nothing in it makes the watcher discover.
    pub(super) fn is_shared(&self) -> bool {
        self.scenario.as_ref().is_some_and(|scenario| scenario.id.is_empty())
    }

    /// Whether the next step is a click on a card that the watcher has not posted yet.
    pub(super) fn awaits_card(&self) -> bool {
        let next = self.scenario.as_ref().and_then(|scenario| scenario.steps.get(self.played));
        let Some(StoryAction::Click { app, request: Some(number), .. }) = next.map(|step| &step.action) else {
            return false;
        };
        self.player.watcher().is_running() && self.player.find_card(*app, *number).is_none()
    }

    /// A text for what is on the stage, without host and token.
    pub(super) fn share_text(&self) -> Result<String, Error> {
        let played_only = self.actions.len() == self.played;
        if let Some(scenario) = self.scenario.as_ref().filter(|scenario| !scenario.id.is_empty() && played_only) {
            return Ok(format!("#story={}&step={}", scenario.id, self.played));
        }
        let sandbox = &self.player.stage().sandbox;
        let actions = self.actions.iter().map(|step| match &step.action {
            StoryAction::Rules { config } => StoryAction::Rules { config: sandbox.hide_servers(config) },
            // Ids of messages belong to this sandbox.
            StoryAction::Click { by, app, button, message, request, reason } => {
                let number = message.as_deref().and_then(|message| self.player.request_number(*app, message));
                StoryAction::Click {
                    by: *by,
                    app: *app,
                    button: button.clone(),
                    message: None,
                    request: request.or(number),
                    reason: reason.clone(),
                }
            }
            StoryAction::Request(_)
            | StoryAction::Discover
            | StoryAction::AnswerModal { .. }
            | StoryAction::ForgeClick { .. }
            | StoryAction::Event { .. }
            | StoryAction::Replay { .. }
            | StoryAction::Change { .. }
            | StoryAction::Delete
            | StoryAction::AcceptInConsole
            | StoryAction::Fault { .. }
            | StoryAction::Advance { .. }
            | StoryAction::KillWatcher
            | StoryAction::StartWatcher
            | StoryAction::KillWebhook { .. }
            | StoryAction::Follow
            | StoryAction::ReadRecord => step.action.clone(),
        });
        encode_actions(actions.collect())
    }
}

/// A fresh stage.
pub(super) async fn build_scene(
    url: &Url,
    recorder: &Recorder,
    scenario: Option<Scenario>,
    generation: u32,
) -> Result<Scene, Error> {
    let mut settings =
        SimulatorSettings { activation_delay: Duration::from_millis(1500), ..SimulatorSettings::default() };
    settings.accounts.push(SimulatedAccount {
        account: OTHER_ACCOUNT,
        access_key_id: "other-key".to_owned(),
        access_key_secret: "other-secret".to_owned(),
        vpcs: BTreeMap::new(),
    });
    let kill_switch = KillSwitch::default();
    let confinement =
        Confinement { recorder: recorder.clone(), refuse_at: url.clone(), kill_switch: kill_switch.clone() };
    let sandbox = Sandbox::start_confined(settings, confinement).await?;
    let stage = ChatStage::new(sandbox, url.clone()).await?;
    let player = StoryPlayer::new(stage, kill_switch.clone())?;
    Ok(Scene { player, kill_switch, step: 0, scenario, played: 0, actions: vec![], generation })
}
