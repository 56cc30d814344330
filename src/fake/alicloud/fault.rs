//! Faults: errors and delays that a test asks for.

use axum::http::StatusCode;
use serde::Deserialize;

use super::gateway_request::GatewayRequest;
use super::is_dry_run;
use crate::peering::AccountId;

/// An error or a delay of the next calls.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The operation; `None` for all.
    pub action: Option<String>,
    /// The account that calls; `None` for all.
    pub account: Option<AccountId>,
    /// The number of calls.
    #[serde(default = "default_times")]
    pub times: u32,
    /// The delay before the call is handled.
    #[serde(default)]
    pub delay_ms: u64,
    /// The delay of the answer, after the call had its effect.
    #[serde(default)]
    pub answer_delay_ms: u64,
    /// The call is refused with this code.
    pub code: Option<String>,
    /// The HTTP status for `code` or `raw`.
    #[serde(default = "default_http_status")]
    pub http_status: u16,
    /// The answer is this text, as from a proxy.
    pub raw: Option<String>,
    /// The header `x-acs-retry-after`.
    pub retry_after_ms: Option<u64>,
    /// The call takes effect, and only its answer is replaced.
    #[serde(default)]
    pub after_effect: bool,
    /// With `action`: whether the fault is for dry runs or for real calls.
    #[serde(default)]
    pub dry_run: bool,
}

impl Default for Fault {
    fn default() -> Self {
        Self {
            action: None,
            account: None,
            times: 1,
            delay_ms: 0,
            answer_delay_ms: 0,
            code: None,
            http_status: 400,
            raw: None,
            retry_after_ms: None,
            after_effect: false,
            dry_run: false,
        }
    }
}

fn default_times() -> u32 {
    1
}

fn default_http_status() -> u16 {
    400
}

/// The answer of a proxy or a broken gateway.
pub(super) struct RawAnswer {
    pub(super) status: StatusCode,
    pub(super) body: String,
}

/// The faults that are still to come.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The number of calls that will fail or be late.
    pub(super) fn pending(&self) -> u32 {
        self.0.iter().map(|fault| fault.times).sum()
    }

    /// The raw answer to a call, if there is a fault with one. The call is not authenticated, so faults of an account are
    /// not for it.
    pub(super) fn take_raw(&mut self, call: &GatewayRequest) -> Option<RawAnswer> {
        let action = call.header("x-acs-action").unwrap_or_default();
        let dry_run = is_dry_run(&call.merged_parameters());
        let matches = |fault: &&mut Fault| {
            let is_for_action = fault.action.as_deref().is_none_or(|name| name == action && fault.dry_run == dry_run);
            fault.times > 0 && fault.account.is_none() && is_for_action
        };
        let fault = self.0.iter_mut().find(matches).filter(|fault| fault.raw.is_some())?;
        fault.times -= 1;
        Some(RawAnswer { status: StatusCode::from_u16(fault.http_status).ok()?, body: fault.raw.clone()? })
    }

    /// The fault of an authenticated call.
    pub(super) fn take(&mut self, action: &str, account: AccountId, dry_run: bool) -> Option<Fault> {
        let matches = |fault: &&mut Fault| {
            let is_for_action = fault.action.as_ref().is_none_or(|name| name == action && fault.dry_run == dry_run);
            fault.times > 0 && fault.account.is_none_or(|it| it == account) && is_for_action
        };
        let fault = self.0.iter_mut().find(matches)?;
        fault.times -= 1;
        Some(fault.clone())
    }
}
