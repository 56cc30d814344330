//! JSON Schemas (draft 2020-12) of what people write and programs read. They are made from the types, so that they stay
//! true. `docs/schema` has a copy of each.

use clap::ValueEnum;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};

use crate::chat::platform::LEGACY_TABLES;
use crate::chat::standard_webhooks::NotificationView;
use crate::config::Config;
use crate::secrets::SecretSet;

/// What has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaKind {
    /// The file peergate.toml.
    Config,
    /// The secrets.
    Secrets,
    /// The notifications for programs.
    Events,
}

/// The schema, as indented JSON.
#[must_use]
pub fn schema_text(kind: SchemaKind) -> String {
    let mut schema = match kind {
        SchemaKind::Config => config_schema(),
        SchemaKind::Secrets => SecretSet::json_schema(),
        SchemaKind::Events => event_schema(),
    };
    let (title, description) = match kind {
        SchemaKind::Config => ("peergate.toml", "The policy of peergate. It has no secrets."),
        SchemaKind::Secrets => ("The secrets of peergate", "What the secrets store holds. Keep it secret."),
        SchemaKind::Events => ("The notifications of peergate", "What a channel of kind `standard-webhooks` gets."),
    };
    schema.insert("title".to_owned(), title.into());
    schema.insert("description".to_owned(), description.into());
    Descriptions.transform(&mut schema);
    format!("{:#}\n", schema.as_value())
}

/// TOML has no null. The tables that earlier versions had at the top level are deprecated.
fn config_schema() -> Schema {
    let mut schema = Config::json_schema();
    WithoutNull.transform(&mut schema);
    let apps = schema.pointer("/$defs/AppConfigs/properties").cloned().unwrap_or_default();
    if let Some(Value::Object(tables)) = schema.get_mut("properties") {
        for name in LEGACY_TABLES {
            let mut table = apps.get(name).cloned().unwrap_or_default();
            if let Value::Object(members) = &mut table {
                members.insert("deprecated".to_owned(), true.into());
                members.insert("description".to_owned(), format!("The old name of `[platforms.{name}]`.").into());
            }
            tables.insert(name.to_owned(), table);
        }
    }
    schema
}

/// One definition for each type of event: `type` and `news` belong together.
fn event_schema() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut event = settings.into_generator().into_root_schema_for::<NotificationView<'_>>();
    let mut definitions = match event.remove("$defs") {
        Some(Value::Object(definitions)) => definitions,
        Some(_) | None => Map::new(),
    };
    let data = definitions.remove("EventData").unwrap_or_default();
    let kinds = definitions.remove("NotificationKind").unwrap_or_default();
    let mut types = vec![];
    for kind in kinds.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        let tag = kind.get("const").or_else(|| kind.pointer("/required/0")).and_then(Value::as_str).unwrap_or_default();
        let (name, mut data, mut one) = (format!("peering.{tag}"), data.clone(), event.clone().to_value());
        replace_at(&mut data, "/properties/news", kind.clone());
        replace_at(&mut one, "/properties/type", json!({"const": name}));
        replace_at(&mut one, "/properties/data", data);
        replace_at(&mut one, "/description", kind.get("description").cloned().unwrap_or_default());
        if let Value::Object(members) = &mut one {
            members.retain(|key, _| key != "$schema" && key != "title");
        }
        definitions.insert(name.clone(), one);
        types.push(name);
    }
    definitions.insert("peergate.test".to_owned(), test_event_schema(&event));
    types.push("peergate.test".to_owned());
    let types: Vec<_> = types.iter().map(|name| json!({"$ref": format!("#/$defs/{name}")})).collect();
    let dialect = event.remove("$schema");
    json_schema!({"$schema": dialect, "oneOf": types, "$defs": definitions})
}

/// What `peergate doctor --post` sends.
fn test_event_schema(event: &Schema) -> Value {
    json!({
        "description": "A test of the channel. It is about nothing.",
        "type": "object",
        "properties": {
            "type": {"const": "peergate.test"},
            "timestamp": event.pointer("/properties/timestamp"),
        },
        "required": ["type", "timestamp"],
    })
}

fn replace_at(schema: &mut Value, pointer: &str, value: Value) {
    if let Some(place) = schema.pointer_mut(pointer) {
        *place = value;
    }
}

/// Turns comments of the code into descriptions for everybody: links to code become plain names.
struct Descriptions;

impl Transform for Descriptions {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(Value::String(text)) = schema.get_mut("description") {
            *text = text.replace("[`", "`").replace("`]", "`").replace("`None`", "Null").replace('\n', " ");
        }
        if schema.get("description").and_then(Value::as_str).is_some_and(|text| text.starts_with("See `")) {
            schema.remove("description");
        }
        transform_subschemas(self, schema);
    }
}

/// Leaves out the alternative `null`.
struct WithoutNull;

impl Transform for WithoutNull {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        if schema.get("default").is_some_and(Value::is_null) {
            schema.remove("default");
        }
        let only = |list: &Value| match list.as_array().map(Vec::as_slice) {
            Some([one, null]) if *null == json!("null") || *null == json!({"type": "null"}) => Some(one.clone()),
            Some(_) | None => None,
        };
        if let Some(name) = schema.get("type").and_then(only) {
            schema.insert("type".to_owned(), name);
        }
        if let Some(Value::Object(members)) = schema.get("anyOf").and_then(only) {
            schema.remove("anyOf");
            for (key, value) in members {
                schema.insert(key, value);
            }
        }
    }
}
