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
use super::feishu::{CHAT, FakeFeishu};
use super::sandbox::Sandbox;
use super::simulator::{Settings, gateway};
use super::sink::Shown;
use super::{Error, serve};
use crate::approval::{Approval, ApprovalId, History};
use crate::chat::platform::Platform;
use crate::chat::{Signed, Wish, feishu, message, slack};
use crate::peering::InstanceId;
use crate::{clock, http};

/// How long the demo waits for something to happen before it gives up.
const PATIENCE: Duration = Duration::from_mins(1);
/// People, by their Slack ids.
const ALICE: &str = "U061F7AUR";
const BOB: &str = "U0BOB";
const CAROL: &str = "U0CAROL";

/// Plays it.
///
/// # Errors
/// When something that should be seen to happen is not.
pub async fn run() -> Result<(), Error> {
    let settings = Settings { activation: Duration::from_millis(1500), ..Settings::default() };
    let mut sandbox = Sandbox::start(settings).await?;
    let feishu = FakeFeishu::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let feishu_url = gateway::url(&listener)?;
    tokio::spawn(feishu.clone().serve(listener));
    sandbox.extend(&feishu.extension(&feishu_url))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let stage = Stage { webhook: gateway::url(&listener)?.to_string(), http: http::client()?, sandbox, feishu };
    stage.sandbox.app.prewarm().await?;
    tokio::spawn(serve::answer(Arc::clone(&stage.sandbox.app), listener));
    tokio::spawn(serve::watch(Arc::clone(&stage.sandbox.app), Duration::ZERO));
    println!("Alibaba Cloud (simulated) {}", stage.sandbox.alicloud);
    println!("peergate webhook          {}", stage.webhook);
    println!("Slack (a fake)            {}", stage.sandbox.chat);
    println!("Feishu (a fake)           {feishu_url}");

    scene("Account 1111111111111111 asks account 2222222222222222 for a VPC peering across regions");
    let id = stage.sandbox.request_peering(&[("AcceptingVpcId", "vpc-two-people")]).await?;
    println!("  {id} waits to be accepted");

    scene("The watcher discovers it and posts a card to Slack and to Feishu: the rule wants two people");
    let card = stage.card_with("waits for approval: 0 of 2").await?;
    show(&card);
    check("the card has buttons", card.labels() == ["Approve", "Reject", "Details"])?;
    stage.wait_for("the card in Feishu", || !stage.feishu.chat(CHAT).is_empty()).await?;

    scene("Somebody forges a click");
    let mut forged = stage.click(&card, "Approve", ALICE).await?;
    forged.body = forged.body.replace(ALICE, BOB);
    check("HTTP 401", stage.send(&forged).await?.0 == 401)?;

    scene("Alice approves in Slack");
    stage.send(&stage.click(&card, "Approve", ALICE).await?).await?;
    println!("  only Alice reads: {}", stage.told());
    check("one of two", stage.told().contains("counts: 1 of 2"))?;
    let card = stage.card_with("1 of 2").await?;
    check("the card shows who is still needed", card.text.contains("Still needed: 1 of bob, carol"))?;

    scene("Alice approves again, with a signed webhook: she is one person");
    let approval = stage.sign("approve", &id, "alice").await?;
    let (status, answer) = stage.send(&approval).await?;
    println!("  {}", text(&answer, "/detail"));
    check("HTTP 200, nothing changed", status == 200 && text(&answer, "/outcome") == "repeated")?;
    check("Alibaba Cloud was not asked to accept", stage.accepts(&id) == 0)?;

    scene("Bob approves in Feishu, the second of two");
    let toast = stage.click_in_feishu("Approve", "ou_bob").await?;
    println!("  only Bob reads: {toast}");
    check("he is told that it is being activated", toast.contains("You approved"))?;
    let token = stage.record(&id).await?.client_token.map(|token| token.as_str().to_owned()).unwrap_or_default();
    println!("  client token {token}");
    check("Alibaba Cloud accepted it once, with that token", stage.accepted_with(&id, &token))?;

    scene("Carol rejects, too late");
    stage.send(&stage.click(&card, "Reject", CAROL).await?).await?;
    println!("  only Carol reads: {}", stage.told());
    check(
        "she is told who decided",
        stage.told().contains("already approved by alice") && stage.told().contains("and bob"),
    )?;
    check("still accepted once", stage.accepts(&id) == 1)?;

    scene("The watcher follows the activation; every copy of the card shows the end");
    let thread = || stage.sandbox.sink.channel("C0PEER").first().map_or(0, |card| card.replies.len());
    stage.wait_for("four events below the card", || thread() == 4).await?;
    let card = stage.card_with("is Activated").await?;
    show(&card);
    for reply in card.thread() {
        println!("    ↳ {reply}");
    }
    check("nothing is left to click", card.labels().is_empty())?;
    let in_feishu = || stage.feishu.chat(CHAT).pop().filter(|card| card.replies.len() == 4);
    stage.wait_for("four events below the card in Feishu", || in_feishu().is_some()).await?;
    let card = in_feishu().ok_or("the card is gone")?;
    println!("  Feishu\n    │ {}", card.text.lines().next().unwrap_or_default());
    for reply in card.thread() {
        println!("    ↳ {reply}");
    }
    stage.wait_for("five events at the auditors' URL", || stage.sandbox.sink.posts("/audit").len() == 5).await?;
    for post in stage.sandbox.sink.posts("/audit") {
        println!("  audit (Standard Webhooks): {}", text(&post.json(), "/type"));
    }

    scene("What the record remembers");
    let record = stage.record(&id).await?;
    for line in message::record(&record, clock::now()).sentences {
        println!("  {line}");
    }
    let stored = serde_json::to_value(&record)?;
    check("the hash chain holds", History::verify(&record.id.to_string(), &stored).is_ok())?;
    let mut edited = stored;
    if let Some(by) = edited.pointer_mut("/history/1/what/decided/by/person") {
        *by = json!("mallory");
    }
    check("an edit would be seen", History::verify(&record.id.to_string(), &edited).is_err())?;
    println!("\nEvery step was seen to happen.");
    Ok(())
}

fn scene(title: &str) {
    println!("\n{title}");
}

fn check(what: &str, seen: bool) -> Result<(), Error> {
    println!("  {} {what}", if seen { "✓" } else { "✗" });
    if seen { Ok(()) } else { Err(format!("not seen: {what}").into()) }
}

fn show(card: &Shown) {
    println!("  #netops\n    │ {}", card.text.replace('\n', "\n    │ "));
    if !card.buttons.is_empty() {
        println!("    │ [{}]", card.labels().join("] ["));
    }
}

fn text(json: &Value, pointer: &str) -> String {
    json.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Where it plays.
struct Stage {
    sandbox: Sandbox,
    webhook: String,
    http: reqwest::Client,
    feishu: FakeFeishu,
}

impl Stage {
    async fn sign(&self, verb: &str, id: &InstanceId, actor: &str) -> Result<Signed, Error> {
        let wish = Wish {
            verb: verb.to_owned(),
            instance_id: id.to_string(),
            target: None,
            reason: None,
            fingerprint: self.sandbox.simulator.connection(id.as_str()).map(|it| it.fingerprint().to_string()),
            tenant: Some("ci".to_owned()),
            actor: actor.to_owned(),
        };
        let secrets = self.sandbox.app.secrets.current(clock::now()).await?;
        event::sign(Platform::StandardWebhooks, &wish, &self.sandbox.app.config, &secrets, clock::now())
    }

    /// As Slack tells of a click.
    async fn click(&self, card: &Shown, label: &str, user: &str) -> Result<Signed, Error> {
        let button = card.button(label).ok_or("the button is not there")?;
        let payload = json!({
            "type": "block_actions",
            "user": {"id": user, "team_id": "T0001"},
            "api_app_id": "A0123",
            "container": {"type": "message", "channel_id": "C0PEER", "message_ts": card.ts},
            "trigger_id": clock::nonce(),
            "response_url": format!("{}actions", self.sandbox.chat),
            "actions": [{"action_id": button.action_id, "value": button.value}],
        });
        let secrets = self.sandbox.app.secrets.current(clock::now()).await?;
        let secrets = secrets.platforms.slack.as_ref().ok_or("there is no secret of Slack")?;
        Ok(slack::sign_interaction(secrets, &payload, clock::now())?)
    }

    /// As Feishu tells of a click on its card. Returns the toast.
    async fn click_in_feishu(&self, label: &str, open_id: &str) -> Result<String, Error> {
        let card = self.feishu.chat(CHAT).pop().ok_or("there is no card in Feishu")?;
        let click = self.feishu.click(&card.message_id, label, &self.feishu.person(open_id), None)?;
        let secrets = self.sandbox.app.secrets.current(clock::now()).await?;
        let secrets = secrets.platforms.feishu.as_ref().ok_or("there is no secret of Feishu")?;
        let (_, reply) = self.send(&feishu::signed(secrets, &click, clock::now())?).await?;
        Ok(self.feishu.take_reply(&card.message_id, &reply)?.unwrap_or_default())
    }

    async fn send(&self, signed: &Signed) -> Result<(u16, Value), Error> {
        let url = format!("{}{}", self.webhook, signed.path.trim_start_matches('/'));
        let mut request = self.http.post(url).body(signed.body.clone());
        for (name, value) in &signed.headers {
            request = request.header(*name, value);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_slice(&http::read(response).await?).unwrap_or_default()))
    }

    /// What the last one who clicked was told, in private.
    fn told(&self) -> String {
        let told = self.sandbox.sink.posts("/actions").pop().map(|post| post.text()).unwrap_or_default();
        told.lines().next().unwrap_or_default().to_owned()
    }

    async fn record(&self, id: &InstanceId) -> Result<Approval, Error> {
        let id = ApprovalId { target: "prod".to_owned(), instance_id: id.clone() };
        Ok(self.sandbox.app.store.load(&id).await?.ok_or("there is no record")?.approval)
    }

    fn accepts(&self, id: &InstanceId) -> usize {
        self.sandbox.simulator.effects("AcceptVpcPeerConnection", id.as_str())
    }

    fn accepted_with(&self, id: &InstanceId, token: &str) -> bool {
        let journal = self.sandbox.simulator.journal();
        let tokens: Vec<_> = journal
            .iter()
            .filter(|entry| entry.action == "AcceptVpcPeerConnection" && !entry.is_dry_run())
            .filter_map(|entry| entry.parameters.get("ClientToken"))
            .collect();
        tokens == [token] && self.accepts(id) == 1
    }

    /// The card, once it says so.
    async fn card_with(&self, words: &str) -> Result<Shown, Error> {
        let card = || self.sandbox.sink.channel("C0PEER").pop().filter(|card| card.text.contains(words));
        self.wait_for(&format!("a card that says “{words}”"), || card().is_some()).await?;
        card().ok_or_else(|| "the card is gone".into())
    }

    async fn wait_for(&self, what: &str, seen: impl Fn() -> bool) -> Result<(), Error> {
        let started = Instant::now();
        while !seen() {
            if started.elapsed() > PATIENCE {
                return Err(format!("not seen: {what}").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}
