//! The parts that both functions work with, built once at cold start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::alicloud::Alicloud;
use crate::chat::{CardRateLimiter, platform};
use crate::config::{self, Config, Environment};
use crate::credentials::CredentialsProvider;
use crate::http;
use crate::notes::Notes;
use crate::read_budget::ReadBudget;
use crate::secrets::{self, SecretSet, SecretsStore};
use crate::store::Store;
use crate::{aws, clock};

/// How long a start waits for sessions of roles: the first event can wait for them as well.
const PREWARM_TIMEOUT: Duration = Duration::from_secs(3);

/// The parts.
#[derive(Debug)]
pub struct App {
    /// What the operator decided.
    pub config: Arc<Config>,
    /// What must not be told.
    pub secrets: SecretsStore,
    /// Who we are to Alibaba Cloud.
    pub credentials: CredentialsProvider,
    /// The approvals.
    pub store: Store,
    /// What processes share for a while.
    pub notes: Notes,
    /// The one client.
    pub http: reqwest::Client,
    /// What this process remembers of chat platforms.
    pub platforms: platform::AppStates,
    /// How many cards an account gets.
    pub card_rate: CardRateLimiter,
    /// How many readings people may cause.
    pub read_budget: ReadBudget,
    /// The peering API of each target, by name.
    pub alicloud: BTreeMap<String, Alicloud>,
}

/// Why the program can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The environment or `peergate.toml` is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// There is no HTTP client.
    #[error(transparent)]
    Http(#[from] http::Error),
}

impl App {
    /// Builds the parts; asks nobody anything yet.
    pub fn new(environment: &Environment, config: Config) -> Result<Self, Error> {
        let clients = match &environment.ca_file {
            None => http::Clients::new()?,
            Some(path) => http::Clients::with_roots(&std::fs::read(path).map_err(|_| http::Error::Roots)?)?,
        };
        let http = clients.shared().clone();
        for name in &config.renamed_tables {
            tracing::warn!(
                outcome = "old_key",
                key = name,
                "a table has the name of an earlier version: call it platforms.NAME"
            );
        }
        let config = Arc::new(config);
        let aws = &environment.aws;
        let sdk = aws::sdk_config(aws, clients.clone());
        let endpoint = aws.dynamodb_endpoint.as_ref();
        let store = Store::new(&sdk, endpoint, http.clone(), environment.table.clone(), config.retention);
        let api = |target: &config::Target| {
            Alicloud::new(clients.clone(), target.endpoint.clone(), target.signature, target.calls_per_minute)
        };
        Ok(Self {
            secrets: SecretsStore::new(
                environment.secrets.clone(),
                &sdk,
                aws.secrets_manager_endpoint.as_ref(),
                Arc::clone(&config),
            ),
            credentials: CredentialsProvider::new(clients.clone(), aws.clone(), Arc::clone(&config)),
            notes: store.notes(),
            store,
            alicloud: config.targets.iter().map(|(name, target)| (name.clone(), api(target))).collect(),
            platforms: platform::AppStates::default(),
            card_rate: CardRateLimiter::default(),
            read_budget: ReadBudget::default(),
            http,
            config,
        })
    }

    /// What platforms work with.
    #[must_use]
    pub fn chat_context<'a>(&'a self, secrets: &'a SecretSet) -> platform::ChatContext<'a> {
        platform::ChatContext {
            http: &self.http,
            notes: &self.notes,
            configs: &self.config.platforms,
            secrets: &secrets.platforms,
            channel_secrets: &secrets.channels,
            states: &self.platforms,
            binding_keys: &secrets.binding_keys,
        }
    }

    /// Builds the parts as the process's environment says.
    pub fn from_process() -> Result<Self, Error> {
        let environment = Environment::from_process()?;
        let config = Config::load(&environment.config)?;
        Self::new(&environment, config)
    }

    /// Fetches the secrets and opens the connections that the first event will need, all at once. Who does not answer
    /// now may answer later.
    ///
    /// # Errors
    /// When the secrets are malformed, or lack what the configuration needs: nothing could be done with them.
    pub async fn prewarm(&self) -> Result<(), secrets::Error> {
        // Targets share an address, as a rule. An approval makes two calls at once.
        let addresses: BTreeSet<_> = self.alicloud.values().map(Alicloud::endpoint).collect();
        let alicloud = join_all(addresses.into_iter().map(|url| http::prewarm_two(&self.http, url.as_str())));
        let now = clock::now();
        let (secrets, _, (), _) = tokio::join!(
            self.secrets.current(now),
            timeout(PREWARM_TIMEOUT, self.credentials.refresh(&self.secrets, now)),
            self.store.prewarm(),
            alicloud
        );
        match secrets {
            Ok(_) => Ok(()),
            Err(error @ secrets::Error::Unavailable(_)) => {
                tracing::error!(outcome = "no_secrets", error = %error, "the secrets could not be read at start");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
