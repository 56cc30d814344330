//! Reads through HTTP connections that may be dead.
//!
//! A dead connection of the pool takes a request and never answers. So a read without an answer is sent again after a
//! short delay, on a new connection, and the first answer wins. A read that is only slow loses nothing. If the new
//! connection wins, later calls no longer use the old connections.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::rpc::{RpcCall, RpcResponse};
use super::{Alicloud, Credentials, Error};

/// The delay before a read is sent again. Alibaba Cloud answers from the other side of the earth in half of this time. A
/// sender on Slack waits 1.9 s in all.
const HEDGE_DELAY: Duration = Duration::from_millis(700);
/// The delay for a list, after a list was slow on a connection that was not dead.
const SLOW_LIST_HEDGE_DELAY: Duration = Duration::from_secs(3);

/// The delays of a target.
#[derive(Debug, Default)]
pub(super) struct HedgeDelays {
    /// Whether the last list was slow on a connection that was not dead.
    lists_are_slow: AtomicBool,
}

impl HedgeDelays {
    fn delay_for(&self, action: &str) -> Duration {
        let is_slow_list = action.starts_with("List") && self.lists_are_slow.load(Ordering::Relaxed);
        if is_slow_list { SLOW_LIST_HEDGE_DELAY } else { HEDGE_DELAY }
    }

    fn note_list_speed(&self, action: &str, is_slow: bool) {
        if action.starts_with("List") {
            self.lists_are_slow.store(is_slow, Ordering::Relaxed);
        }
    }
}

impl Alicloud {
    /// Makes a call that changes nothing, within the rate limit.
    pub(super) async fn call_hedged(
        &self,
        action: &'static str,
        parameters: &[(&str, &str)],
        credentials: Credentials<'_>,
    ) -> Result<RpcResponse, Error> {
        self.wait_for_rate_limit(action).await?;
        let call = RpcCall { action, parameters, credentials: Some(credentials) };
        self.race_on_new_connection(call).await.inspect_err(|error| self.back_off_after(action, error))
    }

    async fn race_on_new_connection(&self, call: RpcCall<'_>) -> Result<RpcResponse, Error> {
        let clients = &self.rpc.clients;
        let pooled = clients.latest();
        let started = Instant::now();
        let mut first = pin!(self.rpc.send_call_with(&pooled.client, call));
        let transport_error = match timeout(self.hedge_delays.delay_for(call.action), &mut first).await {
            Ok(Err(Error::Transport(error))) => Some(Error::Transport(error)),
            Ok(response) => {
                self.hedge_delays.note_list_speed(call.action, started.elapsed() > HEDGE_DELAY);
                return response;
            }
            Err(_elapsed) => None,
        };
        // The second request counts against the rate limit, too. If it would have to wait, it is not sent.
        if !self.rate_limiter.reserve(call.action, Instant::now()).is_ok_and(|start| start <= Instant::now()) {
            return match transport_error {
                Some(error) => Err(error),
                None => first.await,
            };
        }
        let fresh = clients.fresh_client(&pooled);
        tracing::warn!(
            outcome = "asked_again",
            alicloud.action = call.action,
            alicloud.code = transport_error.as_ref().map_or("Transport.Silent", Error::code),
            "a read got no answer; sending it again on a new HTTP connection"
        );
        let mut second = pin!(self.rpc.send_call_with(&fresh.client, call));
        let response = if transport_error.is_some() {
            second.await
        } else {
            tokio::select! {
                response = &mut first => match response {
                    Err(Error::Transport(_)) => second.await,
                    response => {
                        self.hedge_delays.note_list_speed(call.action, true);
                        return response;
                    }
                },
                response = &mut second => match response {
                    Err(Error::Transport(_)) => return first.await,
                    response => response,
                },
            }
        };
        if !matches!(response, Err(Error::Transport(_))) {
            self.hedge_delays.note_list_speed(call.action, false);
            clients.replace_latest(&fresh);
        }
        response
    }
}
