//! What machines receive: answers as JSON or problems, and notifications as signed requests.

use std::time::Duration;

use http::Response;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::config::channel_keys;
use super::view::{ApprovalView, ConnectionView, NotificationView};
use super::{Channel, PlatformContext, ReplyTo, STANDARD_HEADERS, sign_body};
use crate::approval::{Approval, Notification, Verdict};
use crate::chat::delivery::{RECEIVER_TIMEOUT, probe_url};
use crate::chat::message::Message;
use crate::chat::response::{add_retry_after, empty_response, json_response, merge_members, problem_response};
use crate::chat::{AskOutcome, ChannelSecrets, Click, DeliveryError, Outgoing, ProbeError, Reply, ReplyOutcome};
use crate::peering::FieldHash;
use crate::redaction::KeyProblem;
use crate::{clock, http as our_http};

/// The most peerings in an answer. AWS Lambda returns at most 6 MB.
const MAX_PEERINGS: usize = 1000;
/// The most gaps in an answer.
const MAX_GAPS: usize = 100;

/// A machine sends its reason with the command.
pub(in crate::chat) async fn ask_reason(
    _access: PlatformContext<'_>,
    _to: &ReplyTo,
    _click: &Click,
    _verdict: Verdict,
    _timeout: Duration,
) -> Result<AskOutcome, DeliveryError> {
    Ok(AskOutcome::Impossible)
}

/// Answers in the HTTP response.
pub(in crate::chat) async fn reply(
    _access: PlatformContext<'_>,
    _to: ReplyTo,
    outgoing: &Outgoing<'_>,
    _until: Instant,
) -> Response<String> {
    match outgoing {
        Outgoing::Reply { reply, message, .. } => reply_response(reply, message),
        Outgoing::UnknownCommand(_) | Outgoing::WrongTenant | Outgoing::ReasonAsked => empty_response(),
    }
}

/// There is no platform to ask.
pub(in crate::chat) async fn config_errors(_access: PlatformContext<'_>) -> Option<Vec<KeyProblem>> {
    None
}

fn reply_response(reply: &Reply, message: &Message) -> Response<String> {
    let ReplyOutcome { status, name } = reply.outcome();
    let detail = message.to_paragraph();
    let about = match reply {
        Reply::Done(approval)
        | Reply::InProgress(approval)
        | Reply::Counted(approval)
        | Reply::Withdrawn(approval)
        | Reply::Acknowledged(approval)
        | Reply::Repeated(approval)
        | Reply::AlreadyDecided(approval)
        | Reply::Deleted(approval) => {
            json!({"approval": ApprovalView::new(approval)})
        }
        Reply::DryRunPassed { connection, findings } => {
            json!({"connection": ConnectionView::new(connection), "findings": findings})
        }
        Reply::List { approvals, more } => json!({
            "approvals": approvals.iter().map(ApprovalView::new).collect::<Vec<_>>(), "more": more,
        }),
        Reply::Inventory { lines, gaps, .. } => json!({
            "peerings": lines.get(..MAX_PEERINGS).unwrap_or(lines),
            "more": lines.len() > MAX_PEERINGS,
            "gaps": gaps.get(..MAX_GAPS).unwrap_or(gaps),
        }),
        Reply::Status { connection, approval, .. } => json!({
            "connection": ConnectionView::new(connection),
            "approval": approval.as_deref().map(ApprovalView::new),
        }),
        Reply::ButtonsOnly(status) => return reply_response(status, message),
        Reply::VendorRefused(problem) | Reply::NotUnderstood { problem, .. } | Reply::CredentialsRefused(problem) => {
            json!({"problem": problem})
        }
        Reply::UnknownTarget(targets) => json!({"targets": targets}),
        Reply::Objection(objection) => json!({"objection": objection}),
        Reply::Refused(_)
        | Reply::ReasonRequired { .. }
        | Reply::ReasonTooLong(_)
        | Reply::NothingToWithdraw
        | Reply::NothingToAcknowledge
        | Reply::CouldNotAsk { .. }
        | Reply::StaleCard { .. }
        | Reply::ConnectionChanged
        | Reply::FactsNotShown
        | Reply::IdReused
        | Reply::DecisionVoid
        | Reply::RecordFull
        | Reply::TooManyWithdrawals
        | Reply::TooManyReads
        | Reply::UnknownConnection
        | Reply::Unavailable(_) => Value::Null,
    };
    if status.is_success() {
        json_response(status, &merge_members(json!({"outcome": name, "detail": detail}), &about))
    } else {
        add_retry_after(problem_response(status, name, &detail, &about))
    }
}

/// A notification as JSON: `{type, timestamp, data}`.
#[must_use]
pub fn notification_json(approval: &Approval, notification: &Notification) -> Value {
    json!(NotificationView::new(approval, notification))
}

impl Channel {
    /// Posts a notification, signed. Its `webhook-id` is the same for every attempt.
    pub(in crate::chat) async fn send_notification(
        &self,
        http: &reqwest::Client,
        endpoint: &ChannelSecrets,
        approval: &Approval,
        notification: &Notification,
    ) -> Result<(), DeliveryError> {
        let mut hash = FieldHash::new("peergate/webhook-id/1");
        hash.add_field(&approval.id().to_string());
        hash.add_field(&notification.number.to_string());
        let id = format!("msg_{:.32}", hash.into_hex());
        post_signed(http, endpoint, &id, notification_json(approval, notification).to_string()).await
    }

    /// Posts an empty test message. Without a test message, this proves only that a server answers.
    pub(in crate::chat) async fn probe(
        &self,
        http: &reqwest::Client,
        endpoint: &ChannelSecrets,
        test: Option<&Message>,
    ) -> Result<&'static str, ProbeError> {
        if test.is_none() {
            return probe_url(http, &endpoint.url).await;
        }
        let body = json!({"type": "peergate.test", "timestamp": clock::now()}).to_string();
        post_signed(http, endpoint, &format!("msg_{}", clock::nonce()), body).await?;
        Ok("accepted a test message")
    }
}

async fn post_signed(
    http: &reqwest::Client,
    endpoint: &ChannelSecrets,
    id: &str,
    body: String,
) -> Result<(), DeliveryError> {
    let keys = channel_keys(endpoint).ok_or_else(|| DeliveryError::misconfigured("a signing secret is malformed"))?;
    let timestamp = clock::now().as_second().to_string();
    let request = http
        .post(endpoint.url.expose().clone())
        .timeout(RECEIVER_TIMEOUT)
        .header("content-type", "application/json")
        .header(STANDARD_HEADERS.signature, sign_body(&keys, id, &timestamp, body.as_bytes()))
        .header(STANDARD_HEADERS.id, id)
        .header(STANDARD_HEADERS.timestamp, timestamp)
        .body(body);
    let response = request.send().await.map_err(|error| DeliveryError::from_transport(&error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    if status.is_success() {
        // The receiver has taken the message, whatever else it says.
        return Ok(());
    }
    let body = our_http::read_body(response).await.unwrap_or_default();
    Err(DeliveryError::from_http_status(status, &headers, &body, clock::now()))
}

/// The steps of an operator so that requests arrive at `url`.
#[cfg(feature = "local")]
pub(in crate::chat) async fn register_webhook(access: PlatformContext<'_>, url: &url::Url) -> Result<String, String> {
    let clients: Vec<_> = access.config.0.iter().map(String::as_str).collect();
    Ok(format!("Clients post to {url}, followed by their name: {}.", clients.join(", ")))
}
