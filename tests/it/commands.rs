//! Commands as people type and paste them: what is understood, and what the sender learns of the rest.

use crate::support::contract::project_file;
use crate::support::prelude::*;
use bytes::Bytes;
use peergate::chat::command_words::CommandVerb;
use peergate::chat::platform::Platform;
use peergate::chat::{Action, Command, CommandScope, Incoming, slack};
use peergate::config::Config;
use peergate::fake::slack::visible_text;
use peergate::local::sandbox::SLACK_SECRET;
use proptest::prelude::*;

const NOT_UNDERSTOOD: &str = "peergate does not understand this command";

/// What a person reads in the answer to a slash command.
async fn answer(app: &TestApp, text: &str, user: &str) -> String {
    let reply = app.slash_command(text, user).await;
    assert_eq!((reply.status, &reply.body_json()["response_type"]), (200, &json!("ephemeral")), "{text:?}");
    visible_text(&reply.body_json())
}

#[tokio::test]
async fn question_is_understood_in_every_form_that_people_paste() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    let upper = id.as_str().to_uppercase();
    for (position, text) in [
        format!("status {id}"),
        format!("status prod/{id}"),
        format!("Status {id}"),
        format!("STATUS {upper}"),
        format!("status PROD/{upper}"),
        format!("status {id} On prod"),
        format!("status {id} on PROD."),
        format!("status on prod {id}"),
        format!("status prod/{id} on prod"),
        format!("status `{id}`"),
        format!("`status prod/{id}`"),
        format!("*status* _{id}_"),
        format!("status *prod/{id}*:"),
        format!("status “{id}”"),
        format!("status \"{id}\", please"),
        format!("status ‘{id}’"),
        format!("status <{id}>"),
        format!("status <prod/{id}>."),
        format!("status <http://{id}|{id}>"),
        format!("status <https://prod/{id}|prod/{id}>"),
        format!("status https://prod/{id}/"),
        format!("status &lt;{id}&gt;"),
        format!("status ({id})"),
        format!("status {id}!"),
        format!("status {id}。"),
        format!("status 「{id}」"),
        format!("status\n{id}"),
        format!("  status\u{a0}{id}\t"),
        format!("status\u{3000}{id}"),
        format!("status \u{200b}{id}\u{200b}"),
        format!("\u{feff}status {id}\u{200e}"),
        format!("status {}", id.as_str().replace('-', "\u{2011}")),
        format!("status {}", id.as_str().replace('-', "–")),
        format!("/peergate status {id}"),
        format!("/Peergate status prod/{id}"),
        format!("@peergate status {id}"),
        format!("<@U0BOT|peergate> status {id}"),
        format!("- status {id}"),
        format!("• status – {id}"),
        format!("status {id} thanks a lot"),
        format!("status {id} because I want to know"),
        format!("status {id} because"),
    ]
    .into_iter()
    .enumerate()
    {
        // Each person may cause ten readings a minute.
        let user = format!("U0READER{}", position / 5);
        let told = answer(&app, &text, &user).await;
        assert!(told.starts_with(&format!("VPC peering prod/{id} has the status Accepting")), "{text:?} → {told}");
    }
}

#[test]
fn documents_of_the_platforms_list_their_commands() {
    for platform in Platform::ALL.iter().filter(|platform| platform.max_binding_chars() > 0) {
        let document = project_file(&format!("docs/{}.md", platform.name()));
        let lines: Vec<_> = document.lines().map(|line| line.trim_start_matches("/peergate ")).collect();
        for verb in CommandVerb::ALL {
            let command = format!("{} {}", verb.word(), verb.arguments());
            let is_listed = lines.contains(&command.as_str());
            let can_be_written = platform.command_scope() == CommandScope::Everything || !verb.changes_something();
            assert_eq!(is_listed, can_be_written, "{}: {command}", platform.name());
        }
    }
}

#[tokio::test]
async fn list_and_dry_run_ignore_further_words() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    for text in ["list", "List", "`list`", "list please", "/peergate list on prod", "list On `PROD`, thanks"] {
        let told = answer(&app, text, BOB).await;
        assert!(told.starts_with("1 VPC peering is pending"), "{text:?} → {told}");
    }
    for text in [format!("dry-run {id} now"), format!("Dry-Run prod/{id}."), format!("dry–run {id}")] {
        let told = answer(&app, &text, BOB).await;
        assert!(told.starts_with("A dry run passed and changed nothing"), "{text:?} → {told}");
    }
    app.assert_accepts(&id, 0);
}

type Form = fn(&InstanceId) -> String;

#[tokio::test]
async fn decision_is_understood_in_every_form_that_people_paste() {
    let app = TestApp::start().await;
    let forms: [(Form, Option<&str>); 9] = [
        (|id| format!("reject {id}\nbecause no"), Some("no")),
        (|id| format!("reject {id} Because no"), Some("no")),
        (|id| format!("reject prod/{id} BECAUSE: no  way\nat all. "), Some("no  way\nat all.")),
        (|id| format!("Reject `prod/{id}`\u{a0}because\u{a0}no"), Some("no")),
        (|id| format!("/peergate reject <prod/{id}>, because “no”"), Some("“no”")),
        (|id| format!("reject prod/{id} on prod because because"), Some("because")),
        (|id| format!("reject {}.", id.as_str().to_uppercase()), None),
        (|id| format!("*reject* *prod/{id}*"), None),
        (|id| format!("<@U0BOT|peergate> reject on prod {id}"), None),
    ];
    for (form, reason) in forms {
        let id = app.discovered_request("vpc-other").await;
        let text = form(&id);
        let told = answer(&app, &text, ALICE).await;
        assert!(told.starts_with(&format!("You rejected prod/{id}")), "{text:?} → {told}");
        assert_eq!(app.approval(&id).await.winner().unwrap().reason.as_deref(), reason, "{text:?}");
    }
}

#[tokio::test]
async fn ambiguous_words_decide_nothing() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    for text in [
        format!("approve|reject {id}"),
        format!("reject|approve {id}"),
        format!("<#C123|approve> {id}"),
        format!("approve {id} on staging|prod"),
        format!("@bob approve {id}"),
        format!("<@U0BOB|bob> approve {id}"),
        format!("<@U0BOB> approve {id}"),
        format!("~approve {id}~"),
        format!("~approve~ {id}"),
        format!("!approve {id}"),
        format!("> approve {id}"),
        format!("&gt; approve {id}"),
        format!(">approve {id}"),
        format!("withdraw {id} because I was wrong"),
    ] {
        let told = answer(&app, &text, ALICE).await;
        assert!(told.starts_with(NOT_UNDERSTOOD) && told.contains("Nothing was decided."), "{text:?} → {told}");
    }
    app.assert_state(&id, "pending").await;
    assert_eq!(app.approval(&id).await.approval_count(), 0);
    app.assert_accepts(&id, 0);
}

/// What was typed about `ID`, what the answer names, and the commands that it suggests.
type Misunderstood = (&'static str, &'static str, &'static [&'static str]);

const MISUNDERSTOOD: [Misunderstood; 35] = [
    ("approve ID 👎", "“👎” is not part of this command", &["approve prod/ID because …"]),
    ("approve ID not yet", "“not yet” is not part of this command", &["approve prod/ID because …"]),
    ("approve prod/ID please", "“please” is not part of", &["approve prod/ID because …"]),
    ("reject ID overlaps with lab", "“overlaps with lab” is not part of", &["reject prod/ID because …"]),
    ("withdraw ID thanks", "“thanks” is not part of", &["withdraw prod/ID"]),
    ("approve ID?", "“ID?” is not the id of a request", &["list"]),
    ("approve ID because", "No reason follows the word “because”", &["approve prod/ID because …"]),
    ("reject prod/ID because  \u{200b} ", "No reason follows", &["reject prod/ID because …"]),
    ("aprove ID", "“aprove” is not a command", &["approve prod/ID"]),
    ("Aprove ID because ticket 42", "“Aprove” is not a command", &["approve prod/ID because ticket 42"]),
    ("accept prod/ID on prod", "“accept” is not a command", &["approve prod/ID"]),
    ("deny ID", "“deny” is not a command", &["reject prod/ID"]),
    ("disapprove ID", "“disapprove” is not a command", &["reject prod/ID"]),
    ("dry run ID", "“dry” is not a command", &["dry-run prod/ID"]),
    ("explode ID", "“explode” is not a command", &["status prod/ID"]),
    ("ID approve", "“ID” is not a command", &["approve prod/ID"]),
    ("please approve ID", "“please” is not a command", &["approve prod/ID"]),
    ("approve reject ID", "more than one action", &["approve prod/ID", "reject prod/ID"]),
    ("status ID approve", "more than one action", &["status prod/ID", "approve prod/ID"]),
    ("approve ID pcc-other", "more than one request", &["approve prod/ID", "approve prod/pcc-other"]),
    ("approve ID ID", "more than one request", &["approve prod/ID"]),
    ("status ID pcc-other", "more than one request", &["status prod/ID", "status prod/pcc-other"]),
    ("approve <http://ID|pcc-other>", "more than one request", &["approve prod/ID", "approve prod/pcc-other"]),
    ("approve prod/ID on dev", "more than one target", &["approve dev/ID", "approve prod/ID"]),
    ("status prod/ID on dev", "more than one target", &["status dev/ID", "status prod/ID"]),
    ("approve ID on", "The name of a target is missing after “on”", &["approve prod/ID"]),
    ("approve ID on Pröd", "“Pröd” is not the name of a target", &["approve prod/ID"]),
    ("approve", "It names no request", &["list"]),
    ("approve because pcc-a", "It names no request", &["list"]),
    ("approve vpc-1", "“vpc-1” is not the id of a request", &["list"]),
    ("status pcc-…", "“pcc-…” is not the id of a request", &["list"]),
    ("inventroy", "“inventroy” is not a command", &["inventory"]),
    ("list inventory on prod", "more than one action", &["list on prod", "inventory on prod"]),
    ("peerings on prod", "“peerings” is not a command", &["inventory on prod"]),
    ("inventory on", "The name of a target is missing after “on”", &["inventory"]),
];

#[tokio::test]
async fn misunderstood_command_decides_nothing_and_names_what_works() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    let version = app.load_record(&id).await.unwrap().version;
    for (number, (text, named, suggested)) in MISUNDERSTOOD.into_iter().enumerate() {
        let filled = |text: &str| text.replace("ID", id.as_str());
        let text = filled(text);
        let before = app.count_upstream_calls();
        let told = answer(&app, &text, ALICE).await;
        assert!(told.starts_with(NOT_UNDERSTOOD), "{text:?} → {told}");
        assert!(told.contains("Nothing was decided.") && told.contains(&filled(named)), "{text:?} → {told}");
        let lines: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("/peergate ")).collect();
        assert_eq!(lines, suggested.iter().map(|line| filled(line)).collect::<Vec<_>>(), "{text:?}");
        assert_eq!(app.count_upstream_calls(), before, "{text:?}");
        // Each works as it stands. Mallory may decide nothing.
        for line in lines.into_iter().filter(|line| line.contains(id.as_str()) && !line.contains("dev/")) {
            let told = answer(&app, line, &format!("U0MALLORY{number}")).await;
            assert!(
                !told.contains(NOT_UNDERSTOOD) && told.contains("VPC peering") || told.contains("withdraw"),
                "{told}"
            );
        }
    }
    assert_eq!(app.load_record(&id).await.unwrap().version, version);
    app.assert_accepts(&id, 0);
}

#[tokio::test]
async fn suggestion_names_every_target_that_is_possible() {
    let dev = "[targets.dev]\naccount = \"3333333333333333\"\nregions = []\n\n[clients.ci]";
    let app = TestApp::start().await;
    let key = json!({"access_key_id": "key", "access_key_secret": "secret"});
    app.write_secrets(|secrets| secrets["targets"]["dev"] = key).unwrap();
    let app = app.with_change("[clients.ci]", dev);
    let told = answer(&app, "aprove pcc-a because so", ALICE).await;
    let lines: Vec<_> = told.lines().filter(|line| line.starts_with("/peergate")).collect();
    assert_eq!(lines, ["/peergate approve dev/pcc-a because so", "/peergate approve prod/pcc-a because so"]);
    let told = answer(&app, "aprove dev/pcc-a", ALICE).await;
    assert!(told.ends_with("\n/peergate approve dev/pcc-a"), "{told}");
}

#[tokio::test]
async fn empty_text_and_help_get_the_list_of_commands() {
    let app = TestApp::start().await;
    for text in ["", "   ", "help", "Help", "`help`.", "/peergate help", "/peergate", "@peergate", "?"] {
        let told = answer(&app, text, ALICE).await;
        assert!(told.starts_with("peergate understands these commands\n/peergate list"), "{text:?} → {told}");
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn hostile_words_are_repeated_harmlessly_and_in_short() {
    let app = TestApp::start().await;
    for text in [
        "\u{202e}evorppa <!channel> *x* `y`".to_owned(),
        format!("approve pcc-a {}", "<!here>".repeat(10_000)),
        format!("{} pcc-a", "approve".repeat(20_000)),
        "a ".repeat(100_000),
        "\u{0}\u{1b}[31m".to_owned(),
        format!("aprove pcc-a because {}", "\u{202e}r".repeat(300)),
        "approve ".repeat(30_000),
        "approve pcc-a ".to_owned() + &"pcc-b ".repeat(30_000),
    ] {
        let reply = app.slash_command(&text, ALICE).await;
        assert!(reply.body.len() < 3000, "{}", reply.body.len());
        peergate::fake::slack::check_blocks(&reply.body_json()).unwrap();
        let told = visible_text(&reply.body_json());
        assert!(told.contains("Nothing was decided."), "{told}");
        assert!(!told.chars().any(|c| "\u{202e}\u{0}\u{1b}".contains(c)), "{told:?}");
        // What Slack would parse holds nothing of it.
        assert_eq!(reply.body_json()["text"], NOT_UNDERSTOOD);
    }
    assert_eq!(app.count_upstream_calls(), 0);
}

#[tokio::test]
async fn entities_of_a_slash_command_are_undone_once() {
    let app = TestApp::start().await;
    for (sent, meant) in [
        ("R&amp;D needs &lt;10 ms", "R&D needs <10 ms"),
        ("&amp;lt;b&amp;gt;", "&lt;b&gt;"),
        ("&amp;amp;", "&amp;"),
        ("&quot;x&quot; &#39; &copy;", "&quot;x&quot; &#39; &copy;"),
        ("a & b", "a & b"),
        ("<https://tickets.example/42|42>", "<https://tickets.example/42|42>"),
    ] {
        let id = app.discovered_request("vpc-other").await;
        let text = format!("reject {id} because {sent}");
        let fields = [
            ("command", "/peergate"),
            ("text", text.as_str()),
            ("team_id", "T0001"),
            ("user_id", ALICE),
            ("api_app_id", "A0123"),
            ("trigger_id", "1.2"),
        ];
        assert_eq!(app.send(&app.sign_slack_form(&fields).await).await.status, 200);
        assert_eq!(app.approval(&id).await.winner().unwrap().reason.as_deref(), Some(meant));
    }
}

#[tokio::test]
async fn reason_of_a_modal_keeps_its_entities() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-other").await;
    app.click_button(&app.only_card(), "Reject", BOB).await;
    app.answer_modal("literally &lt;this&gt; &amp; that", BOB).await;
    let reason = app.approval(&id).await.winner().unwrap().reason.clone();
    assert_eq!(reason.as_deref(), Some("literally &lt;this&gt; &amp; that"));
}

#[tokio::test]
async fn local_slash_command_has_a_trigger_and_escaped_text() {
    let app = TestApp::start().await;
    let secrets = app.parts.secrets.current(clock::now()).await.unwrap();
    let spec = peergate::chat::EventSpec {
        reason: Some("a < b & c".into()),
        tenant: None,
        ..app.blind_spec("approve", &InstanceId::parse("pcc-a").unwrap(), ALICE)
    };
    let sign = || Platform::Slack.sign(&app.parts.config.platforms, &secrets.platforms, &spec, clock::now()).unwrap();
    let (one, other) = (sign(), sign());
    let fields: Vec<(String, String)> = form_urlencoded::parse(one.body.as_bytes()).into_owned().collect();
    let value = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    assert_eq!(value("text"), Some("approve pcc-a because a &lt; b &amp; c"));
    assert!(value("trigger_id").is_some_and(|trigger| !trigger.is_empty()));
    assert_ne!(one.body, other.body, "two commands of one second are two requests");
}

/// The command in a text, as Slack sends it.
fn parsed(text: &str) -> Option<Command> {
    let config = Config::parse(include_str!("../../peergate.example.toml")).unwrap();
    let fields = [
        ("command", "/peergate"),
        ("text", &slack::escape_text(text)),
        ("team_id", "T0001"),
        ("user_id", "U1"),
        ("api_app_id", "A0123"),
    ];
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let secret: slack::SigningSecret = SLACK_SECRET.to_owned().try_into().unwrap();
    let now = jiff::Timestamp::from_second(1_795_000_000).unwrap();
    let signature = slack::sign_body(&secret, "1795000000", body.as_bytes());
    let headers = [("x-slack-request-timestamp", "1795000000"), ("x-slack-signature", signature.as_str())];
    let headers = headers.map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
    let authentic = slack::verify_with(&[secret], &headers.into_iter().collect(), Bytes::from(body), now).unwrap();
    match Platform::Slack.parse(&config.platforms, authentic).unwrap() {
        Incoming::Command { request, .. } => Some(request.command),
        Incoming::UnknownCommand { .. } => None,
        other => panic!("{other:?}"),
    }
}

proptest! {
    /// A command that changes something has exactly the words of its grammar, whatever surrounds them.
    #[test]
    fn decision_has_no_word_that_is_not_understood(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "approve", "Reject", "withdraw", "status", "list", "inventory", "on", "prod", "dev", "pcc-1", "prod/pcc-1", "`pcc-1`",
                "PCC-2", "because", "not", "yet", "pcc-1?", "*", "@peergate", "/peergate", "no.",
            ]),
            0..7,
        )
    ) {
        let text = words.join(" ");
        let changes = match parsed(&text) {
            Some(Command::Connection(command)) => !matches!(command.action, Action::Status | Action::DryRun),
            Some(Command::List { .. } | Command::Inventory { .. }) | None => false,
        };
        let reason_at = words.iter().position(|word| *word == "because");
        let is_withdrawal = words.iter().find(|word| !["*", "@peergate", "/peergate"].contains(*word)) == Some(&"withdraw");
        let has_reason = !(is_withdrawal && reason_at.is_some()) && reason_at.is_none_or(|at| words[at + 1..].join("").chars().any(|c| c != ' '));
        let address = ["*", "@peergate", "/peergate"];
        let said = &words[..reason_at.unwrap_or(words.len())];
        let said: Vec<_> = said.iter().skip_while(|word| address.contains(word)).collect();
        let id = |word: &str| ["pcc-1", "prod/pcc-1", "`pcc-1`", "PCC-2"].contains(&word);
        let target = |word: &str| ["prod", "dev", "not", "yet", "no.", "approve", "Reject", "withdraw", "status", "list", "inventory", "on", "because"].contains(&word);
        let is_verb = said.first().is_some_and(|word| ["approve", "Reject", "withdraw"].contains(*word));
        let (mut ids, mut others, mut targets, mut position) = (vec![], 0, vec![], 1);
        while let Some(word) = said.get(position) {
            position += 1;
            if **word == "on" && said.get(position).is_some_and(|word| target(word)) {
                targets.push(said[position].trim_end_matches('.').to_lowercase());
                position += 1;
            } else if id(word) {
                ids.push(**word);
                targets.extend(word.contains('/').then(|| "prod".to_owned()));
            } else if **word != "*" {
                others += 1;
            }
        }
        targets.sort();
        targets.dedup();
        let expected = is_verb && ids.len() == 1 && others == 0 && targets.len() <= 1 && has_reason;
        prop_assert_eq!(changes, expected, "{}", text);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}", words in "(approve|pcc-1|on|because|[<>|`*_@/ &;]){0,12}") {
        parsed(&text);
        parsed(&words);
    }
}
