//! The HTTP client that Alibaba Cloud, the chat platforms and AWS share, with one TLS configuration and one pool. Also
//! parsers for the headers that all servers send: `Retry-After` and `Date`.

mod unreachable;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::{SignedDuration, Timestamp, civil, tz};
use reqwest::{NoProxy, Proxy, redirect};
use rustls::CipherSuite;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

pub use unreachable::Unreachable;

use crate::redaction::KeyProblem;

/// The time to open a connection, with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The time for a request and its response, unless the caller sets a shorter one.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle connection is closed after this time. Load balancers forget it after 60 s by default.
///
/// Source: <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html> and
/// <https://www.alibabacloud.com/help/en/slb/classic-load-balancer/developer-reference/api-slb-2014-05-15-createloadbalancerhttplistener>
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Requests to this machine never use a proxy.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";
/// The largest response body. A page of 100 connections has about 100 kB.
const MAX_RESPONSE_BYTES: usize = 4 * 1024 * 1024;

/// The name of peergate in its requests.
const USER_AGENT: &str = concat!("peergate/", env!("CARGO_PKG_VERSION"));

/// A longer code or request id is cut.
const MAX_WORD_CHARS: usize = 80;

/// Why the HTTP client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The TLS library refuses the configuration.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The additional certificates cannot be used: why not.
    #[error("{0}")]
    Roots(String),
    /// The file of additional certificates cannot be used.
    #[error("cannot use {path} (PEERGATE_CA_FILE): {problem}")]
    CaFile {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An environment variable does not name a proxy.
    #[error("environment variable {0} is malformed: expected the URL of a proxy, e.g. http://proxy.example.com:3128")]
    Proxy(&'static str),
    /// The HTTP library refuses the configuration.
    #[error("cannot build the HTTP client")]
    Client(#[from] reqwest::Error),
}

/// The shared client of [`Clients::new`].
pub fn new_client() -> Result<reqwest::Client, Error> {
    Ok(Clients::new()?.shared)
}

/// The shared client, and a replacement for the time when its idle connections are dead.
///
/// A network may drop a connection without a sign. The HTTP client does not notice, and would use the next connection of
/// its pool, which is dead, too. A new client has its own pool. With the same TLS configuration it resumes the sessions
/// of the first client. It is built only when it is needed.
#[derive(Debug, Clone)]
pub struct Clients {
    shared: reqwest::Client,
    tls: Option<rustls::ClientConfig>,
    latest: Arc<Mutex<PooledClient>>,
}

/// A client, and the number of clients that came before it.
#[derive(Debug, Clone)]
pub struct PooledClient {
    /// Has its own pool of connections.
    pub client: reqwest::Client,
    sequence: u64,
}

impl Clients {
    /// Builds the shared client. It follows no redirect, and trusts the compiled-in root certificates.
    pub fn new() -> Result<Self, Error> {
        Self::with_root_store(rustls::RootCertStore::empty())
    }

    /// Like [`Clients::new`], but the client trusts the certificates of a file, too.
    pub fn with_ca_file(path: &Path) -> Result<Self, Error> {
        let unusable = |problem: String| Error::CaFile { path: path.into(), problem };
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        Self::with_roots(&pem)
            .map_err(|error| if let Error::Roots(problem) = error { unusable(problem) } else { error })
    }

    /// Like [`Clients::new`], but the client trusts the certificates in `pem`, too.
    pub fn with_roots(pem: &[u8]) -> Result<Self, Error> {
        let mut roots = rustls::RootCertStore::empty();
        for (position, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let number = position.saturating_add(1);
            let certificate = certificate.map_err(|_| Error::Roots(format!("certificate {number} is not PEM")))?;
            let added = roots.add(certificate);
            added.map_err(|_| Error::Roots(format!("certificate {number} cannot be a trusted authority")))?;
        }
        if roots.is_empty() {
            Err(Error::Roots("it has no certificate in PEM".into()))
        } else {
            Self::with_root_store(roots)
        }
    }

    fn with_root_store(mut roots: rustls::RootCertStore) -> Result<Self, Error> {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        // If the server has no preference, it takes the first suite: this one has the cheapest hash.
        let mut provider = ring::default_provider();
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let clients = Self::from(build_client(tls.clone())?);
        Ok(Self { tls: Some(tls), ..clients })
    }

    /// A client that connects to these servers only. A request to any other server goes to `refuse_at` instead, as to a
    /// proxy, and that server refuses it. So no configuration makes the client leave this machine. `function` names the
    /// sender in the user agent.
    ///
    /// # Errors
    /// As [`Clients::new`].
    #[cfg(feature = "local")]
    pub fn confined(servers: Vec<Url>, refuse_at: Url, function: &str) -> Result<Self, Error> {
        let is_known = move |url: &Url| servers.iter().any(|server| server.origin() == url.origin());
        let proxy = Proxy::custom(move |url| (!is_known(url)).then(|| refuse_at.clone()));
        let tls = Self::new()?.tls.ok_or_else(|| Error::Roots("no TLS configuration".to_owned()))?;
        let agent = format!("{USER_AGENT} ({function})");
        // Without the TLS configuration, no other client replaces this one.
        Ok(Self::from(client_builder(tls).no_proxy().proxy(proxy).user_agent(agent).build()?))
    }

    /// The client that is never replaced.
    #[must_use]
    pub fn shared(&self) -> &reqwest::Client {
        &self.shared
    }

    /// The client whose connections are most likely alive.
    #[must_use]
    pub fn latest(&self) -> PooledClient {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A client without the connections of `stale`. [`Clients::replace_latest`] makes it the latest one.
    #[must_use]
    pub fn fresh_client(&self, stale: &PooledClient) -> PooledClient {
        let latest = self.latest();
        let built = if latest.sequence > stale.sequence {
            None
        } else {
            self.tls.clone().and_then(|tls| build_client(tls).ok())
        };
        built.map_or(latest, |client| PooledClient { client, sequence: stale.sequence.saturating_add(1) })
    }

    /// Makes `fresh` the latest client, unless there is a later one.
    pub fn replace_latest(&self, fresh: &PooledClient) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.sequence > latest.sequence {
            *latest = fresh.clone();
        }
    }
}

/// A single client that has no replacement.
impl From<reqwest::Client> for Clients {
    fn from(client: reqwest::Client) -> Self {
        let latest = Arc::new(Mutex::new(PooledClient { client: client.clone(), sequence: 0 }));
        Self { shared: client, tls: None, latest }
    }
}

impl From<&reqwest::Client> for Clients {
    fn from(client: &reqwest::Client) -> Self {
        client.clone().into()
    }
}

/// The client never sends a request twice: reqwest's retries are off. (hyper resends a request only if the connection
/// closed before any of it was sent.)
fn build_client(tls: rustls::ClientConfig) -> Result<reqwest::Client, Error> {
    let mut builder = client_builder(tls).no_proxy();
    for proxy in environment_proxies()? {
        builder = builder.proxy(proxy);
    }
    Ok(builder.build()?)
}

fn client_builder(tls: rustls::ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .user_agent(USER_AGENT)
}

/// The proxies of the environment. The variables are those that reqwest reads, but reqwest makes no exception for this
/// machine.
fn environment_proxies() -> Result<Vec<Proxy>, Error> {
    #[expect(clippy::disallowed_methods, reason = "reqwest reads the same variables, but makes no exception")]
    let variable = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| {
            let value = std::env::var(name).ok().filter(|value| !value.trim().is_empty())?;
            Some((name, value))
        })
    };
    let never = variable(["NO_PROXY", "no_proxy"]).map(|(_, value)| value).unwrap_or_default();
    let never = format!("{LOOPBACK},{never}");
    // In a CGI program, `HTTP_PROXY` is a header that the caller sent.
    let is_cgi = variable(["REQUEST_METHOD", "REQUEST_METHOD"]).is_some();
    let proxies = [
        variable(["HTTP_PROXY", "http_proxy"]).filter(|_| !is_cgi).map(|(name, url)| (name, Proxy::http(url))),
        variable(["HTTPS_PROXY", "https_proxy"]).map(|(name, url)| (name, Proxy::https(url))),
        variable(["ALL_PROXY", "all_proxy"]).map(|(name, url)| (name, Proxy::all(url))),
    ];
    let proxies = proxies.into_iter().flatten().map(|(name, proxy)| {
        proxy.map(|proxy| proxy.no_proxy(NoProxy::from_string(&never))).map_err(|_| Error::Proxy(name))
    });
    proxies.collect()
}

/// The variables of the environment that name a proxy. Requests to this machine never use one.
#[must_use]
pub fn proxy_variables() -> Vec<&'static str> {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        .into_iter()
        .filter(is_set)
        .collect()
}

/// Reads the body of a response. A body over 4 MiB is cut, so that its parser finds it malformed.
///
/// # Errors
/// When the connection breaks.
pub async fn read_body(mut response: reqwest::Response) -> Result<Bytes, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_RESPONSE_BYTES {
            break;
        }
    }
    Ok(body.freeze())
}

/// Opens a connection and leaves it in the pool for the first call. A failure has no consequences.
pub async fn prewarm(client: &reqwest::Client, url: &str) {
    let _ = client.head(url).timeout(CONNECT_TIMEOUT).send().await;
}

/// Like [`prewarm`], but leaves two connections. The second one resumes the TLS session of the first, so the certificate
/// is verified once.
pub async fn prewarm_two(client: &reqwest::Client, url: &str) {
    prewarm(client, url).await;
    tokio::join!(prewarm(client, url), prewarm(client, url));
}

/// The code of a failed request, for logs and records.
#[must_use]
pub fn transport_code(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "Transport.Timeout"
    } else if error.is_connect() {
        "Transport.Connect"
    } else {
        "Transport.Broken"
    }
}

/// The code of a failed request, and the reason in words.
#[must_use]
pub fn describe_transport(error: &reqwest::Error) -> String {
    let host = error.url().and_then(Url::host_str).map(|host| format!("{host}: ")).unwrap_or_default();
    format!("{} ({host}{})", transport_code(error), Unreachable::of(error))
}

/// Parses a constant URL.
#[expect(clippy::expect_used, reason = "a constant")]
pub(crate) fn constant_url(text: &str) -> Url {
    Url::parse(text).expect("a valid URL")
}

/// Checks the URL of an API, which stands under `key` in the configuration.
///
/// # Errors
/// When it is not secure, or has more than an address.
pub fn check_endpoint(key: &str, url: &Url) -> Result<(), KeyProblem> {
    if !is_secure(url) {
        let host = url.host_str().filter(|host| url.scheme() == "http" && host.len() <= MAX_WORD_CHARS);
        let found = host.map_or_else(|| "another scheme".to_owned(), |host| format!("http to {host}"));
        return KeyProblem::err_at(key, format!("only https is allowed, except on loopback, found {found}"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return KeyProblem::err_at(key, "a URL with a user, password, query or fragment is not allowed");
    }
    Ok(())
}

/// Whether nobody can read requests to this URL on the way: it is https, or http on loopback.
#[must_use]
pub fn is_secure(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.host().is_some() && (url.scheme() == "https" || (url.scheme() == "http" && loopback))
}

/// A code or request id that is safe in a log line: at most 80 letters, digits, dots, underscores and hyphens. `None` if it
/// has other characters.
#[must_use]
pub fn log_safe_word(text: &str) -> Option<String> {
    let text = text.trim();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_one = !text.is_empty() && text.bytes().all(allowed);
    is_one.then(|| text.chars().take(MAX_WORD_CHARS).collect())
}

/// Parses a `Retry-After` header: seconds, with or without a fraction, or a date. A large number saturates, and each
/// caller sets its own limit.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3>
#[must_use]
pub fn parse_retry_after(text: &str, now: Timestamp) -> Option<SignedDuration> {
    let whole_seconds = |wait: SignedDuration| {
        let seconds = wait.as_secs() + i64::from(wait.subsec_nanos() > 0);
        SignedDuration::from_secs(seconds.max(0))
    };
    parse_rounded_up(text).map(|seconds| SignedDuration::from_secs(i64::from(seconds))).or_else(|| {
        let date = parse_date(text)?;
        Some(whole_seconds(date.duration_since(now)))
    })
}

/// Parses Alibaba Cloud's header `x-acs-retry-after`: milliseconds.
#[must_use]
pub fn parse_retry_after_millis(text: &str) -> Option<SignedDuration> {
    parse_rounded_up(text).map(|millis| SignedDuration::from_millis(i64::from(millis)))
}

/// Parses a number without a sign, and rounds it up. A large number saturates.
fn parse_rounded_up(text: &str) -> Option<u32> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let up = u32::from(fraction.bytes().any(|byte| byte != b'0'));
    Some(whole.parse::<u32>().unwrap_or(u32::MAX).saturating_add(up))
}

/// Parses an HTTP date in any of its three forms. The name of the day is ignored.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7>
#[must_use]
pub fn parse_date(text: &str) -> Option<Timestamp> {
    let (_day, rest) = text.trim().split_once([',', ' '])?;
    let rest = rest.trim();
    let rest = rest.strip_suffix("GMT").or_else(|| rest.strip_suffix("UTC")).unwrap_or(rest).trim_end();
    let forms = ["%d %b %Y %H:%M:%S", "%d-%b-%y %H:%M:%S", "%b %e %H:%M:%S %Y"];
    let date = forms.iter().find_map(|form| civil::DateTime::strptime(form, rest).ok())?;
    date.to_zoned(tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-25T21:00:00.5Z";

    #[test]
    fn retry_after_is_read_as_seconds_or_date_and_rounded_up() {
        let now = NOW.parse().unwrap();
        let day = 86_400;
        let cases = [
            ("0", Some(0)),
            ("30", Some(30)),
            (" 30 ", Some(30)),
            ("30.5", Some(31)),
            ("30.0", Some(30)),
            ("30.", Some(30)),
            ("0.001", Some(1)),
            ("86400", Some(day)),
            ("65536", Some(65_536)),
            ("4294967295.9", Some(i64::from(u32::MAX))),
            ("99999999999999999999999999", Some(i64::from(u32::MAX))),
            ("Wed, 25 Nov 2026 21:00:31 GMT", Some(31)),
            ("Fri, 25 Nov 2026 21:00:31 GMT", Some(31)),
            ("Thu, 26 Nov 2026 21:00:00 GMT", Some(day)),
            ("Wednesday, 25-Nov-26 21:00:31 GMT", Some(31)),
            ("Wed Nov 25 21:00:31 2026", Some(31)),
            ("Tue Dec  1 21:00:00 2026", Some(6 * day)),
            ("Wed, 25 Nov 2026 20:00:00 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("NaN", None),
            (".5", None),
            ("soon", None),
            ("Wed, 99 Nov 2026 21:00:31 GMT", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_retry_after(text, now).map(|wait| wait.as_secs()), expected, "{text:?}");
        }
    }

    #[test]
    fn vendor_retry_after_is_read_in_milliseconds() {
        let cases = [("1500", Some(1500)), ("1500.2", Some(1501)), ("5000000000", Some(4_294_967_295)), ("soon", None)];
        for (text, expected) in cases {
            assert_eq!(parse_retry_after_millis(text).map(|wait| wait.as_millis()), expected, "{text:?}");
        }
    }

    #[test]
    fn stale_client_never_replaces_a_newer_one() {
        let clients = Clients::new().unwrap();
        let stale = clients.latest();
        let (one, other) = (clients.fresh_client(&stale), clients.fresh_client(&stale));
        assert_eq!((stale.sequence, one.sequence, other.sequence, clients.latest().sequence), (0, 1, 1, 0));
        clients.replace_latest(&one);
        clients.replace_latest(&stale);
        assert_eq!(
            (clients.latest().sequence, clients.fresh_client(&stale).sequence, clients.fresh_client(&one).sequence),
            (1, 1, 2)
        );
    }

    #[test]
    fn plain_http_is_allowed_on_loopback_only() {
        for (url, secure) in [
            ("https://vpcpeer.aliyuncs.com", true),
            ("http://127.0.0.1:80", true),
            ("http://[::1]:80", true),
            ("http://localhost", true),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
            ("ftp://127.0.0.1", false),
        ] {
            assert_eq!(is_secure(&Url::parse(url).unwrap()), secure, "{url}");
        }
    }
}
