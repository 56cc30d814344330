//! When peergate first surveyed each region. It is a note in the table.

use std::sync::PoisonError;

use jiff::Timestamp;

use super::Store;
use crate::notes::{self, NoteId};

impl Store {
    /// When the region of a target was surveyed first. If it never was, this is its first survey.
    ///
    /// # Errors
    /// When the table is unavailable, or the note was edited.
    pub async fn first_survey_at(&self, target: &str, region: &str, now: Timestamp) -> Result<Timestamp, notes::Error> {
        let key = format!("{target}/{region}");
        let known = || self.first_surveys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = known().get(&key) {
            return Ok(*at);
        }
        let text = self.notes().save_first(&NoteId::new("survey", &key)?, &now.to_string()).await?;
        let at = text.parse().map_err(|_| notes::Error::Malformed)?;
        known().insert(key, at);
        Ok(at)
    }
}
