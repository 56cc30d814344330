//! `peergate serve` as a process: signals, sockets, its log, and SIGKILL at each step of a request's life.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::prelude::*;
use peergate::config::{Config, SecretsSource};
use rustix::process::Signal;
use tokio::net::TcpStream;

/// A request that everybody in the sandbox's group may approve.
const ONE_APPROVAL: &str = "vpc-one";
const HANG_MS: u64 = 600_000;

/// The inodes of the sockets that a process has open, and those on which anybody listens.
fn listening_sockets(pid: u32) -> usize {
    let listening: BTreeSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|path| {
            std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            (fields.get(3) == Some(&"0A")).then(|| format!("socket:[{}]", fields[9]))
        })
        .collect();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    open.filter(|target| listening.contains(&target.to_string_lossy().into_owned())).count()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

fn secrets_path(machine: &Machine) -> std::path::PathBuf {
    let SecretsSource::File(path) = &machine.app.environment.secrets else { panic!("secrets in a file") };
    path.clone()
}

#[tokio::test]
async fn serve_has_one_socket_and_private_files() {
    let (machine, _) = Machine::with_request(quick_settings(), ONE_APPROVAL).await;
    assert_eq!(listening_sockets(machine.pid()), 1);
    for name in ["peergate.db", "peergate.db-wal", "peergate.db-shm"] {
        assert_eq!(mode(&machine.directory.path().join(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn whole_life_logs_no_warning_and_idle_ticks_log_nothing() {
    let (mut machine, id) = Machine::with_request(quick_settings(), "vpc-two-people").await;
    for actor in ["alice", "bob"] {
        assert_eq!(machine.approve(&id, actor).await.0, 200);
    }
    machine.wait_for_record(&id, "activated").await;
    machine.wait_for("five events at the auditors", async || machine.app.slack.posts(AUDIT_PATH).len() == 5).await;
    // The tick that did this ends.
    let settled = machine.wait_for_log("outcome=\"ticked\"").await;
    assert!(!settled.contains("WARN") && !settled.contains("ERROR"), "{settled}");
    let ticked = |log: &str| log.matches("outcome=\"ticked\"").count();
    machine.signal(Signal::TERM);
    machine.wait_for_end().await;

    machine.serve(&[]).await;
    let mut talkative = Machine::new(quick_settings()).await;
    talkative.serve(&[("AWS_LAMBDA_LOG_LEVEL", "DEBUG")]).await;
    talkative.wait_for("three idle ticks", async || ticked(&talkative.log()) >= 3).await;
    let idle = machine.log();
    assert_eq!((ticked(&idle), idle.matches("ListVpcPeer").count()), (0, 0), "{idle}");
    // It has started, and has checked whose keys it has.
    assert!(idle.lines().count() <= 2, "{idle}");
}

#[tokio::test]
async fn missing_secrets_file_stops_the_start_and_is_named() {
    let machine = Machine::new(quick_settings()).await;
    let path = secrets_path(&machine);
    std::fs::remove_file(&path).unwrap();
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["watch", "--once"]] {
        let error = machine.run(command).await.unwrap_err();
        assert!(error.contains(&format!("cannot read the secrets in {}", path.display())), "{error}");
    }
    std::fs::create_dir(&path).unwrap();
    let error = machine.run(&["watch", "--once"]).await.unwrap_err();
    assert!(error.contains("Is a directory"), "{error}");
    assert_eq!(machine.app.count_upstream_calls(), 0);
    assert!(!machine.directory.path().join("peergate.db").exists());
}

#[tokio::test]
async fn secrets_that_others_can_read_are_warned_about_once() {
    let machine = Machine::new(quick_settings()).await;
    let path = secrets_path(&machine);
    let warned = async |mode: u32| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let output = machine.command(&["watch", "--once"]).output().await.unwrap();
        assert!(output.status.success());
        let log = String::from_utf8(output.stderr).unwrap();
        log.matches(&format!("chmod 600 {}", path.display())).count()
    };
    for (mode, warnings) in [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1), (0o644, 1)] {
        assert_eq!(warned(mode).await, warnings, "{mode:o}");
    }
}

#[tokio::test]
async fn policy_that_others_can_write_is_warned_about_once() {
    let machine = Machine::new(quick_settings()).await;
    let path = machine.app.environment.config.clone();
    for (mode, warnings) in [(0o644, 0), (0o600, 0), (0o664, 1), (0o646, 1)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let output = machine.command(&["watch", "--once"]).output().await.unwrap();
        assert!(output.status.success());
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(log.matches("chmod go-w").count(), warnings, "{mode:o}: {log}");
    }
}

#[tokio::test]
async fn sigterm_finishes_the_request_in_flight() {
    for signal in [Signal::TERM, Signal::INT] {
        let (mut machine, id) = Machine::with_request(quick_settings(), ONE_APPROVAL).await;
        let approval = machine.app.sign_event("approve", &id, "alice").await;
        machine.app.simulator.add_fault(Fault { action: Some(GET.into()), delay_ms: 700, ..Fault::default() });
        let asked = async {
            machine.wait_for("the call has begun", async || machine.app.simulator.pending_faults() == 0).await;
            machine.signal(signal);
            machine.wait_for_log("outcome=\"stopping\"").await;
            let address = machine.url().strip_prefix("http://").unwrap().to_owned();
            machine.wait_for("no new connection", async || TcpStream::connect(&address).await.is_err()).await;
        };
        let (answer, ()) = tokio::join!(machine.send(&approval), asked);
        let (status, body) = answer.unwrap();
        assert!(status == 200 && (body.contains("accepted") || body.contains("underway")), "{status} {body}");
        let (status, log) = machine.wait_for_end().await;
        assert!(status.success() && log.contains("all_done=true"), "{log}");
        machine.app.assert_accepts(&id, usize::from(body.contains("accepted")));
    }
}

#[tokio::test]
async fn sighup_reloads_configuration_and_secrets_together() {
    const NEW: &str = "whsec_bmV3LXNpZ25pbmcta2V5LW9mLTMyLWJ5dGVzLWxvbmc=";
    let (machine, id) = Machine::with_request(quick_settings(), ONE_APPROVAL).await;
    let (old, path) = (machine.app.config.clone(), &machine.app.environment.config);
    let two = old.replace(
        "name = \"data team\"\ntarget = \"prod\"\nrequester_accounts = [\"1111111111111111\"]\napprovals = 1",
        "name = \"data team\"\ntarget = \"prod\"\nrequester_accounts = [\"1111111111111111\"]\napprovals = 2",
    );
    assert_ne!(two, old);
    std::fs::write(path, &two).unwrap();
    machine.app.write_secrets(|secrets| secrets["clients"]["ci"]["signing_secrets"] = json!([NEW])).unwrap();
    machine.signal(Signal::HUP);
    let log = machine.wait_for_log("outcome=\"reloaded\"").await;
    assert!(log.contains("changed_config=\"rule.data team.approvals\""), "{log}");
    assert!(log.contains("changed_secrets=\"clients.ci.signing_secrets\"") && !log.contains("bmV3"), "{log}");
    // The new rule and the new secret serve at once; the old secret does not.
    let signed = |key: &str| {
        let mut signed =
            futures_util::FutureExt::now_or_never(machine.app.sign_event("approve", &id, "alice")).unwrap();
        let (nonce, at) = (format!("msg_{}", clock::nonce()), clock::now().as_second().to_string());
        let keys = [key.to_owned().try_into().unwrap()];
        let signature = peergate::chat::standard_webhooks::sign_body(&keys, &nonce, &at, signed.body.as_bytes());
        for (name, value) in &mut signed.headers {
            match *name {
                "webhook-id" => value.clone_from(&nonce),
                "webhook-timestamp" => value.clone_from(&at),
                "webhook-signature" => value.clone_from(&signature),
                _ => {}
            }
        }
        signed
    };
    let sandbox_key = peergate::local::sandbox::CI_SECRET;
    assert_eq!(machine.send(&signed(sandbox_key)).await.unwrap().0, 401);
    let (status, body) = machine.send(&signed(NEW)).await.unwrap();
    assert!(status == 200 && body.contains("counted"), "{body}");
    machine.app.assert_accepts(&id, 0);
}

#[tokio::test]
async fn broken_file_keeps_the_settings_and_is_named() {
    let (machine, id) = Machine::with_request(quick_settings(), ONE_APPROVAL).await;
    let (good, path) = (machine.app.config.clone(), machine.app.environment.config.clone());
    let secrets = std::fs::read_to_string(secrets_path(&machine)).unwrap();
    let breaks = |config: &str, text: &str| {
        std::fs::write(&path, config).unwrap();
        std::fs::write(secrets_path(&machine), text).unwrap();
    };
    let cases = [
        (format!("{good}\n[oops"), secrets.clone(), "line "),
        (good.replace("approvals = 1", "approvals = 9"), secrets.clone(), "approvals"),
        (good.clone(), secrets.replace("\"targets\"", "\"tragets\""), "line 1, column"),
        (good.clone(), secrets.replace("access_key_id", "access_id"), "targets.prod"),
    ];
    for (number, (config, text, named)) in cases.iter().enumerate() {
        breaks(config, text);
        machine.signal(Signal::HUP);
        let count = async || machine.log().matches("outcome=\"not_reloaded\"").count() == number + 1;
        machine.wait_for("it is refused", count).await;
        let log = machine.log();
        let line = log.lines().rfind(|line| line.contains("not_reloaded")).unwrap();
        assert!(line.contains(named) && line.contains(&path.display().to_string()), "{line}");
        assert!(line.contains(&secrets_path(&machine).display().to_string()), "{line}");
    }
    breaks(&good, &secrets);
    assert!(!machine.log().contains("outcome=\"reloaded\""));
    assert_eq!(machine.approve(&id, "alice").await.0, 200);
    machine.wait_for_record(&id, "activated").await;
}

#[tokio::test]
async fn reload_resets_no_limit() {
    let app = TestApp::start().await;
    let app = app.with_change("regions = [\"cn-shanghai\"]", "regions = [\"cn-shanghai\"]\ncalls_per_minute = 2");
    for _ in 0..3 {
        app.discover().await;
    }
    app.assert_calls(LIST, 2);
    let reloaded = |config: &str| app.parts.reloaded(&app.environment, Config::parse(config).unwrap()).unwrap();
    let same = reloaded(&format!("retention_days = 500\n{}", app.config));
    let tick = async |parts: &peergate::app::App| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        Box::pin(peergate::watch::tick(parts, peergate::watch::Tick::SCHEDULED, deadline)).await.unwrap();
    };
    tick(&same).await;
    app.assert_calls(LIST, 2);
    assert!(std::sync::Arc::ptr_eq(&same.card_rate, &app.parts.card_rate));
    assert!(std::sync::Arc::ptr_eq(&same.read_budget, &app.parts.read_budget));
    tick(&reloaded(&app.config.replace("calls_per_minute = 2", "calls_per_minute = 3"))).await;
    app.assert_calls(LIST, 3);
}

/// A moment at which the process is killed.
struct Moment {
    name: &'static str,
    /// The call that hangs.
    fault: Fault,
    /// Whether the decision is stored by then, so that the watcher carries it out.
    is_decided: bool,
}

fn moments() -> [Moment; 5] {
    let hang = |action: &str| Fault { action: Some(action.into()), delay_ms: HANG_MS, ..Fault::default() };
    [
        Moment { name: "reading, before the decision is stored", fault: hang(GET), is_decided: false },
        Moment {
            name: "the dry run, before the decision is stored",
            fault: Fault { dry_run: true, ..hang(ACCEPT) },
            is_decided: false,
        },
        Moment { name: "the accept, before it has an effect", fault: hang(ACCEPT), is_decided: true },
        Moment {
            name: "the accept, after its effect",
            fault: Fault { delay_ms: 0, answer_delay_ms: HANG_MS, ..hang(ACCEPT) },
            is_decided: true,
        },
        Moment {
            name: "the accept, which was refused for the moment",
            fault: Fault { delay_ms: 0, answer_delay_ms: HANG_MS, ..failure(ACCEPT, "InternalError") },
            is_decided: true,
        },
    ]
}

#[tokio::test]
async fn process_killed_at_any_step_accepts_exactly_once() {
    for Moment { name, fault, is_decided } in moments() {
        let (mut machine, id) = Machine::with_request(quick_settings(), ONE_APPROVAL).await;
        let approval = machine.app.sign_event("approve", &id, "alice").await;
        machine.app.simulator.add_fault(fault);
        let has_begun = async {
            machine.wait_for(name, async || machine.app.simulator.pending_faults() == 0).await;
            if name.ends_with("after its effect") {
                machine.wait_for(name, async || machine.app.count_accepts(&id) == 1).await;
            }
        };
        tokio::select! {
            answer = machine.send(&approval) => panic!("{name}: answered {answer:?}"),
            () = has_begun => {}
        }
        machine.kill().await;
        machine.app.simulator.clear_faults();
        let shown = machine.run(&["show", id.as_str()]).await.unwrap();
        assert_eq!(shown.contains("approved by alice"), is_decided, "{name}: {shown}");
        machine.serve(&[]).await;
        if !is_decided {
            // The sender got no answer, and sends the request again.
            assert_eq!(machine.send(&approval).await.unwrap().0, 200, "{name}");
        }
        machine.wait_for_record(&id, "activated").await;
        machine.app.assert_accepts(&id, 1);
        // A retry of the sender decides nothing again.
        assert_eq!(machine.send(&approval).await.unwrap().0, 200, "{name}");
        machine.app.assert_accepts(&id, 1);
        let decisions = machine.run(&["show", id.as_str()]).await.unwrap();
        assert_eq!(decisions.matches("approved by alice").count(), 1, "{name}: {decisions}");
        assert!(machine.run(&["verify"]).await.unwrap().contains("all valid"), "{name}");
    }
}

#[tokio::test]
async fn process_killed_during_activation_and_post_loses_nothing() {
    let settings = SimulatorSettings { activation_delay: Duration::from_secs(1), ..SimulatorSettings::default() };
    let (mut machine, id) = Machine::with_request(settings, ONE_APPROVAL).await;
    machine.wait_for("the card", async || machine.app.slack.messages_in(CHANNEL).len() == 1).await;
    machine.app.slack.add_outage(Outage { path: AUDIT_PATH.into(), hangs: true, ..Outage::default() });
    assert_eq!(machine.approve(&id, "alice").await.0, 200);
    // A post and the connection's activation are under way.
    machine.app.simulator.add_fault(Fault { action: Some(GET.into()), delay_ms: HANG_MS, ..Fault::default() });
    machine.wait_for("a reading hangs", async || machine.app.simulator.pending_faults() == 0).await;
    machine.kill().await;
    machine.app.simulator.clear_faults();
    machine.app.slack.clear_outages();
    machine.serve(&[]).await;
    machine.wait_for_record(&id, "activated").await;
    // The claim of the killed process ends after 60 s.
    let told = async || {
        let types: BTreeSet<_> =
            machine.app.slack.posts(AUDIT_PATH).iter().map(|post| post.body_json()["type"].to_string()).collect();
        types.iter().any(|it| it.contains("activated")) && types.iter().any(|it| it.contains("decided"))
    };
    machine.wait_for("the auditors hear of the decision and the activation", told).await;
    machine.app.assert_accepts(&id, 1);
    assert!(machine.run(&["verify"]).await.unwrap().contains("all valid"));
    assert_eq!(machine.app.slack.messages_in(CHANNEL).len(), 1, "one card");
}

#[tokio::test]
async fn doctor_checks_an_installation_on_one_machine() {
    let (machine, _) = Machine::with_request(quick_settings(), ONE_APPROVAL).await;
    let report = machine.run(&["doctor", "--store", "peergate.db"]).await.unwrap();
    for line in ["✓ table: peergate", "✓ table, TTL: on `ttl`", "✓ table, writing", "✓ target prod, credentials"]
    {
        assert!(report.contains(line), "{line}: {report}");
    }
    assert!(!report.contains("stream") && !report.contains("schedule"), "{report}");
    let error = machine.run(&["doctor", "--store", "elsewhere.db"]).await.unwrap_err();
    assert!(error.contains("there is no table at elsewhere.db"), "{error}");
    assert!(!machine.directory.path().join("elsewhere.db").exists());
}
