//! Names and reasons of hostile outsiders stay literal, and the largest card fits.

use super::*;

const HOSTILE: [&str; 11] = [
    "\u{200B}\u{FEFF}",
    " \n ",
    "<!channel> <@U1> <https://evil.example|click>",
    "*bold* _it_ ~no~ `code` > quote",
    "line\nbreak\r\n\t\u{0}\u{1b}[31mred",
    "\u{202E}desrever\u{202C} \u{2066}isolated\u{2069}",
    "zero\u{200B}width\u{FEFF}\u{00AD}",
    "@here https://evil.example/approve",
    "\"},{\"type\":\"button\"",
    "&lt;!channel&gt; &amp;",
    "\u{E0041}\u{E0042}tagged",
];

/// Every text element of a message for Slack.
fn texts(value: &serde_json::Value) -> Vec<&serde_json::Value> {
    let nested = value.get("elements").or(value.get("blocks")).and_then(serde_json::Value::as_array);
    let own =
        value.get("text").filter(|text| text.is_string() && value["type"].is_string() && value["type"] != "plain_text");
    own.into_iter().map(|_| value).chain(nested.into_iter().flatten().flat_map(texts)).collect()
}

#[test]
fn hostile_text_stays_literal_in_every_state() {
    let long = "<!channel> *x* `y` \u{202E}".repeat(20);
    for hostile in HOSTILE.into_iter().chain([long.as_str()]) {
        let mut offered = connection(hostile);
        (offered.description, offered.link_type) = (hostile.into(), hostile.into());
        (offered.requester.vpc, offered.managed_service) = (hostile.into(), hostile.into());
        let findings = [
            Finding {
                check: Check::ManagedService,
                outcome: CheckOutcome::Objection(Objection::ManagedService(hostile.into())),
            },
            Finding { check: Check::DryRun, outcome: CheckOutcome::Unknown(Some(problem(hostile))) },
        ];
        let waits = with_review(2, &offered, &findings, |review| Approval::discover(review, now()));
        let one = decide(&waits, 2, Verdict::Approve, alice(), Some(hostile));
        let two = decide(&one, 2, Verdict::Approve, bob(), Some(hostile));
        let mut changed = offered.clone();
        changed.requester.vpc = format!("{hostile}2");
        let changed = Event::Changed { connection: Box::new(changed), findings: findings.to_vec() };
        let no_rule = without_rule(&waits);
        let states = vec![
            after(one.clone(), &[changed]),
            after(two.clone(), &[accepted()]),
            after(two.clone(), &[accepted(), seen(Status::Activated)]),
            after(two.clone(), &[Event::Failed(problem(hostile))]),
            decide(&one, 2, Verdict::Reject, bob(), Some(hostile)),
            after(waits.clone(), &[seen(Status::Expired)]),
            no_rule,
            waits,
            one,
            two,
        ];
        for approval in states {
            let reply = Reply::Status {
                connection: Box::new(approval.connection().clone()),
                approval: Some(Box::new(approval.clone())),
                target: "prod".into(),
            };
            let mut shown = vec![
                message::request_card(&approval, now()),
                message::describe_reply(&reply, CommandScope::Everything, now()),
            ];
            for notification in approval.outbox().iter() {
                shown.extend([
                    message::describe_notification(&approval, notification),
                    message::follow_up(&approval, notification, now()),
                ]);
                let json = standard_webhooks::notification_json(&approval, notification);
                let name = &json["data"]["approval"]["connection"]["name"];
                assert!(*name == hostile || *name == "data to payments", "machines get the original text, in JSON");
            }
            for message in shown {
                harmless(&slack::render_message(&bound(message.clone())));
                harmless(&slack::reply_modal(&message)["view"]);
            }
        }
    }
    let long = message::sanitize_text(&"<!channel>".repeat(100));
    assert_eq!((long.chars().count(), long.ends_with('…')), (201, true));
}

fn keyring() -> Keyring {
    Keyring::new("slack", vec![BindingKey::derive(b"a signing secret", "test")])
}

fn bound(message: Message) -> Message {
    binding::bind_buttons(message, &keyring(), CardId(7), 2000)
}

fn harmless(shown: &serde_json::Value) {
    if let Some(fallback) = shown["text"].as_str() {
        assert!(!fallback.contains(['<', '>', '`', '*']) && !fallback.contains("@here"), "{fallback}");
    }
    for element in texts(shown) {
        let text = element["text"].as_str().unwrap();
        let kind = element["type"].as_str().unwrap_or_default();
        assert!(kind == "text" || (kind == "link" && text == "Open the console"), "only literal text: {element}");
        assert!(!text.is_empty(), "Slack refuses empty texts: {shown}");
        let odd =
            |c: char| (c.is_control() && c != '\n') || "\u{202E}\u{2066}\u{200B}\u{FEFF}\u{00AD}\u{E0041}".contains(c);
        assert!(!text.chars().any(odd), "{text:?}");
    }
    fake_slack::check_blocks(shown).unwrap_or_else(|error| panic!("{error}: {shown}"));
}

#[test]
fn largest_card_fits_slacks_limits_with_its_buttons() {
    let mut largest = connection(&"𝄞".repeat(256));
    largest.description = "𝄞".repeat(256);
    largest.requester.cidrs = (0..100).map(|number| format!("10.{number}.0.0/16").parse().unwrap()).collect();
    largest.accepter.cidrs = (0..100).map(|number| format!("10.{number}.7.0/24").parse().unwrap()).collect();
    let mut waits = discovered(3, &largest);
    waits = decide(&waits, 3, Verdict::Approve, alice(), Some(&"r".repeat(400)));
    waits = decide(&waits, 3, Verdict::Approve, bob(), Some(&"r".repeat(400)));
    let mut changed = largest.clone();
    changed.requester.cidrs = (0..100).map(|number| format!("11.{number}.0.0/16").parse().unwrap()).collect();
    let findings = checked(&changed, CheckOutcome::Passed);
    let changed = after(waits.clone(), &[Event::Changed { connection: Box::new(changed), findings }]);
    for approval in [&waits, &changed] {
        let shown = slack::render_message(&bound(message::request_card(approval, now())));
        fake_slack::check_blocks(&shown).unwrap();
        assert!(shown.to_string().len() < 12_000, "{}", shown.to_string().len());
        let buttons = shown["blocks"][1]["elements"].as_array().unwrap();
        for button in buttons {
            let binding = keyring().verify(button["value"].as_str().unwrap()).unwrap();
            assert_eq!((binding.target.as_str(), binding.instance_id.as_str()), ("prod", "pcc-a"));
            assert!(binding.seen_fingerprint.is_prefix_of(approval.fingerprint()));
        }
        assert_eq!(&shown["unfurl_links"], &json!(false));
    }
    let card = slack::render_message(&bound(message::request_card(&waits, now())));
    let actions: Vec<_> =
        card["blocks"][1]["elements"].as_array().unwrap().iter().map(|one| &one["action_id"]).collect();
    assert_eq!(actions, ["peergate.approve", "peergate.reject", "peergate.withdraw", "peergate.details"]);
}

/// A record with so many approvals, each by somebody else and with the longest reason of this character.
fn with_many_reasons(connection: &Connection, approvals: usize, letter: char) -> Approval {
    let reason = |number: usize| format!("{}{number:03}", letter.to_string().repeat(397));
    let one = decide(&discovered(2, connection), 2, Verdict::Approve, alice(), Some(&reason(0)));
    edited(&one, |record| {
        let first = record["decisions"][0].clone();
        for number in 1..approvals {
            let mut next = first.clone();
            next["by"]["principal"] = json!(format!("slack:T0001/U9{number:03}"));
            next["by"]["person"] = json!(format!("person-{number:03}"));
            next["reason"] = json!(reason(number));
            record["decisions"].as_array_mut().unwrap().push(next);
        }
    })
}

#[test]
fn card_with_many_long_reasons_shows_the_latest_as_a_whole() {
    let mut largest = connection(&"𝄞".repeat(256));
    largest.requester.cidrs = (0..100).map(|number| format!("10.{number}.0.0/16").parse().unwrap()).collect();
    for letter in ['x', '理', '𝄞', '"', '\\'] {
        let approval = with_many_reasons(&largest, 12, letter);
        let shown = message::request_card(&approval, now());
        let reasons: Vec<_> = shown.facts.iter().filter(|fact| fact.label == "Reason").collect();
        assert_eq!(reasons.len(), 5);
        for (number, fact) in (7..).zip(&reasons) {
            assert!(fact.value.ends_with(&format!("{letter}{number:03}")), "{}", fact.value);
            assert_eq!(fact.value.matches(letter).count(), 397);
        }
        let earlier = shown.facts.iter().find(|fact| fact.label == "Earlier reasons").unwrap();
        assert_eq!(earlier.value, "7 more, in the history: see Details, or `peergate show`");
        let in_slack = slack::render_message(&bound(shown.clone()));
        fake_slack::check_blocks(&in_slack).unwrap();
        let chars = texts(&in_slack).iter().map(|one| one["text"].as_str().unwrap().chars().count()).sum::<usize>();
        assert!(chars < 9000, "{chars}");
        let in_dingtalk = dingtalk::render_card(&bound(shown.clone()));
        dingtalk::check_variables(&in_dingtalk).unwrap();
        assert_eq!(in_dingtalk["can_approve"], "yes", "it was not shortened");
        let in_feishu = feishu::render_card(&bound(shown.clone()));
        feishu::check_card(&in_feishu).unwrap();
        let json = in_feishu.to_string();
        assert!(json.contains("\"Approve\"") && json.contains("011"), "it was not shortened");
        let in_teams = teams::render_card(&bound(shown));
        teams::check_size(&in_teams).unwrap();
        let json = in_teams.to_string();
        assert!(json.contains("\"Approve\"") && json.contains("011"), "it was not shortened");
    }
}

#[test]
fn details_show_recent_long_reasons_as_a_whole() {
    let reason = |number: usize| format!("{}{number:03}", "理".repeat(397));
    let mut approval = pending();
    for number in 0..10 {
        approval = decide(&approval, 2, Verdict::Approve, alice(), Some(&reason(number)));
        approval.withdraw_decision(&alice(), &request(&format!("w{number}")), &without_person, later()).unwrap();
    }
    let status = |approval: &Approval| {
        let connection = Box::new(approval.connection().clone());
        let reply = Reply::Status { connection, approval: Some(Box::new(approval.clone())), target: "prod".into() };
        message::describe_reply(&reply, CommandScope::Everything, now())
    };
    let details = status(&approval);
    for number in 4..10 {
        assert!(details.sentences.iter().any(|line| line.ends_with(&format!("({})", reason(number)))), "{number}");
    }
    assert!(!text(&details).contains('…'), "{}", text(&details));
    let in_dingtalk = dingtalk::render_card(&bound(details.clone()));
    dingtalk::check_variables(&in_dingtalk).unwrap();
    assert_eq!(in_dingtalk["can_approve"], "yes", "it was not shortened");
    let in_feishu = feishu::render_card(&bound(details.clone()));
    feishu::check_card(&in_feishu).unwrap();
    assert!(in_feishu.to_string().contains(&reason(9)), "it was not shortened");
    let in_teams = teams::render_card(&bound(details));
    teams::check_size(&in_teams).unwrap();
    assert!(in_teams.to_string().contains(&reason(9)), "it was not shortened");
    // Reasons fill the message before twelve events do.
    let mut approval = pending();
    for (number, by) in [alice(), bob()].into_iter().cycle().take(16).enumerate() {
        approval = decide(&approval, 3, Verdict::Approve, by.clone(), Some(&reason(number)));
        approval = edited(&approval, |record| record["decisions"] = json!([]));
    }
    let details = status(&approval);
    let earlier = approval.history().len() - (details.sentences.len() - 1);
    assert!(earlier > approval.history().len() - 12, "{earlier}");
    let note = format!("{earlier} earlier events are too long for this message: see `peergate show`.");
    assert_eq!(details.sentences[0], note);
    assert!(details.sentences.iter().any(|line| line.contains(&reason(15))));
}
