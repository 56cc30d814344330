//! Decisions about requests that ended in another way: the answer names the end, and nothing is decided.

use crate::support::prelude::*;

/// What a decision about the request gets, whoever sends it.
async fn assert_ended(app: &TestApp, id: &InstanceId, name: &str, said: &str) {
    for action in ["approve", "reject"] {
        for spec in [app.event_spec(action, id, "alice"), app.blind_spec(action, id, "bob")] {
            let reply = app.send_spec(&spec).await;
            reply.assert(409, name);
            assert!(reply.problem_detail().contains(said), "{action}: {}", reply.problem_detail());
            assert_eq!(reply.body_json()["approval"]["instance_id"], id.as_str());
        }
    }
    assert_eq!((app.count_calls(ACCEPT), app.count_calls(REJECT)), (0, 0));
    assert_eq!(app.status(id, "anybody").await.name(), "status", "a question is answered as before");
}

/// A request that ended while one of two people had approved it.
async fn half_approved(app: &TestApp) -> InstanceId {
    let id = app.discovered_request("vpc-two-people").await;
    app.approve(&id, "alice").await.assert(200, "counted");
    id
}

#[tokio::test]
async fn expired_request_is_answered_with_the_time() {
    let app = TestApp::start().await;
    let id = half_approved(&app).await;
    app.set_status(&id, "Expired");
    app.discover().await;
    app.assert_state(&id, "expired").await;
    assert_ended(&app, &id, "expired", "has expired. It expired at 2").await;
    app.withdraw(&id, "alice").await.assert(409, "expired");
}

#[tokio::test]
async fn rejection_elsewhere_is_answered_as_such() {
    let app = TestApp::start().await;
    let id = half_approved(&app).await;
    app.set_status(&id, "Rejected");
    app.discover().await;
    app.assert_state(&id, "rejected").await;
    assert_ended(&app, &id, "rejected-elsewhere", "was rejected outside peergate. peergate noticed it at 2").await;
    app.withdraw(&id, "alice").await.assert(409, "rejected-elsewhere");
}

#[tokio::test]
async fn rejection_by_people_names_them_instead() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    app.reject(&id, "bob").await.assert(200, "rejected");
    for late in [app.approve(&id, "alice").await, app.withdraw(&id, "alice").await] {
        late.assert(409, "already-decided");
        assert!(late.problem_detail().contains("already rejected by bob"), "{}", late.problem_detail());
    }
}

#[tokio::test]
async fn deleted_request_is_answered_as_such() {
    let app = TestApp::start().await;
    let id = half_approved(&app).await;
    app.set_status(&id, "Deleted");
    app.discover().await;
    app.read_doubtful_again(&id).await;
    app.assert_state(&id, "deleted").await;
    assert_ended(&app, &id, "deleted", "was deleted. peergate noticed it at 2").await;
    app.withdraw(&id, "alice").await.assert(409, "deleted");
    app.dry_run(&id, "alice").await.assert(409, "deleted");
}

#[tokio::test]
async fn missing_connection_with_a_record_is_deleted() {
    let app = TestApp::start().await;
    let id = half_approved(&app).await;
    app.set_status(&id, "Deleted");
    for actor in ["bob", "stranger"] {
        let reply = app.approve(&id, actor).await;
        reply.assert(409, "deleted");
        assert!(reply.problem_detail().contains("no longer has"), "{}", reply.problem_detail());
    }
    // One such reading proves little.
    app.assert_state(&id, "pending").await;
    app.assert_calls(ACCEPT, 0);
    app.set_status(&id, "Accepting");
    app.approve(&id, "bob").await.assert(200, "accepted");
}

#[tokio::test]
async fn end_that_the_reading_shows_is_stored_and_named() {
    let app = TestApp::start().await;
    for (status, name, state) in [("Expired", "expired", "expired"), ("Rejected", "rejected-elsewhere", "rejected")] {
        for action in ["approve", "reject"] {
            let id = app.discovered_request("vpc-one").await;
            app.set_status(&id, status);
            // Those who may not decide cause no change.
            app.send_event(action, &id, "stranger").await.assert(403, "not-an-approver");
            app.assert_state(&id, "pending").await;
            let reply = app.send_event(action, &id, "alice").await;
            reply.assert(409, name);
            assert_eq!(reply.body_json()["approval"]["state"], state);
            app.assert_state(&id, state).await;
            app.follow().await;
            let types: Vec<_> =
                app.slack.posts(AUDIT_PATH).iter().map(|post| post.body_json()["type"].clone()).collect();
            assert_eq!(types.last().unwrap(), &format!("peering.{state}"));
        }
    }
    assert_eq!((app.count_calls(ACCEPT), app.count_calls(REJECT)), (0, 0));
}

#[tokio::test]
async fn expiry_during_a_decision_is_named() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-one").await;
    let expires_at = app.approval(&id).await.connection().expires_at.unwrap();
    clock::jump::advance_in_thread(expires_at.duration_since(clock::now()) + SignedDuration::from_secs(1));
    app.show_status(&id, "Accepting");
    app.approve(&id, "alice").await.assert(409, "expired");
    app.assert_state(&id, "expired").await;
    app.assert_calls(ACCEPT, 0);
}

#[tokio::test]
async fn repeated_decision_about_an_ended_request_names_the_end() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-two-people").await;
    let approve = app.sign_event("approve", &id, "alice").await;
    app.send(&approve).await.assert(200, "counted");
    app.set_status(&id, "Rejected");
    app.discover().await;
    app.send(&approve).await.assert(409, "rejected-elsewhere");
    app.assert_calls(ACCEPT, 0);
}

#[tokio::test]
async fn click_on_an_ended_request_is_answered_in_words() {
    let app = TestApp::start().await;
    let id = app.discovered_request("vpc-one").await;
    let card = app.only_card();
    app.set_status(&id, "Rejected");
    assert_eq!(app.click_button(&card, "Approve", ALICE).await.status, 200);
    let said = app.last_private_reply();
    assert!(said.starts_with(&format!("Too late: prod/{id} was rejected outside peergate\n")), "{said}");
    assert!(logged().lines().any(|line| line.contains("rejected-elsewhere") && line.contains("Click")));
}
