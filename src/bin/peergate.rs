//! The local tool: the demo, the simulator, signed events, and both functions on one machine.
#![expect(clippy::print_stdout, reason = "a command-line tool")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use jiff::Timestamp;
use peergate::approval::Principal;
use peergate::chat::EventSpec;
use peergate::chat::platform::Platform;
use peergate::config::{Config, Environment, SecretsSource};
use peergate::fake::alicloud::gateway::Simulator;
use peergate::fake::alicloud::{SimulatedAccount, SimulatorSettings};
use peergate::local::audit::{self, RecordSource};
use peergate::local::event;
use peergate::local::{Error, demo, redrive, register, restore, serve, table};
use peergate::secrets::SecretSet;
use peergate::watch::Tick;
use peergate::{clock, doctor, logging, watch};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// People approve Alibaba Cloud VPC peering connections from chat.
#[derive(Parser)]
#[command(version)]
enum Cli {
    /// Plays the main job on loopback, without any cloud account.
    Demo,
    /// Simulates the VPC peering API, in memory, over plain HTTP.
    Simulate {
        /// Where to listen; port 0 takes a free one and prints it.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: String,
        /// From Updating to Activated.
        #[arg(long, default_value_t = 3000)]
        activation_ms: u64,
        /// How long a request waits to be accepted.
        #[arg(long, default_value_t = 7 * 24 * 3600)]
        expiry_s: u64,
        /// Calls per account and operation in 60 s; 0 for no limit.
        #[arg(long, default_value_t = 360)]
        quota: usize,
        /// How long each call takes, at least.
        #[arg(long, default_value_t = 0)]
        latency_ms: u64,
        /// Has the first account ask the second for a peering, and prints its id.
        #[arg(long)]
        request: bool,
        /// JSON: a list of {account, `access_key_id`, `access_key_secret`, vpcs: {id: [CIDR]}}.
        #[arg(long)]
        accounts: Option<PathBuf>,
    },
    /// Prints a freshly signed event, for `cargo lambda invoke webhook`.
    Event(EventArguments),
    /// Has a platform send its requests to a URL, or says what to enter where.
    Register {
        /// Which platform.
        #[arg(long, value_parser = parse_platform)]
        platform: Platform,
        /// The address of the webhook, e.g. https://….lambda-url.eu-central-1.on.aws/
        #[arg(long)]
        url: url::Url,
    },
    /// Answers as a chat platform would, on loopback: for its SDKs and for tests.
    Fake {
        /// Which platform.
        name: String,
        /// An option of the fake; may be repeated.
        #[arg(long = "with")]
        options: Vec<String>,
        /// Where to listen; port 0 takes a free one and prints it.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: String,
    },
    /// Runs both functions in one process, with the table in a file.
    Serve {
        /// Where to listen; port 0 takes a free one and prints it.
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: String,
        /// The table's file.
        #[arg(long, default_value = "peergate.db")]
        store: PathBuf,
    },
    /// Tells what waits or moves.
    List {
        /// What is over, too.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        source: RecordSource,
    },
    /// Tells everything about one connection, with its timeline.
    Show {
        /// pcc-…, or TARGET/pcc-….
        id: String,
        #[command(flatten)]
        source: RecordSource,
    },
    /// Prints everything that happened, as lines of JSON.
    Export {
        /// From this time or day (UTC) on.
        #[arg(long, value_parser = audit::parse_since)]
        since: Option<Timestamp>,
        #[command(flatten)]
        source: RecordSource,
    },
    /// Checks that nobody has edited what happened.
    Verify {
        /// An earlier export: what it holds must still be there, as it was.
        #[arg(long)]
        against: Option<PathBuf>,
        #[command(flatten)]
        source: RecordSource,
    },
    /// Looks at everything that can be wrong, as the functions would come across it, and says what to do.
    Doctor {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: doctor::Options,
    },
    /// Has notices that no channel took tried again at once.
    Redrive(redrive::RedriveArgs),
    /// Puts back, from a copy of the table, what the table has lost.
    Restore(restore::RestoreArgs),
    /// Serves the table alone, as DynamoDB would, for functions under `cargo lambda watch`.
    Table {
        /// Where to listen; port 0 takes a free one and prints it.
        #[arg(long, default_value = "127.0.0.1:8000")]
        listen: String,
        /// The table's file.
        #[arg(long, default_value = "peergate.db")]
        store: PathBuf,
        /// The table's name.
        #[arg(long, default_value = "peergate")]
        name: String,
    },
    /// Runs the watcher.
    Watch {
        /// One tick only.
        #[arg(long)]
        once: bool,
        /// The table's file.
        #[arg(long, default_value = "peergate.db")]
        store: PathBuf,
    },
}

#[derive(clap::Args)]
struct EventArguments {
    /// What to ask for.
    verb: EventVerb,
    /// Of which connection, pcc-…; of none for a list.
    #[arg(default_value = "")]
    instance_id: String,
    /// The platform that sends it.
    #[arg(long, default_value = "standard-webhooks", value_parser = parse_platform)]
    provider: Platform,
    /// Which client of /webhook/{client}, or which tenant; by default the first of the configuration.
    #[arg(long, visible_alias = "tenant")]
    client: Option<String>,
    /// Who asks: the user id on that platform; by default the first person of the configuration.
    #[arg(long)]
    actor: Option<String>,
    /// Of which target, if there are several.
    #[arg(long)]
    target: Option<String>,
    /// Why.
    #[arg(long)]
    reason: Option<String>,
    /// The fingerprint that the sender saw; by default the current one.
    #[arg(long)]
    fingerprint: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum EventVerb {
    Approve,
    Reject,
    Withdraw,
    Status,
    List,
    DryRun,
}

/// The longest that the doctor looks.
const DOCTOR_TIMEOUT: Duration = Duration::from_mins(2);

fn parse_platform(name: &str) -> Result<Platform, String> {
    let known: Vec<_> = Platform::ALL.iter().map(|platform| platform.name()).collect();
    Platform::from_name(name).ok_or_else(|| format!("expected one of {}", known.join(", ")))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run_command(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peergate: {}", logging::Chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run_command(command: Cli) -> Result<(), Error> {
    match command {
        Cli::Demo => demo::run().await,
        Cli::Simulate { listen, activation_ms, expiry_s, quota, latency_ms, request, accounts } => {
            let mut settings = SimulatorSettings {
                activation_delay: Duration::from_millis(activation_ms),
                expires_after: Duration::from_secs(expiry_s),
                calls_per_minute: (quota > 0).then_some(quota),
                latency: Duration::from_millis(latency_ms),
                ..SimulatorSettings::default()
            };
            if let Some(path) = accounts {
                settings.accounts = serde_json::from_slice::<Vec<SimulatedAccount>>(&std::fs::read(path)?)?;
            }
            let listener = listen_on(&listen).await?;
            let simulator = Simulator::new(settings);
            if request {
                println!("requested {}", simulator.request_peering(&[]).ok_or("two accounts are needed")?);
            }
            Ok(simulator.serve(listener).await?)
        }
        Cli::Event(arguments) => print_event(arguments).await,
        Cli::Register { platform, url } => print_text(&register::register_webhook(platform, &url).await?),
        Cli::Fake { name, options, listen } => {
            peergate::fake::serve_fake(&name, &options, listen_on(&listen).await?).await
        }
        Cli::Serve { listen, store } => {
            logging::start();
            let app = Arc::new(serve::build_app(&store).await?);
            let listener = listen_on(&listen).await?;
            serve::serve_and_watch(app, listener).await
        }
        Cli::List { all, source } => print_text(&audit::list_records(&source, all).await?),
        Cli::Show { id, source } => print_text(&audit::show_records(&source, &id).await?),
        Cli::Export { since, source } => print_text(&audit::export_history(&source, since).await?),
        Cli::Verify { against, source } => print_text(&audit::verify_records(&source, against.as_deref()).await?),
        Cli::Doctor { json, options: wish } => {
            let report =
                doctor::examine_deployment(Environment::from_process(), &wish, Instant::now() + DOCTOR_TIMEOUT).await;
            print_text(&if json { format!("{}\n", report.to_json()) } else { report.to_text() })?;
            if report.is_healthy() { Ok(()) } else { Err("something does not work".into()) }
        }
        Cli::Redrive(wish) => print_text(&redrive::redrive(&wish).await?),
        Cli::Restore(wish) => print_text(&restore::restore(&wish).await?),
        Cli::Table { listen, store, name } => table::serve_table(&store, &name, listen_on(&listen).await?).await,
        Cli::Watch { once, store } => {
            logging::start();
            let app = Arc::new(serve::build_app(&store).await?);
            if once {
                let first_tick = doctor::StartupCheck::default();
                let ticked = watch::tick(&app, Tick::SCHEDULED, Instant::now() + Duration::from_mins(1));
                tokio::join!(ticked, first_tick.run_once(&app)).0?;
            } else {
                serve::run_watcher(app, serve::DISCOVERY_INTERVAL).await;
            }
            Ok(())
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an arm like the others")]
fn print_text(text: &str) -> Result<(), Error> {
    print!("{text}");
    Ok(())
}

async fn listen_on(address: &str) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(listener)
}

async fn print_event(arguments: EventArguments) -> Result<(), Error> {
    let EventArguments { verb, instance_id, provider, client, actor, target, reason, fingerprint } = arguments;
    let default = |name: &str| match name {
        "AWS_REGION" | "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("unused".to_owned()),
        "PEERGATE_SECRETS" => Some("file:peergate.secrets.json".to_owned()),
        _ => None,
    };
    #[expect(clippy::disallowed_methods, reason = "the environment of the local tool, read once")]
    let environment = Environment::from_variables(|name| std::env::var(name).ok().or_else(|| default(name)))?;
    let config = Config::load(&environment.config)?;
    let SecretsSource::File(path) = &environment.secrets else {
        return Err("PEERGATE_SECRETS must be file:PATH to sign events".into());
    };
    let secrets = SecretSet::parse(&std::fs::read(path)?, &config)?;
    let carries_one =
        provider.can_carry_fingerprints() && matches!(verb, EventVerb::Approve | EventVerb::Reject | EventVerb::DryRun);
    let fingerprint = match fingerprint {
        None if carries_one => event::read_fingerprint(&environment, &config, target.as_deref(), &instance_id)
            .await
            .inspect_err(|error| eprintln!("peergate: the event carries no fingerprint: {error}"))
            .ok(),
        given => given,
    };
    let verb = match verb {
        EventVerb::Approve => "approve",
        EventVerb::Reject => "reject",
        EventVerb::Withdraw => "withdraw",
        EventVerb::Status => "status",
        EventVerb::List => "list",
        EventVerb::DryRun => "dry-run",
    };
    let is_there = |principal: &&Principal| {
        Platform::from_principal(principal) == Some(provider)
            && client.as_ref().is_none_or(|tenant| principal.realm().ends_with(&format!(":{tenant}")))
    };
    let known = config.policy.people.values().flat_map(|person| &person.principals).find(is_there);
    let tenant = client
        .or_else(|| known.and_then(|principal| principal.realm().split_once(':')).map(|(_, tenant)| tenant.to_owned()));
    let actor = actor.or_else(|| known.map(|principal| principal.user().to_owned()));
    let actor = actor.ok_or("name the --actor: no person of the configuration has an identity there")?;
    let wish = EventSpec { action: verb.to_owned(), instance_id, target, reason, fingerprint, tenant, actor };
    let signed = event::sign_event(provider, &wish, &config, &secrets, clock::now())?;
    println!("{}", serde_json::to_string_pretty(&event::function_url_event(&signed))?);
    Ok(())
}
