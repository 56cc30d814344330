//! What machines hear: answers as JSON and problems, notices as signed requests.

use std::time::Duration;

use http::Response;
use serde_json::{Value, json};

use super::config::channel_keys;
use super::{Access, Channel, ID, ReplyTo, SIGNATURE, TIMESTAMP, sign_body};
use crate::approval::{Approval, ClientToken, Decision, Notice, Verdict};
use crate::chat::message::{self, Message};
use crate::chat::response::{json_response, merge, problem, retry_later};
use crate::chat::{Answer, Asked, ChannelSecrets, Click, POST_TIMEOUT, ProbeError, Said, Undelivered, reachable};
use crate::peering::{Connection, FieldHash, Side};
use crate::shape::KeyProblem;
use crate::{clock, http as our_http};

/// Machines send the reason at once.
pub(in crate::chat) async fn ask_reason(
    _access: Access<'_>,
    _to: &ReplyTo,
    _click: &Click,
    _verdict: Verdict,
    _timeout: Duration,
) -> Result<Asked, Undelivered> {
    Ok(Asked::Impossible)
}

/// The reply to a machine.
pub(in crate::chat) async fn reply(_access: Access<'_>, _to: ReplyTo, said: &Said<'_>) -> Response<String> {
    match said {
        Said::Answer { answer, message, .. } => answer_response(answer, message),
        Said::Usage | Said::Stranger | Said::Asked => crate::chat::response::empty(),
    }
}

/// Nobody can be asked.
pub(in crate::chat) async fn config_errors(_access: Access<'_>) -> Option<Vec<KeyProblem>> {
    None
}

fn answer_response(answer: &Answer, message: &Message) -> Response<String> {
    let (status, name) = answer.outcome();
    let detail =
        std::iter::once(&message.headline).chain(&message.sentences).map(String::as_str).collect::<Vec<_>>().join(". ");
    let about = match answer {
        Answer::Done(approval)
        | Answer::Underway(approval)
        | Answer::Counted(approval)
        | Answer::Withdrawn(approval)
        | Answer::Repeated(approval)
        | Answer::Over(approval) => {
            json!({"approval": self::approval(approval)})
        }
        Answer::DryRunPassed { connection, findings } => {
            json!({"connection": self::connection(connection), "findings": findings})
        }
        Answer::List { approvals, more } => json!({
            "approvals": approvals.iter().map(self::approval).collect::<Vec<_>>(), "more": more,
        }),
        Answer::Status { connection, approval, .. } => json!({
            "connection": self::connection(connection),
            "approval": approval.as_deref().map(self::approval),
        }),
        Answer::VendorRefused(problem)
        | Answer::NotUnderstood { problem, .. }
        | Answer::CredentialsRefused(problem) => {
            json!({"problem": problem})
        }
        Answer::UnknownTarget(targets) => json!({"targets": targets}),
        Answer::Objection(objection) => json!({"objection": objection}),
        Answer::Refused(_)
        | Answer::ReasonRequired { .. }
        | Answer::NothingToWithdraw
        | Answer::NotAsked { .. }
        | Answer::OldCard { .. }
        | Answer::Changed
        | Answer::NotShown
        | Answer::IdReused
        | Answer::Void
        | Answer::RecordFull
        | Answer::TooManyWithdrawals
        | Answer::TooManyReads
        | Answer::UnknownConnection
        | Answer::Unavailable(_) => Value::Null,
    };
    if status.is_success() {
        json_response(status, &merge(json!({"outcome": name, "detail": detail}), &about))
    } else {
        retry_later(problem(status, name, &detail, &about))
    }
}

/// A notice as JSON: `{type, timestamp, data}`.
#[must_use]
pub fn notice(approval: &Approval, notice: &Notice) -> Value {
    json!({
        "type": format!("peering.{}", message::news_name(&notice.news)),
        "timestamp": notice.at.to_string(),
        "data": {
            "summary": message::notice(approval, notice).headline,
            "news": notice.news,
            "approval": self::approval(approval),
        },
    })
}

/// An approval as machines see it.
#[must_use]
pub fn approval(approval: &Approval) -> Value {
    json!({
        "target": approval.id.target,
        "instance_id": approval.id.instance_id,
        "state": approval.state.name(),
        "since": approval.since,
        "generation": approval.generation,
        "rule": approval.terms.rule,
        "approvals": {
            "given": approval.given(), "needed": approval.terms.needed(), "approvers": approval.terms.approvers,
        },
        "decision": approval.winner().map(decision),
        "decisions": approval.decisions.iter().map(decision).collect::<Vec<_>>(),
        "findings": approval.findings,
        "client_token": approval.client_token.as_ref().map(ClientToken::as_str),
        "problem": approval.last_problem,
        "history_hash": approval.history.last().map(|entry| entry.hash.as_str()),
        "connection": connection(&approval.connection),
    })
}

fn decision(decision: &Decision) -> Value {
    json!({
        "verdict": decision.verdict,
        "by": decision.by.principal,
        "person": decision.by.person,
        "at": decision.at,
        "fingerprint": decision.fingerprint,
        "reason": decision.reason,
    })
}

/// A connection as machines see it.
#[must_use]
pub fn connection(connection: &Connection) -> Value {
    let side =
        |side: &Side| json!({"account": side.account, "region": side.region, "vpc": side.vpc, "cidrs": side.cidrs});
    json!({
        "instance_id": connection.instance_id,
        "status": connection.status,
        "business_status": connection.business_status,
        "fingerprint": connection.fingerprint(),
        "requester": side(&connection.requester),
        "accepter": side(&connection.accepter),
        "bandwidth_mbps": connection.bandwidth_mbps,
        "link_type": connection.link_type,
        "name": connection.name,
        "description": connection.description,
        "expires_at": connection.expires_at,
    })
}

impl Channel {
    /// Posts a notice, signed. Its `webhook-id` is the same for every try.
    pub(in crate::chat) async fn notify(
        &self,
        http: &reqwest::Client,
        endpoint: &ChannelSecrets,
        approval: &Approval,
        notice: &Notice,
    ) -> Result<(), Undelivered> {
        let mut hash = FieldHash::new("peergate/webhook-id/1");
        hash.field(&approval.id.to_string());
        hash.field(&notice.number.to_string());
        let id = format!("msg_{:.32}", hash.hex());
        post(http, endpoint, &id, self::notice(approval, notice).to_string()).await
    }

    /// Posts a message that says nothing, to see whether it is taken. Without one, all that shows is that somebody
    /// answers.
    pub(in crate::chat) async fn probe(
        &self,
        http: &reqwest::Client,
        endpoint: &ChannelSecrets,
        test: Option<&Message>,
    ) -> Result<&'static str, ProbeError> {
        if test.is_none() {
            return reachable(http, &endpoint.url).await;
        }
        let body = json!({"type": "peergate.test", "timestamp": clock::now()}).to_string();
        post(http, endpoint, &format!("msg_{}", clock::nonce()), body).await?;
        Ok("took a test message")
    }
}

async fn post(http: &reqwest::Client, endpoint: &ChannelSecrets, id: &str, body: String) -> Result<(), Undelivered> {
    let keys = channel_keys(endpoint).ok_or_else(|| Undelivered::misconfigured("a signing secret is malformed"))?;
    let timestamp = clock::now().as_second().to_string();
    let request = http
        .post(endpoint.url.expose().clone())
        .timeout(POST_TIMEOUT)
        .header("content-type", "application/json")
        .header(SIGNATURE, sign_body(&keys, id, &timestamp, body.as_bytes()))
        .header(ID, id)
        .header(TIMESTAMP, timestamp)
        .body(body);
    let response = request.send().await.map_err(|error| Undelivered::transport(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    our_http::read(response).await.map_err(|error| Undelivered::transport(&error))?;
    if status.is_success() { Ok(()) } else { Err(Undelivered::status(status, &headers, clock::now())) }
}

/// What an operator has to do so that requests arrive at `url`.
#[cfg(feature = "local")]
pub(in crate::chat) async fn register(access: Access<'_>, url: &url::Url) -> Result<String, String> {
    let clients: Vec<_> = access.config.0.iter().map(String::as_str).collect();
    Ok(format!("Clients post to {url} with their name at its end: {}.", clients.join(", ")))
}
