//! A whole peergate on loopback: the simulator, an embedded table, a chat sink, and the app between them. The demo and
//! the tests live in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

use super::{Error, table};
use crate::alicloud::sign::SignatureVersion;
use crate::alicloud::{Alicloud, Credentials};
use crate::app::App;
use crate::config::{AwsEnvironment, Config, Environment, SecretsSource};
use crate::fake::SandboxExtension;
use crate::fake::alicloud::SimulatorSettings;
use crate::fake::alicloud::gateway::{self, Simulator};
use crate::fake::slack::FakeSlack;
use crate::peering::InstanceId;
use crate::{aws, clock, http};

/// The other side.
const REQUESTER_CREDENTIALS: Credentials<'_> =
    Credentials { access_key_id: "requester-key", access_key_secret: "requester-secret", security_token: None };
/// A signing secret of the client `ci`.
pub const CI_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// The signing secret of the Slack app.
pub const SLACK_SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
/// A signing secret of the channel `audit`.
pub const AUDIT_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Everything that runs.
#[derive(Debug)]
pub struct Sandbox {
    /// The API.
    pub simulator: Simulator,
    /// Where the API is.
    pub alicloud_url: Url,
    /// The chat platform: `/api/` is Slack's Web API, `/hooks/netops` an incoming webhook, `/audit` a machine.
    pub slack: FakeSlack,
    /// Where the chat platform is.
    pub chat_url: Url,
    /// The app.
    pub parts: Arc<App>,
    /// How the app is wired, for making another one like it.
    pub environment: Environment,
    /// `peergate.toml`.
    pub config: String,
    /// Where its files are; they go with it.
    directory: PathBuf,
}

impl Sandbox {
    /// Starts everything.
    pub async fn start(settings: SimulatorSettings) -> Result<Self, Error> {
        Self::start_with_signature(settings, SignatureVersion::V3).await
    }

    /// Starts everything, with calls signed as said.
    pub async fn start_with_signature(settings: SimulatorSettings, signature: SignatureVersion) -> Result<Self, Error> {
        let simulator = Simulator::new(settings);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let alicloud = gateway::listener_url(&listener)?;
        tokio::spawn(simulator.clone().serve(listener));
        let sink = FakeSlack::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let chat = gateway::listener_url(&listener)?;
        tokio::spawn(sink.clone().serve(listener));
        let directory = std::env::temp_dir().join(format!("peergate-{}", clock::nonce()));
        std::fs::create_dir_all(&directory)?;
        let secrets = directory.join("secrets.json");
        std::fs::write(&secrets, self::secrets_json(&chat).to_string())?;
        let aws = AwsEnvironment {
            region: "eu-central-1".into(),
            access_key_id: "local".into(),
            secret_access_key: "local".into(),
            dynamodb_endpoint: Some(table::spawn_table(None).await?),
            ..AwsEnvironment::default()
        };
        let config = config_toml(&alicloud, &chat, signature);
        let environment = Environment {
            config: directory.join("peergate.toml"),
            table: "peergate".into(),
            secrets: SecretsSource::File(secrets),
            ca_file: None,
            aws,
        };
        std::fs::write(&environment.config, &config)?;
        let sdk = aws::sdk_config(&environment.aws, http::new_client()?);
        let endpoint = environment.aws.dynamodb_endpoint.clone().unwrap_or_default();
        table::create_table(&sdk, &endpoint, &environment.table).await?;
        let app = Arc::new(App::new(&environment, Config::parse(&config)?)?);
        Ok(Self {
            simulator,
            alicloud_url: alicloud,
            slack: sink,
            chat_url: chat,
            parts: app,
            environment,
            config,
            directory,
        })
    }

    /// Has the requester ask for a peering across accounts; `more` adds to the call or overrides it.
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
        let api = Alicloud::new(http::new_client()?, self.alicloud_url.clone(), SignatureVersion::V3, u32::MAX);
        Ok(api.create_connection(REQUESTER_CREDENTIALS, &call).await?)
    }

    /// Restarts the app with another configuration.
    pub fn reconfigure(&mut self, config: &str) -> Result<(), Error> {
        std::fs::write(&self.environment.config, config)?;
        self.parts = Arc::new(App::new(&self.environment, Config::parse(config)?)?);
        config.clone_into(&mut self.config);
        Ok(())
    }

    /// Adds what a fake brings: the app starts again, and all rules tell its channel what they tell `netops`.
    pub fn add_extension(&mut self, extension: &SandboxExtension) -> Result<(), Error> {
        let path = self.directory.join("secrets.json");
        let mut secrets: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        merge_json(&mut secrets, &extension.secrets);
        std::fs::write(path, secrets.to_string())?;
        let mut config = format!("{}\n{}", self.config, extension.config);
        config =
            config.replace("channels = [\"netops\"", &format!("channels = [\"netops\", \"{}\"", extension.channel));
        for (person, principal) in &extension.people {
            let known = format!("\"webhook:ci/{person}\"]");
            config = config.replace(&known, &format!("\"webhook:ci/{person}\", \"{principal}\"]"));
        }
        self.reconfigure(&config)
    }

    /// Writes other secrets.
    pub fn write_secrets(&self, change: impl FnOnce(&mut Value)) -> Result<(), Error> {
        let mut secrets = secrets_json(&self.chat_url);
        change(&mut secrets);
        Ok(std::fs::write(self.directory.join("secrets.json"), secrets.to_string())?)
    }
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
        // What can't be removed is in the system's folder for temporary files.
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
    format!(
        r#"
[targets.prod]
account = "2222222222222222"
regions = ["cn-shanghai"]
endpoint = "{alicloud}"
sts_endpoint = "{alicloud}"
signature = "{signature}"

[clients.ci]

[platforms.slack]
teams = ["T0001"]
app = "A0123"
api = "{chat}api/"
response_origins = ["{chat}"]

[channels.netops]
kind = "slack"
channel = "C0PEER"

[channels.hook]
kind = "slack-webhook"

[channels.audit]
kind = "standard-webhooks"

[people.alice]
principals = ["slack:T0001/U061F7AUR", "webhook:ci/alice"]

[people.bob]
principals = ["slack:T0001/U0BOB", "webhook:ci/bob"]

[people.carol]
principals = ["slack:T0001/U0CAROL", "webhook:ci/carol"]

[people.erin]
principals = ["slack:T0001/U0ERIN", "webhook:ci/erin"]

[groups]
netops = ["alice", "bob"]
security = ["alice", "bob", "carol", "erin"]

[accounts.1111111111111111]
name = "data team"
contacts = ["person:erin"]

[requests]
channels = ["netops"]

[channels.oncall]
kind = "slack"
channel = "C0CALL"

[[rule]]
name = "two people"
target = "prod"
requester_accounts = ["1111111111111111"]
accepting_vpcs = ["vpc-two-people"]
approvals = 2
approvers = ["group:security"]
channels = ["netops", "hook", "audit"]
escalate_after = "30h"
escalate_to = ["oncall"]

[[rule]]
name = "with a reason"
target = "prod"
requester_accounts = ["1111111111111111"]
accepting_vpcs = ["vpc-with-a-reason"]
approvals = 1
approvers = ["group:netops"]
require_reason = true
channels = ["netops"]

[[rule]]
name = "by itself"
target = "prod"
requester_accounts = ["1111111111111111"]
requester_cidrs_within = ["10.0.0.0/8"]
accepting_vpcs = ["vpc-by-itself"]
approvals = 0
approvers = ["group:netops"]
channels = ["netops", "audit"]

[[rule]]
name = "data team"
target = "prod"
requester_accounts = ["1111111111111111"]
approvals = 1
approvers = ["group:netops"]
channels = ["netops", "hook", "audit"]
"#
    )
}
