//! Records and connections as programs see them. `docs/schema/events.json` is made from these types.

use std::collections::BTreeSet;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;

use crate::approval::{Approval, ClientToken, Decision, Drift, Notification, NotificationKind, Principal, Verdict};
use crate::chat::message;
use crate::peering::{
    AccountId, BusinessStatus, Change, Connection, Fingerprint, InstanceId, Problem, RouteReport, Side, Status,
};
use crate::preflight::Finding;

/// A notification.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "Event"))]
pub struct NotificationView<'a> {
    /// `peering.` and what happened.
    r#type: String,
    /// When it happened.
    timestamp: Timestamp,
    /// What it is about.
    data: NotificationData<'a>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "EventData"))]
struct NotificationData<'a> {
    /// One sentence for people.
    summary: String,
    /// What this notification is about.
    news: &'a NotificationKind,
    /// The whole record.
    approval: ApprovalView<'a>,
}

/// A record: everything that peergate knows about a connection.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "Approval"))]
pub(super) struct ApprovalView<'a> {
    /// The accepting account, by its name in the configuration.
    target: &'a str,
    /// The id of the connection.
    instance_id: &'a InstanceId,
    /// The state of the record.
    #[cfg_attr(
        feature = "local",
        schemars(extend("enum" = [
            "pending", "approved", "activating", "activated", "rejecting", "rejected", "expired", "deleted", "failed",
        ]))
    )]
    state: &'static str,
    /// When the record entered this state.
    since: Timestamp,
    /// Starts at 1. Each attempt to decide the request has its own.
    generation: u32,
    /// The name of the matching rule. Null if no rule matches: then nobody can decide.
    rule: Option<&'a str>,
    /// The approvals so far.
    approvals: ApprovalCounts<'a>,
    /// The decision that completed the request. Null while it is pending.
    decision: Option<DecisionView<'a>>,
    /// The decisions that count, oldest first, at most one for each person.
    decisions: Vec<DecisionView<'a>>,
    /// The results of the last checks. Empty if they are outdated.
    findings: &'a [Finding],
    /// The client token of the call that carries out the decision. Null until the request is decided.
    client_token: Option<&'a str>,
    /// Why the last attempt failed. Null if it did not fail.
    problem: Option<&'a Problem>,
    /// The latest hash of the history: SHA-256, 64 hexadecimal digits.
    history_hash: Option<&'a str>,
    /// How the activated connection differs from what people approved or acknowledged. Null if it does not.
    drift: Option<DriftView<'a>>,
    /// What our route tables said of the active or ended connection when they were last read. Null if they were not.
    routes: Option<RoutesView<'a>>,
    /// The last reading that changed the record.
    connection: ConnectionView<'a>,
}

/// A change of an activated connection that is not acknowledged yet.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "Drift"))]
struct DriftView<'a> {
    /// When peergate saw it.
    since: Timestamp,
    /// The differences.
    changes: &'a [Change],
    /// Send it with an acknowledgment.
    fingerprint: &'a Fingerprint,
    /// Those who have acknowledged it, oldest first.
    acknowledgments: Vec<DecisionView<'a>>,
}

/// What our route tables say.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "Routes"))]
struct RoutesView<'a> {
    /// When they were read. Null if an earlier version read them.
    read_at: Option<Timestamp>,
    /// Whether they lead all traffic of the other side to the peering. After its end: whether no route to it is left.
    complete: bool,
    #[serde(flatten)]
    report: &'a RouteReport,
}

#[derive(Debug, Serialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
struct ApprovalCounts<'a> {
    /// How many people have approved.
    given: u32,
    /// How many people must approve.
    needed: u32,
    /// Who may approve: names of people, or principals of identities that belong to no person.
    approvers: &'a [String],
}

/// A decision of one person.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema))]
struct DecisionView<'a> {
    /// Whether to accept or to reject.
    verdict: Verdict,
    /// The identity that decided.
    by: &'a Principal,
    /// The name of the person. Null if the identity belongs to no person.
    person: Option<&'a str>,
    /// When the request with the decision arrived.
    at: Timestamp,
    /// The fingerprint of the facts that were decided on.
    fingerprint: &'a Fingerprint,
    /// The person's own words, untrusted. Null without a reason.
    reason: Option<&'a str>,
}

/// A VPC peering connection.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "Connection"))]
pub(super) struct ConnectionView<'a> {
    /// The id of the connection.
    instance_id: &'a InstanceId,
    /// Its status at Alibaba Cloud, e.g. `Accepting`.
    status: &'a Status,
    /// `Normal`, or why it is locked.
    business_status: &'a BusinessStatus,
    /// The fingerprint of its facts. Send it with a decision.
    fingerprint: Fingerprint,
    /// The side that sent the request.
    requester: SideView<'a>,
    /// The side that accepts.
    accepter: SideView<'a>,
    /// Mbit/s. Null if unlimited or unknown.
    bandwidth_mbps: Option<u32>,
    /// `Platinum`, `Gold` or `Silver` between regions. Empty within one region.
    link_type: &'a str,
    /// Text of the requester, untrusted.
    name: &'a str,
    /// Text of the requester, untrusted.
    description: &'a str,
    /// When the request expires. Null unless the connection is waiting or expired.
    expires_at: Option<Timestamp>,
}

/// One end of a connection.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "local", derive(schemars::JsonSchema), schemars(rename = "Side"))]
struct SideView<'a> {
    /// The account that owns the VPC.
    account: AccountId,
    /// The region of the VPC.
    region: &'a str,
    /// The id of the VPC.
    vpc: &'a str,
    /// IPv4 and IPv6 CIDR blocks. Empty if they are unknown.
    #[cfg_attr(feature = "local", schemars(with = "BTreeSet<String>"))]
    cidrs: &'a BTreeSet<IpNet>,
}

impl<'a> NotificationView<'a> {
    pub(super) fn new(approval: &'a Approval, notification: &'a Notification) -> Self {
        Self {
            r#type: format!("peering.{}", message::notification_name(&notification.kind)),
            timestamp: notification.at,
            data: NotificationData {
                summary: message::describe_notification(approval, notification).headline,
                news: &notification.kind,
                approval: ApprovalView::new(approval),
            },
        }
    }
}

impl<'a> ApprovalView<'a> {
    pub(super) fn new(approval: &'a Approval) -> Self {
        let policy = approval.policy();
        Self {
            target: &approval.id().target,
            instance_id: &approval.id().instance_id,
            state: approval.state().name(),
            since: approval.since(),
            generation: approval.generation(),
            rule: policy.rule.as_deref(),
            approvals: ApprovalCounts {
                given: approval.approval_count(),
                needed: policy.needed_approvals(),
                approvers: &policy.approvers,
            },
            decision: approval.winner().map(DecisionView::new),
            decisions: approval.decisions().iter().map(DecisionView::new).collect(),
            findings: approval.findings(),
            client_token: approval.client_token().map(ClientToken::as_str),
            problem: approval.last_problem(),
            history_hash: approval.history().last().map(|entry| entry.hash.as_str()),
            drift: approval.drift().map(DriftView::new),
            routes: approval.routes().map(|report| RoutesView {
                read_at: approval.routes_read_at(),
                complete: report.is_complete(),
                report,
            }),
            connection: ConnectionView::new(approval.connection()),
        }
    }
}

impl<'a> DriftView<'a> {
    fn new(Drift { since, changes, fingerprint, acknowledgments }: &'a Drift) -> Self {
        let acknowledgments = acknowledgments.iter().map(DecisionView::new).collect();
        Self { since: *since, changes, fingerprint, acknowledgments }
    }
}

impl<'a> DecisionView<'a> {
    fn new(decision: &'a Decision) -> Self {
        Self {
            verdict: decision.verdict,
            by: &decision.by.principal,
            person: decision.by.person.as_deref(),
            at: decision.at,
            fingerprint: &decision.fingerprint,
            reason: decision.reason.as_deref(),
        }
    }
}

impl<'a> ConnectionView<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self {
            instance_id: &connection.instance_id,
            status: &connection.status,
            business_status: &connection.business_status,
            fingerprint: connection.fingerprint(),
            requester: SideView::new(&connection.requester),
            accepter: SideView::new(&connection.accepter),
            bandwidth_mbps: connection.bandwidth_mbps,
            link_type: &connection.link_type,
            name: &connection.name,
            description: &connection.description,
            expires_at: connection.expires_at,
        }
    }
}

impl<'a> SideView<'a> {
    fn new(side: &'a Side) -> Self {
        Self { account: side.account, region: &side.region, vpc: &side.vpc, cidrs: &side.cidrs }
    }
}
