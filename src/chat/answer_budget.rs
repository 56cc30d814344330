//! Limits the answers that people cause with calls of a platform's API. Knows no platform.
//!
//! Some platforms count an organization's calls in a month. Without a limit, one person's questions could use them up, and
//! the cards of everybody would wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

const WINDOW: SignedDuration = SignedDuration::from_hours(1);
/// The most answers to one person within [`WINDOW`].
const MAX_ANSWERS_TO_ONE: usize = 20;
/// The most answers to all people within [`WINDOW`].
const MAX_ANSWERS: usize = 200;

/// The answers of a process, by person. The limit for all people bounds their number.
#[derive(Debug, Default)]
pub(super) struct AnswerBudget(Mutex<BTreeMap<String, VecDeque<Timestamp>>>);

impl AnswerBudget {
    /// Takes one answer to a person from the budget. Returns `false` if the budget is used up.
    pub(super) fn take(&self, person: &str, now: Timestamp) -> bool {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A later time is not in the window: the clock was set back.
        let is_recent = |at: &Timestamp| (SignedDuration::ZERO..WINDOW).contains(&now.duration_since(*at));
        answers.retain(|_, times| {
            times.retain(is_recent);
            !times.is_empty()
        });
        let all: usize = answers.values().map(VecDeque::len).sum();
        let own = answers.get(person).map_or(0, VecDeque::len);
        let has_room = all < MAX_ANSWERS && own < MAX_ANSWERS_TO_ONE;
        if has_room {
            answers.entry(person.to_owned()).or_default().push_back(now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_one_person_and_to_all_are_limited() {
        let (budget, now): (_, Timestamp) = (AnswerBudget::default(), "2026-11-26T00:00:00Z".parse().unwrap());
        assert!((0..MAX_ANSWERS_TO_ONE).all(|_| budget.take("a", now)));
        assert!(!budget.take("a", now) && budget.take("b", now), "each person has an own limit");
        let others = MAX_ANSWERS - MAX_ANSWERS_TO_ONE - 1;
        assert!((0..others).all(|number| budget.take(&format!("person {number}"), now)));
        assert!(!budget.take("c", now), "the limit of all is reached");
        let later = now + WINDOW;
        assert!(budget.take("a", later) && budget.take("c", later));
        assert!(budget.take("d", now - WINDOW), "a clock that is set back does not block");
    }
}
