//! Error messages about a document that repeat nothing of it. The document may have secrets, even in places where none
//! belong.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_path_to_error::{Path, Segment};

/// A word with so many characters may be a secret: the secrets of platforms have at least 16.
const MIN_SECRET_CHARS: usize = 16;
/// How much of a sender's text is quoted.
const MAX_QUOTED_CHARS: usize = 40;
/// Prefixes of well-known secrets and secret URLs, in lower case.
const SECRET_PREFIXES: [&str; 9] = ["xox", "xapp", "xwfp", "whsec", "whsk", "ltai", "sts.", "eyj", "http"];
/// Prefixes of serde's messages that end with what was expected. That part comes from the program, not from the document.
const SERDE_ERROR_KINDS: [&str; 5] =
    ["invalid type", "invalid value", "invalid length", "unknown variant", "unknown field"];

/// What is wrong with a key of the configuration or of the secrets. It contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct KeyProblem {
    /// The full key, e.g. `targets.prod.regions`.
    pub key: String,
    /// What is wrong with its value.
    pub problem: String,
}

impl KeyProblem {
    /// An error about a key, as the error type of the caller. Parts of the key that may be secrets are replaced by `…`.
    pub(crate) fn err_at<T, E: From<Self>>(key: impl AsRef<str>, problem: impl Into<String>) -> Result<T, E> {
        let parts: Vec<_> = key.as_ref().split('.').map(redact).collect();
        Err(Self { key: parts.join("."), problem: problem.into() }.into())
    }
}

/// A name that is safe in an error. Each of its words that may be a secret is replaced by `…`.
pub(crate) fn redact(text: &str) -> Cow<'_, str> {
    if text.split(' ').all(is_name) {
        return Cow::Borrowed(text);
    }
    let words = text.split(' ').map(|word| if is_name(word) { word } else { "…" });
    Cow::Owned(words.collect::<Vec<_>>().join(" "))
}

/// A text of a sender as a quoted string of ASCII characters, cut to 40 characters. It is replaced by `…` if a part of it
/// may be a secret.
pub(crate) fn quote(text: &str) -> String {
    let shown: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    // Base64 may have these, too.
    let is_in_word = |character: char| character.is_ascii_alphanumeric() || "-_.@+/=".contains(character);
    let words = shown.split(|character| !is_in_word(character));
    if !words.map(|word| word.replace(['/', '='], "")).all(|word| is_harmless(&word)) {
        return "…".to_owned();
    }
    let dots = if shown.len() < text.len() { "…" } else { "" };
    format!("\"{}{dots}\"", shown.escape_default())
}

/// Whether a word is a name or a principal.
fn is_name(word: &str) -> bool {
    // Base64 may have a slash, but never a colon.
    match word.split_once(':').and_then(|(platform, rest)| Some((platform, rest.split_once('/')?))) {
        Some((platform, (tenant, user))) => [platform, tenant, user].into_iter().all(is_harmless),
        None => is_harmless(word),
    }
}

fn is_harmless(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let is_plain = word.chars().all(|character| character.is_ascii_alphanumeric() || "-_.@+".contains(character));
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    let is_mixed = word.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    let is_long = word.len() >= MIN_SECRET_CHARS;
    let is_key = SECRET_PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
    is_plain && !is_key && word.len() <= 40 && (is_number || !(is_long && is_mixed))
}

/// The dotted path of a key, e.g. `targets.prod.regions[0]`; empty for the document itself.
pub(crate) fn dotted_path(path: &Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                let _ = write!(text, "[{index}]");
            }
            Segment::Map { key } | Segment::Enum { variant: key } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&redact(key));
            }
            Segment::Unknown => {}
        }
    }
    text
}

/// What a serde error expected. The message of the error quotes values and unknown keys; the result does not. `ours` are
/// messages of the caller's own types, which are constants.
pub(crate) fn describe_expected(message: &str, ours: &[String]) -> String {
    // The name of a missing field comes from the program.
    if ours.iter().any(|words| words == message) || message.starts_with("missing field `") {
        return message.to_owned();
    }
    let Some(kind) = SERDE_ERROR_KINDS.iter().find(|kind| message.starts_with(**kind)) else {
        return "the value does not have the expected form".to_owned();
    };
    if message.ends_with(", there are no fields") {
        return format!("{kind}, expected none");
    }
    // All quotes are before the last `, expected `. The text after it comes from the program.
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("{kind}, expected {expected}"),
        None => (*kind).to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Whether a text has eight successive characters of a secret.
    pub(crate) fn is_leaked(secret: &str, text: &str) -> bool {
        let characters: Vec<char> = secret.chars().collect();
        characters.windows(8).any(|part| text.contains(&part.iter().collect::<String>()))
    }

    #[test]
    fn names_are_shown_and_possible_secrets_are_masked() {
        for name in [
            "prod",
            "targets",
            "two people",
            "slack:T0001/U061F7AUR",
            "account 1111111111111111 to vpc-accepter",
            "requester_cidrs_within",
        ] {
            assert_eq!(redact(name), name);
        }
        for (secret, expected) in [
            ("whsec_C2FVsBQI", "…"),
            ("8f742231b10e8888abcd99yyyzzz85a5", "…"),
            ("xoxb-1-a", "…"),
            ("LTAI5tExample", "…"),
            ("https://hooks.slack.com/services/T1/B1/x", "…"),
            ("slack:T0001/xoxb-1", "…"),
            ("one MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "one …"),
            ("AbcDefGhiJklMnoPqr", "…"),
        ] {
            assert_eq!(redact(secret), expected);
        }
    }

    #[test]
    fn quotes_are_short_and_escaped_and_show_no_secret() {
        for (text, expected) in [
            ("yes", r#""yes""#),
            ("", r#""""#),
            ("pcc-a/../b", r#""pcc-a/../b""#),
            ("2026-11-22 10:00", r#""2026-11-22 10:00""#),
            ("a\"\n{\u{202e}é", r#""a\"\n{\u{202e}\u{e9}""#),
            ("whsec_C2FVsBQI", "…"),
            ("Bearer MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "…"),
            ("MfKQ9r8GK/qrTwjUPD+ILPZIo2LaLaSw==", "…"),
            ("https://hooks.slack.com/services/T1/B1/x", "…"),
        ] {
            assert_eq!(quote(text), expected);
        }
        let long = quote(&"long ".repeat(100_000));
        assert!(long.len() < 50 && long.ends_with("…\""), "{long}");
    }

    #[test]
    fn parse_error_keeps_the_expectation_and_drops_the_value() {
        for (message, kept) in [
            ("invalid type: string \"xoxb-1\", expected a sequence", "invalid type, expected a sequence"),
            ("invalid type: string \"a, expected xoxb-1\", expected a map", "invalid type, expected a map"),
            ("unknown field `xoxb-1`, expected one of `a`, `b`", "unknown field, expected one of `a`, `b`"),
            ("unknown field `a, expected xoxb-1`, there are no fields", "unknown field, expected none"),
            ("missing field `account`", "missing field `account`"),
            ("not a name", "not a name"),
            ("not a name: xoxb-1", "the value does not have the expected form"),
            ("failed to parse \"xoxb-1, expected xoxb-1\"", "the value does not have the expected form"),
            ("relative URL without a base: \"xoxb-1\"", "the value does not have the expected form"),
        ] {
            assert_eq!(describe_expected(message, &["not a name".to_owned()]), kept);
        }
    }
}
