//! The environment of the process: where the configuration, the table and the secrets are, and what AWS needs.

use crate::aws::AwsEnvironment;

use std::path::PathBuf;

use super::Error;

/// The settings of the environment.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `PEERGATE_CONFIG`: the path of `peergate.toml`. Default: in the working directory.
    pub config: PathBuf,
    /// `PEERGATE_TABLE`: the name of the DynamoDB table. Default: `peergate`.
    pub table: String,
    /// `PEERGATE_SECRETS`: the id or ARN of a secret in AWS Secrets Manager, or `file:PATH`. Default: `peergate`.
    pub secrets: SecretsSource,
    /// `PEERGATE_CA_FILE`: a file of certificates in PEM that are trusted besides the public roots, e.g. of a proxy or of
    /// a private chat server. Default: none.
    pub ca_file: Option<PathBuf>,
    /// The variables that AWS defines.
    pub aws: AwsEnvironment,
}

/// Where the secrets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretsSource {
    /// In AWS Secrets Manager: the name or ARN of the secret.
    SecretsManager(String),
    /// In a local file.
    File(PathBuf),
}

impl Environment {
    /// Reads the environment of the process.
    pub fn from_process() -> Result<Self, Error> {
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads an environment from any source. An empty variable counts as not set.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let optional = |name: &str| variable(name).filter(|value| !value.is_empty());
        let required = |name: &'static str| optional(name).ok_or(Error::MissingVariable(name));
        let endpoint = |name: &str| optional(name).or_else(|| optional("AWS_ENDPOINT_URL"));
        let secrets = optional("PEERGATE_SECRETS").unwrap_or_else(|| "peergate".into());
        Ok(Self {
            config: optional("PEERGATE_CONFIG").unwrap_or_else(|| "peergate.toml".into()).into(),
            table: optional("PEERGATE_TABLE").unwrap_or_else(|| "peergate".into()),
            secrets: match secrets.strip_prefix("file:") {
                Some(path) => SecretsSource::File(path.into()),
                None => SecretsSource::SecretsManager(secrets),
            },
            ca_file: optional("PEERGATE_CA_FILE").map(PathBuf::from),
            aws: AwsEnvironment {
                region: required("AWS_REGION")?,
                access_key_id: required("AWS_ACCESS_KEY_ID")?,
                secret_access_key: required("AWS_SECRET_ACCESS_KEY")?,
                session_token: optional("AWS_SESSION_TOKEN"),
                dynamodb_endpoint: endpoint("AWS_ENDPOINT_URL_DYNAMODB"),
                dynamodb_client: None,
                secrets_manager_endpoint: endpoint("AWS_ENDPOINT_URL_SECRETS_MANAGER"),
                sts_endpoint: endpoint("AWS_ENDPOINT_URL_STS"),
                events_endpoint: endpoint("AWS_ENDPOINT_URL_EVENTBRIDGE"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_is_read_and_a_missing_variable_is_named() {
        let read = |variables: &[(&str, &str)]| {
            Environment::from_variables(|name| {
                variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let aws = [("AWS_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "hush")];
        let environment = read(&aws).unwrap();
        assert_eq!(environment.secrets, SecretsSource::SecretsManager("peergate".into()));
        assert!(!format!("{environment:?}").contains("hush"));
        let more =
            [&aws[..], &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("PEERGATE_SECRETS", "file:/s.json")]].concat();
        let environment = read(&more).unwrap();
        assert_eq!(environment.aws.dynamodb_endpoint.as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(environment.secrets, SecretsSource::File("/s.json".into()));
        assert!(matches!(read(&aws[1..]), Err(Error::MissingVariable("AWS_REGION"))));
    }
}
