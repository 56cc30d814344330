//! What the configuration says about a request, as its record keeps it.

use std::collections::BTreeMap;

use super::{Policy, RequestDefaults};
use crate::approval::PolicySnapshot;
use crate::peering::Connection;

impl Policy {
    /// What the configuration says about a request.
    #[must_use]
    pub fn snapshot_for(&self, target: &str, connection: &Connection) -> PolicySnapshot {
        let account = self.accounts.get(&connection.requester.account);
        let requester = account.map(|account| account.name.clone());
        let requester_channels = account.map(|account| account.channels.clone()).unwrap_or_default();
        let RequestDefaults { channels, remind_after, expiry_notice, stuck_after } = self.defaults.clone();
        let nobody = PolicySnapshot {
            rule: None,
            unmatched: vec![],
            suggestion: None,
            approvals: 1,
            approvers: vec![],
            display_names: BTreeMap::new(),
            require_reason: false,
            requester,
            channels,
            remind_after,
            escalate_after: None,
            escalate_to: vec![],
            expiry_notice,
            stuck_after,
            requester_channels,
            reads_routes: self.routed_targets.contains(target),
        };
        match self.matching_rule(target, connection) {
            Err(facts) => PolicySnapshot {
                unmatched: facts.iter().map(ToString::to_string).collect(),
                suggestion: Some(self.suggest_rule(target, connection)),
                ..nobody
            },
            Ok(rule) => {
                let approvers = self.approvers_of(rule, Some(connection.requester.account));
                let display_name = |key: &String| Some((key.clone(), self.people.get(key)?.name.clone()?));
                PolicySnapshot {
                    rule: Some(rule.name.clone()),
                    approvals: rule.approvals,
                    display_names: approvers.iter().filter_map(display_name).collect(),
                    approvers,
                    require_reason: rule.require_reason,
                    channels: rule.channels.clone(),
                    remind_after: rule.remind_after.unwrap_or(remind_after),
                    escalate_after: rule.escalate_after,
                    escalate_to: rule.escalate_to.clone(),
                    ..nobody
                }
            }
        }
    }
}
