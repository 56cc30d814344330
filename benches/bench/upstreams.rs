//! The services that the functions call, each behind TLS on loopback: the simulated API, a table, a fake secrets store and
//! a fake chat platform. The simulator adds the latency of the API.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use peergate::config::{Config, SecretsSource};
use peergate::fake::alicloud::{SimulatedAccount, SimulatorSettings};
use peergate::http;
use peergate::local::Error;
use peergate::local::sandbox::Sandbox;
use peergate::peering::AccountId;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::memory;

/// The accepting accounts, by the names of their targets.
pub const ACCOUNTS: [(&str, u64); 4] = [
    ("prod", 2_222_222_222_222_222),
    ("data", 3_333_333_333_333_333),
    ("edge", 4_444_444_444_444_444),
    ("test", 5_555_555_555_555_555),
];

/// All services for a function, and its environment.
pub struct World {
    /// The simulator, the table and the fake chat platform, without TLS.
    pub sandbox: Sandbox,
    /// The table with TLS.
    pub table: Upstream,
    /// A file with the secrets that the function gets from the secrets store.
    pub secrets: PathBuf,
    /// The environment of the functions.
    pub environment: Vec<(String, String)>,
    _directory: TempDir,
}

/// A server behind TLS.
pub struct Upstream {
    /// E.g. `https://127.0.0.1:1234`.
    pub url: String,
    requests: Arc<AtomicUsize>,
}

/// Where the records are stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// In [`memory::table`], which costs almost nothing and has few operations.
    Memory,
    /// In the table of the sandbox.
    Sandbox,
}

impl Upstream {
    /// The number of requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// The certificate authority of the services.
struct Authority {
    acceptor: TlsAcceptor,
    pem: String,
}

impl World {
    /// Starts all services for the accepting accounts [`ACCOUNTS`]. `change` adapts the configuration.
    pub async fn start(table: Table, change: impl Fn(&str) -> String) -> Result<Self, Error> {
        let mut settings = SimulatorSettings {
            calls_per_minute: None,
            activation_delay: std::time::Duration::ZERO,
            ..SimulatorSettings::default()
        };
        settings.accounts.extend(ACCOUNTS.iter().skip(1).map(|(name, account)| SimulatedAccount {
            account: AccountId(*account),
            access_key_id: format!("{name}-key"),
            access_key_secret: format!("{name}-secret"),
            vpcs: [].into(),
        }));
        let mut sandbox = Sandbox::start(settings).await?;
        sandbox.write_secrets(|secrets| {
            for (name, _) in ACCOUNTS.iter().skip(1) {
                let key =
                    json!({"access_key_id": format!("{name}-key"), "access_key_secret": format!("{name}-secret")});
                if let Some(targets) = secrets.get_mut("targets").and_then(Value::as_object_mut) {
                    targets.insert((*name).to_owned(), key);
                }
            }
        })?;
        let others = ACCOUNTS.iter().skip(1).map(|(name, account)| {
            format!(
                "[targets.{name}]\naccount = \"{account}\"\nregions = []\nendpoint = \"{}\"\n\n",
                sandbox.alicloud_url
            )
        });
        let config = sandbox.config.replace("[clients.ci]", &format!("{}[clients.ci]", others.collect::<String>()));
        let authority = Authority::new()?;
        let alicloud = authority.serve(sandbox.simulator.clone().router()).await?;
        let chat = authority.serve(sandbox.slack.clone().router()).await?;
        let table = match table {
            Table::Memory => {
                // The benchmark writes what the watcher would have written.
                let memory = memory::table();
                let tcp = TcpListener::bind("127.0.0.1:0").await?;
                sandbox.environment.aws.dynamodb_endpoint = Some(format!("http://{}", tcp.local_addr()?));
                let plain = memory.clone();
                tokio::spawn(async move { axum::serve(tcp, plain).await });
                authority.serve(memory).await?
            }
            Table::Sandbox => {
                let plain = sandbox.environment.aws.dynamodb_endpoint.clone().unwrap_or_default();
                authority.serve(passing_on(plain)?).await?
            }
        };
        let plain = change(&config);
        sandbox.reconfigure(&plain)?;
        let config = plain
            .replace(sandbox.alicloud_url.as_str(), &format!("{}/", alicloud.url))
            .replace(sandbox.chat_url.as_str(), &format!("{}/", chat.url));
        Config::parse(&config)?;
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        let (config_path, ca_path) = (path("peergate.toml"), path("ca.pem"));
        std::fs::write(&config_path, config)?;
        std::fs::write(&ca_path, &authority.pem)?;
        let SecretsSource::File(secrets) = &sandbox.environment.secrets else { return Err("secrets in a file".into()) };
        let secrets = std::fs::read_to_string(secrets)?.replace(sandbox.chat_url.as_str(), &format!("{}/", chat.url));
        let secrets_path = path("secrets.json");
        std::fs::write(&secrets_path, &secrets)?;
        let secrets = authority.serve(secrets_manager(secrets)).await?;
        let ca = ca_path.to_string_lossy().into_owned();
        let environment = [
            ("AWS_REGION", "eu-central-1"),
            ("AWS_DEFAULT_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "local"),
            ("AWS_SECRET_ACCESS_KEY", &sandbox.environment.aws.secret_access_key),
            ("AWS_ENDPOINT_URL_DYNAMODB", &table.url),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &secrets.url),
            ("PEERGATE_CONFIG", &config_path.to_string_lossy()),
            ("PEERGATE_TABLE", &sandbox.environment.table),
            ("PEERGATE_SECRETS", "peergate"),
            ("PEERGATE_CA_FILE", &ca),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
            // The names of the same settings in Python's libraries.
            ("AWS_CA_BUNDLE", &ca),
            ("REQUESTS_CA_BUNDLE", &ca),
            ("SSL_CERT_FILE", &ca),
            ("ALIBABA_CLOUD_ENDPOINT", alicloud.url.trim_start_matches("https://")),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Ok(Self { sandbox, table, secrets: secrets_path, environment, _directory: directory })
    }
}

impl Authority {
    fn new() -> Result<Self, Error> {
        let key = KeyPair::from_pem(&rsa_key()?)?;
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.self_signed(&key)?;
        let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key.into())?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), pem: certificate.pem() })
    }

    /// Serves a router over TLS.
    async fn serve(&self, router: Router) -> Result<Upstream, Error> {
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}", tcp.local_addr()?);
        let requests = Arc::new(AtomicUsize::new(0));
        let count = axum::middleware::from_fn_with_state(Arc::clone(&requests), count);
        let listener = TlsListener { tcp, acceptor: self.acceptor.clone() };
        tokio::spawn(async move { axum::serve(listener, router.layer(count)).await });
        Ok(Upstream { url, requests })
    }
}

/// An RSA key with 2048 bits, as AWS and Alibaba Cloud use. Only the Python tools here can make one.
fn rsa_key() -> Result<String, Error> {
    const MAKE: &str = "
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
key = rsa.generate_private_key(65537, 2048)
form = serialization.PrivateFormat.PKCS8
print(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode())
";
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench/python/bin/python");
    let made = Command::new(python).args(["-c", MAKE]).output()?;
    Ok(String::from_utf8(made.stdout)?)
}

async fn count(State(requests): State<Arc<AtomicUsize>>, request: Request, next: Next) -> Response {
    requests.fetch_add(1, Ordering::SeqCst);
    next.run(request).await
}

/// Accepts TLS connections.
struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.tcp.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// Passes all requests on to a server without TLS.
fn passing_on(to: String) -> Result<Router, Error> {
    async fn pass(State((client, to)): State<(reqwest::Client, String)>, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        let mut headers = parts.headers;
        headers.remove("content-length");
        match client.request(parts.method, to).headers(headers).body(body).send().await {
            Ok(answer) => (answer.status(), answer.bytes().await.unwrap_or_default()).into_response(),
            Err(_) => StatusCode::BAD_GATEWAY.into_response(),
        }
    }
    Ok(Router::new().fallback(pass).with_state((http::new_client()?, to)))
}

/// Secrets Manager with one secret.
fn secrets_manager(secret: String) -> Router {
    async fn answer(State(secret): State<Arc<String>>) -> ([(&'static str, &'static str); 1], String) {
        let answer = json!({"Name": "peergate", "SecretString": *secret, "VersionId": "1"});
        ([("content-type", "application/x-amz-json-1.1")], answer.to_string())
    }
    Router::new().fallback(answer).with_state(Arc::new(secret))
}
