//! The contract of the template is what the code sends and reads.

use std::collections::BTreeSet;

use peergate::chat::dingtalk::{
    BINDING_PARAM, CONTRACT_BUTTONS, MAX_BODY_VARIABLES, MAX_KEY_BYTES, PRIVATE_VARIABLE, REASON_PARAM,
    contract_variables,
};
use peergate::fake::dingtalk::contract;
use serde_json::{Value, json};

#[test]
fn contract_names_every_variable_that_is_sent() {
    let contract = contract();
    let variables = contract["variables"].as_array().unwrap();
    let names = |private: bool| -> BTreeSet<String> {
        let of_kind = variables.iter().filter(|variable| variable["private"] == private);
        of_kind.map(|variable| variable["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(false), contract_variables().into_iter().collect());
    assert_eq!(names(true), BTreeSet::from([PRIVATE_VARIABLE.to_owned()]));
    assert_eq!(variables.len(), contract_variables().len() + 1, "each once");
    assert!(variables.iter().all(|variable| variable["name"].as_str().unwrap().len() <= MAX_KEY_BYTES));
    let body = variables.iter().filter(|variable| variable["name"].as_str().unwrap().starts_with("body_"));
    let shown: Vec<_> = body.map(|variable| variable["shown_by"].as_str().unwrap()).collect();
    assert_eq!(shown, vec!["text"; MAX_BODY_VARIABLES], "nothing of it is Markdown");
    assert_eq!(contract["text_component"], "plain text, never Markdown");
}

#[test]
fn contract_names_every_button_and_its_parameters() {
    let contract = contract();
    let expected: Vec<Value> = CONTRACT_BUTTONS
        .iter()
        .map(|own| {
            let mut params = vec![json!({"name": BINDING_PARAM, "from": "variable", "value": own.binding})];
            if own.takes_reason {
                params.push(json!({"name": REASON_PARAM, "from": "input", "value": "reason"}));
            }
            json!({
                "action_id": own.action_id, "label": own.label, "event": "request",
                "visible_if": {"variable": own.flag, "is": "yes"}, "params": params,
            })
        })
        .collect();
    assert_eq!(contract["buttons"], json!(expected));
    assert_eq!(contract["input"]["visible_if"], json!({"variable": "can_reason", "is": "yes"}));
    assert_eq!(contract["input"]["max_length"], 400);
}
