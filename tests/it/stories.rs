//! Each story is played to its end on a stage of its own.

use std::time::Duration;

use peergate::fake::alicloud::{SimulatorSettings, gateway};
use peergate::local::chat_stage::ChatStage;
use peergate::local::sandbox::Sandbox;
use peergate::local::serve;
use peergate::local::stories::{Story, StoryPlayer, stories};
use peergate::local::table::KillSwitch;
use tokio::net::TcpListener;

async fn play(story: &Story) -> Result<(), String> {
    let settings = SimulatorSettings { activation_delay: Duration::from_millis(200), ..SimulatorSettings::default() };
    let sandbox = Sandbox::start(settings).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let webhook = gateway::listener_url(&listener).unwrap();
    let stage = ChatStage::new(sandbox, webhook).await.unwrap();
    let mut player = StoryPlayer::new(stage, KillSwitch::default()).unwrap();
    let served = tokio::spawn(serve::serve_webhook(player.webhook_app(), listener));
    for step in &story.steps {
        player.act(&step.action).await.map_err(|error| format!("{}: {}: {error}", story.id, step.title))?;
        for expectation in &step.expects {
            let seen = player.expect(expectation).await;
            seen.map_err(|error| {
                let card = player.stage().last_card();
                format!("{}: {}: {error}\n{}\n{card:?}", story.id, step.title, player.last_answer())
            })?;
        }
    }
    served.abort();
    Ok(())
}

#[tokio::test]
async fn each_story_ends_as_it_says() {
    let mut failures = vec![];
    for story in stories() {
        failures.extend(play(&story).await.err());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn titles_of_steps_are_short() {
    for step in stories().iter().flat_map(|story| &story.steps) {
        assert!(step.title.split_whitespace().count() <= 7, "{}", step.title);
        assert!(step.why.matches(". ").count() <= 3, "{}", step.why);
    }
}
