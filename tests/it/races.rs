//! Concurrent requests, and a process that is killed at the worst moment: one accept takes effect, one decision wins,
//! nothing is lost.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::prelude::*;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

const MANY: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_concurrent_approvals_make_one_accept() {
    let app =
        TestApp::with_settings(SimulatorSettings { calls_per_minute: None, ..crate::support::quick_settings() }).await;
    let app = app.with_change("[clients.ci]", "calls_per_minute = 1000\n\n[clients.ci]");
    let id = app.new_request().await;
    let mut requests = vec![];
    for number in 0..MANY {
        let (actor, verb) = (if number % 2 == 0 { "alice" } else { "bob" }, "approve");
        requests.push(app.sign_event(verb, &id, actor).await);
    }
    let replies: Vec<WebhookReply> = join_all(requests.iter().map(|request| app.send(request))).await;
    let mut names = BTreeMap::<String, usize>::new();
    for reply in &replies {
        *names.entry(reply.name()).or_default() += 1;
    }
    // On a busy machine the winner may run out of time: then the watcher finishes its accept.
    let started = Instant::now();
    while app.count_accepts(&id) == 0 {
        assert!(started.elapsed() < Duration::from_mins(1), "{names:?}");
        app.round().await;
    }
    assert_eq!(app.count_accepts(&id), 1, "{names:?}");
    assert_eq!(app.count_calls(ACCEPT), 1, "{names:?}");
    let approval = app.approval(&id).await;
    let winner = approval.winner().unwrap().by.person.clone().unwrap();
    assert_eq!(approval.decisions().len(), 1, "{names:?}");
    let (mut winners, mut losers) = (0, 0);
    for (request, reply) in requests.iter().zip(replies) {
        // On a busy machine a request may run out of time; the same request is then answered at its second try.
        let reply = if reply.status == 503 { app.send(request).await } else { reply };
        match reply.name().as_str() {
            "accepted" | "underway" => winners += 1,
            "repeated" => {}
            "already-decided" => {
                assert!(reply.problem_detail().contains(&format!("already approved by {winner}")), "{reply:?}");
                losers += 1;
            }
            _ => panic!("{reply:?}"),
        }
    }
    assert!(winners <= 1, "{names:?}");
    assert_eq!(losers, MANY / 2, "each request of the other person is told so: {names:?}");
}

#[tokio::test]
async fn loser_is_told_who_won_despite_an_earlier_reading() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.simulator.add_fault(Fault { action: Some(GET.to_owned()), delay_ms: 2000, ..Fault::default() });
    let (late, early) = (app.sign_event("approve", &id, "bob").await, app.sign_event("approve", &id, "alice").await);
    let (late, ()) = tokio::join!(app.send(&late), async {
        while app.simulator.pending_faults() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(app.send(&early).await.name(), "accepted");
    });
    assert_eq!((late.status, late.name().as_str()), (409, "already-decided"), "{late:?}");
    assert!(late.problem_detail().contains("already approved by alice"), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_approvals_and_rejections_have_one_effect() {
    let app =
        TestApp::with_settings(SimulatorSettings { calls_per_minute: None, ..crate::support::quick_settings() }).await;
    for _ in 0..5 {
        let id = app.new_request().await;
        let mut requests = vec![];
        for number in 0..20 {
            let verb = if number % 2 == 0 { "approve" } else { "reject" };
            requests.push(app.sign_event(verb, &id, if number % 4 < 2 { "alice" } else { "bob" }).await);
        }
        join_all(requests.iter().map(|request| app.send(request))).await;
        let effects = (app.count_accepts(&id), app.simulator.count_effects(REJECT, id.as_str()));
        assert!(effects == (1, 0) || effects == (0, 1), "{effects:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_watchers_accept_once() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    app.fail_next(ACCEPT, "ServiceUnavailable");
    app.approve(&id, "alice").await;
    tokio::join!(app.tick(), app.tick());
    assert_eq!((app.count_accepts(&id), app.state_of(&id).await.as_str()), (1, "activated"));
}

/// A process of ours; dropping the value kills it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `peergate serve` over files; returns where it listens.
fn serve(directory: &Path, app: &TestApp) -> (Process, String) {
    std::fs::write(directory.join("peergate.toml"), &app.config).unwrap();
    let mut child =
        peergate(directory, app).args(["serve", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").expect("it says where it listens").to_owned();
    (Process(child), url)
}

fn peergate(directory: &Path, app: &TestApp) -> Command {
    let peergate::config::SecretsSource::File(secrets) = app.environment.secrets.clone() else { panic!("a file") };
    let mut command = Command::new(env!("CARGO_BIN_EXE_peergate"));
    command
        .current_dir(directory)
        .env("PEERGATE_SECRETS", format!("file:{}", secrets.display()))
        .env("PEERGATE_CONFIG", directory.join("peergate.toml"))
        .stderr(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watcher_finishes_a_killed_accept_with_the_same_token() {
    let app = TestApp::start().await;
    let directory = tempfile::tempdir().unwrap();
    let id = app.new_request().await;
    let (mut server, url) = serve(directory.path(), &app);
    // The accept hangs before it takes effect: the webhook has stored the decision and waits.
    app.simulator.add_fault(Fault { action: Some(ACCEPT.into()), delay_ms: 3_600_000, ..Fault::default() });
    let signed = app.sign_event("approve", &id, "alice").await;
    let http = peergate::http::new_client().unwrap();
    let request = http.post(format!("{url}{}", signed.path)).body(signed.body.clone());
    let request = signed.headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
    let waiting = tokio::spawn(request.send());
    // It hangs once the fault is taken.
    let started = Instant::now();
    while app.simulator.pending_faults() > 0 {
        assert!(started.elapsed() < Duration::from_mins(1), "the accept never came");
        sleep(Duration::from_millis(10)).await;
    }
    server.0.kill().unwrap();
    server.0.wait().unwrap();
    assert!(waiting.await.unwrap().is_err(), "nobody answered");
    app.assert_accepts(&id, 0);

    let started = Instant::now();
    while app.count_accepts(&id) == 0 || app.posted_headlines(crate::support::SLACK_PATH).len() < 3 {
        assert!(started.elapsed() < Duration::from_mins(1), "the watcher never finished it");
        let ticked = peergate(directory.path(), &app).args(["watch", "--once"]).status().unwrap();
        assert!(ticked.success());
    }
    let journal = app.simulator.journal();
    let token = |entry: &peergate::fake::alicloud::JournalEntry| entry.parameters["ClientToken"].clone();
    let accepts = journal.iter().filter(|entry| entry.action == ACCEPT && entry.effect);
    let secrets = app.parts.secrets.current(peergate::clock::now()).await.unwrap();
    assert!(secrets.targets.contains_key("prod"));
    let expected = peergate::approval::ClientToken::derive(
        &"webhook:ci/alice".to_owned().try_into().unwrap(),
        peergate::peering::AccountId(2_222_222_222_222_222),
        &id,
        peergate::approval::Verdict::Approve,
        peergate::approval::TokenPurpose::Decided { generation: 1 },
    );
    assert_eq!(accepts.map(token).collect::<Vec<_>>(), [expected.as_str()]);
    assert_eq!(app.posted_headlines(crate::support::SLACK_PATH).len(), 3, "approved, accepted and activated");
}
