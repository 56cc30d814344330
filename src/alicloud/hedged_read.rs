//! A reading, on an HTTP connection that may be dead.
//!
//! A kept connection that the network has forgotten takes bytes and never answers. So a reading that has no answer after
//! a moment is made once more on a connection that is new, while the first goes on: whichever answers first is taken. A
//! reading that is only slow loses nothing by it. Where the new connection was first, all calls leave the old ones.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::rpc::{RpcCall, RpcResponse};
use super::{Alicloud, Credentials, Error};

/// What a kept connection has. Alibaba Cloud answers from the other side of the earth in half of it; Slack's senders wait
/// for 1.9 s in all.
const HEDGE_DELAY: Duration = Duration::from_millis(700);
/// The same for a list, once a list has been slow without being dead.
const SLOW_LIST_HEDGE_DELAY: Duration = Duration::from_secs(3);

/// Whether the last list that took long was only slow.
#[derive(Debug, Default)]
pub(super) struct HedgeDelays {
    lists_are_slow: AtomicBool,
}

impl HedgeDelays {
    fn delay_for(&self, action: &str) -> Duration {
        let slow = action.starts_with("List") && self.lists_are_slow.load(Ordering::Relaxed);
        if slow { SLOW_LIST_HEDGE_DELAY } else { HEDGE_DELAY }
    }

    fn note_list_speed(&self, action: &str, is_slow: bool) {
        if action.starts_with("List") {
            self.lists_are_slow.store(is_slow, Ordering::Relaxed);
        }
    }
}

impl Alicloud {
    /// Makes a call that changes nothing, when its turn has come.
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
        let kept = clients.latest();
        let begun = Instant::now();
        let mut first = pin!(self.rpc.send_call_with(&kept.client, call));
        let failed = match timeout(self.hedge_delays.delay_for(call.action), &mut first).await {
            Ok(Err(Error::Transport(error))) => Some(Error::Transport(error)),
            Ok(answer) => {
                self.hedge_delays.note_list_speed(call.action, begun.elapsed() > HEDGE_DELAY);
                return answer;
            }
            Err(_elapsed) => None,
        };
        // The second try counts as well. If it has to wait, only the first runs.
        if !self.rate_limiter.reserve(call.action, Instant::now()).is_ok_and(|turn| turn <= Instant::now()) {
            return match failed {
                Some(error) => Err(error),
                None => first.await,
            };
        }
        let fresh = clients.fresh_client(&kept);
        tracing::warn!(
            outcome = "asked_again",
            alicloud.action = call.action,
            alicloud.code = failed.as_ref().map_or("Transport.Silent", Error::code),
            "a reading got no answer; repeating it on a new HTTP connection"
        );
        let mut second = pin!(self.rpc.send_call_with(&fresh.client, call));
        let answer = if failed.is_some() {
            second.await
        } else {
            tokio::select! {
                answer = &mut first => match answer {
                    Err(Error::Transport(_)) => second.await,
                    answer => {
                        self.hedge_delays.note_list_speed(call.action, true);
                        return answer;
                    }
                },
                answer = &mut second => match answer {
                    Err(Error::Transport(_)) => return first.await,
                    answer => answer,
                },
            }
        };
        if !matches!(answer, Err(Error::Transport(_))) {
            self.hedge_delays.note_list_speed(call.action, false);
            clients.replace_latest(&fresh);
        }
        answer
    }
}
