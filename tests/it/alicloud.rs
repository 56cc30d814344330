//! The API client against the simulator: both signature versions, temporary credentials, pages, refusals.

use crate::support::prelude::*;
use peergate::alicloud::sign::SignatureVersion;
use peergate::alicloud::{Alicloud, Class, Credentials, Error, ListScope};
use peergate::fake::alicloud::TemporaryCredentials;
use peergate::http;
use peergate::local::sandbox::Sandbox;
use peergate::peering::AccountId;

const VERSIONS: [SignatureVersion; 2] = [SignatureVersion::V3, SignatureVersion::V1];
const ACCEPTER: Credentials<'_> =
    Credentials { access_key_id: "accepter-key", access_key_secret: "accepter-secret", security_token: None };

fn client(app: &TestApp, version: SignatureVersion) -> Alicloud {
    Alicloud::new(http::new_client().unwrap(), app.alicloud_url.clone(), version, u32::MAX)
}

#[tokio::test]
async fn approval_is_carried_out_with_either_signature_version() {
    for version in VERSIONS {
        let app = TestApp::from_sandbox(Sandbox::start_with_signature(quick_settings(), version).await.unwrap());
        let id = app.new_request().await;
        assert_eq!(app.dry_run(&id, "alice").await.name(), "dry-run-passed");
        assert_eq!(app.approve(&id, "alice").await.name(), "accepted", "{version:?}");
        app.follow().await;
        assert_eq!(app.state_of(&id).await, "activated", "{version:?}");
    }
}

#[tokio::test]
async fn lists_come_in_pages_of_a_hundred() {
    let app = TestApp::with_settings(SimulatorSettings { calls_per_minute: None, ..quick_settings() }).await;
    let mut created = vec![];
    for _ in 0..230 {
        created.push(app.new_request().await);
    }
    for version in VERSIONS {
        let api = client(&app, version);
        let (mut listed, mut sizes, mut token) = (vec![], vec![], None);
        loop {
            let page =
                api.list_connections(ACCEPTER, ListScope::of_region("cn-shanghai"), token.as_deref()).await.unwrap();
            sizes.push(page.connections.len());
            listed.extend(page.connections.into_iter().map(|connection| connection.instance_id));
            token = page.next_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!((listed, sizes), (created.clone(), vec![100, 100, 30]), "{version:?}");
        assert!(
            api.list_connections(ACCEPTER, ListScope::of_region("eu-central-1"), None)
                .await
                .unwrap()
                .connections
                .is_empty()
        );
    }
}

#[tokio::test]
async fn malformed_connection_hides_no_other() {
    let app = TestApp::start().await;
    let odd = [r#"{"InstanceId": "pcc-a", "Status": null}"#, r#"{"InstanceId": 7}"#, "null", "[]", r#""pcc-a""#];
    for odd in odd {
        let fine = r#"{"InstanceId": "pcc-b", "Status": "Deleted"}"#;
        let raw =
            format!(r#"{{"RequestId": "R", "TotalCount": 2, "VpcPeerConnects": [{odd}, {fine}], "NextToken": ""}}"#);
        app.simulator.add_fault(Fault { raw: Some(raw), http_status: 200, ..Fault::default() });
        let page = client(&app, SignatureVersion::V3)
            .list_connections(ACCEPTER, ListScope::of_region("cn-shanghai"), None)
            .await
            .unwrap();
        let ids: Vec<_> = page.connections.iter().map(|connection| connection.instance_id.as_str()).collect();
        let left_out = page.unreadable.len();
        assert_eq!((ids, left_out, page.total, page.next_token), (vec!["pcc-b"], 1, Some(2), None), "{odd}");
    }
}

#[tokio::test]
async fn temporary_credentials_need_their_token() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let TemporaryCredentials { access_key_id: key, access_key_secret: secret, security_token: token } =
        app.simulator.temporary_credentials(AccountId(2_222_222_222_222_222)).unwrap();
    for version in VERSIONS {
        let api = client(&app, version);
        let with = |security_token| Credentials { access_key_id: &key, access_key_secret: &secret, security_token };
        assert_eq!(api.get_connection(with(Some(token.as_str())), &id).await.unwrap().instance_id, id);
        let error = api.get_connection(with(Some("another")), &id).await.unwrap_err();
        assert_eq!((error.code(), error.class()), ("InvalidSecurityToken.MismatchWithAccessKey", Class::Credentials));
        assert_eq!(api.get_connection(with(None), &id).await.unwrap_err().class(), Class::Credentials);
    }
}

#[tokio::test]
async fn refusal_carries_code_request_id_and_wait_but_no_message() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    for version in VERSIONS {
        let api = client(&app, version);
        let wrong = Credentials { access_key_secret: "wrong-secret", ..ACCEPTER };
        let error = api.get_connection(wrong, &id).await.unwrap_err();
        assert_eq!((error.code(), error.class()), ("SignatureDoesNotMatch", Class::Credentials));
        assert!(error.request_id().is_some_and(|id| id.len() == 32));
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("server string to sign") && !shown.contains("accepter-key"), "{shown}");
        app.simulator.add_fault(Fault {
            code: Some("Throttling.Api".to_owned()),
            retry_after_ms: Some(1500),
            ..Fault::default()
        });
        let error = api.get_connection(ACCEPTER, &id).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(jiff::SignedDuration::from_millis(1500)));
    }
}

#[tokio::test]
async fn unreachable_api_gives_a_retryable_error_without_address() {
    let id = "pcc-a".to_owned().try_into().unwrap();
    for version in VERSIONS {
        let closed = "http://127.0.0.1:9/".parse().unwrap();
        let api = Alicloud::new(http::new_client().unwrap(), closed, version, u32::MAX);
        let error = api.get_connection(ACCEPTER, &id).await.unwrap_err();
        assert!(matches!(error, Error::Transport(_)), "{error:?}");
        assert_eq!((error.code(), error.class()), ("Transport.Connect", Class::Retry));
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("accepter-key") && !shown.contains("127.0.0.1:9/"), "{shown}");
    }
}
