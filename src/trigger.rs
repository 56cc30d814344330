//! What invokes the watcher, as Lambda hands it over.

use serde::Deserialize;

use crate::doctor;
use crate::watch::Tick;

/// What invokes the watcher: each but the last means "tick".
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Trigger {
    /// A schedule of EventBridge.
    Schedule {
        /// `aws.events` or `aws.scheduler`.
        source: ScheduleSource,
    },
    /// Changes of the table.
    Stream {
        /// What changed; only where it comes from is looked at.
        #[serde(rename = "Records")]
        records: Vec<StreamRecord>,
    },
    /// A person, with a test event: `{"doctor": {}}`.
    Doctor {
        /// What to look at.
        doctor: doctor::Options,
    },
}

/// Where a schedule's event comes from.
#[derive(Debug, Deserialize)]
pub enum ScheduleSource {
    /// A rule.
    #[serde(rename = "aws.events")]
    Rule,
    /// EventBridge Scheduler.
    #[serde(rename = "aws.scheduler")]
    Scheduler,
}

/// A change of the table.
#[derive(Debug, Deserialize)]
pub struct StreamRecord {
    /// Always `aws:dynamodb`.
    #[serde(rename = "eventSource")]
    pub source: StreamSource,
}

/// Where a change comes from.
#[derive(Debug, Deserialize)]
pub enum StreamSource {
    /// A `DynamoDB` stream.
    #[serde(rename = "aws:dynamodb")]
    DynamoDb,
}

impl Trigger {
    /// The tick that it asks for, if it is one.
    ///
    /// # Errors
    /// What else it asks for.
    pub fn into_tick(self) -> Result<Tick, doctor::Options> {
        match self {
            Self::Schedule { .. } => Ok(Tick::SCHEDULED),
            Self::Stream { .. } => Ok(Tick::CHANGED),
            Self::Doctor { doctor } => Err(doctor),
        }
    }
}
