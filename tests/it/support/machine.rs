//! peergate on one machine: the real program, beside the sandbox's services.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peergate::chat::SignedRequest;
use peergate::config::SecretsSource;
use peergate::fake::alicloud::SimulatorSettings;
use peergate::peering::InstanceId;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::app::TestApp;

/// Much longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(90);

/// The program in a directory of its own, with the configuration and the secrets of a sandbox.
pub struct Machine {
    /// Its services. Its own table is not used.
    pub app: TestApp,
    pub directory: TempDir,
    serving: Option<Serving>,
    client: reqwest::Client,
}

/// A running `peergate serve`.
struct Serving {
    child: Child,
    url: String,
    log: Arc<Mutex<String>>,
}

impl Machine {
    /// Nothing runs yet.
    pub async fn new(settings: SimulatorSettings) -> Self {
        Self {
            app: TestApp::with_settings(settings).await,
            directory: tempfile::tempdir().unwrap(),
            serving: None,
            client: peergate::http::new_client().unwrap(),
        }
    }

    /// With `peergate serve`, and a request that it has discovered.
    pub async fn with_request(settings: SimulatorSettings, vpc: &str) -> (Self, InstanceId) {
        let mut machine = Self::new(settings).await;
        // Before it starts: it discovers once a minute.
        let id = machine.app.new_request_for(vpc).await;
        machine.serve(&[]).await;
        machine.wait_for_record(&id, "pending").await;
        (machine, id)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let environment = &self.app.environment;
        let SecretsSource::File(secrets) = &environment.secrets else { panic!("secrets in a file") };
        let mut command = Command::new(env!("CARGO_BIN_EXE_peergate"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("PEERGATE_CONFIG", &environment.config)
            .env("PEERGATE_SECRETS", format!("file:{}", secrets.display()))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command. Returns what it prints, or as an error what it prints when it fails.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = timeout(PATIENCE, self.command(arguments).output()).await.expect("it ends").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Starts `peergate serve`.
    pub async fn serve(&mut self, variables: &[(&str, &str)]) {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.envs(variables.iter().copied());
        self.start(command).await;
    }

    /// Starts `peergate serve` with another table.
    pub async fn serve_store(&mut self, store: &str) {
        let command = self.command(&["serve", "--listen", "127.0.0.1:0", "--store", store]);
        self.start(command).await;
    }

    async fn start(&mut self, mut command: Command) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (mut lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                *kept.lock().unwrap() += &(line + "\n");
            }
        });
        let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, printed.next_line()).await.expect("it prints").unwrap();
        let url = line.and_then(|line| line.strip_prefix("listening on ").map(str::to_owned));
        let url = url.unwrap_or_else(|| panic!("it listens: {}", log.lock().unwrap()));
        self.serving = Some(Serving { child, url, log });
    }

    fn current(&self) -> &Serving {
        self.serving.as_ref().expect("it serves")
    }

    pub fn url(&self) -> String {
        self.current().url.clone()
    }

    pub fn pid(&self) -> u32 {
        self.current().child.id().expect("it runs")
    }

    /// What the running process has logged.
    pub fn log(&self) -> String {
        self.current().log.lock().unwrap().clone()
    }

    pub async fn wait_for_log(&self, text: &str) -> String {
        self.wait_for(&format!("a log line with {text}"), async || self.log().contains(text)).await;
        self.log()
    }

    pub async fn wait_for(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let waiting = async {
            while !condition().await {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let log = || self.serving.as_ref().map(|serving| serving.log.lock().unwrap().clone()).unwrap_or_default();
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never seen: {what}\n{}", log()));
    }

    /// Waits until the record says so.
    pub async fn wait_for_record(&self, id: &InstanceId, text: &str) {
        let shows = async || self.run(&["show", id.as_str()]).await.is_ok_and(|shown| shown.contains(text));
        self.wait_for(&format!("{text} in the record of {id}"), shows).await;
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        let mut serving = self.serving.take().expect("it serves");
        serving.child.kill().await.unwrap();
    }

    /// Waits until it has ended by itself. Returns its log.
    pub async fn wait_for_end(&mut self) -> (ExitStatus, String) {
        let mut serving = self.serving.take().expect("it serves");
        let status = timeout(PATIENCE, serving.child.wait()).await.expect("it ends").unwrap();
        (status, serving.log.lock().unwrap().clone())
    }

    /// Sends a request to the webhook. Returns the status and the body.
    pub async fn send(&self, signed: &SignedRequest) -> Result<(u16, String), reqwest::Error> {
        let request = self.client.post(self.url() + &signed.path).body(signed.body.clone());
        let request = signed.headers.iter().fold(request, |it, (name, value)| it.header(*name, value));
        let response = request.timeout(PATIENCE).send().await?;
        let status = response.status().as_u16();
        Ok((status, String::from_utf8(response.bytes().await?.to_vec()).unwrap()))
    }

    pub async fn approve(&self, id: &InstanceId, actor: &str) -> (u16, String) {
        self.send(&self.app.sign_event("approve", id, actor).await).await.unwrap()
    }
}
