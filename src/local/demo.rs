//! The main job, told as it happens: the demo plays two of the stories in a terminal. Real HTTP between all parties.
#![expect(clippy::print_stdout, reason = "the transcript is what the demo is for")]

use std::time::Duration;

use tokio::net::TcpListener;

use super::actions::CHANNEL;
use super::chat_stage::{CastMember, ChatApp, ChatStage};
use super::sandbox::Sandbox;
use super::stories::{Story, StoryAction, StoryPlayer, StoryStep};
use super::table::KillSwitch;
use super::{Error, serve};
use crate::approval::{Approval, ClientToken};
use crate::chat::message;
use crate::clock;
use crate::fake::alicloud::{SimulatorSettings, gateway};
use crate::fake::feishu::CHAT_ID;
use crate::fake::slack::SlackCard;

/// The stories of the demo.
const STORIES: [&str; 2] = ["two", "bypass"];

/// Plays them.
///
/// # Errors
/// When something that should be seen to happen is not.
pub async fn run() -> Result<(), Error> {
    for id in STORIES {
        let story = Story::find(id).ok_or("there is no such story")?;
        println!("\n{}: {}", story.title, story.about);
        let mut player = start_player().await?;
        for step in &story.steps {
            play_step(&mut player, step).await?;
        }
    }
    println!("\nEvery step was seen to happen.");
    Ok(())
}

async fn start_player() -> Result<StoryPlayer, Error> {
    let settings = SimulatorSettings { activation_delay: Duration::from_millis(1500), ..SimulatorSettings::default() };
    let sandbox = Sandbox::start(settings).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let webhook = gateway::listener_url(&listener)?;
    println!("  Alibaba Cloud (simulated) {}", sandbox.alicloud_url);
    println!("  peergate webhook          {webhook}");
    println!("  Slack (a fake)            {}", sandbox.chat_url);
    let player = StoryPlayer::new(ChatStage::new(sandbox, webhook).await?, KillSwitch::default())?;
    player.stage().parts.prewarm().await?;
    tokio::spawn(serve::serve_webhook(player.webhook_app(), listener));
    Ok(player)
}

async fn play_step(player: &mut StoryPlayer, step: &StoryStep) -> Result<(), Error> {
    println!("\n{}", step.title);
    println!("  {}", step.why);
    player.act(&step.action).await?;
    print_answer(player, &step.action);
    for expectation in &step.expects {
        let seen = player.expect(expectation).await;
        println!("  {} {}", if seen.is_ok() { "✓" } else { "✗" }, expectation.says);
        seen?;
    }
    print_result(player, &step.action).await
}

/// What the person reads who did it.
fn print_answer(player: &StoryPlayer, action: &StoryAction) {
    let headline = player.last_answer().lines().next().unwrap_or_default();
    let read_by = |person: &CastMember| format!("only {} reads: {headline}", person.title());
    match action {
        StoryAction::Click { by, .. } | StoryAction::AnswerModal { by, .. } => println!("  {}", read_by(by)),
        StoryAction::Event { .. } => println!("  {headline}"),
        StoryAction::Request(_) => {
            let id = player.current().map(ToString::to_string).unwrap_or_default();
            println!("  {id} waits to be accepted");
        }
        StoryAction::Discover
        | StoryAction::ForgeClick { .. }
        | StoryAction::Replay { .. }
        | StoryAction::Change { .. }
        | StoryAction::Delete
        | StoryAction::AcceptInConsole
        | StoryAction::Fault { .. }
        | StoryAction::Advance { .. }
        | StoryAction::KillWatcher
        | StoryAction::StartWatcher
        | StoryAction::KillWebhook { .. }
        | StoryAction::Rules { .. }
        | StoryAction::Follow
        | StoryAction::ReadRecord => {}
    }
}

/// What everybody sees then.
async fn print_result(player: &StoryPlayer, action: &StoryAction) -> Result<(), Error> {
    let stage = player.stage();
    match action {
        StoryAction::Discover => stage.last_card().iter().for_each(print_card),
        StoryAction::Click { app: ChatApp::Feishu, .. } => {
            let record = player.record().await?;
            let token = record.as_ref().and_then(Approval::client_token);
            println!("  client token {}", token.map(ClientToken::as_str).unwrap_or_default());
        }
        StoryAction::Follow => {
            let card = stage.last_card().ok_or("the card is gone")?;
            print_card(&card);
            print_thread(&card.thread_headlines());
            let card = stage.feishu.messages_in(CHAT_ID).pop().ok_or("the card in Feishu is gone")?;
            println!("  Feishu\n    │ {}", card.text.lines().next().unwrap_or_default());
            print_thread(&card.thread_headlines());
            for post in stage.slack.posts("/audit") {
                let body = post.body_json();
                let kind = body.get("type").and_then(|kind| kind.as_str()).unwrap_or_default();
                println!("  audit (Standard Webhooks): {kind}");
            }
        }
        StoryAction::ReadRecord => {
            let record = player.record().await?.ok_or("there is no record")?;
            for line in message::record_with_history(&record, clock::now()).sentences {
                println!("  {line}");
            }
        }
        StoryAction::AcceptInConsole => {
            let card = stage.slack.messages_in(CHANNEL).pop().ok_or("the card is gone")?;
            print_card(&card);
            for alarm in card.replies.iter().filter(|reply| reply.broadcast) {
                println!("    ↳ {}", alarm.text.replace('\n', "\n      "));
            }
        }
        StoryAction::Request(_)
        | StoryAction::Click { .. }
        | StoryAction::AnswerModal { .. }
        | StoryAction::ForgeClick { .. }
        | StoryAction::Event { .. }
        | StoryAction::Replay { .. }
        | StoryAction::Change { .. }
        | StoryAction::Delete
        | StoryAction::Fault { .. }
        | StoryAction::Advance { .. }
        | StoryAction::KillWatcher
        | StoryAction::StartWatcher
        | StoryAction::KillWebhook { .. }
        | StoryAction::Rules { .. } => {}
    }
    Ok(())
}

fn print_thread(headlines: &[&str]) {
    for headline in headlines {
        println!("    ↳ {headline}");
    }
}

fn print_card(card: &SlackCard) {
    println!("  #netops\n    │ {}", card.text.replace('\n', "\n    │ "));
    if !card.buttons.is_empty() {
        println!("    │ [{}]", card.button_labels().join("] ["));
    }
}
