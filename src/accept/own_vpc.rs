//! What Alibaba Cloud says of the accepting account's own VPCs, and their routes.

use jiff::Timestamp;

use super::{Caller, Error, call_api};
use crate::alicloud::OwnVpc;
use crate::app::App;
use crate::credentials::SessionName;
use crate::peering::{RouteEntry, RouteTable};

/// Describes up to 20 VPCs of the accepting account.
pub async fn describe_vpcs(
    app: &App,
    target: &str,
    region: &str,
    ids: &[String],
    now: Timestamp,
) -> Result<Vec<OwnVpc>, Error> {
    let call = async |caller: Caller| caller.api.describe_vpcs(caller.credentials(), region, ids).await;
    call_api(app, target, &SessionName::for_reads(), now, call).await
}

/// The route tables of a VPC of the accepting account, with all their routes.
pub async fn list_route_tables(
    app: &App,
    target: &str,
    region: &str,
    vpc: &str,
    now: Timestamp,
) -> Result<Vec<RouteTable>, Error> {
    let call = async |caller: Caller| caller.api.list_route_tables(caller.credentials(), region, vpc).await;
    call_api(app, target, &SessionName::for_reads(), now, call).await
}

/// The routes of a route table of the accepting account.
pub async fn list_routes(
    app: &App,
    target: &str,
    region: &str,
    table: &str,
    now: Timestamp,
) -> Result<Vec<RouteEntry>, Error> {
    let call = async |caller: Caller| caller.api.list_routes(caller.credentials(), region, table).await;
    call_api(app, target, &SessionName::for_reads(), now, call).await
}
