//! The rules on the page: whether a text is a valid configuration, and which rule decides and why.

use serde_json::{Value, json};

use crate::config::Config;
use crate::local::policy::{describe_deciding, describe_outcome};
use crate::local::sandbox::Sandbox;
use crate::peering::Connection;
use crate::policy::{FactExplanation, RuleExplanation, RuleOutcome};
use crate::secrets::SecretSet;

/// The name of the file in messages of the parser.
const FILE_PREFIX: &str = "peergate.toml: ";

/// What the parser says about a text.
pub(super) fn validate(sandbox: &Sandbox, text: &str) -> Value {
    let checked = Config::parse(text).map_err(|error| error.to_string()).and_then(|config| {
        sandbox.check_endpoints(text)?;
        let secrets = sandbox.secrets_path();
        SecretSet::load(&secrets, &config).map(drop).map_err(|error| {
            let whole = error.to_string();
            let path = format!("{}: ", secrets.display());
            format!("secrets: {}", whole.strip_prefix(&path).unwrap_or(&whole))
        })
    });
    match checked {
        Ok(()) => json!({"valid": true, "in_force": text == sandbox.config}),
        Err(message) => {
            let message = message.strip_prefix(FILE_PREFIX).unwrap_or(&message);
            json!({"valid": false, "message": message, "line": line_of(message)})
        }
    }
}

/// The line that a message of the parser names.
fn line_of(message: &str) -> Option<u32> {
    let rest = message.split_once("line ")?.1;
    rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// Which rule decides about a connection, and why each other rule does not.
pub(super) fn explain(config: &Config, target: &str, connection: &Connection) -> Value {
    let rules = config.policy.explain_rules(target, connection);
    let deciding = rules.iter().find(|rule| rule.outcome == RuleOutcome::Decides);
    let says = match deciding {
        Some(deciding) => describe_deciding(config, deciding, connection),
        None => "No rule matches, so nobody can approve this request.".to_owned(),
    };
    let facts: Vec<_> = rules
        .first()
        .map(|rule| rule.facts.iter().map(|fact| json!({"name": fact.fact.to_string(), "value": fact.value})).collect())
        .unwrap_or_default();
    json!({
        "says": says.trim(), "deciding": deciding.map(|rule| rule.number), "facts": facts,
        "rules": rules.iter().map(rule_json).collect::<Vec<_>>(),
    })
}

fn rule_json(explanation: &RuleExplanation<'_>) -> Value {
    let outcome = match explanation.outcome {
        RuleOutcome::Decides => "decides",
        RuleOutcome::ComesLater => "later",
        RuleOutcome::DoesNotMatch => "no",
    };
    let cell = |fact: &FactExplanation| match (&fact.allowed, fact.matches) {
        (None, _) => json!({"mark": "any", "allowed": "any"}),
        (Some(allowed), true) => json!({"mark": "yes", "allowed": allowed}),
        (Some(allowed), false) => json!({"mark": "no", "allowed": allowed}),
    };
    json!({
        "number": explanation.number, "name": explanation.rule.name, "outcome": outcome,
        "says": describe_outcome(explanation), "cells": explanation.facts.iter().map(cell).collect::<Vec<_>>(),
    })
}
