//! Runs a function in a separate process under its own Runtime API. It measures the cost of the start, until the function
//! asks for its first event, and the cost of each event.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use peergate::clock;
use peergate::local::Error;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};

/// The longest time for an event.
const EVENT_TIMEOUT: Duration = Duration::from_mins(15);
/// The longest time until the function asks for an event.
const ASK_TIMEOUT: Duration = Duration::from_mins(1);

/// How to start a function.
#[derive(Clone)]
pub struct Subject {
    /// The name in the tables.
    pub name: &'static str,
    /// The path of the program.
    pub program: PathBuf,
    /// The arguments of the program.
    pub arguments: Vec<String>,
    /// The working directory, if it matters.
    pub directory: Option<PathBuf>,
}

/// The time that something took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// The elapsed time.
    pub wall: Duration,
    /// The CPU time of all threads of the function.
    pub cpu: Duration,
}

/// A running function.
pub struct Function {
    process: Child,
    /// The cost from the start until it asked for its first event.
    pub init: Cost,
    events: mpsc::Sender<Event>,
    asked: mpsc::UnboundedReceiver<Instant>,
    answers: mpsc::UnboundedReceiver<Answer>,
}

struct Event {
    id: String,
    body: Bytes,
    time_left: Duration,
    sent: Arc<Mutex<Option<Instant>>>,
}

struct Answer {
    at: Instant,
    failed: bool,
    body: Bytes,
}

#[derive(Clone)]
struct RuntimeApi {
    events: Arc<Mutex<mpsc::Receiver<Event>>>,
    asked: mpsc::UnboundedSender<Instant>,
    answers: mpsc::UnboundedSender<Answer>,
}

impl Function {
    /// Starts a function, and waits until it asks for its first event.
    pub async fn start(subject: &Subject, environment: &[(String, String)]) -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (events, next) = mpsc::channel(1);
        let (asks, asked) = mpsc::unbounded_channel();
        let (answered, answers) = mpsc::unbounded_channel();
        let state = RuntimeApi { events: Arc::new(Mutex::new(next)), asked: asks, answers: answered };
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(give_next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(take_response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(take_error))
            .route("/2018-06-01/runtime/init/error", post(take_error))
            .with_state(state);
        tokio::spawn(async { axum::serve(listener, router).await });
        let mut command = Command::new(&subject.program);
        command.args(&subject.arguments).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        command
            .env("PATH", "/usr/bin:/bin")
            .env("AWS_LAMBDA_RUNTIME_API", &address)
            .env("AWS_LAMBDA_FUNCTION_NAME", "bench")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/bench")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "bench")
            .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log());
        if let Some(directory) = &subject.directory {
            command.current_dir(directory);
        }
        let started = Instant::now();
        let process = command.spawn()?;
        let mut function = Self { process, init: Cost::default(), events, asked, answers };
        let at = function.wait_until_it_asks().await?;
        function.init = Cost { wall: at.duration_since(started), cpu: function.cpu()? };
        Ok(function)
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Passes an event to the function. Returns the answer and its cost.
    pub async fn invoke(&mut self, event: Vec<u8>, time_left: Duration) -> Result<(Bytes, Cost), Error> {
        let before = self.cpu()?;
        let sent = Arc::new(Mutex::new(None));
        let event = Event { id: clock::nonce(), body: event.into(), time_left, sent: Arc::clone(&sent) };
        self.events.send(event).await.map_err(|_| "the Runtime API is gone")?;
        let answer =
            tokio::time::timeout(EVENT_TIMEOUT, self.answers.recv()).await?.ok_or("the Runtime API is gone")?;
        let cpu = self.cpu()?.saturating_sub(before);
        let sent = sent.lock().await.ok_or("nothing was sent")?;
        if answer.failed {
            return Err(format!("the function failed: {}", String::from_utf8_lossy(&answer.body)).into());
        }
        self.wait_until_it_asks().await?;
        Ok((answer.body, Cost { wall: answer.at.duration_since(sent), cpu }))
    }

    async fn wait_until_it_asks(&mut self) -> Result<Instant, Error> {
        let asked = tokio::time::timeout(ASK_TIMEOUT, self.asked.recv()).await;
        let mut failure = || match self.answers.try_recv() {
            Ok(answer) => format!("the function did not start: {}", String::from_utf8_lossy(&answer.body)),
            Err(_) => "the function does not ask for events".to_owned(),
        };
        asked.ok().flatten().ok_or_else(|| failure().into())
    }

    /// Its CPU time so far.
    pub fn cpu(&self) -> Result<Duration, Error> {
        cpu_of(self.pid())
    }

    /// Its largest resident memory so far, in bytes.
    pub fn most_memory(&self) -> Result<u64, Error> {
        memory_of(self.pid(), "VmHWM")
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The destination of logs: standard error with `--log`, else nowhere.
pub fn log() -> Stdio {
    if std::env::args().any(|argument| argument == "--log") { Stdio::inherit() } else { Stdio::null() }
}

/// The CPU time of a process so far, of all threads that still exist.
pub fn cpu_of(pid: u32) -> Result<Duration, Error> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(Duration::from_nanos(sum))
}

/// A value in kB of the status of a process (`VmRSS`, `VmHWM`), in bytes.
pub fn memory_of(pid: u32, line: &str) -> Result<u64, Error> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kilobytes = found.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kilobytes.ok_or("no such line")? * 1024)
}

async fn give_next(State(api): State<RuntimeApi>) -> Response {
    let _ = api.asked.send(Instant::now());
    let event = api.events.lock().await.recv().await;
    let Some(event) = event else { return "gone".into_response() };
    let deadline = clock::now().as_millisecond() + i64::try_from(event.time_left.as_millis()).unwrap_or(i64::MAX);
    let headers = [
        ("lambda-runtime-aws-request-id", event.id),
        ("lambda-runtime-deadline-ms", deadline.to_string()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-central-1:1:function:bench".to_owned()),
        ("content-type", "application/json".to_owned()),
    ];
    *event.sent.lock().await = Some(Instant::now());
    (headers, event.body).into_response()
}

async fn take_response(State(api): State<RuntimeApi>, body: Bytes) -> axum::http::StatusCode {
    let _ = api.answers.send(Answer { at: Instant::now(), failed: false, body });
    axum::http::StatusCode::ACCEPTED
}

async fn take_error(State(api): State<RuntimeApi>, body: Bytes) -> axum::http::StatusCode {
    let _ = api.answers.send(Answer { at: Instant::now(), failed: true, body });
    axum::http::StatusCode::ACCEPTED
}
