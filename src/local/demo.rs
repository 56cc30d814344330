//! The main job, told as it happens: a request across accounts is discovered and shown in the channel; two people approve
//! it, one of them twice; it is accepted once, activated and announced; a forgery, a replay and a latecomer change
//! nothing. Real HTTP between all parties.
#![expect(clippy::print_stdout, reason = "the transcript is what the demo is for")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::event;
use super::sandbox::Sandbox;
use super::{Error, serve};
use crate::approval::{Approval, ApprovalId, History};
use crate::chat::platform::Platform;
use crate::chat::{EventSpec, SignedRequest, feishu, message, slack};
use crate::fake::alicloud::{SimulatorSettings, gateway};
use crate::fake::feishu::{CHAT_ID, FakeFeishu};
use crate::fake::slack::SlackCard;
use crate::peering::InstanceId;
use crate::{clock, http};

/// How long the demo waits for something to happen before it gives up.
const STEP_TIMEOUT: Duration = Duration::from_mins(1);
/// People, by their Slack ids.
const ALICE: &str = "U061F7AUR";
const BOB: &str = "U0BOB";
const CAROL: &str = "U0CAROL";

/// Plays it.
///
/// # Errors
/// When something that should be seen to happen is not.
pub async fn run() -> Result<(), Error> {
    let settings = SimulatorSettings { activation_delay: Duration::from_millis(1500), ..SimulatorSettings::default() };
    let mut sandbox = Sandbox::start(settings).await?;
    let feishu = FakeFeishu::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let feishu_url = gateway::listener_url(&listener)?;
    tokio::spawn(feishu.clone().serve(listener));
    sandbox.add_extension(&feishu.sandbox_extension(&feishu_url))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let stage = DemoStage {
        webhook_url: gateway::listener_url(&listener)?.to_string(),
        http: http::new_client()?,
        sandbox,
        feishu,
    };
    stage.sandbox.parts.prewarm().await?;
    tokio::spawn(serve::serve_webhook(Arc::clone(&stage.sandbox.parts), listener));
    tokio::spawn(serve::run_watcher(Arc::clone(&stage.sandbox.parts), Duration::ZERO));
    println!("Alibaba Cloud (simulated) {}", stage.sandbox.alicloud_url);
    println!("peergate webhook          {}", stage.webhook_url);
    println!("Slack (a fake)            {}", stage.sandbox.chat_url);
    println!("Feishu (a fake)           {feishu_url}");

    print_scene("Account 1111111111111111 asks account 2222222222222222 for a VPC peering across regions");
    let id = stage.sandbox.request_peering(&[("AcceptingVpcId", "vpc-two-people")]).await?;
    println!("  {id} waits to be accepted");

    print_scene("The watcher discovers it and posts a card to Slack and to Feishu: the rule wants two people");
    let card = stage.wait_for_card("(0 of 2 approvals)").await?;
    print_card(&card);
    expect_step("the card has buttons", card.button_labels() == ["Approve", "Reject", "Details"])?;
    stage.wait_for("the card in Feishu", || !stage.feishu.messages_in(CHAT_ID).is_empty()).await?;

    print_scene("Somebody forges a click");
    let mut forged = stage.sign_click(&card, "Approve", ALICE).await?;
    forged.body = forged.body.replace(ALICE, BOB);
    expect_step("HTTP 401", stage.send_request(&forged).await?.0 == 401)?;

    print_scene("Alice approves in Slack");
    stage.send_request(&stage.sign_click(&card, "Approve", ALICE).await?).await?;
    println!("  only Alice reads: {}", stage.last_private_reply());
    expect_step("one of two", stage.last_private_reply().contains("counts: 1 of 2"))?;
    let card = stage.wait_for_card("1 of 2").await?;
    expect_step("the card shows who is still needed", card.text.contains("Still needed: 1 of bob, carol"))?;

    print_scene("Alice approves again, with a signed webhook: she is one person");
    let approval = stage.sign_event("approve", &id, "alice").await?;
    let (status, answer) = stage.send_request(&approval).await?;
    println!("  {}", text_at(&answer, "/detail"));
    expect_step("HTTP 200, nothing changed", status == 200 && text_at(&answer, "/outcome") == "repeated")?;
    expect_step("Alibaba Cloud was not asked to accept", stage.count_accepts(&id) == 0)?;

    print_scene("Bob approves in Feishu, the second of two");
    let toast = stage.click_in_feishu("Approve", "ou_bob").await?;
    println!("  only Bob reads: {toast}");
    expect_step("he is told that it is being activated", toast.contains("You approved"))?;
    let token = stage.load_record(&id).await?.client_token.map(|token| token.as_str().to_owned()).unwrap_or_default();
    println!("  client token {token}");
    expect_step("Alibaba Cloud accepted it once, with that token", stage.is_accepted_once_with(&id, &token))?;

    print_scene("Carol rejects, too late");
    stage.send_request(&stage.sign_click(&card, "Reject", CAROL).await?).await?;
    println!("  only Carol reads: {}", stage.last_private_reply());
    expect_step(
        "she is told who decided",
        stage.last_private_reply().contains("already approved by alice")
            && stage.last_private_reply().contains("and bob"),
    )?;
    expect_step("still accepted once", stage.count_accepts(&id) == 1)?;

    print_scene("The watcher follows the activation; every copy of the card shows the end");
    let thread = || stage.sandbox.slack.messages_in("C0PEER").first().map_or(0, |card| card.replies.len());
    stage.wait_for("four events below the card", || thread() == 4).await?;
    let card = stage.wait_for_card("is Activated").await?;
    print_card(&card);
    for reply in card.thread_headlines() {
        println!("    ↳ {reply}");
    }
    expect_step("nothing is left to click", card.button_labels().is_empty())?;
    let in_feishu = || stage.feishu.messages_in(CHAT_ID).pop().filter(|card| card.replies.len() == 4);
    stage.wait_for("four events below the card in Feishu", || in_feishu().is_some()).await?;
    let card = in_feishu().ok_or("the card is gone")?;
    println!("  Feishu\n    │ {}", card.text.lines().next().unwrap_or_default());
    for reply in card.thread_headlines() {
        println!("    ↳ {reply}");
    }
    stage.wait_for("five events at the auditors' URL", || stage.sandbox.slack.posts("/audit").len() == 5).await?;
    for post in stage.sandbox.slack.posts("/audit") {
        println!("  audit (Standard Webhooks): {}", text_at(&post.body_json(), "/type"));
    }

    print_scene("What the record remembers");
    let record = stage.load_record(&id).await?;
    for line in message::record_with_history(&record, clock::now()).sentences {
        println!("  {line}");
    }
    let stored = serde_json::to_value(&record)?;
    expect_step("the hash chain holds", History::verify(&record.id.to_string(), &stored).is_ok())?;
    let mut edited = stored;
    if let Some(by) = edited.pointer_mut("/history/1/what/decided/by/person") {
        *by = json!("mallory");
    }
    expect_step("an edit would be seen", History::verify(&record.id.to_string(), &edited).is_err())?;
    println!("\nEvery step was seen to happen.");
    Ok(())
}

fn print_scene(title: &str) {
    println!("\n{title}");
}

fn expect_step(what: &str, seen: bool) -> Result<(), Error> {
    println!("  {} {what}", if seen { "✓" } else { "✗" });
    if seen { Ok(()) } else { Err(format!("not seen: {what}").into()) }
}

fn print_card(card: &SlackCard) {
    println!("  #netops\n    │ {}", card.text.replace('\n', "\n    │ "));
    if !card.buttons.is_empty() {
        println!("    │ [{}]", card.button_labels().join("] ["));
    }
}

fn text_at(json: &Value, pointer: &str) -> String {
    json.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Where it plays.
struct DemoStage {
    sandbox: Sandbox,
    webhook_url: String,
    http: reqwest::Client,
    feishu: FakeFeishu,
}

impl DemoStage {
    async fn sign_event(&self, verb: &str, id: &InstanceId, actor: &str) -> Result<SignedRequest, Error> {
        let wish = EventSpec {
            action: verb.to_owned(),
            instance_id: id.to_string(),
            target: None,
            reason: None,
            fingerprint: self.sandbox.simulator.read_connection(id.as_str()).map(|it| it.fingerprint().to_string()),
            tenant: Some("ci".to_owned()),
            actor: actor.to_owned(),
        };
        let secrets = self.sandbox.parts.secrets.current(clock::now()).await?;
        event::sign_event(Platform::StandardWebhooks, &wish, &self.sandbox.parts.config, &secrets, clock::now())
    }

    /// As Slack tells of a click.
    async fn sign_click(&self, card: &SlackCard, label: &str, user: &str) -> Result<SignedRequest, Error> {
        let button = card.find_button(label).ok_or("the button is not there")?;
        let payload = json!({
            "type": "block_actions",
            "user": {"id": user, "team_id": "T0001"},
            "api_app_id": "A0123",
            "container": {"type": "message", "channel_id": "C0PEER", "message_ts": card.ts},
            "trigger_id": clock::nonce(),
            "response_url": format!("{}actions", self.sandbox.chat_url),
            "actions": [{"action_id": button.action_id, "value": button.value}],
        });
        let secrets = self.sandbox.parts.secrets.current(clock::now()).await?;
        let secrets = secrets.platforms.slack.as_ref().ok_or("there is no secret of Slack")?;
        Ok(slack::sign_interaction(secrets, &payload, clock::now())?)
    }

    /// As Feishu tells of a click on its card. Returns the toast.
    async fn click_in_feishu(&self, label: &str, open_id: &str) -> Result<String, Error> {
        let card = self.feishu.messages_in(CHAT_ID).pop().ok_or("there is no card in Feishu")?;
        let click = self.feishu.click_button(&card.message_id, label, &self.feishu.person_of_tenant(open_id), None)?;
        let secrets = self.sandbox.parts.secrets.current(clock::now()).await?;
        let secrets = secrets.platforms.feishu.as_ref().ok_or("there is no secret of Feishu")?;
        let (_, reply) = self.send_request(&feishu::sign_plaintext(secrets, &click, clock::now())?).await?;
        Ok(self.feishu.apply_reply(&card.message_id, &reply)?.unwrap_or_default())
    }

    async fn send_request(&self, signed: &SignedRequest) -> Result<(u16, Value), Error> {
        let url = format!("{}{}", self.webhook_url, signed.path.trim_start_matches('/'));
        let mut request = self.http.post(url).body(signed.body.clone());
        for (name, value) in &signed.headers {
            request = request.header(*name, value);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_slice(&http::read_body(response).await?).unwrap_or_default()))
    }

    /// What the last one who clicked was told, in private.
    fn last_private_reply(&self) -> String {
        let told = self.sandbox.slack.posts("/actions").pop().map(|post| post.visible_text()).unwrap_or_default();
        told.lines().next().unwrap_or_default().to_owned()
    }

    async fn load_record(&self, id: &InstanceId) -> Result<Approval, Error> {
        let id = ApprovalId { target: "prod".to_owned(), instance_id: id.clone() };
        Ok(self.sandbox.parts.store.load(&id).await?.ok_or("there is no record")?.approval)
    }

    fn count_accepts(&self, id: &InstanceId) -> usize {
        self.sandbox.simulator.count_effects("AcceptVpcPeerConnection", id.as_str())
    }

    fn is_accepted_once_with(&self, id: &InstanceId, token: &str) -> bool {
        let journal = self.sandbox.simulator.journal();
        let tokens: Vec<_> = journal
            .iter()
            .filter(|entry| entry.action == "AcceptVpcPeerConnection" && !entry.is_dry_run())
            .filter_map(|entry| entry.parameters.get("ClientToken"))
            .collect();
        tokens == [token] && self.count_accepts(id) == 1
    }

    /// The card, once it says so.
    async fn wait_for_card(&self, words: &str) -> Result<SlackCard, Error> {
        let card = || self.sandbox.slack.messages_in("C0PEER").pop().filter(|card| card.text.contains(words));
        self.wait_for(&format!("a card that says “{words}”"), || card().is_some()).await?;
        card().ok_or_else(|| "the card is gone".into())
    }

    async fn wait_for(&self, what: &str, seen: impl Fn() -> bool) -> Result<(), Error> {
        let started = Instant::now();
        while !seen() {
            if started.elapsed() > STEP_TIMEOUT {
                return Err(format!("not seen: {what}").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}
