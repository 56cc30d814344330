//! The main job, told as it happens: a request across accounts is approved from outside, accepted with its token,
//! activated and announced; a forgery, a replay and a second approver change nothing. Real HTTP between all parties.
#![expect(clippy::print_stdout, reason = "the transcript is what the demo is for")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::event::{self, Signed, Wish};
use super::sandbox::Sandbox;
use super::simulator::{Settings, gateway};
use super::{Error, serve};
use crate::peering::InstanceId;
use crate::{clock, http};

/// How long the demo waits for something to happen before it gives up.
const PATIENCE: Duration = Duration::from_mins(1);

/// Plays it.
///
/// # Errors
/// When something that should be seen to happen is not.
pub async fn run() -> Result<(), Error> {
    let sandbox = Sandbox::start(Settings { activation: Duration::from_millis(1500), ..Settings::default() }).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let stage = Stage { webhook: gateway::url(&listener)?.to_string(), http: http::client()?, sandbox };
    tokio::spawn(serve::serve(Arc::clone(&stage.sandbox.app), listener));
    println!("Alibaba Cloud (simulated) {}", stage.sandbox.alicloud);
    println!("peergate webhook          {}", stage.webhook);
    println!("chat (a sink)             {}", stage.sandbox.chat);

    scene("Account 1111111111111111 asks account 2222222222222222 for a VPC peering across regions");
    let id = stage.sandbox.request_peering(&[]).await?;
    println!("  {id} is {}", stage.status(&id).await?);
    check("it waits to be accepted", stage.status(&id).await? == "Accepting")?;

    scene("Somebody forges an approval");
    let mut forged = stage.sign("approve", &id, "alice").await?;
    forged.body = forged.body.replace("alice", "bob");
    let (status, _) = stage.send(&forged).await?;
    check("HTTP 401", status == 401)?;
    check("Alibaba Cloud was not asked to accept", stage.accepts(&id) == 0)?;

    scene("Alice approves, with a signed webhook");
    let approval = stage.sign("approve", &id, "alice").await?;
    let (status, answer) = stage.send(&approval).await?;
    println!("  {}", text(&answer, "/detail"));
    check("HTTP 200, accepted", status == 200 && text(&answer, "/outcome") == "accepted")?;
    let token = text(&answer, "/approval/client_token");
    println!("  client token {token}");
    check("Alibaba Cloud accepted it once, with that token", stage.accepted_with(&id, &token))?;

    scene("The same request arrives again");
    let (status, answer) = stage.send(&approval).await?;
    println!("  {}", text(&answer, "/detail"));
    check("HTTP 200, nothing changed", status == 200 && text(&answer, "/outcome") == "repeated")?;
    check("still accepted once", stage.accepts(&id) == 1)?;

    scene("Bob approves, too late");
    let (status, answer) = stage.send(&stage.sign("approve", &id, "bob").await?).await?;
    println!("  {}", text(&answer, "/detail"));
    check(
        "HTTP 409, and Bob is told that it was Alice",
        status == 409 && text(&answer, "/detail").contains("by alice"),
    )?;
    check("still accepted once", stage.accepts(&id) == 1)?;

    scene("The watcher follows the activation and tells the channels");
    stage.wait_for_announcements().await?;
    for post in stage.sandbox.sink.posts("/api/chat.postMessage") {
        println!("  #netops (Slack)\n    {}", post.text().replace('\n', "\n    "));
    }
    for post in stage.sandbox.sink.posts("/audit") {
        println!(
            "  audit (Standard Webhooks)\n    {} {}",
            text(&post.json(), "/type"),
            text(&post.json(), "/data/summary")
        );
    }
    check("Activated", stage.status(&id).await? == "Activated")?;
    for path in CHANNELS {
        check(&format!("{path} heard of it twice: accepted, activated"), stage.sandbox.sink.posts(path).len() == 2)?;
    }
    println!("\nEvery step was seen to happen.");
    Ok(())
}

const CHANNELS: [&str; 3] = ["/api/chat.postMessage", "/hooks/netops", "/audit"];

fn scene(title: &str) {
    println!("\n{title}");
}

fn check(what: &str, seen: bool) -> Result<(), Error> {
    println!("  {} {what}", if seen { "✓" } else { "✗" });
    if seen { Ok(()) } else { Err(format!("not seen: {what}").into()) }
}

fn text(json: &Value, pointer: &str) -> String {
    json.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Where it plays.
struct Stage {
    sandbox: Sandbox,
    webhook: String,
    http: reqwest::Client,
}

impl Stage {
    async fn sign(&self, verb: &str, id: &InstanceId, actor: &str) -> Result<Signed, Error> {
        let secrets = self.sandbox.app.secrets.current(clock::now()).await?;
        let wish = Wish {
            verb: verb.to_owned(),
            instance_id: id.to_string(),
            target: None,
            reason: None,
            actor: actor.to_owned(),
        };
        event::standard_webhooks(&wish, "ci", &secrets, &format!("msg_{}", clock::nonce()), clock::now())
    }

    async fn send(&self, signed: &Signed) -> Result<(u16, Value), Error> {
        let url = format!("{}{}", self.webhook, signed.path.trim_start_matches('/'));
        let mut request = self.http.post(url).body(signed.body.clone());
        for (name, value) in &signed.headers {
            request = request.header(*name, value);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_slice(&http::read(response).await?)?))
    }

    async fn status(&self, id: &InstanceId) -> Result<String, Error> {
        let (_, answer) = self.send(&self.sign("status", id, "alice").await?).await?;
        Ok(text(&answer, "/connection/status"))
    }

    fn accepts(&self, id: &InstanceId) -> usize {
        self.sandbox.simulator.effects("AcceptVpcPeerConnection", id.as_str())
    }

    fn accepted_with(&self, id: &InstanceId, token: &str) -> bool {
        let journal = self.sandbox.simulator.journal();
        let tokens: Vec<_> = journal
            .iter()
            .filter(|entry| entry.action == "AcceptVpcPeerConnection")
            .filter_map(|entry| entry.parameters.get("ClientToken"))
            .collect();
        tokens == [token] && self.accepts(id) == 1
    }

    async fn wait_for_announcements(&self) -> Result<(), Error> {
        let started = Instant::now();
        while CHANNELS.iter().any(|path| self.sandbox.sink.posts(path).len() < 2) {
            if started.elapsed() > PATIENCE {
                return Err("the channels did not hear of the activation".into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}
