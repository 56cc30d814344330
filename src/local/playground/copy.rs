//! Exchanges as commands and as events of Lambda, signed afresh with the playground's throw-away keys.

use axum::http::HeaderMap;
use serde::Deserialize;
use url::Url;

use crate::alicloud::sign::v3;
use crate::chat::SignedRequest;
use crate::clock;
use crate::fake::traffic::Exchange;
use crate::local::chat_stage::ChatStage;
use crate::local::{Error, event};

/// In which form an exchange is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CopyForm {
    /// A command for a shell.
    Curl,
    /// An event for `cargo lambda invoke webhook`.
    Event,
}

/// Headers that curl writes itself.
const CURL_HEADERS: [&str; 5] = ["host", "content-length", "connection", "accept-encoding", "user-agent"];
/// The throw-away keys of the simulated accounts.
const KEYS: [(&str, &str); 3] =
    [("requester-key", "requester-secret"), ("accepter-key", "accepter-secret"), ("other-key", "other-secret")];

/// A name and a value.
#[derive(Debug, Clone)]
struct HeaderLine {
    name: String,
    value: String,
}

/// Signs the request of an exchange again, and writes it in this form.
pub(super) async fn copy_exchange(
    stage: &ChatStage,
    webhook: &Url,
    exchange: &Exchange,
    form: CopyForm,
) -> Result<String, Error> {
    if exchange.server == "webhook" {
        let signed_as =
            stage.find_sent(&exchange.body).ok_or("peergate did not send this request, so it cannot sign it")?;
        let signed = signed_as.sign(stage).await?;
        return Ok(match form {
            CopyForm::Curl => curl(webhook.join(&signed.path)?.as_str(), &header_lines(&signed), &signed.body),
            CopyForm::Event => serde_json::to_string_pretty(&event::function_url_event(&signed))?,
        });
    }
    if form == CopyForm::Event {
        return Err("only requests to the webhook are events".into());
    }
    let server = match exchange.server {
        "alicloud" => &stage.alicloud_url,
        "slack" => &stage.chat_url,
        name => stage.server_url(name).ok_or("there is no such server")?,
    };
    let url = server.join(&exchange.path)?;
    let body = String::from_utf8_lossy(&exchange.body);
    let headers =
        if exchange.server == "alicloud" { sign_again(exchange, &url)? } else { plain_lines(&exchange.headers) };
    Ok(curl(url.as_str(), &headers, &body))
}

fn header_lines(signed: &SignedRequest) -> Vec<HeaderLine> {
    let line = |(name, value): &(&'static str, String)| HeaderLine { name: (*name).to_owned(), value: value.clone() };
    signed.headers.iter().map(line).collect()
}

fn plain_lines(headers: &HeaderMap) -> Vec<HeaderLine> {
    let kept = headers.iter().filter(|(name, _)| !CURL_HEADERS.contains(&name.as_str()));
    kept.map(|(name, value)| HeaderLine {
        name: name.to_string(),
        value: value.to_str().unwrap_or_default().to_owned(),
    })
    .collect()
}

/// A call to Alibaba Cloud takes each nonce once, so that it needs another signature.
fn sign_again(exchange: &Exchange, url: &Url) -> Result<Vec<HeaderLine>, Error> {
    let header = |name: &str| exchange.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let credential = header("authorization").split_once("Credential=").map(|(_, rest)| rest);
    let credential = credential.and_then(|rest| rest.split(',').next()).ok_or("the call is not signed")?;
    let (_, secret) = KEYS.iter().find(|(id, _)| *id == credential).ok_or("the key of this call is gone")?;
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    let body_hash = v3::body_hash(&exchange.body);
    let signed: v3::Headers = [
        ("content-type", header("content-type").to_owned()),
        ("host", host),
        ("x-acs-action", header("x-acs-action").to_owned()),
        ("x-acs-content-sha256", body_hash.clone()),
        ("x-acs-date", clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        ("x-acs-signature-nonce", clock::nonce()),
        ("x-acs-version", header("x-acs-version").to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let to_sign = v3::string_to_sign(&v3::canonical_request("POST", "/", "", &signed, &body_hash));
    let authorization = v3::authorization(credential, &signed, &v3::signature(secret, &to_sign));
    let lines = signed.into_iter().filter(|(name, _)| name != "host").map(|(name, value)| HeaderLine { name, value });
    Ok(lines.chain([HeaderLine { name: "authorization".to_owned(), value: authorization }]).collect())
}

/// A command for a POSIX shell.
fn curl(url: &str, headers: &[HeaderLine], body: &str) -> String {
    let mut command = format!("curl -sS {}", quote(url));
    for HeaderLine { name, value } in headers {
        command.push_str(" \\\n  -H ");
        command.push_str(&quote(&format!("{name}: {value}")));
    }
    command + " \\\n  --data-raw " + &quote(body)
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
