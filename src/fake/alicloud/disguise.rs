//! Connections that the simulated API writes in its own way: other values for some fields, and what is no JSON value.

use std::collections::BTreeMap;

use serde_json::Value;

/// What the fields of a connection are written as, by its id.
#[derive(Debug, Default)]
pub(super) struct Disguises(BTreeMap<String, BTreeMap<String, String>>);

impl Disguises {
    /// From now on the fields of a connection are written like this; as they are, if there are none.
    pub(super) fn set_fields(&mut self, id: &str, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        self.0.insert(id.to_owned(), fields);
    }

    /// An answer as text.
    pub(super) fn to_json_text(&self, mut answer: Value) -> String {
        let mut written = vec![];
        self.mark_fields(&mut answer, &mut written);
        if let Some(listed) = answer.get_mut("VpcPeerConnects").and_then(Value::as_array_mut) {
            for connection in listed {
                self.mark_fields(connection, &mut written);
            }
        }
        written.iter().fold(answer.to_string(), |text, (mark, value)| text.replace(mark, value))
    }

    /// Puts marks where a connection is disguised.
    fn mark_fields(&self, connection: &mut Value, written: &mut Vec<(String, String)>) {
        let Some(fields) = connection.get("InstanceId").and_then(Value::as_str).and_then(|id| self.0.get(id)) else {
            return;
        };
        let Some(connection) = connection.as_object_mut() else { return };
        for (name, text) in fields {
            let mark = format!("disguise {}", written.len());
            written.push((format!("\"{mark}\""), text.clone()));
            connection.insert(name.clone(), mark.into());
        }
    }
}
