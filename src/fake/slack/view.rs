//! What people see of a message, and what Slack refuses to show.

use std::collections::BTreeSet;

use serde_json::Value;

use super::SlackButton;

/// All visible text of a message, a modal or a reply.
#[must_use]
pub fn visible_text(body: &Value) -> String {
    fn collect_texts(value: &Value, into: &mut Vec<String>) {
        let nested = value.get("elements").and_then(Value::as_array).into_iter().flatten();
        for element in nested {
            collect_texts(element, into);
        }
        match value.get("type").and_then(Value::as_str) {
            Some("text" | "link") => into.extend(value.get("text").and_then(Value::as_str).map(ToOwned::to_owned)),
            Some("user") => {
                into.extend(value.get("user_id").and_then(Value::as_str).map(|user| format!("@{user}")));
            }
            Some("rich_text_preformatted" | "rich_text_section") => into.push("\n".to_owned()),
            _ => {}
        }
    }
    let mut texts = vec![];
    for block in body.get("blocks").and_then(Value::as_array).into_iter().flatten() {
        if block.get("type").and_then(Value::as_str) == Some("rich_text") {
            collect_texts(block, &mut texts);
        }
    }
    let lines = texts.concat();
    let lines = lines.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

/// The users whom a message mentions.
#[must_use]
pub fn mentioned_users(body: &Value) -> Vec<String> {
    let nested = ["blocks", "elements"].into_iter().filter_map(|name| body.get(name).and_then(Value::as_array));
    let mut users: Vec<_> = nested.flatten().flat_map(mentioned_users).collect();
    if body.get("type").and_then(Value::as_str) == Some("user") {
        users.extend(body.get("user_id").and_then(Value::as_str).map(ToOwned::to_owned));
    }
    users
}

/// The buttons of a message, in order.
#[must_use]
pub fn visible_buttons(body: &Value) -> Vec<SlackButton> {
    let blocks = body.get("blocks").and_then(Value::as_array).into_iter().flatten();
    let actions = blocks.filter(|block| block.get("type").and_then(Value::as_str) == Some("actions"));
    let elements = actions.flat_map(|block| block.get("elements").and_then(Value::as_array).into_iter().flatten());
    let word = |element: &Value, at: &str| element.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let button = |element| SlackButton {
        label: word(element, "/text/text"),
        action_id: word(element, "/action_id"),
        value: word(element, "/value"),
    };
    elements.map(button).collect()
}

/// Checks the blocks of a message as Slack does.
///
/// Source: <https://docs.slack.dev/reference/block-kit/blocks>
///
/// # Errors
/// The error code of Slack.
pub fn check_blocks(body: &Value) -> Result<(), &'static str> {
    fn is_valid_block(value: &Value) -> bool {
        let length = |at: &str| value.pointer(at).and_then(Value::as_str).map(|text| text.chars().count());
        let fits = match value.get("type").and_then(Value::as_str) {
            Some("text" | "link") => length("/text").is_some_and(|length| length > 0),
            Some("button") => {
                length("/text/text").is_some_and(|length| (1..=75).contains(&length))
                    && length("/value").is_none_or(|length| length <= 2000)
                    && length("/action_id").is_none_or(|length| length <= 255)
            }
            _ => true,
        };
        let elements = value.get("elements").and_then(Value::as_array);
        fits && elements.is_none_or(|elements| !elements.is_empty() && elements.iter().all(is_valid_block))
    }
    let blocks = body.get("blocks").and_then(Value::as_array).ok_or("no_text")?;
    let buttons = visible_buttons(body);
    let names: BTreeSet<_> = buttons.iter().map(|button| &button.action_id).collect();
    let fits = (1..=50).contains(&blocks.len()) && blocks.iter().all(is_valid_block) && names.len() == buttons.len();
    if fits && body.to_string().len() < 40_000 { Ok(()) } else { Err("invalid_blocks") }
}
