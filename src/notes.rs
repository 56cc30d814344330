//! Other items of the table: what processes share for a while, e.g. a token of a platform. Their ids begin with `#`, which
//! no record's does; each has an expiry and a maximum size. Auditors' commands skip them, backups keep them.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};

use crate::http;

/// The first character of each id.
pub const ID_PREFIX: char = '#';
/// The longest id, in bytes. The table would take 2048.
const MAX_ID_BYTES: usize = 256;
/// The longest text, in bytes: so that nobody can fill the table through us.
const MAX_TEXT_BYTES: usize = 4096;
/// The longest that a note is kept.
const MAX_TTL: SignedDuration = SignedDuration::from_hours(31 * 24);

/// The notes of a table.
#[derive(Debug, Clone)]
pub struct Notes {
    client: Client,
    table: String,
}

/// Names a note: `#KIND/OWNER`. The owner is a configured app, tenant or channel, so that their number is bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteId(String);

/// Why there is no note.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The table can't be reached, or refuses us. Says with which code, if it does.
    #[error("the table does not answer: {0}")]
    Unavailable(String),
    /// It is too long.
    #[error("the note is too long")]
    TooLong,
}

impl NoteId {
    /// The id of the note of a kind, of an owner.
    ///
    /// # Errors
    /// When it is too long.
    pub fn new(kind: &'static str, owner: &str) -> Result<Self, Error> {
        let id = format!("{ID_PREFIX}{kind}/{owner}");
        if id.len() <= MAX_ID_BYTES { Ok(Self(id)) } else { Err(Error::TooLong) }
    }
}

impl Notes {
    /// The notes of `table`.
    #[must_use]
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    /// What a note says, and until when; nothing once that is over.
    ///
    /// # Errors
    /// When the table does not answer.
    pub async fn load(&self, id: &NoteId, now: Timestamp) -> Result<Option<(String, Timestamp)>, Error> {
        let get = self.client.get_item().table_name(&self.table).key("id", AttributeValue::S(id.0.clone()));
        let item = get.consistent_read(true).send().await.map_err(|error| to_unavailable(&error))?.item;
        // The table deletes it some days later.
        Ok(item.as_ref().and_then(parse_note).filter(|(_, until)| *until > now))
    }

    /// Writes a note, over an earlier one.
    ///
    /// # Errors
    /// When the table does not answer, or the note is too long.
    pub async fn save(&self, id: &NoteId, text: &str, until: Timestamp, now: Timestamp) -> Result<(), Error> {
        let put = self.client.put_item().table_name(&self.table).set_item(Some(note_item(id, text, until, now)?));
        put.send().await.map(|_| ()).map_err(|error| to_unavailable(&error))
    }

    /// Writes a note if there is none; says whether there was none. For what may be used once.
    ///
    /// # Errors
    /// As [`Notes::save`]. Then the note must count as used.
    pub async fn save_if_absent(&self, id: &NoteId, until: Timestamp, now: Timestamp) -> Result<bool, Error> {
        let put = self.client.put_item().table_name(&self.table).set_item(Some(note_item(id, "", until, now)?));
        let put = put
            .condition_expression("attribute_not_exists(id) OR #ttl <= :now")
            .expression_attribute_names("#ttl", "ttl")
            .expression_attribute_values(":now", AttributeValue::N(now.as_second().to_string()));
        match put.send().await {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(refused))
                if matches!(refused.err(), PutItemError::ConditionalCheckFailedException(_)) =>
            {
                Ok(false)
            }
            Err(error) => Err(to_unavailable(&error)),
        }
    }
}

fn note_item(
    NoteId(id): &NoteId,
    text: &str,
    until: Timestamp,
    now: Timestamp,
) -> Result<HashMap<String, AttributeValue>, Error> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Error::TooLong);
    }
    let until = until.min(now.saturating_add(MAX_TTL).unwrap_or(until));
    Ok(HashMap::from([
        ("id".to_owned(), AttributeValue::S(id.clone())),
        ("text".to_owned(), AttributeValue::S(text.to_owned())),
        ("ttl".to_owned(), AttributeValue::N(until.as_second().to_string())),
    ]))
}

fn parse_note(item: &HashMap<String, AttributeValue>) -> Option<(String, Timestamp)> {
    let text = item.get("text")?.as_s().ok()?.clone();
    let until = item.get("ttl")?.as_n().ok()?.parse().ok()?;
    Some((text, Timestamp::from_second(until).ok()?))
}

fn to_unavailable<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Error {
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    Error::Unavailable(code.map_or_else(
        || "no answer".to_owned(),
        |code| http::log_safe_word(code).unwrap_or_else(|| "UnreadableCode".to_owned()),
    ))
}
