//! A complete peergate on loopback: the simulator, an embedded table, fake chat platforms, and the app. The demo and the
//! tests use it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

use super::table::{self, KeyPair};
use super::{Error, owner_only};
use crate::alicloud::sign::SignatureVersion;
use crate::alicloud::{Alicloud, Credentials};
use crate::app::App;
use crate::aws::AwsEnvironment;
use crate::chat::Pacer;
use crate::config::{Config, Environment, SecretsSource};
use crate::fake::alicloud::SimulatorSettings;
use crate::fake::alicloud::gateway::{self, Simulator};
use crate::fake::slack::FakeSlack;
use crate::fake::{PersonIdentity, SandboxExtension};
use crate::peering::InstanceId;
use crate::{aws, clock, http};

/// The credentials of the requesting account.
const REQUESTER_CREDENTIALS: Credentials<'_> =
    Credentials { access_key_id: "requester-key", access_key_secret: "requester-secret", security_token: None };
/// The credentials of the accepting account.
const ACCEPTER_CREDENTIALS: Credentials<'_> =
    Credentials { access_key_id: "accepter-key", access_key_secret: "accepter-secret", security_token: None };
/// A signing secret of the client `ci`.
pub const CI_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// The signing secret of the Slack app.
pub const SLACK_SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
/// A signing secret of the channel `audit`.
pub const AUDIT_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The running parts.
#[derive(Debug)]
pub struct Sandbox {
    /// The simulated API of Alibaba Cloud.
    pub simulator: Simulator,
    /// The URL of the simulator.
    pub alicloud_url: Url,
    /// The fake chat server: `/api/` is Slack's Web API, `/hooks/netops` an incoming webhook, and `/audit` a machine.
    pub slack: FakeSlack,
    /// The URL of the fake chat server.
    pub chat_url: Url,
    /// The app.
    pub parts: Arc<App>,
    /// The environment of the app, to build another app like it.
    pub environment: Environment,
    /// The text of `peergate.toml`.
    pub config: String,
    /// Whether posts keep their distance, as in a deployment. Otherwise every post begins at once.
    pub paces_posts: bool,
    /// The directory of its files. It is removed with the sandbox.
    directory: PathBuf,
}

impl Sandbox {
    /// Starts all parts. Calls have V3 signatures.
    pub async fn start(settings: SimulatorSettings) -> Result<Self, Error> {
        Self::start_with_signature(settings, SignatureVersion::V3).await
    }

    /// Starts all parts. Calls have signatures of the given version.
    pub async fn start_with_signature(settings: SimulatorSettings, signature: SignatureVersion) -> Result<Self, Error> {
        let simulator = Simulator::new(settings);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let alicloud = gateway::listener_url(&listener)?;
        tokio::spawn(simulator.clone().serve(listener));
        let slack = FakeSlack::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let chat = gateway::listener_url(&listener)?;
        tokio::spawn(slack.clone().serve(listener));
        let directory = std::env::temp_dir().join(format!("peergate-{}", clock::nonce()));
        std::fs::create_dir_all(&directory)?;
        let secrets = directory.join("secrets.json");
        owner_only::write(&secrets, &self::secrets_json(&chat).to_string())?;
        let mut aws = AwsEnvironment {
            region: "eu-central-1".into(),
            access_key_id: "local".into(),
            secret_access_key: clock::nonce(),
            ..AwsEnvironment::default()
        };
        aws.dynamodb_endpoint = Some(table::spawn_table(None, KeyPair::of(&aws)).await?);
        let config = config_toml(&alicloud, &chat, signature);
        let environment = Environment {
            config: directory.join("peergate.toml"),
            table: "peergate".into(),
            secrets: SecretsSource::File(secrets),
            ca_file: None,
            aws,
        };
        owner_only::write(&environment.config, &config)?;
        table::create_table(&aws::dynamodb_client(&environment.aws, http::new_client()?), &environment.table).await?;
        let app = build_app(&environment, &config, false)?;
        Ok(Self {
            simulator,
            alicloud_url: alicloud,
            slack,
            chat_url: chat,
            parts: app,
            environment,
            config,
            paces_posts: false,
            directory,
        })
    }

    /// Lets the requester request a peering across accounts. `more` adds or replaces parameters of the call.
    pub async fn request_peering(&self, more: &[(&str, &str)]) -> Result<InstanceId, Error> {
        let accepting_vpc = format!("vpc-accepter-{:.8}", clock::nonce());
        let mut call = BTreeMap::from([
            ("RegionId", "cn-hangzhou"),
            ("VpcId", "vpc-requester"),
            ("AcceptingAliUid", "2222222222222222"),
            ("AcceptingRegionId", "cn-shanghai"),
            ("AcceptingVpcId", &accepting_vpc),
            ("Name", "data to payments"),
        ]);
        call.extend(more.iter().copied());
        let call: Vec<_> = call.into_iter().collect();
        Ok(self.alicloud()?.create_connection(REQUESTER_CREDENTIALS, &call).await?)
    }

    /// Lets somebody of the accepting account accept a connection, without peergate.
    pub async fn accept_in_console(&self, id: &InstanceId) -> Result<(), Error> {
        self.alicloud()?.accept_connection(ACCEPTER_CREDENTIALS, id, &clock::nonce(), false).await?;
        Ok(())
    }

    fn alicloud(&self) -> Result<Alicloud, Error> {
        Ok(Alicloud::new(http::new_client()?, self.alicloud_url.clone(), SignatureVersion::V3, u32::MAX))
    }

    /// Restarts the app with another configuration.
    pub fn reconfigure(&mut self, config: &str) -> Result<(), Error> {
        owner_only::write(&self.environment.config, config)?;
        self.parts = build_app(&self.environment, config, self.paces_posts)?;
        config.clone_into(&mut self.config);
        Ok(())
    }

    /// Adds the extension of a fake, and restarts the app. Each rule that notifies `netops` then also notifies the fake's
    /// channel.
    pub fn add_extension(&mut self, extension: &SandboxExtension) -> Result<(), Error> {
        let path = self.directory.join("secrets.json");
        let mut secrets: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        merge_json(&mut secrets, &extension.secrets);
        owner_only::write(&path, &secrets.to_string())?;
        let mut config = format!("{}\n{}", self.config, extension.config);
        config =
            config.replace("channels = [\"netops\"", &format!("channels = [\"netops\", \"{}\"", extension.channel));
        for PersonIdentity { person, principal } in &extension.people {
            let known = format!("\"webhook:ci/{person}\"");
            config = config.replacen(&known, &format!("{known}, \"{principal}\""), 1);
        }
        self.reconfigure(&config)
    }

    /// Writes the secrets with a change.
    pub fn write_secrets(&self, change: impl FnOnce(&mut Value)) -> Result<(), Error> {
        let mut secrets = secrets_json(&self.chat_url);
        change(&mut secrets);
        Ok(owner_only::write(&self.directory.join("secrets.json"), &secrets.to_string())?)
    }
}

fn build_app(environment: &Environment, config: &str, paces_posts: bool) -> Result<Arc<App>, Error> {
    let app = App::new(environment, Config::parse(config)?)?;
    Ok(Arc::new(if paces_posts { app } else { App { pacer: Arc::new(Pacer::off()), ..app } }))
}

fn merge_json(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge_json(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => more.clone_into(into),
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Files that cannot be removed stay in the system's temporary directory.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn secrets_json(chat: &Url) -> Value {
    json!({
        "targets": {"prod": {"access_key_id": "accepter-key", "access_key_secret": "accepter-secret"}},
        "clients": {"ci": {"signing_secrets": [CI_SECRET]}},
        "platforms": {"slack": {"signing_secrets": [SLACK_SECRET], "bot_token": "xoxb-sandbox-token"}},
        "channels": {
            "hook": {"url": format!("{chat}hooks/netops")},
            "audit": {"url": format!("{chat}audit"), "signing_secrets": [AUDIT_SECRET]},
        },
    })
}

fn config_toml(alicloud: &Url, chat: &Url, signature: SignatureVersion) -> String {
    let signature = match signature {
        SignatureVersion::V3 => "v3",
        SignatureVersion::V1 => "v1",
    };
    include_str!("sandbox/peergate.toml")
        .replace("ALICLOUD_URL", alicloud.as_str())
        .replace("CHAT_URL", chat.as_str())
        .replace("SIGNATURE_VERSION", signature)
}
