//! Checks a JSON 2.0 card and shows it. It follows Feishu's documents and not what peergate renders.
//!
//! Source: <https://open.feishu.cn/document/feishu-cards/card-json-v2-structure>

use std::collections::BTreeSet;

use serde_json::Value;

const TEMPLATES: [&str; 13] = [
    "blue",
    "wathet",
    "turquoise",
    "green",
    "yellow",
    "orange",
    "red",
    "carmine",
    "violet",
    "purple",
    "indigo",
    "grey",
    "default",
];
const TAGS: [&str; 13] = [
    "plain_text",
    "lark_md",
    "markdown",
    "div",
    "hr",
    "button",
    "form",
    "input",
    "column_set",
    "column",
    "text_tag",
    "standard_icon",
    "img",
];

/// A button of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeishuButton {
    /// The visible text.
    pub label: String,
    /// The name within the card.
    pub name: String,
    /// What a click sends; null if a click only opens a page.
    pub value: Value,
    /// The page that a click opens.
    pub url: Option<String>,
    /// Whether a click submits a form.
    pub submits: bool,
}

/// A text field of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeishuInput {
    /// The name within the card.
    pub name: String,
    /// In characters.
    pub max_length: u64,
    /// Whether it must not be empty.
    pub required: bool,
}

/// What the check of a card has seen so far.
#[derive(Default)]
struct CardWalk {
    elements: usize,
    names: BTreeSet<String>,
    ids: BTreeSet<String>,
}

/// Checks a card as Feishu does.
///
/// # Errors
/// What is wrong with the card.
pub fn check_card(card: &Value) -> Result<(), String> {
    let ensure = |fits: bool, problem: &str| if fits { Ok(()) } else { Err(problem.to_owned()) };
    ensure(card.get("schema").and_then(Value::as_str) == Some("2.0"), "schema is not 2.0")?;
    ensure(card.pointer("/config/update_multi") == Some(&Value::Bool(true)), "update_multi is not true")?;
    if let Some(header) = card.get("header") {
        let template = header.get("template").map_or(Some("default"), Value::as_str);
        ensure(template.is_some_and(|template| TEMPLATES.contains(&template)), "unknown template")?;
        ensure(header.get("title").is_some_and(is_text), "the header has no title")?;
        let tags = header.get("text_tag_list").and_then(Value::as_array).map_or(0, Vec::len);
        ensure(tags <= 3, "more than three tags in the header")?;
    }
    let mut walk = CardWalk::default();
    let elements = card.pointer("/body/elements").and_then(Value::as_array).ok_or("body.elements is missing")?;
    for element in elements {
        walk.check_element(element, Place::Root)?;
    }
    ensure(walk.elements <= 200, "more than 200 elements")
}

fn is_text(value: &Value) -> bool {
    matches!(str_field(value, "tag"), "plain_text" | "lark_md") && value.get("content").is_some_and(Value::is_string)
}

fn str_field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn array_field<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// Where an element is in a card.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Nested,
    InForm,
}

impl CardWalk {
    fn check_element(&mut self, element: &Value, place: Place) -> Result<(), String> {
        let tag = str_field(element, "tag");
        if !TAGS.contains(&tag) {
            return Err(format!("unknown tag {tag:?}"));
        }
        self.elements += 1;
        self.check_names(element)?;
        match tag {
            "form" if place != Place::Root => return Err("a form inside another element".into()),
            "form" if str_field(element, "name").is_empty() => return Err("a form without a name".into()),
            "input" => check_input(element, place == Place::InForm)?,
            "button" => check_button(element, place == Place::InForm)?,
            "markdown" if !element.get("content").is_some_and(Value::is_string) => return Err("no content".into()),
            "div" if !element.get("text").is_some_and(is_text) => return Err("a div without text".into()),
            _ => {}
        }
        for part in ["text", "label", "placeholder"] {
            let Some(text) = element.get(part) else { continue };
            self.elements += 1;
            if !is_text(text) {
                return Err(format!("{part} is not a text"));
            }
        }
        let child_place = if place == Place::InForm || tag == "form" { Place::InForm } else { Place::Nested };
        for child in array_field(element, "elements").chain(array_field(element, "columns")) {
            self.check_element(child, child_place)?;
        }
        Ok(())
    }

    fn check_names(&mut self, element: &Value) -> Result<(), String> {
        let name = str_field(element, "name");
        if !name.is_empty() && !self.names.insert(name.to_owned()) {
            return Err(format!("the name {name:?} is not unique"));
        }
        let Some(id) = element.get("element_id") else { return Ok(()) };
        let id = id.as_str().unwrap_or_default();
        let starts = id.starts_with(|first: char| first.is_ascii_alphabetic());
        if !starts || id.len() > 20 || !self.ids.insert(id.to_owned()) {
            return Err(format!("element_id {id:?} is malformed or not unique"));
        }
        Ok(())
    }
}

/// Source: <https://open.feishu.cn/document/feishu-cards/card-json-v2-components/interactive-components/input>
fn check_input(element: &Value, in_form: bool) -> Result<(), String> {
    let max_length = element.get("max_length").map_or(Some(1000), Value::as_u64);
    if in_form && str_field(element, "name").is_empty() {
        return Err("an input of a form without a name".into());
    }
    if !in_form && element.get("required").is_some() {
        return Err("`required` outside a form".into());
    }
    if !max_length.is_some_and(|length| (1..=1000).contains(&length)) {
        return Err("max_length is not 1 to 1000".into());
    }
    Ok(())
}

/// Source: <https://open.feishu.cn/document/feishu-cards/card-json-v2-components/interactive-components/button>
fn check_button(element: &Value, in_form: bool) -> Result<(), String> {
    if !element.get("text").is_some_and(is_text) {
        return Err("a button without a text".into());
    }
    let submits = element.get("form_action_type").and_then(Value::as_str);
    if submits.is_some_and(|kind| !in_form || !["submit", "reset"].contains(&kind)) {
        return Err("form_action_type outside a form, or unknown".into());
    }
    if in_form && submits.is_some() && str_field(element, "name").is_empty() {
        return Err("a button of a form without a name".into());
    }
    for behavior in array_field(element, "behaviors") {
        let fits = match str_field(behavior, "type") {
            "callback" => behavior.get("value").is_some_and(|value| value.is_object() || value.is_string()),
            "open_url" => str_field(behavior, "default_url").starts_with("http"),
            _ => false,
        };
        if !fits {
            return Err("an unknown or incomplete behavior".into());
        }
    }
    Ok(())
}

/// An element of a card.
#[derive(Clone, Copy)]
struct PlacedElement<'a> {
    element: &'a Value,
    is_in_form: bool,
}

fn collect_elements<'a>(elements: impl Iterator<Item = &'a Value>, in_form: bool, into: &mut Vec<PlacedElement<'a>>) {
    for element in elements {
        into.push(PlacedElement { element, is_in_form: in_form });
        let in_form = in_form || str_field(element, "tag") == "form";
        collect_elements(array_field(element, "elements").chain(array_field(element, "columns")), in_form, into);
    }
}

/// All elements, from the top.
fn all_elements(card: &Value) -> Vec<PlacedElement<'_>> {
    let mut elements = vec![];
    collect_elements(card.get("body").into_iter().flat_map(|body| array_field(body, "elements")), false, &mut elements);
    elements
}

/// All text that a person reads, without that of buttons.
pub(super) fn visible_text(card: &Value) -> String {
    let title = card.pointer("/header/title/content").and_then(Value::as_str);
    let elements = all_elements(card);
    let texts = elements.iter().filter_map(|PlacedElement { element, .. }| match str_field(element, "tag") {
        "div" => element.pointer("/text/content").and_then(Value::as_str),
        "markdown" => Some(str_field(element, "content")),
        _ => None,
    });
    let lines: Vec<_> = title.into_iter().chain(texts).flat_map(str::lines).map(str::trim_end).collect();
    lines.into_iter().filter(|line| !line.is_empty() && *line != "```").collect::<Vec<_>>().join("\n")
}

/// The color of the header.
pub(super) fn header_template(card: &Value) -> String {
    card.pointer("/header/template").and_then(Value::as_str).unwrap_or("default").to_owned()
}

pub(super) fn visible_buttons(card: &Value) -> Vec<FeishuButton> {
    let elements = all_elements(card).into_iter().filter(|it| str_field(it.element, "tag") == "button");
    let button = |PlacedElement { element, is_in_form }: PlacedElement<'_>| {
        let behavior = |kind: &'static str| {
            array_field(element, "behaviors").find(move |behavior| str_field(behavior, "type") == kind)
        };
        FeishuButton {
            label: element.pointer("/text/content").and_then(Value::as_str).unwrap_or_default().to_owned(),
            name: str_field(element, "name").to_owned(),
            value: behavior("callback").and_then(|behavior| behavior.get("value")).cloned().unwrap_or_default(),
            url: behavior("open_url").map(|behavior| str_field(behavior, "default_url").to_owned()),
            submits: is_in_form && str_field(element, "form_action_type") == "submit",
        }
    };
    elements.map(button).collect()
}

pub(super) fn visible_inputs(card: &Value) -> Vec<FeishuInput> {
    let elements = all_elements(card).into_iter().filter(|it| str_field(it.element, "tag") == "input");
    let input = |PlacedElement { element, .. }: PlacedElement<'_>| FeishuInput {
        name: str_field(element, "name").to_owned(),
        max_length: element.get("max_length").and_then(Value::as_u64).unwrap_or(1000),
        required: element.get("required").and_then(Value::as_bool).unwrap_or_default(),
    };
    elements.map(input).collect()
}
