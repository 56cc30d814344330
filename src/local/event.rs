//! Freshly signed events, as a Function URL would hand them to the webhook.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Error;
use crate::app::App;
use crate::chat::{slack, standard_webhooks};
use crate::config::{Config, Environment};
use crate::peering::InstanceId;
use crate::secrets::Secrets;
use crate::{accept, clock};

/// What is to be signed.
#[derive(Debug, Clone)]
pub struct Wish {
    /// `approve`, `reject`, `withdraw`, `status`, `list` or `dry-run`.
    pub verb: String,
    /// `pcc-…`; empty for a list.
    pub instance_id: String,
    /// By its name, if there are several.
    pub target: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The fingerprint that the sender saw; Slack's commands carry none.
    pub fingerprint: Option<String>,
    /// Who: with Standard Webhooks what the client calls them, with Slack a user id.
    pub actor: String,
}

/// A signed request: what a sender sends.
#[derive(Debug, Clone)]
pub struct Signed {
    /// e.g. `/webhook/ci`.
    pub path: String,
    /// By lower-case name.
    pub headers: Vec<(&'static str, String)>,
    /// As signed.
    pub body: String,
}

/// The fingerprint of a connection, where Alibaba Cloud shows it now.
///
/// # Errors
/// When it cannot be read: then nothing is known of what was seen.
pub async fn fingerprint(
    environment: &Environment,
    config: &Config,
    target: Option<&str>,
    instance_id: &str,
) -> Result<String, Error> {
    let app = App::new(environment, config.clone())?;
    let (target, _) = config.target(target).ok_or("name the --target: there are several")?;
    match accept::read(&app, target, &InstanceId::parse(instance_id)?, clock::now()).await {
        Ok(connection) => Ok(connection.fingerprint().to_string()),
        Err(error) => {
            Err(format!("cannot read {instance_id} for its fingerprint ({error}); name the --fingerprint").into())
        }
    }
}

/// As a client of `/webhook/{client}` would send it.
pub fn standard_webhooks(
    wish: &Wish,
    client: &str,
    secrets: &Secrets,
    id: &str,
    now: Timestamp,
) -> Result<Signed, Error> {
    let (verb, dry_run) = match wish.verb.as_str() {
        "dry-run" => ("approve", true),
        verb => (verb, false),
    };
    let mut data = json!({"actor": wish.actor});
    let instance_id = Some(wish.instance_id.clone()).filter(|id| !id.is_empty());
    let optional = [
        ("instance_id", &instance_id),
        ("target", &wish.target),
        ("reason", &wish.reason),
        ("fingerprint", &wish.fingerprint),
    ];
    for (name, text) in optional.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?))) {
        insert(&mut data, name, text.as_str().into());
    }
    if dry_run {
        insert(&mut data, "dry_run", true.into());
    }
    let body = json!({"type": format!("peering.{verb}"), "timestamp": now, "data": data}).to_string();
    let keys = &secrets.clients.get(client).ok_or("the secrets have no such client")?.signing_secrets;
    let timestamp = now.as_second().to_string();
    let signature = standard_webhooks::sign(keys.get(..1).unwrap_or_default(), id, &timestamp, body.as_bytes());
    Ok(Signed {
        path: format!("/webhook/{client}"),
        headers: vec![
            ("content-type", "application/json".into()),
            ("webhook-id", id.to_owned()),
            ("webhook-signature", signature),
            ("webhook-timestamp", timestamp),
        ],
        body,
    })
}

/// As Slack would send the slash command.
pub fn slack(wish: &Wish, config: &Config, secrets: &Secrets, now: Timestamp) -> Result<Signed, Error> {
    let app = config.slack.as_ref().ok_or("the configuration has no [slack]")?;
    let team = app.teams.first().ok_or("slack.teams is empty")?;
    let mut text = format!("{} {}", wish.verb, wish.instance_id).trim_end().to_owned();
    for (word, value) in [("on", &wish.target), ("because", &wish.reason)] {
        if let Some(value) = value {
            text = format!("{text} {word} {value}");
        }
    }
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("command", "/peergate"),
            ("text", &text),
            ("team_id", team),
            ("user_id", &wish.actor),
            ("api_app_id", &app.app),
        ])
        .finish();
    slack_form(body, secrets, now)
}

/// As Slack would send an interaction: a click, or a reason.
pub fn slack_interaction(payload: &Value, secrets: &Secrets, now: Timestamp) -> Result<Signed, Error> {
    let payload = payload.to_string();
    let body = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload).finish();
    slack_form(body, secrets, now)
}

/// Any form, signed as Slack signs it.
pub fn slack_form(body: String, secrets: &Secrets, now: Timestamp) -> Result<Signed, Error> {
    let slack = secrets.slack.as_ref().ok_or("the secrets have no slack")?;
    let secret = slack.signing_secrets.first().ok_or("slack.signing_secrets is empty")?;
    let timestamp = now.as_second().to_string();
    let signature = slack::sign(secret, &timestamp, body.as_bytes());
    Ok(Signed {
        path: "/slack".into(),
        headers: vec![
            ("content-type", "application/x-www-form-urlencoded".into()),
            ("x-slack-request-timestamp", timestamp),
            ("x-slack-signature", signature),
        ],
        body,
    })
}

/// The event of a Function URL.
#[must_use]
pub fn envelope(signed: &Signed) -> Value {
    let headers: serde_json::Map<_, _> =
        signed.headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": signed.path,
        "rawQueryString": "",
        "headers": headers,
        "requestContext": {"http": {"method": "POST", "path": signed.path}},
        "body": signed.body,
        "isBase64Encoded": false,
    })
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}
