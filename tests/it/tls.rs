//! The certificates that the HTTP client trusts.

use std::sync::Arc;
use std::time::Duration;

use peergate::http::{self, Unreachable};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A server on loopback with an unknown certificate. Returns its address and the certificate in PEM.
async fn server() -> (String, String) {
    server_until(2100).await
}

/// Like [`server`], with a certificate that expires at the beginning of a year.
async fn server_until(year: i32) -> (String, String) {
    let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    });
    (url, certificate.pem())
}

#[tokio::test]
async fn untrusted_certificate_is_refused_unless_it_is_in_the_file() {
    let (url, pem) = server().await;
    let refused = http::new_client().unwrap().get(&url).send().await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
    assert_eq!(Unreachable::of(&refused), Unreachable::UntrustedCertificate);
    let (_, other) = server().await;
    assert!(http::Clients::with_roots(other.as_bytes()).unwrap().shared().get(&url).send().await.is_err());
    let response = http::Clients::with_roots(pem.as_bytes()).unwrap().shared().get(&url).send().await.unwrap();
    assert_eq!(response.status(), 204);
}

#[tokio::test]
async fn server_that_gives_no_answer_is_explained() {
    let (url, pem) = server().await;
    let port = url.rsplit(':').next().unwrap();
    let trusting = http::Clients::with_roots(pem.as_bytes()).unwrap();
    let other = trusting.shared().get(format!("https://localhost:{port}")).send().await.unwrap_err();
    let expected = format!("Transport.Connect (localhost: {})", Unreachable::OtherCertificate);
    assert_eq!(http::describe_transport(&other), expected);
    let (url, pem) = server_until(2020).await;
    let expired = http::Clients::with_roots(pem.as_bytes()).unwrap().shared().get(&url).send().await.unwrap_err();
    assert_eq!(Unreachable::of(&expired), Unreachable::OutdatedCertificate);
    let client = http::new_client().unwrap();
    let unanswered = |url: String| client.get(url).timeout(Duration::from_millis(300)).send();
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap();
    // The connection opens, because the system accepts it.
    let silent = unanswered(format!("http://{address}/secret")).await.unwrap_err();
    assert_eq!(http::describe_transport(&silent), "Transport.Timeout (127.0.0.1: no answer comes in time)");
    drop(plain);
    for (url, reason) in
        [(format!("http://{address}/"), Unreachable::Refused), ("http://name.invalid/".to_owned(), Unreachable::Name)]
    {
        let error = client.get(&url).send().await.unwrap_err();
        assert_eq!(Unreachable::of(&error), reason, "{error:?}");
        assert_eq!(Unreachable::named_in(&http::describe_transport(&error)), Some(reason));
    }
}

#[test]
fn ca_file_without_certificates_is_refused() {
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    let unusable = |pem: &str| {
        std::fs::write(file.path(), pem).unwrap();
        http::Clients::with_ca_file(file.path()).unwrap_err().to_string()
    };
    let name = format!("cannot use {} (PEERGATE_CA_FILE): ", file.path().display());
    assert_eq!(unusable(""), format!("{name}it has no certificate in PEM"));
    assert_eq!(unusable("not PEM"), format!("{name}it has no certificate in PEM"));
    assert_eq!(unusable(broken), format!("{name}certificate 1 cannot be a trusted authority"));
    let broken = broken.replace("AAAA", "?");
    assert_eq!(unusable(&broken), format!("{name}certificate 1 is not PEM"));
}
