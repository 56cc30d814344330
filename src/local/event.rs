//! Freshly signed events, as a Function URL would hand them to the webhook.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Error;
use crate::app::App;
use crate::chat::platform::Platform;
use crate::chat::{EventSpec, SignedRequest};
use crate::config::{Config, Environment};
use crate::peering::InstanceId;
use crate::secrets::SecretSet;
use crate::{accept, clock};

/// The fingerprint of a connection, where Alibaba Cloud shows it now.
///
/// # Errors
/// When it cannot be read: then nothing is known of what was seen.
pub async fn read_fingerprint(
    environment: &Environment,
    config: &Config,
    target: Option<&str>,
    instance_id: &str,
) -> Result<String, Error> {
    let app = App::new(environment, config.clone())?;
    let (target, _) = config.target(target).ok_or("name the --target: there are several")?;
    match accept::read_connection(&app, target, &InstanceId::parse(instance_id)?, clock::now()).await {
        Ok(connection) => Ok(connection.fingerprint().to_string()),
        Err(error) => {
            Err(format!("cannot read {instance_id} for its fingerprint ({error}); name the --fingerprint").into())
        }
    }
}

/// A request as `platform` would send it.
///
/// # Errors
/// What the configuration or the secrets lack for it.
pub fn sign_event(
    platform: Platform,
    spec: &EventSpec,
    config: &Config,
    secrets: &SecretSet,
    now: Timestamp,
) -> Result<SignedRequest, Error> {
    Ok(platform.sign(&config.platforms, &secrets.platforms, spec, now)?)
}

/// The event of a Function URL.
#[must_use]
pub fn function_url_event(signed: &SignedRequest) -> Value {
    let headers: serde_json::Map<_, _> =
        signed.headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": signed.path,
        "rawQueryString": "",
        "headers": headers,
        "requestContext": {"http": {"method": "POST", "path": signed.path}},
        "body": signed.body,
        "isBase64Encoded": false,
    })
}
