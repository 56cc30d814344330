//! Where peergate runs, and which advice fits there: in AWS a permission may be missing, on one machine a file.

use crate::aws::{self, NO_ANSWER};
use crate::config::{Environment, SecretsSource};
use crate::http::Unreachable;

/// Codes of AWS about the credentials of the caller, and not about its permissions.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
const CREDENTIALS_CODES: [&str; 7] = [
    "UnrecognizedClientException",
    "InvalidSignatureException",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "ExpiredToken",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
];
/// Parts of the codes of errors that pass.
const PASSING_CODES: [&str; 6] = [
    "Throttl",
    "ThroughputExceeded",
    "RequestLimitExceeded",
    "InternalServer",
    "InternalService",
    "ServiceUnavailable",
];
const CHECK_CREDENTIALS: &str = "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN: AWS does not know them, or they have expired.";
const RUN_AGAIN: &str = "Run the doctor again: such an error often passes.";

/// Where the table and the secrets are.
pub(super) struct Surroundings {
    /// The URL of the table.
    pub(super) table_address: String,
    /// Whether the table is not in AWS, but embedded or served on this machine.
    pub(super) is_one_machine: bool,
    region: String,
    table: String,
    secrets: SecretsSource,
    secrets_address: String,
}

impl Surroundings {
    pub(super) fn of(environment: &Environment) -> Self {
        let aws = &environment.aws;
        let address = |own: &Option<String>, service: &str| {
            own.clone().unwrap_or_else(|| aws::regional_endpoint(service, &aws.region))
        };
        let table_address = address(&aws.dynamodb_endpoint, "dynamodb");
        Self {
            is_one_machine: aws.dynamodb_client.is_some() || !table_address.contains(".amazonaws.com"),
            table_address,
            region: aws.region.clone(),
            table: environment.table.clone(),
            secrets: environment.secrets.clone(),
            secrets_address: address(&aws.secrets_manager_endpoint, "secretsmanager"),
        }
    }

    /// The error of a call to the table. If there was no answer, it names the address.
    pub(super) fn describe_table_error(&self, error: &str) -> String {
        if error.contains(NO_ANSWER) { format!("{error} ({})", self.table_address) } else { error.to_owned() }
    }

    /// What to do about the error of a call to the table that requires `permission`.
    pub(super) fn fix_table_call(&self, error: &str, permission: &str) -> String {
        if let Some(fix) = fix_aws_call(error, permission) {
            fix
        } else if error.contains("ResourceNotFoundException") && self.is_one_machine {
            format!("Check PEERGATE_TABLE: there is no table {}.", self.table)
        } else if error.contains("ResourceNotFoundException") {
            format!("Check PEERGATE_TABLE and AWS_REGION: {} has no table {}.", self.region, self.table)
        } else if self.is_one_machine {
            "Check the file of the table, and the space on its disk.".to_owned()
        } else {
            "Look the code up in the documentation of DynamoDB.".to_owned()
        }
    }

    /// The error of a fetch of the secrets. If there was no answer, it names the address.
    pub(super) fn describe_secrets_error(&self, error: &str) -> String {
        if error.contains(NO_ANSWER) { format!("{error} ({})", self.secrets_address) } else { error.to_owned() }
    }

    /// What to do if the secrets cannot be fetched.
    pub(super) fn fix_secrets_fetch(&self, error: &str) -> String {
        let permission = "secretsmanager:GetSecretValue, and kms:Decrypt if the secret has a key of its own";
        match &self.secrets {
            SecretsSource::File(_) => "Name the file in PEERGATE_SECRETS, and let this user read it.".to_owned(),
            SecretsSource::SecretsManager(id) => {
                if let Some(fix) = fix_aws_call(error, permission) {
                    fix
                } else if error.contains("ResourceNotFoundException") {
                    format!("Check PEERGATE_SECRETS and AWS_REGION: {} has no secret {id}.", self.region)
                } else if error.contains("SecretString") {
                    "Store the document as text, not as bytes.".to_owned()
                } else {
                    "Look the code up in the documentation of AWS Secrets Manager.".to_owned()
                }
            }
        }
    }
}

/// What to do about errors that every service of AWS has. `None` for others.
pub(super) fn fix_aws_call(error: &str, permission: &str) -> Option<String> {
    let has = |codes: &[&str]| codes.iter().any(|code| error.contains(code));
    if error.contains(NO_ANSWER) {
        Some(Unreachable::named_in(error).map_or(RUN_AGAIN, Unreachable::fix).to_owned())
    } else if has(&["AccessDenied"]) {
        Some(format!("Allow {permission}."))
    } else if has(&CREDENTIALS_CODES) {
        Some(CHECK_CREDENTIALS.to_owned())
    } else if has(&PASSING_CODES) {
        Some(RUN_AGAIN.to_owned())
    } else {
        None
    }
}
