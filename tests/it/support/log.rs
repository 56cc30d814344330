//! What each test logs, which must stay free of secrets.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::{Mutex, Once, PoisonError};

use peergate::local::sandbox::{AUDIT_SECRET, CI_SECRET, SLACK_SECRET};

static INIT_LOGGING: Once = Once::new();
/// The log of the threads that a runtime started.
static SHARED_LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

thread_local! {
    /// The log of this test: each test has a thread of its own.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::thread::current().name() == Some("tokio-rt-worker") {
            return SHARED_LOG.lock().unwrap_or_else(PoisonError::into_inner).write(bytes);
        }
        LOG.with_borrow_mut(|log| log.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends the log to where [`logged`] finds it.
pub fn init() {
    INIT_LOGGING.call_once(|| {
        let builder = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
        builder.with_writer(|| LogWriter).init();
    });
}

/// Everything that was logged so far by this test, and by all tests with several threads.
pub fn logged() -> String {
    let own = LOG.with_borrow(|log| String::from_utf8_lossy(log).into_owned());
    own + &String::from_utf8_lossy(&SHARED_LOG.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A secret in the text, if there is one.
pub fn find_secret(text: &str) -> Option<&'static str> {
    let secrets = [
        CI_SECRET,
        SLACK_SECRET,
        AUDIT_SECRET,
        "accepter-secret",
        "requester-secret",
        "session-secret",
        "session-token",
        // How every JWT begins.
        "eyJ",
        "xoxb-",
        "v0=",
        "v1,",
        "payload=",
        "/hooks/",
        "/actions/",
        "Signature=",
        // Feishu's keys, tokens and bots.
        "7ZJAhsHk6WV3zn4Tag2E1ByoB3lPgxzl",
        "fakeVerificationToken",
        "fakeAppSecret",
        "t-0000",
        "demoSecret",
        "\"encrypt\"",
        "/hook/",
        // Teams' secrets, tokens and workflows.
        "fakeClientSecret",
        "fake-bot-token",
        "fakeWorkflowSignature",
        "/workflows/",
        "sig=",
    ];
    secrets.into_iter().find(|secret| text.contains(secret))
}
