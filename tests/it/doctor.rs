//! Problems of a deployment: what the doctor reports, and what the function does.

use crate::drift::reading_vpcs;
use crate::support::prelude::*;
use peergate::app::App;
use peergate::config::{Config, Environment, SecretsSource};
use peergate::doctor::{self, Health, Options, Report};
use peergate::fake::alicloud::JournalEntry;
use peergate::logging::ErrorChain;
use tokio::time::Instant;

/// A deployment that is about to go wrong.
struct Deployment<'a> {
    app: &'a TestApp,
    environment: Environment,
    config: String,
    secrets: Value,
}

impl Deployment<'_> {
    fn replace(&mut self, this: &str, that: &str) {
        assert!(self.config.contains(this), "{this}");
        self.config = self.config.replacen(this, that, 1);
    }

    fn fault(&self, action: &str, code: &str, dry_run: bool) {
        let (action, code) = (Some(action.to_owned()), Some(code.to_owned()));
        self.app.simulator.add_fault(Fault { action, code, dry_run, times: 1000, ..Fault::default() });
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

/// How something goes wrong.
type Change = fn(&mut Deployment<'_>);

/// Applies a change to a healthy deployment.
fn broken(app: &TestApp, change: Change) -> Environment {
    let SecretsSource::File(path) = &app.environment.secrets else { panic!("the sandbox has a file") };
    let secrets = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (environment, config) = (app.environment.clone(), app.config.clone());
    let mut deployment = Deployment { app, environment, config, secrets };
    change(&mut deployment);
    std::fs::write(&app.environment.config, &deployment.config).unwrap();
    let text = deployment.secrets.as_str().map_or_else(|| deployment.secrets.to_string(), ToOwned::to_owned);
    std::fs::write(path, text).unwrap();
    deployment.environment
}

/// The text without the names of the two files, and without places in them.
fn without_places(text: &str, environment: &Environment) -> String {
    if text.contains("cannot read") {
        return text.to_owned();
    }
    let mut text = text.replace(&format!("{}: ", environment.config.display()), "");
    if let SecretsSource::File(path) = &environment.secrets {
        text = text.replace(&format!("the secrets file {}: ", path.display()), "");
    }
    while let Some(start) = text.find(", line ") {
        let end = start + text[start..].find(": ").unwrap();
        text.replace_range(start..end, "");
    }
    text
}

/// Why a function does not start, or its reply to a signed approval.
async fn function(app: &TestApp, environment: &Environment) -> String {
    let config = match Config::load(&environment.config) {
        Ok(config) => config,
        Err(error) => return format!("not started: {}", ErrorChain(&error)),
    };
    let function = match App::new(environment, config) {
        Ok(function) => function,
        Err(error) => return format!("not started: {}", ErrorChain(&error)),
    };
    if let Err(error) = function.prewarm().await {
        return format!("not started: {error}");
    }
    let id = app.new_request().await;
    let signed = app.sign_event("approve", &id, "alice").await;
    let request =
        signed.headers.iter().fold(http::Request::post(&signed.path), |it, (name, value)| it.header(*name, value));
    let request = request.body(bytes::Bytes::from(signed.body)).unwrap();
    let response = Box::pin(peergate::webhook::handle_request(&function, request, clock::now())).await;
    let is_accept = |entry: &JournalEntry| entry.action == ACCEPT && !entry.is_dry_run();
    let accepts = app.simulator.journal().iter().filter(|entry| is_accept(entry)).count();
    assert_eq!(accepts, usize::from(response.status() == 200), "what is refused accepts nothing: {}", response.body());
    let body: Value = serde_json::from_str(response.body()).unwrap();
    let name = body["type"].as_str().or(body["outcome"].as_str()).unwrap();
    let name = name.trim_start_matches("urn:peergate:problem:");
    let code = body["problem"]["code"].as_str().map(|code| format!(" {code}")).unwrap_or_default();
    format!("{} {name}{code}", response.status().as_u16())
}

fn that_are(found: Health, report: &Report) -> Vec<String> {
    let they = report.0.iter().filter(|check| check.health == found);
    they.map(|check| format!("{}: {}", check.subject, check.detail)).collect()
}

fn problems(report: &Report) -> Vec<String> {
    that_are(Health::Problem, report)
}

fn unknown(report: &Report) -> Vec<String> {
    that_are(Health::Unknown, report)
}

/// Each row: the problem, the first line that the doctor reports, and the reply of the function.
async fn check(rows: &[(Change, &str, &str)]) {
    for (change, expected, does) in rows {
        let app = TestApp::start().await;
        let environment = broken(&app, *change);
        let report = doctor::examine_deployment(Ok(environment.clone()), &Options::default(), soon()).await;
        let problems: Vec<_> = problems(&report).iter().map(|it| without_places(it, &environment)).collect();
        assert!(
            problems.first().is_some_and(|problem| problem.starts_with(expected)),
            "{expected}: {}",
            report.to_text()
        );
        assert!(!report.is_healthy());
        assert_eq!(find_secret(&report.to_json().to_string()), None);
        assert!(
            report.0.iter().filter(|it| it.health == Health::Problem).all(|it| it.fix.is_some()),
            "{}",
            report.to_text()
        );
        let did = without_places(&function(&app, &environment).await, &environment);
        assert!(did.starts_with(does), "{expected}: {did}");
    }
}

#[tokio::test]
async fn doctor_reports_a_healthy_deployment_as_healthy() {
    let app = TestApp::start().await;
    app.new_request().await;
    let environment = broken(&app, |_| {});
    let report = doctor::examine_deployment(Ok(environment), &Options::default(), soon()).await;
    assert!(report.is_healthy(), "{}", report.to_text());
    let reported: Vec<_> = report.0.iter().map(|check| (check.health, check.subject.as_str())).collect();
    let fine = |what| (Health::Healthy, what);
    assert_eq!(
        reported,
        [
            fine("environment"),
            fine("configuration"),
            fine("table"),
            fine("table, index"),
            // The embedded table has no stream, and needs none.
            fine("table, TTL"),
            fine("table, query"),
            fine("table, reading"),
            fine("table, reading many"),
            fine("table, writing"),
            fine("secrets"),
            (Health::Warning, "buttons"),
            fine("clock"),
            fine("target prod, credentials"),
            fine("target prod, vpc:GetVpcPeerConnectionAttribute"),
            fine("target prod, vpc:ListVpcPeerConnections in cn-shanghai"),
            fine("target prod, vpc:AcceptVpcPeerConnection (dry run)"),
            fine("channel audit"),
            fine("channel hook"),
            fine("channel netops"),
            fine("channel oncall"),
        ]
    );
    app.assert_calls(ACCEPT, 0);
    assert!(
        [WEBHOOK_PATH, AUDIT_PATH].iter().flat_map(|path| app.slack.posts(path)).all(|post| post.body.is_empty()),
        "nothing is said"
    );
    assert!(app.slack.messages_in(CHANNEL).is_empty(), "nothing is said");
}

#[tokio::test]
async fn doctor_names_configuration_problems() {
    let rows: &[(Change, &str, &str)] = &[
        (
            |it| it.environment.config = "/nonexistent/peergate.toml".into(),
            "configuration: cannot read /nonexistent/peergate.toml: No such file or directory (os error 2)",
            "not started: cannot read /nonexistent/peergate.toml: No such file or directory (os error 2)",
        ),
        (
            |it| it.config = String::new(),
            "configuration: targets: name at least one accepting account",
            "not started: targets: name at least one accepting account",
        ),
        (
            |it| it.replace("cn-shanghai", "cn shanghai"),
            "configuration: targets.prod.regions: \"cn shanghai\" is not a region id",
            "not started: targets.prod.regions: \"cn shanghai\" is not a region id",
        ),
        (
            |it| {
                let ours = format!("sts_endpoint = \"{}\"", it.app.alicloud_url);
                it.replace(&ours, "sts_endpoint = \"http://sts.aliyuncs.com/\"");
            },
            "configuration: targets.prod.sts_endpoint: only https is allowed, except on loopback, found http to sts.aliyuncs.com",
            "not started: targets.prod.sts_endpoint: only https is allowed, except on loopback",
        ),
        (
            |it| it.replace("signature =", "calls_per_minute = 0\nsignature ="),
            "configuration: targets.prod.calls_per_minute: must be at least 1",
            "not started: targets.prod.calls_per_minute: must be at least 1",
        ),
        (
            |it| it.config.insert_str(0, "retention_days = 7\n"),
            "configuration: retention_days: must be at least 8, because a request can be pending for 7 days",
            "not started: retention_days: must be at least 8, because a request can be pending for 7 days",
        ),
        (
            |it| {
                let role = "credentials = { kind = \"assume-role\", role = \"acs:ram::1:role/peergate\" }\nsignature =";
                it.replace("signature =", role);
            },
            "configuration: targets.prod.credentials.role: expected acs:ram::2222222222222222:role/NAME",
            "not started: targets.prod.credentials.role: expected acs:ram::2222222222222222:role/NAME",
        ),
        (
            |it| it.replace("channel = \"C0PEER\"", "channel = \"#peering\""),
            "configuration: channels.netops.channel: expected the channel's id, e.g. C0123ABCD",
            "not started: channels.netops.channel: expected the channel's id, e.g. C0123ABCD",
        ),
        (
            |it| it.replace("netops = [\"alice\", \"bob\"]", "netops = [\"alice\", \"mallory\"]"),
            "configuration: groups.netops: no person is named mallory",
            "not started: groups.netops: no person is named mallory",
        ),
        (
            |it| it.replace("target = \"prod\"", "target = \"production\""),
            "configuration: rule.two people.target: no target is named production",
            "not started: rule.two people.target: no target is named production",
        ),
        (
            |it| it.replace("approvals = 2", "approvals = 5"),
            "configuration: rule.two people.approvals: the rule names only 4 different people as approvers",
            "not started: rule.two people.approvals: the rule names only 4 different people as approvers",
        ),
        (
            |it| it.environment.ca_file = Some("/nonexistent/ca.pem".into()),
            "HTTP client: cannot use /nonexistent/ca.pem (PEERGATE_CA_FILE): No such file or directory",
            "not started: cannot use /nonexistent/ca.pem (PEERGATE_CA_FILE): No such file or directory",
        ),
    ];
    check(rows).await;
}

#[tokio::test]
async fn doctor_names_table_problems() {
    let rows: &[(Change, &str, &str)] = &[
        (
            |it| it.environment.table = "other".into(),
            "table: cannot describe other: ResourceNotFoundException",
            "503 store-unavailable",
        ),
        (
            |it| it.environment.aws.dynamodb_endpoint = Some("http://127.0.0.1:9".into()),
            "table: cannot describe peergate: no answer: the connection is refused (http://127.0.0.1:9)",
            "503 store-unavailable",
        ),
    ];
    check(rows).await;
}

#[tokio::test]
async fn doctor_names_missing_table_permissions() {
    let rows = [
        ("DescribeTable", "table: cannot describe peergate: AccessDeniedException", "200 accepted"),
        ("Query", "table, query: the store is unavailable: AccessDeniedException", "200 accepted"),
        ("GetItem", "table, reading: the store is unavailable: AccessDeniedException", "503 store-unavailable"),
        ("BatchGetItem", "table, reading many: the store is unavailable: AccessDeniedException", "200 accepted"),
        ("PutItem", "table, writing: the store is unavailable: AccessDeniedException", "503 store-unavailable"),
    ];
    for (operation, expected, does) in rows {
        let (app, table) = TableProxy::start(quick_settings()).await;
        table.refuse_operation(operation);
        let report = doctor::examine_deployment(Ok(app.environment.clone()), &Options::default(), soon()).await;
        assert_eq!(problems(&report), [expected], "{}", report.to_text());
        assert_eq!(function(&app, &app.environment).await, does, "{expected}");
    }
}

#[tokio::test]
async fn doctor_names_secrets_problems() {
    let rows: &[(Change, &str, &str)] = &[
        (
            |it| it.environment.secrets = SecretsSource::File("/nonexistent/secrets.json".into()),
            "secrets: cannot read the secrets file /nonexistent/secrets.json: No such file or directory (os error 2)",
            "503 secrets-unavailable",
        ),
        (
            |it| it.secrets = json!("hush"),
            "secrets: line 1, column 1: not JSON: expected value",
            "not started: line 1, column 1: not JSON: expected value",
        ),
        (
            |it| it.secrets["targets"] = json!({}),
            "secrets: targets.prod: missing",
            "not started: targets.prod: missing",
        ),
        (
            |it| it.secrets["targets"]["prod"]["access_key_secret"] = json!(" "),
            "secrets: targets.prod.access_key_secret: it begins with a space or a line break",
            "not started: targets.prod.access_key_secret: it begins with a space or a line break",
        ),
        (
            |it| it.secrets["targets"]["prod"]["access_key"] = json!("LTAI"),
            "secrets: targets.prod.access_key",
            "not started: targets.prod.access_key",
        ),
        (
            |it| it.secrets["clients"]["ci"]["signing_secrets"] = json!(["whsec_short"]),
            "secrets: clients.ci.signing_secrets[0]",
            "not started: clients.ci.signing_secrets[0]",
        ),
        (
            |it| it.secrets["clients"]["ci"]["signing_secrets"] = json!([]),
            "secrets: clients.ci.signing_secrets: name at least one",
            "not started: clients.ci.signing_secrets: name at least one",
        ),
        (
            |it| it.secrets["platforms"]["slack"] = Value::Null,
            "secrets: platforms.slack: missing",
            "not started: platforms.slack: missing",
        ),
        (
            |it| it.secrets["platforms"]["slack"]["signing_secrets"] = json!(["short"]),
            "secrets: platforms.slack.signing_secrets[0]",
            "not started: platforms.slack.signing_secrets[0]",
        ),
        (
            |it| it.secrets["targets"]["prod"]["access_key_id"] = json!("accepter-key\n"),
            "secrets: targets.prod.access_key_id: it ends with a space or a line break",
            "not started: targets.prod.access_key_id: it ends with a space or a line break",
        ),
        (
            |it| it.secrets["platforms"]["slack"]["signing_secrets"] = json!(["8f742231b10e8888abcd99yyyzzz85a5\n"]),
            "secrets: platforms.slack.signing_secrets[0]",
            "not started: platforms.slack.signing_secrets[0]",
        ),
        (
            |it| it.secrets["platforms"]["slack"]["bot_token"] = json!("xoxb-1\n"),
            "secrets: platforms.slack.bot_token: it ends with a space or a line break",
            "not started: platforms.slack.bot_token: it ends with a space or a line break",
        ),
        (
            |it| it.secrets["platforms"]["slack"]["bot_token"] = json!("xoxe.xoxb-1-abc"),
            "secrets: platforms.slack.bot_token: it expires after 12 hours, because the app rotates its tokens. Turn off “Advanced token security via token rotation” under OAuth & Permissions",
            "not started: platforms.slack.bot_token: it expires after 12 hours, because the app rotates its tokens.",
        ),
        (
            |it| it.secrets["platforms"]["slack"]["bot_token"] = json!("xoxe-1-abc"),
            "secrets: platforms.slack.bot_token: it is a refresh token.",
            "not started: platforms.slack.bot_token: it is a refresh token.",
        ),
        (
            |it| it.secrets["platforms"]["slack"]["bot_token"] = json!("xoxp-1-abc"),
            "secrets: platforms.slack.bot_token: it is the token of a user.",
            "not started: platforms.slack.bot_token: it is the token of a user.",
        ),
        (
            |it| it.secrets["platforms"]["slack"]["bot_token"] = json!("xapp-1-abc"),
            "secrets: platforms.slack.bot_token: it is an app-level token.",
            "not started: platforms.slack.bot_token: it is an app-level token.",
        ),
        (
            |it| it.secrets["platforms"]["slack"]["bot_token"] = json!("abc"),
            "secrets: platforms.slack.bot_token: it is not a Bot User OAuth Token, which starts with xoxb",
            "not started: platforms.slack.bot_token: it is not a Bot User OAuth Token, which starts with xoxb",
        ),
        (
            |it| it.secrets["platforms"]["slack"]["bot_token"] = Value::Null,
            "secrets: platforms.slack.bot_token: missing, and a channel of kind `slack` needs it",
            "not started: platforms.slack.bot_token: missing, and a channel of kind `slack` needs it",
        ),
        (|it| it.secrets["channels"]["hook"] = Value::Null, "secrets: channels.hook", "not started: channels.hook"),
        (
            |it| it.secrets["channels"]["hook"]["url"] = json!("http://hooks.slack.com/x"),
            "secrets: channels.hook.url: only https is allowed, except on loopback",
            "not started: channels.hook.url: only https is allowed, except on loopback",
        ),
        (
            |it| it.secrets["channels"]["audit"]["signing_secrets"] = json!([]),
            "secrets: channels.audit.signing_secrets: name at least one",
            "not started: channels.audit.signing_secrets: name at least one",
        ),
    ];
    check(rows).await;
}

#[tokio::test]
async fn doctor_names_alibaba_cloud_problems() {
    let rows: &[(Change, &str, &str)] = &[
        (
            |it| it.secrets["targets"]["prod"]["access_key_id"] = json!("LTAI-gone"),
            "target prod, credentials: Alibaba Cloud refuses them with InvalidAccessKeyId.NotFound",
            "502 credentials-refused InvalidAccessKeyId.NotFound",
        ),
        (
            |it| it.secrets["targets"]["prod"]["access_key_secret"] = json!("wrong"),
            "target prod, credentials: Alibaba Cloud refuses them with SignatureDoesNotMatch",
            "502 credentials-refused SignatureDoesNotMatch",
        ),
        (
            |it| it.secrets["targets"]["prod"]["security_token"] = json!("stale"),
            "target prod, credentials: Alibaba Cloud refuses them with InvalidSecurityToken.MismatchWithAccessKey",
            "502 credentials-refused InvalidSecurityToken.MismatchWithAccessKey",
        ),
        (
            |it| {
                it.secrets["targets"]["prod"] =
                    json!({"access_key_id": "requester-key", "access_key_secret": "requester-secret"});
            },
            "target prod, credentials: of account 1111111111111111, not 2222222222222222",
            "409 vendor-refused ResourceNotFound.InstanceId",
        ),
        (
            |it| it.fault(GET, "Forbidden.RAM", false),
            "target prod, vpc:GetVpcPeerConnectionAttribute: refused with Forbidden.RAM",
            "502 credentials-refused Forbidden.RAM",
        ),
        (
            |it| it.fault(LIST, "Forbidden.RAM", false),
            "target prod, vpc:ListVpcPeerConnections in cn-shanghai: refused with Forbidden.RAM",
            // The other peerings are unknown; the card says so.
            "200 accepted",
        ),
        (
            |it| it.fault(ACCEPT, "Forbidden.RAM", true),
            "target prod, vpc:AcceptVpcPeerConnection (dry run): refused with Forbidden.RAM",
            // People decide once; the accept is retried until operators have fixed the problem.
            "200 accepted",
        ),
        (
            |it| it.fault(ACCEPT, "OperationFailed.CdtNotOpened", true),
            "target prod, vpc:AcceptVpcPeerConnection (dry run): refused with OperationFailed.CdtNotOpened",
            "409 vendor-refused OperationFailed.CdtNotOpened",
        ),
        (
            |it| it.fault(GET, "InvalidAction.NotFound", false),
            "target prod, vpc:GetVpcPeerConnectionAttribute: refused with InvalidAction.NotFound",
            "409 vendor-refused InvalidAction.NotFound",
        ),
        (
            |it| it.fault(LIST, "UnsupportedRegion", false),
            "target prod, vpc:ListVpcPeerConnections in cn-shanghai: refused with UnsupportedRegion",
            "200 accepted",
        ),
        (
            |it| {
                let role = "acs:ram::2222222222222222:role/gone";
                it.app.simulator.add_fault(Fault {
                    action: Some("AssumeRole".into()),
                    code: Some("EntityNotExist.Role".into()),
                    http_status: 404,
                    times: 1000,
                    ..Fault::default()
                });
                let kind = format!("credentials = {{ kind = \"assume-role\", role = \"{role}\" }}");
                it.replace("signature =", &format!("{kind}\nsignature ="));
            },
            "target prod, credentials: there are no credentials (EntityNotExist.Role)",
            "502 credentials-refused EntityNotExist.Role",
        ),
    ];
    check(rows).await;
}

#[tokio::test]
async fn doctor_names_channel_problems() {
    let rows: &[(Change, &str, &str)] = &[
        (
            |it| it.secrets["platforms"]["slack"]["bot_token"] = json!("xoxb-revoked"),
            "channel netops: not_authed",
            "200 accepted",
        ),
        (
            |it| it.replace("[platforms.slack]\n", "[platforms.slack]\nenterprise = \"E0001\"\n"),
            "channel netops: platforms.slack.enterprise: the bot token belongs to a workspace outside E0001",
            "200 accepted",
        ),
        (
            |it| it.secrets["channels"]["hook"]["url"] = json!("http://127.0.0.1:9/"),
            "channel hook: Transport.Connect (127.0.0.1: the connection is refused)",
            "200 accepted",
        ),
    ];
    check(rows).await;
}

#[tokio::test]
async fn doctor_warns_of_a_rule_blocked_by_contacts() {
    let app = TestApp::start().await;
    let environment = broken(&app, |it| {
        it.replace(
            "requester_accounts = [\"1111111111111111\"]\naccepting_vpcs = [\"vpc-two-people\"]\napprovals = 2",
            "approvals = 4",
        );
    });
    let report = doctor::examine_deployment(Ok(environment), &Options::default(), soon()).await;
    let reported = "rule two people: the rule requires 4 approvers for a request of account 1111111111111111, but only 3 are not contacts of the account";
    assert!(that_are(Health::Warning, &report).contains(&reported.to_owned()), "{}", report.to_text());
}

async fn ask(app: &App) -> Duration {
    let began = Instant::now();
    doctor::StartupCheck::default().run_once(app).await;
    began.elapsed()
}

/// The misconfiguration that this test has logged, by key.
fn misconfigured() -> Vec<String> {
    let lines = logged();
    let reported = lines.lines().filter(|line| line.contains("misconfigured"));
    reported.filter_map(|line| Some(line.split_once("key=")?.1.to_owned())).collect()
}

#[tokio::test]
async fn first_tick_reports_remote_misconfiguration() {
    let app = TestApp::start().await;
    let app = |change: Change| {
        let environment = broken(&app, change);
        App::new(&environment, Config::load(&environment.config).unwrap()).unwrap()
    };
    ask(&app(|_| ())).await;
    assert_eq!(misconfigured(), Vec::<String>::new());
    ask(&app(|it| it.replace("account = \"2222222222222222\"", "account = \"3333333333333333\""))).await;
    ask(&app(|it| {
        it.replace("teams = [\"T0001\"]", "teams = [\"T0009\"]");
        it.config = it.config.replace("slack:T0001/", "slack:T0009/");
    }))
    .await;
    let gone = app(|it| it.fault(LIST, "InvalidRegionId.NotFound", false));
    ask(&gone).await;
    let reported = misconfigured();
    let expected = ["targets.prod.account", "platforms.slack.teams", "targets.prod.regions"];
    assert!(
        expected.iter().zip(&reported).all(|(key, line)| line.contains(key)) && reported.len() == 3,
        "{reported:?}"
    );
    assert!(reported[2].contains("InvalidRegionId.NotFound"), "{reported:?}");
}

#[tokio::test]
async fn first_tick_asks_once_and_never_waits_long() {
    let app = TestApp::start().await;
    let first_tick = doctor::StartupCheck::default();
    first_tick.run_once(&app.parts).await;
    let asked = app.count_upstream_calls();
    assert!(asked > 0);
    first_tick.run_once(&app.parts).await;
    assert_eq!(app.count_upstream_calls(), asked);
    app.slack.add_outage(Outage { path: "/api/auth.test".into(), hangs: true, ..Outage::default() });
    assert!(ask(&app.parts).await < Duration::from_secs(4));
}

#[tokio::test]
async fn doctor_checks_the_permissions_to_read_vpcs() {
    let app = reading_vpcs(TestApp::start().await);
    let examine = async || doctor::examine_deployment(Ok(broken(&app, |_| {})), &Options::default(), soon()).await;
    let report = examine().await;
    assert!(report.is_healthy(), "{}", report.to_text());
    for operation in ["DescribeVpcs", "DescribeRouteTableList", "DescribeRouteEntryList"] {
        let is_it = |subject: &str| subject.starts_with(&format!("target prod, vpc:{operation} in "));
        assert!(report.0.iter().any(|check| is_it(&check.subject)), "{operation}: {}", report.to_text());
        app.fail_times(9, operation, "Forbidden.RAM");
        let refused = examine().await;
        app.simulator.clear_faults();
        let problems: Vec<_> = refused.0.iter().filter(|check| check.health == Health::Problem).collect();
        assert!(problems.len() == 1 && is_it(&problems[0].subject), "{}", refused.to_text());
    }
}

#[tokio::test]
async fn unreachable_service_is_never_reported_as_healthy() {
    let rows: &[(Change, &str, &str)] = &[
        (
            |it| {
                let ours = format!("\nendpoint = \"{}\"", it.app.alicloud_url);
                it.replace(&ours, "\nendpoint = \"http://127.0.0.1:9/\"");
            },
            "clock: Transport.Connect (127.0.0.1: the connection is refused)\n\
             target prod, vpc:GetVpcPeerConnectionAttribute: no answer from 127.0.0.1: the connection is refused \
             (Transport.Connect)",
            "503 alicloud-unavailable",
        ),
        (
            |it| it.fault("GetCallerIdentity", "ServiceUnavailable", false),
            "target prod, credentials: the Security Token Service at 127.0.0.1 does not answer (ServiceUnavailable)",
            "200 accepted",
        ),
        (
            |it| it.app.slack.add_outage(Outage { path: "/api/auth.test".into(), status: 429, ..Outage::default() }),
            "channel netops: HTTP 429\nchannel oncall: HTTP 429",
            "200 accepted",
        ),
    ];
    for (change, expected, does) in rows {
        let app = TestApp::start().await;
        let environment = broken(&app, *change);
        let report = doctor::examine_deployment(Ok(environment.clone()), &Options::default(), soon()).await;
        assert_eq!(
            (unknown(&report).join("\n").as_str(), report.is_healthy()),
            (*expected, false),
            "{}",
            report.to_text()
        );
        assert_eq!(function(&app, &environment).await, *does, "{expected}");
    }
}

/// The fixes of the problems and unknown results, in their order.
fn fixes(report: &Report) -> Vec<String> {
    let amiss = report.0.iter().filter(|it| matches!(it.health, Health::Problem | Health::Unknown));
    amiss.map(|it| it.fix.clone().unwrap()).collect()
}

#[tokio::test]
async fn advice_fits_what_the_doctor_found() {
    let nothing_listens = "Check the address and the port: nothing listens there.";
    let rows: &[(Change, &[&str])] = &[
        (
            |it| {
                let ours = format!("\nendpoint = \"{}\"", it.app.alicloud_url);
                it.replace(&ours, "\nendpoint = \"http://127.0.0.1:9/\"");
            },
            &[nothing_listens, nothing_listens],
        ),
        (
            |it| {
                let ours = format!("sts_endpoint = \"{}\"", it.app.alicloud_url);
                it.replace(&ours, "sts_endpoint = \"https://name.invalid/\"");
            },
            &["Check the name, and the DNS of this machine."],
        ),
        (
            |it| it.environment.aws.dynamodb_endpoint = Some("http://127.0.0.1:9".into()),
            &[nothing_listens, "See the checks of the table."],
        ),
        (
            |it| it.environment.table = "other".into(),
            &[
                "Check PEERGATE_TABLE: there is no table other.",
                "Check PEERGATE_TABLE: there is no table other.",
                "Check PEERGATE_TABLE: there is no table other.",
                "Check PEERGATE_TABLE: there is no table other.",
                "Check PEERGATE_TABLE: there is no table other.",
                "See the checks of the table.",
            ],
        ),
        (
            |it| it.environment.secrets = SecretsSource::File("/nonexistent/secrets.json".into()),
            &["Name the file in PEERGATE_SECRETS, and let this user read it."],
        ),
        (
            |it| {
                it.environment.secrets = SecretsSource::SecretsManager("peergate".into());
                it.environment.aws.secrets_manager_endpoint = Some("http://127.0.0.1:9".into());
            },
            &[nothing_listens],
        ),
        (
            |it| it.fault("GetCallerIdentity", "ServiceUnavailable", false),
            &["Run the doctor again: such an error often passes."],
        ),
        (
            |it| it.fault(ACCEPT, "OperationFailed.CdtNotOpened", true),
            &["Activate Cloud Data Transfer (CDT) for the accepting account."],
        ),
        (|it| it.secrets["channels"]["hook"]["url"] = json!("http://127.0.0.1:9/"), &[nothing_listens]),
        (
            |it| it.secrets["platforms"]["slack"]["bot_token"] = json!("xoxb-revoked"),
            &["Check the app's token or secret, its scopes, the channel's id, and that the bot is in the channel."; 2],
        ),
        (
            |it| it.environment.config = "/nonexistent/peergate.toml".into(),
            &["Name the file in PEERGATE_CONFIG, and let this user read it."],
        ),
        (
            |it| it.config = "x".into(),
            &["Correct the file: peergate.example.toml has every key, and docs/configuration.md explains them."],
        ),
        (|it| it.secrets = json!("hush"), &["Correct the secrets: see docs/configuration.md#secrets."]),
    ];
    for (change, expected) in rows {
        let app = TestApp::start().await;
        let environment = broken(&app, *change);
        let report = doctor::examine_deployment(Ok(environment), &Options::default(), soon()).await;
        assert_eq!(fixes(&report), *expected, "{}", report.to_text());
        // The installation is on one machine, where nobody grants permissions of AWS.
        assert!(!report.to_text().contains("Allow "), "{}", report.to_text());
    }
}

#[tokio::test]
async fn refused_permission_is_named_with_what_to_allow() {
    let rows = [
        ("DescribeTable", "Allow dynamodb:DescribeTable, which only this check needs."),
        ("Query", "Allow dynamodb:Query on the index."),
        ("GetItem", "Allow dynamodb:GetItem on the table."),
        ("BatchGetItem", "Allow dynamodb:BatchGetItem on the table."),
        ("PutItem", "Allow dynamodb:PutItem on the table."),
    ];
    for (operation, expected) in rows {
        let (app, table) = TableProxy::start(quick_settings()).await;
        table.refuse_operation(operation);
        let report = doctor::examine_deployment(Ok(app.environment.clone()), &Options::default(), soon()).await;
        assert_eq!(fixes(&report).first().map(String::as_str), Some(expected), "{}", report.to_text());
    }
}

#[tokio::test]
async fn refused_ttl_check_is_reported_as_unknown() {
    let (app, table) = TableProxy::start(quick_settings()).await;
    table.refuse_operation("DescribeTimeToLive");
    let report = doctor::examine_deployment(Ok(app.environment.clone()), &Options::default(), soon()).await;
    assert_eq!(unknown(&report), ["table, TTL: cannot describe the TTL: AccessDeniedException"]);
}

#[tokio::test]
async fn doctor_reports_what_it_had_no_time_for() {
    let app = TestApp::start().await;
    app.simulator.set_limits(Duration::from_mins(10), None);
    let report = doctor::examine_deployment(Ok(broken(&app, |_| {})), &Options::default(), Instant::now()).await;
    let late = ["buttons", "clock", "target prod", "channel audit", "channel hook", "channel netops", "channel oncall"];
    assert_eq!(unknown(&report), late.map(|what| format!("{what}: there was no time for all checks")));
}

#[tokio::test]
async fn refused_probe_id_proves_the_permission() {
    let app = TestApp::start().await;
    let environment = broken(&app, |it| {
        it.fault(GET, "IllegalParam.InstanceId", false);
        it.fault(ACCEPT, "IllegalParam.InstanceId", true);
    });
    let report = doctor::examine_deployment(Ok(environment), &Options::default(), soon()).await;
    assert!(report.is_healthy(), "{}", report.to_text());
}

#[tokio::test]
async fn doctor_posts_a_test_message_only_on_request() {
    let app = TestApp::start().await;
    let environment = broken(&app, |_| {});
    app.slack.add_outage(Outage { path: AUDIT_PATH.into(), status: 404, ..Outage::default() });
    let report =
        doctor::examine_deployment(Ok(environment), &Options { post: true, ..Options::default() }, soon()).await;
    assert_eq!(problems(&report), ["channel audit: HTTP 404"]);
    assert!(app.slack.posts(WEBHOOK_PATH)[0].visible_text().contains("peergate can post here"));
    assert_eq!(app.slack.messages_in(CHANNEL)[0].text.lines().next(), Some("peergate can post here"));
}

#[tokio::test]
async fn doctor_without_an_environment_checks_nothing() {
    let missing = Environment::from_variables(|_| None);
    let report = doctor::examine_deployment(missing, &Options::default(), soon()).await;
    assert_eq!(
        problems(&report),
        ["environment: environment variable AWS_REGION is not set: expected a region, e.g. eu-central-1"]
    );
    let json = report.to_json();
    assert_eq!((&json["well"], &json["checks"][0]["found"]), (&json!(false), &json!("problem")));
}

#[tokio::test]
async fn doctor_counts_open_cards_by_binding_key() {
    let app = TestApp::start().await;
    let keys = ["b2xkIGtleSBvZiAzMiBieXRlcyBvciBtb3JlLCB5ZXM=", "bmV3IGtleSBvZiAzMiBieXRlcyBvciBtb3JlLCB5ZXM="];
    app.new_request().await;
    app.discover().await;
    let found = async |keys: &[&str]| {
        app.write_secrets(|secrets| secrets["binding_keys"] = json!(keys)).unwrap();
        let report = doctor::examine_deployment(Ok(app.environment.clone()), &Options::default(), soon()).await;
        let reported =
            |it: &doctor::Diagnosis| (it.health, it.detail.split(" with the key").next().unwrap().to_owned());
        let about = |it: &&doctor::Diagnosis| ["buttons", "open cards"].contains(&it.subject.as_str());
        report.0.iter().filter(about).map(reported).collect::<Vec<_>>()
    };
    assert_eq!(found(&keys[..1]).await, [(Health::Warning, "1".to_owned())], "signed with the derived key");
    let derived = found(&[]).await;
    assert_eq!(derived.last(), Some(&(Health::Healthy, "1".to_owned())), "{derived:?}");
    assert!(derived[0].0 == Health::Warning && derived[0].1.contains("derived"), "{derived:?}");
}
