//! What Feishu shows: cards in JSON 2.0, and the response to a click.
//!
//! Untrusted text goes only into `plain_text`, which is literal: it mentions, links and formats nothing.
//!
//! Source: <https://open.feishu.cn/document/feishu-cards/card-json-v2-structure>

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{BUTTON_NAME_PREFIX, REALM, REASON_FIELD};
use crate::approval::{Principal, Verdict};
use crate::chat::MAX_REASON_CHARS;
use crate::chat::message::{self, Button, Link, Message, MessageFact, ShortLimits, ShownButton, shorten_card};
use crate::chat::response::set_member;

/// The largest request that posts or updates a card, with 1000 bytes a KB. The request holds the card as a JSON string.
///
/// Source: <https://open.feishu.cn/document/server-docs/im-v1/message/create>
pub const MAX_CARD_BYTES: usize = 30_000;
/// The largest request to a custom bot.
///
/// Source: <https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot>
pub const MAX_BOT_BYTES: usize = 20_000;
/// The most elements and components of a card: every object with a tag counts.
///
/// Source: <https://open.feishu.cn/document/feishu-cards/card-json-v2-structure>
pub const MAX_ELEMENTS: usize = 200;
/// The longest `element_id`.
///
/// Source: <https://open.feishu.cn/document/feishu-cards/card-json-v2-structure>
const MAX_ELEMENT_ID_CHARS: usize = 20;
/// The largest size of a request without its card.
const CARD_OVERHEAD_BYTES: usize = 512;
/// What a shortened card may have.
const SHORT_LIMITS: ShortLimits = ShortLimits { lines: 10, chars: 100 };
/// The longest toast, in characters. Feishu documents no limit, but nobody can read more before it disappears.
const MAX_TOAST_CHARS: usize = 300;
/// Why Feishu would refuse a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// The request would exceed the limit.
    #[error("the card is too large")]
    TooLarge,
    /// It has more than 200 elements.
    #[error("the card has too many elements")]
    TooManyElements,
    /// Two components have the same name.
    #[error("two components of the card have the same name")]
    DuplicateName,
    /// An `element_id` is malformed, or occurs twice.
    #[error("an element_id of the card is malformed or duplicate")]
    InvalidElementId,
    /// Cards in JSON 2.0 must be shared.
    #[error("the card is not shared")]
    NotShared,
}

/// A card. It shows only buttons with a binding. A message that is too large is shortened and loses its decision buttons:
/// nobody may decide on facts that the card does not show.
#[must_use]
pub fn render_card(message: &Message) -> Value {
    render_card_within(message, MAX_CARD_BYTES)
}

/// As [`render_card`], for requests of at most `limit` bytes.
pub(super) fn render_card_within(message: &Message, limit: usize) -> Value {
    let full = build_card(message);
    if check_limits(&full, limit).is_ok() {
        return full;
    }
    let without_figure = build_card(&Message { figure: vec![], snippet: None, ..message.clone() });
    if check_limits(&without_figure, limit).is_ok() {
        without_figure
    } else {
        build_card(&shorten_card(message, "Feishu", SHORT_LIMITS))
    }
}

/// Whether Feishu would accept a card.
pub fn check_card(card: &Value) -> Result<(), CardError> {
    check_limits(card, MAX_CARD_BYTES)
}

/// An upper limit of the size of the request that posts the card.
#[must_use]
pub fn request_size_bytes(card: &Value) -> usize {
    Value::String(card.to_string()).to_string().len().saturating_add(CARD_OVERHEAD_BYTES)
}

fn check_limits(card: &Value, limit: usize) -> Result<(), CardError> {
    if request_size_bytes(card) > limit {
        return Err(CardError::TooLarge);
    }
    if card.pointer("/config/update_multi") != Some(&Value::Bool(true)) {
        return Err(CardError::NotShared);
    }
    let mut found = CardContents::default();
    found.collect_from(card);
    if found.elements > MAX_ELEMENTS {
        return Err(CardError::TooManyElements);
    }
    let is_id = |id: &str| {
        let rest = id.strip_prefix(|first: char| first.is_ascii_alphabetic());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        id.len() <= MAX_ELEMENT_ID_CHARS && rest.is_some_and(|rest| rest.bytes().all(allowed))
    };
    if has_duplicates(&mut found.ids) || !found.ids.iter().all(|id| is_id(id)) {
        return Err(CardError::InvalidElementId);
    }
    if has_duplicates(&mut found.names) { Err(CardError::DuplicateName) } else { Ok(()) }
}

fn has_duplicates(texts: &mut [&str]) -> bool {
    texts.sort_unstable();
    texts.windows(2).any(|pair| matches!(pair, [one, other] if one == other))
}

/// The elements, names and ids of a card at any depth, without the values of buttons.
#[derive(Default)]
struct CardContents<'a> {
    elements: usize,
    names: Vec<&'a str>,
    ids: Vec<&'a str>,
}

impl<'a> CardContents<'a> {
    fn collect_from(&mut self, value: &'a Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.collect_from(value)),
            Value::Object(fields) => {
                if fields.contains_key("tag") {
                    self.elements = self.elements.saturating_add(1);
                }
                let text = |name: &str| fields.get(name).and_then(Value::as_str);
                self.names.extend(text("name"));
                self.ids.extend(text("element_id"));
                for (name, value) in fields {
                    if name != "behaviors" {
                        self.collect_from(value);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

fn build_card(message: &Message) -> Value {
    // One line each, so that no value can look like another fact.
    let fact = |MessageFact { label, value }: &MessageFact| format!("{label}: {}", value.replace(['\n', '\r'], " "));
    let facts: Vec<_> = message.facts.iter().map(fact).collect();
    let mut elements: Vec<_> = mention_element(&message.mentions).into_iter().collect();
    elements.extend([&facts, &message.checks].into_iter().filter_map(|lines| text_element(lines)));
    elements.extend(figure_element(&message.figure));
    elements.extend(text_element(&message.sentences));
    elements.extend(message.snippet.clone().and_then(|snippet| text_element(&[snippet])));
    let shown = message.buttons.iter().flat_map(|buttons| &buttons.shown);
    let bound = shown.filter_map(|ShownButton { button, binding }| {
        Some(BoundButton { button: *button, binding: binding.as_deref()? })
    });
    let (asking, others): (Vec<_>, Vec<_>) = bound.partition(|bound| needs_form(bound.button));
    let mut row: Vec<_> = others.iter().map(button_element).collect();
    if let Some(Link { label, url }) = &message.link {
        row.push(json!({
            "tag": "button", "text": plain_text(label), "type": "text",
            "behaviors": [{"type": "open_url", "default_url": url}],
        }));
    }
    elements.extend(button_row(row));
    elements.extend(form_element(&asking));
    json!({
        "schema": "2.0",
        "config": {
            "update_multi": true,
            "enable_forward": false,
            "width_mode": "default",
            "summary": {"content": message.headline},
        },
        "header": {"title": plain_text(&message.headline), "template": header_template(message)},
        "body": {"elements": elements},
    })
}

/// Red shows a failed check, orange asks for a decision, and blue informs.
///
/// Source: <https://open.feishu.cn/document/feishu-cards/card-json-v2-components/content-components/title>
fn header_template(message: &Message) -> &'static str {
    let mut shown = message.buttons.iter().flat_map(|buttons| &buttons.shown);
    if message.checks.iter().any(|check| check.starts_with('✗')) {
        "red"
    } else if shown.any(|shown| shown.binding.is_some() && matches!(shown.button, Button::Approve { .. })) {
        "orange"
    } else {
        "blue"
    }
}

fn plain_text(text: &str) -> Value {
    json!({"tag": "plain_text", "content": text})
}

fn text_element(lines: &[String]) -> Option<Value> {
    (!lines.is_empty()).then(|| json!({"tag": "div", "text": plain_text(&lines.join("\n"))}))
}

/// A line that mentions the Feishu users among these identities. The configuration accepts only ids of letters and digits.
///
/// Source: <https://open.feishu.cn/document/feishu-cards/card-json-v2-components/content-components/rich-text>
fn mention_element(mentions: &[Principal]) -> Option<Value> {
    let users: BTreeSet<_> = mentions.iter().filter_map(|principal| principal.user_on(REALM)).collect();
    let marks: Vec<_> = users.iter().map(|user| format!("<at id={user}></at>")).collect();
    (!marks.is_empty()).then(|| json!({"tag": "markdown", "content": format!("For {}", marks.join(", "))}))
}

/// Columns are aligned only in a code block. Like mentions, it is Markdown, so it must not contain any markup.
///
/// Source: <https://open.feishu.cn/document/feishu-cards/card-json-v2-components/content-components/rich-text>
fn figure_element(lines: &[String]) -> Option<Value> {
    let harmless = |c: char| c.is_ascii_alphanumeric() || " '.,:;/·█".contains(c);
    if !lines.iter().all(|line| line.chars().all(harmless)) {
        return text_element(lines);
    }
    (!lines.is_empty()).then(|| json!({"tag": "markdown", "content": format!("```\n{}\n```", lines.join("\n"))}))
}

fn button_row(buttons: Vec<Value>) -> Option<Value> {
    let column = |button| json!({"tag": "column", "width": "auto", "elements": [button]});
    let columns: Vec<_> = buttons.into_iter().map(column).collect();
    (!columns.is_empty()).then(|| json!({"tag": "column_set", "flex_mode": "flow", "columns": columns}))
}

/// A button, and the text that it carries.
struct BoundButton<'a> {
    button: Button,
    binding: &'a str,
}

/// Whether a button is in the form with the input for a reason.
fn needs_form(button: Button) -> bool {
    matches!(button, Button::Approve { needs_reason: true } | Button::Reject)
}

/// Source: <https://open.feishu.cn/document/feishu-cards/card-json-v2-components/interactive-components/button>
fn button_element(BoundButton { button, binding }: &BoundButton<'_>) -> Value {
    let kind = match button {
        Button::Approve { .. } | Button::Acknowledge => "primary",
        Button::Reject => "danger",
        Button::Withdraw | Button::Details => "default",
    };
    let mut element = json!({
        "tag": "button",
        "name": format!("{BUTTON_NAME_PREFIX}{binding}"),
        "text": plain_text(button.label()),
        "type": kind,
        "behaviors": [{"type": "callback", "value": {"b": binding}}],
    });
    if needs_form(*button) {
        set_member(&mut element, "form_action_type", "submit".into());
    }
    element
}

/// The input for a reason with its buttons. Feishu enforces `required` in its client; only our own check counts.
///
/// Source: <https://open.feishu.cn/document/feishu-cards/card-json-v2-components/containers/form-container> and
/// <https://open.feishu.cn/document/feishu-cards/card-json-v2-components/interactive-components/input>
fn form_element(asking: &[BoundButton<'_>]) -> Option<Value> {
    let verdict = |bound: &BoundButton<'_>| match bound.button {
        Button::Approve { .. } => Some(Verdict::Approve),
        Button::Reject => Some(Verdict::Reject),
        Button::Withdraw | Button::Acknowledge | Button::Details => None,
    };
    let questions: Vec<_> = asking.iter().filter_map(verdict).map(message::reason_form).collect();
    let label = questions.first()?.label;
    let buttons = asking.iter().map(button_element).collect();
    let input = json!({
        "tag": "input",
        "name": REASON_FIELD,
        "required": questions.iter().all(|question| !question.is_optional),
        "input_type": "multiline_text",
        "rows": 2,
        "max_length": MAX_REASON_CHARS,
        "label": plain_text(label),
        "placeholder": plain_text(label),
    });
    let elements: Vec<_> = [Some(input), button_row(buttons)].into_iter().flatten().collect();
    Some(json!({"tag": "form", "name": "decision", "elements": elements}))
}

/// The look of a toast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToastKind {
    /// Neutral information.
    Info,
    /// The command succeeded.
    Success,
    /// The command failed.
    Error,
    /// The command was refused.
    Warning,
}

/// A short text that only the person who clicked sees.
///
/// Source: <https://open.feishu.cn/document/feishu-cards/card-callback-communication>
#[must_use]
pub fn toast_json(kind: ToastKind, text: &str) -> Value {
    let kind = match kind {
        ToastKind::Info => "info",
        ToastKind::Success => "success",
        ToastKind::Error => "error",
        ToastKind::Warning => "warning",
    };
    let content: String = text.chars().take(MAX_TOAST_CHARS).collect();
    json!({"type": kind, "content": content})
}

/// The response to a click, due within 3 s and with HTTP status 200. `card` replaces the clicked card for everybody.
///
/// Source: <https://open.feishu.cn/document/feishu-cards/card-callback-communication>
#[must_use]
pub fn reply_json(toast: Option<Value>, card: Option<Value>) -> Value {
    let toast = toast.map(|toast| ("toast".to_owned(), toast));
    let card = card.map(|card| ("card".to_owned(), json!({"type": "raw", "data": card})));
    toast.into_iter().chain(card).collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::chat::message::Buttons;
    use crate::peering::{Fingerprint, InstanceId};

    fn bound(button: Button) -> ShownButton {
        let binding = format!("prod/pcc-a.{button:?}").chars().filter(|c| !c.is_whitespace()).collect();
        ShownButton { button, binding: Some(binding) }
    }

    fn message(shown: &[Button]) -> Message {
        let fingerprint = Fingerprint::try_from("0123456789abcdef".repeat(4));
        Message {
            headline: "alice or bob: approve or reject VPC peering prod/pcc-a".into(),
            facts: vec![
                MessageFact::new("Requester", "account 1"),
                MessageFact::new("Name", "<at id=all></at> **b** [x](http://evil)"),
            ],
            checks: vec!["✓ it has not expired".into()],
            sentences: vec!["One.".into(), "Two.".into()],
            link: Some(Link { label: "Open the console", url: "https://vpc.console.aliyun.com/".into() }),
            buttons: fingerprint.ok().map(|fingerprint| Buttons {
                target: "prod".into(),
                instance_id: InstanceId::parse("pcc-a").unwrap(),
                fingerprint,
                shown: shown.iter().map(|button| bound(*button)).collect(),
            }),
            ..Message::default()
        }
    }

    const ALL: [Button; 4] =
        [Button::Approve { needs_reason: false }, Button::Reject, Button::Withdraw, Button::Details];

    fn texts(card: &Value) -> Vec<(String, String)> {
        fn collect(value: &Value, into: &mut Vec<(String, String)>) {
            let text = |name: &str| value.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
            into.extend(text("tag").zip(text("content")));
            let nested = value.as_object().into_iter().flat_map(|fields| fields.values());
            nested.chain(value.as_array().into_iter().flatten()).for_each(|value| collect(value, into));
        }
        let mut found = vec![];
        collect(card, &mut found);
        found
    }

    #[test]
    fn card_shows_every_part_in_order() {
        let card = render_card(&message(&ALL));
        assert_eq!(check_card(&card), Ok(()));
        let elements = card["body"]["elements"].as_array().unwrap();
        let lines = [&card["config"], &card["header"]].into_iter().chain(elements).map(ToString::to_string);
        assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @r#"
        {"enable_forward":false,"summary":{"content":"alice or bob: approve or reject VPC peering prod/pcc-a"},"update_multi":true,"width_mode":"default"}
        {"template":"orange","title":{"content":"alice or bob: approve or reject VPC peering prod/pcc-a","tag":"plain_text"}}
        {"tag":"div","text":{"content":"Requester: account 1\nName: <at id=all></at> **b** [x](http://evil)","tag":"plain_text"}}
        {"tag":"div","text":{"content":"✓ it has not expired","tag":"plain_text"}}
        {"tag":"div","text":{"content":"One.\nTwo.","tag":"plain_text"}}
        {"columns":[{"elements":[{"behaviors":[{"type":"callback","value":{"b":"prod/pcc-a.Approve{needs_reason:false}"}}],"name":"b.prod/pcc-a.Approve{needs_reason:false}","tag":"button","text":{"content":"Approve","tag":"plain_text"},"type":"primary"}],"tag":"column","width":"auto"},{"elements":[{"behaviors":[{"type":"callback","value":{"b":"prod/pcc-a.Withdraw"}}],"name":"b.prod/pcc-a.Withdraw","tag":"button","text":{"content":"Withdraw my approval","tag":"plain_text"},"type":"default"}],"tag":"column","width":"auto"},{"elements":[{"behaviors":[{"type":"callback","value":{"b":"prod/pcc-a.Details"}}],"name":"b.prod/pcc-a.Details","tag":"button","text":{"content":"Details","tag":"plain_text"},"type":"default"}],"tag":"column","width":"auto"},{"elements":[{"behaviors":[{"default_url":"https://vpc.console.aliyun.com/","type":"open_url"}],"tag":"button","text":{"content":"Open the console","tag":"plain_text"},"type":"text"}],"tag":"column","width":"auto"}],"flex_mode":"flow","tag":"column_set"}
        {"elements":[{"input_type":"multiline_text","label":{"content":"Reason (the channel sees it)","tag":"plain_text"},"max_length":400,"name":"reason","placeholder":{"content":"Reason (the channel sees it)","tag":"plain_text"},"required":false,"rows":2,"tag":"input"},{"columns":[{"elements":[{"behaviors":[{"type":"callback","value":{"b":"prod/pcc-a.Reject"}}],"form_action_type":"submit","name":"b.prod/pcc-a.Reject","tag":"button","text":{"content":"Reject","tag":"plain_text"},"type":"danger"}],"tag":"column","width":"auto"}],"flex_mode":"flow","tag":"column_set"}],"name":"decision","tag":"form"}
        "#);
    }

    #[test]
    fn required_reason_is_asked_for_in_the_form() {
        let card = render_card(&message(&[Button::Approve { needs_reason: true }, Button::Reject, Button::Details]));
        let form =
            card["body"]["elements"].as_array().unwrap().iter().find(|element| element["tag"] == "form").unwrap();
        let names: Vec<_> = form["elements"][1]["columns"].as_array().unwrap().iter().collect();
        assert_eq!(names.len(), 2);
        assert_eq!(names[0]["elements"][0]["form_action_type"], "submit");
        assert_eq!(form["elements"][0]["max_length"], MAX_REASON_CHARS);
        assert_eq!(form["elements"][0]["required"], false);
        let only = render_card(&message(&[Button::Approve { needs_reason: true }]));
        let form =
            only["body"]["elements"].as_array().unwrap().iter().find(|element| element["tag"] == "form").unwrap();
        assert_eq!(form["elements"][0]["required"], true);
    }

    #[test]
    fn hostile_text_stays_literal() {
        let hostile = "<at id=all></at> <at user_id=\"all\">x</at> **b** [x](https://evil) <font color='red'>x</font> ``` \\n {{x}}";
        let mut message = message(&ALL);
        message.facts = vec![MessageFact::new("Name", hostile)];
        message.checks = vec![hostile.into()];
        message.sentences = vec![hostile.into()];
        message.snippet = Some(hostile.into());
        message.figure = vec![hostile.into()];
        message.headline = hostile.into();
        let card = render_card(&message);
        let found: Vec<_> = texts(&card).into_iter().filter(|(_, text)| text.contains("evil")).collect();
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(found.iter().all(|(tag, text)| tag == "plain_text" && text.contains(hostile)), "{found:?}");
        assert!(!card.to_string().contains("lark_md") && !card.to_string().contains("\"markdown\""));
    }

    #[test]
    fn figure_keeps_its_columns() {
        let line = "requester 10.0.0.0/8  ████····";
        let card = render_card(&Message { figure: vec![line.into()], ..message(&[]) });
        assert!(texts(&card).contains(&("markdown".to_owned(), format!("```\n{line}\n```"))));
    }

    #[test]
    fn oversized_card_is_cut_and_loses_its_decision_buttons() {
        let long = "巨".repeat(4000);
        let mut large = message(&ALL);
        large.facts = ["Name", "Description"].map(|label| MessageFact::new(label, long.as_str())).into();
        large.snippet = Some(long.clone());
        let card = render_card(&large);
        assert_eq!(check_card(&card), Ok(()));
        let has = |card: &Value, label: &str| texts(card).iter().any(|(_, text)| text == label);
        assert!(has(&card, "Approve") && has(&card, "Reject"), "without the snippet it fits");
        large.facts.push(MessageFact::new("Reason", long));
        let card = render_card(&large);
        assert_eq!(check_card(&card), Ok(()));
        assert!(!has(&card, "Approve") && !has(&card, "Reject") && has(&card, "Withdraw my approval"));
        assert!(texts(&card).iter().any(|(_, text)| text.contains("too large for a Feishu card, so texts are cut")));
        let worst = Message {
            headline: "\"".repeat(900),
            facts: vec![MessageFact::new("Name", "\"".repeat(900)); 50],
            checks: vec!["\"".repeat(900); 50],
            sentences: vec!["𝔘".repeat(900); 50],
            ..message(&ALL)
        };
        assert_eq!(check_card(&render_card(&worst)), Ok(()));
        assert_eq!(check_limits(&render_card_within(&worst, MAX_BOT_BYTES), MAX_BOT_BYTES), Ok(()));
    }

    #[test]
    fn invalid_card_is_refused_with_its_error() {
        let card = |elements: Value| json!({"schema": "2.0", "config": {"update_multi": true}, "body": {"elements": elements}});
        let cases = [
            (card(json!([])), Ok(())),
            (json!({"schema": "2.0"}), Err(CardError::NotShared)),
            (
                card(json!([{"tag": "input", "name": "a"}, {"tag": "input", "name": "a"}])),
                Err(CardError::DuplicateName),
            ),
            (
                card(json!([{"tag": "hr", "element_id": "a"}, {"tag": "hr", "element_id": "a"}])),
                Err(CardError::InvalidElementId),
            ),
            (card(json!([{"tag": "hr", "element_id": "1a"}])), Err(CardError::InvalidElementId)),
            (card(json!([{"tag": "hr", "element_id": "a".repeat(21)}])), Err(CardError::InvalidElementId)),
            (card(json!([{"tag": "hr", "element_id": "a".repeat(20)}])), Ok(())),
            (card(json!(vec![json!({"tag": "hr"}); 200])), Ok(())),
            (card(json!(vec![json!({"tag": "hr"}); 201])), Err(CardError::TooManyElements)),
            (card(json!([{"tag": "div", "text": plain_text(&"x".repeat(30_000))}])), Err(CardError::TooLarge)),
        ];
        for (card, expected) in cases {
            assert_eq!(check_card(&card), expected);
        }
    }

    #[test]
    fn reply_carries_an_optional_toast_and_card() {
        let toast = toast_json(ToastKind::Warning, "You may not approve this.");
        assert_eq!(reply_json(None, None), json!({}));
        assert_eq!(
            reply_json(Some(toast), Some(json!({"schema": "2.0"}))),
            json!({
                "toast": {"type": "warning", "content": "You may not approve this."},
                "card": {"type": "raw", "data": {"schema": "2.0"}},
            })
        );
    }
}
