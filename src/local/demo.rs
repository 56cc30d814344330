//! The main job, told as it happens: a request across accounts is discovered and shown in the channel; two people approve
//! it, one of them twice; it is accepted once, activated and announced; a forgery, a replay and a latecomer change
//! nothing; an accept outside peergate raises an alarm. Real HTTP between all parties.
#![expect(clippy::print_stdout, reason = "the transcript is what the demo is for")]

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::actions::{ALICE, BOB, CAROL, CHANNEL, Stage};
use super::sandbox::Sandbox;
use super::{Error, serve};
use crate::approval::{Approval, History};
use crate::chat::{feishu, message};
use crate::clock;
use crate::fake::alicloud::{SimulatorSettings, gateway};
use crate::fake::feishu::{CHAT_ID, FakeFeishu};
use crate::fake::slack::{SlackCard, SlackReply};
use crate::peering::InstanceId;

/// How long the demo waits for something to happen before it gives up.
const STEP_TIMEOUT: Duration = Duration::from_mins(1);

/// Plays it.
///
/// # Errors
/// When something that should be seen to happen is not.
pub async fn run() -> Result<(), Error> {
    let stage = DemoStage::start().await?;
    let (id, card) = show_request(&stage).await?;
    approve_twice(&stage, &id, &card).await?;
    reject_too_late(&stage, &id, &card).await?;
    follow_activation(&stage).await?;
    show_record(&stage, &id).await?;
    bypass_peergate(&stage).await?;
    println!("\nEvery step was seen to happen.");
    Ok(())
}

async fn show_request(stage: &DemoStage) -> Result<(InstanceId, SlackCard), Error> {
    print_scene("Account 1111111111111111 asks account 2222222222222222 for a VPC peering across regions");
    let id = stage.request_peering(&[("AcceptingVpcId", "vpc-two-people")]).await?;
    println!("  {id} waits to be accepted");

    print_scene("The watcher discovers it and posts a card to Slack and to Feishu: the rule requires two people");
    let card = stage.wait_for_card("(0 of 2 approvals)").await?;
    print_card(&card);
    expect_step("the card has buttons", card.button_labels() == ["Approve", "Reject", "Details"])?;
    stage.wait_for("the card in Feishu", || !stage.feishu.messages_in(CHAT_ID).is_empty()).await?;
    Ok((id, card))
}

async fn approve_twice(stage: &DemoStage, id: &InstanceId, card: &SlackCard) -> Result<(), Error> {
    print_scene("Somebody forges a click");
    let mut forged = stage.sign_click(card, "Approve", ALICE).await?;
    forged.body = forged.body.replace(ALICE, BOB);
    expect_step("HTTP 401", stage.send(&forged).await?.status == 401)?;

    print_scene("Alice approves in Slack");
    stage.click_button(card, "Approve", ALICE).await?;
    println!("  only Alice reads: {}", stage.private_headline());
    expect_step("one of two", stage.private_headline().contains("counts: 1 of 2"))?;
    let card = stage.wait_for_card("1 of 2").await?;
    expect_step("the card shows who is still needed", card.text.contains("Still needed: 1 of bob, carol"))?;

    print_scene("Alice approves again, with a signed webhook: she is one person");
    let reply = stage.approve(id, "alice").await?;
    println!("  {}", reply.problem_detail());
    expect_step("HTTP 200, nothing changed", reply.is(200, "repeated"))?;
    expect_step("Alibaba Cloud was not asked to accept", stage.count_accepts(id) == 0)?;

    print_scene("Bob approves in Feishu, the second of two");
    let toast = stage.click_in_feishu("Approve", "ou_bob").await?;
    println!("  only Bob reads: {toast}");
    expect_step("he is told that it is being activated", toast.contains("You approved"))?;
    let token = stage.load_record(id).await?.client_token().map(|token| token.as_str().to_owned()).unwrap_or_default();
    println!("  client token {token}");
    let accepted_once = stage.accept_tokens() == [token] && stage.count_accepts(id) == 1;
    expect_step("Alibaba Cloud accepted it once, with that token", accepted_once)?;
    Ok(())
}

async fn reject_too_late(stage: &DemoStage, id: &InstanceId, card: &SlackCard) -> Result<(), Error> {
    print_scene("Carol rejects, too late");
    stage.click_button(card, "Reject", CAROL).await?;
    println!("  only Carol reads: {}", stage.private_headline());
    expect_step(
        "she is told who decided",
        stage.private_headline().contains("already approved by alice") && stage.private_headline().contains("and bob"),
    )?;
    expect_step("still accepted once", stage.count_accepts(id) == 1)?;
    Ok(())
}

async fn follow_activation(stage: &DemoStage) -> Result<(), Error> {
    print_scene("The watcher follows the activation; every copy of the card shows the end");
    let thread = || stage.slack.messages_in(CHANNEL).first().map_or(0, |card| card.replies.len());
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
    stage.wait_for("five events at the auditors' URL", || stage.slack.posts("/audit").len() == 5).await?;
    for post in stage.slack.posts("/audit") {
        println!("  audit (Standard Webhooks): {}", text_at(&post.body_json(), "/type"));
    }
    Ok(())
}

async fn show_record(stage: &DemoStage, id: &InstanceId) -> Result<(), Error> {
    print_scene("What the record remembers");
    let record = stage.load_record(id).await?;
    for line in message::record_with_history(&record, clock::now()).sentences {
        println!("  {line}");
    }
    let stored = serde_json::to_value(&record)?;
    expect_step("the hash chain holds", History::verify(&record.id().to_string(), &stored).is_ok())?;
    let mut edited = stored;
    if let Some(by) = edited.pointer_mut("/history/1/what/decided/by/person") {
        *by = json!("mallory");
    }
    expect_step("an edit would be seen", History::verify(&record.id().to_string(), &edited).is_err())?;
    Ok(())
}

async fn bypass_peergate(stage: &DemoStage) -> Result<(), Error> {
    print_scene("A second request, and somebody of account 2222222222222222 accepts it in the console");
    let id = stage.request_peering(&[("AcceptingVpcId", "vpc-two-people"), ("VpcId", "vpc-requester-2")]).await?;
    stage.wait_for_card(&format!("prod/{id}")).await?;
    stage.accept_in_console(&id).await?;
    let card = stage.wait_for_card("was accepted outside peergate").await?;
    print_card(&card);
    stage.wait_for("the alarm below the card", || stage.bypass_alarm().is_some()).await?;
    let alarm = stage.bypass_alarm().ok_or("the alarm is gone")?;
    println!("    ↳ {}", alarm.text.replace('\n', "\n      "));
    expect_step("the alarm is in the channel itself, not only in the thread", alarm.broadcast)?;
    expect_step("it says how many had approved", alarm.text.contains("; 0 of 2 had approved"))?;
    expect_step("peergate did not accept it", stage.load_record(&id).await?.client_token().is_none())?;
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
    stage: Stage,
    feishu: FakeFeishu,
}

impl Deref for DemoStage {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl DemoStage {
    async fn start() -> Result<Self, Error> {
        let settings =
            SimulatorSettings { activation_delay: Duration::from_millis(1500), ..SimulatorSettings::default() };
        let mut sandbox = Sandbox::start(settings).await?;
        let feishu = FakeFeishu::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let feishu_url = gateway::listener_url(&listener)?;
        tokio::spawn(feishu.clone().serve(listener));
        sandbox.add_extension(&feishu.sandbox_extension(&feishu_url))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let webhook_url = gateway::listener_url(&listener)?;
        println!("Alibaba Cloud (simulated) {}", sandbox.alicloud_url);
        println!("peergate webhook          {webhook_url}");
        println!("Slack (a fake)            {}", sandbox.chat_url);
        println!("Feishu (a fake)           {feishu_url}");
        let stage = Self { stage: Stage::over_http(sandbox, webhook_url)?, feishu };
        stage.parts.prewarm().await?;
        tokio::spawn(serve::serve_webhook(Arc::clone(&stage.parts), listener));
        tokio::spawn(serve::run_watcher(Arc::clone(&stage.parts), Duration::ZERO));
        Ok(stage)
    }

    /// As Feishu tells of a click on its card. Returns the toast.
    async fn click_in_feishu(&self, label: &str, open_id: &str) -> Result<String, Error> {
        let card = self.feishu.messages_in(CHAT_ID).pop().ok_or("there is no card in Feishu")?;
        let click = self.feishu.click_button(&card.message_id, label, &self.feishu.person_of_tenant(open_id), None)?;
        let secrets = self.parts.secrets.current(clock::now()).await?;
        let secrets = secrets.platforms.feishu.as_ref().ok_or("there is no secret of Feishu")?;
        let reply = self.send(&feishu::sign_plaintext(secrets, &click, clock::now())?).await?;
        Ok(self.feishu.apply_reply(&card.message_id, &reply.body_json())?.unwrap_or_default())
    }

    /// The headline of the last private reply to a click in Slack.
    fn private_headline(&self) -> String {
        self.last_private_reply().lines().next().unwrap_or_default().to_owned()
    }

    /// The alarm about an accept outside peergate, below the last card.
    fn bypass_alarm(&self) -> Option<SlackReply> {
        let replies = self.slack.messages_in(CHANNEL).pop()?.replies;
        replies.into_iter().find(|reply| reply.text.contains("was accepted outside peergate"))
    }

    async fn load_record(&self, id: &InstanceId) -> Result<Approval, Error> {
        Ok(self.load_approval(id).await?.ok_or("there is no record")?)
    }

    /// The card, once it says so.
    async fn wait_for_card(&self, words: &str) -> Result<SlackCard, Error> {
        let card = || self.slack.messages_in(CHANNEL).pop().filter(|card| card.text.contains(words));
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
