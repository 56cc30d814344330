//! The extension of the sandbox for Feishu: an app, a chat, a custom bot, and the identities of people.

use serde_json::json;
use url::Url;

use super::{FakeFeishu, FakeFeishuSettings};
use crate::fake::{PersonIdentity, SandboxExtension};

/// The chat of the channel `feishu`.
pub const CHAT_ID: &str = "oc_38fe598c2984695a42f3e2d3d5fdfd22";
/// The id of the custom bot of the channel `bot`, and of its chat.
pub const BOT_CHAT_ID: &str = "oc_bot";
const BOT_SECRET: &str = "demoSecret";
const ENCRYPT_KEY: &str = "7ZJAhsHk6WV3zn4Tag2E1ByoB3lPgxzl";
/// The people of the sandbox and their `open_id`.
const PEOPLE: [(&str, &str); 4] =
    [("alice", "ou_alice"), ("bob", "ou_bob"), ("carol", "ou_carol"), ("erin", "ou_erin")];

impl FakeFeishu {
    /// The extension for this fake, which answers at `url`.
    #[must_use]
    pub fn sandbox_extension(&self, url: &Url) -> SandboxExtension {
        let FakeFeishuSettings { app, app_secret, tenant, verification_token, .. } = self.settings();
        self.add_bot(BOT_CHAT_ID, Some(BOT_SECRET));
        let config = format!(
            "[platforms.feishu]\napp = \"{app}\"\ntenant = \"{tenant}\"\nhost = \"feishu\"\napi = \"{url}\"\n\n\
             [channels.feishu]\nkind = \"feishu\"\nchat = \"{CHAT_ID}\"\n\n[channels.bot]\nkind = \"feishu-bot\"\n"
        );
        let keys = json!({"encrypt_key": ENCRYPT_KEY, "verification_token": verification_token});
        let bot = json!({"url": format!("{url}open-apis/bot/v2/hook/{BOT_CHAT_ID}"), "signing_secrets": [BOT_SECRET]});
        SandboxExtension {
            config,
            secrets: json!({
                "platforms": {"feishu": {"callbacks": [keys], "app_secret": app_secret}},
                "channels": {"bot": bot},
            }),
            channel: "feishu",
            people: PEOPLE
                .map(|(person, open_id)| PersonIdentity { person, principal: format!("feishu:{tenant}/{open_id}") })
                .into(),
        }
    }
}
