//! One call in Alibaba Cloud's RPC style: a form, signed in one of two ways or not at all; JSON back.

use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderMap;
use tokio::time::Instant;
use url::Url;

use super::codes;
use super::json::{self, JsonFields};
use super::sign::{self, Parameters, SignatureVersion};
use super::{Class, Credentials, Error};
use crate::http::Clients;
use crate::{clock, http, metrics};

const FORM: &str = "application/x-www-form-urlencoded";

/// An API at one address, signed in one way.
#[derive(Debug, Clone)]
pub(super) struct Rpc {
    pub(super) clients: Clients,
    pub(super) endpoint: Url,
    pub(super) signature: SignatureVersion,
    pub(super) version: &'static str,
}

/// A call: action, parameters and caller. Unsigned without credentials.
#[derive(Clone, Copy)]
pub(super) struct RpcCall<'a> {
    pub(super) action: &'static str,
    pub(super) parameters: &'a [(&'a str, &'a str)],
    pub(super) credentials: Option<Credentials<'a>>,
}

/// A successful answer.
pub(super) struct RpcResponse {
    pub(super) fields: JsonFields,
    /// For the vendor's support.
    pub(super) request_id: Option<String>,
}

/// The status and headers of an answer.
pub(super) struct ResponseHead {
    pub(super) http_status: u16,
    pub(super) request_id: Option<String>,
    pub(super) retry_after: Option<SignedDuration>,
}

impl RpcResponse {
    /// Reads an answer. A body with a refusal is a refusal, whatever the status.
    pub(super) fn parse(head: ResponseHead, body: &[u8]) -> Result<Self, Error> {
        let ResponseHead { http_status, request_id, retry_after } = head;
        let fields = JsonFields::parse(&json::repair_json(body)).ok_or(Error::Unreadable { http_status })?;
        let word = |names: [&str; 2]| names.iter().find_map(|name| fields.get(name).first()).and_then(json::parse_word);
        let request_id = word(["RequestId", "requestId"]).as_deref().and_then(http::log_safe_word).or(request_id);
        let code = word(["Code", "code"]).filter(|code| !code.trim().is_empty());
        let code = if (200..300).contains(&http_status) {
            let failed = || word(["Success", "success"]).is_some_and(|success| success.eq_ignore_ascii_case("false"));
            match code {
                Some(code) if codes::is_success_code(&code) => return Ok(Self { fields, request_id }),
                None if !failed() => return Ok(Self { fields, request_id }),
                code => code.unwrap_or_default(),
            }
        } else {
            code.ok_or(Error::Unreadable { http_status })?
        };
        Err(Error::Refused { code: codes::sanitize_code(&code), request_id, http_status, retry_after })
    }
}

/// The result of one try, and how far the server's clock is ahead of ours, if it says so.
struct AttemptOutcome {
    response: Result<RpcResponse, Error>,
    clock_offset: Option<SignedDuration>,
}

impl Rpc {
    /// Makes a call.
    pub(super) async fn send_call(&self, call: RpcCall<'_>) -> Result<RpcResponse, Error> {
        self.send_call_with(&self.clients.latest().client, call).await
    }

    /// Makes a call with this HTTP client. It is sent once; but where the vendor refuses it because our clock is off, it
    /// had no effect, and is signed once more with the time that the vendor has. How far the clock is off is forgotten
    /// afterwards: it may be set right at any time, and until then a call costs two.
    pub(super) async fn send_call_with(
        &self,
        client: &reqwest::Client,
        call: RpcCall<'_>,
    ) -> Result<RpcResponse, Error> {
        let AttemptOutcome { response: answer, clock_offset: server_is_ahead } =
            self.try_call(client, call, SignedDuration::ZERO).await;
        match answer {
            Err(Error::Refused { code, .. }) if codes::is_timestamp_error(&code) => {
                let ahead = server_is_ahead.unwrap_or_default();
                tracing::warn!(
                    outcome = "clock_is_off",
                    alicloud.action = call.action,
                    alicloud.code = code,
                    server_is_ahead_s = ahead.as_secs(),
                    "Alibaba Cloud refused the timestamp of a call; signing the call again with its time"
                );
                self.try_call(client, call, ahead).await.response
            }
            answer => answer,
        }
    }

    /// One try, and a line about it in the log.
    async fn try_call(
        &self,
        client: &reqwest::Client,
        call: RpcCall<'_>,
        clock_offset: SignedDuration,
    ) -> AttemptOutcome {
        let begun = Instant::now();
        let attempt = self.sign_and_send(client, call, clock_offset).await;
        let (request_id, error) = match &attempt.response {
            Ok(reply) => (reply.request_id.as_deref(), None),
            Err(error) => (error.request_id(), Some(error)),
        };
        let refused = error.is_some_and(|error| error.class() == Class::Credentials);
        metrics::count_api_answer(error.map_or("OK", Error::code), refused);
        tracing::info!(
            outcome = "called",
            alicloud.action = call.action,
            alicloud.code = error.map_or("OK", Error::code),
            alicloud.request_id = request_id,
            duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "Alibaba Cloud was called"
        );
        attempt
    }

    async fn sign_and_send(
        &self,
        client: &reqwest::Client,
        call: RpcCall<'_>,
        clock_offset: SignedDuration,
    ) -> AttemptOutcome {
        let RpcCall { action, parameters, credentials } = call;
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let nonce = clock::nonce();
        let now = clock::now().saturating_add(clock_offset).unwrap_or_else(|_| clock::now());
        let request = match (credentials, self.signature) {
            (None, _) => self.build_unsigned_request(client, action, &parameters, now),
            (Some(credentials), SignatureVersion::V3) => {
                self.build_v3_request(client, action, &parameters, credentials, (now, &nonce))
            }
            (Some(credentials), SignatureVersion::V1) => {
                self.build_v1_request(client, action, parameters, credentials, (now, nonce))
            }
        };
        let request = request.header("accept", "application/json").header("content-type", FORM);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return AttemptOutcome { response: Err(transport_error(error)), clock_offset: None },
        };
        let server_is_ahead = header_value(response.headers(), "date")
            .and_then(http::parse_date)
            .map(|date| date.duration_since(clock::now()));
        AttemptOutcome { response: read_response(response).await, clock_offset: server_is_ahead }
    }

    fn build_v3_request(
        &self,
        client: &reqwest::Client,
        action: &str,
        parameters: &Parameters,
        credentials: Credentials<'_>,
        (now, nonce): (Timestamp, &str),
    ) -> reqwest::RequestBuilder {
        let body = sign::canonical_query(parameters);
        let body_hash = sign::v3::body_hash(body.as_bytes());
        let date = format_timestamp(now);
        let host = self.host_header();
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
        let mut request = client.post(self.endpoint.clone()).header("authorization", authorization).body(body);
        for (name, value) in signed.iter().filter(|(name, _)| name.starts_with("x-acs-")) {
            request = request.header(*name, *value);
        }
        request
    }

    fn build_v1_request(
        &self,
        client: &reqwest::Client,
        action: &str,
        parameters: Parameters,
        credentials: Credentials<'_>,
        (now, nonce): (Timestamp, String),
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
            ("Timestamp", format_timestamp(now)),
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
        client.post(url).body(body)
    }

    /// What may be known is in the URL, all else in the body: what a URL holds is in logs.
    fn build_unsigned_request(
        &self,
        client: &reqwest::Client,
        action: &str,
        parameters: &Parameters,
        now: Timestamp,
    ) -> reqwest::RequestBuilder {
        let date = format_timestamp(now);
        let common = [("Action", action), ("Version", self.version), ("Format", "JSON"), ("Timestamp", &date)];
        let common = common.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut url = self.endpoint.clone();
        url.set_query(Some(&sign::canonical_query(&common)));
        client.post(url).body(sign::canonical_query(parameters))
    }

    /// The header `host`, as the HTTP client will send it.
    fn host_header(&self) -> String {
        let host = self.endpoint.host_str().unwrap_or_default();
        self.endpoint.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

fn transport_error(error: reqwest::Error) -> Error {
    Error::Transport(error.without_url())
}

/// `YYYY-MM-DDThh:mm:ssZ`.
fn format_timestamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn header_value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

async fn read_response(response: reqwest::Response) -> Result<RpcResponse, Error> {
    let head = ResponseHead {
        http_status: response.status().as_u16(),
        request_id: header_value(response.headers(), "x-acs-request-id").and_then(http::log_safe_word),
        retry_after: retry_after(response.headers()),
    };
    let body = http::read_body(response).await.map_err(Error::Transport)?;
    RpcResponse::parse(head, &body)
}

/// The vendor's own header counts milliseconds, that of HTTP seconds.
fn retry_after(headers: &HeaderMap) -> Option<SignedDuration> {
    let vendors = header_value(headers, "x-acs-retry-after").and_then(http::parse_retry_after_millis);
    vendors.or_else(|| http::parse_retry_after(header_value(headers, "retry-after")?, clock::now()))
}
