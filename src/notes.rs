//! Other items of the table, which processes share, e.g. the token of a platform. Each has a maximum size, and most have
//! an expiry. Their ids begin with `#`, and no record's id does. The audit commands skip them, and backups keep them.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use jiff::{SignedDuration, Timestamp};

use crate::aws;

/// The first character of each id.
pub const ID_PREFIX: char = '#';
/// The longest id. DynamoDB's limit is 2048 bytes.
const MAX_ID_BYTES: usize = 256;
/// The longest text, so that nobody can fill the table through peergate.
const MAX_TEXT_BYTES: usize = 4096;
/// The longest life of a note.
const MAX_TTL: SignedDuration = SignedDuration::from_hours(31 * 24);

/// The notes of a table.
#[derive(Debug, Clone)]
pub struct Notes {
    client: Client,
    table: String,
}

/// The id of a note: `#KIND/OWNER`. The owner is a configured app, tenant or channel, so that the number of notes is
/// bounded; or an authentic request whose proof is used only once, for as long as the proof lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteId(String);

/// A note that has not expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What was saved.
    pub text: String,
    /// In whole seconds, as DynamoDB has it. The latest possible time if the note never expires.
    pub expires_at: Timestamp,
}

/// Why a note cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The table cannot be reached, or AWS refuses us: the AWS code, or "no answer".
    #[error("the table is unavailable: {0}")]
    Unavailable(String),
    /// The id or the text is too long.
    #[error("the note is too long")]
    TooLong,
    /// The text is not what peergate wrote.
    #[error("the note cannot be understood")]
    Malformed,
}

impl NoteId {
    /// The id `#KIND/OWNER`.
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

    /// A note, unless it has expired.
    ///
    /// # Errors
    /// When the table is unavailable.
    pub async fn load(&self, id: &NoteId, now: Timestamp) -> Result<Option<Note>, Error> {
        let get = self.client.get_item().table_name(&self.table).key("id", AttributeValue::S(id.0.clone()));
        let item = get.consistent_read(true).send().await.map_err(|error| to_unavailable(&error))?.item;
        // DynamoDB deletes an expired item some days later.
        Ok(item.as_ref().and_then(parse_note).filter(|note| note.expires_at > now))
    }

    /// Writes a note, and replaces an earlier one.
    ///
    /// # Errors
    /// When the table is unavailable, or the note is too long.
    pub async fn save(&self, id: &NoteId, text: &str, expires_at: Timestamp, now: Timestamp) -> Result<(), Error> {
        let put = self.client.put_item().table_name(&self.table).set_item(Some(note_item(id, text, expires_at, now)?));
        put.send().await.map(|_| ()).map_err(|error| to_unavailable(&error))
    }

    /// Writes an empty note if there is none, and returns whether there was none. It marks what must be used only once.
    ///
    /// # Errors
    /// The errors of [`Notes::save`]. After an error, the caller must assume that the note was there.
    pub async fn save_if_absent(&self, id: &NoteId, expires_at: Timestamp, now: Timestamp) -> Result<bool, Error> {
        let put = self.client.put_item().table_name(&self.table).set_item(Some(note_item(id, "", expires_at, now)?));
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

    /// Writes a note that never expires, unless there is one. Returns the text of the first writer.
    ///
    /// # Errors
    /// When the table is unavailable, or the note is too long.
    pub async fn save_first(&self, id: &NoteId, text: &str) -> Result<String, Error> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Error::TooLong);
        }
        let put = self.client.put_item().table_name(&self.table);
        let put = put.item("id", AttributeValue::S(id.0.clone())).item("text", AttributeValue::S(text.to_owned()));
        let put = put
            .condition_expression("attribute_not_exists(id)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let Err(error) = put.send().await else { return Ok(text.to_owned()) };
        let refused = error.as_service_error();
        let first = if let Some(PutItemError::ConditionalCheckFailedException(failure)) = refused {
            failure.item()
        } else {
            None
        };
        let text = first.and_then(|item| item.get("text")?.as_s().ok());
        text.cloned().ok_or_else(|| to_unavailable(&error))
    }
}

fn note_item(
    NoteId(id): &NoteId,
    text: &str,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<HashMap<String, AttributeValue>, Error> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Error::TooLong);
    }
    let expires_at = expires_at.min(now.saturating_add(MAX_TTL).unwrap_or(expires_at));
    Ok(HashMap::from([
        ("id".to_owned(), AttributeValue::S(id.clone())),
        ("text".to_owned(), AttributeValue::S(text.to_owned())),
        ("ttl".to_owned(), AttributeValue::N(expires_at.as_second().to_string())),
    ]))
}

fn parse_note(item: &HashMap<String, AttributeValue>) -> Option<Note> {
    let text = item.get("text")?.as_s().ok()?.clone();
    let expires_at = match item.get("ttl") {
        Some(ttl) => Timestamp::from_second(ttl.as_n().ok()?.parse().ok()?).ok()?,
        None => Timestamp::MAX,
    };
    Some(Note { text, expires_at })
}

fn to_unavailable<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Error {
    Error::Unavailable(aws::error_code(error))
}
