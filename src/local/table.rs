//! The table on one machine: an embedded engine with the API of DynamoDB over `SQLite`. The code that uses it is the same
//! as in AWS. Within a process no socket leads to it: [`connector`] hands the requests of the SDK to the engine.
//!
//! Several processes may open the file at the same time. A write waits up to 5 s for another one.

mod connector;
mod mortal;
pub mod server;
mod signature;
mod storage_problem;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, TimeToLiveSpecification, TimeToLiveStatus,
};
use dynoxide::{Database, DynoxideError};
use serde_json::json;

use super::{Error, owner_only};
use crate::aws::{self, AwsEnvironment};
use crate::http;
use crate::store::{INDEX_ATTRIBUTES, INDEX_NAME};
use storage_problem::StorageProblem;

pub use mortal::KillSwitch;
pub use server::spawn_table;
pub use signature::KeyPair;

/// The prefix of the operations in the header `x-amz-target`.
const TARGET_PREFIX: &str = "DynamoDB_20120810.";

/// The engine, and the file that it has open.
#[derive(Clone)]
pub struct EmbeddedTable {
    database: Database,
    path: Option<PathBuf>,
    /// What is wrong with the file, so that it is logged once.
    problem: Arc<Mutex<Option<StorageProblem>>>,
}

impl std::fmt::Debug for EmbeddedTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedTable").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What the engine answers: a status, and JSON.
#[derive(Debug, Clone)]
pub struct TableAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The result of the operation, or an error with `__type`.
    pub body: String,
}

impl TableAnswer {
    /// An error, as DynamoDB writes it.
    fn refusal(status: u16, code: &str, message: &str) -> Self {
        let body = json!({"__type": format!("com.amazon.coral.service#{code}"), "message": message}).to_string();
        Self { status, body }
    }
}

impl EmbeddedTable {
    /// Opens the file, and creates it if it does not exist. Only its owner can read a new file.
    ///
    /// # Errors
    /// When the file cannot be created, read or written: the path, and why.
    pub fn open(path: &Path) -> Result<Self, Error> {
        match OpenOptions::new().write(true).create_new(true).mode(owner_only::MODE).open(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // The system's words are better than the engine's.
                let opened = OpenOptions::new().read(true).write(true).open(path);
                opened.map_err(|error| format!("cannot write the table {}: {error}", path.display()))?;
                owner_only::warn_if_shared(path);
            }
            Err(error) => return Err(format!("cannot create the table {}: {error}", path.display()).into()),
        }
        let database = Database::new(&path.to_string_lossy())
            .map_err(|error| format!("cannot open the table {}: {}", path.display(), describe_engine_error(&error)))?;
        Ok(Self { database, path: Some(path.into()), problem: Arc::default() })
    }

    /// Reads the whole file into memory, and changes nothing on the disk: for backups, which may be read-only.
    ///
    /// # Errors
    /// When the file cannot be read, or is no table: the path, and why.
    pub fn open_copy(path: &Path) -> Result<Self, Error> {
        let table = Self::in_memory()?;
        let read = table.database.restore_from(&path.to_string_lossy());
        read.map_err(|error| format!("cannot read the table {}: {}", path.display(), describe_engine_error(&error)))?;
        Ok(table)
    }

    /// A table that is gone when the process ends.
    ///
    /// # Errors
    /// When the engine cannot start.
    pub fn in_memory() -> Result<Self, Error> {
        Ok(Self { database: Database::memory()?, path: None, problem: Arc::default() })
    }

    /// Carries out an operation, e.g. `PutItem`. It blocks the thread, for up to 5 s if another process writes.
    #[must_use]
    pub fn answer(&self, operation: &str, body: &[u8]) -> TableAnswer {
        let result = execute_operation(&self.database, operation, body);
        let problem = match &result {
            Err(error) if error.status_code() == 500 => StorageProblem::from_message(&error.to_string()),
            Ok(_) | Err(_) => None,
        };
        let is_write = !matches!(operation, "GetItem" | "BatchGetItem" | "Query" | "Scan" | "DescribeTable");
        if problem.is_some() || result.is_ok() && is_write {
            self.note_problem(problem);
        }
        match (result, problem) {
            (Ok(body), _) => TableAnswer { status: 200, body },
            // 400, because another try at once would not help.
            (Err(_), Some(problem)) => TableAnswer::refusal(400, problem.code(), &problem.to_string()),
            (Err(error), None) => TableAnswer { status: error.status_code(), body: error.to_json() },
        }
    }

    /// Logs the first failure of a kind, and the first write that works again.
    fn note_problem(&self, problem: Option<StorageProblem>) {
        let mut known = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == problem {
            return;
        }
        *known = problem;
        let path = self.path.as_ref().map(|path| path.display().to_string());
        if let Some(problem) = problem {
            let code = problem.code();
            tracing::error!(outcome = "store_failed", path, code, error = %problem, "could not use the file of the table");
        } else {
            tracing::info!(outcome = "store_recovered", path, "the file of the table can be written again");
        }
    }

    /// Deletes the items whose time is over, as DynamoDB does. Returns their number. It blocks the thread.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn delete_expired(&self) -> Result<usize, Error> {
        Ok(self.database.sweep_ttl()?)
    }

    /// Writes a copy into an existing empty file, or a new one. Other processes may write in the meantime. It blocks the
    /// thread.
    ///
    /// # Errors
    /// When either file cannot be used.
    pub(super) fn copy_into(&self, path: &Path) -> Result<(), Error> {
        self.database.vacuum_into(&path.to_string_lossy()).map_err(|error| describe_engine_error(&error).into())
    }

    /// The settings of AWS with which the SDK uses this table.
    #[must_use]
    pub fn environment(&self, aws: &AwsEnvironment) -> AwsEnvironment {
        AwsEnvironment { dynamodb_client: Some(self.sdk_http_client()), dynamodb_endpoint: None, ..aws.clone() }
    }

    /// Creates the table `name`, if it does not exist.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn create(&self, name: &str) -> Result<(), Error> {
        let aws = self.environment(&AwsEnvironment::local());
        create_table(&aws::dynamodb_client(&aws, http::new_client()?), name).await
    }
}

/// What is wrong with a file: in our words if we have any, else in those of the engine.
fn describe_engine_error(error: &DynoxideError) -> String {
    let message = error.to_string();
    StorageProblem::from_message(&message).map_or(message, |problem| problem.to_string())
}

fn execute_operation(database: &Database, operation: &str, body: &[u8]) -> Result<String, DynoxideError> {
    macro_rules! execute {
        ($method:ident) => {{
            let malformed = |error: serde_json::Error| DynoxideError::SerializationException(error.to_string());
            let response = database.$method(serde_json::from_slice(body).map_err(malformed)?)?;
            serde_json::to_string(&response).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
        }};
    }
    match operation {
        "BatchGetItem" => execute!(batch_get_item),
        "CreateTable" => execute!(create_table),
        "DeleteItem" => execute!(delete_item),
        "DescribeTable" => execute!(describe_table),
        "DescribeTimeToLive" => execute!(describe_time_to_live),
        "GetItem" => execute!(get_item),
        "PutItem" => execute!(put_item),
        "Query" => execute!(query),
        "Scan" => execute!(scan),
        "UpdateItem" => execute!(update_item),
        "UpdateTimeToLive" => execute!(update_time_to_live),
        _ => Err(DynoxideError::UnsupportedCapability(operation.to_owned())),
    }
}

/// The operation that a request names; empty if it names none.
fn operation_of(target: Option<&str>) -> &str {
    target.and_then(|target| target.strip_prefix(TARGET_PREFIX)).unwrap_or_default()
}

/// Creates the table as `template.yaml` defines it, if it does not exist.
pub async fn create_table(client: &Client, table: &str) -> Result<(), Error> {
    let attribute = |name: &str, kind| AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build();
    let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    let projection = Projection::builder()
        .projection_type(ProjectionType::Include)
        .set_non_key_attributes(Some(INDEX_ATTRIBUTES.map(ToOwned::to_owned).into()))
        .build();
    let index = GlobalSecondaryIndex::builder()
        .index_name(INDEX_NAME)
        .key_schema(key("due", KeyType::Hash)?)
        .key_schema(key("due_at", KeyType::Range)?)
        .projection(projection)
        .build()?;
    let created = client
        .create_table()
        .table_name(table)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute("id", ScalarAttributeType::S)?)
        .attribute_definitions(attribute("due", ScalarAttributeType::S)?)
        .attribute_definitions(attribute("due_at", ScalarAttributeType::N)?)
        .key_schema(key("id", KeyType::Hash)?)
        .global_secondary_indexes(index)
        .send()
        .await;
    match created {
        Ok(_) => {}
        Err(error) if error.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception) => {}
        Err(error) => return Err(error.into()),
    }
    enable_expiry(client, table).await
}

async fn enable_expiry(client: &Client, table: &str) -> Result<(), Error> {
    let described = client.describe_time_to_live().table_name(table).send().await?.time_to_live_description;
    let status = described.and_then(|expiry| expiry.time_to_live_status);
    if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
        return Ok(());
    }
    let expiry = TimeToLiveSpecification::builder().attribute_name("ttl").enabled(true).build()?;
    client.update_time_to_live().table_name(table).time_to_live_specification(expiry).send().await?;
    Ok(())
}
