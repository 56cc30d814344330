//! One call in Alibaba Cloud's RPC style. The request is a form with a V3 or V1 signature or none; the response is JSON.

use jiff::{SignedDuration, Timestamp};
use reqwest::header::HeaderMap;
use tokio::time::Instant;
use url::Url;

use super::codes;
use super::json::{self, JsonFields};
use super::sign::{self, Parameters, SignatureVersion};
use super::{Class, Credentials, Error};
use crate::http::Clients;
use crate::{clock, http, logging, metrics};

const FORM: &str = "application/x-www-form-urlencoded";

/// An API of Alibaba Cloud: its URL and version, and how calls are signed.
#[derive(Debug, Clone)]
pub(super) struct Rpc {
    pub(super) clients: Clients,
    pub(super) endpoint: Url,
    pub(super) signature: SignatureVersion,
    pub(super) version: &'static str,
    pub(super) place: ParameterPlace,
}

/// Where the parameters of a call are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParameterPlace {
    /// A form in the body.
    Body,
    /// The URL. The body is empty.
    Query,
}

/// A call. Without credentials it is unsigned.
#[derive(Clone, Copy)]
pub(super) struct RpcCall<'a> {
    pub(super) action: &'static str,
    pub(super) parameters: &'a [(&'a str, &'a str)],
    pub(super) credentials: Option<Credentials<'a>>,
}

/// A response that reports success.
pub(super) struct RpcResponse {
    pub(super) fields: JsonFields,
    /// Identifies the call for the vendor's support.
    pub(super) request_id: Option<String>,
}

/// The status and headers of a response.
pub(super) struct ResponseHead {
    pub(super) http_status: u16,
    pub(super) request_id: Option<String>,
    pub(super) retry_after: Option<SignedDuration>,
}

impl RpcResponse {
    /// Parses a response. A body that reports a refusal is a refusal, whatever the HTTP status is.
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

/// The time and the nonce of a signature.
struct SigningStamp {
    now: Timestamp,
    nonce: String,
}

/// The result of one try.
struct AttemptOutcome {
    response: Result<RpcResponse, Error>,
    /// How far the server's clock is ahead of ours, if the server sends its time.
    clock_offset: Option<SignedDuration>,
}

impl Rpc {
    /// Makes a call with the latest HTTP client.
    pub(super) async fn send_call(&self, call: RpcCall<'_>) -> Result<RpcResponse, Error> {
        self.send_call_with(&self.clients.latest().client, call).await
    }

    /// Makes a call with this HTTP client. It is sent once, with one exception: if the vendor refuses the timestamp, the
    /// call had no effect, and it is signed again with the vendor's time. The offset is not cached, because our clock
    /// may be corrected at any time. While the clock is wrong, each call is sent twice.
    pub(super) async fn send_call_with(
        &self,
        client: &reqwest::Client,
        call: RpcCall<'_>,
    ) -> Result<RpcResponse, Error> {
        let AttemptOutcome { response, clock_offset } = self.try_call(client, call, SignedDuration::ZERO).await;
        match response {
            Err(Error::Refused { code, .. }) if codes::is_timestamp_error(&code) => {
                let clock_offset = clock_offset.unwrap_or_default();
                tracing::warn!(
                    outcome = "clock_is_off",
                    alicloud.action = call.action,
                    alicloud.code = code,
                    server_is_ahead_s = clock_offset.as_secs(),
                    "Alibaba Cloud refused the timestamp of a call; signing the call again with its time"
                );
                self.try_call(client, call, clock_offset).await.response
            }
            response => response,
        }
    }

    /// Makes one try and logs it.
    async fn try_call(
        &self,
        client: &reqwest::Client,
        call: RpcCall<'_>,
        clock_offset: SignedDuration,
    ) -> AttemptOutcome {
        let started = Instant::now();
        let attempt = self.sign_and_send(client, call, clock_offset).await;
        let (request_id, error) = match &attempt.response {
            Ok(response) => (response.request_id.as_deref(), None),
            Err(error) => (error.request_id(), Some(error)),
        };
        let credentials_refused = error.is_some_and(|error| error.class() == Class::Credentials);
        metrics::count_api_answer(error.map_or("OK", Error::code), credentials_refused);
        macro_rules! log_call {
            ($($target:tt)*) => {
                tracing::info!(
                    $($target)*
                    outcome = "called",
                    alicloud.action = call.action,
                    alicloud.code = error.map_or("OK", Error::code),
                    alicloud.request_id = request_id,
                    duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "called Alibaba Cloud"
                )
            };
        }
        // The watcher lists every region, every minute.
        if call.action == "ListVpcPeerConnections" && error.is_none() {
            log_call!(target: logging::ROUTINE,);
        } else {
            log_call!();
        }
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
        let now = clock::now().saturating_add(clock_offset).unwrap_or_else(|_| clock::now());
        let stamp = SigningStamp { now, nonce: clock::nonce() };
        let request = match (credentials, self.signature) {
            (None, _) => self.build_unsigned_request(client, action, &parameters, now),
            (Some(credentials), SignatureVersion::V3) => {
                self.build_v3_request(client, action, &parameters, credentials, &stamp)
            }
            (Some(credentials), SignatureVersion::V1) => {
                self.build_v1_request(client, action, parameters, credentials, stamp)
            }
        };
        let request = request.header("accept", "application/json");
        let request = match self.place {
            ParameterPlace::Body => request.header("content-type", FORM),
            ParameterPlace::Query => request,
        };
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return AttemptOutcome { response: Err(transport_error(error)), clock_offset: None },
        };
        let date = header_value(response.headers(), "date").and_then(http::parse_date);
        let clock_offset = date.map(|date| date.duration_since(clock::now()));
        AttemptOutcome { response: read_response(response).await, clock_offset }
    }

    fn build_v3_request(
        &self,
        client: &reqwest::Client,
        action: &str,
        parameters: &Parameters,
        credentials: Credentials<'_>,
        SigningStamp { now, nonce }: &SigningStamp,
    ) -> reqwest::RequestBuilder {
        let encoded = sign::canonical_query(parameters);
        let (query, body) = match self.place {
            ParameterPlace::Body => (String::new(), encoded),
            ParameterPlace::Query => (encoded, String::new()),
        };
        let body_hash = sign::v3::body_hash(body.as_bytes());
        let date = format_timestamp(*now);
        let host = self.host_header();
        let mut signed = vec![
            ("host", host.as_str()),
            ("x-acs-action", action),
            ("x-acs-content-sha256", &body_hash),
            ("x-acs-date", &date),
            ("x-acs-signature-nonce", nonce),
            ("x-acs-version", self.version),
        ];
        signed.extend((self.place == ParameterPlace::Body).then_some(("content-type", FORM)));
        signed.extend(credentials.security_token.map(|token| ("x-acs-security-token", token)));
        let headers = signed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let canonical = sign::v3::canonical_request("POST", "/", &query, &headers, &body_hash);
        let to_sign = sign::v3::string_to_sign(&canonical);
        let signature = sign::v3::signature(credentials.access_key_secret, &to_sign);
        let authorization = sign::v3::authorization(credentials.access_key_id, &headers, &signature);
        let mut url = self.endpoint.clone();
        url.set_query(Some(query.as_str()).filter(|query| !query.is_empty()));
        let mut request = client.post(url).header("authorization", authorization).body(body);
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
        SigningStamp { now, nonce }: SigningStamp,
    ) -> reqwest::RequestBuilder {
        let body = match self.place {
            ParameterPlace::Body => sign::canonical_query(&parameters),
            ParameterPlace::Query => String::new(),
        };
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
        if self.place == ParameterPlace::Query {
            query.extend(parameters.clone());
        }
        let mut all = parameters;
        all.extend(query.clone());
        let to_sign = sign::v1::string_to_sign("POST", &all);
        query.insert("Signature".into(), sign::v1::signature(credentials.access_key_secret, &to_sign));
        let mut url = self.endpoint.clone();
        url.set_query(Some(&sign::canonical_query(&query)));
        client.post(url).body(body)
    }

    /// The URL has only what may be in logs. The body has everything else.
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

    /// The header `host` that the HTTP client sends.
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

/// The vendor's own header has milliseconds; HTTP's header has seconds.
fn retry_after(headers: &HeaderMap) -> Option<SignedDuration> {
    let vendor_value = header_value(headers, "x-acs-retry-after").and_then(http::parse_retry_after_millis);
    vendor_value.or_else(|| http::parse_retry_after(header_value(headers, "retry-after")?, clock::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Option<&str> = Some("STS.token+/=");

    /// The signature of a call whose parameters are in the URL, at a fixed time.
    fn signature_of(
        host: &str,
        action: &str,
        parameters: &[(&str, &str)],
        security_token: Option<&str>,
    ) -> (String, reqwest::Request) {
        let clients = Clients::new().unwrap();
        let rpc = Rpc {
            clients: clients.clone(),
            endpoint: format!("https://{host}/").parse().unwrap(),
            signature: SignatureVersion::V3,
            version: "2016-04-28",
            place: ParameterPlace::Query,
        };
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let credentials = Credentials { access_key_id: "testid", access_key_secret: "testsecret", security_token };
        let now = "2026-11-25T10:00:00Z".parse().unwrap();
        let stamp = SigningStamp { now, nonce: "3156853299f313e23d1673dc12e1703d".to_owned() };
        let client = &clients.latest().client;
        let request = rpc.build_v3_request(client, action, &parameters, credentials, &stamp).build().unwrap();
        let authorization = request.headers()["authorization"].to_str().unwrap();
        let signature = authorization.rsplit_once("Signature=").unwrap().1.to_owned();
        (signature, request)
    }

    /// Known answers of the vendor's own signing code, tea-openapi 0.4.6.
    #[test]
    fn calls_with_a_query_are_signed_as_by_the_vendors_sdk() {
        let (signature, request) = signature_of(
            "vpc.cn-hangzhou.aliyuncs.com",
            "CreateRouteEntry",
            &[
                ("ClientToken", "peergate-0001"),
                ("DestinationCidrBlock", "10.1.0.0/16"),
                ("NextHopId", "pcc-lnk0m24khwvtkm0001"),
                ("NextHopType", "VpcPeer"),
                ("RegionId", "cn-hangzhou"),
                ("RouteTableId", "vtb-bp145q7glnuzdvzu20001"),
            ],
            None,
        );
        assert_eq!(signature, "8ea2308ccb7663872d50a1e7b8ef76da09f547ddd75c1b42599f4802d340eec2");
        assert!(request.body().and_then(reqwest::Body::as_bytes).is_none_or(<[u8]>::is_empty));
        assert!(request.url().query().unwrap().contains("DestinationCidrBlock=10.1.0.0%2F16"), "{}", request.url());
        let list = [("MaxResult", "100"), ("NextHopId", "pcc-a"), ("RegionId", "eu-central-1")];
        let list = [list.as_slice(), &[("RouteEntryType", "Custom"), ("RouteTableId", "vtb-a")]].concat();
        let (signature, _) = signature_of("vpc.eu-central-1.aliyuncs.com", "DescribeRouteEntryList", &list, None);
        assert_eq!(signature, "167cd20e3868a725af1ef34eee51468fb7f49d3d5b7f8f2635f196fa34ecbf83");
        let route = |number, cidr, version| {
            [
                (format!("RouteEntries.{number}.DstCidrBlock"), cidr),
                (format!("RouteEntries.{number}.IpVersion"), version),
                (format!("RouteEntries.{number}.NextHop"), "pcc-a"),
                (format!("RouteEntries.{number}.NextHopType"), "VpcPeer"),
                (format!("RouteEntries.{number}.RouteTableId"), "vtb-a"),
            ]
        };
        let entries = [route(1, "10.1.0.0/16", "4"), route(2, "2408:4005:3c5:6e00::/56", "6")].concat();
        let mut parameters: Vec<_> = entries.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        parameters.push(("RegionId", "cn-hangzhou"));
        let (signature, _) = signature_of("vpc.cn-hangzhou.aliyuncs.com", "CreateRouteEntries", &parameters, TOKEN);
        assert_eq!(signature, "a8f105f446e1ccea6dd628137e7e6c8056530ecd2b4a90ddd25a3772fb4b61b8");
    }
}
