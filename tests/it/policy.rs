//! `peergate policy`: explanations and tests of the rules.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::contract::project_file;
use crate::support::prelude::*;
use insta::assert_snapshot;
use peergate::aws::AwsEnvironment;
use peergate::local::table::EmbeddedTable;
use peergate::store::Store;
use peergate::{aws, http};

const CASES: &str = "peergate.example.test.toml";

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peergate"));
    command.current_dir(directory).arg("policy").args(arguments).env_remove("PEERGATE_CONFIG").output().unwrap()
}

/// Runs the command beside the example, with these files.
fn beside_the_example(files: &[(&str, &str)], arguments: &[&str]) -> (bool, String, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("peergate.toml"), project_file("peergate.example.toml")).unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let output = run(directory.path(), arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn example_cases_pass_with_the_example_rules() {
    let (passes, printed, _) = beside_the_example(&[("cases.toml", &project_file(CASES))], &["test", "cases.toml"]);
    assert!(passes);
    assert_snapshot!(printed, @r"
    ✓ the data team reaches the accepting VPC with two approvals
    ✓ a range outside the private ones needs another rule
    ✓ nobody decides about an account that no rule names
    ✓ unlimited bandwidth is above every maximum
    4 cases: the rules say what each case expects
    ");
}

#[test]
fn case_that_the_rules_contradict_says_what_differs() {
    let cases = project_file(CASES)
        .replace("rule = \"data team\"", "rule = \"others\"")
        .replace("approvals = 2", "approvals = 3")
        .replace("channels = [\"netops\", \"hook\", \"audit\"]", "channels = [\"netops\"]\nrequire_reason = true")
        .replace(
            "may_approve = [\"alice\", \"bob\"",
            "approvers = [\"alice\"]\nmay_approve = [\"alice\", \"slack:T0001/U0DATA\"",
        )
        .replace("may_not_approve = [\"slack:T0001/U0DATA\"]", "may_not_approve = [\"bob\"]");
    let (passes, printed, said) = beside_the_example(&[("cases.toml", &cases)], &["test", "cases.toml"]);
    assert!(!passes);
    assert_snapshot!(printed, @r#"
    ✗ the data team reaches the accepting VPC with two approvals
        rule: expected "others", found "data team"
        approvals: expected 3, found 2
        approvers: expected {"alice"}, found {"alice", "bob", "slack:T0001/U0CAROL"}
        require_reason: expected true, found false
        channels: expected {"netops"}, found {"audit", "hook", "netops"}
        slack:T0001/U0DATA may not approve
        bob may approve
    ✓ a range outside the private ones needs another rule
    ✓ nobody decides about an account that no rule names
    ✓ unlimited bandwidth is above every maximum
    "#);
    assert_snapshot!(said, @"peergate: 1 of 4 cases: the rules say something else");
}

#[test]
fn malformed_cases_are_refused() {
    let broken = |old: &str, new: &str| {
        let cases = project_file(CASES);
        assert!(cases.contains(old), "{old}");
        let (passes, _, said) =
            beside_the_example(&[("cases.toml", &cases.replacen(old, new, 1))], &["test", "cases.toml"]);
        assert!(!passes, "{new}");
        said
    };
    let said = [
        broken("requester_region = ", "requester_regions = "),
        broken("target = \"prod\"", "target = \"test\""),
        broken("[\"alice\", \"bob\"", "[\"alise\", \"bob\""),
        broken("approvals = 2", "approvals = \"two\""),
        broken("requester_account = \"1111111111111111\"", "requester_account = \"me\""),
        beside_the_example(&[("cases.toml", "case = []")], &["test", "cases.toml"]).2,
        beside_the_example(&[], &["test", "cases.toml"]).2,
    ];
    assert_snapshot!(said.join("\n"), @r#"
    peergate: cases.toml: TOML parse error at line 14, column 1
       |
    14 | requester_regions = "cn-hangzhou"
       | ^^^^^^^^^^^^^^^^^
    unknown field `requester_regions`, expected one of `target`, `requester_account`, `requester_region`, `requester_cidrs`, `accepting_vpc`, `bandwidth_mbps`


    peergate: case “the data team reaches the accepting VPC with two approvals”: no target is named test

    peergate: case “the data team reaches the accepting VPC with two approvals”: no person is named alise

    peergate: cases.toml: TOML parse error at line 20, column 13
       |
    20 | approvals = "two"
       |             ^^^^^
    invalid type: string "two", expected u32


    peergate: cases.toml: TOML parse error at line 13, column 21
       |
    13 | requester_account = "me"
       |                     ^^^^
    not an account id: expected digits, as text


    peergate: cases.toml has no case

    peergate: cannot read cases.toml: No such file or directory (os error 2)
    "#);
}

#[test]
fn hostile_texts_of_cases_reach_no_terminal() {
    // The last name pretends to be two cases.
    let hostile = "\\u001b]0;owned\\u0007\\u009b2J\\u202e\\u200b\\n✓ another case";
    let cases = project_file(CASES);
    let with = |old: &str, new: &str| cases.replacen(old, new, 1);
    let tested = |cases: &str| beside_the_example(&[("cases.toml", cases)], &["test", "cases.toml"]);
    let name = "the data team reaches the accepting VPC with two approvals";
    let outputs = [
        tested(&with(name, hostile)),
        tested(&with("target = \"prod\"", &format!("target = \"{hostile}\""))),
        tested(&with("[\"alice\", \"bob\"", &format!("[\"{hostile}\", \"bob\""))),
        tested(&with("requester_region = \"cn-hangzhou\"", &format!("requester_region = \"{hostile}\""))),
        tested(&with("accepting_vpc = \"vpc-accepter\"", &format!("accepting_vpc = \"{hostile}\""))),
        tested(&with("approvals = 2", "approvals = \"\u{202e}\u{200b}\"")),
        tested(&with("approvals = 2", "approvals = \"\u{1b}[2J\"")),
        tested(&with("approvals = 2", &format!("approvals = \"{hostile}\""))),
        beside_the_example(&[], &["test", "\u{1b}[2J\u{202e}\n✓ another case"]),
        beside_the_example(
            &[("request.toml", &REQUEST.replace("vpc-accepter", hostile))],
            &["explain", "--request", "request.toml"],
        ),
    ];
    for (_, printed, said) in &outputs {
        for text in [printed, said] {
            let is_obeyed = |c: char| c.is_control() && c != '\n' || ['\u{202e}', '\u{200b}'].contains(&c);
            assert!(!text.contains(is_obeyed) && !text.lines().any(|line| line.starts_with("✓ another")), "{text:?}");
        }
    }
    let [(passes, printed, _), ..] = &outputs;
    assert!(*passes && printed.starts_with("✓ ]0;owned 2J ✓ another case\n"), "{printed}");
    assert!(outputs.iter().skip(1).all(|(passes, _, _)| !passes));
    assert!(outputs[3].2.contains("requester_region: \"… another case\" is not a region id"), "{}", outputs[3].2);
    assert!(outputs[4].2.contains("accepting_vpc: "), "{}", outputs[4].2);
}

const REQUEST: &str = "
requester_account = \"1111111111111111\"
requester_region = \"cn-hangzhou\"
requester_cidrs = [\"10.1.0.0/16\"]
accepting_vpc = \"vpc-accepter\"
bandwidth_mbps = 100
";

#[test]
fn explanation_names_the_deciding_rule_fact_by_fact() {
    let (passes, printed, said) =
        beside_the_example(&[("request.toml", REQUEST)], &["explain", "--request", "request.toml"]);
    assert!(passes, "{said}");
    assert_snapshot!(printed, @r"
    Rule 1, “data team”, decides: it requires 2 approvals of alice, bob, slack:T0001/U0CAROL. Notifications go to netops, hook, audit.

    Rule 1, “data team”, decides.
      ✓ target             prod (allowed: prod)
      ✓ requester account  1111111111111111 (allowed: 1111111111111111)
      ✓ requester region   cn-hangzhou (allowed: cn-hangzhou, eu-central-1)
      ✓ requester CIDRs    10.1.0.0/16 (allowed: within 10.0.0.0/8, fd00::/8)
      ✓ accepting VPC      vpc-accepter (allowed: vpc-accepter)
      ✓ bandwidth          100 Mbit/s (allowed: at most 1024 Mbit/s)
    ");
    let far = REQUEST.replace("10.1.0.0/16", "192.0.2.0/24").replace("bandwidth_mbps = 100", "");
    let (passes, printed, said) =
        beside_the_example(&[("request.toml", &far)], &["explain", "--request", "request.toml"]);
    assert!(passes, "{said}");
    assert_snapshot!(printed, @r"
    No rule matches, so nobody can approve this request.

    Rule 1, “data team”, does not match: requester CIDRs, bandwidth.
      ✓ target             prod (allowed: prod)
      ✓ requester account  1111111111111111 (allowed: 1111111111111111)
      ✓ requester region   cn-hangzhou (allowed: cn-hangzhou, eu-central-1)
      ✗ requester CIDRs    192.0.2.0/24 (allowed: within 10.0.0.0/8, fd00::/8)
      ✓ accepting VPC      vpc-accepter (allowed: vpc-accepter)
      ✗ bandwidth          unlimited (allowed: at most 1024 Mbit/s)
    ");
}

#[tokio::test]
async fn record_and_its_answer_as_json_are_explained_alike() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-by-itself").await;
    let directory = tempfile::tempdir().unwrap();
    let table = EmbeddedTable::open(&directory.path().join("peergate.db")).unwrap();
    table.create("peergate").await.unwrap();
    let (aws, http) = (table.environment(&AwsEnvironment::local()), http::new_client().unwrap());
    let sdk = aws::dynamodb_sdk_config(&aws, &http);
    let store = Store::new(&sdk, None, None, "peergate".into(), jiff::SignedDuration::from_hours(1));
    store.save(&app.approval(&id).await, None).await.unwrap();
    std::fs::write(directory.path().join("peergate.toml"), &app.config).unwrap();
    let explained = |request: &str| {
        let output = run(directory.path(), &["explain", "--request", request]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let of_record = explained(&format!("prod/{id}"));
    assert_eq!(explained(id.as_str()), of_record);
    let answer = app.simulator.shown_answer(id.as_str()).unwrap();
    std::fs::write(directory.path().join("answer.json"), answer).unwrap();
    assert_eq!(explained("answer.json"), of_record);
    assert_snapshot!(of_record, @r"
    Rule 3, “by itself”, decides: peergate accepts without people if every check passes; otherwise one of alice, bob. Notifications go to netops, audit.

    Rule 1, “two people”, does not match: accepting VPC.
      ✓ target             prod (allowed: prod)
      ✓ requester account  1111111111111111 (allowed: 1111111111111111)
      ✓ requester region   cn-hangzhou (allowed: any)
      ✓ requester CIDRs    10.0.0.0/24 (allowed: any)
      ✗ accepting VPC      vpc-by-itself (allowed: vpc-two-people)
      ✓ bandwidth          1024 Mbit/s (allowed: any)

    Rule 2, “with a reason”, does not match: accepting VPC.
      ✓ target             prod (allowed: prod)
      ✓ requester account  1111111111111111 (allowed: 1111111111111111)
      ✓ requester region   cn-hangzhou (allowed: any)
      ✓ requester CIDRs    10.0.0.0/24 (allowed: any)
      ✗ accepting VPC      vpc-by-itself (allowed: vpc-with-a-reason)
      ✓ bandwidth          1024 Mbit/s (allowed: any)

    Rule 3, “by itself”, decides.
      ✓ target             prod (allowed: prod)
      ✓ requester account  1111111111111111 (allowed: 1111111111111111)
      ✓ requester region   cn-hangzhou (allowed: any)
      ✓ requester CIDRs    10.0.0.0/24 (allowed: within 10.0.0.0/8)
      ✓ accepting VPC      vpc-by-itself (allowed: vpc-by-itself)
      ✓ bandwidth          1024 Mbit/s (allowed: any)

    Rule 4, “data team”, matches, but an earlier rule decides.
      ✓ target             prod (allowed: prod)
      ✓ requester account  1111111111111111 (allowed: 1111111111111111)
      ✓ requester region   cn-hangzhou (allowed: any)
      ✓ requester CIDRs    10.0.0.0/24 (allowed: any)
      ✓ accepting VPC      vpc-by-itself (allowed: any)
      ✓ bandwidth          1024 Mbit/s (allowed: any)
    ");
    let unknown = run(directory.path(), &["explain", "--request", "pcc-unknown"]);
    assert!(!unknown.status.success());
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("there is no record of pcc-unknown"));
}
