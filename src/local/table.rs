//! The table on one machine: an embedded engine with the API of DynamoDB over SQLite, on loopback. The code that uses it
//! is the same as in AWS.

use std::path::Path;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType,
};
use aws_types::SdkConfig;
use dynoxide::Database;
use tokio::net::TcpListener;

use super::Error;
use crate::aws::AwsEnvironment;
use crate::store::{INDEX_ATTRIBUTES, INDEX_NAME};
use crate::{aws, http};

/// Opens the database and serves it on loopback until the process ends. Without a path it is in memory. Returns its URL.
pub async fn spawn_table(path: Option<&Path>) -> Result<String, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(dynoxide::server::serve_on(listener, open_database(path)?));
    Ok(url)
}

/// Serves the database of a file, with the table in it, until the task ends. Functions in other processes use it.
pub async fn serve_table(path: &Path, table: &str, listener: TcpListener) -> Result<(), Error> {
    let endpoint = format!("http://{}", listener.local_addr()?);
    let server = tokio::spawn(dynoxide::server::serve_on(listener, open_database(Some(path))?));
    let anybody = AwsEnvironment {
        region: "local".into(),
        access_key_id: "local".into(),
        secret_access_key: "local".into(),
        ..AwsEnvironment::default()
    };
    create_table(&aws::sdk_config(&anybody, http::new_client()?), &endpoint, table).await?;
    Ok(server.await?)
}

fn open_database(path: Option<&Path>) -> Result<Database, Error> {
    Ok(match path {
        Some(path) => Database::new(&path.to_string_lossy())?,
        None => Database::memory()?,
    })
}

/// Creates the table as `template.yaml` defines it, if it does not exist.
pub async fn create_table(sdk: &SdkConfig, endpoint: &str, table: &str) -> Result<(), Error> {
    let config = aws_sdk_dynamodb::config::Builder::from(sdk).endpoint_url(endpoint).build();
    let client = Client::from_conf(config);
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
        Ok(_) => Ok(()),
        Err(error) if error.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
