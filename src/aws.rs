//! Configures the AWS SDKs: credentials come from the environment, and requests go through peergate's own HTTP client.
//!
//! It also fetches identity tokens of AWS STS. It does so without the SDK of STS, which would make every function larger,
//! though only a function without access keys needs a token.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_dynamodb::config::{IdentityCache, StalledStreamProtectionConfig};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sigv4::http_request::{self, SignableBody, SignableRequest, SigningSettings};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;
use jiff::Timestamp;

use crate::http::{self, Clients, Unreachable};
use crate::secret::Secret;

/// The time for one attempt. `DynamoDB` and Secrets Manager answer in milliseconds, and a person may be waiting.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1500);
const MAX_ATTEMPTS: u32 = 2;
/// How the words for an SDK error without a code of AWS begin.
pub(crate) const NO_ANSWER: &str = "no answer";
/// Prefix of AWS codes, to tell them from Alibaba Cloud's.
const AWS_CODE_PREFIX: &str = "AwsIdentity.";
/// AWS codes of temporary errors, whatever the HTTP status is.
///
/// Source: <https://docs.rs/aws-runtime/latest/src/aws_runtime/retries/classifiers.rs.html>, and
/// <https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html>
const TRANSIENT_CODES: [&str; 21] = [
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "IDPCommunicationError",
    "InternalError",
    "InternalFailure",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
];

/// The variables that AWS defines. Lambda sets all of them except the endpoints.
#[derive(Clone, Default)]
pub struct AwsEnvironment {
    /// `AWS_REGION`.
    pub region: String,
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`.
    pub session_token: Option<String>,
    /// `AWS_ENDPOINT_URL_DYNAMODB`, else `AWS_ENDPOINT_URL`.
    pub dynamodb_endpoint: Option<String>,
    /// How requests reach DynamoDB if not over the network: the local tool has a table in its own process. No variable.
    pub dynamodb_client: Option<SharedHttpClient>,
    /// `AWS_ENDPOINT_URL_SECRETS_MANAGER`, else `AWS_ENDPOINT_URL`.
    pub secrets_manager_endpoint: Option<String>,
    /// `AWS_ENDPOINT_URL_STS`, else `AWS_ENDPOINT_URL`.
    pub sts_endpoint: Option<String>,
    /// `AWS_ENDPOINT_URL_EVENTBRIDGE`, else `AWS_ENDPOINT_URL`. Only the doctor uses it.
    pub events_endpoint: Option<String>,
}

impl std::fmt::Debug for AwsEnvironment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsEnvironment").field("region", &self.region).finish_non_exhaustive()
    }
}

#[cfg(feature = "local")]
impl AwsEnvironment {
    /// What stands in for AWS on one machine.
    #[must_use]
    pub fn local() -> Self {
        let name = || "local".to_owned();
        Self { region: name(), access_key_id: name(), secret_access_key: name(), ..Self::default() }
    }
}

/// The configuration of the SDK of DynamoDB.
#[must_use]
pub fn dynamodb_sdk_config(aws: &AwsEnvironment, clients: impl Into<Clients>) -> SdkConfig {
    let config = sdk_config(aws, clients);
    match &aws.dynamodb_client {
        Some(client) => config.into_builder().http_client(client.clone()).build(),
        None => config,
    }
}

/// A client of DynamoDB.
#[cfg(feature = "local")]
#[must_use]
pub fn dynamodb_client(aws: &AwsEnvironment, clients: impl Into<Clients>) -> aws_sdk_dynamodb::Client {
    let mut config = aws_sdk_dynamodb::config::Builder::from(&dynamodb_sdk_config(aws, clients));
    config.set_endpoint_url(aws.dynamodb_endpoint.clone());
    aws_sdk_dynamodb::Client::from_conf(config.build())
}

/// The configuration that all SDK clients share.
#[must_use]
pub fn sdk_config(aws: &AwsEnvironment, clients: impl Into<Clients>) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
        .region(Region::new(aws.region.clone()))
        .credentials_provider(SharedCredentialsProvider::new(sdk_credentials(aws)))
        .http_client(SdkHttpClient { clients: clients.into(), last_unanswered: Arc::default() })
        .sleep_impl(aws_smithy_async::rt::sleep::SharedAsyncSleep::new(aws_smithy_async::rt::sleep::TokioSleep::new()))
        .retry_config(RetryConfig::standard().with_max_attempts(MAX_ATTEMPTS))
        // The credentials are in memory, and each body is read before the SDK sees it.
        .identity_cache(IdentityCache::no_cache())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build())
        .build()
}

/// The AWS code of an error, for logs and error texts. If it has none, [`NO_ANSWER`] and the reason.
pub(crate) fn error_code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    if let Some(code) = error.as_service_error().and_then(ProvideErrorMetadata::code) {
        return http::log_safe_word(code).unwrap_or_else(|| "UnreadableCode".to_owned());
    }
    if matches!(error, SdkError::TimeoutError(_)) {
        return format!("{NO_ANSWER}: {}", Unreachable::Silent);
    }
    let connector = if let SdkError::DispatchFailure(failure) = error { failure.as_connector_error() } else { None };
    let client_error = connector.and_then(Error::source).and_then(|source| source.downcast_ref::<reqwest::Error>());
    let reason = client_error.map(|error| format!(": {}", Unreachable::of(error))).unwrap_or_default();
    format!("{NO_ANSWER}{reason}")
}

fn sdk_credentials(aws: &AwsEnvironment) -> Credentials {
    let (id, secret) = (aws.access_key_id.as_str(), aws.secret_access_key.as_str());
    Credentials::new(id, secret, aws.session_token.clone(), None, "environment")
}

/// Lets the SDKs use peergate's HTTP client. After an attempt without an answer, the next attempt uses a new connection:
/// the other connections of the pool may be dead, too.
#[derive(Debug, Clone)]
struct SdkHttpClient {
    clients: Clients,
    /// Whether the attempt that ended last had no answer.
    last_unanswered: Arc<AtomicBool>,
}

/// Notes whether an attempt was answered. The SDKs drop an attempt that takes too long.
struct AttemptGuard<'a> {
    last_unanswered: &'a AtomicBool,
    is_answered: bool,
}

impl Drop for AttemptGuard<'_> {
    fn drop(&mut self) {
        self.last_unanswered.store(!self.is_answered, Ordering::Relaxed);
    }
}

impl SdkHttpClient {
    async fn send_attempt(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let latest = self.clients.latest();
        let is_first = request.headers().get("amz-sdk-request").is_none_or(|attempt| attempt.starts_with("attempt=1;"));
        let client = if is_first || !self.last_unanswered.load(Ordering::Relaxed) {
            latest
        } else {
            self.clients.fresh_client(&latest)
        };
        let mut attempt = AttemptGuard { last_unanswered: &self.last_unanswered, is_answered: false };
        let response = send_request(&client.client, request).await?;
        attempt.is_answered = true;
        self.clients.replace_latest(&client);
        Ok(response)
    }
}

impl HttpClient for SdkHttpClient {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for SdkHttpClient {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.clone();
        HttpConnectorFuture::new(async move { client.send_attempt(request).await })
    }
}

async fn send_request(client: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let (parts, body) = request.try_into_http1x().map_err(user_error)?.into_parts();
    let body = body.bytes().map(<[u8]>::to_vec).ok_or_else(|| user_error("streaming bodies are not supported"))?;
    let request = ::http::Request::from_parts(parts, body).try_into().map_err(user_error)?;
    let response = client.execute(request).await.map_err(network_error)?;
    let mut builder = ::http::Response::builder().status(response.status());
    if let Some(headers) = builder.headers_mut() {
        *headers = response.headers().clone();
    }
    let body = http::read_body(response).await.map_err(network_error)?;
    let response = builder.body(SdkBody::from(body)).map_err(user_error)?;
    HttpResponse::try_from(response).map_err(user_error)
}

/// A token in which AWS names the identity of the function.
#[derive(Debug, Clone)]
pub struct IdentityToken {
    /// A JWT.
    pub token: Secret,
    /// When the token becomes invalid.
    pub expires_at: Timestamp,
}

/// Why AWS issues no identity token.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// AWS refused, e.g. with `AwsIdentity.AccessDenied` or `AwsIdentity.OutboundWebIdentityFederationDisabledException`.
    #[error("AWS issues no identity token: {code}")]
    Refused {
        /// The code of AWS after `AwsIdentity.`.
        code: String,
        /// The HTTP status of the response.
        http_status: u16,
    },
    /// There is no answer, or it cannot be understood.
    #[error("AWS issues no identity token: {0}")]
    NoAnswer(String),
    /// The AWS SDK could not sign the call.
    #[error("the call for an identity token cannot be signed")]
    Unsigned,
}

impl IdentityError {
    /// The code in records, logs and messages.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            Self::NoAnswer(_) => "AwsIdentity.NoAnswer",
            Self::Unsigned => "AwsIdentity.Unsigned",
        }
    }

    /// Whether an operator has to fix the cause.
    #[must_use]
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Refused { code, http_status } => {
                let is_transient = *http_status >= 500 || *http_status == 429 || *http_status == 408;
                !is_transient && needs_operator(code)
            }
            Self::NoAnswer(_) => false,
            Self::Unsigned => true,
        }
    }
}

/// Whether a code comes from AWS and not from Alibaba Cloud.
#[must_use]
pub fn is_aws_code(code: &str) -> bool {
    code.starts_with(AWS_CODE_PREFIX)
}

/// Whether an operator has to fix the cause of this AWS code.
#[must_use]
pub fn needs_operator(code: &str) -> bool {
    let is_transient = |code: &str| code == "NoAnswer" || TRANSIENT_CODES.contains(&code);
    !code.strip_prefix(AWS_CODE_PREFIX).is_some_and(is_transient)
}

/// Fetches a signed token of AWS STS for `audience`. It is valid for five minutes.
///
/// Source: <https://docs.aws.amazon.com/STS/latest/APIReference/API_GetWebIdentityToken.html>
pub async fn fetch_identity_token(
    http: &reqwest::Client,
    aws: &AwsEnvironment,
    audience: &str,
    now: Timestamp,
) -> Result<IdentityToken, IdentityError> {
    // The global endpoint does not have the operation.
    let url = aws.sts_endpoint.clone().unwrap_or_else(|| regional_endpoint("sts", &aws.region));
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("Action", "GetWebIdentityToken")
        .append_pair("Version", "2011-06-15")
        .append_pair("Audience.member.1", audience)
        // Alibaba Cloud does not document support for ES384.
        .append_pair("SigningAlgorithm", "RS256")
        .append_pair("DurationSeconds", "300")
        .finish();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let endpoint = AwsEndpoint { service: "sts", url: &url };
    let request = signed_request(http, aws, endpoint, &form, body, now).ok_or(IdentityError::Unsigned)?;
    let no_answer = |error: &reqwest::Error| IdentityError::NoAnswer(http::describe_transport(error));
    let response = request.send().await.map_err(|error| no_answer(&error))?;
    let http_status = response.status().as_u16();
    let body = http::read_body(response).await.map_err(|error| no_answer(&error))?;
    let xml = String::from_utf8_lossy(&body);
    let unreadable = || IdentityError::NoAnswer("Transport.Unreadable".to_owned());
    if !(200..300).contains(&http_status) {
        let code = xml_text(&xml, "Code").and_then(http::log_safe_word).ok_or_else(unreadable)?;
        return Err(IdentityError::Refused { code: format!("{AWS_CODE_PREFIX}{code}"), http_status });
    }
    Ok(IdentityToken {
        token: Secret::new(xml_text(&xml, "WebIdentityToken").ok_or_else(unreadable)?.to_owned()),
        expires_at: xml_text(&xml, "Expiration").and_then(|text| text.parse().ok()).ok_or_else(unreadable)?,
    })
}

/// The URL of an AWS service in a region.
pub(crate) fn regional_endpoint(service: &str, region: &str) -> String {
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://{service}.{region}.{suffix}/")
}

/// An AWS service and its URL.
#[derive(Clone, Copy)]
pub(crate) struct AwsEndpoint<'a> {
    /// The name that signatures use, e.g. `sts`.
    pub(crate) service: &'a str,
    pub(crate) url: &'a str,
}

/// A signed `POST`; `None` if it cannot be signed.
pub(crate) fn signed_request(
    http: &reqwest::Client,
    aws: &AwsEnvironment,
    AwsEndpoint { service, url }: AwsEndpoint<'_>,
    headers: &[(&str, &str)],
    body: String,
    now: Timestamp,
) -> Option<reqwest::RequestBuilder> {
    let identity = sdk_credentials(aws).into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(&aws.region)
        .name(service)
        .time(now.into())
        .settings(SigningSettings::default())
        .build()
        .ok()?;
    let request =
        SignableRequest::new("POST", url, headers.iter().copied(), SignableBody::Bytes(body.as_bytes())).ok()?;
    let (instructions, _signature) = http_request::sign(request, &parameters.into()).ok()?.into_parts();
    let (signature, _query) = instructions.into_parts();
    let request = headers.iter().fold(http.post(url), |request, (name, value)| request.header(*name, *value));
    let request = signature.iter().fold(request, |request, header| request.header(header.name(), header.value()));
    Some(request.body(body))
}

/// The text of an XML element. It must have no child elements and no entities: tokens, times and codes have none.
fn xml_text<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim()).filter(|text| !text.is_empty() && !text.contains(['<', '&']))
}

fn user_error(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ConnectorError {
    ConnectorError::user(source.into())
}

fn network_error(error: reqwest::Error) -> ConnectorError {
    let error = error.without_url();
    if error.is_timeout() { ConnectorError::timeout(error.into()) } else { ConnectorError::io(error.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transient_sts_errors_need_no_operator() {
        let needs_operator = |code: &str, http_status: u16| {
            IdentityError::Refused { code: format!("{AWS_CODE_PREFIX}{code}"), http_status }.needs_operator()
        };
        for code in TRANSIENT_CODES {
            assert!(!needs_operator(code, 400), "{code}");
        }
        for http_status in [408, 429, 500, 502, 503, 504] {
            assert!(!needs_operator("SomethingNew", http_status), "{http_status}");
        }
        for code in ["AccessDenied", "OutboundWebIdentityFederationDisabledException", "ExpiredToken", "SomethingNew"] {
            assert!(needs_operator(code, 403), "{code}");
        }
    }
}
