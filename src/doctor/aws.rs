//! Checks what the stack creates in AWS: the table and the schedule.

use aws_sdk_dynamodb::types::{
    GlobalSecondaryIndexDescription, IndexStatus, KeySchemaElement, KeyType, Projection, ProjectionType,
    StreamViewType, TableDescription, TimeToLiveDescription, TimeToLiveStatus,
};
use jiff::Timestamp;
use serde_json::Value;

use super::Report;
use super::surroundings::{Surroundings, fix_aws_call};
use crate::app::App;
use crate::aws::{self, AwsEndpoint, NO_ANSWER};
use crate::config::Environment;
use crate::http::{self, Unreachable};
use crate::store::{INDEX_ATTRIBUTES, INDEX_NAME};

const FIX_TABLE: &str = "Create the table as template.yaml does.";

/// Returns whether the table gave an answer.
pub(super) async fn examine_table(
    environment: &Environment,
    surroundings: &Surroundings,
    app: &App,
    report: &mut Report,
) -> bool {
    let client = aws::dynamodb_client(&environment.aws, &app.http);
    let name = &environment.table;
    let table = match client.describe_table().table_name(name).send().await {
        Ok(response) => response.table.unwrap_or_else(|| TableDescription::builder().build()),
        Err(error) => {
            let code = aws::error_code(&error);
            let fix = surroundings.fix_table_call(&code, "dynamodb:DescribeTable, which only this check needs");
            let detail = format!("cannot describe {name}: {}", surroundings.describe_table_error(&code));
            report.add_problem("table", detail, fix);
            return !code.starts_with(NO_ANSWER);
        }
    };
    examine_key(&table, name, report);
    examine_index(&table, report);
    examine_stream(&table, surroundings, report);
    match client.describe_time_to_live().table_name(name).send().await {
        Ok(response) => examine_ttl(response.time_to_live_description.as_ref(), surroundings, report),
        Err(error) => {
            let code = aws::error_code(&error);
            let fix = surroundings.fix_table_call(&code, "dynamodb:DescribeTimeToLive, which only this check needs");
            report.add_unknown("table, TTL", format!("cannot describe the TTL: {code}"), fix);
        }
    }
    true
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

fn examine_stream(table: &TableDescription, surroundings: &Surroundings, report: &mut Report) {
    let view = table.stream_specification().and_then(|stream| stream.stream_view_type());
    if matches!(view, Some(StreamViewType::NewImage | StreamViewType::NewAndOldImages)) {
        report.add_healthy("table, stream", "enabled");
    } else if !surroundings.is_one_machine {
        // On one machine, ticks follow each other within a second.
        let detail = "there is no stream, so the watcher continues the work of the webhook up to a minute later";
        report.add_warning("table, stream", detail, "Enable a stream with NEW_IMAGE.");
    }
}

fn examine_ttl(ttl: Option<&TimeToLiveDescription>, surroundings: &Surroundings, report: &mut Report) {
    let is_enabled = ttl.is_some_and(|ttl| {
        ttl.attribute_name() == Some("ttl")
            && matches!(ttl.time_to_live_status(), Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
    });
    if is_enabled {
        report.add_healthy("table, TTL", "on `ttl`");
    } else if !surroundings.is_one_machine {
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
        let request = aws::signed_request(&app.http, aws, endpoint, &headers, body, now);
        let request = request.ok_or("the request cannot be signed")?;
        let response = request.send().await.map_err(|error| http::describe_transport(&error))?;
        let body = http::read_body(response).await.map_err(|error| http::describe_transport(&error))?;
        serde_json::from_slice::<Value>(&body).map_err(|_| "its answer is not JSON".to_owned())
    };
    let description = match description.await {
        Ok(description) => description,
        Err(reason) => {
            let fix = Unreachable::named_in(&reason).map_or("Check the address.", Unreachable::fix);
            return report.add_unknown("schedule", format!("no answer from {url}: {reason}"), fix);
        }
    };
    let field = |name: &str| description.get(name).and_then(Value::as_str).unwrap_or_default();
    match (field("State"), field("__type")) {
        ("ENABLED", _) => report.add_healthy("schedule", field("ScheduleExpression")),
        ("DISABLED", _) => {
            let detail = "disabled, so the watcher finds no requests, follows no connections and posts nothing";
            report.add_problem("schedule", detail, "Deploy with ScheduleState=ENABLED, or enable the rule.");
        }
        (_, code) => {
            let code = code.rsplit('#').next().unwrap_or_default();
            let code = http::log_safe_word(code).unwrap_or_else(|| "an answer without a code".to_owned());
            let fix = fix_aws_call(&code, "events:DescribeRule, which only this check needs");
            let fix = fix.unwrap_or_else(|| "Check the name of the rule, and AWS_REGION.".to_owned());
            report.add_problem("schedule", format!("cannot describe {rule}: {code}"), fix);
        }
    }
}
