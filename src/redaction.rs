//! Error messages about a document that repeat nothing of it. The document may have secrets, even in places where none
//! belong.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::document::{KeyStep, nearest_name};

/// A word of this length may be a secret: the secrets of platforms have at least 16.
const MIN_SECRET_CHARS: usize = 16;
/// The description of a value if the message about it may quote the value.
pub(crate) const UNKNOWN_FORM: &str = "the value does not have the expected form";
/// The most parts of a path in a log line.
const MAX_PATH_PARTS: usize = 8;
/// The most known names that an error lists.
const MAX_LISTED_NAMES: usize = 10;
/// How much of a sender's text is quoted.
const MAX_QUOTED_CHARS: usize = 40;
/// Prefixes of well-known secrets and secret URLs, in lower case.
const SECRET_PREFIXES: [&str; 9] = ["xox", "xapp", "xwfp", "whsec", "whsk", "ltai", "sts.", "eyj", "http"];
/// How serde begins to describe the value that it found, and words for it.
const FOUND_VALUES: [(&str, &str); 9] = [
    ("boolean ", "a boolean"),
    ("integer ", "a number"),
    ("floating point ", "a number with a fraction"),
    ("string ", "a string"),
    ("sequence", "a list"),
    ("map", "a table"),
    ("null", "null"),
    ("unit", "nothing"),
    ("datetime", "a date"),
];

/// How serde and the types of fields describe what they expect, and plain words for it.
const EXPECTED_VALUES: [(&str, &str); 8] = [
    ("a sequence", "a list"),
    ("a signed duration string", "a duration, e.g. `4h` or `90m`"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("a map", "a table"),
    ("struct ", "a table"),
    ("internally tagged enum", "a table with a `kind`"),
    ("adjacently tagged enum", "a table with a `kind`"),
    ("variant identifier", "a string"),
];

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
        Err(Self { key: redact_key(key.as_ref()), problem: problem.into() }.into())
    }
}

/// A dotted key that is safe in an error, e.g. `clients.ci.signing_secrets[0]`. Each part that may be a secret is replaced by
/// `…`.
pub(crate) fn redact_key(key: &str) -> String {
    let redact_part = |part: &str| match part.split_once('[') {
        Some((name, position)) if position.trim_end_matches(']').bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{}[{position}", redact(name))
        }
        Some(_) | None => redact(part).into_owned(),
    };
    key.split('.').map(redact_part).collect::<Vec<_>>().join(".")
}

/// The problem that nothing of this kind has this name. It shows the known name that is probably meant, or some known names.
pub(crate) fn unknown_name<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let problem = format!("no {kind} is named {}", redact(name));
    match nearest_name(name, known.clone()) {
        Some(meant) => format!("{problem}; did you mean {}?", redact(meant)),
        None => match known.map(redact).take(MAX_LISTED_NAMES).collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => problem,
            some => format!("{problem}; known: {some}"),
        },
    }
}

/// A value that is safe in an error: the text itself in quotes, or only its length if it may be a secret.
pub(crate) fn redact_value(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let is_short = text.len() < MIN_SECRET_CHARS && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if is_short && !SECRET_PREFIXES.iter().any(|prefix| lower.contains(prefix)) || redact(text) == text {
        format!("{text:?}")
    } else {
        format!("a string of {} characters", text.chars().count())
    }
}

/// A path that a stranger sent, so that it is safe in a log line: at most eight parts, each of at most 40 plain characters.
/// Other parts, and those that may be a secret, are replaced by `…`.
pub(crate) fn redact_path(path: &str) -> String {
    let is_longer = path.split('/').nth(MAX_PATH_PARTS).is_some();
    // A name of the configuration may be as long as a secret, but has words.
    let is_words = |part: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        // A random id has several parts with digits.
        let has_digit = |word: &&str| word.bytes().any(|byte| byte.is_ascii_digit());
        let is_random = part.split('-').filter(has_digit).count() > 1;
        part.len() <= 40 && part.contains('-') && part.bytes().all(is_allowed) && !has_secret_prefix(part) && !is_random
    };
    let is_shown = |part: &str| is_harmless(part) || is_words(part);
    let parts = path.split('/').take(MAX_PATH_PARTS).map(|part| if is_shown(part) { part } else { "…" });
    parts.chain(is_longer.then_some("…")).collect::<Vec<_>>().join("/")
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
    // The cut must not make a harmless word of a secret.
    let judged: String = text.chars().take(2 * MAX_QUOTED_CHARS).collect();
    // Base64 may have these, too.
    let is_in_word = |character: char| character.is_ascii_alphanumeric() || "-_.@+/=".contains(character);
    let words = judged.split(|character| !is_in_word(character));
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
    let is_plain = word.chars().all(|character| character.is_ascii_alphanumeric() || "-_.@+".contains(character));
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    let is_mixed = word.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    let is_long = word.len() >= MIN_SECRET_CHARS;
    is_plain && !has_secret_prefix(word) && word.len() <= 40 && (is_number || !(is_long && is_mixed))
}

fn has_secret_prefix(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    SECRET_PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
}

/// The dotted path of a key, e.g. `targets.prod.regions[0]`; empty for the document itself.
pub(crate) fn dotted_path(path: &[KeyStep]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            KeyStep::Index(index) => {
                let _ = write!(text, "[{index}]");
            }
            KeyStep::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&redact(key));
            }
        }
    }
    text
}

/// What a serde error found and expected. The message of the error quotes values and unknown keys; the result quotes only
/// names. `ours` are the beginnings of messages of the caller's own types. Those messages show no value.
pub(crate) fn describe_expected(message: &str, ours: &[String]) -> String {
    // The names of missing and repeated fields come from the program.
    let is_safe = message.starts_with("missing field `") || message.starts_with("duplicate field `");
    if is_safe || ours.iter().any(|words| message.starts_with(words.as_str())) {
        return message.to_owned();
    }
    for kind in ["unknown field", "unknown variant"] {
        if let Some(rest) = message.strip_prefix(kind).and_then(|rest| rest.strip_prefix(" `")) {
            return describe_unknown(kind, rest);
        }
    }
    for kind in ["invalid type: ", "invalid value: ", "invalid length "] {
        // All quotes are before the last `, expected `. The text after it comes from the program.
        if let Some((found, expected)) = message.strip_prefix(kind).and_then(|rest| rest.rsplit_once(", expected ")) {
            let plain = |words: &[(&str, &'static str)], text: &str| {
                words.iter().find(|(theirs, _)| text.starts_with(theirs)).map(|(_, ours)| *ours)
            };
            let found = plain(&FOUND_VALUES, found).map(|found| format!(", found {found}")).unwrap_or_default();
            return format!("expected {}{found}", plain(&EXPECTED_VALUES, expected).unwrap_or(expected));
        }
    }
    UNKNOWN_FORM.to_owned()
}

/// Names the known names, and the one that is probably meant. `rest` is the message after its first backquote.
fn describe_unknown(kind: &str, rest: &str) -> String {
    let expected = rest.rsplit_once("`, expected ").filter(|_| !rest.ends_with(", there are no fields"));
    let Some((name, expected)) = expected else {
        return format!("{kind}, expected none");
    };
    let known = expected.split('`').skip(1).step_by(2);
    let meant = nearest_name(name, known).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    let name = if redact(name) == name { format!(" `{name}`") } else { String::new() };
    format!("{kind}{name}, expected {expected}{meant}")
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
        assert_eq!(quote("My own secret is this one: 8f742231b10e8888abcd99yyyzzz85a5"), "…");
        let long = quote(&"long ".repeat(100_000));
        assert!(long.len() < 50 && long.ends_with("…\""), "{long}");
    }

    #[test]
    fn path_of_a_stranger_is_bounded_and_plain() {
        for (path, expected) in [
            ("/webhook/ci", "/webhook/ci"),
            ("/webhook/build-server-2026", "/webhook/build-server-2026"),
            ("/slack/8f742231b10e8888abcd99yyyzzz85a5", "/slack/…"),
            ("/slack/xoxb-1-a", "/slack/…"),
            ("/webhook/550e8400-e29b-41d4-a716-446655440000", "/webhook/…"),
            ("/", "/"),
            ("", ""),
            ("/.env", "/.env"),
            ("/webhook/whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "/webhook/…"),
            ("/a\u{202E}b/%0A/x y", "/…/…/…"),
            ("/1/2/3/4/5/6/7/8/9", "/1/2/3/4/5/6/7/…"),
        ] {
            assert_eq!(redact_path(path), expected, "{path}");
        }
        assert_eq!(redact_path(&"a".repeat(41)), "…");
    }

    #[test]
    fn parse_error_keeps_the_expectation_and_drops_the_value() {
        for (message, kept) in [
            ("invalid type: string \"xoxb-1\", expected a sequence", "expected a list, found a string"),
            ("invalid type: string \"a, expected xoxb-1\", expected a map", "expected a table, found a string"),
            ("invalid type: integer `7`, expected a string", "expected a string, found a number"),
            ("invalid length 1, expected an array", "expected an array"),
            ("unknown field `xoxb-1`, expected one of `a`, `b`", "unknown field, expected one of `a`, `b`"),
            (
                "unknown field `acount`, expected `account`",
                "unknown field `acount`, expected `account`; did you mean `account`?",
            ),
            ("unknown field `a, expected xoxb-1`, there are no fields", "unknown field, expected none"),
            (
                "unknown variant `slak`, expected `slack`",
                "unknown variant `slak`, expected `slack`; did you mean `slack`?",
            ),
            ("unknown variant `xoxb-1`, expected `slack`", "unknown variant, expected `slack`"),
            ("missing field `account`", "missing field `account`"),
            ("duplicate field `account`", "duplicate field `account`"),
            ("not a name", "not a name"),
            ("not a name: it is empty", "not a name: it is empty"),
            ("failed to parse \"xoxb-1, expected xoxb-1\"", "the value does not have the expected form"),
            ("relative URL without a base: \"xoxb-1\"", "the value does not have the expected form"),
        ] {
            assert_eq!(describe_expected(message, &["not a name".to_owned()]), kept);
        }
    }
}
