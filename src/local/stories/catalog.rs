//! The content of the stories.

use super::{FaultKind, PeeringRequest, Story, StoryAction, StoryCheck, StoryExpectation, StoryStep};
use crate::local::chat_stage::{CastMember, ChatApp};

/// Every story, in the order of the page's menu.
#[must_use]
pub fn stories() -> Vec<Story> {
    vec![
        two_people(),
        forged_click(),
        replay(),
        late_click(),
        facts_change(),
        overlap(),
        bypass(),
        throttled(),
        contact(),
    ]
}

fn story(id: &str, title: &str, about: &str, steps: Vec<StoryStep>) -> Story {
    Story { id: id.to_owned(), title: title.to_owned(), about: about.to_owned(), steps }
}

fn step(title: &str, why: &str, action: StoryAction, expects: Vec<StoryExpectation>) -> StoryStep {
    StoryStep { title: title.to_owned(), why: why.to_owned(), action, expects }
}

fn seen(says: &'static str, check: StoryCheck) -> StoryExpectation {
    StoryExpectation { says, check }
}

fn click(by: CastMember, app: ChatApp, button: &str) -> StoryAction {
    StoryAction::Click { by, app, button: button.to_owned(), message: None, request: None, reason: None }
}

fn request_step(request: PeeringRequest) -> StoryStep {
    step(
        "The data team asks for a peering",
        "The requester calls Alibaba Cloud, not peergate. There, the request stays open for up to seven days.",
        StoryAction::Request(request),
        vec![],
    )
}

fn discover_step() -> StoryStep {
    step(
        "The watcher posts a card",
        "The watcher lists the region once a minute. This request is new: the watcher checks it, and the rule “two people” \
         decides where its card goes.",
        StoryAction::Discover,
        vec![
            seen("the card shows 0 of 2 approvals", StoryCheck::Card(&["(0 of 2 approvals)"])),
            seen("the card has buttons", StoryCheck::Buttons(&["Approve", "Reject", "Details"])),
            seen("Feishu has the card, too", StoryCheck::Thread(ChatApp::Feishu, 0)),
        ],
    )
}

fn begin() -> Vec<StoryStep> {
    vec![request_step(PeeringRequest::default()), discover_step()]
}

fn alice_approves() -> StoryStep {
    step(
        "Alice approves in Slack",
        "The signature holds. peergate reads the connection again, repeats the checks, and stores the approval in one \
         conditional write. It accepts nothing yet.",
        click(CastMember::Alice, ChatApp::Slack, "Approve"),
        vec![
            seen("one of two", StoryCheck::Reads(&["counts: 1 of 2"])),
            seen("the card shows who is still needed", StoryCheck::Card(&["1 of 2", "Still needed: 1 of bob, carol"])),
        ],
    )
}

fn bob_approves() -> StoryStep {
    step(
        "Bob approves in Feishu",
        "He is the second of two. The decision is stored first, with its client token. Only then is Alibaba Cloud asked to \
         accept, with that token: a repeated call is the same call.",
        click(CastMember::Bob, ChatApp::Feishu, "Approve"),
        vec![
            seen("he is told that it is being activated", StoryCheck::Reads(&["You approved"])),
            seen("Alibaba Cloud accepted it once", StoryCheck::Accepts(1)),
            seen("it was asked with the client token of the record", StoryCheck::OneToken),
        ],
    )
}

fn follow_step(thread: usize) -> StoryStep {
    step(
        "The watcher follows the activation",
        "It reads the connection every 2.5 s until it is usable. Each copy of the card shows the end.",
        StoryAction::Follow,
        vec![
            seen("the card shows the end", StoryCheck::Card(&["is Activated"])),
            seen("nothing is left to click", StoryCheck::Buttons(&[])),
            seen("each event is below the card", StoryCheck::Thread(ChatApp::Slack, thread)),
            seen("each event is below the card in Feishu", StoryCheck::Thread(ChatApp::Feishu, thread)),
        ],
    )
}

fn late_step() -> StoryStep {
    step(
        "Carol rejects, too late",
        "A late decision is answered with the winners. Nothing changes.",
        click(CastMember::Carol, ChatApp::Slack, "Reject"),
        vec![
            seen("she is told who decided", StoryCheck::Reads(&["already approved by alice", "and bob"])),
            seen("still accepted once", StoryCheck::Accepts(1)),
        ],
    )
}

fn forge_step() -> StoryStep {
    step(
        "Somebody forges a click",
        "The bytes are signed for Alice and sent as Bob. The signature covers the raw bytes, so it does not match. Nothing \
         is parsed, and nobody is called.",
        StoryAction::ForgeClick { signed_for: CastMember::Alice, sent_as: CastMember::Bob },
        vec![
            seen("HTTP 401", StoryCheck::Status(401)),
            seen("no approval counts", StoryCheck::Card(&["(0 of 2 approvals)"])),
        ],
    )
}

fn two_people() -> Story {
    let again = step(
        "Alice approves again, by webhook",
        "A program signs the event for her. She is one person, whatever she uses, so nothing changes.",
        StoryAction::Event { by: CastMember::Alice, verb: "approve".to_owned() },
        vec![
            seen("HTTP 200, nothing changed", StoryCheck::Named("repeated")),
            seen("Alibaba Cloud was not asked to accept", StoryCheck::Accepts(0)),
        ],
    );
    let record = step(
        "What the record remembers",
        "Each entry holds the hash of the one before it, so an edit breaks the chain.",
        StoryAction::ReadRecord,
        vec![
            seen("the hash chain holds", StoryCheck::ChainHolds),
            seen("an edit would be seen", StoryCheck::EditBreaks),
        ],
    );
    let mut follow = follow_step(4);
    follow.expects.push(seen("five events are at the auditors' URL", StoryCheck::AuditEvents(5)));
    let mut steps = begin();
    steps.extend([forge_step(), alice_approves(), again, bob_approves(), late_step(), follow, record]);
    story("two", "Two people approve", "Found, approved by two people, one of them twice, and Activated.", steps)
}

fn forged_click() -> Story {
    let mut steps = begin();
    steps.push(forge_step());
    story("forged", "A forged click", "Signed for Alice and sent as Bob: the signature covers the raw bytes.", steps)
}

fn replay() -> Story {
    let again = step(
        "Somebody replays the click",
        "The same bytes come again, within five minutes. The signature holds, and peergate knows the request: it decides \
         nothing again.",
        StoryAction::Replay { later_minutes: 0 },
        vec![
            seen("HTTP 200", StoryCheck::Status(200)),
            seen("still one of two", StoryCheck::Card(&["(1 of 2 approvals)"])),
        ],
    );
    let late = step(
        "The same click, ten minutes later",
        "Slack signs the time, too. A request that is older than five minutes is refused before anything is parsed.",
        StoryAction::Replay { later_minutes: 10 },
        vec![
            seen("HTTP 401", StoryCheck::Status(401)),
            seen("still one of two", StoryCheck::Card(&["(1 of 2 approvals)"])),
        ],
    );
    let mut steps = begin();
    steps.extend([alice_approves(), again, late]);
    story("replay", "A replayed click", "The same bytes twice: once within five minutes, and once after.", steps)
}

fn late_click() -> Story {
    let mut steps = begin();
    steps.extend([alice_approves(), bob_approves(), late_step(), follow_step(4)]);
    story("late", "A late click", "Carol rejects after two others approved, and reads who they were.", steps)
}

fn facts_change() -> Story {
    let change = step(
        "The requester wants more bandwidth",
        "The facts have another fingerprint now, so Alice's approval no longer counts. The card shows the change.",
        StoryAction::Change { bandwidth: 2048 },
        vec![
            seen("the card shows the change", StoryCheck::Card(&["Bandwidth: 2048 Mbit/s", "(0 of 2 approvals)"])),
            seen("nothing is accepted", StoryCheck::Accepts(0)),
        ],
    );
    let decide = step(
        "Bob approves the new facts",
        "His click binds the facts that the card shows. It is the first approval of these facts.",
        click(CastMember::Bob, ChatApp::Slack, "Approve"),
        vec![
            seen("one of two", StoryCheck::Reads(&["counts: 1 of 2"])),
            seen("Alice is needed again", StoryCheck::Card(&["Still needed: 1 of alice, carol"])),
        ],
    );
    let mut steps = begin();
    steps.extend([alice_approves(), change, decide]);
    story("changed", "The facts change", "The requester wants more bandwidth after Alice approved.", steps)
}

fn overlap() -> Story {
    let request = PeeringRequest { cidrs: "10.0.1.0/25".to_owned(), ..PeeringRequest::default() };
    let mut discover = discover_step();
    "Both sides use the same addresses, so no route can work. A check fails that no rule can waive, and the card shows \
     where the CIDR blocks overlap."
        .clone_into(&mut discover.why);
    discover.expects = vec![seen("the card shows the overlap", StoryCheck::Card(&["10.0.1.0/25", "✗"]))];
    let refused = step(
        "Alice approves anyway",
        "Rules say who may decide. They cannot waive a check.",
        click(CastMember::Alice, ChatApp::Slack, "Approve"),
        vec![
            seen("she is told why not", StoryCheck::Reads(&["overlap"])),
            seen("nothing is accepted", StoryCheck::Accepts(0)),
            seen("nothing is decided", StoryCheck::NoToken),
        ],
    );
    let steps = vec![request_step(request), discover, refused];
    story("overlap", "Overlapping CIDR blocks", "Both sides use the same addresses: nobody can approve.", steps)
}

fn bypass() -> Story {
    let accept = step(
        "Somebody accepts in the console",
        "peergate cannot prevent it; a RAM policy can. It says so in the channel itself, in the record, and as an alarm.",
        StoryAction::AcceptInConsole,
        vec![
            seen("the card says so", StoryCheck::Card(&["was accepted outside peergate"])),
            seen("the alarm is in the channel itself", StoryCheck::Alarm("was accepted outside peergate")),
            seen("it says how many had approved", StoryCheck::Alarm("; 0 of 2 had approved")),
            seen("peergate did not accept it", StoryCheck::NoToken),
        ],
    );
    let mut steps = begin();
    steps.push(accept);
    story("bypass", "A bypass", "Somebody accepts in the console. The channel hears it.", steps)
}

fn throttled() -> Story {
    let fault = step(
        "Alibaba Cloud throttles",
        "The next accept is refused for now, with the code Throttling.User.",
        StoryAction::Fault { fault: FaultKind::Throttle, on: true, times: Some(1) },
        vec![],
    );
    let bob = step(
        "Bob approves, and is throttled",
        "The decision is stored before the call. The accept is refused for now, so the watcher makes the same call later, \
         with the same client token.",
        click(CastMember::Bob, ChatApp::Slack, "Approve"),
        vec![
            seen("he is told that his decision is stored", StoryCheck::Reads(&["Your decision is stored"])),
            seen("nothing is accepted yet", StoryCheck::Accepts(0)),
        ],
    );
    let retry = step(
        "The watcher makes the call again",
        "It is the same call with the same client token. Whichever of the two arrived, Alibaba Cloud accepts once.",
        StoryAction::Follow,
        vec![
            seen("Alibaba Cloud accepted it once", StoryCheck::Accepts(1)),
            seen("it was asked with the client token of the record", StoryCheck::OneToken),
        ],
    );
    let mut steps = begin();
    steps.extend([alice_approves(), fault, bob, retry, follow_step(4)]);
    story("throttled", "Throttled", "Alibaba Cloud throttles the accept. The watcher finishes it.", steps)
}

fn contact() -> Story {
    let erin = step(
        "The requester's contact approves",
        "Erin is in the group of approvers, and she is a contact of the requesting account. Nobody approves their own \
         request.",
        click(CastMember::Erin, ChatApp::Slack, "Approve"),
        vec![
            seen("she is told why not", StoryCheck::Reads(&["contact"])),
            seen("no approval counts", StoryCheck::Card(&["(0 of 2 approvals)"])),
        ],
    );
    let mallory = step(
        "A stranger approves",
        "Slack says who clicks, and the configuration knows nobody of that id.",
        click(CastMember::Mallory, ChatApp::Slack, "Approve"),
        vec![
            seen("Mallory may not decide", StoryCheck::Reads(&["you are not an approver"])),
            seen("no approval counts", StoryCheck::Card(&["(0 of 2 approvals)"])),
        ],
    );
    let mut steps = begin();
    steps.extend([erin, mallory, alice_approves(), bob_approves(), follow_step(4)]);
    story("contact", "Two of three, with a contact", "The requester's contact and a stranger cannot approve.", steps)
}
