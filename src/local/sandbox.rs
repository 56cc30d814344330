//! A complete peergate on loopback: the simulator, an embedded table, fake chat platforms, and the app. The demo and the
//! tests use it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

use super::owner_only::TemporaryDirectory;
use super::table::{self, EmbeddedTable, KeyPair, KillSwitch};
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
use crate::fake::traffic::Recorder;
use crate::fake::{PersonIdentity, SandboxExtension, loopback};
use crate::peering::InstanceId;
use crate::{aws, clock, http};

/// The credentials of the requesting account.
pub const REQUESTER_CREDENTIALS: Credentials<'_> =
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
    directory: TemporaryDirectory,
    /// The servers of the fakes. An app in a confinement connects to nothing else.
    servers: Vec<NamedServer>,
    confined: Option<Confined>,
    /// The tasks of the fakes. They end with the sandbox.
    tasks: JoinSet<std::io::Result<()>>,
}

/// The server of a fake.
#[derive(Debug, Clone)]
struct NamedServer {
    name: &'static str,
    url: Url,
}

/// Keeps a sandbox to itself: its app connects to its fakes only, and its table is in the process.
#[derive(Debug, Clone)]
pub struct Confinement {
    /// Records what reaches the fakes.
    pub recorder: Recorder,
    /// The server that refuses what the app sends to others.
    pub refuse_at: Url,
    /// Kills the webhook after a write.
    pub kill_switch: KillSwitch,
}

impl Sandbox {
    /// Starts all parts. Calls have V3 signatures.
    pub async fn start(settings: SimulatorSettings) -> Result<Self, Error> {
        Self::start_with_signature(settings, SignatureVersion::V3).await
    }

    /// Starts all parts. Calls have signatures of the given version.
    pub async fn start_with_signature(settings: SimulatorSettings, signature: SignatureVersion) -> Result<Self, Error> {
        Self::start_parts(settings, signature, None).await
    }

    /// Starts all parts in a confinement.
    pub async fn start_confined(settings: SimulatorSettings, confinement: Confinement) -> Result<Self, Error> {
        Self::start_parts(settings, SignatureVersion::V3, Some(confinement)).await
    }

    async fn start_parts(
        settings: SimulatorSettings,
        signature: SignatureVersion,
        confinement: Option<Confinement>,
    ) -> Result<Self, Error> {
        let (simulator, slack, mut tasks) = (Simulator::new(settings), FakeSlack::default(), JoinSet::new());
        let recorder = confinement.as_ref().map(|confinement| &confinement.recorder);
        let alicloud = spawn_fake(&mut tasks, recorder, "alicloud", simulator.clone().router()).await?;
        let chat = spawn_fake(&mut tasks, recorder, "slack", slack.clone().router()).await?;
        let directory = TemporaryDirectory::create()?;
        let secrets = directory.join("secrets.json");
        owner_only::write(&secrets, &self::secrets_json(&chat).to_string())?;
        let mut aws = AwsEnvironment {
            region: "eu-central-1".into(),
            access_key_id: "local".into(),
            secret_access_key: clock::nonce(),
            ..AwsEnvironment::default()
        };
        let confined = if let Some(confinement) = confinement {
            let table = EmbeddedTable::in_memory()?;
            aws = table.environment(&aws);
            Some(Confined { confinement, table })
        } else {
            aws.dynamodb_endpoint = Some(table::spawn_table(None, KeyPair::of(&aws)).await?);
            None
        };
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
        let servers = vec![
            NamedServer { name: "alicloud", url: alicloud.clone() },
            NamedServer { name: "slack", url: chat.clone() },
        ];
        let app = match &confined {
            None => build_app(&environment, &config, false, None)?,
            Some(confined) => confined.build_webhook(&environment, &config, &servers)?,
        };
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
            servers,
            confined,
            tasks,
        })
    }

    /// Starts one more fake. Returns its URL.
    pub async fn add_server(&mut self, name: &'static str, router: Router) -> Result<Url, Error> {
        let recorder = self.confined.as_ref().map(|confined| &confined.confinement.recorder);
        let url = spawn_fake(&mut self.tasks, recorder, name, router).await?;
        self.servers.push(NamedServer { name, url: url.clone() });
        Ok(url)
    }

    /// The address of a fake.
    #[must_use]
    pub fn server_url(&self, name: &str) -> Option<&Url> {
        self.servers.iter().find(|server| server.name == name).map(|server| &server.url)
    }

    /// The file of the secrets.
    #[must_use]
    pub fn secrets_path(&self) -> PathBuf {
        self.directory.join("secrets.json")
    }

    /// The secrets. They are made for this sandbox, or known to everybody.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_secrets(&self) -> Result<Value, Error> {
        Ok(serde_json::from_slice(&std::fs::read(self.secrets_path())?)?)
    }

    /// A configuration with the names of the fakes in place of their addresses.
    #[must_use]
    pub fn hide_servers(&self, config: &str) -> String {
        let hide = |text: String, server: &NamedServer| {
            let text = text.replace(server.url.as_str(), &server.placeholder());
            text.replace(server.url.authority(), server.placeholder().trim_end_matches('/'))
        };
        self.servers.iter().fold(config.to_owned(), hide)
    }

    /// A configuration with the addresses of the fakes in place of their names.
    #[must_use]
    pub fn fill_in_servers(&self, config: &str) -> String {
        let fill_in = |text: String, server: &NamedServer| {
            let text = text.replace(&server.placeholder(), server.url.as_str());
            text.replace(server.placeholder().trim_end_matches('/'), server.url.authority())
        };
        self.servers.iter().fold(config.to_owned(), fill_in)
    }

    /// The app of the watcher, if it has one of its own, as in AWS.
    pub fn build_watcher(&self) -> Result<Arc<App>, Error> {
        match &self.confined {
            None => Ok(Arc::clone(&self.parts)),
            Some(Confined { confinement, .. }) => {
                let clients = confinement.clients(&self.servers, "watcher")?;
                build_app(&self.environment, &self.config, self.paces_posts, Some(clients))
            }
        }
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

    /// Lets an account request a peering with exactly these parameters.
    pub async fn request_as(&self, account: Credentials<'_>, call: &[(&str, &str)]) -> Result<InstanceId, Error> {
        Ok(self.alicloud()?.create_connection(account, call).await?)
    }

    /// Lets an account change or delete its connection.
    pub async fn call_as(
        &self,
        account: Credentials<'_>,
        action: &'static str,
        call: &[(&str, &str)],
    ) -> Result<(), Error> {
        Ok(self.alicloud()?.call_as_requester(action, call, account).await?)
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
        self.parts = match &self.confined {
            None => build_app(&self.environment, config, self.paces_posts, None)?,
            Some(confined) => confined.build_webhook(&self.environment, config, &self.servers)?,
        };
        config.clone_into(&mut self.config);
        Ok(())
    }

    /// Refuses a configuration that names a server other than the fakes.
    pub fn check_endpoints(&self, config: &str) -> Result<(), String> {
        // A text that is no TOML is refused with better words by the parser of the configuration.
        let document: toml::Value = toml::from_str(config).unwrap_or(toml::Value::Boolean(false));
        match find_foreign_url(&document, &self.servers, "") {
            Some(key) => Err(format!("{key}: the playground connects to its own fakes only")),
            None => Ok(()),
        }
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

impl NamedServer {
    fn placeholder(&self) -> String {
        format!("FAKE-{}/", self.name)
    }
}

/// A confinement, and its table.
#[derive(Debug)]
struct Confined {
    confinement: Confinement,
    table: EmbeddedTable,
}

impl Confined {
    /// The webhook, which the switch can kill.
    fn build_webhook(
        &self,
        environment: &Environment,
        config: &str,
        servers: &[NamedServer],
    ) -> Result<Arc<App>, Error> {
        let Self { confinement, table } = self;
        let aws = table.mortal_environment(&environment.aws, &confinement.kill_switch);
        let environment = Environment { aws, ..environment.clone() };
        build_app(&environment, config, false, Some(confinement.clients(servers, "webhook")?))
    }
}

impl Confinement {
    fn clients(&self, servers: &[NamedServer], function: &str) -> Result<http::Clients, http::Error> {
        let servers = servers.iter().map(|server| server.url.clone()).collect();
        http::Clients::confined(servers, self.refuse_at.clone(), function)
    }
}

/// Serves a fake on a free port of this machine.
async fn spawn_fake(
    tasks: &mut JoinSet<std::io::Result<()>>,
    recorder: Option<&Recorder>,
    name: &'static str,
    router: Router,
) -> Result<Url, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = gateway::listener_url(&listener)?;
    let router = recorder.map_or(router.clone(), |recorder| recorder.record(name, router));
    // What a web page sends is not even recorded.
    tasks.spawn(loopback::serve(listener, router));
    Ok(url)
}

fn build_app(
    environment: &Environment,
    config: &str,
    paces_posts: bool,
    clients: Option<http::Clients>,
) -> Result<Arc<App>, Error> {
    let config = Config::parse(config)?;
    let app = match clients {
        Some(clients) => App::with_clients(environment, config, &clients),
        None => App::new(environment, config)?,
    };
    Ok(Arc::new(if paces_posts { app } else { App { pacer: Arc::new(Pacer::off()), ..app } }))
}

/// The key of a URL whose server is not one of `servers`.
fn find_foreign_url(value: &toml::Value, servers: &[NamedServer], key: &str) -> Option<String> {
    match value {
        toml::Value::String(text) => {
            let url = Url::parse(text).ok().filter(Url::has_host)?;
            let is_ours = servers.iter().any(|server| server.url.origin() == url.origin());
            (!is_ours).then(|| key.to_owned())
        }
        toml::Value::Array(list) => list.iter().find_map(|one| find_foreign_url(one, servers, key)),
        toml::Value::Table(fields) => fields.iter().find_map(|(name, value)| {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            find_foreign_url(value, servers, &key)
        }),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) | toml::Value::Datetime(_) => None,
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
