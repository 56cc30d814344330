//! What we say, and what the fake makes of it: limits, codes and what each means for the next try.

use jiff::SignedDuration;
use peergate::approval::RetryPolicy;
use peergate::chat::message::Message;
use peergate::chat::{DeliveryError, FailureCause, PostAttempt, ThrottleScope, UpdateOutcome};
use peergate::fake::teams::{ConversationFault, check_adaptive_card};
use serde_json::json;

use super::*;

const SOON: RetryPolicy = RetryPolicy::Backoff(None);

fn message(headline: &str) -> Message {
    Message { headline: headline.into(), ..Message::default() }
}

/// A channel of the configuration, called as the watcher calls it.
impl World {
    async fn post_to(&self, channel: &str, message: &Message) -> Result<Option<String>, DeliveryError> {
        let secrets = self.app.parts.secrets.current(clock::now()).await.unwrap();
        let context = self.app.parts.chat_context(&secrets);
        let to = &self.app.parts.config.channels[channel];
        to.post(context, channel, message, PostAttempt::only("k")).await
    }

    async fn post_card(&self) -> Result<String, DeliveryError> {
        self.post_to("teams", &message("waits")).await.map(Option::unwrap)
    }

    async fn update_card(&self, reference: &str) -> Result<UpdateOutcome, DeliveryError> {
        let secrets = self.app.parts.secrets.current(clock::now()).await.unwrap();
        let context = self.app.parts.chat_context(&secrets);
        self.app.parts.config.channels["teams"].update(context, reference, &message("is Activated")).await
    }

    async fn reply_to_card(&self, reference: &str, urgent: bool) -> Result<(), DeliveryError> {
        let secrets = self.app.parts.secrets.current(clock::now()).await.unwrap();
        let context = self.app.parts.chat_context(&secrets);
        let attempt = PostAttempt::only("r");
        self.app.parts.config.channels["teams"].reply_below(context, reference, &message("news"), urgent, attempt).await
    }

    async fn delete_card(&self, reference: &str) -> Result<(), DeliveryError> {
        let secrets = self.app.parts.secrets.current(clock::now()).await.unwrap();
        let context = self.app.parts.chat_context(&secrets);
        self.app.parts.config.channels["teams"].delete(context, reference).await
    }
}

#[tokio::test]
async fn teams_cards_are_posted_updated_answered_and_deleted() {
    let world = World::start().await;
    let reference = world.post_card().await.unwrap();
    let id = reference.strip_prefix(&format!("{CHANNEL_ID}/")).unwrap();
    assert_eq!(world.update_card(&reference).await, Ok(UpdateOutcome::Updated));
    world.reply_to_card(&reference, false).await.unwrap();
    let shown = world.fake.messages_in(CHANNEL_ID);
    assert_eq!((shown.len(), shown[0].message_id.as_str(), shown[0].edits), (1, id, 1));
    assert_eq!((shown[0].text.as_str(), shown[0].thread_headlines()), ("is Activated", vec!["news"]));
    world.reply_to_card(&reference, true).await.unwrap();
    let shown = world.fake.messages_in(CHANNEL_ID);
    assert_eq!((shown[0].replies.len(), shown.len()), (2, 2), "urgent news are in the channel, too");
    world.delete_card(&reference).await.unwrap();
    assert_eq!(world.update_card(&reference).await, Ok(UpdateOutcome::Gone));
    world.reply_to_card(&reference, false).await.unwrap();
    assert_eq!(world.fake.messages_in(CHANNEL_ID).len(), 2, "without its card, news are in the channel");
    let posted = world.fake.calls().into_iter().find(|call| call.method == "POST" && call.path.contains("messageid"));
    assert_eq!(posted.unwrap().body["replyToId"], id);
}

#[tokio::test]
async fn group_chat_without_threads_gets_news_once() {
    let chat = "19:0123456789abcdef@thread.v2";
    let world = World::start().await;
    let app = world.app.with_change(CHANNEL_ID, chat);
    let world = World { app, fake: world.fake };
    let reference = world.post_card().await.unwrap();
    world.reply_to_card(&reference, true).await.unwrap();
    let shown = world.fake.messages_in(chat);
    assert_eq!((shown.len(), shown[0].replies.len()), (2, 0), "{shown:?}");
}

#[tokio::test]
async fn each_teams_refusal_says_when_to_retry() {
    let world = World::start().await;
    for (status, code, retry) in [
        (400, Some("BadArgument"), RetryPolicy::FewTimes),
        (400, Some("BadSyntax"), RetryPolicy::FewTimes),
        (400, None, RetryPolicy::FewTimes),
        (401, Some("BotNotRegistered"), RetryPolicy::AfterFix),
        (403, Some("BotDisabledByAdmin"), RetryPolicy::AfterFix),
        (403, Some("BotNotInConversationRoster"), RetryPolicy::AfterFix),
        (403, Some("ConversationBlockedByUser"), RetryPolicy::AfterFix),
        (403, Some("ForbiddenOperationException"), RetryPolicy::AfterFix),
        (403, Some("InvalidBotApiHost"), RetryPolicy::AfterFix),
        (403, Some("MessageWritesBlocked"), RetryPolicy::AfterFix),
        (403, Some("NotEnoughPermissions"), RetryPolicy::AfterFix),
        (403, Some("SomethingNew"), RetryPolicy::AfterFix),
        (403, None, RetryPolicy::AfterFix),
        (404, Some("BotNotInConversationRoster"), RetryPolicy::AfterFix),
        (404, Some("ConversationNotFound"), RetryPolicy::AfterFix),
        (404, Some("ActivityNotFoundInConversation"), RetryPolicy::AfterFix),
        (412, Some("PreconditionFailed"), SOON),
        (412, None, SOON),
        (413, Some("MessageSizeTooBig"), RetryPolicy::FewTimes),
        (413, None, RetryPolicy::FewTimes),
        (429, Some("Throttled"), SOON),
        (429, None, SOON),
        (500, Some("ServiceError"), SOON),
        (502, None, SOON),
        (502, Some("ServiceError"), SOON),
        (503, None, SOON),
        (504, Some("GatewayTimeout"), SOON),
        (504, None, SOON),
        (408, None, SOON),
    ] {
        world.fake.clear_faults();
        world.fail("/activities", status, code);
        let failure = world.post_card().await.unwrap_err();
        assert_eq!(failure.retry, retry, "{status} {code:?}: {}", failure.error);
        assert!(failure.error.contains(&status.to_string()), "{}", failure.error);
        assert!(code.is_none_or(|code| failure.code() == code), "{}", failure.error);
        let expected = match status {
            429 => FailureCause::Throttled(ThrottleScope::Channel),
            408 | 500..=504 => FailureCause::AnswerLost,
            _ => FailureCause::Refused,
        };
        assert_eq!(failure.cause, expected, "{status} {code:?}");
    }
    assert_eq!(world.fake.messages_in(CHANNEL_ID), []);
}

#[tokio::test]
async fn teams_names_the_wait_before_the_next_try() {
    let world = World::start().await;
    for status in [429, 412, 503] {
        world.fake.clear_faults();
        let path = "/activities".to_owned();
        world.fake.add_fault(TeamsFault { path, status, retry_after: Some(7), ..TeamsFault::default() });
        let wait = RetryPolicy::Backoff(Some(SignedDuration::from_secs(7)));
        assert_eq!(world.post_card().await.unwrap_err().retry, wait, "{status}");
    }
}

#[tokio::test]
async fn refused_bot_token_is_replaced_once() {
    let world = World::start().await;
    world.post_card().await.unwrap();
    world.fail("/activities", 401, Some("Unauthorized"));
    let failure = world.post_card().await.unwrap_err();
    assert_eq!((failure.code(), failure.retry), ("Unauthorized", RetryPolicy::AfterFix));
    assert_eq!((world.fake.count_calls("/oauth2/"), world.fake.count_calls("/activities")), (2, 3));
    world.fake.clear_faults();
    world.fake.move_clock(SignedDuration::from_hours(2));
    world.post_card().await.unwrap();
    assert_eq!(world.fake.count_calls("/oauth2/"), 3, "the token has ended there");
}

#[tokio::test]
async fn conversation_that_ended_is_named() {
    let world = World::start().await;
    let reference = world.post_card().await.unwrap();
    for (fault, words) in [
        (ConversationFault::BotMissing, "BotNotInConversationRoster: HTTP 403: add the app to the team or chat"),
        (
            ConversationFault::Blocked,
            "ConversationBlockedByUser: HTTP 403: the person or the channel's moderation has blocked the bot",
        ),
        (ConversationFault::Deleted, "ConversationNotFound: HTTP 404: there is no such conversation"),
    ] {
        world.fake.set_conversation_fault(CHANNEL_ID, Some(fault));
        let failure = world.post_card().await.unwrap_err();
        assert!(failure.error.starts_with(words), "{}", failure.error);
    }
    assert_eq!(world.update_card(&reference).await, Ok(UpdateOutcome::Gone), "with its conversation");
}

#[tokio::test]
async fn message_that_is_too_large_is_shortened() {
    let world = World::start().await;
    let long = Message { sentences: vec!["巨".repeat(60_000)], ..message("waits") };
    world.post_to("teams", &long).await.unwrap();
    let shown = world.fake.messages_in(CHANNEL_ID);
    assert!(shown[0].text.contains("too large for a Teams card"), "{}", shown[0].text);
    world.post_to("flow", &Message { sentences: vec!["巨".repeat(9_000)], ..message("waits") }).await.unwrap();
    assert!(world.fake.messages_in(FLOW_ID)[0].text.contains("too large for a Teams card"));
}

#[tokio::test]
async fn workflow_takes_only_its_own_url() {
    let world = World::start().await;
    assert_eq!(world.post_to("flow", &message("waits")).await, Ok(None));
    for (status, retry) in [
        (401, RetryPolicy::AfterFix),
        (400, RetryPolicy::FewTimes),
        (413, RetryPolicy::FewTimes),
        (410, RetryPolicy::Never),
        (429, SOON),
        (502, SOON),
    ] {
        world.fake.clear_faults();
        world.fail("/workflows/", status, Some("DirectApiAuthorizationRequired"));
        let failure = world.post_to("flow", &message("waits")).await.unwrap_err();
        assert_eq!(failure.retry, retry, "{}", failure.error);
        assert!(!failure.error.contains("flow1") && !failure.error.contains("sig"), "{}", failure.error);
    }
    world.fake.clear_faults();
    world.fake.add_workflow(FLOW_ID, "another");
    let failure = world.post_to("flow", &message("waits")).await.unwrap_err();
    assert_eq!(failure.retry, RetryPolicy::AfterFix, "{}", failure.error);
}

#[tokio::test]
async fn fake_limits_calls_to_a_conversation() {
    let world = World::start().await;
    let http = peergate::http::new_client().unwrap();
    let FakeTeamsSettings { app, client_secrets, tenant } = world.fake.settings();
    let base = world.fake.service_url().replace("teams/", "");
    let form = format!(
        "grant_type=client_credentials&client_id={app}&client_secret={}&scope=https://api.botframework.com/.default",
        client_secrets[0]
    );
    let token = http.post(format!("{base}{tenant}/oauth2/v2.0/token")).body(form).send().await.unwrap();
    let token: Value = serde_json::from_slice(&token.bytes().await.unwrap()).unwrap();
    let post = async || {
        let url = format!("{}v3/conversations/{CHANNEL_ID}/activities", world.fake.service_url());
        let body = json!({"type": "message", "text": "x"}).to_string();
        let request = http.post(url).bearer_auth(token["access_token"].as_str().unwrap());
        request.header("content-type", "application/json").body(body).send().await.unwrap().status().as_u16()
    };
    let mut statuses = vec![];
    for _ in 0..8 {
        statuses.push(post().await);
    }
    assert_eq!(statuses[..7], [201; 7]);
    world.fake.move_clock(SignedDuration::from_millis(1100));
    assert_eq!(post().await, 201);
    assert_eq!(post().await, 429, "eight in two seconds");
}

#[test]
fn fake_refuses_invalid_adaptive_cards() {
    let card = |body: Value, actions: Value| json!({"type": "AdaptiveCard", "version": "1.5", "body": body, "actions": actions});
    let text = json!([{"type": "TextBlock", "text": "x"}]);
    let execute = |title: &str| json!({"type": "Action.Execute", "title": title, "data": {}});
    let input = json!({"type": "Input.Text", "id": "reason"});
    assert_eq!(check_adaptive_card(&card(text.clone(), json!([execute("x")]))), Ok(()));
    for (card, problem) in [
        (json!({}), "version"),
        (json!({"version": "1.5"}), "type"),
        (card(json!([{"type": "Chart"}]), json!([])), "unknown element"),
        (card(json!([{"type": "TextBlock", "text": ""}]), json!([])), "without text"),
        (card(json!([{"type": "RichTextBlock", "inlines": []}]), json!([])), "inlines"),
        (card(json!([{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": ""}]}]), json!([])), "TextRun"),
        (card(json!([input, input]), json!([])), "not unique"),
        (card(json!([]), json!(vec![execute("x"); 7])), "six actions"),
        (card(json!([]), json!([{"type": "Action.Http", "title": "x"}])), "unknown action"),
        (card(json!([]), json!([{"type": "Action.Execute", "title": "x", "data": "x"}])), "data"),
        (card(json!([]), json!([{"type": "Action.OpenUrl", "title": "x", "url": "javascript:x"}])), "https"),
    ] {
        let refused = check_adaptive_card(&card).unwrap_err();
        assert!(refused.contains(problem), "{card}: {refused}");
    }
    let mention = json!({"type": "mention", "text": "<at>x</at>", "mentioned": {"id": "y", "name": "x"}});
    let mut mentioned = card(text, json!([]));
    mentioned["msteams"] = json!({"entities": [mention]});
    assert!(check_adaptive_card(&mentioned).unwrap_err().contains("mark of a mention"));
}
