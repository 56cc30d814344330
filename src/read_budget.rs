//! How many readings people may cause: they share Alibaba Cloud's quota with each other and with the watcher.
//!
//! Kept per process: THREATS.md has the bound over all of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::approval::{ApprovalId, Principal};

const WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// How many readings a principal may cause within [`WINDOW`], without the decisions of approvers.
const MAX_READS: usize = 10;
/// The most principals whose readings are counted; beyond it, all are forgotten.
const MAX_PRINCIPALS: usize = 10_000;
/// How long a connection that is not there is remembered, and how many of them.
const UNKNOWN_FOR: SignedDuration = SignedDuration::from_secs(10);
const MAX_UNKNOWN: usize = 1000;

/// The budget of a process.
#[derive(Debug, Default)]
pub struct ReadBudget(Mutex<Used>);

#[derive(Debug, Default)]
struct Used {
    by_target: BTreeMap<String, VecDeque<Timestamp>>,
    by_principal: BTreeMap<Principal, VecDeque<Timestamp>>,
    unknown: HashMap<ApprovalId, Timestamp>,
}

impl ReadBudget {
    /// Takes one reading of `target`, which answers `calls_per_minute`: people may use half of them, and a third of that
    /// half is left to the decisions of approvers, which are not counted for the principal. Says whether there was one
    /// left.
    pub fn take(&self, target: &str, by: &Principal, decides: bool, calls_per_minute: u32, now: Timestamp) -> bool {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let half = usize::try_from(calls_per_minute / 2).unwrap_or(usize::MAX).max(1);
        let everybody = used.by_target.entry(target.to_owned()).or_default();
        forget(everybody, now);
        let most = if decides { half } else { half.saturating_sub(half / 3) };
        if everybody.len() >= most {
            return false;
        }
        if !decides {
            if used.by_principal.len() >= MAX_PRINCIPALS {
                used.by_principal.clear();
            }
            let own = used.by_principal.entry(by.clone()).or_default();
            forget(own, now);
            if own.len() >= MAX_READS {
                return false;
            }
            own.push_back(now);
        }
        used.by_target.entry(target.to_owned()).or_default().push_back(now);
        true
    }

    /// Whether Alibaba Cloud has just said that there is no such connection.
    pub fn is_unknown(&self, id: &ApprovalId, now: Timestamp) -> bool {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.unknown.get(id).is_some_and(|at| is_within(*at, UNKNOWN_FOR, now))
    }

    /// Alibaba Cloud says that there is no such connection.
    pub fn note_unknown(&self, id: &ApprovalId, now: Timestamp) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.unknown.len() >= MAX_UNKNOWN {
            used.unknown.retain(|_, at| is_within(*at, UNKNOWN_FOR, now));
        }
        if used.unknown.len() < MAX_UNKNOWN {
            used.unknown.insert(id.clone(), now);
        }
    }
}

fn forget(times: &mut VecDeque<Timestamp>, now: Timestamp) {
    while times.front().is_some_and(|at| !is_within(*at, WINDOW, now)) {
        times.pop_front();
    }
}

/// A clock that was set back forgets.
fn is_within(at: Timestamp, window: SignedDuration, now: Timestamp) -> bool {
    (SignedDuration::ZERO..window).contains(&now.duration_since(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peering::InstanceId;

    fn now() -> Timestamp {
        "2026-11-25T00:00:00Z".parse().unwrap()
    }

    fn principal(user: &str) -> Principal {
        Principal::new("webhook", "ci", user).unwrap()
    }

    #[test]
    fn ten_readings_a_minute_are_a_principals_share_and_decisions_are_not_counted() {
        let budget = ReadBudget::default();
        let (alice, bob) = (principal("alice"), principal("bob"));
        for _ in 0..10 {
            assert!(budget.take("prod", &alice, false, 300, now()));
        }
        assert!(!budget.take("prod", &alice, false, 300, now()));
        assert!(budget.take("prod", &alice, true, 300, now()));
        assert!(budget.take("prod", &bob, false, 300, now()));
        assert!(budget.take("prod", &alice, false, 300, now() + SignedDuration::from_secs(60)));
    }

    #[test]
    fn people_use_half_of_a_targets_calls() {
        let budget = ReadBudget::default();
        for number in 0..5 {
            assert!(budget.take("prod", &principal(&format!("u{number}")), number % 2 == 0, 10, now()));
        }
        assert!(!budget.take("prod", &principal("other"), true, 10, now()));
        assert!(budget.take("other", &principal("other"), true, 10, now()));
        assert!(budget.take("prod", &principal("other"), true, 10, now() + SignedDuration::from_secs(61)));
    }

    #[test]
    fn an_unknown_connection_is_remembered_for_ten_seconds_and_a_thousand_at_most() {
        let budget = ReadBudget::default();
        let id = |number: usize| ApprovalId {
            target: "prod".into(),
            instance_id: InstanceId::parse(&format!("pcc-{number}")).unwrap(),
        };
        for number in 0..1001 {
            budget.note_unknown(&id(number), now());
        }
        assert!(budget.is_unknown(&id(999), now()) && !budget.is_unknown(&id(1000), now()));
        let later = now() + SignedDuration::from_secs(10);
        assert!(!budget.is_unknown(&id(0), later));
        budget.note_unknown(&id(1000), later);
        assert!(budget.is_unknown(&id(1000), later));
    }
}
