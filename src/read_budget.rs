//! Limits the reads that people cause. They share Alibaba Cloud's quota with each other and with the watcher.
//!
//! Each process has its own budget. `docs/threats.md#bounds-over-all-processes` has the limit over all processes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::approval::{ApprovalId, Principal};

const BUDGET_WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// The most reads of a principal within [`BUDGET_WINDOW`]. Reads for decisions of approvers do not count.
const MAX_READS: usize = 10;
/// The most principals whose reads are counted. When there are more, all counts are dropped.
const MAX_PRINCIPALS: usize = 10_000;
/// How long a missing connection is remembered, and how many of them at most.
const MISSING_TTL: SignedDuration = SignedDuration::from_secs(10);
const MAX_MISSING: usize = 1000;

/// The budget of a process.
#[derive(Debug, Default)]
pub struct ReadBudget(Mutex<Usage>);

#[derive(Debug, Default)]
struct Usage {
    by_target: BTreeMap<String, VecDeque<Timestamp>>,
    /// Pages of lists are another operation of Alibaba Cloud, with a limit of its own.
    pages_by_target: BTreeMap<String, VecDeque<Timestamp>>,
    by_principal: BTreeMap<Principal, VecDeque<Timestamp>>,
    missing: HashMap<ApprovalId, Timestamp>,
}

impl ReadBudget {
    /// Takes one read of `target` from the budget. Returns `false` if the budget is used up.
    ///
    /// People may use half of `calls_per_minute`. A third of this half is reserved for decisions of approvers, which do not
    /// count for the principal.
    pub fn take_reading(
        &self,
        target: &str,
        by: &Principal,
        is_decision: bool,
        calls_per_minute: u32,
        now: Timestamp,
    ) -> bool {
        let mut usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let half = usize::try_from(calls_per_minute / 2).unwrap_or(usize::MAX).max(1);
        let of_target = usage.by_target.entry(target.to_owned()).or_default();
        drop_expired(of_target, now);
        let limit = if is_decision { half } else { half.saturating_sub(half / 3) };
        if of_target.len() >= limit {
            return false;
        }
        if !is_decision && !usage.take_read_of(by, now) {
            return false;
        }
        usage.by_target.entry(target.to_owned()).or_default().push_back(now);
        true
    }

    /// Takes one inventory from the budget of its reader. It counts as one read, and its pages count on their own.
    pub fn take_inventory(&self, by: &Principal, now: Timestamp) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take_read_of(by, now)
    }

    /// Takes one page of an inventory of `target` from the budget. People may use a third of `calls_per_minute`: the checks
    /// of their decisions call the same operation.
    pub fn take_page(&self, target: &str, calls_per_minute: u32, now: Timestamp) -> bool {
        let mut usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pages = usage.pages_by_target.entry(target.to_owned()).or_default();
        take(pages, usize::try_from(calls_per_minute / 3).unwrap_or(usize::MAX).max(1), now)
    }

    /// Whether Alibaba Cloud has just reported that the connection does not exist.
    pub fn is_known_missing(&self, id: &ApprovalId, now: Timestamp) -> bool {
        let usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        usage.missing.get(id).is_some_and(|at| is_within(*at, MISSING_TTL, now))
    }

    /// Remembers that the connection does not exist.
    pub fn note_missing(&self, id: &ApprovalId, now: Timestamp) {
        let mut usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if usage.missing.len() >= MAX_MISSING {
            usage.missing.retain(|_, at| is_within(*at, MISSING_TTL, now));
        }
        if usage.missing.len() < MAX_MISSING {
            usage.missing.insert(id.clone(), now);
        }
    }
}

impl Usage {
    fn take_read_of(&mut self, by: &Principal, now: Timestamp) -> bool {
        if self.by_principal.len() >= MAX_PRINCIPALS {
            self.by_principal.clear();
        }
        take(self.by_principal.entry(by.clone()).or_default(), MAX_READS, now)
    }
}

/// Adds `now`, unless `limit` times are in the window.
fn take(times: &mut VecDeque<Timestamp>, limit: usize, now: Timestamp) -> bool {
    drop_expired(times, now);
    let has_room = times.len() < limit;
    if has_room {
        times.push_back(now);
    }
    has_room
}

fn drop_expired(times: &mut VecDeque<Timestamp>, now: Timestamp) {
    while times.front().is_some_and(|at| !is_within(*at, BUDGET_WINDOW, now)) {
        times.pop_front();
    }
}

/// Whether `at` is in the window before `now`. A later `at` is not: the clock was set back.
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
    fn inventory_is_one_read_and_its_pages_are_counted_by_target() {
        let budget = ReadBudget::default();
        assert!((0..10).all(|_| budget.take_inventory(&principal("alice"), now())));
        assert!(!budget.take_inventory(&principal("alice"), now()));
        assert!(!budget.take_reading("prod", &principal("alice"), false, 300, now()));
        assert!((0..3).all(|_| budget.take_page("prod", 10, now())));
        assert!(!budget.take_page("prod", 10, now()) && budget.take_page("other", 10, now()));
        assert!(budget.take_reading("prod", &principal("bob"), true, 10, now()), "pages take nothing from decisions");
        assert!(budget.take_page("prod", 10, now() + BUDGET_WINDOW));
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
