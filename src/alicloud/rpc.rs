//! One call in Alibaba Cloud's RPC style: a form, signed in one of two ways or not at all; JSON back.

use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use url::Url;

use super::sign::{self, Parameters, SignatureVersion};
use super::{Class, Credentials, Error};
use crate::{clock, http, metrics};

const FORM: &str = "application/x-www-form-urlencoded";

/// An API at one address, signed in one way.
#[derive(Debug, Clone)]
pub(super) struct Rpc {
    pub(super) http: reqwest::Client,
    pub(super) endpoint: Url,
    pub(super) signature: SignatureVersion,
    pub(super) version: &'static str,
}

impl Rpc {
    /// Makes a call, and says so in the log; unsigned without credentials.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        action: &'static str,
        parameters: &[(&str, &str)],
        credentials: Option<Credentials<'_>>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let (answer, request_id) = match self.exchange(action, parameters, credentials).await {
            Ok((done, request_id)) => (Ok(done), request_id),
            Err(error) => {
                let request_id = error.request_id().map(ToOwned::to_owned);
                (Err(error), request_id)
            }
        };
        let error = answer.as_ref().err();
        let refused = error.is_some_and(|error| error.class() == Class::Credentials);
        metrics::called(error.map_or("OK", Error::code), refused);
        tracing::info!(
            outcome = "called",
            alicloud.action = action,
            alicloud.code = error.map_or("OK", Error::code),
            alicloud.request_id = request_id,
            duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "Alibaba Cloud was called"
        );
        answer
    }

    /// One call; returns the request id, too.
    async fn exchange<T: DeserializeOwned>(
        &self,
        action: &str,
        parameters: &[(&str, &str)],
        credentials: Option<Credentials<'_>>,
    ) -> Result<(T, Option<String>), Error> {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (now, nonce) = (clock::now(), clock::nonce());
        let request = match (credentials, self.signature) {
            (None, _) => self.request_unsigned(action, &parameters, now),
            (Some(credentials), SignatureVersion::V3) => self.request_v3(action, &parameters, credentials, now, &nonce),
            (Some(credentials), SignatureVersion::V1) => self.request_v1(action, parameters, credentials, now, nonce),
        };
        let request = request.header("accept", "application/json").header("content-type", FORM);
        let response = request.send().await.map_err(transport)?;
        let http_status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let request_id =
            response.headers().get("x-acs-request-id").and_then(|id| id.to_str().ok()).map(ToOwned::to_owned);
        let body = http::read(response).await.map_err(Error::Transport)?;
        if http_status == 200 {
            let done = serde_json::from_slice(&body).map_err(|_| Error::Unreadable { http_status })?;
            return Ok((done, request_id));
        }
        let refusal: Refusal = serde_json::from_slice(&body).map_err(|_| Error::Unreadable { http_status })?;
        let request_id = refusal.request_id.or(request_id);
        Err(Error::Refused { code: refusal.code, request_id, http_status, retry_after })
    }

    fn request_v3(
        &self,
        action: &str,
        parameters: &Parameters,
        credentials: Credentials<'_>,
        now: Timestamp,
        nonce: &str,
    ) -> reqwest::RequestBuilder {
        let body = sign::canonical_query(parameters);
        let body_hash = sign::v3::body_hash(body.as_bytes());
        let date = timestamp(now);
        let host = self.host();
        let mut signed = vec![
            ("content-type", FORM),
            ("host", &host),
            ("x-acs-action", action),
            ("x-acs-content-sha256", &body_hash),
            ("x-acs-date", &date),
            ("x-acs-signature-nonce", nonce),
            ("x-acs-version", self.version),
        ];
        signed.extend(credentials.security_token.map(|token| ("x-acs-security-token", token)));
        let headers = signed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let canonical = sign::v3::canonical_request("POST", "/", "", &headers, &body_hash);
        let to_sign = sign::v3::string_to_sign(&canonical);
        let signature = sign::v3::signature(credentials.access_key_secret, &to_sign);
        let authorization = sign::v3::authorization(credentials.access_key_id, &headers, &signature);
        let mut request = self.http.post(self.endpoint.clone()).header("authorization", authorization).body(body);
        for (name, value) in signed.iter().filter(|(name, _)| name.starts_with("x-acs-")) {
            request = request.header(*name, *value);
        }
        request
    }

    fn request_v1(
        &self,
        action: &str,
        parameters: Parameters,
        credentials: Credentials<'_>,
        now: Timestamp,
        nonce: String,
    ) -> reqwest::RequestBuilder {
        let body = sign::canonical_query(&parameters);
        let mut query: Parameters = [
            ("Action", action.to_owned()),
            ("Version", self.version.to_owned()),
            ("Format", "JSON".to_owned()),
            ("AccessKeyId", credentials.access_key_id.to_owned()),
            ("SignatureMethod", "HMAC-SHA1".to_owned()),
            ("SignatureVersion", "1.0".to_owned()),
            ("SignatureNonce", nonce),
            ("Timestamp", timestamp(now)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        query.extend(credentials.security_token.map(|token| ("SecurityToken".to_owned(), token.to_owned())));
        let mut all = parameters;
        all.extend(query.clone());
        let to_sign = sign::v1::string_to_sign("POST", &all);
        query.insert("Signature".into(), sign::v1::signature(credentials.access_key_secret, &to_sign));
        let mut url = self.endpoint.clone();
        url.set_query(Some(&sign::canonical_query(&query)));
        self.http.post(url).body(body)
    }

    /// What may be known is in the URL, all else in the body: what a URL holds is in logs.
    fn request_unsigned(&self, action: &str, parameters: &Parameters, now: Timestamp) -> reqwest::RequestBuilder {
        let date = timestamp(now);
        let common = [("Action", action), ("Version", self.version), ("Format", "JSON"), ("Timestamp", &date)];
        let common = common.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut url = self.endpoint.clone();
        url.set_query(Some(&sign::canonical_query(&common)));
        self.http.post(url).body(sign::canonical_query(parameters))
    }

    /// The header `host`, as the HTTP client will send it.
    fn host(&self) -> String {
        let host = self.endpoint.host_str().unwrap_or_default();
        self.endpoint.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

fn transport(error: reqwest::Error) -> Error {
    Error::Transport(error.without_url())
}

/// `YYYY-MM-DDThh:mm:ssZ`.
fn timestamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn retry_after(headers: &HeaderMap) -> Option<SignedDuration> {
    let text = headers.get("x-acs-retry-after")?.to_str().ok()?;
    text.parse::<u32>().ok().map(|millis| SignedDuration::from_millis(millis.into()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    #[serde(alias = "code")]
    code: String,
    #[serde(alias = "requestId")]
    request_id: Option<String>,
}
