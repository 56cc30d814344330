//! How a card of JSON 2.0 is checked and shown. Written from Feishu's documents, and not from what peergate renders.
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

/// A button that somebody could click.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeishuButton {
    /// What is on it.
    pub label: String,
    /// Names it.
    pub name: String,
    /// What it carries: null if a click opens a page.
    pub value: Value,
    /// The page that a click opens.
    pub url: Option<String>,
    /// Whether a click submits a form.
    pub submits: bool,
}

/// A field that somebody could fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeishuInput {
    /// Names it.
    pub name: String,
    /// The most characters.
    pub max_length: u64,
    /// Whether it may not be left empty.
    pub required: bool,
}

/// What the walk through a card has met.
#[derive(Default)]
struct CardWalk {
    elements: usize,
    names: BTreeSet<String>,
    ids: BTreeSet<String>,
}

/// Checks what Feishu checks when it builds a card.
///
/// # Errors
/// What is wrong, in words.
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
    let mut seen = CardWalk::default();
    let elements = card.pointer("/body/elements").and_then(Value::as_array).ok_or("body.elements is missing")?;
    for element in elements {
        seen.check_element(element, true, false)?;
    }
    ensure(seen.elements <= 200, "more than 200 elements")
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

impl CardWalk {
    fn check_element(&mut self, element: &Value, at_root: bool, in_form: bool) -> Result<(), String> {
        let tag = str_field(element, "tag");
        if !TAGS.contains(&tag) {
            return Err(format!("unknown tag {tag:?}"));
        }
        self.elements += 1;
        self.check_names(element)?;
        match tag {
            "form" if !at_root => return Err("a form inside another element".into()),
            "form" if str_field(element, "name").is_empty() => return Err("a form without a name".into()),
            "input" => check_input(element, in_form)?,
            "button" => check_button(element, in_form)?,
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
        let in_form = in_form || tag == "form";
        for child in array_field(element, "elements").chain(array_field(element, "columns")) {
            self.check_element(child, false, in_form)?;
        }
        Ok(())
    }

    fn check_names(&mut self, element: &Value) -> Result<(), String> {
        let name = str_field(element, "name");
        if !name.is_empty() && !self.names.insert(name.to_owned()) {
            return Err(format!("the name {name:?} is there twice"));
        }
        let Some(id) = element.get("element_id") else { return Ok(()) };
        let id = id.as_str().unwrap_or_default();
        let starts = id.starts_with(|first: char| first.is_ascii_alphabetic());
        if !starts || id.len() > 20 || !self.ids.insert(id.to_owned()) {
            return Err(format!("element_id {id:?} is malformed, or there twice"));
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

/// Every element, from the top, with whether it is in a form.
fn collect_elements<'a>(elements: impl Iterator<Item = &'a Value>, in_form: bool, into: &mut Vec<(&'a Value, bool)>) {
    for element in elements {
        into.push((element, in_form));
        let in_form = in_form || str_field(element, "tag") == "form";
        collect_elements(array_field(element, "elements").chain(array_field(element, "columns")), in_form, into);
    }
}

fn all_elements(card: &Value) -> Vec<(&Value, bool)> {
    let mut elements = vec![];
    collect_elements(card.get("body").into_iter().flat_map(|body| array_field(body, "elements")), false, &mut elements);
    elements
}

/// All the text that a person reads, without what is on buttons.
pub(super) fn visible_text(card: &Value) -> String {
    let title = card.pointer("/header/title/content").and_then(Value::as_str);
    let elements = all_elements(card);
    let texts = elements.iter().filter_map(|(element, _)| match str_field(element, "tag") {
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
    let elements = all_elements(card).into_iter().filter(|(element, _)| str_field(element, "tag") == "button");
    let button = |(element, in_form): (&Value, bool)| {
        let behavior = |kind: &'static str| {
            array_field(element, "behaviors").find(move |behavior| str_field(behavior, "type") == kind)
        };
        FeishuButton {
            label: element.pointer("/text/content").and_then(Value::as_str).unwrap_or_default().to_owned(),
            name: str_field(element, "name").to_owned(),
            value: behavior("callback").and_then(|behavior| behavior.get("value")).cloned().unwrap_or_default(),
            url: behavior("open_url").map(|behavior| str_field(behavior, "default_url").to_owned()),
            submits: in_form && str_field(element, "form_action_type") == "submit",
        }
    };
    elements.map(button).collect()
}

pub(super) fn visible_inputs(card: &Value) -> Vec<FeishuInput> {
    let elements = all_elements(card).into_iter().filter(|(element, _)| str_field(element, "tag") == "input");
    let input = |(element, _): (&Value, bool)| FeishuInput {
        name: str_field(element, "name").to_owned(),
        max_length: element.get("max_length").and_then(Value::as_u64).unwrap_or(1000),
        required: element.get("required").and_then(Value::as_bool).unwrap_or_default(),
    };
    elements.map(input).collect()
}
