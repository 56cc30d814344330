//! The sandbox behind the page, and what the page may ask of it. One thing happens at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, mpsc};
use tokio::time::{Instant, sleep};
use url::Url;

use super::copy::{self, CopyForm};
use super::journal::{EventKind, Journal};
use super::redact::KnownSecrets;
use super::scenario::Scenario;
use super::scene::{Scene, build_scene};
use super::{record, rules, snapshot};
use crate::app::App;
use crate::clock;
use crate::fake::traffic::{Exchange, Recorder};
use crate::local::Error;
use crate::local::reload::CurrentApp;
use crate::local::sandbox::REQUESTER_CREDENTIALS;
use crate::local::stories::{StepOutcome, StoryAction, StoryExpectation, StoryStep};
use crate::local::table::KillSwitch;

/// How long a step of a scenario is awaited.
const STEP_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a card is awaited.
const CARD_TIMEOUT: Duration = Duration::from_secs(15);
/// The pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(40);
/// The most calls of the page that wait for each other.
const MAX_WAITING_CALLS: usize = 16;
/// The most actions of a free play that are kept for a share text.
const MAX_ACTIONS: usize = 200;

/// The sandbox, its events, and the scenario that is played.
#[derive(Debug)]
pub(super) struct World {
    token: String,
    url: Url,
    recorder: Recorder,
    journal: Journal,
    scene: AsyncMutex<Scene>,
    calls: Semaphore,
    dirty: Notify,
    webhook: Mutex<WebhookFunction>,
}

/// The function that answers the webhook's requests now.
#[derive(Debug)]
struct WebhookFunction {
    app: CurrentApp,
    kill_switch: KillSwitch,
}

impl World {
    pub(super) async fn start(url: Url, scenario: Option<&str>) -> Result<Arc<Self>, Error> {
        let (recorder, exchanges) = Recorder::new();
        let scenario = scenario.map(Scenario::parse).transpose()?;
        let scene = build_scene(&url, &recorder, scenario, 1).await?;
        let webhook = WebhookFunction { app: scene.player.webhook_app(), kill_switch: scene.kill_switch.clone() };
        let (token, journal) = (clock::nonce(), Journal::default());
        journal.reset(known_secrets(&scene, &token)?);
        let world = Arc::new(Self {
            token,
            url,
            recorder,
            journal,
            scene: AsyncMutex::new(scene),
            calls: Semaphore::new(MAX_WAITING_CALLS),
            dirty: Notify::new(),
            webhook: Mutex::new(webhook),
        });
        tokio::spawn(Arc::clone(&world).record_exchanges(exchanges));
        tokio::spawn(Arc::clone(&world).show_changes());
        Ok(world)
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Makes the page see the present state soon.
    pub(super) fn mark_dirty(&self) {
        self.dirty.notify_one();
    }

    /// The webhook's app, and what kills it.
    pub(super) fn webhook(&self) -> (Arc<App>, KillSwitch) {
        let webhook = self.webhook.lock().unwrap_or_else(PoisonError::into_inner);
        (webhook.app.get(), webhook.kill_switch.clone())
    }

    async fn record_exchanges(self: Arc<Self>, mut exchanges: mpsc::Receiver<Exchange>) {
        while let Some(exchange) = exchanges.recv().await {
            self.journal.push_exchange(exchange);
            self.mark_dirty();
        }
    }

    /// Tells the page of the present state whenever something has happened.
    async fn show_changes(self: Arc<Self>) {
        loop {
            let reports = self.scene.lock().await.player.watcher().reports();
            self.show_state().await;
            let mut reports = reports;
            tokio::select! {
                () = self.dirty.notified() => {}
                _ = reports.changed() => {}
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn show_state(&self) {
        let scene = self.scene.lock().await;
        match snapshot::take(&scene).await {
            Ok(state) => self.journal.push(EventKind::State, &state),
            Err(error) => tracing::error!(outcome = "not_shown", %error, "could not show the state of the playground"),
        }
    }

    /// Does what the page asks for, as a step of its own.
    pub(super) async fn act(&self, action: &StoryAction) -> Result<Value, Error> {
        let _permit = self.calls.try_acquire().map_err(|_| "too many calls at the same time")?;
        let mut scene = self.scene.lock().await;
        let words = action.describe();
        let step = StoryStep { title: words.title, why: words.why, action: action.clone(), expects: vec![] };
        self.begin_step(&mut scene, &step, None);
        let outcome = scene.player.act(action).await;
        if let Err(error) = &outcome {
            self.show_failure(&scene, &step, None, error);
            // Nothing was done that could be shared.
            scene.actions.pop_if(|done| done.action == *action);
        }
        if let (StoryAction::Request(_), Ok(_)) = (action, &outcome) {
            scene.player.watcher().discover();
        }
        self.mark_dirty();
        Ok(outcome_json(&outcome?, scene.step))
    }

    /// Plays the next step of the scenario, and awaits what must be seen.
    pub(super) async fn play_step(&self) -> Result<Value, Error> {
        let _permit = self.calls.try_acquire().map_err(|_| "too many calls at the same time")?;
        self.await_card().await;
        let (step, number, generation, outcome) = {
            let mut scene = self.scene.lock().await;
            let next = scene.scenario.as_ref().and_then(|it| it.steps.get(scene.played)).cloned();
            let step = next.ok_or("the scenario has no more steps")?;
            scene.played = scene.played.saturating_add(1);
            let number = scene.played;
            self.begin_step(&mut scene, &step, Some(number));
            let outcome = scene.player.act(&step.action).await;
            if let Err(error) = &outcome {
                self.show_failure(&scene, &step, Some(number), error);
            }
            if step.expects.is_empty() && matches!(step.action, StoryAction::Request(_)) && scene.is_shared() {
                scene.player.watcher().discover();
            }
            (step, scene.step, scene.generation, outcome)
        };
        self.mark_dirty();
        let outcome = outcome?;
        let mut seen = vec![];
        for expectation in &step.expects {
            seen.push(self.expect(expectation, generation).await?);
        }
        self.mark_dirty();
        let mut answer = outcome_json(&outcome, number);
        if let Some(members) = answer.as_object_mut() {
            members.insert("seen".to_owned(), json!(seen));
        }
        Ok(answer)
    }

    /// Awaits the card that the next step of a shared scenario clicks.
    async fn await_card(&self) {
        let started = Instant::now();
        while started.elapsed() < CARD_TIMEOUT && self.scene.lock().await.awaits_card() {
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Awaits an expectation. Others may use the stage between two looks.
    async fn expect(&self, expectation: &StoryExpectation, generation: u32) -> Result<Value, Error> {
        let started = Instant::now();
        loop {
            {
                let scene = self.scene.lock().await;
                if scene.generation != generation {
                    return Err("the scenario was started over".into());
                }
                if scene.player.holds(&expectation.check).await? {
                    return Ok(json!({"says": expectation.says, "seen": true}));
                }
            }
            if started.elapsed() > STEP_TIMEOUT {
                return Ok(json!({"says": expectation.says, "seen": false}));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn begin_step(&self, scene: &mut Scene, step: &StoryStep, of_scenario: Option<usize>) {
        scene.step = scene.step.saturating_add(1);
        self.recorder.begin_step(scene.step);
        if scene.actions.len() < MAX_ACTIONS {
            scene.actions.push(StoryStep { expects: vec![], ..step.clone() });
        }
        self.push_step(scene, step, of_scenario);
    }

    /// Shows a step again that could not be done, so that it does not read as if it were.
    fn show_failure(&self, scene: &Scene, step: &StoryStep, of_scenario: Option<usize>, error: &Error) {
        let failed = StoryStep { title: format!("Not done: {}", step.title), why: format!("{error}."), ..step.clone() };
        self.push_step(scene, &failed, of_scenario);
    }

    fn push_step(&self, scene: &Scene, step: &StoryStep, of_scenario: Option<usize>) {
        let data = json!({
            "step": scene.step, "title": step.title, "why": step.why, "at": clock::now(), "scenario_step": of_scenario,
            "do": step.action,
        });
        self.journal.push(EventKind::Step, &data);
    }

    /// Starts over, with a scenario that the page shows before it runs.
    pub(super) async fn open(&self, text: &str) -> Result<Value, Error> {
        let scenario = Scenario::parse(text)?;
        let shown = json!(scenario);
        self.rebuild(Some(scenario)).await?;
        Ok(shown)
    }

    /// Starts over. The scenario stays, if there is one.
    pub(super) async fn reset(&self) -> Result<(), Error> {
        let scenario = self.scene.lock().await.scenario.clone();
        self.rebuild(scenario).await
    }

    async fn rebuild(&self, scenario: Option<Scenario>) -> Result<(), Error> {
        let mut scene = self.scene.lock().await;
        clock::jump::return_in_thread();
        let fresh = build_scene(&self.url, &self.recorder, scenario, scene.generation.saturating_add(1)).await?;
        let secrets = known_secrets(&fresh, &self.token)?;
        *self.webhook.lock().unwrap_or_else(PoisonError::into_inner) =
            WebhookFunction { app: fresh.player.webhook_app(), kill_switch: fresh.kill_switch.clone() };
        *scene = fresh;
        self.recorder.begin_step(0);
        self.journal.reset(secrets);
        drop(scene);
        self.mark_dirty();
        Ok(())
    }

    /// A text that holds the scenario, without host and token.
    pub(super) async fn share(&self) -> Result<String, Error> {
        let scene = self.scene.lock().await;
        scene.share_text()
    }

    pub(super) async fn validate(&self, text: &str) -> Value {
        rules::validate(&self.scene.lock().await.player.stage().sandbox, text)
    }

    pub(super) async fn tamper(&self, entry: usize) -> Result<Value, Error> {
        let scene = self.scene.lock().await;
        record::tamper(&scene.player, entry).await
    }

    pub(super) async fn copy(&self, number: u64, form: CopyForm) -> Result<String, Error> {
        let exchange = self.journal.exchange(number).ok_or("this message is not kept any more")?;
        let scene = self.scene.lock().await;
        copy::copy_exchange(scene.player.stage(), &self.url, &exchange, form).await
    }

    pub(super) async fn export(&self) -> Result<Value, Error> {
        let scene = self.scene.lock().await;
        let sandbox = &scene.player.stage().sandbox;
        Ok(json!({"config": sandbox.config, "secrets": sandbox.read_secrets()?}))
    }
}

/// What no event shows.
fn known_secrets(scene: &Scene, token: &str) -> Result<KnownSecrets, Error> {
    let sandbox = &scene.player.stage().sandbox;
    Ok(KnownSecrets::of(&sandbox.read_secrets()?, &[token, REQUESTER_CREDENTIALS.access_key_secret, "other-secret"]))
}

/// What came of a step, with its number: the page waits until it shows that step.
fn outcome_json(outcome: &StepOutcome, step: u32) -> Value {
    json!({
        "step": step, "modal": outcome.modal, "private": outcome.private, "status": outcome.status,
        "approved": outcome.approved,
    })
}
