//! Activated connections. peergate follows them for life: it tells what is not as people approved it, and when the
//! connection was deleted. It changes nothing at Alibaba Cloud.
//!
//! A difference is a [`Drift`]. People acknowledge it, or the connection returns to what they approved. What they
//! acknowledge is what later readings are compared with.

use std::collections::BTreeSet;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::away::AwayStatus;
use super::{
    Approval, ApprovalState, Approver, AuditEvent, Decision, DecisionError, NotificationKind, PolicySnapshot,
    RequestId, Review, TransientReading, UnconfirmedReading,
};
use crate::peering::{BusinessStatus, Change, Connection, Facts, FieldHash, Fingerprint, RouteReport, Status};
use crate::preflight::{self, Finding};

/// How many drifts and ends of drifts are told in [`DRIFT_WINDOW`]. Both owners can change a connection as often as they
/// like. What comes too soon is told later, as it is then.
const MAX_DRIFTS: usize = 6;
const DRIFT_WINDOW: SignedDuration = SignedDuration::from_hours(1);
/// How many drifts and ends of drifts the history keeps. Later ones are told, but not kept.
const MAX_KEPT_DRIFTS: usize = 200;

/// How often our route tables are read while something is missing, and for how long after something has changed.
const MIN_ROUTES_INTERVAL: SignedDuration = SignedDuration::from_mins(2);
const MAX_ROUTES_INTERVAL: SignedDuration = SignedDuration::from_hours(6);
const ROUTES_READ_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How often they are read otherwise, as long as the connection is active: routes come and go.
const ROUTES_UPKEEP_INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// The fact that only we see: the peering does not show these blocks.
const OWN_VPC_FACT: &str = "CIDR blocks of the accepting VPC itself";

/// What peergate knows of a connection since its activation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upkeep {
    /// The business status that people acknowledged. `None` for `Normal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    business_status: Option<BusinessStatus>,
    /// The CIDR blocks of our VPC that people acknowledged. `None` for those of the facts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vpc_cidrs: Option<BTreeSet<IpNet>>,
    /// The CIDR blocks of our VPC when it was last read. `None` if it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    own_vpc: Option<BTreeSet<IpNet>>,
    /// The status that people acknowledged. `None` for `Activated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    /// The status of the last reading, if it is not `Activated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    away: Option<AwayStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drift: Option<Drift>,
    /// Whether the requester's channels heard of a drift, and not of its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) requester_knows: bool,
    /// What our route tables said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routes: Option<RouteReport>,
    /// When they said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routes_read_at: Option<Timestamp>,
    /// When something changed that they must follow: the activation, an acknowledged change, or the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routes_changed_at: Option<Timestamp>,
    /// When to read our route tables next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routes_due_at: Option<Timestamp>,
}

/// How an activated connection differs from what people approved or acknowledged last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// When peergate saw it.
    pub since: Timestamp,
    /// The differences.
    pub changes: Vec<Change>,
    /// Hash of everything that people acknowledge.
    pub fingerprint: Fingerprint,
    /// Those who have acknowledged it, oldest first, each once. The verdict is always to approve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acknowledgments: Vec<Decision>,
}

/// A reading of an activated connection, and everything that is told of it.
#[derive(Debug, Clone)]
pub struct FollowedReading {
    /// The connection, which is not `Deleted`.
    pub connection: Connection,
    /// The CIDR blocks of our VPC. `None` if it was not read now.
    pub own_vpc: Option<BTreeSet<IpNet>>,
    /// What the configuration says about this reading.
    pub policy: PolicySnapshot,
    /// Results of the checks of this reading.
    pub findings: Vec<Finding>,
}

impl Upkeep {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn own_vpc(&self) -> Option<&BTreeSet<IpNet>> {
        self.own_vpc.as_ref()
    }

    pub(super) fn away(&self) -> Option<&AwayStatus> {
        self.away.as_ref()
    }

    /// Notes the status of a reading.
    fn note_status(&mut self, status: &Status, now: Timestamp) {
        self.away = AwayStatus::after(self.away.take(), status, now);
        if *status == Status::Activated {
            self.status = None;
        }
    }
}

impl Approval {
    /// How the activated connection differs from what people approved or acknowledged. `None` if it does not.
    #[must_use]
    pub fn drift(&self) -> Option<&Drift> {
        self.upkeep.drift.as_ref()
    }

    /// Whether the last reading of the activated connection showed another status.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.upkeep.away.is_some()
    }

    /// The CIDR blocks of our VPC when it was last read. `None` if it never was.
    #[must_use]
    pub fn own_vpc(&self) -> Option<&BTreeSet<IpNet>> {
        self.upkeep.own_vpc()
    }

    /// What our route tables said last. `None` if they were not read.
    #[must_use]
    pub fn routes(&self) -> Option<&RouteReport> {
        self.upkeep.routes.as_ref()
    }

    /// When our route tables were read last. `None` if they never were.
    #[must_use]
    pub fn routes_read_at(&self) -> Option<Timestamp> {
        self.upkeep.routes_read_at
    }

    /// Whether our route tables are to be read now.
    #[must_use]
    pub fn are_routes_due(&self, now: Timestamp) -> bool {
        self.upkeep.routes_due_at.is_some_and(|due_at| due_at <= now)
    }

    /// Fingerprint of what people are asked about: the drift of an activated connection, else the facts.
    #[must_use]
    pub fn asked_fingerprint(&self) -> &Fingerprint {
        self.drift().map_or(&self.fingerprint, |drift| &drift.fingerprint)
    }

    /// The facts of the last reading, for an activated connection; else the facts that people decide on.
    #[must_use]
    pub fn asked_facts(&self) -> Facts {
        if self.state == ApprovalState::Activated { self.current_facts(&self.connection) } else { self.facts.clone() }
    }

    /// How many people have acknowledged the drift.
    #[must_use]
    pub fn acknowledgment_count(&self) -> u32 {
        self.drift().map_or(0, |drift| u32::try_from(drift.acknowledgments.len()).unwrap_or(u32::MAX))
    }

    /// How a reading differs from what people approved or acknowledged last. `own_vpc` is `None` if our VPC was not read
    /// now; then the last reading counts.
    #[must_use]
    pub fn changes_since_approval(&self, connection: &Connection, own_vpc: Option<&BTreeSet<IpNet>>) -> Vec<Change> {
        let facts = self.current_facts(connection);
        let mut changes = self.facts.changes_to(&facts);
        let mut note = |fact: &str, before: String, after: String| {
            if before != after {
                changes.push(Change { fact: fact.to_owned(), before, after });
            }
        };
        if connection.status != Status::Activated && self.upkeep.away.as_ref().is_some_and(|away| away.is_lasting) {
            let known = self.upkeep.status.as_ref().unwrap_or(&Status::Activated);
            note("status", known.to_string(), connection.status.to_string());
        }
        let business_status = self.current_business_status(connection);
        note("business status", self.known_business_status().to_string(), business_status.to_string());
        if let Some(cidrs) = self.own_vpc_apart(&facts, own_vpc) {
            let known = self.upkeep.vpc_cidrs.as_ref().unwrap_or(&self.facts.accepter.cidrs);
            note(OWN_VPC_FACT, list_cidrs(known), list_cidrs(cidrs));
        }
        changes
    }

    /// The CIDR blocks of our VPC, if they are compared apart from the facts. If the peering follows its VPC, the facts tell
    /// the difference already.
    fn own_vpc_apart<'a>(&'a self, facts: &Facts, own_vpc: Option<&'a BTreeSet<IpNet>>) -> Option<&'a BTreeSet<IpNet>> {
        let own_vpc = own_vpc.or(self.upkeep.own_vpc.as_ref());
        own_vpc.filter(|cidrs| self.upkeep.vpc_cidrs.is_some() || **cidrs != facts.accepter.cidrs)
    }

    /// Fingerprint of what people acknowledge if a reading shows this.
    #[must_use]
    pub fn drift_fingerprint(&self, connection: &Connection, own_vpc: Option<&BTreeSet<IpNet>>) -> Fingerprint {
        let mut hash = FieldHash::new("peergate/drift/1");
        let facts = self.current_facts(connection);
        hash.add_field(&facts.fingerprint().to_string());
        hash.add_field(&self.current_business_status(connection).to_string());
        hash.add_field(&self.own_vpc_apart(&facts, own_vpc).map(list_cidrs).unwrap_or_default());
        if connection.status != Status::Activated {
            hash.add_field(&connection.status.to_string());
        }
        Fingerprint::of_hash(hash)
    }

    /// Facts without those that the reading does not report.
    fn current_facts(&self, connection: &Connection) -> Facts {
        let mut facts = connection.facts();
        for (seen, known) in
            [(&mut facts.requester, &self.facts.requester), (&mut facts.accepter, &self.facts.accepter)]
        {
            if seen.cidrs.is_empty() {
                seen.cidrs.clone_from(&known.cidrs);
            }
        }
        facts
    }

    fn known_business_status(&self) -> BusinessStatus {
        self.upkeep.business_status.clone().unwrap_or(BusinessStatus::Normal)
    }

    fn current_business_status(&self, connection: &Connection) -> BusinessStatus {
        match &connection.business_status {
            BusinessStatus::Other(word) if word.is_empty() => self.known_business_status(),
            status @ (BusinessStatus::Normal | BusinessStatus::FinancialLocked | BusinessStatus::Other(_)) => {
                status.clone()
            }
        }
    }

    /// Applies a reading of an activated connection.
    pub(super) fn follow(&mut self, reading: &FollowedReading, now: Timestamp) {
        if self.state != ApprovalState::Activated {
            return;
        }
        self.clear_unconfirmed();
        let earlier_vpc = self.upkeep.own_vpc.clone();
        if reading.own_vpc.is_some() {
            // Our VPC is read rarely, so this is kept although the status may pass.
            self.upkeep.own_vpc.clone_from(&reading.own_vpc);
            // The permission may be new.
            if reading.policy.reads_routes && self.upkeep.routes_due_at.is_none() {
                self.policy.reads_routes = true;
                self.check_routes(now);
            }
        }
        self.upkeep.note_status(&reading.connection.status, now);
        if self.upkeep.away().is_some_and(|away| !away.is_lasting) {
            // An owner changes it, or its status is about to pass.
            self.remind_of_drift(now);
            self.schedule_upkeep();
            return;
        }
        let changes = self.changes_since_approval(&reading.connection, reading.own_vpc.as_ref());
        let fingerprint = self.drift_fingerprint(&reading.connection, reading.own_vpc.as_ref());
        let is_known = match self.drift() {
            Some(drift) => drift.fingerprint == fingerprint,
            None => changes.is_empty(),
        };
        if !is_known && self.has_drifted_too_often(now) {
            // The next reading of the VPC finds it again.
            self.upkeep.own_vpc = earlier_vpc;
            self.remind_of_drift(now);
            self.schedule_upkeep();
            return;
        }
        self.connection = reading.connection.clone();
        if is_known && self.drift().is_none() {
            self.schedule_upkeep();
            return;
        }
        let before = std::mem::replace(&mut self.policy, reading.policy.clone());
        let results_changed = !preflight::is_same_outcome(&self.findings, &reading.findings);
        self.findings.clone_from(&reading.findings);
        if is_known {
            if results_changed || before != self.policy {
                self.enqueue(NotificationKind::Checked, now);
            }
            self.remind_of_drift(now);
        } else if changes.is_empty() {
            self.end_drift();
            self.append_drift_event(AuditEvent::DriftEnded, now);
            self.enqueue(NotificationKind::DriftEnded, now);
        } else {
            self.begin_drift(changes.clone(), fingerprint.clone(), now);
            self.append_drift_event(AuditEvent::Drifted { fingerprint, changes: changes.clone() }, now);
            self.enqueue(NotificationKind::Drifted { changes }, now);
        }
        self.schedule_upkeep();
    }

    /// Begins a drift for a connection that was activated with other facts than people decided on. The notification of
    /// that tells it.
    pub(super) fn drift_at_activation(&mut self, changes: Vec<Change>, now: Timestamp) {
        let fingerprint = self.drift_fingerprint(&self.connection, None);
        self.begin_drift(changes, fingerprint, now);
        self.schedule_upkeep();
    }

    fn begin_drift(&mut self, changes: Vec<Change>, fingerprint: Fingerprint, now: Timestamp) {
        self.reminder_state.reset();
        self.upkeep.drift = Some(Drift { since: now, changes, fingerprint, acknowledgments: vec![] });
    }

    fn end_drift(&mut self) {
        self.reminder_state.reset();
        self.upkeep.drift = None;
        self.findings.clear();
    }

    fn has_drifted_too_often(&self, now: Timestamp) -> bool {
        let is_recent = |at: Timestamp| now.duration_since(at) < DRIFT_WINDOW;
        let is_drift =
            |kind: &NotificationKind| matches!(kind, NotificationKind::Drifted { .. } | NotificationKind::DriftEnded);
        self.outbox.iter().filter(|it| is_drift(&it.kind) && is_recent(it.at)).count() >= MAX_DRIFTS
    }

    fn append_drift_event(&mut self, event: AuditEvent, now: Timestamp) {
        let is_drift = |event: &AuditEvent| matches!(event, AuditEvent::Drifted { .. } | AuditEvent::DriftEnded);
        if self.history.iter().filter(|entry| is_drift(&entry.event)).count() < MAX_KEPT_DRIFTS {
            self.append_audit_event(event, now);
        }
    }

    /// Reminds people of a drift that nobody has acknowledged. The history does not keep this, because it may go on for
    /// years.
    pub(super) fn remind_of_drift(&mut self, now: Timestamp) {
        let Some(since) = self.drift().map(|drift| drift.since) else { return };
        let reminders = self.reminder_state.take_due_reminders(&self.policy, since, None, now);
        if !reminders.is_empty() {
            self.enqueue(NotificationKind::DriftReminder { waiting_s: now.duration_since(since).as_secs() }, now);
        }
    }

    /// Has our route tables read, if the target allows it.
    pub(super) fn check_routes(&mut self, now: Timestamp) {
        if self.policy.reads_routes {
            (self.upkeep.routes_due_at, self.upkeep.routes_changed_at) = (Some(now), Some(now));
            self.schedule_upkeep();
        }
    }

    /// Takes what our route tables say. The card shows it. While something is missing or left over, they are read again
    /// soon, for a week; those of an active connection then once a day.
    pub(super) fn observe_routes(&mut self, report: &RouteReport, now: Timestamp) {
        let age = self.routes_age(now);
        let soon = (age / 4).clamp(MIN_ROUTES_INTERVAL, MAX_ROUTES_INTERVAL);
        if self.upkeep.routes.as_ref() != Some(report) {
            self.upkeep.routes = Some(report.clone());
            self.enqueue(NotificationKind::Checked, now);
        }
        self.upkeep.routes_read_at = Some(now);
        let is_over = report.is_complete() || age > ROUTES_READ_FOR;
        self.schedule_routes(if is_over { self.routes_upkeep_at(now) } else { Some(now + soon) });
    }

    /// Has our route tables read again later. After a week, what is due of an ended connection must not keep the record in
    /// the table.
    pub(super) fn postpone_routes(&mut self, wait: SignedDuration, now: Timestamp) {
        let is_over = self.routes_age(now) > ROUTES_READ_FOR;
        self.schedule_routes(if is_over { self.routes_upkeep_at(now) } else { Some(now + wait) });
    }

    /// How long ago something changed that our route tables must follow.
    fn routes_age(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(self.upkeep.routes_changed_at.unwrap_or(self.since))
    }

    fn routes_upkeep_at(&self, now: Timestamp) -> Option<Timestamp> {
        (self.state == ApprovalState::Activated).then(|| now + ROUTES_UPKEEP_INTERVAL)
    }

    fn schedule_routes(&mut self, at: Option<Timestamp>) {
        if self.state.is_final() {
            self.upkeep.routes_due_at = at;
            self.schedule_upkeep();
        }
    }

    /// Schedules the next reminder of a drift, and the reading that confirms a deletion.
    pub(super) fn schedule_upkeep(&mut self) {
        let remind_at = self.drift().map(|drift| self.reminder_state.next_reminder_at(&self.policy, drift.since, None));
        let confirm_at = self.unconfirmed.as_ref().map(UnconfirmedReading::next_reading_at);
        let lasting_at = self.upkeep.away().and_then(AwayStatus::lasting_at);
        self.next_step_at = [remind_at, confirm_at, self.upkeep.routes_due_at, lasting_at].into_iter().flatten().min();
    }

    /// Handles a reading that does not find an activated connection.
    pub(super) fn observe_removal(&mut self, event: AuditEvent, now: Timestamp) {
        if !self.confirm_reading(TransientReading::Missing, now) {
            return;
        }
        // Nobody knows when an adopted connection was activated.
        let created_at = self.adopted_by().and(self.connection.created_at);
        let lived_s = now.duration_since(created_at.unwrap_or(self.since)).as_secs();
        self.end_drift();
        self.upkeep.away = None;
        self.transition_to(ApprovalState::Deleted, now);
        self.append_audit_event(event, now);
        self.next_step_at = None;
        self.enqueue(NotificationKind::Removed { lived_s }, now);
        self.check_routes(now);
    }

    /// Counts a person's acknowledgment of the drift. If it is the last one that the rule requires, what people
    /// acknowledged is what later readings are compared with. The review is about the reading that the person saw.
    ///
    /// # Errors
    /// [`DecisionError`] if it does not count.
    pub fn acknowledge_drift(&mut self, review: &Review<'_>, decision: Decision) -> Result<(), DecisionError> {
        self.check_acknowledgment(&decision)?;
        // What was read of our VPC meanwhile is not what the person saw.
        if self.drift_fingerprint(review.connection, None) != decision.fingerprint {
            return Err(DecisionError::FactsChanged);
        }
        let at = decision.at;
        self.connection = review.connection.clone();
        self.policy = review.policy.clone();
        let is_eligible = |earlier: &Decision| (review.eligible_approver)(&earlier.by.principal).is_some();
        let Some(drift) = &mut self.upkeep.drift else { return Err(DecisionError::NothingToAcknowledge) };
        drift.acknowledgments.retain(is_eligible);
        drift.acknowledgments.push(decision.clone());
        let (given, needed) = (self.acknowledgment_count(), self.policy.needed_approvals());
        let facts = (given >= needed).then(|| self.adopt_drift(at));
        self.append_audit_event(AuditEvent::DriftAcknowledged { decision: decision.clone(), needed, facts }, at);
        self.enqueue(NotificationKind::DriftAcknowledged { decision, given, needed }, at);
        self.check_room_for_generation()?;
        self.schedule_upkeep();
        Ok(())
    }

    /// Checks that an acknowledgment would count.
    ///
    /// # Errors
    /// [`DecisionError`] if it would not.
    pub fn check_acknowledgment(&self, decision: &Decision) -> Result<(), DecisionError> {
        if self.check_replay(&RequestId::of(decision))? {
            return Err(DecisionError::Repeated);
        }
        let Some(drift) = self.drift() else { return Err(DecisionError::NothingToAcknowledge) };
        if drift.fingerprint != decision.fingerprint {
            return Err(DecisionError::FactsChanged);
        }
        let is_theirs = |by: &Approver| by.is_same_person(&decision.by);
        if drift.acknowledgments.iter().any(|earlier| is_theirs(&earlier.by)) {
            return Err(DecisionError::Repeated);
        }
        Ok(())
    }

    /// Takes a reading as approved.
    pub(super) fn take_as_approved(&mut self, connection: &Connection, now: Timestamp) {
        self.connection = connection.clone();
        self.facts = connection.facts();
        self.upkeep.note_status(&connection.status, now);
        self.adopt_drift(now);
    }

    /// Takes what was read last as what later readings are compared with. Returns the fingerprint of the facts.
    fn adopt_drift(&mut self, now: Timestamp) -> Fingerprint {
        self.facts = self.current_facts(&self.connection);
        self.fingerprint = self.facts.fingerprint();
        let business_status = self.current_business_status(&self.connection);
        self.upkeep.business_status = Some(business_status).filter(|status| *status != BusinessStatus::Normal);
        self.upkeep.status = Some(self.connection.status.clone()).filter(|status| *status != Status::Activated);
        self.upkeep.vpc_cidrs = self.upkeep.own_vpc.clone().filter(|cidrs| *cidrs != self.facts.accepter.cidrs);
        self.end_drift();
        self.check_routes(now);
        self.fingerprint.clone()
    }
}

/// The changes that both owners see.
#[must_use]
pub fn changes_for_requester(changes: &[Change]) -> Vec<Change> {
    changes.iter().filter(|change| change.fact != OWN_VPC_FACT).cloned().collect()
}

fn list_cidrs(cidrs: &BTreeSet<IpNet>) -> String {
    cidrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
