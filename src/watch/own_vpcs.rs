//! Reads our own VPCs, whose CIDR blocks can change without a change of any peering. Each VPC is read at most once in six
//! hours, twenty in a call, and a tick makes ten calls at most.
//!
//! A round reads the VPCs of a region in the order of their ids. A note says how far the round has come. The next round
//! begins six hours after the end of the last one.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::job::{FollowedVpcs, Job, JobResult, RegionKey, VpcCallBudget, VpcReading};
use crate::accept;
use crate::alicloud::MAX_VPCS_PER_CALL;
use crate::app::App;
use crate::approval::{ApprovalId, ContentDigest};
use crate::clock;
use crate::notes::{self, NoteId};

/// The pause between two rounds.
const ROUND_PAUSE: SignedDuration = SignedDuration::from_hours(6);
/// How long the note of a round is kept.
const NOTE_TTL: SignedDuration = SignedDuration::from_hours(24 * 7);

/// How far a round has come, as the note says.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Round {
    /// The last VPC that was read.
    after: Option<String>,
    /// When the last round ended, if none is under way.
    ended_at: Option<Timestamp>,
}

impl Round {
    /// The next VPCs to read. Empty if the round is over and the next one is not due.
    fn next<'a>(&self, vpcs: &'a FollowedVpcs, now: Timestamp) -> Vec<&'a String> {
        if self.ended_at.is_some_and(|ended_at| now.duration_since(ended_at) < ROUND_PAUSE) {
            return vec![];
        }
        let is_next = |vpc: &&String| self.after.as_ref().is_none_or(|after| *vpc > after);
        vpcs.keys().filter(is_next).take(MAX_VPCS_PER_CALL).collect()
    }

    /// How far the round has come after these VPCs.
    fn after(read: &[&String], now: Timestamp) -> Self {
        match read.last() {
            Some(last) if read.len() == MAX_VPCS_PER_CALL => Self { after: Some((*last).clone()), ended_at: None },
            Some(_) | None => Self { after: None, ended_at: Some(now) },
        }
    }
}

/// Reads the next VPCs, and returns a job for each connection whose VPC is not as it was read last.
pub(super) async fn read_own_vpcs(app: &App, reading: VpcReading) -> JobResult {
    let VpcReading { key, vpcs, budget } = &reading;
    let mut follow_ups = vec![];
    match read_round(app, key, vpcs, budget, &mut follow_ups).await {
        Ok(()) => {}
        Err(RoundError::Note(error)) => {
            let RegionKey { target, region } = key;
            tracing::error!(outcome = "store_failed", target, region, %error, "could not read how far the reading of VPCs has come");
        }
        Err(RoundError::Call(error)) => {
            let (RegionKey { target, region }, problem) = (key, error.to_problem());
            tracing::error!(
                outcome = "vpcs_not_read",
                target,
                region,
                alicloud.code = problem.code,
                alicloud.request_id = problem.request_id,
                "could not read our VPCs"
            );
        }
    }
    JobResult { recheck_at: None, follow_ups }
}

enum RoundError {
    Note(notes::Error),
    Call(accept::Error),
}

impl From<notes::Error> for RoundError {
    fn from(error: notes::Error) -> Self {
        Self::Note(error)
    }
}

async fn read_round(
    app: &App,
    RegionKey { target, region }: &RegionKey,
    vpcs: &FollowedVpcs,
    budget: &VpcCallBudget,
    follow_ups: &mut Vec<Job>,
) -> Result<(), RoundError> {
    let note = NoteId::new("vpcs", &format!("{target}/{region}"))?;
    let saved = app.notes.load(&note, clock::now()).await?;
    let mut round: Round = saved.and_then(|saved| serde_json::from_str(&saved.text).ok()).unwrap_or_default();
    loop {
        let now = clock::now();
        let next = round.next(vpcs, now);
        if next.is_empty() && round.ended_at.is_some() || !next.is_empty() && !budget.take() {
            return Ok(());
        }
        let after = Round::after(&next, now);
        // Before the call: a process that dies must not read them again.
        save_round(app, &note, &after, now).await?;
        if !next.is_empty() {
            let ids: Vec<_> = next.iter().map(|vpc| (*vpc).clone()).collect();
            let read = match accept::describe_vpcs(app, target, region, &ids, now).await {
                Ok(read) => read,
                Err(error) => {
                    if error.is_worth_a_retry() {
                        save_round(app, &note, &round, now).await?;
                    }
                    return Err(RoundError::Call(error));
                }
            };
            for vpc in read {
                let digest = ContentDigest::of_cidrs(&vpc.cidrs);
                let changed = vpcs.get(&vpc.id).into_iter().flatten().filter(|(_, known)| *known != digest);
                follow_ups.extend(changed.map(|(instance_id, _)| Job::IngestOwnVpc {
                    id: ApprovalId { target: target.clone(), instance_id: instance_id.clone() },
                    cidrs: vpc.cidrs.clone(),
                }));
            }
        }
        round = after;
    }
}

async fn save_round(app: &App, note: &NoteId, round: &Round, now: Timestamp) -> Result<(), notes::Error> {
    let text = serde_json::to_string(round).map_err(|_| notes::Error::Malformed)?;
    app.notes.save(note, &text, now + NOTE_TTL, now).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_vpc_is_read_at_most_once_in_six_hours() {
        let names: Vec<_> = (0..45).map(|number| format!("vpc-{number:03}")).collect();
        let vpcs: FollowedVpcs = names.iter().map(|name| (name.clone(), vec![])).collect();
        let mut now: Timestamp = "2026-11-26T00:00:00Z".parse().unwrap();
        let (mut round, mut read_at) = (Round::default(), BTreeMap::<String, Vec<Timestamp>>::new());
        for _ in 0..2 * 24 * 60 {
            let next = round.next(&vpcs, now);
            if !next.is_empty() || round.ended_at.is_none() {
                for vpc in &next {
                    read_at.entry((*vpc).clone()).or_default().push(now);
                }
                round = Round::after(&next, now);
            }
            now += SignedDuration::from_mins(1);
        }
        assert_eq!(read_at.len(), names.len());
        for (vpc, times) in read_at {
            assert!(times.len() >= 7, "{vpc}: {times:?}");
            assert!(times.windows(2).all(|pair| pair[1].duration_since(pair[0]) >= ROUND_PAUSE), "{vpc}: {times:?}");
        }
    }
}
