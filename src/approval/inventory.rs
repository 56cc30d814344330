//! One line for each peering of the configured accounts: who approved it, and what became of it.

use jiff::Timestamp;
use serde::Serialize;

use super::{Approval, ApprovalState, AuditEvent, Verdict};
use crate::peering::{AccountId, Connection, InstanceId, Status};

/// A peering of a configured account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InventoryLine {
    /// The configured account, by its name.
    pub target: String,
    /// The id of the connection.
    pub instance_id: InstanceId,
    /// Which side the account is.
    pub role: InventoryRole,
    /// Its status at Alibaba Cloud.
    pub status: Status,
    /// The account that requested it.
    pub requester_account: AccountId,
    /// Its VPC.
    pub requester_vpc: String,
    /// The account that accepts.
    pub accepting_account: AccountId,
    /// Its region.
    pub accepting_region: String,
    /// Its VPC.
    pub accepting_vpc: String,
    /// When it was requested. `None` if the vendor does not say.
    pub created_at: Option<Timestamp>,
    /// Whether people approved it.
    pub origin: InventoryOrigin,
    /// Who approved or adopted it.
    pub approved_by: Vec<String>,
    /// When.
    pub approved_at: Option<Timestamp>,
    /// The rule at the last approval. Of an adopted connection, it is the rule at the last check.
    pub rule: Option<String>,
    /// The facts that have changed since, and that nobody has acknowledged.
    pub drift: Vec<String>,
    /// When the record changed last.
    pub changed_at: Option<Timestamp>,
    /// Whether our route tables led to it when they were last read. `None` if that is not known.
    pub routes_complete: Option<bool>,
    /// When they were last read.
    pub routes_read_at: Option<Timestamp>,
}

/// How much a line needs the attention of people. The first needs most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attention {
    /// It is active, and nobody approved it here.
    NeverApproved,
    /// It has changed, and nobody has acknowledged that.
    Drifted,
    /// Our route tables do not lead to all of it.
    RoutesIncomplete,
    /// It is active, and all is well.
    Active,
    /// It is not active.
    Inactive,
}

/// Which side of a peering an account is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InventoryRole {
    /// It accepts.
    Accepting,
    /// It requested.
    Requesting,
}

/// Whether people approved a peering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InventoryOrigin {
    /// People, or a rule, approved it here.
    Approved,
    /// Somebody accepted it elsewhere, and an operator took it over.
    Adopted,
    /// It is active, and nobody approved it here.
    NeverApproved,
    /// It is active, and nobody had to approve it: it is within one account, or an Alibaba Cloud service accepted it.
    NoApprovalNeeded,
    /// It is not active.
    NotActive,
    /// Our account requested it, so others accept it.
    RequestedByUs,
}

impl InventoryLine {
    /// The line of a connection that the list of an account shows. `record` is `None` if there is none.
    #[must_use]
    pub fn new(target: &str, account: AccountId, connection: &Connection, record: Option<&Approval>) -> Self {
        let is_ours = connection.accepter.account == account;
        let role = if is_ours { InventoryRole::Accepting } else { InventoryRole::Requesting };
        let record = record.filter(|_| is_ours);
        let routes = record.and_then(Approval::routes).filter(|report| !report.findings.is_empty());
        let approvals = record.map(Approval::decisions).unwrap_or_default();
        let approvals = approvals.iter().filter(|decision| decision.verdict == Verdict::Approve);
        let mut approved_at = approvals.clone().next_back().map(|decision| decision.at);
        let mut approved_by: Vec<_> = approvals.map(|decision| decision.by.key().to_owned()).collect();
        if let Some((by, at)) = record.and_then(Approval::adopted_by) {
            (approved_by, approved_at) = (vec![by.to_owned()], Some(at));
        }
        Self {
            target: target.to_owned(),
            instance_id: connection.instance_id.clone(),
            role,
            status: connection.status.clone(),
            requester_account: connection.requester.account,
            requester_vpc: connection.requester.vpc.clone(),
            accepting_account: connection.accepter.account,
            accepting_region: connection.accepter.region.clone(),
            accepting_vpc: connection.accepter.vpc.clone(),
            created_at: connection.created_at,
            origin: origin_of(role, connection, record),
            approved_by,
            approved_at,
            rule: record.and_then(Approval::approving_rule).map(ToOwned::to_owned),
            drift: record
                .and_then(Approval::drift)
                .map(|drift| drift.changes.iter().map(|change| change.fact.clone()).collect())
                .unwrap_or_default(),
            changed_at: record.and_then(|record| record.history().last()).map(|entry| entry.at),
            routes_complete: routes.map(crate::peering::RouteReport::is_complete),
            routes_read_at: routes.and_then(|_| record?.routes_read_at()),
        }
    }

    /// How much the line needs attention.
    #[must_use]
    pub fn attention(&self) -> Attention {
        if self.origin == InventoryOrigin::NeverApproved {
            Attention::NeverApproved
        } else if !self.drift.is_empty() {
            Attention::Drifted
        } else if !is_active(&self.status) {
            Attention::Inactive
        } else if self.routes_complete == Some(false) {
            Attention::RoutesIncomplete
        } else {
            Attention::Active
        }
    }
}

fn is_active(status: &Status) -> bool {
    match status {
        Status::Activated | Status::Updating | Status::Deleting => true,
        Status::Creating
        | Status::Accepting
        | Status::Rejected
        | Status::Expired
        | Status::Deleted
        | Status::Other(_) => false,
    }
}

fn origin_of(role: InventoryRole, connection: &Connection, record: Option<&Approval>) -> InventoryOrigin {
    let is_within_account = connection.requester.account == connection.accepter.account;
    match record {
        _ if role == InventoryRole::Requesting => InventoryOrigin::RequestedByUs,
        _ if !is_active(&connection.status) => InventoryOrigin::NotActive,
        Some(record) if record.adopted_by().is_some() => InventoryOrigin::Adopted,
        Some(record) if record.is_accepted_by_us() => InventoryOrigin::Approved,
        None if is_within_account || !connection.managed_service.is_empty() => InventoryOrigin::NoApprovalNeeded,
        Some(_) | None => InventoryOrigin::NeverApproved,
    }
}

impl Approval {
    /// The operator who took the connection over, and when. `None` if nobody did.
    #[must_use]
    pub fn adopted_by(&self) -> Option<(&str, Timestamp)> {
        self.history.iter().rev().find_map(|entry| {
            if let AuditEvent::Adopted { by, .. } = &entry.event { Some((by.as_str(), entry.at)) } else { None }
        })
    }

    /// The rule at the last approval. Of an adopted connection, it is the rule at the last check. `None` if nobody approved
    /// it.
    #[must_use]
    pub fn approving_rule(&self) -> Option<&str> {
        let (mut current, mut approving) = (None, None);
        for entry in self.history.iter() {
            if let AuditEvent::Discovered { rule, .. }
            | AuditEvent::RuleChanged { rule, .. }
            | AuditEvent::SentBack { rule, .. } = &entry.event
            {
                current = rule.as_deref();
            } else if let AuditEvent::Decided(decision) = &entry.event {
                approving = current.filter(|_| decision.verdict == Verdict::Approve);
            } else if let AuditEvent::Adopted { .. } = &entry.event {
                approving = self.policy.rule.as_deref();
            }
        }
        approving
    }

    /// Takes over an activated connection that nobody approved here: what it is now counts as approved. `before` is its
    /// record, if there is one.
    #[must_use]
    pub fn adopt(before: Option<&Self>, review: &super::Review<'_>, by: &str, reason: &str, now: Timestamp) -> Self {
        let mut record = match before {
            Some(before) => before.clone(),
            None => Self::new(review, now),
        };
        if record.state != ApprovalState::Activated {
            record.transition_to(ApprovalState::Activated, now);
        }
        record.policy = review.policy.clone();
        record.take_as_approved(review.connection, now);
        let fingerprint = record.fingerprint.clone();
        let (by, reason) = (by.to_owned(), reason.to_owned());
        record.append_audit_event(AuditEvent::Adopted { fingerprint, by: by.clone(), reason: reason.clone() }, now);
        record.enqueue(super::NotificationKind::Adopted { by, reason }, now);
        record.schedule_upkeep();
        record
    }
}
