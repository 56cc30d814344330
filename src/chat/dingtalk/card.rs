//! What DingTalk shows: the variables of a card, the text of a message, and the response to a click.
//!
//! A card is a template of the operator's organization, which shows our variables: `docs/dingtalk-template.json` is the
//! contract. The template shows them as plain text, which mentions, links and formats nothing; so do text messages.
//!
//! Source: <https://open.dingtalk.com/document/development/instructions-for-filling-in-api-card-data>

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::REALM;
use crate::approval::{Principal, Verdict};
use crate::chat::message::{self, Button, Link, Message, MessageFact, ShortLimits, shorten_card};

/// The longest value of a variable, in bytes. A Chinese character has three.
///
/// Source: <https://open.dingtalk.com/document/development/instructions-for-filling-in-api-card-data>
pub const MAX_VALUE_BYTES: usize = 1000;
/// The longest name of a variable, in bytes.
///
/// Source: <https://open.dingtalk.com/document/development/instructions-for-filling-in-api-card-data>
pub const MAX_KEY_BYTES: usize = 100;
/// How many variables the text of a card is split over.
pub const MAX_BODY_VARIABLES: usize = 16;
/// The variable that shows an answer to one person only.
pub const PRIVATE_VARIABLE: &str = "notice";
/// What a shortened card may have. It fits even if each character has four bytes.
const SHORT_LIMITS: ShortLimits = ShortLimits { lines: 10, chars: 60 };
/// What continues a line in the next variable, so that no part of a text can look like another fact.
const CONTINUATION: &str = "… ";

/// The longest word that is not split between two variables, in bytes.
const MAX_SPLIT_WORD_BYTES: usize = 60;

/// The variables of a card, by name. None is empty: a variable that is not there is empty in the template.
pub type CardVariables = BTreeMap<String, String>;

/// A button of the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContractButton {
    /// Names the button in a click.
    pub action_id: &'static str,
    /// The text on it.
    pub label: &'static str,
    /// The variable that is `yes` if the template shows the button, and `no` otherwise.
    pub flag: &'static str,
    /// The variable with what the button carries.
    pub binding: &'static str,
    /// Whether it carries the reason, too.
    pub takes_reason: bool,
}

/// Every button of the template, in order.
pub const CONTRACT_BUTTONS: [ContractButton; 5] = [
    ContractButton {
        action_id: "approve",
        label: "Approve",
        flag: "can_approve",
        binding: "approve_binding",
        takes_reason: true,
    },
    ContractButton {
        action_id: "reject",
        label: "Reject",
        flag: "can_reject",
        binding: "reject_binding",
        takes_reason: true,
    },
    ContractButton {
        action_id: "withdraw",
        label: "Withdraw my approval",
        flag: "can_withdraw",
        binding: "withdraw_binding",
        takes_reason: false,
    },
    ContractButton {
        action_id: "acknowledge",
        label: "Acknowledge",
        flag: "can_acknowledge",
        binding: "acknowledge_binding",
        takes_reason: false,
    },
    ContractButton {
        action_id: "details",
        label: "Details",
        flag: "can_details",
        binding: "details_binding",
        takes_reason: false,
    },
];

impl ContractButton {
    /// Whether this is the template's button for one of ours.
    pub(super) fn matches(&self, button: Button) -> bool {
        self.label == button.label()
    }
}

/// The names of all variables that everybody sees, in order.
#[must_use]
pub fn contract_variables() -> Vec<String> {
    let single = |name: &str| name.to_owned();
    let mut names = vec![single("title"), single("tone")];
    names.extend((1..=MAX_BODY_VARIABLES).map(body_variable));
    names.extend(["can_reason", "reason_label"].map(single));
    names.extend(CONTRACT_BUTTONS.iter().flat_map(|button| [button.flag, button.binding].map(single)));
    names.extend(["has_link", "link_label", "link_url"].map(single));
    names
}

fn body_variable(number: usize) -> String {
    format!("body_{number}")
}

/// The variables of a card. It shows only buttons with a binding. A message that is too large is shortened and loses its
/// decision buttons: nobody may decide on facts that the card does not show.
#[must_use]
pub fn render_card(message: &Message) -> CardVariables {
    let without_figure = || build_variables(&Message { figure: vec![], snippet: None, ..message.clone() });
    let short = || build_variables(&shorten_card(message, "DingTalk", SHORT_LIMITS));
    build_variables(message).or_else(without_figure).or_else(short).unwrap_or_default()
}

/// Whether DingTalk would accept these variables.
///
/// # Errors
/// The limit that they exceed.
pub fn check_variables(variables: &CardVariables) -> Result<(), &'static str> {
    for (name, value) in variables {
        if name.len() > MAX_KEY_BYTES {
            return Err("the name of a variable is too long");
        }
        if !(1..=MAX_VALUE_BYTES).contains(&value.len()) {
            return Err("a variable is empty or too long");
        }
    }
    Ok(())
}

/// `None` if the text does not fit.
fn build_variables(message: &Message) -> Option<CardVariables> {
    let yes_or_no = |is_shown: bool| if is_shown { "yes" } else { "no" }.to_owned();
    let mut variables = CardVariables::new();
    let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
    set("title", Some(message.headline.clone()).filter(|text| text.len() <= MAX_VALUE_BYTES)?);
    set("tone", tone(message).to_owned());
    let parts = split_text(&message_lines(message));
    if parts.len() > MAX_BODY_VARIABLES {
        return None;
    }
    for (position, part) in parts.into_iter().enumerate() {
        set(&body_variable(position.saturating_add(1)), part);
    }
    let mut question = None;
    for own in CONTRACT_BUTTONS {
        let mut shown = message.buttons.iter().flat_map(|buttons| &buttons.shown);
        let shown = shown.find(|shown| own.matches(shown.button) && shown.binding.is_some());
        set(own.flag, yes_or_no(shown.is_some()));
        if let Some(binding) = shown.and_then(|shown| shown.binding.clone()) {
            set(own.binding, binding);
        }
        question = question.or_else(|| shown.and_then(|shown| asked_verdict(shown.button)));
    }
    set("can_reason", yes_or_no(question.is_some()));
    if let Some(verdict) = question {
        set("reason_label", message::reason_form(verdict).label.to_owned());
    }
    let link = message.link.as_ref().filter(|link| link.url.len() <= MAX_VALUE_BYTES);
    set("has_link", yes_or_no(link.is_some()));
    if let Some(Link { label, url }) = link {
        set("link_label", (*label).to_owned());
        set("link_url", url.clone());
    }
    Some(variables)
}

/// Which decision a button asks a reason for.
fn asked_verdict(button: Button) -> Option<Verdict> {
    match button {
        Button::Approve { needs_reason: true } => Some(Verdict::Approve),
        Button::Reject => Some(Verdict::Reject),
        Button::Approve { needs_reason: false } | Button::Withdraw | Button::Acknowledge | Button::Details => None,
    }
}

/// Red shows a failed check, orange asks for a decision, and blue informs.
fn tone(message: &Message) -> &'static str {
    let mut shown = message.buttons.iter().flat_map(|buttons| &buttons.shown);
    if message.checks.iter().any(|check| check.starts_with('✗')) {
        "red"
    } else if shown
        .any(|shown| shown.binding.is_some() && matches!(shown.button, Button::Approve { .. } | Button::Acknowledge))
    {
        "orange"
    } else {
        "blue"
    }
}

/// Everything but the headline. Each fact is one line, so that no value can look like another fact.
fn message_lines(message: &Message) -> Vec<String> {
    let one_line = |text: &str| text.replace(['\n', '\r'], " ");
    let facts = message.facts.iter().map(|MessageFact { label, value }| format!("{label}: {}", one_line(value)));
    let texts = [&message.checks, &message.figure, &message.sentences].into_iter().flatten().cloned();
    let snippet = message.snippet.iter().flat_map(|snippet| snippet.lines().map(ToOwned::to_owned));
    facts.chain(texts).chain(snippet).filter(|line| !line.is_empty()).collect()
}

/// Lines as texts that each fit into a variable.
fn split_text(lines: &[String]) -> Vec<String> {
    let mut parts: Vec<String> = vec![];
    for line in lines.iter().flat_map(|line| split_line(line)) {
        match parts.last_mut() {
            Some(part) if part.len().saturating_add(line.len()) < MAX_VALUE_BYTES => {
                part.push('\n');
                part.push_str(&line);
            }
            Some(_) | None => parts.push(line),
        }
    }
    parts
}

/// A line, or its parts if it is too long for a variable. It is split at a space, if there is one near.
fn split_line(line: &str) -> Vec<String> {
    let (mut parts, mut part) = (vec![], String::new());
    for character in line.chars() {
        if part.len().saturating_add(character.len_utf8()) > MAX_VALUE_BYTES {
            let space = part.rfind(' ').filter(|at| part.len().saturating_sub(*at) <= MAX_SPLIT_WORD_BYTES);
            let rest = space.map(|at| part.split_off(at.saturating_add(1))).unwrap_or_default();
            parts.push(std::mem::replace(&mut part, format!("{CONTINUATION}{rest}")));
        }
        part.push(character);
    }
    parts.push(part);
    parts
}

/// The longest beginning of a text that fits, with `…` if something is missing.
pub(super) fn cut_to_bytes(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut short = String::new();
    for character in text.chars() {
        if short.len().saturating_add(character.len_utf8()).saturating_add('…'.len_utf8()) > max {
            break;
        }
        short.push(character);
    }
    short.push('…');
    short
}

/// A message as plain text of at most `max` bytes, without buttons. If it is longer, its end says how many lines are left
/// out; if one line fills it, it ends with `…`.
#[must_use]
pub fn message_text(message: &Message, max: usize) -> String {
    let link = message.link.as_ref().map(|Link { label, url }| format!("{label}: {url}"));
    let marks: Vec<_> = mentioned_users(&message.mentions).into_iter().map(|user| format!("@{user}")).collect();
    let marks = (!marks.is_empty()).then(|| marks.join(" "));
    let first = [Some(message.headline.clone()), marks].into_iter().flatten();
    let lines: Vec<_> = first.chain(message_lines(message)).chain(link).collect();
    let whole = lines.join("\n");
    if whole.len() <= max {
        return whole;
    }
    let note = |hidden: usize| {
        format!(
            "… {} not fit into this message.",
            if hidden == 1 { "1 more line does".into() } else { format!("{hidden} more lines do") }
        )
    };
    let room = max.saturating_sub(note(lines.len()).len());
    let mut used = 0_usize;
    let fits = |line: &&String| {
        used = used.saturating_add(line.len()).saturating_add(1);
        used <= room
    };
    let fitting: Vec<_> = lines.iter().take_while(fits).map(String::as_str).collect();
    let text = fitting.join("\n");
    // One line can be as long as a message.
    if text.len() < max / 2 {
        return cut_to_bytes(&whole, max);
    }
    format!("{text}\n{}", note(lines.len().saturating_sub(fitting.len())))
}

/// The `userId`s of those to mention, each once. The configuration accepts only ids of letters, digits and a few marks.
pub(super) fn mentioned_users(mentions: &[Principal]) -> Vec<&str> {
    let mut users: Vec<_> = mentions.iter().filter_map(|principal| principal.user_on(REALM)).collect();
    users.sort_unstable();
    users.dedup();
    users
}

/// How variables are updated. Those for everybody are replaced as a whole: a variable that is not there becomes empty, and
/// no old text stays. The answer to a person stays until the next one.
///
/// Source: <https://open.dingtalk.com/document/development/interactive-card-update-interface>
pub(super) fn update_options() -> Value {
    json!({"updateCardDataByKey": false, "updatePrivateDataByKey": true})
}

/// The response to a click, due within 2 s and with HTTP status 200. Only the person who clicked sees it: `notice`, and a
/// new card in place of the clicked one.
///
/// Source: <https://open.dingtalk.com/document/development/event-callback-card>
#[must_use]
pub fn reply_json(notice: &str, card: Option<&Message>) -> Value {
    let notice = cut_to_bytes(notice, MAX_VALUE_BYTES);
    let mut reply = json!({"cardUpdateOptions": update_options()});
    let mut set = |name: &str, variables: Value| {
        super::super::response::set_member(&mut reply, name, json!({"cardParamMap": variables}));
    };
    if let Some(card) = card {
        set("cardData", json!(render_card(card)));
    }
    if !notice.is_empty() {
        set("userPrivateData", json!({PRIVATE_VARIABLE: notice}));
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::message::{Buttons, ShownButton};
    use crate::peering::{Fingerprint, InstanceId};

    const ALL: [Button; 5] = [
        Button::Approve { needs_reason: false },
        Button::Reject,
        Button::Withdraw,
        Button::Acknowledge,
        Button::Details,
    ];

    fn message(shown: &[Button]) -> Message {
        let bound = |button: &Button| ShownButton { button: *button, binding: Some(format!("{button:?}")) };
        Message {
            headline: "alice or bob: approve or reject VPC peering prod/pcc-a".into(),
            facts: vec![MessageFact::new("Name", "@all **b** [x](http://evil)\nRequester: account 9")],
            checks: vec!["✓ it has not expired".into()],
            sentences: vec!["One.".into()],
            link: Some(Link { label: "Open the console", url: "https://vpc.console.aliyun.com/".into() }),
            buttons: Fingerprint::try_from("0123456789abcdef".repeat(4)).ok().map(|fingerprint| Buttons {
                target: "prod".into(),
                instance_id: InstanceId::parse("pcc-a").unwrap(),
                fingerprint,
                shown: shown.iter().map(bound).collect(),
            }),
            ..Message::default()
        }
    }

    fn get<'a>(variables: &'a CardVariables, name: &str) -> &'a str {
        variables.get(name).map_or("", String::as_str)
    }

    fn body(variables: &CardVariables) -> Vec<&str> {
        (1..=MAX_BODY_VARIABLES)
            .map(|number| get(variables, &body_variable(number)))
            .filter(|it| !it.is_empty())
            .collect()
    }

    #[test]
    fn dingtalk_card_has_one_line_for_each_fact() {
        let card = render_card(&message(&ALL));
        assert_eq!(check_variables(&card), Ok(()));
        let expected = "Name: @all **b** [x](http://evil) Requester: account 9\n✓ it has not expired\nOne.";
        assert_eq!((body(&card), get(&card, "tone")), (vec![expected], "orange"));
        let flags: Vec<_> =
            CONTRACT_BUTTONS.iter().map(|own| (get(&card, own.flag), get(&card, own.binding))).collect();
        let bindings = ["Approve { needs_reason: false }", "Reject", "Withdraw", "Acknowledge", "Details"];
        assert_eq!(flags, bindings.map(|binding| ("yes", binding)));
        assert_eq!((get(&card, "has_link"), get(&card, "link_url")), ("yes", "https://vpc.console.aliyun.com/"));
        assert_eq!(get(&card, "reason_label"), "Reason (the channel sees it)");
    }

    #[test]
    fn card_without_buttons_says_so_in_every_flag() {
        let mut unbound = message(&ALL);
        unbound.buttons.as_mut().unwrap().shown.iter_mut().for_each(|shown| shown.binding = None);
        for card in [render_card(&unbound), render_card(&message(&[]))] {
            assert!(
                CONTRACT_BUTTONS.iter().all(|own| get(&card, own.flag) == "no" && get(&card, own.binding).is_empty())
            );
            assert_eq!((get(&card, "can_reason"), get(&card, "tone")), ("no", "blue"));
        }
        let details = render_card(&message(&[Button::Details]));
        assert_eq!((get(&details, "can_reason"), get(&details, "can_details")), ("no", "yes"));
    }

    #[test]
    fn every_variable_is_in_the_contract() {
        let names = contract_variables();
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!((unique.len(), names.iter().all(|name| name.len() <= MAX_KEY_BYTES)), (names.len(), true));
        assert!(render_card(&message(&ALL)).keys().all(|name| names.contains(name)));
        assert!(ALL.iter().all(|button| CONTRACT_BUTTONS.iter().filter(|own| own.matches(*button)).count() == 1));
    }

    #[test]
    fn long_line_is_split_between_characters_and_marked() {
        let reason = "理".repeat(400) + "Requester: account 9";
        let mut long = message(&ALL);
        long.facts = vec![MessageFact::new("Reason", reason.as_str())];
        let card = render_card(&long);
        assert_eq!(check_variables(&card), Ok(()));
        let parts = body(&card);
        assert!(parts.len() == 2 && parts[1].starts_with(CONTINUATION), "{parts:?}");
        let whole = parts.concat().replace(CONTINUATION, "");
        assert!(whole.starts_with(&format!("Reason: {reason}")), "{whole}");
        assert!(parts.iter().flat_map(|part| part.lines()).all(|line| !line.starts_with("Requester")));
    }

    #[test]
    fn oversized_dingtalk_card_loses_its_decision_buttons() {
        let mut large = message(&ALL);
        large.snippet = Some("x".repeat(900) + "\n" + &"y".repeat(20_000));
        let card = render_card(&large);
        assert_eq!((check_variables(&card), get(&card, "can_approve")), (Ok(()), "yes"), "without the snippet it fits");
        large.facts.push(MessageFact::new("Reason", "𝔘".repeat(5000)));
        let card = render_card(&large);
        assert_eq!(check_variables(&card), Ok(()));
        let flags = CONTRACT_BUTTONS.map(|own| get(&card, own.flag).to_owned());
        assert_eq!(flags, ["no", "no", "yes", "no", "yes"]);
        assert!(body(&card).concat().contains("too large for a DingTalk card, so texts are cut"));
        let worst = Message {
            headline: "𝔘".repeat(900),
            facts: vec![MessageFact::new("Still needed (of all)", "𝔘".repeat(900)); 50],
            checks: vec!["𝔘".repeat(900); 50],
            sentences: vec!["𝔘".repeat(900); 50],
            ..message(&ALL)
        };
        let card = render_card(&worst);
        assert!(check_variables(&card).is_ok() && !card.is_empty() && body(&card).concat().contains("texts are cut"));
    }

    #[test]
    fn reply_shows_a_notice_of_at_most_one_kilobyte() {
        let reply = reply_json(&"理".repeat(500), Some(&message(&[])));
        let notice = reply["userPrivateData"]["cardParamMap"]["notice"].as_str().unwrap();
        assert!(notice.len() <= MAX_VALUE_BYTES && notice.ends_with("理…"), "{}", notice.len());
        assert_eq!(reply["cardUpdateOptions"], json!({"updateCardDataByKey": false, "updatePrivateDataByKey": true}));
        assert_eq!(reply["cardData"]["cardParamMap"]["can_approve"], "no");
        let silent = reply_json("", None);
        assert_eq!((silent.get("cardData"), silent.get("userPrivateData")), (None, None));
    }

    #[test]
    fn text_message_mentions_only_configured_people() {
        let mentions = ["dingtalk:ding1/u2", "slack:T1/U1", "dingtalk:ding1/u1", "dingtalk:ding1/u2"];
        let mentions = mentions.map(|principal| Principal::try_from(principal.to_owned()).unwrap()).into();
        let text = message_text(&Message { mentions, ..message(&ALL) }, 5000);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "@u1 @u2");
        assert_eq!(lines.last().copied(), Some("Open the console: https://vpc.console.aliyun.com/"));
        assert_eq!(message_text(&message(&ALL), 10), "alice o…");
    }
}
