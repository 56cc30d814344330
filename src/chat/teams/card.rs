//! What Teams shows: Adaptive Cards 1.5, and the response to a click.
//!
//! Untrusted text goes only into `TextRun`, which is literal: it mentions, links and formats nothing. A `TextBlock` would
//! interpret Markdown.
//!
//! Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/task-modules-and-cards/cards/cards-format>

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::REALM;
use crate::approval::Verdict;
use crate::chat::MAX_REASON_CHARS;
use crate::chat::message::{self, Button, Message, MessageFact, ShortLimits, ShownButton, shorten_card};
use crate::chat::response::set_member;

/// The largest message of a bot, in bytes of UTF-16. Teams refuses 100 KB, and recommends a margin.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/bots/how-to/format-your-bot-messages>
pub const MAX_CARD_BYTES: usize = 80_000;
/// The largest request to a workflow, in bytes.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>
pub const MAX_WORKFLOW_BYTES: usize = 28_000;
/// The longest message in the response to a click, in characters. Teams documents no limit.
const MAX_PRIVATE_CHARS: usize = 1000;
/// What a shortened card may have.
const SHORT_LIMITS: ShortLimits = ShortLimits { lines: 10, chars: 100 };
/// What an `Action.Execute` is called.
const VERB: &str = "peergate";
/// The id of the input for the reason of a rejection, and of an approval: an id occurs once in a card.
const REJECT_REASON_FIELD: &str = "reason";
const APPROVE_REASON_FIELD: &str = "approve_reason";

/// The card is larger than Teams accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the card is too large")]
pub struct CardTooLarge;

/// How large a message may be.
#[derive(Debug, Clone, Copy)]
enum SizeLimit {
    /// Of a bot, in UTF-16.
    Bot,
    /// Of a workflow, in UTF-8.
    Workflow,
}

/// A card. It shows only buttons with a binding. A message that is too large is shortened and loses its decision buttons:
/// nobody may decide on facts that the card does not show.
#[must_use]
pub fn render_card(message: &Message) -> Value {
    render_within(message, SizeLimit::Bot)
}

/// The activity that posts or updates a card.
#[must_use]
pub fn render_activity(message: &Message) -> Value {
    to_activity(message, &render_card(message))
}

/// The body for a workflow: a card without buttons, because nobody would receive their clicks, and without mentions, because
/// the workflow is not the bot.
#[must_use]
pub fn render_for_workflow(message: &Message) -> Value {
    let message = Message { buttons: None, mentions: vec![], ..message.clone() };
    to_activity(&message, &render_within(&message, SizeLimit::Workflow))
}

fn to_activity(message: &Message, card: &Value) -> Value {
    json!({
        "type": "message",
        "summary": plain_words(&message.headline),
        "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}],
    })
}

fn render_within(message: &Message, limit: SizeLimit) -> Value {
    let full = build_card(message);
    if fits(&full, limit) {
        return full;
    }
    let without_figure = build_card(&Message { figure: vec![], snippet: None, ..message.clone() });
    if fits(&without_figure, limit) {
        without_figure
    } else {
        build_card(&shorten_card(message, "Teams", SHORT_LIMITS))
    }
}

/// Whether Teams would accept a card.
///
/// # Errors
/// When it is too large.
pub fn check_size(card: &Value) -> Result<(), CardTooLarge> {
    if fits(card, SizeLimit::Bot) { Ok(()) } else { Err(CardTooLarge) }
}

/// An upper limit of the size of the activity with this card, in bytes of UTF-16.
#[must_use]
pub fn activity_size_bytes(card: &Value) -> usize {
    card.to_string().encode_utf16().count().saturating_add(OVERHEAD_CHARS).saturating_mul(2)
}

/// The largest size of a message without its card, with the summary.
const OVERHEAD_CHARS: usize = 1500;

fn fits(card: &Value, limit: SizeLimit) -> bool {
    match limit {
        SizeLimit::Bot => activity_size_bytes(card) <= MAX_CARD_BYTES,
        SizeLimit::Workflow => card.to_string().len().saturating_add(2 * OVERHEAD_CHARS) <= MAX_WORKFLOW_BYTES,
    }
}

fn build_card(message: &Message) -> Value {
    let mut body = vec![headline_element(message)];
    let mentions = MentionLine::of(message);
    body.extend(mentions.as_ref().map(|line| json!({"type": "TextBlock", "text": line.text, "wrap": true})));
    push_group(&mut body, message.facts.iter().map(fact_element));
    push_group(&mut body, message.checks.iter().flat_map(|check| check.lines()).map(|line| text_element(line, false)));
    push_group(&mut body, message.figure.iter().map(|line| text_element(line, true)));
    push_group(&mut body, message.sentences.iter().flat_map(|it| it.lines()).map(|line| text_element(line, false)));
    let snippet = message.snippet.iter().flat_map(|snippet| snippet.lines());
    push_group(&mut body, snippet.map(|line| text_element(line, true)));
    let shown = message.buttons.iter().flat_map(|buttons| &buttons.shown);
    let mut actions: Vec<_> = shown.filter_map(button_action).collect();
    if let Some(link) = &message.link {
        actions.push(json!({"type": "Action.OpenUrl", "title": link.label, "url": link.url}));
    }
    let entities = mentions.map(|line| line.entities).unwrap_or_default();
    json!({
        "type": "AdaptiveCard",
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "version": "1.5",
        "body": body,
        "actions": actions,
        "msteams": {"width": "full", "entities": entities},
    })
}

/// Adds lines. Only the first one has space above it.
fn push_group(body: &mut Vec<Value>, lines: impl Iterator<Item = Value>) {
    for (position, mut line) in lines.enumerate() {
        set_member(&mut line, "spacing", if position == 0 { "Medium" } else { "None" }.into());
        body.push(line);
    }
}

/// Red shows a failed check, yellow asks for a decision, and gray informs.
fn headline_element(message: &Message) -> Value {
    let mut shown = message.buttons.iter().flat_map(|buttons| &buttons.shown);
    let style = if message.checks.iter().any(|check| check.starts_with('✗')) {
        "attention"
    } else if shown.any(|shown| shown.binding.is_some() && matches!(shown.button, Button::Approve { .. })) {
        "warning"
    } else {
        "emphasis"
    };
    let run = json!({"type": "TextRun", "text": literal(&message.headline), "weight": "Bolder", "size": "Medium"});
    json!({"type": "Container", "style": style, "bleed": true, "items": [{"type": "RichTextBlock", "inlines": [run]}]})
}

/// One line, so that no value can look like another fact.
fn fact_element(MessageFact { label, value }: &MessageFact) -> Value {
    json!({"type": "RichTextBlock", "inlines": [
        {"type": "TextRun", "text": format!("{label}: "), "weight": "Bolder"},
        {"type": "TextRun", "text": literal(&value.replace(['\n', '\r'], " "))},
    ]})
}

/// Columns are aligned only in a font of fixed width, and with spaces that are not joined.
fn text_element(line: &str, is_aligned: bool) -> Value {
    let mut run = json!({"type": "TextRun", "text": literal(line)});
    if is_aligned {
        set_member(&mut run, "text", literal(&line.replace(' ', "\u{a0}")).into());
        set_member(&mut run, "fontType", "Monospace".into());
    }
    json!({"type": "RichTextBlock", "inlines": [run]})
}

/// Teams evaluates `{{DATE(…)}}` and `{{TIME(…)}}` in any text. A joiner between the braces, which nobody sees, prevents it.
///
/// Source: <https://learn.microsoft.com/en-us/adaptive-cards/authoring-cards/text-features>
fn literal(text: &str) -> String {
    let text = text.replace("{{", "{\u{2060}{");
    if text.is_empty() { "–".to_owned() } else { text }
}

/// A line that mentions people of Teams, and what its marks stand for.
struct MentionLine {
    text: String,
    entities: Vec<Value>,
}

impl MentionLine {
    /// Mentions the Teams users among these identities. The configuration accepts only object ids. No mark occurs in the other
    /// texts of the message, so that none of them becomes a mention.
    ///
    /// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/task-modules-and-cards/cards/cards-format#mention-support-within-adaptive-cards>
    fn of(message: &Message) -> Option<Self> {
        let users: BTreeSet<_> = message.mentions.iter().filter_map(|principal| principal.user_on(REALM)).collect();
        let texts = [&message.checks, &message.figure, &message.sentences].into_iter().flatten();
        let texts: Vec<_> = texts
            .chain([&message.headline])
            .chain(&message.snippet)
            .chain(message.facts.iter().map(|fact| &fact.value))
            .collect();
        let mut numbers = (1_usize..).filter(|number| {
            let mark = mention_mark(*number);
            // As facts are shown: in one line.
            !texts.iter().any(|text| text.replace(['\n', '\r'], " ").contains(&mark))
        });
        let mut marks = vec![];
        let mut entities = vec![];
        for (user, number) in users.iter().zip(&mut numbers) {
            let mark = mention_mark(number);
            let mentioned = json!({"id": user, "name": mention_name(number)});
            entities.push(json!({"type": "mention", "text": mark, "mentioned": mentioned}));
            marks.push(mark);
        }
        (!marks.is_empty()).then(|| Self { text: format!("For {}", marks.join(", ")), entities })
    }
}

fn mention_name(number: usize) -> String {
    format!("approver {number}")
}

fn mention_mark(number: usize) -> String {
    format!("<at>{}</at>", mention_name(number))
}

/// A button with a binding. The buttons that ask for a reason open an input first. A client that does not know
/// `Action.Execute` sends a message instead.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/task-modules-and-cards/cards/universal-actions-for-adaptive-cards/work-with-universal-actions-for-adaptive-cards>
fn button_action(ShownButton { button, binding }: &ShownButton) -> Option<Value> {
    let binding = binding.as_deref()?;
    let (style, form, field) = match button {
        Button::Approve { needs_reason: false } | Button::Acknowledge => (Some("positive"), None, ""),
        Button::Approve { needs_reason: true } => {
            (Some("positive"), Some(message::reason_form(Verdict::Approve)), APPROVE_REASON_FIELD)
        }
        Button::Reject => (Some("destructive"), Some(message::reason_form(Verdict::Reject)), REJECT_REASON_FIELD),
        Button::Withdraw | Button::Details => (None, None, ""),
    };
    let styled = |mut action: Value| {
        if let Some(style) = style {
            set_member(&mut action, "style", style.into());
        }
        action
    };
    let execute = |title: &str| {
        styled(json!({
            "type": "Action.Execute", "title": title, "verb": VERB, "data": {"b": binding},
            "fallback": {"type": "Action.Submit", "title": title, "data": {"b": binding}},
        }))
    };
    let Some(form) = form else { return Some(execute(button.label())) };
    let input = json!({
        "type": "Input.Text", "id": field, "label": form.label, "isMultiline": true, "maxLength": MAX_REASON_CHARS,
        "isRequired": !form.is_optional, "errorMessage": message::REASON_MISSING,
    });
    let card = json!({"type": "AdaptiveCard", "body": [input], "actions": [execute(form.submit_label)]});
    Some(styled(json!({"type": "Action.ShowCard", "title": button.label(), "card": card})))
}

/// Whether a text is shown as it is, whatever the place interprets: it has no mark of Markdown, HTML or a link.
fn is_plain(text: &str) -> bool {
    !text.contains(|c: char| "<>[]{}*_`~#|\\@&".contains(c) || c.is_control())
        && !text.contains("://")
        && !text.contains("www.")
}

/// A text without the marks that a place could interpret.
fn plain_words(text: &str) -> String {
    let is_mark = |c: char| "<>[]{}*_`~#|\\@&".contains(c) || c.is_control();
    text.replace("://", " ").replace("www.", "").replace(is_mark, " ").chars().take(MAX_PRIVATE_CHARS).collect()
}

/// The text of a private answer, and whether it is the whole of it. Teams does not say whether it interprets marks in it, so a
/// text that has some is left to the one-to-one chat.
pub(super) fn private_text(message: &Message) -> PrivateText {
    let paragraph = message.to_paragraph();
    let has_more = !message.facts.is_empty()
        || !message.checks.is_empty()
        || !message.figure.is_empty()
        || message.buttons.is_some()
        || message.snippet.is_some();
    let is_short = is_plain(&paragraph) && paragraph.chars().count() <= MAX_PRIVATE_CHARS;
    let text = if is_short { paragraph } else { plain_words(&message.headline) };
    PrivateText { text, is_complete: is_short && !has_more }
}

/// A private answer in words.
pub(super) struct PrivateText {
    pub(super) text: String,
    pub(super) is_complete: bool,
}

/// The response to a click: a message that only the person who clicked sees. Its HTTP status is always 200.
///
/// Source: <https://learn.microsoft.com/en-us/microsoftteams/platform/task-modules-and-cards/cards/universal-actions-for-adaptive-cards/work-with-universal-actions-for-adaptive-cards>
#[must_use]
pub fn private_message_json(text: &str) -> Value {
    json!({"statusCode": 200, "type": "application/vnd.microsoft.activity.message", "value": text})
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::approval::Principal;
    use crate::chat::message::{Buttons, Link};
    use crate::peering::{Fingerprint, InstanceId};

    fn message(shown: &[Button]) -> Message {
        let binding = |button: &Button| Some(format!("{button:?}"));
        Message {
            headline: "alice or bob: approve or reject VPC peering prod/pcc-a".into(),
            facts: vec![MessageFact::new("Name", "<at>approver\n1</at> **b** [x](http://evil)")],
            checks: vec!["✓ it has not expired".into()],
            figure: vec!["requester 10.0.0.0/8  ██··".into()],
            sentences: vec!["One.".into(), "Two.".into()],
            link: Some(Link { label: "Open the console", url: "https://vpc.console.aliyun.com/".into() }),
            buttons: Some(Buttons {
                target: "prod".into(),
                instance_id: InstanceId::parse("pcc-a").unwrap(),
                fingerprint: Fingerprint::try_from("0123456789abcdef".repeat(4)).unwrap(),
                shown: shown.iter().map(|button| ShownButton { button: *button, binding: binding(button) }).collect(),
            }),
            ..Message::default()
        }
    }

    const ALL: [Button; 4] =
        [Button::Approve { needs_reason: false }, Button::Reject, Button::Withdraw, Button::Details];

    /// Every object of a type, at any depth.
    fn find<'a>(value: &'a Value, kind: &str, into: &mut Vec<&'a Value>) {
        if value["type"] == kind {
            into.push(value);
        }
        let nested = value.as_object().into_iter().flat_map(|fields| fields.values());
        nested.chain(value.as_array().into_iter().flatten()).for_each(|value| find(value, kind, into));
    }

    fn all<'a>(card: &'a Value, kind: &str) -> Vec<&'a Value> {
        let mut found = vec![];
        find(card, kind, &mut found);
        found
    }

    fn runs(card: &Value) -> Vec<String> {
        all(card, "TextRun").iter().map(|run| run["text"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn teams_card_shows_every_part_in_order() {
        let card = render_card(&message(&ALL));
        assert_eq!(check_size(&card), Ok(()));
        let parts = card["body"].as_array().unwrap().iter().chain(card["actions"].as_array().unwrap());
        assert_snapshot!(parts.map(ToString::to_string).collect::<Vec<_>>().join("\n"), @r#"
        {"bleed":true,"items":[{"inlines":[{"size":"Medium","text":"alice or bob: approve or reject VPC peering prod/pcc-a","type":"TextRun","weight":"Bolder"}],"type":"RichTextBlock"}],"style":"warning","type":"Container"}
        {"inlines":[{"text":"Name: ","type":"TextRun","weight":"Bolder"},{"text":"<at>approver 1</at> **b** [x](http://evil)","type":"TextRun"}],"spacing":"Medium","type":"RichTextBlock"}
        {"inlines":[{"text":"✓ it has not expired","type":"TextRun"}],"spacing":"Medium","type":"RichTextBlock"}
        {"inlines":[{"fontType":"Monospace","text":"requester 10.0.0.0/8  ██··","type":"TextRun"}],"spacing":"Medium","type":"RichTextBlock"}
        {"inlines":[{"text":"One.","type":"TextRun"}],"spacing":"Medium","type":"RichTextBlock"}
        {"inlines":[{"text":"Two.","type":"TextRun"}],"spacing":"None","type":"RichTextBlock"}
        {"data":{"b":"Approve { needs_reason: false }"},"fallback":{"data":{"b":"Approve { needs_reason: false }"},"title":"Approve","type":"Action.Submit"},"style":"positive","title":"Approve","type":"Action.Execute","verb":"peergate"}
        {"card":{"actions":[{"data":{"b":"Reject"},"fallback":{"data":{"b":"Reject"},"title":"Reject","type":"Action.Submit"},"style":"destructive","title":"Reject","type":"Action.Execute","verb":"peergate"}],"body":[{"errorMessage":"Give a reason.","id":"reason","isMultiline":true,"isRequired":false,"label":"Reason (the channel sees it)","maxLength":400,"type":"Input.Text"}],"type":"AdaptiveCard"},"style":"destructive","title":"Reject","type":"Action.ShowCard"}
        {"data":{"b":"Withdraw"},"fallback":{"data":{"b":"Withdraw"},"title":"Withdraw my approval","type":"Action.Submit"},"title":"Withdraw my approval","type":"Action.Execute","verb":"peergate"}
        {"data":{"b":"Details"},"fallback":{"data":{"b":"Details"},"title":"Details","type":"Action.Submit"},"title":"Details","type":"Action.Execute","verb":"peergate"}
        {"title":"Open the console","type":"Action.OpenUrl","url":"https://vpc.console.aliyun.com/"}
        "#);
    }

    #[test]
    fn required_reason_has_an_input_with_an_id_of_its_own() {
        let card = render_card(&message(&[Button::Approve { needs_reason: true }, Button::Reject]));
        let inputs: Vec<_> =
            all(&card, "Input.Text").iter().map(|it| (it["id"].clone(), it["isRequired"].clone())).collect();
        assert_eq!(inputs, [(json!("approve_reason"), json!(true)), (json!("reason"), json!(false))]);
        assert_eq!(all(&card, "Action.ShowCard").len(), 2);
    }

    #[test]
    fn mention_is_made_only_by_its_line() {
        let person = |user: &str| Principal::new(REALM, "50703947-19f8-4dd8-af0e-60d29681f7c0", user).unwrap();
        let users = ["c97a97e7-dcc9-4395-a81f-c029c016f011", "d97a97e7-dcc9-4395-a81f-c029c016f011"];
        let others = Principal::new("slack", "T0001", "U061F7AUR").unwrap();
        let mentions = vec![person(users[1]), others, person(users[0])];
        let card = render_card(&Message { mentions, ..message(&ALL) });
        let lines: Vec<_> = all(&card, "TextBlock").iter().map(|line| line["text"].clone()).collect();
        assert_eq!(lines, ["For <at>approver 2</at>, <at>approver 3</at>"], "a fact has the mark of the first");
        let entities = card["msteams"]["entities"].as_array().unwrap();
        let ids: Vec<_> = entities.iter().map(|it| it["mentioned"]["id"].as_str().unwrap()).collect();
        assert_eq!(ids, users);
        assert!(entities.iter().all(|it| !runs(&card).iter().any(|run| run.contains(it["text"].as_str().unwrap()))));
        assert_eq!(render_card(&message(&ALL))["msteams"]["entities"], json!([]));
    }

    #[test]
    fn hostile_text_stays_literal_in_teams() {
        let hostile = "<at>all</at> **b** [x](https://evil) <b>x</b> ``` \\n {{DATE(2026-01-01)}} &lt; @x";
        let hostile_message = Message {
            headline: hostile.into(),
            facts: vec![MessageFact::new("Name", hostile)],
            checks: vec![hostile.into()],
            figure: vec![hostile.into()],
            sentences: vec![hostile.into()],
            snippet: Some(hostile.into()),
            ..message(&ALL)
        };
        let card = render_card(&hostile_message);
        assert!(all(&card, "TextBlock").is_empty());
        assert_eq!(runs(&card).iter().filter(|run| run.contains("evil")).count(), 6);
        assert!(runs(&card).iter().all(|run| !run.contains("{{")), "no function is evaluated");
        assert_eq!(card.to_string().matches("evil").count(), 6, "it is nowhere else");
        let activity = render_activity(&hostile_message);
        let summary = activity["summary"].as_str().unwrap();
        assert!(is_plain(summary), "{summary}");
        let PrivateText { text, is_complete } = private_text(&hostile_message);
        assert!(is_plain(&text) && !is_complete, "{text}");
    }

    #[test]
    fn short_answer_is_shown_whole_and_a_long_one_is_announced() {
        let text = |message: &Message| {
            let PrivateText { text, is_complete } = private_text(message);
            (text, is_complete)
        };
        let short = Message { headline: "Done".into(), sentences: vec!["All is well.".into()], ..Message::default() };
        assert_eq!(text(&short), ("Done. All is well.".into(), true));
        let with_marks = Message { sentences: vec!["“[x](y)” is not a command".into()], ..short.clone() };
        assert_eq!(text(&with_marks), ("Done".into(), false));
        let with_facts = Message { facts: vec![MessageFact::new("Name", "x")], ..short.clone() };
        assert_eq!(text(&with_facts), ("Done. All is well.".into(), false));
        let long = Message { sentences: vec!["x".repeat(1001)], ..short };
        assert_eq!(text(&long), ("Done".into(), false));
    }

    #[test]
    fn oversized_teams_card_is_cut_and_loses_its_decision_buttons() {
        let long = "巨".repeat(14_000);
        let mut large = message(&ALL);
        large.facts = ["Name", "Description"].map(|label| MessageFact::new(label, long.as_str())).into();
        large.snippet = Some(long.clone());
        let titles = |card: &Value| {
            let actions = card["actions"].as_array().unwrap().iter();
            actions.map(|action| action["title"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let card = render_card(&large);
        assert_eq!(check_size(&card), Ok(()));
        assert!(titles(&card).contains(&"Approve".into()), "without the snippet it fits");
        large.facts.push(MessageFact::new("Reason", long));
        let card = render_card(&large);
        assert_eq!(check_size(&card), Ok(()));
        assert_eq!(titles(&card), ["Withdraw my approval", "Details", "Open the console"]);
        assert!(runs(&card).iter().any(|run| run.contains("too large for a Teams card")));
        let worst = Message {
            headline: "\"".repeat(900),
            facts: vec![MessageFact::new("Name", "\"".repeat(900)); 50],
            checks: vec!["\"".repeat(900); 50],
            sentences: vec!["𝔘".repeat(900); 50],
            ..message(&ALL)
        };
        assert_eq!(check_size(&render_card(&worst)), Ok(()));
        let workflow = render_for_workflow(&worst);
        assert!(workflow.to_string().len() <= MAX_WORKFLOW_BYTES, "{}", workflow.to_string().len());
        assert!(all(&workflow, "Action.Execute").is_empty() && all(&workflow, "Action.ShowCard").is_empty());
    }
}
