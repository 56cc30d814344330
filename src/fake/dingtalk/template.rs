//! The template of a card: what it shows of the variables. It follows `docs/dingtalk-template.json`, and not what peergate
//! renders.

use serde_json::{Map, Value};

use super::{CardInstance, VariableMap};

/// A card as one person sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DingTalkCard {
    /// The id of the card.
    pub out_track_id: String,
    /// All visible text that everybody sees.
    pub text: String,
    /// The answer that only this person sees.
    pub notice: String,
    /// The color of the header.
    pub tone: String,
    /// In order.
    pub buttons: Vec<DingTalkButton>,
    /// Whether there is an input for a reason.
    pub asks_reason: bool,
    /// Where the link leads.
    pub link: Option<String>,
    /// Who was mentioned when it was posted, by `userId`.
    pub mentions: Vec<String>,
    /// The number of updates for everybody.
    pub updates: u32,
}

impl DingTalkCard {
    /// The labels of the buttons, in order.
    #[must_use]
    pub fn button_labels(&self) -> Vec<&str> {
        self.buttons.iter().map(|button| button.label.as_str()).collect()
    }

    /// The button with this label.
    #[must_use]
    pub fn find_button(&self, label: &str) -> Option<&DingTalkButton> {
        self.buttons.iter().find(|button| button.label == label)
    }
}

/// A visible button of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DingTalkButton {
    /// The visible text.
    pub label: String,
    /// Names the button in a click.
    pub action_id: String,
    /// The parameters of a click that come from variables.
    pub params: Map<String, Value>,
    /// The parameter that carries what is in the input.
    pub reason_param: Option<String>,
}

/// The contract of the template.
///
/// # Panics
/// When the document is not JSON.
#[must_use]
#[expect(clippy::expect_used, reason = "a document of the project")]
pub fn contract() -> Value {
    serde_json::from_str(include_str!("../../../docs/dingtalk-template.json")).expect("the contract is JSON")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list(value: &Value, name: &str) -> Vec<Value> {
    value.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// The card as one person sees it.
pub(super) fn view_card(card: &CardInstance, viewer: &str) -> DingTalkCard {
    let contract = contract();
    let variables = card.overrides.get(viewer).unwrap_or(&card.variables);
    let get = |name: &str| variables.get(name).map(String::as_str).unwrap_or_default();
    let is_visible = |part: &Value| {
        let condition = part.get("visible_if").unwrap_or(&Value::Null);
        get(text(condition, "variable")) == text(condition, "is")
    };
    let texts = list(&contract, "variables").into_iter().filter(|variable| {
        let shown_by = text(variable, "shown_by");
        shown_by.contains("text") && variable.get("private") == Some(&Value::Bool(false))
    });
    let lines: Vec<_> =
        texts.map(|variable| get(text(&variable, "name")).to_owned()).filter(|it| !it.is_empty()).collect();
    let buttons = list(&contract, "buttons").into_iter().filter(&is_visible);
    let link = contract.get("link").filter(|link| is_visible(link)).map(|link| get(text(link, "url")).to_owned());
    DingTalkCard {
        out_track_id: card.out_track_id.clone(),
        text: lines.join("\n"),
        notice: private_value(card, viewer, "notice"),
        tone: get("tone").to_owned(),
        buttons: buttons.map(|button| view_button(&button, variables)).collect(),
        asks_reason: contract.get("input").is_some_and(is_visible),
        link,
        mentions: card.mentions.clone(),
        updates: card.updates,
    }
}

fn private_value(card: &CardInstance, viewer: &str, name: &str) -> String {
    card.private.get(viewer).and_then(|own| own.get(name)).cloned().unwrap_or_default()
}

fn view_button(button: &Value, variables: &VariableMap) -> DingTalkButton {
    let (mut params, mut reason_param) = (Map::new(), None);
    for param in list(button, "params") {
        let name = text(&param, "name").to_owned();
        if text(&param, "from") == "input" {
            reason_param = Some(name);
        } else {
            let value = variables.get(text(&param, "value")).cloned().unwrap_or_default();
            params.insert(name, value.into());
        }
    }
    DingTalkButton {
        label: text(button, "label").to_owned(),
        action_id: text(button, "action_id").to_owned(),
        params,
        reason_param,
    }
}
