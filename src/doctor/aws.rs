//! Checks what the stack creates in AWS: the table and the schedule.

use aws_sdk_dynamodb::types::{
    GlobalSecondaryIndexDescription, IndexStatus, KeySchemaElement, KeyType, Projection, ProjectionType,
    StreamViewType, TableDescription, TimeToLiveDescription, TimeToLiveStatus,
};
use jiff::Timestamp;
use serde_json::Value;

use super::Report;
use crate::app::App;
use crate::aws::{self, AwsEndpoint};
use crate::config::Environment;
use crate::http;
use crate::store::{INDEX_ATTRIBUTES, INDEX_NAME};

const FIX_TABLE: &str = "Create the table as template.yaml does.";

pub(super) async fn examine_table(environment: &Environment, app: &App, report: &mut Report) {
    let client = aws::dynamodb_client(&environment.aws, &app.http);
    let name = &environment.table;
    let table = match client.describe_table().table_name(name).send().await {
        Ok(response) => response.table.unwrap_or_else(|| TableDescription::builder().build()),
        Err(error) => {
            let code = aws::error_code(&error);
            let fix = match code.as_str() {
                "ResourceNotFoundException" => "Check PEERGATE_TABLE and AWS_REGION.",
                aws::NO_ANSWER => "Check the network, and AWS_ENDPOINT_URL_DYNAMODB if it is set.",
                _ => "Check the AWS credentials. This check needs the permission dynamodb:DescribeTable.",
            };
            return report.add_problem("table", format!("cannot describe {name}: {code}"), fix);
        }
    };
    examine_key(&table, name, report);
    examine_index(&table, report);
    // On one machine, the watcher looks every second and needs no stream.
    if environment.aws.dynamodb_client.is_none() {
        examine_stream(&table, report);
    }
    match client.describe_time_to_live().table_name(name).send().await {
        Ok(response) => examine_ttl(response.time_to_live_description.as_ref(), report),
        Err(error) => {
            let detail = format!("cannot describe the TTL: {}", aws::error_code(&error));
            report.add_unknown("table, TTL", detail, "This check needs the permission dynamodb:DescribeTimeToLive.");
        }
    }
}

fn examine_key(table: &TableDescription, name: &str, report: &mut Report) {
    if table.key_schema().len() == 1 && has_key(table.key_schema(), "id", &KeyType::Hash) {
        report.add_healthy("table", name);
    } else {
        report.add_problem("table", format!("the key of {name} is not `id`"), FIX_TABLE);
    }
}

fn examine_index(table: &TableDescription, report: &mut Report) {
    let index = table.global_secondary_indexes().iter().find(|index| index.index_name() == Some(INDEX_NAME));
    let Some(index) = index else {
        return report.add_problem("table, index", "there is no index `due`", FIX_TABLE);
    };
    if !has_key(index.key_schema(), "due", &KeyType::Hash) || !has_key(index.key_schema(), "due_at", &KeyType::Range) {
        report.add_problem("table, index", "the keys of `due` are not `due` and `due_at`", FIX_TABLE);
    } else if !has_all_attributes(index) {
        report.add_problem("table, index", "`due` does not hold the attributes that it needs", FIX_TABLE);
    } else if index.index_status() == Some(&IndexStatus::Creating) {
        report.add_problem("table, index", "AWS is still creating `due`", "Wait until it is ready.");
    } else {
        report.add_healthy("table, index", INDEX_NAME);
    }
}

fn has_all_attributes(index: &GlobalSecondaryIndexDescription) -> bool {
    let projection = index.projection();
    let held = projection.map(Projection::non_key_attributes).unwrap_or_default();
    projection.and_then(Projection::projection_type) == Some(&ProjectionType::All)
        || INDEX_ATTRIBUTES.iter().all(|name| held.iter().any(|held| held == name))
}

fn examine_stream(table: &TableDescription, report: &mut Report) {
    let view = table.stream_specification().and_then(|stream| stream.stream_view_type());
    if matches!(view, Some(StreamViewType::NewImage | StreamViewType::NewAndOldImages)) {
        report.add_healthy("table, stream", "enabled");
    } else {
        let detail = "there is no stream, so the watcher continues the work of the webhook up to a minute later";
        report.add_warning("table, stream", detail, "Enable a stream with NEW_IMAGE.");
    }
}

fn examine_ttl(ttl: Option<&TimeToLiveDescription>, report: &mut Report) {
    let is_enabled = ttl.is_some_and(|ttl| {
        ttl.attribute_name() == Some("ttl")
            && matches!(ttl.time_to_live_status(), Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
    });
    if is_enabled {
        report.add_healthy("table, TTL", "on `ttl`");
    } else {
        let detail = "disabled, so the table keeps the records of finished approvals forever";
        report.add_warning("table, TTL", detail, "Enable it on `ttl`.");
    }
}

fn has_key(keys: &[KeySchemaElement], name: &str, kind: &KeyType) -> bool {
    keys.iter().any(|key| key.attribute_name() == name && key.key_type() == kind)
}

/// Checks that `EventBridge` starts the watcher.
///
/// Source: <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_DescribeRule.html>
pub(super) async fn examine_schedule(
    environment: &Environment,
    app: &App,
    rule: &str,
    now: Timestamp,
    report: &mut Report,
) {
    let aws = &environment.aws;
    let url = aws.events_endpoint.clone().unwrap_or_else(|| aws::regional_endpoint("events", &aws.region));
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "AWSEvents.DescribeRule")];
    let body = serde_json::json!({"Name": rule}).to_string();
    let description = async {
        let endpoint = AwsEndpoint { service: "events", url: &url };
        let request = aws::signed_request(&app.http, aws, endpoint, &headers, body, now)?;
        let body = http::read_body(request.send().await.ok()?).await.ok()?;
        serde_json::from_slice::<Value>(&body).ok()
    };
    let description = description.await.unwrap_or_default();
    let field = |name: &str| description.get(name).and_then(Value::as_str).unwrap_or_default();
    match (field("State"), field("__type")) {
        ("ENABLED", _) => report.add_healthy("schedule", field("ScheduleExpression")),
        ("DISABLED", _) => {
            let detail = "disabled, so the watcher finds no requests, follows no connections and posts nothing";
            report.add_problem("schedule", detail, "Deploy with ScheduleState=ENABLED, or enable the rule.");
        }
        (_, "") => report.add_unknown("schedule", "EventBridge does not answer", "Check the network."),
        (_, code) => {
            let code = code.rsplit('#').next().unwrap_or_default();
            let fix = "Check the name of the rule and AWS_REGION. This check needs the permission events:DescribeRule.";
            report.add_problem("schedule", format!("cannot describe {rule}: {code}"), fix);
        }
    }
}
