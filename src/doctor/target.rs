//! Checks a target: its credentials, and the permission for each operation.

use jiff::Timestamp;

use super::{NONEXISTENT_ID, Report};
use crate::accept;
use crate::alicloud::sts::Sts;
use crate::alicloud::{Class, ListScope};
use crate::app::App;
use crate::approval::{Approver, ClientToken, TokenPurpose, Verdict};
use crate::aws;
use crate::chat::message;
use crate::clock;
use crate::config::Target;
use crate::credentials::SessionName;
use crate::http::Unreachable;
use crate::peering::{Connection, InstanceId, Status};

/// The id of a VPC that does not exist.
const NONEXISTENT_VPC: &str = "vpc-peergate000000000000";
const NONEXISTENT_TABLE: &str = "vtb-peergate000000000000";

/// Stops at the first check without which the others would fail, too.
pub(super) async fn examine_target(app: &App, name: &str, target: &Target, now: Timestamp, report: &mut Report) {
    if !has_usable_credentials(app, name, target, now, report).await {
        return;
    }
    let Ok(nonexistent) = InstanceId::parse(NONEXISTENT_ID) else { return };
    let read = accept::read_connection(app, name, &nonexistent, now).await.err();
    let is_unreachable = read.as_ref().is_some_and(|error| error.class() == Class::Retry);
    report_permission(report, target, format!("target {name}, vpc:GetVpcPeerConnectionAttribute"), read, true);
    if is_unreachable {
        return;
    }
    let pending = examine_lists(app, name, target, now, report).await;
    let exists = pending.is_some();
    let instance_id = pending.unwrap_or(nonexistent);
    let (by, request_key) = (Approver::peergate(name).principal, clock::nonce());
    let purpose = TokenPurpose::DryRun { request_key: &request_key };
    let token = ClientToken::derive(&by, target.account, &instance_id, Verdict::Approve, purpose);
    let dry_run = accept::dry_run_accept(app, name, &instance_id, token.as_str(), now).await;
    let subject = format!("target {name}, vpc:AcceptVpcPeerConnection (dry run)");
    report_permission(report, target, subject, dry_run.err(), !exists);
    if target.read_vpcs {
        examine_vpcs(app, name, target, now, report).await;
    }
}

/// Checks the permissions that reading our own VPCs needs.
async fn examine_vpcs(app: &App, name: &str, target: &Target, now: Timestamp, report: &mut Report) {
    for region in &target.regions {
        let vpcs = accept::describe_vpcs(app, name, region, &[NONEXISTENT_VPC.to_owned()], now).await;
        let subject = format!("target {name}, vpc:DescribeVpcs in {region}");
        report_permission(report, target, subject, vpcs.err(), true);
        let tables = accept::list_route_tables(app, name, region, NONEXISTENT_VPC, now).await;
        let subject = format!("target {name}, vpc:DescribeRouteTableList in {region}");
        report_permission(report, target, subject, tables.err(), true);
        let routes = accept::list_routes(app, name, region, NONEXISTENT_TABLE, now).await;
        let subject = format!("target {name}, vpc:DescribeRouteEntryList in {region}");
        report_permission(report, target, subject, routes.err(), true);
    }
}

/// Checks that there are credentials, and that they belong to the account of the target. Returns whether the other checks
/// make sense.
async fn has_usable_credentials(app: &App, name: &str, target: &Target, now: Timestamp, report: &mut Report) -> bool {
    let subject = format!("target {name}, credentials");
    let key = match app.credentials.current_key(&app.secrets, name, &SessionName::for_reads(), now).await {
        Ok(key) => key,
        Err(error) => {
            let reason = Unreachable::named_in(&error.to_string());
            let (detail, fix) = match reason {
                // This error names the host of AWS.
                Some(reason) if aws::is_aws_code(error.code()) => {
                    (format!("there are no credentials: {error}"), reason.fix().to_owned())
                }
                Some(reason) => {
                    let host = target.sts_endpoint.host_str().unwrap_or_default();
                    (format!("there are no credentials: {host}: {reason} ({})", error.code()), reason.fix().to_owned())
                }
                None => (format!("there are no credentials ({})", error.code()), advice_for_doctor(error.code())),
            };
            match error.class() {
                Class::Retry | Class::Unknown => report.add_unknown(subject, detail, fix),
                Class::ReadStatus | Class::Missing | Class::Permanent | Class::Credentials | Class::DryRunPassed => {
                    report.add_problem(subject, detail, fix);
                }
            }
            return false;
        }
    };
    let sts = Sts::new(app.http.clone(), target.sts_endpoint.clone(), target.signature);
    match sts.caller_account(key.as_credentials()).await {
        Ok(account) if account == target.account => report.add_healthy(subject, format!("of account {account}")),
        Ok(account) => {
            let detail = format!("of account {account}, not {}", target.account);
            report.add_problem(subject, detail, "Store a key of the target's account, or correct `account`.");
            return false;
        }
        Err(error) => {
            let code = error.code();
            let fix = advice_for_doctor(code);
            match error.class() {
                Class::Retry => {
                    let host = target.sts_endpoint.host_str().unwrap_or_default();
                    let (reason, fix) = match Unreachable::named_in(&error.to_string()) {
                        Some(reason) => (format!("{host}: {reason}"), reason.fix().to_owned()),
                        None => (format!("the Security Token Service at {host} does not answer"), fix),
                    };
                    report.add_unknown(subject, format!("{reason} ({code})"), fix);
                }
                Class::ReadStatus
                | Class::Missing
                | Class::Permanent
                | Class::Credentials
                | Class::DryRunPassed
                | Class::Unknown => {
                    report.add_problem(subject, format!("Alibaba Cloud refuses them with {code}"), fix);
                }
            }
        }
    }
    true
}

/// Lists each region of the target. Returns a request that is pending, if there is one on the first pages.
async fn examine_lists(
    app: &App,
    name: &str,
    target: &Target,
    now: Timestamp,
    report: &mut Report,
) -> Option<InstanceId> {
    let is_pending = |connection: &&Connection| {
        connection.status == Status::Accepting && connection.accepter.account == target.account
    };
    let mut pending = None;
    for region in &target.regions {
        let subject = format!("target {name}, vpc:ListVpcPeerConnections in {region}");
        match accept::list_connections(app, name, ListScope::of_region(region), None, now).await {
            Ok(page) => {
                let listed = page.connections.iter().find(is_pending);
                pending = pending.or_else(|| listed.map(|connection| connection.instance_id.clone()));
                let total = page.total.map_or(page.connections.len().to_string(), |total| total.to_string());
                report.add_healthy(subject, format!("connections: {total}"));
            }
            Err(error) => report_permission(report, target, subject, Some(error), false),
        }
    }
    pending
}

/// Reports whether peergate has the permission for an operation. An error about the connection shows that it has.
fn report_permission(
    report: &mut Report,
    target: &Target,
    subject: String,
    error: Option<accept::Error>,
    is_nonexistent: bool,
) {
    let Some(error) = error else { return report.add_healthy(subject, "allowed") };
    let code = error.to_problem().code;
    match error.class() {
        Class::Retry => {
            let host = target.endpoint.host_str().unwrap_or_default();
            let (reason, fix) = match Unreachable::named_in(&error.to_string()) {
                Some(reason) => (format!("no answer from {host}: {reason}"), reason.fix().to_owned()),
                None if code == "Transport.Unreadable" => (
                    format!("the answer of {host} is not Alibaba Cloud's"),
                    "Check the `endpoint` of the target, and the proxies on the way.".to_owned(),
                ),
                None => (format!("no result from {host}"), advice_for_doctor(&code)),
            };
            report.add_unknown(subject, format!("{reason} ({code})"), fix);
        }
        Class::ReadStatus | Class::Missing | Class::DryRunPassed => report.add_healthy(subject, "allowed"),
        Class::Permanent | Class::Unknown
            if is_nonexistent && (code.starts_with("IllegalParam") || code == "InvalidRouteTableId.NotFound") =>
        {
            report.add_healthy(subject, "allowed");
        }
        Class::Permanent | Class::Unknown if subject.contains(" in ") && code.contains("Region") => {
            let fix = "Check the `regions` of the target, e.g. cn-shanghai.";
            report.add_problem(subject, format!("refused with {code}"), fix);
        }
        Class::Permanent | Class::Credentials | Class::Unknown => {
            report.add_problem(subject, format!("refused with {code}"), advice_for_doctor(&code));
        }
    }
}

/// What to do about an error code. Unlike on a card, no decision waits for it, and peergate does not try again.
fn advice_for_doctor(code: &str) -> String {
    match message::advice_for_code(code) {
        passing if passing.starts_with("peergate tries again") => {
            "Run the doctor again: such an error often passes.".to_owned()
        }
        advice => advice.replace(", then approve again", "").replace(", then decide again", ""),
    }
}
