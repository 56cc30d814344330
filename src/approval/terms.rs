//! What the configuration says about a request, as the record keeps it; and whom to remind when.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::history::Alarm;

/// The wait between two reminders doubles up to this.
const LONGEST_BETWEEN_REMINDERS: SignedDuration = SignedDuration::from_hours(24);

/// What the configuration says about a request. Read again whenever the request is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The rule about it; none, when no rule is: then nobody can decide.
    pub rule: Option<String>,
    /// Without a rule: which of its facts no rule allows.
    pub unmatched: Vec<String>,
    /// Without a rule: one that would be about it, as it would stand in the configuration.
    pub suggestion: Option<String>,
    /// How many different people must approve; 0 when the rule accepts by itself.
    pub approvals: u32,
    /// Who may approve, by name of person or by identity.
    pub approvers: Vec<String>,
    /// Whether a decision needs a reason.
    pub require_reason: bool,
    /// What we call the account that asks.
    pub requester: Option<String>,
    /// Where it is told.
    pub channels: Vec<String>,
    /// When to remind people first.
    pub remind_after: SignedDuration,
    /// When to tell others, too.
    pub escalate_after: Option<SignedDuration>,
    /// Whom then.
    pub escalate_to: Vec<String>,
    /// How long before it expires to say so.
    pub expiry_notice: SignedDuration,
    /// How long an activation may take.
    pub stuck_after: SignedDuration,
}

impl Terms {
    /// How many approvals complete it. A rule that accepts by itself, but can't, asks one person.
    #[must_use]
    pub fn needed(&self) -> u32 {
        self.approvals.max(1)
    }

    /// Whether the rule needs nobody.
    #[must_use]
    pub fn accepts_by_itself(&self) -> bool {
        self.rule.is_some() && self.approvals == 0
    }

    fn expiry_notice_at(&self, expires_at: Timestamp) -> Timestamp {
        expires_at.checked_sub(self.expiry_notice).unwrap_or(expires_at)
    }

    /// The channels that hear of it.
    pub(super) fn audience(&self, escalated: bool) -> Vec<String> {
        let others = self.escalate_to.iter().filter(|channel| escalated && !self.channels.contains(channel));
        self.channels.iter().chain(others).cloned().collect()
    }
}

/// What people were told while it was in one state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    reminders: u32,
    /// Stays: who was told once, hears the end.
    pub(super) escalated: bool,
    expires_soon: bool,
    stuck: bool,
}

impl Told {
    /// In another state.
    pub(super) fn start_anew(&mut self) {
        *self = Self { escalated: self.escalated, ..Self::default() };
    }

    /// What people are to be told by now, each thing once, however long nobody looked.
    pub(super) fn while_pending(
        &mut self,
        terms: &Terms,
        since: Timestamp,
        expires_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Vec<Alarm> {
        let waiting = now.duration_since(since);
        let mut alarms = vec![];
        if !self.escalated && terms.escalate_after.is_some_and(|after| waiting >= after) {
            self.escalated = true;
            alarms.push(Alarm::Escalation);
        }
        if !self.expires_soon && expires_at.is_some_and(|expires_at| terms.expiry_notice_at(expires_at) <= now) {
            self.expires_soon = true;
            alarms.push(Alarm::ExpiresSoon);
        }
        if reminder_after(terms.remind_after, self.reminders) <= waiting {
            while reminder_after(terms.remind_after, self.reminders) <= waiting {
                self.reminders = self.reminders.saturating_add(1);
            }
            if alarms.is_empty() {
                alarms.push(Alarm::Reminder);
            }
        }
        alarms
    }

    /// When people are to be told something next.
    pub(super) fn next_at(&self, terms: &Terms, since: Timestamp, expires_at: Option<Timestamp>) -> Timestamp {
        let escalation = terms.escalate_after.filter(|_| !self.escalated).map(|wait| after(since, wait));
        let notice = expires_at.filter(|_| !self.expires_soon).map(|expires_at| terms.expiry_notice_at(expires_at));
        let reminder = after(since, reminder_after(terms.remind_after, self.reminders));
        [escalation, notice].into_iter().flatten().fold(reminder, Timestamp::min)
    }

    /// When an activation that began at `since` will take too long; `None` once people were told.
    pub(super) fn stuck_at(&self, terms: &Terms, since: Timestamp) -> Option<Timestamp> {
        (!self.stuck).then(|| after(since, terms.stuck_after))
    }

    /// Whether nobody was told of a stuck activation yet; from now on, they are.
    pub(super) fn first_of_stuck(&mut self) -> bool {
        !std::mem::replace(&mut self.stuck, true)
    }
}

/// The configuration may name any wait.
fn after(since: Timestamp, wait: SignedDuration) -> Timestamp {
    since.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// When the reminder after `earlier` others is due: the waits between them double.
fn reminder_after(first: SignedDuration, earlier: u32) -> SignedDuration {
    let first = first.max(SignedDuration::from_mins(1));
    let longest = LONGEST_BETWEEN_REMINDERS.max(first);
    let mut doublings = 0;
    let (mut wait, mut after) = (first, first);
    while doublings < earlier && wait < longest {
        wait = wait.saturating_add(wait).min(longest);
        after = after.saturating_add(wait);
        doublings += 1;
    }
    let rest = i32::try_from(earlier - doublings).unwrap_or(i32::MAX);
    after.saturating_add(longest.saturating_mul(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms {
            rule: Some("r".into()),
            unmatched: vec![],
            suggestion: None,
            approvals: 1,
            approvers: vec![],
            require_reason: false,
            requester: None,
            channels: vec!["one".into()],
            remind_after: SignedDuration::from_hours(4),
            escalate_after: Some(SignedDuration::from_hours(30)),
            escalate_to: vec!["one".into(), "oncall".into()],
            expiry_notice: SignedDuration::from_hours(24),
            stuck_after: SignedDuration::from_mins(10),
        }
    }

    #[test]
    fn the_waits_between_reminders_double_up_to_a_day() {
        let after = |earlier| reminder_after(SignedDuration::from_hours(4), earlier).as_hours();
        assert_eq!((0..7).map(after).collect::<Vec<_>>(), [4, 12, 28, 52, 76, 100, 124]);
        assert_eq!(reminder_after(SignedDuration::from_hours(48), 2).as_hours(), 144);
    }

    #[test]
    fn a_week_of_looks_every_five_minutes_tells_each_thing_once() {
        let since: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let expires_at = since + SignedDuration::from_hours(7 * 24);
        let (mut told, mut heard) = (Told::default(), vec![]);
        for look in 0..7 * 24 * 12 {
            let now = since + SignedDuration::from_mins(5 * look);
            let alarms = told.while_pending(&terms(), since, Some(expires_at), now);
            heard.extend(alarms.into_iter().map(|alarm| (now.duration_since(since).as_hours(), alarm)));
        }
        let reminders = [4, 12, 28, 52, 76, 100, 124, 148].map(|hours| (hours, Alarm::Reminder));
        let mut expected = [&reminders[..], &[(30, Alarm::Escalation), (144, Alarm::ExpiresSoon)]].concat();
        expected.sort_by_key(|(hours, _)| *hours);
        assert_eq!(heard, expected);
    }

    #[test]
    fn after_a_long_absence_each_thing_is_told_once() {
        let since: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let mut told = Told::default();
        let now = since + SignedDuration::from_hours(100);
        assert_eq!(told.while_pending(&terms(), since, None, now), [Alarm::Escalation]);
        assert_eq!(told.while_pending(&terms(), since, None, now), []);
    }

    #[test]
    fn who_was_told_once_hears_the_rest_but_nothing_twice() {
        assert_eq!(terms().audience(false), ["one"]);
        assert_eq!(terms().audience(true), ["one", "oncall"]);
    }
}
