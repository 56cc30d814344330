//! The one HTTP client: one TLS configuration and one pool carry Alibaba Cloud, chat and AWS.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::redirect;
use rustls::CipherSuite;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// To be connected, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For a whole exchange, when nobody sets a shorter one.
const TIMEOUT: Duration = Duration::from_secs(10);
/// No answer that we read is larger: a page of 100 connections is about 100 kB.
const LARGEST_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TLS could not be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// What was to be trusted besides can't be.
    #[error("PEERGATE_CA_FILE cannot be read, or holds no certificates in PEM, or one that cannot be trusted")]
    Roots,
    /// The client could not be built.
    #[error("cannot build the HTTP client")]
    Client(#[from] reqwest::Error),
}

/// Makes the client. It follows no redirect, and trusts the roots that were compiled in.
pub fn client() -> Result<reqwest::Client, Error> {
    client_trusting(rustls::RootCertStore::empty())
}

/// As [`client`]; trusts the certificates in `pem` as well.
pub fn client_with_roots(pem: &[u8]) -> Result<reqwest::Client, Error> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|_| Error::Roots)?).map_err(|_| Error::Roots)?;
    }
    if roots.is_empty() { Err(Error::Roots) } else { client_trusting(roots) }
}

fn client_trusting(mut roots: rustls::RootCertStore) -> Result<reqwest::Client, Error> {
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    // Where the server does not mind, the suite whose hashes cost least.
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .user_agent(concat!("peergate/", env!("CARGO_PKG_VERSION")))
        .build()?;
    Ok(client)
}

/// Reads a body.
///
/// # Errors
/// When the connection breaks. A body that is too large is cut: what reads it will then find it malformed.
pub async fn read(mut response: reqwest::Response) -> Result<Bytes, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        body.extend_from_slice(&chunk);
        if body.len() > LARGEST_BODY_BYTES {
            break;
        }
    }
    Ok(body.freeze())
}

/// Opens a connection and leaves it in the pool, so that the first call finds it there. Failing is no harm.
pub async fn prewarm(client: &reqwest::Client, url: &str) {
    let _ = client.head(url).timeout(CONNECT_TIMEOUT).send().await;
}

/// As [`prewarm`], two connections: the second resumes the session of the first, and verifies no certificate again.
pub async fn prewarm_two(client: &reqwest::Client, url: &str) {
    prewarm(client, url).await;
    tokio::join!(prewarm(client, url), prewarm(client, url));
}

/// The word for a failed exchange, for logs and records.
#[must_use]
pub fn failure(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "Transport.Timeout"
    } else if error.is_connect() {
        "Transport.Connect"
    } else {
        "Transport.Broken"
    }
}
