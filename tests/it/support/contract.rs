//! The documents of the API: `docs/openapi.yaml` and `docs/schema/events.json`. Every answer and every notification of a
//! test is compared with them. Members that they do not name are refused.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::{Registry, Validator};
use peergate::local::actions::WebhookReply;
use serde_json::{Value, json};

const OPENAPI: &str = "https://peergate.example.com/openapi.yaml";
const EVENTS: &str = "https://peergate.example.com/schema/events.json";

static CONTRACT: LazyLock<Contract> = LazyLock::new(Contract::load);

thread_local! {
    static ANSWERS: RefCell<BTreeSet<(u16, String)>> = const { RefCell::new(BTreeSet::new()) };
    static EVENT_TYPES: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

struct Contract {
    openapi: Value,
    registry: Registry<'static>,
    /// The validators so far, by the reference of their schema.
    validators: Mutex<BTreeMap<String, Arc<Validator>>>,
}

/// A file of the project.
pub fn project_file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// `docs/openapi.yaml`.
pub fn openapi() -> &'static Value {
    &CONTRACT.openapi
}

/// The statuses and names of the answers to this thread so far.
pub fn seen_answers() -> BTreeSet<(u16, String)> {
    ANSWERS.with_borrow(Clone::clone)
}

/// The types of the notifications that this thread has checked so far.
pub fn seen_event_types() -> BTreeSet<String> {
    EVENT_TYPES.with_borrow(Clone::clone)
}

/// Panics if the document does not describe the answer.
#[track_caller]
pub fn check_answer(method: &str, path: &str, reply: &WebhookReply) {
    // A proxy may add a path in front, and slashes.
    let known = [("webhook", "/webhook/{client}"), ("feishu", "/feishu"), ("teams", "/teams"), ("healthz", "/healthz")];
    let known = known.into_iter().find(|(first, _)| path.split('/').any(|segment| segment == *first));
    let template = known.map_or("/slack", |(_, template)| template);
    let methods = &CONTRACT.openapi["paths"][template];
    let known = [method, "post", "get"].map(str::to_lowercase).into_iter().find(|name| methods.get(name).is_some());
    let place = format!("#/paths/{}/{}/responses/{}", escape(template), known.unwrap(), reply.status);
    let (place, response) = CONTRACT.resolve(&place);
    let about = format!("{method} {path}: {reply:?}");
    let headers = response["headers"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    for name in headers {
        assert!(reply.headers.contains_key(name), "{name} is missing: {about}");
    }
    let content_type = reply.headers["content-type"].to_str().unwrap();
    let schema = &response["content"][content_type]["schema"];
    assert!(!schema.is_null(), "the document has no {content_type} at {place}: {about}");
    let body = if content_type.ends_with("json") { reply.body_json() } else { reply.body.clone().into() };
    let place = place.replace('{', "%7B").replace('}', "%7D");
    let reference = format!("{OPENAPI}{place}/content/{}/schema", escape(content_type));
    CONTRACT.check(&reference, &body, &about);
    let detail = body["detail"].as_str().unwrap_or_default();
    assert!(!detail.contains(".. "), "a sentence ends with two periods: {about}");
    let name = reply.name();
    if !name.is_empty() {
        ANSWERS.with_borrow_mut(|seen| seen.insert((reply.status, name)));
    }
}

/// Panics if the schema does not describe the notification.
#[track_caller]
pub fn check_event(event: &Value) {
    CONTRACT.check(EVENTS, event, &event.to_string());
    EVENT_TYPES.with_borrow_mut(|seen| seen.insert(event["type"].as_str().unwrap().to_owned()));
}

fn escape(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}

impl Contract {
    fn load() -> Self {
        let mut openapi: Value = serde_saphyr::from_str(&project_file("docs/openapi.yaml")).unwrap();
        let mut events: Value = serde_json::from_str(&project_file("docs/schema/events.json")).unwrap();
        close(&mut openapi);
        close(&mut events);
        // The formats of numbers, e.g. `uint32`, are not those of JSON Schema.
        let registry = Registry::new().add(OPENAPI, openapi.clone()).unwrap().add(EVENTS, events).unwrap();
        Self { openapi, registry: registry.prepare().unwrap(), validators: Mutex::default() }
    }

    /// The place and the value that a reference within the document leads to.
    fn resolve(&self, place: &str) -> (String, &Value) {
        let found = self.openapi.pointer(place.trim_start_matches('#'));
        let found = found.unwrap_or_else(|| panic!("the document has no {place}"));
        match found.get("$ref").and_then(Value::as_str) {
            Some(other) => self.resolve(other),
            None => (place.to_owned(), found),
        }
    }

    #[track_caller]
    fn check(&self, reference: &str, value: &Value, about: &str) {
        let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        let validator = validators.entry(reference.to_owned()).or_insert_with(|| {
            let options = jsonschema::options().with_registry(&self.registry).should_validate_formats(true);
            Arc::new(options.should_ignore_unknown_formats(true).build(&json!({"$ref": reference})).unwrap())
        });
        let validator = Arc::clone(validator);
        drop(validators);
        let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "not as documented at {reference}: {errors:#?}\n{about}");
    }
}

/// Refuses members that are not named.
fn close(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Object(members) => {
            members.values_mut().for_each(close);
            if members.contains_key("properties") {
                members.entry("additionalProperties").or_insert(Value::Bool(false));
            }
        }
        _ => {}
    }
}
