//! What the stack has made in AWS: the table and the schedule.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{
    GlobalSecondaryIndexDescription, IndexStatus, KeySchemaElement, KeyType, Projection, ProjectionType,
    StreamViewType, TableDescription, TimeToLiveStatus,
};
use jiff::Timestamp;

use super::{Health, Report};
use crate::app::App;
use crate::config::Environment;
use crate::store::{INDEX_ATTRIBUTES, INDEX_NAME};
use crate::{aws, http};

pub(super) async fn examine_table(environment: &Environment, app: &App, report: &mut Report) {
    let sdk = aws::sdk_config(&environment.aws, &app.http);
    let mut config = aws_sdk_dynamodb::config::Builder::from(&sdk);
    config.set_endpoint_url(environment.aws.dynamodb_endpoint.clone());
    let client = Client::from_conf(config.build());
    let described = client.describe_table().table_name(&environment.table).send().await;
    let table = match described {
        Ok(described) => described.table,
        Err(error) => {
            let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or("no answer").to_owned();
            let mend = match code.as_str() {
                "ResourceNotFoundException" => "Check PEERGATE_TABLE and AWS_REGION.",
                "no answer" => "Check the network, and AWS_ENDPOINT_URL_DYNAMODB if it is set.",
                _ => "Check AWS's credentials; dynamodb:DescribeTable is needed to look.",
            };
            report.add_problem("table", format!("{} cannot be looked at: {code}", environment.table), mend);
            return;
        }
    };
    let table = table.unwrap_or_else(|| TableDescription::builder().build());
    if table.key_schema().len() == 1 && table.key_schema().iter().all(|key| is_key(key, "id", &KeyType::Hash)) {
        report.add_healthy("table", environment.table.clone());
    } else {
        report.add_problem(
            "table",
            format!("{} has another key than `id`", environment.table),
            "Make it as template.yaml does.",
        );
    }
    let index = table.global_secondary_indexes().iter().find(|index| index.index_name() == Some(INDEX_NAME));
    let projection = index.and_then(|index| index.projection());
    let held = projection.map(Projection::non_key_attributes).unwrap_or_default();
    let all = projection.and_then(Projection::projection_type) == Some(&ProjectionType::All);
    let keys = index.map(GlobalSecondaryIndexDescription::key_schema).unwrap_or_default();
    let status = index.and_then(GlobalSecondaryIndexDescription::index_status);
    let has = |name: &str, kind: &KeyType| keys.iter().any(|key| is_key(key, name, kind));
    let detail = if index.is_none() {
        "there is none named due"
    } else if !has("due", &KeyType::Hash) || !has("due_at", &KeyType::Range) {
        "due has other keys than `due` and `due_at`"
    } else if !all && !INDEX_ATTRIBUTES.iter().all(|name| held.iter().any(|held| held == name)) {
        "due holds other attributes"
    } else {
        ""
    };
    if !detail.is_empty() {
        report.add_problem("table, index", detail, "Make it as template.yaml does.");
    } else if status == Some(&IndexStatus::Creating) {
        report.add_problem("table, index", "due is being created", "Wait until it is there.");
    } else {
        report.add_healthy("table, index", INDEX_NAME);
    }
    let view = table.stream_specification().and_then(|stream| stream.stream_view_type());
    let stream = matches!(view, Some(StreamViewType::NewImage | StreamViewType::NewAndOldImages));
    let slow = "there is none: work that the webhook leaves waits for the next minute";
    if stream {
        report.add_healthy("table, stream", "enabled");
    } else {
        report.add(Health::Warning, "table, stream", slow, "Enable a stream with NEW_IMAGE.");
    }
    let ttl = match client.describe_time_to_live().table_name(&environment.table).send().await {
        Ok(answer) => answer.time_to_live_description,
        Err(error) => {
            let code = error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or("no answer");
            let mend = "dynamodb:DescribeTimeToLive is needed to look.";
            return report.add(Health::Unknown, "table, TTL", format!("it cannot be looked at: {code}"), mend);
        }
    };
    let on = ttl.is_some_and(|ttl| {
        ttl.attribute_name() == Some("ttl")
            && matches!(ttl.time_to_live_status(), Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling))
    });
    if on {
        report.add_healthy("table, TTL", "on `ttl`");
    } else {
        report.add(
            Health::Warning,
            "table, TTL",
            "off: records of finished approvals are kept for ever",
            "Enable it on `ttl`.",
        );
    }
}

fn is_key(key: &KeySchemaElement, name: &str, kind: &KeyType) -> bool {
    key.attribute_name() == name && key.key_type() == kind
}

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
    let answer = async {
        let request = aws::signed_request(&app.http, aws, ("events", &url), &headers, body, now)?;
        let body = http::read_body(request.send().await.ok()?).await.ok()?;
        serde_json::from_slice::<serde_json::Value>(&body).ok()
    };
    let answer = answer.await.unwrap_or_default();
    let word = |name: &str| answer.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    match (word("State"), word("__type")) {
        ("ENABLED", _) => report.add_healthy("schedule", word("ScheduleExpression")),
        ("DISABLED", _) => {
            let mend = "Deploy with ScheduleState=ENABLED, or enable the rule.";
            report.add_problem("schedule", "disabled: nothing is discovered, followed or told", mend);
        }
        (_, "") => report.add(Health::Unknown, "schedule", "EventBridge does not answer", "Check the network."),
        (_, code) => {
            let code = code.rsplit('#').next().unwrap_or_default();
            let mend = "Check the rule's name and AWS_REGION; events:DescribeRule is needed to look.";
            report.add_problem("schedule", format!("{rule} cannot be looked at: {code}"), mend);
        }
    }
}
