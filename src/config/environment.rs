//! The environment of the process: where the configuration, the table and the secrets are, and what AWS needs.

use std::path::PathBuf;

use url::Url;

use super::Error;
use crate::aws::AwsEnvironment;
use crate::redaction::redact_value;
use crate::secret::check_printable;

/// The characters of the name or ARN of a table, besides letters and digits.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_GetItem.html>
const TABLE_CHARACTERS: &str = "_.-:/";
/// The characters of the name or ARN of a secret, besides letters and digits.
///
/// Source: <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html>
const SECRET_CHARACTERS: &str = "/_+=.@-:";
const A_REGION: &str = "a region, e.g. eu-central-1";
const A_TABLE: &str = "the name or ARN of a DynamoDB table: 3 to 1024 letters, digits and `_.-:/`";
const A_SECRET: &str = "the name or ARN of a secret in AWS Secrets Manager, or file:PATH";
const A_KEY: &str = "a string without a space or a line break";
const A_URL: &str = "a URL, e.g. http://127.0.0.1:8000";

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
        Self::from_variables(variable_of_process)
    }

    /// Reads an environment from any source. An empty variable counts as not set.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let reader = Variables(variable);
        let endpoint = |name| match reader.url(name)? {
            None => reader.url("AWS_ENDPOINT_URL"),
            own => Ok(own),
        };
        Ok(Self {
            config: reader.text("PEERGATE_CONFIG", "a path")?.unwrap_or_else(|| "peergate.toml".into()).into(),
            table: reader.checked("PEERGATE_TABLE", A_TABLE, is_table)?.unwrap_or_else(|| "peergate".into()),
            secrets: reader.secrets()?,
            ca_file: reader.text("PEERGATE_CA_FILE", "a path")?.map(PathBuf::from),
            aws: AwsEnvironment {
                region: required("AWS_REGION", A_REGION, reader.checked("AWS_REGION", A_REGION, is_region)?)?,
                access_key_id: required("AWS_ACCESS_KEY_ID", A_KEY, reader.key("AWS_ACCESS_KEY_ID")?)?,
                secret_access_key: required("AWS_SECRET_ACCESS_KEY", A_KEY, reader.key("AWS_SECRET_ACCESS_KEY")?)?,
                session_token: reader.key("AWS_SESSION_TOKEN")?,
                dynamodb_endpoint: endpoint("AWS_ENDPOINT_URL_DYNAMODB")?,
                dynamodb_client: None,
                secrets_manager_endpoint: endpoint("AWS_ENDPOINT_URL_SECRETS_MANAGER")?,
                sts_endpoint: endpoint("AWS_ENDPOINT_URL_STS")?,
                events_endpoint: endpoint("AWS_ENDPOINT_URL_EVENTBRIDGE")?,
            },
        })
    }
}

/// A variable of the process. A character that is not UTF-8 is replaced by U+FFFD, which no variable may have.
pub(crate) fn variable_of_process(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn required(name: &'static str, expected: &'static str, value: Option<String>) -> Result<String, Error> {
    value.ok_or(Error::MissingVariable { name, expected })
}

/// Reads variables, and checks their form.
struct Variables<F>(F);

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    fn text(&self, name: &'static str, expected: &'static str) -> Result<Option<String>, Error> {
        match (self.0)(name).filter(|value| !value.is_empty()) {
            Some(value) if value.contains('\u{FFFD}') => {
                Err(Error::MalformedVariable { name, expected, found: "a string that is not UTF-8".into() })
            }
            value => Ok(value),
        }
    }

    fn checked(
        &self,
        name: &'static str,
        expected: &'static str,
        has_form: fn(&str) -> bool,
    ) -> Result<Option<String>, Error> {
        match self.text(name, expected)? {
            Some(value) if !has_form(&value) => {
                Err(Error::MalformedVariable { name, expected, found: redact_value(&value) })
            }
            value => Ok(value),
        }
    }

    /// A part of a key. No part of it is in an error.
    fn key(&self, name: &'static str) -> Result<Option<String>, Error> {
        match self.text(name, A_KEY)? {
            Some(value) => match check_printable(&value) {
                Ok(()) => Ok(Some(value)),
                Err(problem) => {
                    let found = format!("another: {problem}");
                    Err(Error::MalformedVariable { name, expected: A_KEY, found })
                }
            },
            None => Ok(None),
        }
    }

    fn url(&self, name: &'static str) -> Result<Option<String>, Error> {
        let is_url =
            |text: &str| Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        self.checked(name, A_URL, is_url)
    }

    fn secrets(&self) -> Result<SecretsSource, Error> {
        let name = "PEERGATE_SECRETS";
        let secrets = self.text(name, A_SECRET)?.unwrap_or_else(|| "peergate".into());
        match secrets.strip_prefix("file:") {
            Some(path) if !path.is_empty() => Ok(SecretsSource::File(path.into())),
            None if is_secret_id(&secrets) => Ok(SecretsSource::SecretsManager(secrets)),
            Some(_) | None => Err(Error::MalformedVariable { name, expected: A_SECRET, found: redact_value(&secrets) }),
        }
    }
}

fn has_only(text: &str, more: &str) -> bool {
    text.chars().all(|character| character.is_ascii_alphanumeric() || more.contains(character))
}

fn is_table(text: &str) -> bool {
    (3..=1024).contains(&text.len()) && has_only(text, TABLE_CHARACTERS)
}

fn is_region(text: &str) -> bool {
    text.len() <= 40 && has_only(text, "-")
}

/// Whether it can be a secret's name or ARN, and does not look like a relative path.
fn is_secret_id(text: &str) -> bool {
    text.len() <= 2048 && has_only(text, SECRET_CHARACTERS) && !text.starts_with("./") && !text.starts_with("../")
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
        let missing = read(&aws[1..]).unwrap_err().to_string();
        assert_eq!(missing, "environment variable AWS_REGION is not set: expected a region, e.g. eu-central-1");
    }

    #[test]
    fn malformed_variable_is_named_without_a_secret() {
        let cases = [
            ("AWS_REGION", "eu central", "expected a region, e.g. eu-central-1, found \"eu central\""),
            (
                "AWS_ACCESS_KEY_ID",
                "AKIA\n",
                "expected a string without a space or a line break, found another: it ends with",
            ),
            ("AWS_SECRET_ACCESS_KEY", "hush hush", "found another: character 5 is a space"),
            ("AWS_SESSION_TOKEN", "hush ", "found another: it ends with a space or a line break"),
            ("PEERGATE_TABLE", "my table", "expected the name or ARN of a DynamoDB table"),
            ("PEERGATE_TABLE", "ab", "found \"ab\""),
            ("PEERGATE_CONFIG", "caf\u{FFFD}.toml", "expected a path, found a string that is not UTF-8"),
            ("PEERGATE_SECRETS", "file:", "expected the name or ARN of a secret in AWS Secrets Manager, or file:PATH"),
            ("PEERGATE_SECRETS", "./secrets.json", "or file:PATH, found \"./secrets.json\""),
            ("PEERGATE_SECRETS", "C:\\secrets.json", "or file:PATH"),
            ("AWS_ENDPOINT_URL", "127.0.0.1:8000", "expected a URL, e.g. http://127.0.0.1:8000, found"),
            ("AWS_ENDPOINT_URL_DYNAMODB", "file:///x", "expected a URL"),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "localhost", "found \"localhost\""),
            ("AWS_ENDPOINT_URL_STS", "ftp://h", "expected a URL"),
            ("AWS_ENDPOINT_URL_EVENTBRIDGE", "http://", "expected a URL"),
        ];
        for (name, value, expected) in cases {
            let read = Environment::from_variables(|asked| {
                Some(if asked == name { value.to_owned() } else { "value".to_owned() }).filter(|_| {
                    asked == name || ["AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].contains(&asked)
                })
            });
            let error = read.unwrap_err().to_string();
            let start = format!("environment variable {name} is malformed: ");
            assert!(error.starts_with(&start) && error.contains(expected), "{error}");
            assert!(!error.contains("hush") && !error.contains("AKIA"), "{error}");
        }
    }
}
