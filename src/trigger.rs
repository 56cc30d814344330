//! The events that invoke the watcher, in the form in which Lambda passes them.

use serde::Deserialize;

use crate::doctor;
use crate::watch::Tick;

/// An event for the watcher. The last variant runs the doctor, and the others start a tick.
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
        /// The changes. Only their source is read.
        #[serde(rename = "Records")]
        records: Vec<StreamRecord>,
    },
    /// A test event of an operator: `{"doctor": {}}`.
    Doctor {
        /// Options of the doctor.
        doctor: doctor::Options,
    },
}

/// The source of a scheduled event.
#[derive(Debug, Deserialize)]
pub enum ScheduleSource {
    /// An EventBridge rule.
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

/// The source of a change.
#[derive(Debug, Deserialize)]
pub enum StreamSource {
    /// A `DynamoDB` stream.
    #[serde(rename = "aws:dynamodb")]
    DynamoDb,
}

impl Trigger {
    /// The tick that the event starts.
    ///
    /// # Errors
    /// The options of the doctor, when the event runs the doctor.
    pub fn into_tick(self) -> Result<Tick, doctor::Options> {
        match self {
            Self::Schedule { .. } => Ok(Tick::SCHEDULED),
            Self::Stream { .. } => Ok(Tick::CHANGED),
            Self::Doctor { doctor } => Err(doctor),
        }
    }
}
