//! Carries out actions on a stage, and awaits what must be seen.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{FaultKind, PeeringRequest, StoryAction, StoryExpectation};
use crate::alicloud::Credentials;
use crate::app::App;
use crate::approval::{Approval, ApprovalId, Verdict};
use crate::clock;
use crate::clock::jump::MAX_AHEAD;
use crate::fake::alicloud::Tampering;
use crate::fake::alicloud::gateway::Fault;
use crate::local::Error;
use crate::local::actions::{ACCEPT, WebhookReply, failure};
use crate::local::chat_stage::{ButtonClick, CastMember, ChatApp, ChatStage, ClickOutcome, PrivateMessage, SignedAs};
use crate::local::reload::CurrentApp;
use crate::local::sandbox::REQUESTER_CREDENTIALS;
use crate::local::table::KillSwitch;
use crate::local::watcher_task::WatcherTask;
use crate::peering::{AccountId, InstanceId};
use std::sync::Arc;

/// How long an expectation is awaited.
const EXPECTATION_TIMEOUT: Duration = Duration::from_mins(1);
/// The pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(25);
/// What somebody reads who moves the clock too far.
pub const CLOCK_LIMIT: &str = "the clock moves at most ten years ahead in all";
/// The credentials of an account that no rule names.
const OTHER_ACCOUNT_CREDENTIALS: Credentials<'_> =
    Credentials { access_key_id: "other-key", access_key_secret: "other-secret", security_token: None };
/// The credentials of the accepting account, which may also request.
const OWN_ACCOUNT_CREDENTIALS: Credentials<'_> =
    Credentials { access_key_id: "accepter-key", access_key_secret: "accepter-secret", security_token: None };
/// The account of [`OTHER_ACCOUNT_CREDENTIALS`].
pub const OTHER_ACCOUNT: AccountId = AccountId(3_333_333_333_333_333);
/// The requesting account of the sandbox.
const REQUESTING_ACCOUNT: AccountId = AccountId(1_111_111_111_111_111);
/// The accepting account of the sandbox.
const ACCEPTING_ACCOUNT: AccountId = AccountId(2_222_222_222_222_222);

/// A stage with a watcher, and what has happened on it so far.
#[derive(Debug)]
pub struct StoryPlayer {
    stage: ChatStage,
    webhook_app: watch::Sender<Arc<App>>,
    watcher_app: watch::Sender<Arc<App>>,
    watcher: WatcherTask,
    kill_switch: KillSwitch,
    faults: BTreeSet<FaultKind>,
    current: Option<InstanceId>,
    /// Every request, in order.
    requests: Vec<InstanceId>,
    last_reply: Option<WebhookReply>,
    last_answer: String,
}

/// What came of an action.
#[derive(Debug, Default)]
pub struct StepOutcome {
    /// The modal that opened.
    pub modal: Option<Value>,
    /// What only one person reads.
    pub private: Option<PrivateMessage>,
    /// The HTTP status of the webhook, if it was called.
    pub status: Option<u16>,
    /// Whether the person has approved by this click, and had not before.
    pub approved: bool,
}

impl StoryPlayer {
    /// A player whose webhook is the stage's, and which starts a watcher.
    ///
    /// # Errors
    /// When the watcher's app cannot be built.
    pub fn new(stage: ChatStage, kill_switch: KillSwitch) -> Result<Self, Error> {
        let webhook_app = watch::Sender::new(Arc::clone(&stage.parts));
        let watcher_app = watch::Sender::new(stage.sandbox.build_watcher()?);
        let watcher = WatcherTask::start(CurrentApp::of(&watcher_app));
        Ok(Self {
            stage,
            webhook_app,
            watcher_app,
            watcher,
            kill_switch,
            faults: BTreeSet::new(),
            current: None,
            requests: vec![],
            last_reply: None,
            last_answer: String::new(),
        })
    }

    /// The stage.
    #[must_use]
    pub fn stage(&self) -> &ChatStage {
        &self.stage
    }

    /// The app of the webhook.
    #[must_use]
    pub fn webhook_app(&self) -> CurrentApp {
        CurrentApp::of(&self.webhook_app)
    }

    /// The watcher.
    #[must_use]
    pub fn watcher(&self) -> &WatcherTask {
        &self.watcher
    }

    /// The faults of Alibaba Cloud that last.
    #[must_use]
    pub fn faults(&self) -> &BTreeSet<FaultKind> {
        &self.faults
    }

    /// The connection that was requested or clicked last.
    #[must_use]
    pub fn current(&self) -> Option<&InstanceId> {
        self.current.as_ref()
    }

    /// The number of the request that a message is about, from 1.
    #[must_use]
    pub fn request_number(&self, app: ChatApp, message: &str) -> Option<usize> {
        let id = self.request_of(app, message)?;
        self.requests.iter().position(|request| request == id).map(|position| position.saturating_add(1))
    }

    /// The request that a message is about: the one that its text names first.
    fn request_of(&self, app: ChatApp, message: &str) -> Option<&InstanceId> {
        let shown =
            app.messages(&self.stage).into_iter().chain(app.escalations(&self.stage)).map(|it| (it.id, it.body));
        let private = self.stage.private_messages().into_iter().map(|it| (it.id, it.body));
        let body = shown.chain(private).find(|(id, _)| id == message).map(|(_, body)| body.to_string())?;
        let named = self.requests.iter().filter_map(|id| body.find(id.as_str()).map(|place| (place, id)));
        named.min_by_key(|(place, _)| *place).map(|(_, id)| id)
    }

    /// The card of a request.
    #[must_use]
    pub fn find_card(&self, app: ChatApp, request: usize) -> Option<String> {
        let cards = app.messages(&self.stage).into_iter().rev().map(|it| it.id);
        cards.into_iter().find(|id| self.request_number(app, id) == Some(request))
    }

    /// The last reply of the webhook.
    #[must_use]
    pub fn last_reply(&self) -> Option<&WebhookReply> {
        self.last_reply.as_ref()
    }

    /// What the last person who clicked reads.
    #[must_use]
    pub fn last_answer(&self) -> &str {
        &self.last_answer
    }

    /// The record of the current connection.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn record(&self) -> Result<Option<Approval>, Error> {
        let Some(id) = &self.current else { return Ok(None) };
        let id = ApprovalId { target: "prod".to_owned(), instance_id: id.clone() };
        Ok(self.stage.parts.store.load(&id).await?.map(|stored| stored.approval))
    }

    /// Awaits what must be seen.
    ///
    /// # Errors
    /// When it is not seen.
    pub async fn expect(&self, expectation: &StoryExpectation) -> Result<(), Error> {
        let started = Instant::now();
        while !self.holds(&expectation.check).await? {
            if started.elapsed() > EXPECTATION_TIMEOUT {
                return Err(format!("not seen: {} ({:?})", expectation.says, expectation.check).into());
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(())
    }

    /// Carries out an action.
    ///
    /// # Errors
    /// When it cannot be done: why, in words for the person who asked for it.
    pub async fn act(&mut self, action: &StoryAction) -> Result<StepOutcome, Error> {
        match action {
            StoryAction::Request(request) => self.request(request).await?,
            StoryAction::Discover => self.watcher.discover(),
            StoryAction::Click { by, app, button, message, request, reason } => {
                let message = self.find_clicked(*app, message.clone(), *request)?;
                let (by, app, label) = (*by, *app, button.clone());
                return self.click(ButtonClick { by, app, message, label, reason: reason.clone() }).await;
            }
            StoryAction::AnswerModal { by, reason } => {
                let modal = self.stage.slack.modals().pop().ok_or("no modal is open")?;
                let had_approved = self.has_approved(*by).await?;
                let outcome = self.stage.answer_slack_modal(&modal, *by, reason).await?;
                return self.note_click(outcome, *by, had_approved).await;
            }
            StoryAction::ForgeClick { signed_for, sent_as } => {
                let (by, app) = (*signed_for, ChatApp::Slack);
                let click = ButtonClick { by, app, message: None, label: "Approve".to_owned(), reason: None };
                let form = self.stage.slack_click_form(&click)?;
                return self.send(SignedAs::ForgedSlackForm { form, signed_for: *signed_for, sent_as: *sent_as }).await;
            }
            StoryAction::Event { by, verb } => {
                let id = self.current.as_ref().ok_or("nothing is requested yet")?;
                return self.send(SignedAs::Event(self.stage.event_spec(verb, id, by.name()))).await;
            }
            StoryAction::Replay { later_minutes } => return self.replay(*later_minutes).await,
            StoryAction::Change { bandwidth } => {
                let bandwidth = bandwidth.to_string();
                self.call_as_requester("ModifyVpcPeerConnection", &[("Bandwidth", &bandwidth)]).await?;
                self.watcher.discover();
            }
            StoryAction::Delete => {
                self.call_as_requester("DeleteVpcPeerConnection", &[]).await?;
                self.watcher.discover();
            }
            StoryAction::AcceptInConsole => {
                let id = self.current.clone().ok_or("nothing is requested yet")?;
                self.stage.accept_in_console(&id).await?;
                self.watcher.discover();
            }
            StoryAction::Fault { fault, on, times } => self.set_fault(*fault, *on, *times),
            StoryAction::Advance { minutes } => {
                advance_clock(*minutes)?;
                self.watcher.discover();
            }
            StoryAction::KillWatcher => self.watcher.kill(),
            StoryAction::StartWatcher => self.watcher.restart(),
            StoryAction::KillWebhook { armed } => self.kill_switch.set_armed(*armed),
            StoryAction::Rules { config } => self.apply_rules(config)?,
            StoryAction::Follow | StoryAction::ReadRecord => self.watcher.wake(),
        }
        Ok(StepOutcome::default())
    }

    /// The id of the message that is clicked, if the action says which.
    fn find_clicked(
        &self,
        app: ChatApp,
        message: Option<String>,
        request: Option<usize>,
    ) -> Result<Option<String>, Error> {
        match (message, request) {
            (None, Some(number)) => {
                let card = self.find_card(app, number);
                Ok(Some(card.ok_or_else(|| format!("request {number} has no card in {}", app.title()))?))
            }
            (message, _) => Ok(message),
        }
    }

    async fn click(&mut self, click: ButtonClick) -> Result<StepOutcome, Error> {
        let clicked = click.message.as_deref().and_then(|message| self.request_of(click.app, message));
        if let Some(id) = clicked.cloned() {
            self.current = Some(id);
        }
        let had_approved = self.has_approved(click.by).await?;
        let outcome = self.stage.click(&click).await?;
        self.note_click(outcome, click.by, had_approved).await
    }

    async fn has_approved(&self, person: CastMember) -> Result<bool, Error> {
        let record = self.record().await?;
        let mut decisions = record.as_ref().map(Approval::decisions).unwrap_or_default().iter();
        Ok(decisions.any(|it| it.verdict == Verdict::Approve && it.by.person.as_deref() == Some(person.name())))
    }

    async fn note_click(
        &mut self,
        outcome: ClickOutcome,
        by: CastMember,
        had_approved: bool,
    ) -> Result<StepOutcome, Error> {
        let ClickOutcome { reply, modal, private } = outcome;
        let approved = !had_approved && self.has_approved(by).await?;
        self.watcher.wake();
        self.last_answer = private.as_ref().map(|message| message.text.clone()).unwrap_or_default();
        let status = Some(reply.status);
        self.last_reply = Some(reply);
        Ok(StepOutcome { modal, private, status, approved })
    }

    async fn send(&mut self, signed_as: SignedAs) -> Result<StepOutcome, Error> {
        let reply = self.stage.send_signed(signed_as).await?;
        self.watcher.wake();
        self.last_answer = reply.problem_detail();
        let status = Some(reply.status);
        self.last_reply = Some(reply);
        Ok(StepOutcome { status, ..StepOutcome::default() })
    }

    /// Sends the same bytes again.
    async fn replay(&mut self, later_minutes: u32) -> Result<StepOutcome, Error> {
        let signed = self.stage.last_signed().ok_or("nothing was sent yet")?;
        advance_clock(later_minutes)?;
        let reply = self.stage.send(&signed).await?;
        self.last_answer = reply.problem_detail();
        let status = Some(reply.status);
        self.last_reply = Some(reply);
        Ok(StepOutcome { status, ..StepOutcome::default() })
    }

    async fn request(&mut self, request: &PeeringRequest) -> Result<(), Error> {
        let accepting = ACCEPTING_ACCOUNT.to_string();
        let account = AccountId::try_from(request.account.clone()).ok().and_then(credentials_of);
        let account = account.ok_or_else(|| format!("the sandbox has no account {:?}", request.account))?;
        for (vpc, cidrs) in [(&request.vpc, &request.cidrs), (&request.accepting_vpc, &request.accepting_cidrs)] {
            let cidrs = parse_cidrs(cidrs)?;
            if !cidrs.is_empty() {
                self.stage.simulator.set_cidrs(vpc, cidrs);
            }
        }
        let mut call = vec![
            ("RegionId", request.region.as_str()),
            ("VpcId", &request.vpc),
            ("AcceptingAliUid", &accepting),
            ("AcceptingRegionId", &request.accepting_region),
            ("AcceptingVpcId", &request.accepting_vpc),
            ("Name", &request.name),
        ];
        let optional = [("Bandwidth", &request.bandwidth), ("LinkType", &request.link_type)];
        call.extend(
            optional.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name, text.as_str())),
        );
        let id = self.stage.request_as(account, &call).await?;
        self.requests.push(id.clone());
        self.current = Some(id);
        if self.faults.contains(&FaultKind::StatusLags) {
            self.show_status("Accepting");
        }
        Ok(())
    }

    async fn call_as_requester(&self, action: &'static str, more: &[(&str, &str)]) -> Result<(), Error> {
        let id = self.current.as_ref().ok_or("nothing is requested yet")?;
        let call: Vec<_> = [("InstanceId", id.as_str())].into_iter().chain(more.iter().copied()).collect();
        let connection = self.stage.simulator.read_connection(id.as_str());
        let owner = connection.and_then(|connection| credentials_of(connection.requester.account));
        self.stage.call_as(owner.unwrap_or(REQUESTER_CREDENTIALS), action, &call).await
    }

    fn set_fault(&mut self, fault: FaultKind, on: bool, times: Option<u32>) {
        if let Some(times) = times.filter(|_| on) {
            for it in faults_of(fault) {
                self.stage.simulator.add_fault(Fault { times, ..it });
            }
            return;
        }
        if on {
            self.faults.insert(fault);
        } else {
            self.faults.remove(&fault);
        }
        self.stage.simulator.clear_faults();
        for it in self.faults.iter().copied().flat_map(faults_of) {
            self.stage.simulator.add_fault(Fault { times: u32::MAX, ..it });
        }
        self.show_status(if self.faults.contains(&FaultKind::StatusLags) { "Accepting" } else { "-" });
    }

    fn show_status(&self, status: &str) {
        if let Some(id) = &self.current {
            let shows = Some(status.to_owned());
            // An unknown connection shows nothing.
            let _ = self.stage.simulator.tamper(id.as_str(), Tampering { shows, ..Tampering::default() });
        }
    }

    fn apply_rules(&mut self, config: &str) -> Result<(), Error> {
        let config = self.stage.sandbox.fill_in_servers(config);
        self.stage.sandbox.check_endpoints(&config)?;
        self.stage.sandbox.reconfigure(&config)?;
        self.webhook_app.send_replace(Arc::clone(&self.stage.parts));
        self.watcher_app.send_replace(self.stage.sandbox.build_watcher()?);
        self.watcher.discover();
        Ok(())
    }
}

fn advance_clock(minutes: u32) -> Result<(), Error> {
    let by = SignedDuration::from_mins(minutes.into());
    if clock::jump::offset().saturating_add(by) > MAX_AHEAD {
        return Err(CLOCK_LIMIT.into());
    }
    clock::jump::advance_in_thread(by);
    Ok(())
}

/// The credentials of an account of the sandbox.
fn credentials_of(account: AccountId) -> Option<Credentials<'static>> {
    match account {
        REQUESTING_ACCOUNT => Some(REQUESTER_CREDENTIALS),
        ACCEPTING_ACCOUNT => Some(OWN_ACCOUNT_CREDENTIALS),
        OTHER_ACCOUNT => Some(OTHER_ACCOUNT_CREDENTIALS),
        AccountId(_) => None,
    }
}

fn faults_of(kind: FaultKind) -> Vec<Fault> {
    match kind {
        FaultKind::Throttle => {
            [ACCEPT, "RejectVpcPeerConnection"].map(|action| failure(action, "Throttling.User")).into()
        }
        // An error that says "never started", such as ServiceUnavailable, would be a lie after the effect.
        FaultKind::LoseAnswer => vec![Fault { after_effect: true, ..failure(ACCEPT, "InternalError") }],
        FaultKind::Slow => vec![Fault { account: Some(ACCEPTING_ACCOUNT), delay_ms: 2000, ..Fault::default() }],
        FaultKind::RefuseCredentials => {
            let code = Some("Forbidden.RAM".to_owned());
            vec![Fault { account: Some(ACCEPTING_ACCOUNT), code, http_status: 403, ..Fault::default() }]
        }
        FaultKind::StatusLags => vec![],
    }
}

fn parse_cidrs(text: &str) -> Result<BTreeSet<IpNet>, Error> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_err(|_| format!("{part:?} is no CIDR block").into())).collect()
}
