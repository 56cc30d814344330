//! Finds which value of a JSON text is at a byte, so that an error of the parser can name it.

use super::KeyStep;

/// A container that is open at a byte.
enum OpenContainer {
    /// An object, and its last key. `None` where a key is expected.
    Object(Option<String>),
    /// An array, and the position of its element.
    Array(usize),
}

/// The path of the value or key at this byte. If there is none, that of the last one before it. If the text is not
/// JSON, the path means nothing.
pub(crate) fn json_path_at(json: &[u8], offset: usize) -> Vec<KeyStep> {
    let (mut open, mut last, mut start): (Vec<OpenContainer>, _, _) = (vec![], vec![], 0);
    while let Some(byte) = json.get(start) {
        if byte.is_ascii_whitespace() || *byte == b':' {
            start = start.saturating_add(1);
            continue;
        }
        if start > offset {
            break;
        }
        let end = token_end(json, start);
        let is_inside = match byte {
            b',' => {
                match open.last_mut() {
                    Some(OpenContainer::Object(key)) => *key = None,
                    Some(OpenContainer::Array(position)) => *position = position.saturating_add(1),
                    None => {}
                }
                false
            }
            b'}' | b']' => {
                open.pop();
                end == offset
            }
            b'{' | b'[' => start == offset,
            _ => {
                if let Some(OpenContainer::Object(key @ None)) = open.last_mut() {
                    *key = json.get(start..end).and_then(|text| serde_json::from_slice(text).ok());
                }
                offset <= end
            }
        };
        if *byte != b',' {
            last = path_of(&open);
        }
        if is_inside {
            break;
        }
        match byte {
            b'{' => open.push(OpenContainer::Object(None)),
            b'[' => open.push(OpenContainer::Array(0)),
            _ => {}
        }
        start = end;
    }
    last
}

fn path_of(open: &[OpenContainer]) -> Vec<KeyStep> {
    let step = |container: &OpenContainer| match container {
        OpenContainer::Object(key) => key.clone().map(KeyStep::Key),
        OpenContainer::Array(position) => Some(KeyStep::Index(*position)),
    };
    open.iter().filter_map(step).collect()
}

/// The byte after the token that begins here: a mark, a string, a number or a word.
fn token_end(json: &[u8], start: usize) -> usize {
    let rest = json.get(start..).unwrap_or_default();
    let length = match rest.first() {
        Some(b'{' | b'}' | b'[' | b']' | b',') | None => 1,
        Some(b'"') => {
            let mut is_escaped = false;
            let closes = |byte: &u8| {
                let is_end = *byte == b'"' && !is_escaped;
                is_escaped = *byte == b'\\' && !is_escaped;
                is_end
            };
            rest.iter().skip(1).position(closes).map_or(rest.len(), |length| length.saturating_add(2))
        }
        Some(_) => {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || b"{}[],:\"".contains(byte);
            rest.iter().position(ends).unwrap_or(rest.len())
        }
    };
    start.saturating_add(length.max(1))
}

/// The byte at a place of the JSON parser: a line from 1, and a number of bytes in it.
pub(crate) fn json_offset(json: &[u8], line: usize, column: usize) -> usize {
    let before: usize = json.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    before.saturating_add(column)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    /// The path of the error, as text.
    fn error_path<'a, T: Deserialize<'a>>(json: &'a str) -> String {
        let Err(error) = serde_json::from_str::<T>(json) else { panic!("no error: {json}") };
        let steps = json_path_at(json.as_bytes(), json_offset(json.as_bytes(), error.line(), error.column()));
        steps.iter().fold(String::new(), |text, step| match step {
            KeyStep::Key(key) => format!("{text}.{key}"),
            KeyStep::Index(index) => format!("{text}[{index}]"),
        })
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Inner {
        text: String,
        number: Option<u8>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Outer {
        one: Inner,
        #[serde(default)]
        list: Vec<Inner>,
    }

    #[test]
    fn error_of_the_parser_is_found_at_its_value() {
        for (json, path) in [
            (r#"{"one": {"text": 1}}"#, ".one.text"),
            (r#"{"one":{"text":"a","number":"b"}}"#, ".one.number"),
            (r#"{"one" : { "text" : "a" , "number" : -1 } }"#, ".one.number"),
            ("{\n\"one\":\n {\"text\":\n[1]}}", ".one.text"),
            (r#"{"one":{"text":{}}}"#, ".one.text"),
            (r#"{"one":{"text":null}}"#, ".one.text"),
            (r#"{"one":{"text":true}}"#, ".one.text"),
            (r#"{"one":{"number":1}}"#, ".one"),
            (r#"{"one":{"text":"a","other":1}}"#, ".one.other"),
            (r#"{"one":{"text":"a","text":"b"}}"#, ".one.text"),
            (r#"{"list":[]}"#, ""),
            (r#"{"one":{"text":"a"},"list":[{"text":"b"},{"text":"c","number":1000}]}"#, ".list[1].number"),
            (r#"{"one":{"text":"a"},"list":[{"text":"b"}, 7]}"#, ".list[1]"),
            (r#"{"one":{"text":"a"},"list":[{"text":"b"},{}]}"#, ".list[1]"),
            (r#"{"one":"x"}"#, ".one"),
            (r#"{"one":{"text":"\"{[,\\"},"list":{}}"#, ".list"),
            (r"[1]", "[0]"),
            (r#""x""#, ""),
            ("7", ""),
        ] {
            assert_eq!(error_path::<Outer>(json), path, "{json}");
        }
    }

    /// Any JSON, and the path of one wrong value in it.
    fn with_a_wrong_value() -> impl Strategy<Value = (Value, String)> {
        let word = || "[a-z\"\\\\{\\[,: é]{0,4}";
        (word(), word(), 0..4_usize, any::<bool>()).prop_map(|(key, text, position, spaced)| {
            let mut list: Vec<_> = (0..4).map(|_| json!({"text": text, "number": 1})).collect();
            list[position]["number"] = if spaced { json!({ key: [1, 2] }) } else { json!(text) };
            (json!({"one": {"text": text}, "list": list}), format!(".list[{position}].number"))
        })
    }

    proptest! {
        #[test]
        fn wrong_value_is_found_in_any_text((document, path) in with_a_wrong_value()) {
            prop_assert_eq!(error_path::<Outer>(&document.to_string()), path.clone());
            prop_assert_eq!(error_path::<Outer>(&format!("{document:#}")), path);
        }

        #[test]
        fn any_bytes_and_places_have_an_end(json in proptest::collection::vec(any::<u8>(), 0..60), at in 0..80_usize) {
            json_path_at(&json, at);
            json_offset(&json, at, at);
        }
    }
}
