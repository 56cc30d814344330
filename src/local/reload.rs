//! Replaces the configuration and the secrets of a running process. Both are checked first; if one is wrong, the process
//! continues with what it has.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::Error;
use crate::app::App;
use crate::clock;
use crate::config::{Config, Environment, SecretsSource};
use crate::doctor::StartupCheck;
use crate::logging::ErrorChain;
use crate::redaction::redact;

/// The app that serves from now on. What has begun ends with the app that it began with.
#[derive(Debug, Clone)]
pub struct CurrentApp(watch::Receiver<Arc<App>>);

impl CurrentApp {
    /// The app that `sender` holds.
    #[must_use]
    pub fn of(sender: &watch::Sender<Arc<App>>) -> Self {
        Self(sender.subscribe())
    }

    /// The app for a request or a tick that begins now.
    #[must_use]
    pub fn get(&self) -> Arc<App> {
        Arc::clone(&self.0.borrow())
    }
}

/// An app that nothing replaces.
impl From<Arc<App>> for CurrentApp {
    fn from(app: Arc<App>) -> Self {
        Self(watch::channel(app).1)
    }
}

/// Reads the files again.
#[derive(Debug)]
pub struct Reloader {
    environment: Environment,
    current: watch::Sender<Arc<App>>,
    settings: Settings,
}

/// The content of both files, to name what changed.
#[derive(Debug, Default)]
struct Settings {
    config: Value,
    /// Null if the secrets are in no file.
    secrets: Value,
}

impl Settings {
    fn read(environment: &Environment) -> Self {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let secrets = match &environment.secrets {
            SecretsSource::File(path) => serde_json::from_str(&read(path)).unwrap_or_default(),
            SecretsSource::SecretsManager(_) => Value::Null,
        };
        Self { config: toml::from_str(&read(&environment.config)).unwrap_or_default(), secrets }
    }
}

impl Reloader {
    /// A reloader that begins with `app`, which was built from this environment.
    #[must_use]
    pub fn new(environment: Environment, app: Arc<App>) -> Self {
        let settings = Settings::read(&environment);
        Self { environment, current: watch::Sender::new(app), settings }
    }

    /// The app that this reloader replaces.
    #[must_use]
    pub fn current_app(&self) -> CurrentApp {
        CurrentApp(self.current.subscribe())
    }

    /// Reads and checks both files, and logs the names of the settings that changed, or what is wrong. Returns whether the
    /// new settings serve from now on.
    pub async fn reload(&mut self) -> bool {
        match self.read_app().await {
            Ok(app) => {
                let settings = Settings::read(&self.environment);
                let config = changed_settings(&self.settings.config, &settings.config).join(", ");
                let secrets = changed_settings(&self.settings.secrets, &settings.secrets).join(", ");
                self.settings = settings;
                let app = Arc::new(app);
                self.current.send_replace(Arc::clone(&app));
                tracing::info!(
                    outcome = "reloaded",
                    changed_config = config,
                    changed_secrets = secrets,
                    "read the configuration and the secrets again; options of the command and variables of the environment \
                     need a restart"
                );
                tokio::spawn(async move { StartupCheck::default().run_once(&app).await });
                true
            }
            Err(error) => {
                let error = ErrorChain(error.as_ref());
                tracing::error!(
                    outcome = "not_reloaded",
                    config = %self.environment.config.display(),
                    secrets = self.secrets_source(),
                    %error,
                    "could not reload; the configuration from before stays in use"
                );
                false
            }
        }
    }

    /// The path of the secrets, or their name in AWS.
    fn secrets_source(&self) -> String {
        match &self.environment.secrets {
            SecretsSource::File(path) => path.display().to_string(),
            SecretsSource::SecretsManager(id) => id.clone(),
        }
    }

    async fn read_app(&self) -> Result<App, Error> {
        let config = Config::load(&self.environment.config)?;
        let current = Arc::clone(&self.current.borrow());
        let app = current.reloaded(&self.environment, config)?;
        app.secrets.current(clock::now()).await?;
        Ok(app)
    }
}

/// The names of the settings in which two documents differ, e.g. `targets.prod.regions`. An entry of a list has the name
/// in its field `name`. Values are not shown, and neither are names that may be secrets.
fn changed_settings(old: &Value, new: &Value) -> Vec<String> {
    let mut changed = vec![];
    collect_changes(old, new, "", &mut changed);
    changed
}

fn collect_changes(old: &Value, new: &Value, at: &str, changed: &mut Vec<String>) {
    if old == new {
        return;
    }
    let (Some(before), Some(after)) = (fields(old), fields(new)) else {
        return changed.push(at.to_owned());
    };
    let names = before.iter().chain(after.iter().filter(|(name, _)| find_field(&before, name).is_none()));
    let differing = changed.len();
    for (name, _) in names {
        let path = if at.is_empty() { redact(name).into_owned() } else { format!("{at}.{}", redact(name)) };
        match (find_field(&before, name), find_field(&after, name)) {
            (Some(old), Some(new)) => collect_changes(old, new, &path, changed),
            _ => changed.push(path),
        }
    }
    if changed.len() == differing {
        // Only the order of a list changed.
        changed.push(at.to_owned());
    }
}

/// The fields of a table, or the entries of a list in which each has a name; `None` for any other value.
fn fields(value: &Value) -> Option<Vec<(&str, &Value)>> {
    let name_of = |entry: &'_ Value| entry.get("name").and_then(Value::as_str).map(ToOwned::to_owned);
    match value {
        Value::Object(fields) => Some(fields.iter().map(|(name, value)| (name.as_str(), value)).collect()),
        Value::Array(entries) if entries.iter().all(|entry| name_of(entry).is_some()) => {
            Some(entries.iter().filter_map(|entry| Some((entry.get("name")?.as_str()?, entry))).collect())
        }
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn find_field<'a>(fields: &[(&str, &'a Value)], name: &str) -> Option<&'a Value> {
    fields.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_named_without_their_values() {
        let old = json!({
            "retention_days": 400,
            "targets": {"prod": {"account": "1", "regions": ["a"]}, "old": {"account": "2"}},
            "rule": [{"name": "data team", "approvals": 1, "approvers": ["x"]}, {"name": "rest", "approvals": 2}],
            "channels": {"ops": {"kind": "slack"}},
        });
        let mut new = old.clone();
        assert_eq!(changed_settings(&old, &new), [""; 0]);
        new["targets"]["prod"]["regions"] = json!(["a", "b"]);
        new["targets"].as_object_mut().unwrap().remove("old");
        new["rule"][0]["approvals"] = json!(2);
        new["rule"].as_array_mut().unwrap().push(json!({"name": "new"}));
        new["people"] = json!({"eve": {}});
        let mut changed = changed_settings(&old, &new);
        changed.sort();
        assert_eq!(changed, ["people", "rule.data team.approvals", "rule.new", "targets.old", "targets.prod.regions"]);

        let mut reordered = old.clone();
        reordered["rule"].as_array_mut().unwrap().reverse();
        assert_eq!(changed_settings(&old, &reordered), ["rule"]);

        let secrets = |key: &str| json!({"clients": {"ci": {"signing_secrets": [key]}}, key: {}});
        let changed = changed_settings(&secrets("whsec_C2FVsBQIhrscChlQIMV"), &secrets("whsec_MfKQ9r8GKYqrTwj"));
        assert_eq!(changed, ["clients.ci.signing_secrets", "…", "…"]);
    }
}
