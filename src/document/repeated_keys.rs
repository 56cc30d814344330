//! Finds the keys that an object of JSON has more than once. A parser shows only one of the values.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// A key that an object has more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepeatedKey {
    /// The dotted path of the object; empty for the document itself. It may have secrets in it.
    pub path: String,
    /// The key. It may be a secret.
    pub key: String,
}

/// The repeated keys of this JSON. Empty if it is not JSON.
#[must_use]
pub fn repeated_keys(json: &str) -> Vec<RepeatedKey> {
    let mut found = vec![];
    let mut reader = serde_json::Deserializer::from_str(json);
    // Text that is not JSON is reported elsewhere.
    let _ = RepeatedKeys { path: String::new(), found: &mut found }.deserialize(&mut reader);
    found
}

/// Collects the repeated keys of any JSON.
struct RepeatedKeys<'a> {
    path: String,
    found: &'a mut Vec<RepeatedKey>,
}

impl<'de> DeserializeSeed<'de> for RepeatedKeys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RepeatedKeys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                self.found.push(RepeatedKey { path: self.path.clone(), key: key.clone() });
            }
            let path = if self.path.is_empty() { key } else { format!("{}.{key}", self.path) };
            map.next_value_seed(RepeatedKeys { path, found: self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(RepeatedKeys { path: self.path.clone(), found: self.found })?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_key_is_found_at_its_path() {
        let found = |json: &str| {
            repeated_keys(json).into_iter().map(|RepeatedKey { path, key }| format!("{path}/{key}")).collect::<Vec<_>>()
        };
        assert_eq!(found(r#"{"a": {"b": [1, {"c": true, "c": null}]}, "d": -1, "a": "x"}"#), ["a.b/c", "/a"]);
        assert!(found(r#"{"a": {"b": 1}, "b": {"b": 1.5}}"#).is_empty());
        assert!(found("{").is_empty() && found("").is_empty());
    }
}
