//! Checks an Adaptive Card and shows it. It follows the documents of Adaptive Cards and of Teams, and not what peergate renders.
//!
//! Source: <https://adaptivecards.io/explorer/> and
//! <https://learn.microsoft.com/en-us/microsoftteams/platform/task-modules-and-cards/cards/cards-reference>

use std::collections::BTreeSet;

use serde_json::Value;

use super::{TeamsCard, TeamsMessage};

const ELEMENTS: [&str; 8] =
    ["TextBlock", "RichTextBlock", "Container", "ColumnSet", "Column", "FactSet", "Image", "Input.Text"];
const ACTIONS: [&str; 4] = ["Action.Execute", "Action.Submit", "Action.ShowCard", "Action.OpenUrl"];
const STYLES: [&str; 6] = ["default", "emphasis", "good", "attention", "warning", "accent"];
/// More actions are hidden in a menu.
const MAX_ACTIONS: usize = 6;

/// A button of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamsButton {
    /// The visible text.
    pub label: String,
    /// What a click sends, without the values of inputs; null if a click only opens a page.
    pub data: Value,
    /// The inputs that open before the click is sent.
    pub inputs: Vec<CardInput>,
    /// The page that a click opens.
    pub url: Option<String>,
}

/// A text field of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardInput {
    /// The id within the card.
    pub id: String,
    /// In characters.
    pub max_length: u64,
    /// Whether it must not be empty.
    pub is_required: bool,
}

fn str_field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn ensure(fits: bool, problem: &str) -> Result<(), String> {
    if fits { Ok(()) } else { Err(problem.to_owned()) }
}

/// Checks a card as Teams does.
///
/// # Errors
/// What is wrong with the card.
pub fn check_adaptive_card(card: &Value) -> Result<(), String> {
    let version = str_field(card, "version");
    ensure(["1.0", "1.1", "1.2", "1.3", "1.4", "1.5"].contains(&version), "the version is not 1.0 to 1.5")?;
    let mut ids = BTreeSet::new();
    check_part(card, &mut ids)?;
    let texts: Vec<_> = all_elements(card).into_iter().filter(|it| str_field(it, "type") == "TextBlock").collect();
    for entity in list(card.get("msteams").unwrap_or(&Value::Null), "entities") {
        let text = str_field(entity, "text");
        ensure(str_field(entity, "type") == "mention", "an entity is not a mention")?;
        ensure(!str_field(entity.get("mentioned").unwrap_or(&Value::Null), "id").is_empty(), "a mention of nobody")?;
        ensure(texts.iter().any(|it| str_field(it, "text").contains(text)), "no text has the mark of a mention")?;
    }
    Ok(())
}

/// A card, also one that an action shows.
fn check_part(card: &Value, ids: &mut BTreeSet<String>) -> Result<(), String> {
    ensure(str_field(card, "type") == "AdaptiveCard", "the type is not AdaptiveCard")?;
    list(card, "body").try_for_each(|element| check_element(element, ids))?;
    ensure(list(card, "actions").count() <= MAX_ACTIONS, "more than six actions")?;
    list(card, "actions").try_for_each(|action| check_action(action, ids))
}

fn check_element(element: &Value, ids: &mut BTreeSet<String>) -> Result<(), String> {
    let kind = str_field(element, "type");
    ensure(ELEMENTS.contains(&kind), &format!("unknown element {kind:?}"))?;
    match kind {
        "TextBlock" => ensure(!str_field(element, "text").is_empty(), "a TextBlock without text")?,
        "RichTextBlock" => {
            ensure(list(element, "inlines").next().is_some(), "a RichTextBlock without inlines")?;
            let is_run = |run: &Value| {
                run.is_string() || str_field(run, "type") == "TextRun" && !str_field(run, "text").is_empty()
            };
            ensure(list(element, "inlines").all(is_run), "an inline is not a TextRun with text")?;
        }
        "Container" => {
            let style = element.get("style").map_or("default", |_| str_field(element, "style"));
            ensure(STYLES.contains(&style), "unknown style of a Container")?;
        }
        "Input.Text" => {
            let id = str_field(element, "id");
            ensure(!id.is_empty() && ids.insert(id.to_owned()), "the id of an input is missing or not unique")?;
            let needs_message = element.get("isRequired") == Some(&Value::Bool(true));
            ensure(!needs_message || !str_field(element, "errorMessage").is_empty(), "no errorMessage")?;
        }
        _ => {}
    }
    list(element, "items").chain(list(element, "columns")).try_for_each(|child| check_element(child, ids))
}

fn check_action(action: &Value, ids: &mut BTreeSet<String>) -> Result<(), String> {
    let kind = str_field(action, "type");
    ensure(ACTIONS.contains(&kind), &format!("unknown action {kind:?}"))?;
    ensure(!str_field(action, "title").is_empty(), "an action without a title")?;
    let style = action.get("style").map_or("default", |_| str_field(action, "style"));
    ensure(["default", "positive", "destructive"].contains(&style), "unknown style of an action")?;
    match kind {
        "Action.ShowCard" => check_part(action.get("card").unwrap_or(&Value::Null), ids)?,
        "Action.OpenUrl" => ensure(str_field(action, "url").starts_with("https://"), "a page that is not https")?,
        _ => ensure(action.get("data").is_some_and(Value::is_object), "data is not an object")?,
    }
    match action.get("fallback") {
        Some(fallback) if fallback.is_object() => check_action(fallback, ids),
        Some(_) | None => Ok(()),
    }
}

/// The card of a message.
pub(super) fn card_of(activity: &Value) -> Option<&Value> {
    let attachment = list(activity, "attachments").next()?;
    let is_card = str_field(attachment, "contentType") == "application/vnd.microsoft.card.adaptive";
    attachment.get("content").filter(|_| is_card)
}

fn all_elements(card: &Value) -> Vec<&Value> {
    fn collect<'a>(elements: impl Iterator<Item = &'a Value>, into: &mut Vec<&'a Value>) {
        for element in elements {
            into.push(element);
            collect(list(element, "items").chain(list(element, "columns")), into);
        }
    }
    let mut elements = vec![];
    collect(list(card, "body"), &mut elements);
    elements
}

/// All text that a person reads, without that of buttons. Marks of mentions are names.
pub(super) fn visible_text(activity: &Value) -> String {
    let Some(card) = card_of(activity) else { return str_field(activity, "text").to_owned() };
    let line = |element: &&Value| match str_field(element, "type") {
        "TextBlock" => Some(str_field(element, "text").to_owned()),
        "RichTextBlock" => {
            Some(list(element, "inlines").map(|run| run.as_str().unwrap_or_else(|| str_field(run, "text"))).collect())
        }
        _ => None,
    };
    all_elements(card).iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn visible_buttons(activity: &Value) -> Vec<TeamsButton> {
    let card = card_of(activity).unwrap_or(&Value::Null);
    let button = |action: &Value| {
        let shown = action.get("card").filter(|_| str_field(action, "type") == "Action.ShowCard");
        let sends = shown.map_or(Some(action), |card| list(card, "actions").next());
        let inputs = shown.into_iter().flat_map(|card| list(card, "body"));
        let inputs = inputs.filter(|element| str_field(element, "type") == "Input.Text").map(|input| CardInput {
            id: str_field(input, "id").to_owned(),
            max_length: input.get("maxLength").and_then(Value::as_u64).unwrap_or(u64::MAX),
            is_required: input.get("isRequired").and_then(Value::as_bool).unwrap_or_default(),
        });
        TeamsButton {
            label: str_field(action, "title").to_owned(),
            data: sends.and_then(|action| action.get("data")).cloned().unwrap_or_default(),
            inputs: inputs.collect(),
            url: action.get("url").and_then(Value::as_str).map(ToOwned::to_owned),
        }
    };
    list(card, "actions").map(button).collect()
}

pub(super) fn show_message(message: &TeamsMessage, replies: Vec<String>) -> TeamsCard {
    let activity = &message.activity;
    let about = card_of(activity).and_then(|card| card.get("msteams")).unwrap_or(&Value::Null);
    let mentions = list(about, "entities").filter_map(|entity| entity.pointer("/mentioned/id")?.as_str());
    TeamsCard {
        message_id: message.id.clone(),
        text: visible_text(activity),
        summary: str_field(activity, "summary").to_owned(),
        buttons: visible_buttons(activity),
        mentions: mentions.map(ToOwned::to_owned).collect(),
        edits: message.edits,
        replies,
    }
}
