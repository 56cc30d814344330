//! Texts that people write: the encoding of files, the places in them, and the names that people probably mean.

mod json_place;
mod repeated_keys;

use std::fmt;

pub(crate) use json_place::{json_offset, json_path_at};
pub use repeated_keys::{RepeatedKey, repeated_keys};

/// A byte order mark in UTF-8, as some editors write it at the start of a file.
const UTF8_BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];
/// Byte order marks of UTF-16, little and big endian.
const UTF16_BOMS: [[u8; 2]; 2] = [[0xFF, 0xFE], [0xFE, 0xFF]];

/// A step from a value to a value in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyStep {
    /// To the value of a key.
    Key(String),
    /// To the element of a list, from 0.
    Index(usize),
}

/// A place in a text. Both numbers count from 1; a column is a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextPlace {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl TextPlace {
    /// The place of a byte.
    #[must_use]
    pub fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count().saturating_add(1);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count().saturating_add(1);
        Self { line, column }
    }
}

impl fmt::Display for TextPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why bytes are not a text in UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodingProblem {
    /// Each character has two bytes.
    #[error("the text is UTF-16: save it as UTF-8")]
    Utf16,
    /// A byte that UTF-8 does not have there.
    #[error("{0}: the text is not UTF-8")]
    NotUtf8(TextPlace),
}

/// The text in UTF-8, without a byte order mark.
pub fn decode_text(bytes: &[u8]) -> Result<&str, EncodingProblem> {
    let has_zero_byte = bytes.iter().take(2).any(|byte| *byte == 0);
    if has_zero_byte || UTF16_BOMS.iter().any(|mark| bytes.starts_with(mark)) {
        return Err(EncodingProblem::Utf16);
    }
    let bytes = bytes.strip_prefix(&UTF8_BOM).unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok());
        let valid = valid.unwrap_or_default();
        EncodingProblem::NotUtf8(TextPlace::of(valid, valid.len()))
    })
}

/// The known name that a mistyped one probably means: the nearest one, if at most a third of its characters differ.
pub fn nearest_name<'a>(mistyped: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().filter_map(|name| {
        let distance = edit_distance(mistyped, name);
        let longest = mistyped.chars().count().max(name.chars().count());
        (distance.saturating_mul(3) <= longest).then_some((distance, name))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// The number of characters to insert, delete, replace, or exchange with their neighbor, until one word is the other.
pub(crate) fn edit_distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let (mut before_last, mut last): (Vec<usize>, Vec<usize>) = (vec![], (0..=other.len()).collect());
    let mut previous = None;
    for (row, letter) in one.chars().enumerate() {
        let mut current = vec![row.saturating_add(1)];
        for (column, theirs) in other.iter().enumerate() {
            let at = |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX);
            let replaced = at(&last, column).saturating_add(usize::from(letter != *theirs));
            let inserted = at(&current, column).min(at(&last, column.saturating_add(1))).saturating_add(1);
            let is_exchanged =
                column.checked_sub(1).is_some_and(|left| other.get(left) == Some(&letter) && previous == Some(*theirs));
            let exchanged =
                if is_exchanged { at(&before_last, column.saturating_sub(1)).saturating_add(1) } else { usize::MAX };
            current.push(replaced.min(inserted).min(exchanged));
        }
        (before_last, last, previous) = (last, current, Some(letter));
    }
    last.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_mark_is_dropped_and_other_encodings_are_named() {
        assert_eq!(decode_text(b"\xEF\xBB\xBFa = 1"), Ok("a = 1"));
        assert_eq!(decode_text(b""), Ok(""));
        for utf16 in [&b"\xFF\xFEa\0"[..], b"\xFE\xFF\0a", b"a\0 \0", b"\0a\0 "] {
            assert_eq!(decode_text(utf16), Err(EncodingProblem::Utf16), "{utf16:?}");
        }
        let problem = decode_text("ä\nü\u{E9}".as_bytes().strip_suffix(b"\xA9").unwrap()).unwrap_err();
        assert_eq!(problem.to_string(), "line 2, column 2: the text is not UTF-8");
    }

    #[test]
    fn nearest_name_is_found_by_its_letters() {
        let known = ["account", "regions", "credentials"];
        for (mistyped, expected) in [
            ("accuont", Some("account")),
            ("acount", Some("account")),
            ("region", Some("regions")),
            ("credential", Some("credentials")),
            ("name", None),
            ("", None),
        ] {
            assert_eq!(nearest_name(mistyped, known), expected, "{mistyped}");
        }
        assert_eq!(
            (edit_distance("abcd", "abdc"), edit_distance("", "abc"), edit_distance("kitten", "sitting")),
            (1, 3, 3)
        );
    }
}
