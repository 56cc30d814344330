//! The extension of the sandbox for Teams: a bot, a channel of a team, a workflow, and the identities of people.

use serde_json::json;
use url::Url;

use super::{FakeTeams, FakeTeamsSettings};
use crate::fake::{PersonIdentity, SandboxExtension};

/// The team of the channel.
pub const TEAM_ID: &str = "19:DZ8W7MtrH7cFRqFdINWRLZTxzMKBCrVh@thread.tacv2";
/// The conversation of the channel `teams`.
pub const CHANNEL_ID: &str = "19:bvccYEx8DN6YhhL1f84S2EllsnYhEAEs@thread.tacv2";
/// The id of the workflow of the channel `flow`, and of its conversation.
pub const FLOW_ID: &str = "flow1";
const FLOW_SIGNATURE: &str = "fakeWorkflowSignature";
/// The people of the sandbox and their object ids.
pub const PEOPLE: [(&str, &str); 4] = [
    ("alice", "a11ce000-0000-4000-8000-000000000001"),
    ("bob", "b0b00000-0000-4000-8000-000000000002"),
    ("carol", "ca401000-0000-4000-8000-000000000003"),
    ("erin", "0badf00d-0000-4000-8000-00006572696e"),
];

impl FakeTeams {
    /// The extension for this fake, which answers at `url`.
    #[must_use]
    pub fn sandbox_extension(&self, url: &Url) -> SandboxExtension {
        let FakeTeamsSettings { app, client_secrets, tenant } = self.settings();
        self.lock().url = url.to_string();
        self.add_workflow(FLOW_ID, FLOW_SIGNATURE);
        let host = format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or_default());
        let config = format!(
            "[platforms.teams]\napp = \"{app}\"\ntenant = \"{tenant}\"\ncloud = \"public\"\nconversations = [\"{TEAM_ID}\"]\n\
             service_hosts = [\"{host}\"]\nlogin = \"{url}\"\nkeys = \"{url}v1/.well-known/openidconfiguration\"\n\n\
             [channels.teams]\nkind = \"teams\"\nconversation = \"{CHANNEL_ID}\"\n\n[channels.flow]\nkind = \"teams-workflow\"\n"
        );
        SandboxExtension {
            config,
            secrets: json!({
                "platforms": {"teams": {"client_secrets": client_secrets}},
                "channels": {"flow": {"url": format!("{url}workflows/{FLOW_ID}?sig={FLOW_SIGNATURE}")}},
            }),
            channel: "teams",
            people: PEOPLE
                .map(|(person, id)| PersonIdentity { person, principal: format!("teams:{tenant}/{id}") })
                .into(),
        }
    }
}
