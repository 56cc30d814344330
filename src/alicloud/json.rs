//! Parses the vendor's JSON field by field, so that a malformed field does not affect the others.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The unparsed fields of an object, in order. A repeated field is in the list twice.
pub(super) struct JsonFields(Vec<(String, Box<RawValue>)>);

/// The result of a search for a field by its name.
#[derive(Clone, Copy)]
pub(super) enum JsonField<'a> {
    /// There is no such field, or it is null.
    Absent,
    /// The unparsed value.
    Once(&'a str),
    /// The field is there more than once. This is the first value.
    Repeated(&'a str),
}

impl JsonFields {
    /// Parses an object from the text that [`repair_json`] returns.
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn get(&self, name: &str) -> JsonField<'_> {
        let mut values = self.0.iter().filter(|(field, _)| field == name).map(|(_, value)| value.get().trim());
        match (values.next(), values.next()) {
            (None, _) | (Some("null"), None) => JsonField::Absent,
            (Some(value), None) => JsonField::Once(value),
            (Some(value), Some(_)) => JsonField::Repeated(value),
        }
    }
}

impl<'a> JsonField<'a> {
    /// The value, or the first of several values.
    pub(super) fn first(self) -> Option<&'a str> {
        match self {
            Self::Absent | Self::Repeated("null") => None,
            Self::Once(value) | Self::Repeated(value) => Some(value),
        }
    }
}

impl<'de> Deserialize<'de> for JsonFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = JsonFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonFields, A::Error> {
                let mut fields = vec![];
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(JsonFields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// The unparsed elements of a list.
pub(super) fn parse_list(value: &str) -> Option<Vec<Box<RawValue>>> {
    serde_json::from_str(value).ok()
}

/// A JSON string.
pub(super) fn parse_text(value: &str) -> Option<String> {
    serde_json::from_str(value).ok()
}

/// A JSON string, or the source text of a number or a Boolean.
pub(super) fn parse_word(value: &str) -> Option<String> {
    parse_text(value).or_else(|| (!value.starts_with(['{', '[', '"'])).then(|| value.to_owned()))
}

/// A whole number in any of the forms `1024`, `"1024"` and `1024.0`. `None` for a form in which digits may be lost.
pub(super) fn parse_whole_number(value: &str) -> Option<i128> {
    let unquoted = parse_text(value);
    let number = unquoted.as_deref().unwrap_or(value).trim();
    let digits = number.strip_prefix('-').unwrap_or(number);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // `007` is not a number.
    let is_plain = is_number(whole) && (whole == "0" || !whole.starts_with('0'));
    if is_plain && is_number(fraction) && fraction.bytes().all(|byte| byte == b'0') {
        let absolute: i128 = whole.parse().ok()?;
        return if number.starts_with('-') { absolute.checked_neg() } else { Some(absolute) };
    }
    parse_exponential(number)
}

/// A number like `1.024e3`, as some JSON libraries write large numbers. `None` beyond 10^15, where they drop digits.
fn parse_exponential(number: &str) -> Option<i128> {
    let (mantissa, exponent) = number.split_once(['e', 'E'])?;
    let exponent: usize = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let is_number = !whole.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = exponent.checked_sub(fraction.len())?;
    if !is_number || digits.len().checked_add(zeros)? > 15 {
        return None;
    }
    format!("{sign}{digits}{}", "0".repeat(zeros)).parse().ok()
}

/// The text of a body in which all strings are valid JSON. Bytes that are not UTF-8 and halves of surrogate pairs become
/// U+FFFD. Control characters and unknown escapes are escaped.
pub(super) fn repair_json(body: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(body);
    let is_plain = |text: &str| text.bytes().all(|byte| byte != b'\\' && byte >= b' ') && !text.starts_with('\u{feff}');
    if is_plain(&text) {
        return text;
    }
    let mut repaired = String::with_capacity(text.len());
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(&text).chars();
    let mut in_string = false;
    while let Some(character) = rest.next() {
        match character {
            '\\' if in_string => push_escape(&mut rest, &mut repaired),
            '\0'..='\u{1f}' if in_string => {
                repaired.extend([
                    '\\',
                    'u',
                    '0',
                    '0',
                    hex_digit(u32::from(character) / 16),
                    hex_digit(u32::from(character) % 16),
                ]);
            }
            _ => {
                in_string ^= character == '"';
                repaired.push(character);
            }
        }
    }
    Cow::Owned(repaired)
}

/// Repairs one escape sequence. `rest` begins after the backslash.
fn push_escape(rest: &mut std::str::Chars<'_>, repaired: &mut String) {
    let mut ahead = rest.clone();
    match ahead.next() {
        Some(known @ ('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't')) => {
            repaired.extend(['\\', known]);
            *rest = ahead;
        }
        Some('u') => {
            let Some(unit) = parse_utf16_unit(&mut ahead) else {
                repaired.push_str("\\\\");
                return;
            };
            let mut pair = ahead.clone();
            let low = if (pair.next(), pair.next()) == (Some('\\'), Some('u')) {
                self::parse_utf16_unit(&mut pair)
            } else {
                None
            };
            let written = match (unit, low) {
                (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
                    ahead = pair;
                    format!("\\u{unit:04x}\\u{low:04x}")
                }
                (0xd800..=0xdfff, _) => "\u{fffd}".to_owned(),
                _ => format!("\\u{unit:04x}"),
            };
            repaired.push_str(&written);
            *rest = ahead;
        }
        // An unknown escape: the backslash is text.
        Some(_) | None => repaired.push_str("\\\\"),
    }
}

fn hex_digit(digit: u32) -> char {
    char::from_digit(digit, 16).unwrap_or('0')
}

/// Four hexadecimal digits.
fn parse_utf16_unit(characters: &mut std::str::Chars<'_>) -> Option<u16> {
    let mut digits = || characters.next()?.to_digit(16);
    let number = (0..4).try_fold(0, |number, _| Some(number * 16 + digits()?))?;
    u16::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_json_strings_are_repaired() {
        for (written, expected) in [
            (r#""team \ud83d""#, "team \u{fffd}"),
            (r#""\ude00 team""#, "\u{fffd} team"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
            (r#""\uD83D\uDE00""#, "😀"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
            (r#""\\ud83d""#, r"\ud83d"),
            (r#""\ud83""#, r"\ud83"),
            ("\"a\tb\nc\"", "a\tb\nc"),
            (r#""it\'s \x41""#, r"it\'s \x41"),
            ("\u{feff}\"a\"", "a"),
        ] {
            assert_eq!(parse_text(&repair_json(written.as_bytes())).as_deref(), Some(expected), "{written}");
        }
        assert_eq!(parse_text(&repair_json(b"\"caf\xe9\"")).as_deref(), Some("caf\u{fffd}"));
        assert_eq!(
            repair_json(b"{\"a\":\n\t1}"),
            "{\"a\":\n\t1}",
            "outside strings, control characters are white space"
        );
    }

    #[test]
    fn whole_numbers_are_read_from_text_and_decimals() {
        for (written, expected) in [
            ("1024", Some(1024)),
            ("\"1024\"", Some(1024)),
            ("\" 1024 \"", Some(1024)),
            ("1024.0", Some(1024)),
            ("\"1024.00\"", Some(1024)),
            ("-1", Some(-1)),
            ("\"-1\"", Some(-1)),
            ("-1.0", Some(-1)),
            ("0", Some(0)),
            ("1.024e3", Some(1024)),
            ("1.111111111111111E+15", None),
            ("1.11e2", Some(111)),
            ("253460731706911258", Some(253_460_731_706_911_258)),
            ("2.534607317069113e17", None),
            ("1024.5", None),
            ("1e400", None),
            ("\"007\"", None),
            ("\"+1\"", None),
            ("\"inf\"", None),
            ("\"NaN\"", None),
            ("\"\"", None),
            ("\"1,024\"", None),
            ("true", None),
            ("[1]", None),
            ("{}", None),
            ("1e-1", None),
            ("99999999999999999999999999999999999999999999999", None),
        ] {
            assert_eq!(parse_whole_number(written), expected, "{written}");
        }
    }

    #[test]
    fn duplicate_field_is_detected() {
        let fields = JsonFields::parse(r#"{"a": 1, "b": null, "a": 1, "c": 1e999, "d": [[[[1]]]]}"#).unwrap();
        assert!(matches!(fields.get("a"), JsonField::Repeated("1")));
        assert!(matches!(fields.get("b"), JsonField::Absent));
        assert!(matches!(fields.get("c"), JsonField::Once("1e999")));
        assert!(matches!(fields.get("e"), JsonField::Absent));
        assert!(JsonFields::parse("[1]").is_none());
        let deep = format!(r#"{{"a": {}1{}, "b": 2}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(JsonFields::parse(&deep).unwrap().get("b"), JsonField::Once("2")));
    }
}
