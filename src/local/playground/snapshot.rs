//! The present state of everything that the page shows. The page computes none of it.

use serde_json::{Value, json};

use super::scene::Scene;
use super::{record, rules};
use crate::approval::{Approval, Verdict};
use crate::chat::message;
use crate::clock;
use crate::fake::slack::RecordedPost;
use crate::local::Error;
use crate::local::chat_stage::{CastMember, ChatApp};
use crate::local::stories::{FaultKind, StoryPlayer, StoryStep};
use crate::policy::ApproverRef;

/// The most messages of a channel that the page gets.
const MAX_MESSAGES: usize = 30;
/// The most private messages.
const MAX_PRIVATE: usize = 30;
/// The most events of the auditors' URL.
const MAX_AUDIT_EVENTS: usize = 40;

pub(super) async fn take(scene: &Scene) -> Result<Value, Error> {
    let player = &scene.player;
    let approval = player.record().await?;
    let stage = player.stage();
    let report = *player.watcher().reports().borrow();
    let on_stage = player.current().and_then(|id| stage.simulator.read_connection(id.as_str()));
    let bandwidth = on_stage.as_ref().and_then(|it| it.bandwidth_mbps);
    let connection = approval.as_ref().map(|it| it.connection().clone()).or(on_stage);
    let explained = connection.as_ref().map(|connection| rules::explain(&stage.parts.config, "prod", connection));
    let status = player.current().and_then(|id| stage.simulator.true_status(id.as_str()));
    let faults = FaultKind::ALL.map(|kind| json!({"kind": kind, "on": player.faults().contains(&kind)}));
    let scenario = scene.scenario.as_ref().map(|scenario| {
        let step_json = |it: &StoryStep| json!({"title": it.title, "why": it.why, "action": it.action});
        let steps: Vec<_> = scenario.steps.iter().map(step_json).collect();
        json!({
            "id": scenario.id, "title": scenario.title, "about": scenario.about, "steps": steps,
            "played": scene.played, "until": scenario.until,
        })
    });
    Ok(json!({
        "generation": scene.generation,
        "step": scene.step,
        "current": player.current().map(ToString::to_string),
        "status": status,
        "bandwidth": bandwidth,
        "clock": {"ahead_ms": ahead_ms(), "asked_at": asked_at(player)},
        "watcher": {
            "running": player.watcher().is_running(), "ticks": report.ticks > 0,
            "discovered_at": report.discovered_at.map(jiff::Timestamp::as_second),
            "last": {
                "discovered": report.last.discovered, "changed": report.last.changed,
                "delivered": report.last.delivered, "undelivered": report.last.undelivered,
            },
        },
        "webhook_armed": scene.kill_switch.is_armed(),
        "faults": faults,
        "platforms": platforms(player),
        "audit": audit_events(player),
        "record": record::describe(player).await?,
        "rules": explained,
        "config": stage.config,
        "people": people(player, approval.as_ref()),
        "scenario": scenario,
    }))
}

/// How far the clock was moved.
fn ahead_ms() -> i64 {
    i64::try_from(clock::jump::offset().as_millis()).unwrap_or(i64::MAX)
}

fn asked_at(player: &StoryPlayer) -> Option<jiff::Timestamp> {
    let connection = player.stage().simulator.read_connection(player.current()?.as_str())?;
    connection.created_at
}

fn platforms(player: &StoryPlayer) -> Vec<Value> {
    let stage = player.stage();
    let private = stage.private_messages();
    let describe = |app: ChatApp| {
        let mut messages = app.messages(stage);
        messages.drain(..messages.len().saturating_sub(MAX_MESSAGES));
        let mut escalations = app.escalations(stage);
        escalations.drain(..escalations.len().saturating_sub(MAX_MESSAGES));
        let private: Vec<_> = private.iter().filter(|it| it.app == app).collect();
        let private = private.get(private.len().saturating_sub(MAX_PRIVATE)..).unwrap_or_default();
        json!({
            "name": app.name(), "title": app.title(), "channel": app.channel(), "renderer": app.name(),
            "messages": messages, "escalations": escalations, "private": private,
        })
    };
    ChatApp::ALL.into_iter().map(describe).collect()
}

fn audit_events(player: &StoryPlayer) -> Vec<Value> {
    let posts = player.stage().slack.posts("/audit");
    posts.iter().skip(posts.len().saturating_sub(MAX_AUDIT_EVENTS)).map(RecordedPost::body_json).collect()
}

/// Who could click, and what each is to the current request.
fn people(player: &StoryPlayer, approval: Option<&Approval>) -> Vec<Value> {
    let config = &player.stage().parts.config;
    let needed = approval.map(|approval| message::needed_approvers(approval, clock::now())).unwrap_or_default();
    let contacts: Vec<_> = approval
        .and_then(|approval| config.policy.accounts.get(&approval.facts().requester.account))
        .map(|account| account.contacts.clone())
        .unwrap_or_default();
    let describe = |person: CastMember| {
        let name = person.name();
        let decided = |verdict: Verdict| {
            let mut decisions = approval.map(Approval::decisions).unwrap_or_default().iter();
            decisions.any(|it| it.verdict == verdict && it.by.person.as_deref() == Some(name))
        };
        let is_needed = needed.iter().any(|needed| needed == name);
        let note = if decided(Verdict::Approve) {
            "approved"
        } else if decided(Verdict::Reject) {
            "rejected"
        } else if contacts.contains(&ApproverRef::Person(name.to_owned())) {
            "contact"
        } else if !config.policy.people.contains_key(name) {
            "stranger"
        } else if is_needed {
            "needed"
        } else {
            "approver"
        };
        let ids: Vec<_> = ChatApp::ALL.into_iter().map(|app| json!([app.name(), app.user_id(person)])).collect();
        json!({"name": name, "title": person.title(), "note": note, "needed": is_needed, "ids": ids})
    };
    CastMember::ALL.into_iter().map(describe).collect()
}
