//! The table of a function that can die: a switch stops the function after its next stored decision, before the answer
//! of the table reaches it. The decision is durable then, and nothing that follows it has happened.

use std::future::pending;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use serde_json::Value;
use tokio::sync::watch;

use super::{EmbeddedTable, operation_of};
use crate::aws::AwsEnvironment;

/// The states of a record after the decision that completes it, before a call is made.
const DECIDED_STATES: [&str; 2] = ["approved", "rejecting"];

/// Kills a function after its next write that stores a complete decision.
#[derive(Debug, Clone)]
pub struct KillSwitch {
    state: watch::Sender<SwitchState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SwitchState {
    Off,
    Armed,
    Struck,
}

impl Default for KillSwitch {
    fn default() -> Self {
        Self { state: watch::Sender::new(SwitchState::Off) }
    }
}

impl KillSwitch {
    /// Arms or disarms the switch.
    pub fn set_armed(&self, armed: bool) {
        self.state.send_replace(if armed { SwitchState::Armed } else { SwitchState::Off });
    }

    /// Whether the next decision kills the function.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        *self.state.borrow() == SwitchState::Armed
    }

    /// Returns once the function must die. Then the switch is off.
    pub async fn struck(&self) {
        if self.state.subscribe().wait_for(|state| *state == SwitchState::Struck).await.is_err() {
            pending::<()>().await;
        }
        self.state.send_replace(SwitchState::Off);
    }

    fn strike(&self) -> bool {
        self.state.send_if_modified(|state| {
            let is_armed = *state == SwitchState::Armed;
            if is_armed {
                *state = SwitchState::Struck;
            }
            is_armed
        })
    }
}

#[derive(Debug, Clone)]
struct MortalTable {
    table: EmbeddedTable,
    switch: KillSwitch,
}

impl EmbeddedTable {
    /// Like [`EmbeddedTable::environment`], for a function that `switch` can kill.
    #[must_use]
    pub fn mortal_environment(&self, aws: &AwsEnvironment, switch: &KillSwitch) -> AwsEnvironment {
        let client = SharedHttpClient::new(MortalTable { table: self.clone(), switch: switch.clone() });
        AwsEnvironment { dynamodb_client: Some(client), dynamodb_endpoint: None, ..aws.clone() }
    }
}

impl MortalTable {
    async fn answer_sdk(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let stores_decision = stores_decision(&request);
        let answer = self.table.answer_sdk(request).await?;
        if stores_decision && answer.status().is_success() && self.switch.strike() {
            pending::<()>().await;
        }
        Ok(answer)
    }
}

fn stores_decision(request: &HttpRequest) -> bool {
    let item: Value = request.body().bytes().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
    let state = item.pointer("/Item/state/S").and_then(Value::as_str).unwrap_or_default();
    operation_of(request.headers().get("x-amz-target")) == "PutItem" && DECIDED_STATES.contains(&state)
}

impl HttpClient for MortalTable {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for MortalTable {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().answer_sdk(request))
    }
}
