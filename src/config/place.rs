//! Finds the value of a key in the text of `peergate.toml`, so that an error can name its line and say what is there.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::document::{KeyStep, TextPlace};
use crate::redaction::{dotted_path, redact_key, redact_value};

/// A value in the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Located {
    /// The dotted key. It may be longer than the one that was asked for: see [`locate`].
    pub(super) key: String,
    /// Where the value begins. If the key is missing: where the table begins that lacks it.
    pub(super) place: TextPlace,
    /// The value in words that are safe in an error. `None` for a list or a table, or if the key is missing.
    pub(super) found: Option<String>,
}

/// The value of a dotted key, e.g. `targets.prod.regions` or `people.alice.principals[1]`. An element of a list of tables is
/// named by its position or by its `name`, e.g. `rule.r.approvals`. Parts of the key may be redacted.
///
/// serde does not name the keys of a table with a `kind`. If its `message` is about a value of such a table, and only one
/// value of the table is like that, then the result is that value.
pub(super) fn locate(text: &str, document: &DeTable<'_>, key: &str, message: &str) -> Option<Located> {
    let Found { span, value } = find_in_table(document, key)?;
    if let Some(table) = value.and_then(DeValue::as_table) {
        let mut meant = table.iter().filter(|(_, value)| is_about(message, value.get_ref()));
        if let (Some((name, value)), None) = (meant.next(), meant.next()) {
            let key = format!("{key}.{}", redact_key(name.get_ref()));
            return Some(Located {
                key,
                place: TextPlace::of(text, value.span().start),
                found: describe_value(value.get_ref()),
            });
        }
    }
    Some(Located { key: key.to_owned(), place: TextPlace::of(text, span.start), found: value.and_then(describe_value) })
}

/// The dotted key of what is at these bytes. Of several with the same bytes, it is the innermost: a list of tables begins
/// with its first element. Empty if there is none.
pub(super) fn key_at(document: &DeTable<'_>, at: &Range<usize>) -> String {
    let mut nearest = Nearest { at, path: vec![], length: usize::MAX };
    nearest.search_table(document, &mut vec![]);
    dotted_path(&nearest.path)
}

/// The smallest key or value around a place.
struct Nearest<'a> {
    at: &'a Range<usize>,
    path: Vec<KeyStep>,
    length: usize,
}

impl Nearest<'_> {
    fn search_table(&mut self, table: &DeTable<'_>, path: &mut Vec<KeyStep>) {
        for (name, value) in table {
            path.push(KeyStep::Key(name.get_ref().to_string()));
            self.note(&name.span(), path);
            self.search_value(value, path);
            path.pop();
        }
    }

    fn search_value(&mut self, value: &Spanned<DeValue<'_>>, path: &mut Vec<KeyStep>) {
        self.note(&value.span(), path);
        match value.get_ref() {
            DeValue::Table(table) => self.search_table(table, path),
            DeValue::Array(elements) => {
                for (position, element) in elements.iter().enumerate() {
                    path.push(KeyStep::Index(position));
                    self.search_value(element, path);
                    path.pop();
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }

    fn note(&mut self, span: &Range<usize>, path: &[KeyStep]) {
        if span.start <= self.at.start && self.at.end <= span.end && span.len() <= self.length {
            (self.path, self.length) = (path.to_vec(), span.len());
        }
    }
}

/// Whether serde's message says that this value has the wrong type.
fn is_about(message: &str, value: &DeValue<'_>) -> bool {
    let found = match value {
        DeValue::String(text) => format!("string {text:?}"),
        DeValue::Integer(number) => format!("integer `{number}`"),
        DeValue::Float(number) => format!("floating point `{number}`"),
        DeValue::Boolean(value) => format!("boolean `{value}`"),
        DeValue::Array(_) => "sequence".to_owned(),
        DeValue::Table(_) => "map".to_owned(),
        DeValue::Datetime(_) => return false,
    };
    message.strip_prefix("invalid type: ").is_some_and(|rest| rest.starts_with(&format!("{found}, expected ")))
}

/// The part of the document that is nearest to a key.
struct Found<'a> {
    span: Range<usize>,
    /// `None` if only a part of the key exists.
    value: Option<&'a DeValue<'a>>,
}

fn find_in_table<'a>(table: &'a DeTable<'a>, key: &str) -> Option<Found<'a>> {
    // A name may have a dot in it: the longest name wins.
    let named = table.iter().filter_map(|(name, value)| {
        let rest = key.strip_prefix(redact_key(name.get_ref()).as_str())?;
        let is_whole_part = rest.is_empty() || rest.starts_with(['.', '[']);
        is_whole_part.then_some((rest, name.get_ref().len(), value))
    });
    let (rest, _, value) = named.max_by_key(|(_, length, _)| *length)?;
    let found = find_in_value(value.get_ref(), rest);
    Some(found.unwrap_or_else(|| Found { span: value.span(), value: rest.is_empty().then_some(value.get_ref()) }))
}

fn find_in_value<'a>(value: &'a DeValue<'a>, rest: &str) -> Option<Found<'a>> {
    match value {
        DeValue::Table(table) => find_in_table(table, rest.strip_prefix('.')?),
        DeValue::Array(elements) => {
            if let Some((position, rest)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                let element = elements.get(position.parse::<usize>().ok()?)?;
                let found = find_in_value(element.get_ref(), rest);
                let value = rest.is_empty().then_some(element.get_ref());
                return Some(found.unwrap_or_else(|| Found { span: element.span(), value }));
            }
            let rest = rest.strip_prefix('.')?;
            elements.iter().find_map(|element| {
                let table = element.get_ref().as_table()?;
                let rest = rest.strip_prefix(redact_key(table.get("name")?.get_ref().as_str()?).as_str())?;
                let found = find_in_value(element.get_ref(), rest);
                (rest.is_empty() || rest.starts_with('.'))
                    .then(|| found.unwrap_or_else(|| Found { span: element.span(), value: None }))
            })
        }
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {
            None
        }
    }
}

fn describe_value(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(redact_value(text)),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Datetime(date) => Some(date.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
