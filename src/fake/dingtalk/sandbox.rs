//! The extension of the sandbox for DingTalk: an app, a group, a custom robot, and the identities of people.

use serde_json::json;
use url::Url;

use super::{FakeDingTalk, FakeDingTalkSettings};
use crate::fake::{PersonIdentity, SandboxExtension};

/// The group of the channel `dingtalk`.
pub const CONVERSATION_ID: &str = "cidLfNiUM0CUDchBEuRheJI9X==";
/// The access token of the custom robot of the channel `robot`.
pub const ROBOT_TOKEN: &str = "fakeRobotToken";
const ROBOT_SECRET: &str = "SECfakeRobot0123456789abcdef";
const API_SECRET: &str = "MevvFKK3yNYKD0OLNoS0dQLGC7DJXekHi9Z85cJ3adU";
const PATH_SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978";
/// The people of the sandbox and their `userId`.
const PEOPLE: [(&str, &str); 4] =
    [("alice", "manager-alice"), ("bob", "0185115183983732"), ("carol", "carol.01"), ("erin", "erin.02")];

impl FakeDingTalk {
    /// The extension for this fake, which answers at `url`.
    #[must_use]
    pub fn sandbox_extension(&self, url: &Url) -> SandboxExtension {
        let FakeDingTalkSettings { app, app_secret, corp, template, .. } = self.settings();
        self.add_robot(ROBOT_TOKEN, Some(ROBOT_SECRET));
        let config = format!(
            "[platforms.dingtalk]\napp = \"{app}\"\ncorp = \"{corp}\"\ntemplate = \"{template}\"\napi = \"{url}\"\n\
             session_origins = [\"{url}\"]\n\n[channels.dingtalk]\nkind = \"dingtalk\"\n\
             conversation = \"{CONVERSATION_ID}\"\n\n[channels.robot]\nkind = \"dingtalk-robot\"\n"
        );
        let robot =
            json!({"url": format!("{url}robot/send?access_token={ROBOT_TOKEN}"), "signing_secrets": [ROBOT_SECRET]});
        let app = json!({"api_secrets": [API_SECRET], "app_secrets": [app_secret], "path_secrets": [PATH_SECRET]});
        SandboxExtension {
            config,
            secrets: json!({"platforms": {"dingtalk": app}, "channels": {"robot": robot}}),
            channel: "dingtalk",
            people: PEOPLE
                .map(|(person, user_id)| PersonIdentity { person, principal: format!("dingtalk:{corp}/{user_id}") })
                .into(),
        }
    }
}
