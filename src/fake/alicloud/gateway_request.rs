//! A request to the simulated gateway: its parameters, and everything that signatures cover.

use axum::body::Bytes;
use axum::http::HeaderMap;

use crate::alicloud::sign::Parameters;

/// A request to the gateway.
pub(super) struct GatewayRequest {
    pub(super) method: String,
    pub(super) headers: HeaderMap,
    pub(super) query: Parameters,
    pub(super) form: Parameters,
    pub(super) body: Bytes,
}

impl GatewayRequest {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn access_key_id(&self) -> Option<String> {
        let signed = self.header("authorization").and_then(|text| text.split_once("Credential=")?.1.split(',').next());
        signed.map(ToOwned::to_owned).or_else(|| self.merged_parameters().remove("AccessKeyId"))
    }

    /// The parameters of query and body together, as the vendor's gateway merges them.
    pub(super) fn merged_parameters(&self) -> Parameters {
        self.query.iter().chain(&self.form).map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}
