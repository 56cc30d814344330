//! Lambda's JSON around an HTTP request: payload format 2.0, which Function URLs and HTTP APIs send.
//!
//! It has its own structs, because the conversion of `lambda_http` keeps only the last of several equal headers in format
//! 1.0, and panics on a body that is not valid base64.
//!
//! Source: <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http::{Request, Response, Uri};
use lambda_http::Body;
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpResponse;
use serde::Deserialize;

/// The stage of a Function URL, and of an HTTP API without named stages.
const DEFAULT_STAGE: &str = "$default";

/// An event of a Function URL or an HTTP API.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpEvent {
    version: Option<String>,
    raw_path: Option<String>,
    raw_query_string: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    request_context: Option<RequestContext>,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Debug, Deserialize)]
struct RequestContext {
    http: Option<HttpContext>,
    stage: Option<String>,
}

#[derive(Debug, Deserialize)]
struct HttpContext {
    method: String,
}

/// Why an event is not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The event has another payload format.
    #[error("payload format version 2.0 is required: configure it in the integration of the API")]
    PayloadVersion,
    /// A part of the event cannot be understood: which part.
    #[error("the {0} of the event is malformed")]
    Malformed(&'static str),
}

/// The request in an event. The body is decoded from base64 only if the event's flag says so.
pub fn into_request(event: HttpEvent) -> Result<Request<Bytes>, Error> {
    if event.version.as_deref() != Some("2.0") {
        return Err(Error::PayloadVersion);
    }
    let RequestContext { http, stage } = event.request_context.ok_or(Error::PayloadVersion)?;
    let method = http.ok_or(Error::PayloadVersion)?.method;
    let body = event.body.unwrap_or_default();
    let body = if event.is_base64_encoded {
        BASE64_STANDARD.decode(body).map_err(|_| Error::Malformed("body"))?
    } else {
        body.into_bytes()
    };
    let path = event.raw_path.unwrap_or_default();
    let path = without_stage(&path, stage.as_deref().unwrap_or(DEFAULT_STAGE)).to_owned();
    // A malformed query is dropped. No platform signs it.
    let query = event.raw_query_string.filter(|query| !query.is_empty());
    let with_query = query.and_then(|query| Uri::try_from(format!("{path}?{query}")).ok());
    let uri = with_query.map_or(path, |uri| uri.to_string());
    let mut request = Request::builder().method(method.as_str()).uri(uri);
    for (name, value) in event.headers.unwrap_or_default() {
        request = request.header(name, value);
    }
    request.body(Bytes::from(body)).map_err(|_| Error::Malformed("method, path, query or a header"))
}

/// The path without the name of the stage, which an HTTP API writes in front of it. The default stage has no name.
///
/// Source: <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-stages.html>
fn without_stage<'a>(path: &'a str, stage: &str) -> &'a str {
    let rest = path.trim_start_matches('/').strip_prefix(stage).filter(|_| stage != DEFAULT_STAGE);
    // Through a domain of its own, the path may be without the stage.
    rest.filter(|rest| rest.starts_with('/') && rest.chars().any(|c| c != '/')).unwrap_or(path)
}

/// The response in Lambda's JSON.
#[must_use]
pub fn into_lambda_response(response: Response<String>) -> ApiGatewayV2httpResponse {
    let (parts, body) = response.into_parts();
    let mut answer = ApiGatewayV2httpResponse::default();
    answer.status_code = parts.status.as_u16().into();
    answer.headers = parts.headers;
    answer.body = Some(Body::Text(body));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(body: &str, base64: bool) -> HttpEvent {
        serde_json::from_value(serde_json::json!({
            "version": "2.0", "rawPath": "/slack", "headers": {"content-type": "a", "x": "1,2"},
            "requestContext": {"http": {"method": "POST"}}, "body": body, "isBase64Encoded": base64,
        }))
        .unwrap()
    }

    #[test]
    fn base64_flag_alone_decides_about_decoding() {
        assert_eq!(into_request(event("YQ==", true)).unwrap().body(), "a");
        assert_eq!(into_request(event("YQ==", false)).unwrap().body(), "YQ==");
        assert_eq!(into_request(event("YQ=", true)).unwrap_err(), Error::Malformed("body"));
    }

    #[test]
    fn name_of_the_stage_is_not_part_of_the_path() {
        for (path, stage, expected) in [
            ("/prod/slack", "prod", "/slack"),
            ("//prod/slack", "prod", "/slack"),
            ("/prod//slack/", "prod", "//slack/"),
            ("/prod/webhook/ci", "prod", "/webhook/ci"),
            ("/slack/slack", "slack", "/slack"),
            ("/slack", "slack", "/slack"),
            ("/slack/", "slack", "/slack/"),
            ("/slack", "prod", "/slack"),
            ("/production/slack", "prod", "/production/slack"),
            ("/$default/slack", "$default", "/$default/slack"),
            ("/prod", "prod", "/prod"),
            ("/prod//", "prod", "/prod//"),
            ("", "prod", ""),
        ] {
            assert_eq!(without_stage(path, stage), expected, "{path} in the stage {stage}");
        }
    }

    #[test]
    fn payload_format_1_0_is_refused() {
        let old =
            serde_json::json!({"version": "1.0", "path": "/slack", "httpMethod": "POST", "headers": {}, "body": ""});
        assert_eq!(into_request(serde_json::from_value(old).unwrap()).unwrap_err(), Error::PayloadVersion);
        assert_eq!(into_request(serde_json::from_str("{}").unwrap()).unwrap_err(), Error::PayloadVersion);
    }
}
