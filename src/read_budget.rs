//! How many readings people may cause: they share Alibaba Cloud's quota with each other and with the watcher.
//!
//! Kept per process: THREATS.md has the bound over all of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::approval::{ApprovalId, Principal};

const BUDGET_WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// How many readings a principal may cause within [`WINDOW`], without the decisions of approvers.
const MAX_READS: usize = 10;
/// The most principals whose readings are counted; beyond it, all are forgotten.
const MAX_PRINCIPALS: usize = 10_000;
/// How long a connection that is not there is remembered, and how many of them.
const MISSING_TTL: SignedDuration = SignedDuration::from_secs(10);
const MAX_MISSING: usize = 1000;

/// The budget of a process.
#[derive(Debug, Default)]
pub struct ReadBudget(Mutex<Usage>);

#[derive(Debug, Default)]
struct Usage {
    by_target: BTreeMap<String, VecDeque<Timestamp>>,
    by_principal: BTreeMap<Principal, VecDeque<Timestamp>>,
    missing: HashMap<ApprovalId, Timestamp>,
}

impl ReadBudget {
    /// Takes one reading of `target`, which answers `calls_per_minute`: people may use half of them, and a third of that
    /// half is left to the decisions of approvers, which are not counted for the principal. Says whether there was one
    /// left.
    pub fn take_reading(
        &self,
        target: &str,
        by: &Principal,
        is_decision: bool,
        calls_per_minute: u32,
        now: Timestamp,
    ) -> bool {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let half = usize::try_from(calls_per_minute / 2).unwrap_or(usize::MAX).max(1);
        let everybody = used.by_target.entry(target.to_owned()).or_default();
        drop_expired(everybody, now);
        let most = if is_decision { half } else { half.saturating_sub(half / 3) };
        if everybody.len() >= most {
            return false;
        }
        if !is_decision {
            if used.by_principal.len() >= MAX_PRINCIPALS {
                used.by_principal.clear();
            }
            let own = used.by_principal.entry(by.clone()).or_default();
            drop_expired(own, now);
            if own.len() >= MAX_READS {
                return false;
            }
            own.push_back(now);
        }
        used.by_target.entry(target.to_owned()).or_default().push_back(now);
        true
    }

    /// Whether Alibaba Cloud has just said that there is no such connection.
    pub fn is_known_missing(&self, id: &ApprovalId, now: Timestamp) -> bool {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        used.missing.get(id).is_some_and(|at| is_within(*at, MISSING_TTL, now))
    }

    /// Alibaba Cloud says that there is no such connection.
    pub fn note_missing(&self, id: &ApprovalId, now: Timestamp) {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.missing.len() >= MAX_MISSING {
            used.missing.retain(|_, at| is_within(*at, MISSING_TTL, now));
        }
        if used.missing.len() < MAX_MISSING {
            used.missing.insert(id.clone(), now);
        }
    }
}

fn drop_expired(times: &mut VecDeque<Timestamp>, now: Timestamp) {
    while times.front().is_some_and(|at| !is_within(*at, BUDGET_WINDOW, now)) {
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
    fn principal_may_read_ten_times_a_minute_and_still_decide() {
        let budget = ReadBudget::default();
        let (alice, bob) = (principal("alice"), principal("bob"));
        for _ in 0..10 {
            assert!(budget.take_reading("prod", &alice, false, 300, now()));
        }
        assert!(!budget.take_reading("prod", &alice, false, 300, now()));
        assert!(budget.take_reading("prod", &alice, true, 300, now()));
        assert!(budget.take_reading("prod", &bob, false, 300, now()));
        assert!(budget.take_reading("prod", &alice, false, 300, now() + SignedDuration::from_secs(60)));
    }

    #[test]
    fn people_may_use_half_of_a_targets_calls() {
        let budget = ReadBudget::default();
        for number in 0..5 {
            assert!(budget.take_reading("prod", &principal(&format!("u{number}")), number % 2 == 0, 10, now()));
        }
        assert!(!budget.take_reading("prod", &principal("other"), true, 10, now()));
        assert!(budget.take_reading("other", &principal("other"), true, 10, now()));
        assert!(budget.take_reading("prod", &principal("other"), true, 10, now() + SignedDuration::from_secs(61)));
    }

    #[test]
    fn unknown_connections_are_cached_ten_seconds_up_to_a_thousand() {
        let budget = ReadBudget::default();
        let id = |number: usize| ApprovalId {
            target: "prod".into(),
            instance_id: InstanceId::parse(&format!("pcc-{number}")).unwrap(),
        };
        for number in 0..1001 {
            budget.note_missing(&id(number), now());
        }
        assert!(budget.is_known_missing(&id(999), now()) && !budget.is_known_missing(&id(1000), now()));
        let later = now() + SignedDuration::from_secs(10);
        assert!(!budget.is_known_missing(&id(0), later));
        budget.note_missing(&id(1000), later);
        assert!(budget.is_known_missing(&id(1000), later));
    }
}
