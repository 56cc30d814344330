//! The clients and caches that both functions use. A process builds them once, at cold start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::alicloud::Alicloud;
use crate::chat::{CardRateLimiter, Pacer, platform};
use crate::config::{self, Config, Environment};
use crate::credentials::CredentialsProvider;
use crate::http;
use crate::notes::Notes;
use crate::read_budget::ReadBudget;
use crate::secrets::{self, SecretSet, SecretsStore};
use crate::store::Store;
use crate::used_cidrs::UsedCidrsCache;
use crate::{aws, clock};

/// The longest that a start waits for the sessions of roles. If they are not ready by then, the first event waits.
const PREWARM_TIMEOUT: Duration = Duration::from_secs(3);

/// The parts of a process.
#[derive(Debug)]
pub struct App {
    /// The operator's configuration.
    pub config: Arc<Config>,
    /// Fetches the secrets.
    pub secrets: SecretsStore,
    /// Gets the credentials for Alibaba Cloud.
    pub credentials: CredentialsProvider,
    /// Stores the approvals.
    pub store: Store,
    /// Stores what processes share for a while.
    pub notes: Notes,
    /// The shared HTTP client.
    pub http: reqwest::Client,
    /// What this process caches for each chat platform.
    pub platforms: platform::AppStates,
    /// Limits the cards of an account.
    pub card_rate: Arc<CardRateLimiter>,
    /// Paces posts to channels.
    pub pacer: Arc<Pacer>,
    /// Limits the reads that people cause.
    pub read_budget: Arc<ReadBudget>,
    /// The CIDR blocks of all peerings, while changes of activated connections are checked.
    pub used_cidrs: UsedCidrsCache,
    /// The peering API, by target.
    pub alicloud: BTreeMap<String, Alicloud>,
}

/// Why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The environment or `peergate.toml` is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The HTTP client cannot be built.
    #[error(transparent)]
    Http(#[from] http::Error),
}

impl App {
    /// Builds the parts. It makes no call yet.
    pub fn new(environment: &Environment, config: Config) -> Result<Self, Error> {
        let clients = match &environment.ca_file {
            None => http::Clients::new()?,
            Some(path) => http::Clients::with_ca_file(path)?,
        };
        Ok(Self::with_clients(environment, config, &clients))
    }

    /// Builds the parts around these HTTP clients.
    #[must_use]
    pub fn with_clients(environment: &Environment, config: Config, clients: &http::Clients) -> Self {
        let http = clients.shared().clone();
        for name in &config.renamed_tables {
            tracing::warn!(
                outcome = "old_key",
                key = name,
                "a table has the name that an earlier version used; rename it to platforms.NAME"
            );
        }
        let config = Arc::new(config);
        let aws = &environment.aws;
        let sdk = aws::sdk_config(aws, clients.clone());
        let store = Store::new(
            &aws::dynamodb_sdk_config(aws, clients.clone()),
            aws.dynamodb_endpoint.as_ref(),
            // A table in this process needs no connection.
            aws.dynamodb_client.is_none().then(|| http.clone()),
            environment.table.clone(),
            config.retention,
        );
        let api = |target: &config::Target| {
            Alicloud::new(clients.clone(), target.endpoint.clone(), target.signature, target.calls_per_minute)
                .with_vpc_endpoint(target.vpc_endpoint.clone())
        };
        Self {
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
            card_rate: Arc::default(),
            pacer: Arc::default(),
            read_budget: Arc::default(),
            used_cidrs: UsedCidrsCache::default(),
            http,
            config,
        }
    }

    /// What the code of a chat platform needs.
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

    /// The parts for another configuration in the same process. Limits on calls, reads, cards and posts go on as they are, so
    /// that a reload resets none. (A target with another `account` or `calls_per_minute` begins with a new limit.)
    ///
    /// # Errors
    /// As [`App::new`].
    #[cfg(feature = "local")]
    pub fn reloaded(&self, environment: &Environment, config: Config) -> Result<Self, Error> {
        let mut app = Self::new(environment, config)?;
        (app.card_rate, app.read_budget) = (Arc::clone(&self.card_rate), Arc::clone(&self.read_budget));
        app.pacer = Arc::clone(&self.pacer);
        let limit_of = |config: &Config, name: &str| {
            config.targets.get(name).map(|target| (target.account, target.calls_per_minute))
        };
        for (name, api) in &mut app.alicloud {
            if let Some(earlier) = self.alicloud.get(name)
                && limit_of(&self.config, name) == limit_of(&app.config, name)
            {
                *api = api.clone().with_rate_limit_of(earlier);
            }
        }
        Ok(app)
    }

    /// Builds the parts from the environment of the process.
    pub fn from_process() -> Result<Self, Error> {
        let environment = Environment::from_process()?;
        let config = Config::load(&environment.config)?;
        Self::new(&environment, config)
    }

    /// Fetches the secrets, and opens the connections for the first event. A service that does not answer is no error,
    /// because it may answer later.
    ///
    /// # Errors
    /// When the secrets are malformed or incomplete.
    pub async fn prewarm(&self) -> Result<(), secrets::Error> {
        // Most targets have the same endpoint. An approval makes two calls at the same time.
        let endpoints: BTreeSet<_> = self.alicloud.values().map(Alicloud::endpoint).collect();
        let alicloud = join_all(endpoints.into_iter().map(|url| http::prewarm_two(&self.http, url.as_str())));
        let now = clock::now();
        let (secrets, _, (), _) = tokio::join!(
            self.secrets.current(now),
            timeout(PREWARM_TIMEOUT, self.credentials.renew_expiring_sessions(&self.secrets, now)),
            self.store.prewarm(),
            alicloud
        );
        match secrets {
            Ok(_) => Ok(()),
            Err(error @ secrets::Error::Unavailable(_)) => {
                tracing::error!(outcome = "no_secrets", error = %error, "could not fetch the secrets at start");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
