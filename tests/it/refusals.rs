//! What operators and developers read when something is refused: each error names the file, the place, the key, the
//! address or the request, what was expected, and what was found. None repeats a secret.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::prelude::*;
use peergate::chat::SignedRequest;
use peergate::config::Config;
use peergate::secrets::SecretSet;

const TARGET: &str = "[targets.prod]\naccount = \"2222222222222222\"\nregions = []\n";

/// Each text, and the error about it.
fn config_errors(texts: &[String]) -> String {
    texts.iter().map(|text| Config::parse(text).unwrap_err().to_string()).collect::<Vec<_>>().join("\n")
}

#[test]
fn config_error_names_place_key_expected_and_found() {
    let rule = "[[rule]]\nname = \"r\"\ntarget = \"prod\"\n";
    let slack = "[platforms.slack]\nteams = [\"T1\"]\napp = \"A1\"\n[people.alice]\nprincipals = [\"slack:T1/U1\"]\n";
    let errors = config_errors(&[
        "[targets.prod]\naccount = 1\n".to_owned(),
        "[targets.prod]\naccuont = \"1\"\n".to_owned(),
        "[targets.prod]\naccount = \"x\"\nregions = []".to_owned(),
        "[targets.prod]\naccount = \"1\"\nregions = 7\n".to_owned(),
        "[targets.prod]\naccount = \"1\"\nregions = [7]\n".to_owned(),
        "[requests]\nstuck_after = \"soon\"\n".to_owned(),
        "[requests]\nstuck_after = 7\n".to_owned(),
        format!("{TARGET}endpoint = \"vpcpeer.aliyuncs.com\"\n"),
        format!("{TARGET}endpoint = \"\"\n"),
        format!("{TARGET}endpoint = \"http://h:99999\"\n"),
        format!("{TARGET}endpoint = \"http://vpcpeer.aliyuncs.com\"\n"),
        format!("{TARGET}credentials = {{ kind = \"root\" }}\n"),
        format!("{TARGET}credentials = {{ kind = 7 }}\n"),
        format!("{TARGET}credentials = {{ rol = 7 }}\n"),
        format!("{TARGET}credentials = {{ kind = \"assume-role\", role = 7 }}\n"),
        format!("{TARGET}credentials = {{ kind = \"assume-role\", rule = \"x\" }}\n"),
        format!("{TARGET}credentials = {{ kind = \"assume-role\", role = \"x\" }}\n"),
        format!("{TARGET}credentials = \"x\"\n"),
        format!("{TARGET}[channels.ops]\nkind = \"slak\"\nchannel = \"C1\"\n"),
        format!("{TARGET}[channels.ops]\nkind = \"slack\"\nchannel = 1\n"),
        format!("{TARGET}[channels.ops]\nkind = \"slack\"\nchanel = \"C1\"\n"),
        format!("{TARGET}[channels.ops]\nchannel = \"C1\"\n"),
        format!("{TARGET}{rule}approvals = -1\n"),
        format!("{TARGET}{rule}approvals = \"1\"\n"),
        format!("{TARGET}{rule}approvals = 99999999999\n"),
        format!("{TARGET}{rule}aprovals = 1\n"),
        format!("{TARGET}{rule}approvals = 1\nrequester_cidrs_within = [\"10.0.0.0\"]\n"),
        format!("{TARGET}{rule}approvals = 1\nrequester_cidrs_within = [\"10.0.0.0/33\"]\n"),
        format!("{TARGET}{rule}approvals = 1\nrequester_cidrs_within = \"10.0.0.0/3\"\n"),
        format!("{TARGET}{rule}approvals = 1\nremind_after = \"4\"\n"),
        format!("{TARGET}{rule}approvals = 1\nremind_after = \"4 fortnights\"\n"),
        format!("{TARGET}{rule}approvals = 1\nremind_after = \"1s\"\napprovers=[\"person:x\"]"),
        format!("{TARGET}{rule}approvals = 1\napprovers = [\"alice\"]\n"),
        format!("{TARGET}{rule}approvals = 1\napprovers = [\"slack:T1\"]\n"),
        format!("{TARGET}[people.a]\nprincipals = [\"slack:T1\"]\n"),
        format!("{TARGET}[people.a]\nprincipals = []\n"),
        format!("{TARGET}[accounts.x]\nname = \"a\"\n"),
        format!("retention_days = 7\n{TARGET}"),
        format!("[slack]\nteams = [\"T1\"]\napp = \"x\"\n{TARGET}"),
        format!("[platforms.slak]\nteams = [\"T1\"]\napp = \"x\"\n{TARGET}"),
        format!("[clients.CI]\n{TARGET}"),
        format!("[clients.ci]\nx=1\n{TARGET}"),
        format!("[platforms.feishu]\napp = \"cli_a\"\ntenant=\"x\"\nhost=\"Lark\"\n{TARGET}"),
        format!("{TARGET}{slack}{rule}approvals = 1\napprovers = [\"person:alic\"]\n"),
        format!("{TARGET}{slack}{rule}approvals = 1\napprovers = [\"group:netops\"]\n"),
        format!("{TARGET}{slack}{rule}approvals = 1\napprovers = [\"person:alice\"]\nchannels = [\"ops\"]\n"),
        format!("{TARGET}{slack}{rule}approvals = 2\napprovers = [\"person:alice\"]\n"),
        format!("{TARGET}{slack}{}approvals = 1\napprovers = [\"person:alice\"]\n", rule.replace("prod", "prd")),
        format!("{TARGET}[channels.ops]\nkind = \"slack\"\nchannel = \"C1\"\n"),
        format!("{TARGET}[channels.ops]\nkind = \"slack\"\nchannel = \"#ops\"\n"),
        format!("{TARGET}[platforms.slack]\nteams = [\"T1\", \"E1\"]\napp = \"A1\"\n"),
        format!("{TARGET}[slack]\nteams = [\"T1\"]\napp = \"A1\"\n[platforms.slack]\nteams = [\"T1\"]\napp = \"A1\"\n"),
        format!("{TARGET}[people.a]\nprincipals = [\"slack:T1/U1\"]\n"),
    ]);
    insta::assert_snapshot!(errors, @r##"
    peergate.toml: targets.prod.account, line 2, column 11: expected a string, found 1
    peergate.toml: targets.prod.accuont, line 2, column 1: unknown field `accuont`, expected one of `account`, `regions`, `endpoint`, `sts_endpoint`, `credentials`, `signature`, `read_vpcs`, `vpc_endpoint`, `calls_per_minute`; did you mean `account`?
    peergate.toml: targets.prod.account, line 2, column 11: not an account id: expected digits, as text, found "x"
    peergate.toml: targets.prod.regions, line 3, column 11: expected a list, found 7
    peergate.toml: targets.prod.regions[0], line 3, column 12: expected a string, found 7
    peergate.toml: requests.stuck_after, line 2, column 15: expected a duration, e.g. `4h` or `90m`, found "soon"
    peergate.toml: requests.stuck_after, line 2, column 15: expected a duration, e.g. `4h` or `90m`, found 7
    peergate.toml: targets.prod.endpoint, line 4, column 12: expected a URL, e.g. `https://vpcpeer.aliyuncs.com/`, found "vpcpeer.aliyuncs.com"
    peergate.toml: targets.prod.endpoint, line 4, column 12: expected a URL, e.g. `https://vpcpeer.aliyuncs.com/`, found ""
    peergate.toml: targets.prod.endpoint, line 4, column 12: expected a URL, e.g. `https://vpcpeer.aliyuncs.com/`, found a string of 14 characters
    peergate.toml: targets.prod.endpoint, line 4, column 12: only https is allowed, except on loopback, found http to vpcpeer.aliyuncs.com
    peergate.toml: targets.prod.credentials.kind, line 4, column 24: unknown variant `root`, expected one of `access-key`, `assume-role`, `oidc`
    peergate.toml: targets.prod.credentials.kind, line 4, column 24: expected a string, found 7
    peergate.toml: targets.prod.credentials, line 4, column 15: missing field `kind`
    peergate.toml: targets.prod.credentials.role, line 4, column 46: expected a string, found 7
    peergate.toml: targets.prod.credentials, line 4, column 15: unknown field `rule`, expected one of `role`, `external_id`, `key_of`; did you mean `role`?
    peergate.toml: targets.prod.credentials.role, line 4, column 46: expected acs:ram::2222222222222222:role/NAME, found "x"
    peergate.toml: targets.prod.credentials, line 4, column 15: expected a table with a `kind`, found "x"
    peergate.toml: channels.ops.kind, line 5, column 8: unknown variant `slak`, expected one of `slack`, `feishu`, `dingtalk`, `teams`, `slack-webhook`, `feishu-bot`, `dingtalk-robot`, `teams-workflow`, `standard-webhooks`; did you mean `slack`?
    peergate.toml: channels.ops.channel, line 6, column 11: expected a string, found 1
    peergate.toml: channels.ops, line 4, column 1: unknown field `chanel`, expected `channel`; did you mean `channel`?
    peergate.toml: channels.ops, line 4, column 1: missing field `kind`
    peergate.toml: rule[0].approvals, line 7, column 13: expected a whole number from 0 to 4294967295, found -1
    peergate.toml: rule[0].approvals, line 7, column 13: expected a whole number from 0 to 4294967295, found "1"
    peergate.toml: rule[0].approvals, line 7, column 13: expected a whole number from 0 to 4294967295, found 99999999999
    peergate.toml: rule[0].aprovals, line 7, column 1: unknown field `aprovals`, expected one of `name`, `target`, `requester_accounts`, `requester_regions`, `requester_cidrs_within`, `accepting_vpcs`, `max_bandwidth_mbps`, `approvals`, `approvers`, `require_reason`, `mention`, `channels`, `remind_after`, `escalate_after`, `escalate_to`; did you mean `approvals`?
    peergate.toml: rule[0].requester_cidrs_within[0], line 8, column 27: expected a CIDR block, e.g. `10.0.0.0/8`, found "10.0.0.0"
    peergate.toml: rule[0].requester_cidrs_within[0], line 8, column 27: expected a CIDR block, e.g. `10.0.0.0/8`, found "10.0.0.0/33"
    peergate.toml: rule[0].requester_cidrs_within, line 8, column 26: expected a list, found "10.0.0.0/3"
    peergate.toml: rule[0].remind_after, line 8, column 16: expected a duration, e.g. `4h` or `90m`, found "4"
    peergate.toml: rule[0].remind_after, line 8, column 16: expected a duration, e.g. `4h` or `90m`, found "4 fortnights"
    peergate.toml: rule.r.approvers, line 9, column 11: no person is named x
    peergate.toml: rule[0].approvers[0], line 8, column 14: not a principal: expected `platform:tenant/user`, each of 1 to 128 letters, digits and `-_.@+`, found "alice"
    peergate.toml: rule[0].approvers[0], line 8, column 14: not a principal: expected `platform:tenant/user`, each of 1 to 128 letters, digits and `-_.@+`, found "slack:T1"
    peergate.toml: people.a.principals[0], line 5, column 15: not a principal: expected `platform:tenant/user`, each of 1 to 128 letters, digits and `-_.@+`, found "slack:T1"
    peergate.toml: people.a.principals, line 5, column 14: name at least one identity, so that somebody can act as this person
    peergate.toml: accounts.x, line 4, column 11: not an account id: expected digits, as text
    peergate.toml: retention_days, line 1, column 18: must be at least 8, because a request can be pending for 7 days, found 7
    peergate.toml: platforms.slack.app, line 3, column 7: expected the app's id, e.g. A0123ABCD, found "x"
    peergate.toml: platforms.slak, line 1, column 12: unknown field `slak`, expected one of `slack`, `feishu`, `dingtalk`, `teams`; did you mean `slack`?
    peergate.toml: clients.CI, line 1, column 1: a name must have 1 to 40 lower-case letters, digits and `-`
    peergate.toml: clients.ci.x, line 2, column 1: unknown field, expected none
    peergate.toml: platforms.feishu.host, line 4, column 6: unknown variant `Lark`, expected `feishu` or `lark`; did you mean `lark`?
    peergate.toml: rule.r.approvers, line 13, column 13: no person is named alic; did you mean alice?
    peergate.toml: rule.r.approvers, line 13, column 13: no group is named netops
    peergate.toml: rule.r.channels, line 14, column 12: no channel is named ops
    peergate.toml: rule.r.approvals, line 12, column 13: the rule names only 1 different people as approvers
    peergate.toml: rule.r.target, line 11, column 10: no target is named prd; did you mean prod?
    peergate.toml: channels.ops.kind, line 5, column 8: `slack` requires the table [platforms.slack]
    peergate.toml: channels.ops.channel, line 6, column 11: expected the channel's id, e.g. C0123ABCD, found "#ops"
    peergate.toml: platforms.slack.teams, line 5, column 9: expected ids of workspaces, e.g. T0123ABCD; an organization belongs in `enterprise`, found "E1"
    peergate.toml: slack, line 4, column 1: `platforms.slack` exists, too
    peergate.toml: people.a.principals, line 5, column 14: slack:T1/U1 needs the table [platforms.slack]
    "##);
}

#[test]
fn broken_toml_is_located() {
    let errors = config_errors(&[
        "[targets.prod\naccount".to_owned(),
        format!("{TARGET}[targets.prod]\n"),
        format!("{TARGET}account = \"1\"\n"),
        "a = \"\u{1}\"".to_owned(),
        "x = 'abc".to_owned(),
        "x = 1 2".to_owned(),
        "x".to_owned(),
        "= 1".to_owned(),
        "{\"targets\": 1}".to_owned(),
        "targets: prod".to_owned(),
    ]);
    insta::assert_snapshot!(errors, @r##"
    peergate.toml: line 1, column 14: not TOML: unclosed table, expected `]`
    peergate.toml: line 4, column 10: not TOML: duplicate key "prod"
    peergate.toml: line 4, column 1: not TOML: duplicate key "account"
    peergate.toml: line 1, column 6: not TOML: invalid basic string, expected non-double-quote visible characters, `\`
    peergate.toml: line 1, column 9: not TOML: invalid literal string, expected `'`
    peergate.toml: line 1, column 5: not TOML: string values must be quoted, expected literal string
    peergate.toml: line 1, column 2: not TOML: key with no value, expected `=`
    peergate.toml: line 1, column 1: not TOML: unquoted keys cannot be empty, expected letters, numbers, `-`, `_`
    peergate.toml: line 1, column 1: not TOML: invalid key-value pair, expected key
    peergate.toml: line 1, column 10: not TOML: key with no value, expected `=`
    "##);
}

#[test]
fn config_file_is_named_and_its_encoding_understood() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    let load = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Config::load(&path).map(|_| ()).map_err(|error| error.to_string().replace(path.to_str().unwrap(), "FILE"))
    };
    let with_mark = |text: &str| ["\u{FEFF}", text].concat();
    assert_eq!(load(with_mark(TARGET).as_bytes()), Ok(()));
    assert_eq!(load(TARGET.replace('\n', "\r\n").as_bytes()), Ok(()));
    let utf16: Vec<u8> = with_mark(TARGET).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let problems = [
        (utf16, "FILE: the text is UTF-16: save it as UTF-8"),
        (b"[targets.prod]\naccount = \"\xE9\"\n".to_vec(), "FILE: line 2, column 12: the text is not UTF-8"),
        // The mark moves no column.
        (
            with_mark("accuont = 1").into_bytes(),
            "FILE: accuont, line 1, column 1: unknown field `accuont`, expected one of",
        ),
        (b"".to_vec(), "FILE: targets: name at least one accepting account"),
    ];
    for (bytes, expected) in problems {
        let error = load(&bytes).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    for (path, reason) in
        [(directory.path().join("none.toml"), "No such file"), (directory.path().into(), "Is a directory")]
    {
        let error = Config::load(&path).unwrap_err();
        let text = peergate::logging::ErrorChain(&error).to_string();
        assert!(text.starts_with(&format!("cannot read {}: {reason}", path.display())), "{text}");
    }
}

/// A configuration that needs a secret of each kind.
const NEEDY: &str = r#"
[targets.prod]
account = "2222222222222222"
regions = []
[clients.ci]
[platforms.slack]
teams = ["T1"]
app = "A1"
[platforms.feishu]
app = "cli_a6ee8fbe9ffe6d3d"
tenant = "82dfe55c5a220620"
host = "feishu"
[platforms.dingtalk]
app = "dingapp"
corp = "dingcorp"
template = "a.schema"
[channels.ops]
kind = "slack"
channel = "C1"
[channels.news]
kind = "feishu-bot"
[channels.audit]
kind = "standard-webhooks"
"#;

fn needed_secrets() -> Value {
    json!({
        "targets": {"prod": {"access_key_id": "LTAI5tExample", "access_key_secret": "hushHushHush"}},
        "clients": {"ci": {"signing_secrets": ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]}},
        "platforms": {
            "slack": {"signing_secrets": ["8f742231b10e8888abcd99yyyzzz85a5"], "bot_token": "xoxb-1234"},
            "feishu": {
                "callbacks": [{"encrypt_key": "an encrypt key", "verification_token": "0123456789abcdefghij"}],
                "app_secret": "0123456789abcdefghijklmn",
            },
            "dingtalk": {
                "api_secrets": ["an-api-secret-0123"], "app_secrets": ["an-app-secret-0123"],
                "path_secrets": ["0123456789abcdef0123456789abcdef"],
            },
        },
        "channels": {
            "news": {"url": "https://h/news"},
            "audit": {"url": "https://h/audit", "signing_secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]},
        },
    })
}

#[test]
fn secrets_error_names_file_key_and_form_but_no_value() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secrets.json");
    let config = Config::parse(NEEDY).unwrap();
    let load = |text: &str| {
        std::fs::write(&path, text).unwrap();
        SecretSet::load(&path, &config).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(load(&needed_secrets().to_string()), Ok(()));
    assert_eq!(load(&format!("\u{FEFF}{}", needed_secrets())), Ok(()));
    let long = "c".repeat(260);
    let client = "/clients/ci/signing_secrets/0";
    let cases = [
        (
            client,
            json!(""),
            "clients.ci.signing_secrets[0], line 1, column ?: not a Standard Webhooks secret: it is empty",
        ),
        (client, json!("whsec_c2hvcnQ="), "secret: it has 5 bytes; expected `whsec_` and the base64 of 24 to 64 bytes"),
        (client, json!("whsec_"), "secret: it has 0 bytes; expected `whsec_` and"),
        (client, json!("whsec_C2FVsBQIhrsc ChlQIMV+b5sSYspob7oD"), "secret: character 19 is a space, a line break"),
        (client, json!("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n"), "secret: it ends with a space or a line break"),
        (client, json!("\twhsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), "secret: it begins with a space or a line break"),
        (client, json!("whsec_C2FVsBQIhrsc-hlQIMV+b5sSYspob7oD"), "secret: it is not base64 at character 19"),
        (
            client,
            json!("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7o"),
            "secret: it is not base64: after 31 characters, a part",
        ),
        (client, json!("whsk_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), "secret: its prefix is not `whsec_`"),
        (client, json!(7), "clients.ci.signing_secrets[0], line 1, column ?: expected a string, found a number"),
        (
            "/clients/ci/signing_secrets",
            json!("whsec_x"),
            "clients.ci.signing_secrets, line 1, column ?: expected a list",
        ),
        ("/clients/ci/signing_secrets", json!([]), "clients.ci.signing_secrets: name at least one"),
        ("/clients", json!({"cl": {"signing_secrets": []}}), "clients.ci: missing: expected `signing_secrets`"),
        (
            "/targets",
            json!({"prd": {"access_key_id": "a", "access_key_secret": "b"}}),
            "targets.prod: missing: expected an access key; `targets` has prd",
        ),
        ("/targets/prod/access_key_id", json!("LTAI5tExample "), "targets.prod.access_key_id: it ends with a space"),
        (
            "/targets/prod/access_key_secret",
            json!("hush Hush"),
            "targets.prod.access_key_secret: character 5 is a space",
        ),
        ("/targets/prod/security_token", json!(""), "targets.prod.security_token: it is empty"),
        (
            "/targets/prod",
            json!({"access_key_id": "a", "acess_key_secret": "b"}),
            "unknown field `acess_key_secret`, expected one of `access_key_id`, `access_key_secret`, `security_token`; did you mean `access_key_secret`?",
        ),
        (
            "/platforms/slack/signing_secrets/0",
            json!("8f742231"),
            "not a Slack signing secret: it has 8 characters; expected 16",
        ),
        (
            "/platforms/slack/signing_secrets/0",
            json!("8f742231b10e8888abcd99yyyzzz85a5\r\n"),
            "not a Slack signing secret: it ends with",
        ),
        (
            "/platforms/slack/bot_token",
            json!(" xoxb-1234"),
            "platforms.slack.bot_token: it begins with a space or a line break",
        ),
        ("/platforms/slack/bot_token", json!(""), "platforms.slack.bot_token: it is empty"),
        (
            "/platforms/slack/bot_token",
            Value::Null,
            "platforms.slack.bot_token: missing, and a channel of kind `slack` needs it",
        ),
        (
            "/platforms/feishu/callbacks/0/encrypt_key",
            json!("short"),
            "not a Feishu Encrypt Key: it has 5 characters; expected 8 to 256",
        ),
        ("/platforms/feishu/callbacks/0/verification_token", json!(long), "Verification Token: it has 260 characters"),
        (
            "/platforms/feishu/app_secret",
            json!("0123456789abcdefghijklm\n"),
            "not a Feishu app secret: it ends with a space",
        ),
        (
            "/platforms/dingtalk/api_secrets/0",
            json!("short"),
            "not a DingTalk apiSecret: it has 5 characters; expected 16 to 256",
        ),
        ("/platforms/dingtalk/app_secrets", json!([]), "platforms.dingtalk.app_secrets: name at least one"),
        (
            "/platforms/dingtalk/app_secrets/0",
            json!("an-api-secret-0123"),
            "platforms.dingtalk.app_secrets: platforms.dingtalk has the same secret and could act as this sender",
        ),
        (
            "/platforms/dingtalk/path_secrets/0",
            json!("0123456789abcdef/0123456789abcdef"),
            "not a DingTalk path secret: character 17 is",
        ),
        (
            "/channels/audit/signing_secrets/0",
            json!("whsec_c2hvcnQ="),
            "channels.audit.signing_secrets[0]: not a Standard Webhooks secret: it has 5 bytes",
        ),
        ("/channels/audit/url", json!("h/audit"), "channels.audit.url, line 1, column ?: expected a URL"),
        (
            "/channels/audit/url",
            json!("http://h/audit"),
            "channels.audit.url: only https is allowed, except on loopback",
        ),
        (
            "/channels/news/signing_secrets",
            json!(["a", "b"]),
            "channels.news.signing_secrets: expected one or none, found 2",
        ),
        (
            "/binding_keys",
            json!(["YSBrZXk="]),
            "binding_keys[0], line 1, column ?: not a binding key: it has 5 bytes; expected the base64 of 32 to 64 bytes",
        ),
    ];
    for (pointer, value, expected) in &cases {
        let mut document = needed_secrets();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match document.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = value.clone(),
            parent => parent[key] = value.clone(),
        }
        let error = load(&document.to_string()).unwrap_err();
        let start = format!("the secrets file {}: ", path.display());
        let column: String =
            error.split("column ").nth(1).unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
        let plain =
            if column.is_empty() { error.clone() } else { error.replace(&format!("column {column}"), "column ?") };
        assert!(error.starts_with(&start) && plain.contains(expected), "{pointer}: {error}");
        for secret in value.as_str().into_iter().filter(|secret| secret.trim().len() > 6) {
            assert!(!error.contains(secret.trim()), "{error}");
        }
    }
}

#[test]
fn secrets_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config::parse(NEEDY).unwrap();
    let none = directory.path().join("none.json");
    for (path, reason) in [(none.as_path(), "No such file"), (directory.path(), "Is a directory")] {
        let error = SecretSet::load(path, &config).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot read the secrets file {}: {reason}", path.display())), "{error}");
    }
    let text = needed_secrets().to_string();
    let wrong = [
        (text.encode_utf16().flat_map(u16::to_be_bytes).collect(), "the text is UTF-16: save it as UTF-8"),
        (text.replacen(':', "", 1).into_bytes(), "line 1, column 12: not JSON: expected `:`"),
        (
            text.replacen("\"clients\":{", "\"clients\":{\"ci\":{},", 1).into_bytes(),
            "clients.ci: this key occurs twice",
        ),
        ([text.as_bytes(), b"\xFF"].concat(), "the text is not UTF-8"),
        (vec![], "the document is empty: expected a JSON object"),
    ];
    for (bytes, expected) in wrong {
        let bytes: Vec<u8> = bytes;
        let path = directory.path().join("secrets.json");
        std::fs::write(&path, bytes).unwrap();
        let error = SecretSet::load(&path, &config).unwrap_err().to_string();
        let start = format!("the secrets file {}: ", path.display());
        assert!(error.starts_with(&start) && error.contains(expected), "{error}");
    }
}

fn run(program: &str, directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command.current_dir(directory).args(arguments).env_clear().envs(variables.iter().copied());
    command.output().unwrap()
}

#[test]
fn command_that_fails_says_why_and_makes_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let files = [
        ("empty.db", ""),
        ("text.db", "this is no table"),
        (
            "peergate.toml",
            "[targets.prod]\naccount = \"2222222222222222\"\nregions = []\nendpoint = \"http://127.0.0.1:9/\"\n[clients.ci]\n",
        ),
        (
            "peergate.secrets.json",
            r#"{"targets": {"prod": {"access_key_id": "a", "access_key_secret": "b"}}, "clients": {"ci": {"signing_secrets": ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]}}}"#,
        ),
        ("accounts.json", "[{\"account\": 1}"),
    ];
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let missing = "there is no table at none.db: name its file with --store, or use --aws";
    let cases: &[(&[&str], i32, &str)] = &[
        (&["list", "--store", "none.db"], 1, missing),
        (&["show", "pcc-a", "--store", "none.db"], 1, missing),
        (&["export", "--store", "none.db"], 1, missing),
        (&["verify", "--store", "none.db"], 1, missing),
        (&["redrive", "--store", "none.db"], 1, missing),
        (&["list", "--store", "empty.db"], 1, "empty.db has no table: it is not a file of SQLite"),
        (&["verify", "--store", "text.db"], 1, "text.db has no table: it is not a file of SQLite"),
        (&["export", "--store", "."], 1, ". is not a file, so it has no table"),
        (&["show", "pcc-A", "--store", "none.db"], 1, "\"pcc-A\" is not a peering connection id: expected `pcc-` and"),
        (&["show", "prod/vpc-1", "--store", "none.db"], 1, "\"prod/vpc-1\" is not a peering connection id"),
        (&["list", "--aws"], 1, "environment variable AWS_REGION is not set: expected a region, e.g. eu-central-1"),
        (
            &["verify", "--store", "text.db", "--against", "none.jsonl"],
            1,
            "cannot read the export none.jsonl: No such file",
        ),
        (&["verify", "--store", "text.db", "--against", "/dev/null"], 1, "/dev/null: the export has no entries"),
        (&["verify", "--store", "text.db", "--against", "text.db"], 1, "text.db is not an export: line 1 is not JSON"),
        (
            &["verify", "--store", "text.db", "--against", "peergate.secrets.json"],
            1,
            "peergate.secrets.json is not an export: line 1 is not an entry",
        ),
        (&["event", "approve"], 2, "name the connection that the event is about: pcc-…"),
        (&["event", "reject", "PCC-1"], 2, "\"PCC-1\" is not a peering connection id"),
        (&["event", "reject", "prod/PCC-1"], 2, "\"PCC-1\" is not a peering connection id"),
        (&["event", "reject", "prod/pcc-a", "--target", "test"], 2, "two targets are named: prod and test"),
        (&["event", "list", "pcc-a"], 2, "list is about all connections, so it takes no id"),
        (&["event", "list"], 1, "set --actor: no person in the configuration has an identity on standard-webhooks"),
        (&["event", "list", "--actor", "al", "--client", "x"], 1, "the secrets have no client x; known: ci"),
        (
            &["event", "list", "--provider", "slak"],
            2,
            "expected one of slack, feishu, dingtalk, teams, standard-webhooks",
        ),
        (&["event", "list", "--provider", "slack", "--actor", "U1"], 1, "slack is not configured, or has no secret"),
        (&["simulate", "--accounts", "none.json"], 1, "cannot read none.json: No such file"),
        (
            &["simulate", "--accounts", "accounts.json"],
            1,
            "accounts.json: invalid type: integer `1`, expected a string at line 1 column 14",
        ),
        (&["simulate", "--listen", "nowhere"], 1, "cannot listen on nowhere: "),
        (&["register", "--platform", "slack", "--url", "nowhere"], 2, "invalid value 'nowhere' for '--url <URL>'"),
        (&["fake", "nope"], 1, "there is no fake of nope: expected slack, feishu, dingtalk or teams"),
        (&["export", "--since", "soon"], 2, "expected e.g. 2026-11-22 or 2026-11-22T10:00:00Z"),
    ];
    for (arguments, status, expected) in cases {
        let output = run(env!("CARGO_BIN_EXE_peergate"), directory.path(), arguments, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.contains(expected)), (Some(*status), true), "{arguments:?}: {said}");
        assert!(*status == 2 || said.lines().count() == 1, "{arguments:?}: {said}");
        let mut names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        let mut before = files.map(|(name, _)| name);
        before.sort_unstable();
        assert_eq!(names, before, "{arguments:?}");
    }
    assert_eq!(std::fs::read(directory.path().join("empty.db")).unwrap(), b"");
    // An id may name its target, as the list shows it.
    let command =
        ["event", "approve", "prod/pcc-a", "--actor", "al", "--client", "ci", "--fingerprint", &"a".repeat(64)];
    let output = run(env!("CARGO_BIN_EXE_peergate"), directory.path(), &command, &[]);
    let event: Value = serde_json::from_slice(&output.stdout).unwrap();
    let body: Value = serde_json::from_str(event["body"].as_str().unwrap()).unwrap();
    assert_eq!((&body["data"]["target"], &body["data"]["instance_id"]), (&json!("prod"), &json!("pcc-a")));
}

#[test]
fn table_that_aws_does_not_have_is_named_with_its_region() {
    let directory = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let aws = [("AWS_REGION", "eu-north-1"), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let variables = [&aws[..], &[("AWS_ENDPOINT_URL", nobody.as_str()), ("PEERGATE_TABLE", "approvals")]].concat();
    for arguments in [&["list", "--aws"][..], &["show", "prod/pcc-a", "--aws"], &["redrive", "--aws"]] {
        let output = run(env!("CARGO_BIN_EXE_peergate"), directory.path(), arguments, &variables);
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = "peergate: table approvals in AWS, region eu-north-1: the store is unavailable: no answer: the \
                        connection is refused\n";
        assert_eq!((output.status.code(), said.as_str()), (Some(1), expected), "{arguments:?}");
    }
}

#[test]
fn function_that_cannot_start_names_the_variable() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("peergate.toml"), TARGET).unwrap();
    let lambda = [
        ("AWS_LAMBDA_FUNCTION_NAME", "f"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "g"),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "s"),
    ];
    let aws = [("AWS_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let cases: &[(&str, Option<&str>, &str)] = &[
        ("AWS_REGION", None, "environment variable AWS_REGION is not set: expected a region, e.g. eu-central-1"),
        ("AWS_ACCESS_KEY_ID", None, "environment variable AWS_ACCESS_KEY_ID is not set: expected"),
        (
            "AWS_SECRET_ACCESS_KEY",
            Some("hush hush"),
            "AWS_SECRET_ACCESS_KEY is malformed: expected a string without a space",
        ),
        (
            "PEERGATE_TABLE",
            Some("my table"),
            "environment variable PEERGATE_TABLE is malformed: expected the name or ARN of a DynamoDB table",
        ),
        (
            "PEERGATE_SECRETS",
            Some("file:"),
            "environment variable PEERGATE_SECRETS is malformed: expected the name or ARN of a secret",
        ),
        ("PEERGATE_CONFIG", Some("none.toml"), "cannot read none.toml: No such file or directory"),
        ("PEERGATE_CA_FILE", Some("none.pem"), "cannot use none.pem (PEERGATE_CA_FILE): No such file"),
        ("AWS_ENDPOINT_URL_DYNAMODB", Some("localhost:8000"), "AWS_ENDPOINT_URL_DYNAMODB is malformed: expected a URL"),
        ("HTTPS_PROXY", Some("http://"), "environment variable HTTPS_PROXY is malformed: expected the URL of a proxy"),
    ];
    for program in [env!("CARGO_BIN_EXE_webhook"), env!("CARGO_BIN_EXE_watcher")] {
        for (name, value, expected) in cases {
            let all = lambda.iter().chain(&aws).copied().filter(|(other, _)| other != name);
            let variables: Vec<_> = all.chain(value.map(|value| (*name, value))).collect();
            let output = run(program, directory.path(), &[], &variables);
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{name}");
            let line = said.lines().find(|line| line.contains("not_started")).unwrap_or_else(|| panic!("{said}"));
            assert!(line.contains(expected) && !said.contains("hush"), "{said}");
        }
    }
}

#[test]
fn doctor_names_the_proxy_that_may_be_the_cause() {
    let directory = tempfile::tempdir().unwrap();
    let variables = [
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("HTTPS_PROXY", "http://127.0.0.1:9"),
    ];
    let output = run(env!("CARGO_BIN_EXE_peergate"), directory.path(), &["doctor"], &variables);
    let said = String::from_utf8(output.stdout).unwrap();
    let expected = "✓ environment: region eu-central-1, table peergate, proxy of HTTPS_PROXY for other machines\n\
                    ✗ configuration: cannot read peergate.toml: No such file or directory (os error 2)\n    \
                    Name the file in PEERGATE_CONFIG, and let this user read it.\n";
    assert_eq!((output.status.code(), said.as_str()), (Some(1), expected));
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
}

/// The last line of the log that says why a request was rejected.
fn rejection() -> String {
    logged().lines().rfind(|line| line.contains("rejected the request")).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn log_says_how_a_request_is_not_authentic() {
    let app = TestApp::start().await;
    let id = app.new_request().await;
    let machine = app.sign_event("approve", &id, "alice").await;
    let slash = app.sign_slash_command(&format!("approve {id}"), ALICE).await;
    let now = clock::now();
    let with = |signed: &SignedRequest, name: &str, value: Option<&str>| {
        let mut signed = signed.clone();
        signed.headers.retain(|header| header.0 != name || value.is_some());
        let value = value.unwrap_or_default();
        signed.headers.iter_mut().filter(|header| header.0 == name).for_each(|header| header.1 = value.to_owned());
        signed
    };
    let mut stranger = machine.clone();
    stranger.path = "/webhook/build-server-2026".into();
    let seconds = now.as_second();
    let cases = [
        (
            stranger,
            vec![
                "http.path=\"/webhook/build-server-2026\"",
                "the client of the path is not in [clients]",
                "http.method=\"POST\"",
            ],
        ),
        (with(&machine, "webhook-id", None), vec!["header webhook-id is missing", "http.path=\"/webhook/ci\""]),
        (
            with(&machine, "webhook-id", Some("a.b")),
            vec!["header webhook-id is malformed: expected 1 to 256", "found 3 other bytes"],
        ),
        (
            with(&machine, "webhook-timestamp", Some(&(seconds - 812).to_string())),
            vec!["the timestamp is 812 s old, and more than 300 s away"],
        ),
        (
            with(&slash, "x-slack-request-timestamp", Some(&(seconds + 400).to_string())),
            vec!["the timestamp is -400 s old", "http.path=\"/slack\""],
        ),
        (
            with(&slash, "x-slack-request-timestamp", Some(&(seconds * 1000).to_string())),
            vec![
                "header x-slack-request-timestamp is malformed: expected a Unix time in seconds, of ten digits, found 13 other bytes",
            ],
        ),
        (
            with(&machine, "webhook-signature", Some("v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")),
            vec!["the signature matches none of the 1 configured keys"],
        ),
        (
            with(&slash, "x-slack-signature", Some("v1=00")),
            vec![
                "header x-slack-signature is malformed: expected `v0`, `=` and 64 lower-case hexadecimal digits, found 5 other bytes",
            ],
        ),
        (with(&slash, "x-slack-signature", None), vec!["header x-slack-signature is missing"]),
    ];
    for (signed, expected) in cases {
        let reply = app.send_at(&signed, now).await;
        assert_eq!((reply.status, reply.problem_detail().as_str()), (401, "the request is not authentic"));
        let line = rejection();
        assert!(expected.iter().all(|words| line.contains(words)), "{expected:?}\n{line}");
    }
    assert_eq!((app.count_upstream_calls(), app.state_of(&id).await.as_str()), (0, "none"));
}

#[tokio::test]
async fn log_names_the_tenant_and_the_app_of_a_stranger() {
    let app = TestApp::start().await;
    let form = |team: &str, api_app: &str| {
        ["command=%2Fpeergate&text=list&user_id=U1&team_id=", team, "&api_app_id=", api_app].concat()
    };
    let timestamp = clock::now().as_second().to_string();
    let known = "expected tenant T0001 and app A0123";
    for (team, api_app, expected) in [
        ("T0BAD", "A0123", format!("received tenant T0BAD and app A0123, {known}")),
        ("T0001", "A0BAD", format!("received tenant T0001 and app A0BAD, {known}")),
        ("T0%0A%1B", "A0123", format!("received tenant (unreadable) and app A0123, {known}")),
    ] {
        app.send(&app.sign_slack_body_at(&form(team, api_app), &timestamp)).await;
        let line = rejection();
        assert!(line.contains("wrong-tenant") && line.contains(&expected), "{line}");
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn log_names_path_method_and_content_type_safely() {
    let app = TestApp::start().await;
    let cases = [
        ("GET", "/slack", "text/plain", vec!["http.method=\"GET\"", "http.path=\"/slack\"", "method is not allowed"]),
        ("POST", "/slack", "text/plain; charset=utf-8", vec!["http.content_type=\"text/plain\"", "http.body_bytes=2"]),
        ("POST", "/webhook/whsec_C2FVsBQIhrscChlQIMV", "a/b", vec!["http.path=\"/webhook/…\""]),
        ("POST", "/a%0Ab/c", "a/b", vec!["http.path=\"/…/c\"", "no such path"]),
        ("POST", "/1/2/3/4/5/6/7/8/9/10", "a/b", vec!["http.path=\"/1/2/3/4/5/6/7/…\""]),
    ];
    for (method, path, content_type, expected) in cases {
        let request = http::Request::builder().method(method).uri(path).header("content-type", content_type);
        app.call_webhook(request.body(bytes::Bytes::from("{}")).unwrap(), clock::now()).await;
        let line = rejection();
        assert!(expected.iter().all(|words| line.contains(words)), "{expected:?}\n{line}");
    }
}
