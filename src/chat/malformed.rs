//! Requests that are authentic, but not understood: each error names the field, what was expected there and what was
//! found.
//!
//! What a sender wrote is untrusted. Errors show at most a few words of it, escaped, and none that may be a secret.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::error::Category;

use crate::document::{KeyStep, json_offset, json_path_at};
use crate::redaction::quote;

/// The most elements of a path that an error shows.
const MAX_PATH_SEGMENTS: usize = 8;

/// The body is authentic, but peergate does not understand it. The text is shown to the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedRequest(pub String);

impl MalformedRequest {
    /// `problem` must quote nothing that was sent, except by [`quote`].
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }

    /// An error about a field. `found` is what the sender wrote there.
    pub(super) fn at(field: &str, expected: &str, found: &str) -> Self {
        Self(format!("{field}: expected {expected}, found the string {}", quote(found)))
    }

    /// Parses JSON.
    ///
    /// # Errors
    /// The place and the cause if it is not JSON. Otherwise the field, what was expected there, and what was found.
    pub(super) fn parse_json<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Self> {
        serde_json::from_slice(bytes).map_err(|error| match error.classify() {
            Category::Data => Self(describe_mismatch(bytes, &error)),
            Category::Syntax | Category::Eof | Category::Io => Self(describe_syntax_error(&error)),
        })
    }
}

/// The messages of the JSON parser are constants.
fn describe_syntax_error(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    format!("line {line}, column {column}: not JSON: {}", without_place(&error.to_string()))
}

/// Names the field that does not have the documented form: the one at the place of the error.
fn describe_mismatch(bytes: &[u8], error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = without_place(&message);
    let path = &json_path_at(bytes, json_offset(bytes, error.line(), error.column()));
    // These names come from the program.
    if let Some(name) = name_after(message, "missing field `") {
        return format!("{}: missing", field_path(path, Some(name)));
    }
    if let Some(name) = name_after(message, "duplicate field `") {
        return format!("{}: occurs twice", field_path(path, Some(name)));
    }
    let found = serde_json::from_slice(bytes).ok().and_then(|document| describe_found(&document, path));
    let found = found.map_or_else(String::new, |found| format!(", found {found}"));
    let field = field_path(path, None);
    let field = if field.is_empty() { "the body".to_owned() } else { field };
    if message.starts_with("unknown field") {
        let known = message.rsplit_once(", expected ").map_or("none", |(_, known)| known.trim_start_matches("one of "));
        return format!("{field}: unknown field; known: {}", known.replace('`', ""));
    }
    let expected = if message.starts_with("invalid ") {
        // All that was sent is before the last `, expected `.
        message.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected)
    } else {
        "another form"
    };
    format!("{field}: expected {expected}{found}")
}

/// The message of a JSON error without its end.
fn without_place(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(message, _)| message)
}

fn name_after<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    message.strip_prefix(start)?.strip_suffix('`')
}

/// The dotted path of a field, e.g. `data.actor`; empty for the document itself. `name` is the last part, if the path may
/// lack it.
fn field_path(path: &[KeyStep], name: Option<&str>) -> String {
    let mut text = String::new();
    let mut last = None;
    for segment in path.iter().take(MAX_PATH_SEGMENTS) {
        match segment {
            KeyStep::Index(index) => text = format!("{text}[{index}]"),
            KeyStep::Key(key) => {
                last = Some(key.as_str());
                push_name(&mut text, quote(key).trim_matches('"'));
            }
        }
    }
    if let Some(name) = name.filter(|name| last != Some(name)) {
        push_name(&mut text, name);
    }
    text
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// What the document has at the path, in words. `None` if there is nothing.
fn describe_found(document: &Value, path: &[KeyStep]) -> Option<String> {
    let mut value = document;
    for segment in path {
        value = match segment {
            KeyStep::Index(index) => value.get(index)?,
            KeyStep::Key(key) => value.get(key)?,
        };
    }
    Some(match value {
        Value::Null => "null".to_owned(),
        Value::Bool(word) => word.to_string(),
        Value::Number(number) => format!("the number {}", quote(&number.to_string()).trim_matches('"')),
        Value::String(text) => format!("the string {}", quote(text)),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    })
}

/// Deserializes an optional value that is written as text. An error of `TryFrom` would be at the end of the object.
pub(super) fn optional_from_text<'de, D: Deserializer<'de>, T: TryFrom<String, Error: fmt::Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = Option::<FromText<T>>::deserialize(deserializer)?;
    Ok(text.map(|FromText(value)| value))
}

struct FromText<T>(T);

impl<'de, T: TryFrom<String, Error: fmt::Display>> Deserialize<'de> for FromText<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<T>(PhantomData<T>);

        impl<T: TryFrom<String, Error: fmt::Display>> Visitor<'_> for Text<T> {
            type Value = FromText<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::try_from(text.to_owned()).map(FromText).map_err(|error| {
                    let error = error.to_string();
                    let expected = error.rsplit_once("expected ").map_or(error.as_str(), |(_, expected)| expected);
                    E::invalid_value(Unexpected::Str(text), &expected)
                })
            }
        }

        deserializer.deserialize_str(Text(PhantomData))
    }
}

/// A JSON object. Without it, the fields of a struct could also be the elements of an array.
pub(super) struct JsonObject<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = JsonObject<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(JsonObject)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}
