//! Signed events, in the form in which a Function URL passes them to the webhook.

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

/// The current fingerprint of a connection.
///
/// # Errors
/// When the connection cannot be read.
pub async fn read_fingerprint(
    environment: &Environment,
    config: &Config,
    target: Option<&str>,
    instance_id: &str,
) -> Result<String, Error> {
    let app = App::new(environment, config.clone())?;
    let known = || config.targets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let (target, _) = config.find_target(target).ok_or_else(|| format!("set --target to one of {}", known()))?;
    match accept::read_connection(&app, target, &InstanceId::parse(instance_id)?, clock::now()).await {
        Ok(connection) => Ok(connection.fingerprint().to_string()),
        Err(error) => Err(format!("cannot read {target}/{instance_id}: {error}; set --fingerprint").into()),
    }
}

/// A signed request, as `platform` would send it.
///
/// # Errors
/// When the configuration or the secrets lack what the signature needs.
pub fn sign_event(
    platform: Platform,
    spec: &EventSpec,
    config: &Config,
    secrets: &SecretSet,
    now: Timestamp,
) -> Result<SignedRequest, Error> {
    Ok(platform.sign(&config.platforms, &secrets.platforms, spec, now)?)
}

/// The event of a Function URL for a request.
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
