//! The certificates that the HTTP client trusts.

use std::sync::Arc;

use peergate::http;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A server on loopback with an unknown certificate. Returns its address and the certificate in PEM.
async fn server() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
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
    (url, made.cert.pem())
}

#[tokio::test]
async fn untrusted_certificate_is_refused_unless_it_is_in_the_file() {
    let (url, pem) = server().await;
    let refused = http::new_client().unwrap().get(&url).send().await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
    let (_, other) = server().await;
    assert!(http::Clients::with_roots(other.as_bytes()).unwrap().shared().get(&url).send().await.is_err());
    let response = http::Clients::with_roots(pem.as_bytes()).unwrap().shared().get(&url).send().await.unwrap();
    assert_eq!(response.status(), 204);
}

#[test]
fn ca_file_without_certificates_is_refused() {
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for pem in ["", "not PEM", broken] {
        assert!(matches!(http::Clients::with_roots(pem.as_bytes()), Err(http::Error::Roots)), "{pem:?}");
    }
}
