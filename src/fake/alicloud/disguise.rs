//! Changes how the simulated API writes some connections: other values for their fields, also invalid JSON.

use std::collections::BTreeMap;

use serde_json::Value;

/// The text of each changed field, by the id of the connection.
#[derive(Debug, Default)]
pub(super) struct Disguises(BTreeMap<String, BTreeMap<String, String>>);

/// A mark in the JSON of an answer, and the text that replaces it.
struct FieldMark {
    mark: String,
    value: String,
}

impl Disguises {
    /// Sets the text of fields of a connection. An empty list ends all changes.
    pub(super) fn set_fields(&mut self, id: &str, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        self.0.insert(id.to_owned(), fields);
    }

    /// An answer as text, with the changes.
    pub(super) fn to_json_text(&self, mut answer: Value) -> String {
        let mut marks = vec![];
        self.mark_fields(&mut answer, &mut marks);
        if let Some(listed) = answer.get_mut("VpcPeerConnects").and_then(Value::as_array_mut) {
            for connection in listed {
                self.mark_fields(connection, &mut marks);
            }
        }
        marks.iter().fold(answer.to_string(), |text, FieldMark { mark, value }| text.replace(mark, value))
    }

    /// Replaces each changed field of a connection by a mark.
    fn mark_fields(&self, connection: &mut Value, marks: &mut Vec<FieldMark>) {
        let Some(fields) = connection.get("InstanceId").and_then(Value::as_str).and_then(|id| self.0.get(id)) else {
            return;
        };
        let Some(connection) = connection.as_object_mut() else { return };
        for (name, text) in fields {
            let mark = format!("disguise {}", marks.len());
            marks.push(FieldMark { mark: format!("\"{mark}\""), value: text.clone() });
            connection.insert(name.clone(), mark.into());
        }
    }
}
