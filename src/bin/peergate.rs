//! The local tool: the demo, the simulator, signed events, the audit commands, and both functions on one machine.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind as UsageError;
use clap::{CommandFactory, Parser};
use jiff::Timestamp;
use peergate::approval::Principal;
use peergate::chat::EventSpec;
use peergate::chat::command_words::CommandVerb;
use peergate::chat::message::sanitize_lines;
use peergate::chat::platform::Platform;
use peergate::config::{Config, Environment, SecretsSource};
use peergate::fake::alicloud::gateway::Simulator;
use peergate::fake::alicloud::{SimulatedAccount, SimulatorSettings};
use peergate::local::audit::{self, RecordSource};
use peergate::local::event;
use peergate::local::installation::{self, Installation, Signals};
use peergate::local::platform_table::platform_table;
use peergate::local::playground::Playground;
use peergate::local::policy::{PolicyCommand, run_policy_command};
use peergate::local::schema::{SchemaKind, schema_text};
use peergate::local::table::server::serve_table;
use peergate::local::table::{EmbeddedTable, KeyPair};
use peergate::local::{Error, backup, demo, inventory, redrive, register, restore};
use peergate::peering::InstanceId;
use peergate::secrets::SecretSet;
use peergate::{clock, doctor, logging};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// People approve Alibaba Cloud VPC peering connections from chat.
#[derive(Parser)]
#[command(version)]
enum Cli {
    /// Shows a request, its approval and its activation on loopback. Needs no cloud account.
    Demo,
    /// Shows the whole life of a request in a browser, on this machine. Needs no cloud account, and no network.
    Playground {
        /// The address to listen on, on loopback. Port 0 takes a free port and prints it.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: std::net::SocketAddr,
        /// A share text of the page (#…). The page shows it, and does not start it.
        #[arg(long)]
        scenario: Option<String>,
    },
    /// Simulates the VPC peering API in memory, over plain HTTP.
    Simulate(SimulateArguments),
    /// Prints a signed event for `cargo lambda invoke webhook`.
    Event(EventArguments),
    /// Makes a platform send its requests to the webhook, or prints how to set that up by hand.
    Register {
        /// The name of the platform.
        #[arg(long, value_parser = parse_platform)]
        platform: Platform,
        /// The URL of the webhook, e.g. https://….lambda-url.eu-central-1.on.aws/
        #[arg(long)]
        url: url::Url,
    },
    /// Serves a fake of a chat platform on loopback, for tests and for the platform's SDKs.
    Fake {
        /// The name of the platform.
        name: String,
        /// An option of the fake. It can be repeated.
        #[arg(long = "with")]
        options: Vec<String>,
        /// The address to listen on. Port 0 takes a free port and prints it.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: String,
    },
    /// Runs both functions in one process, with the table in a file. SIGHUP reloads the configuration and the secrets.
    Serve {
        /// The address to listen on. Port 0 takes a free port and prints it.
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: String,
        /// The file of the table.
        #[arg(long, default_value = "peergate.db")]
        store: PathBuf,
    },
    /// Lists the approvals that are not finished.
    List {
        /// List the finished approvals, too.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        source: RecordSource,
    },
    /// Shows everything about one connection, with its history.
    Show {
        /// The id of the connection: pcc-… or TARGET/pcc-….
        id: String,
        #[command(flatten)]
        source: RecordSource,
    },
    /// Prints the history of all connections, one JSON object per line.
    Export {
        /// Only from this time or day (UTC) on.
        #[arg(long, value_parser = audit::parse_since)]
        since: Option<Timestamp>,
        #[command(flatten)]
        source: RecordSource,
    },
    /// Checks that nobody has edited the history.
    Verify {
        /// An earlier export. Each of its entries must still exist, unchanged.
        #[arg(long)]
        against: Option<PathBuf>,
        #[command(flatten)]
        source: RecordSource,
    },
    /// Checks everything that can be wrong with a deployment, and says how to fix it.
    Doctor {
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
        /// Check an installation on one machine, with its table in this file.
        #[arg(long, conflicts_with = "rule")]
        store: Option<PathBuf>,
        #[command(flatten)]
        options: doctor::Options,
    },
    /// Lists every peering of the configured accounts: who approved it, and what has changed since.
    Inventory(inventory::InventoryArgs),
    /// Takes over an active peering that nobody approved here.
    Adopt(inventory::AdoptArgs),
    /// Makes undelivered notifications due at once.
    Redrive(redrive::RedriveArgs),
    /// Copies the table on one machine into a new file, while peergate runs.
    Backup(backup::BackupArgs),
    /// Restores what the table has lost, from a copy of the table.
    Restore(restore::RestoreArgs),
    /// Explains and tests the rules in peergate.toml.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Prints what each chat platform can do, as a Markdown table.
    Platforms,
    /// Prints a JSON Schema, for editors and programs.
    Schema {
        /// What the schema describes.
        kind: SchemaKind,
    },
    /// Serves only the table, with the API of DynamoDB, for functions under `cargo lambda watch`. Requests must be signed
    /// with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, or, without them, with a pair that the command makes and prints.
    Table {
        /// The address to listen on. Port 0 takes a free port and prints it.
        #[arg(long, default_value = "127.0.0.1:8000")]
        listen: String,
        /// The file of the table.
        #[arg(long, default_value = "peergate.db")]
        store: PathBuf,
        /// The name of the table.
        #[arg(long, default_value = "peergate")]
        name: String,
    },
    /// Runs the watcher.
    Watch {
        /// Run only one tick.
        #[arg(long)]
        once: bool,
        /// The file of the table.
        #[arg(long, default_value = "peergate.db")]
        store: PathBuf,
    },
}

#[derive(clap::Args)]
struct SimulateArguments {
    /// The address to listen on. Port 0 takes a free port and prints it.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// The time from Updating to Activated.
    #[arg(long, default_value_t = 3000)]
    activation_ms: u64,
    /// How long a request can be accepted.
    #[arg(long, default_value_t = 7 * 24 * 3600)]
    expiry_s: u64,
    /// Calls per account and operation in 60 s; 0 for no limit.
    #[arg(long, default_value_t = 360)]
    quota: usize,
    /// The shortest duration of a call.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// Let the first account request a peering with the second, and print its id.
    #[arg(long)]
    request: bool,
    /// A JSON file with a list of {account, `access_key_id`, `access_key_secret`, vpcs: {id: [CIDR]}}. Without it, there
    /// are two accounts, whose new keys are printed in this form.
    #[arg(long)]
    accounts: Option<PathBuf>,
    /// Give the two accounts the keys that the documentation names. Anybody on this machine knows them.
    #[arg(long, conflicts_with = "accounts")]
    well_known_keys: bool,
}

#[derive(clap::Args)]
struct EventArguments {
    /// What the event requests.
    #[arg(value_parser = PossibleValuesParser::new(CommandVerb::ALL.map(CommandVerb::word)).try_map(parse_verb))]
    verb: CommandVerb,
    /// The id of the connection: pcc-… or TARGET/pcc-…. A list and an inventory need none.
    #[arg(default_value = "")]
    instance_id: String,
    /// The platform that sends the event.
    #[arg(long, default_value = "standard-webhooks", value_parser = parse_platform)]
    provider: Platform,
    /// The client of /webhook/{client}, or the tenant on the platform. Default: the first in the configuration.
    #[arg(long, visible_alias = "tenant")]
    client: Option<String>,
    /// The user id of the sender on the platform. Default: the first person in the configuration.
    #[arg(long)]
    actor: Option<String>,
    /// The target of the connection, if there are several.
    #[arg(long)]
    target: Option<String>,
    /// The reason for the decision.
    #[arg(long)]
    reason: Option<String>,
    /// The fingerprint that the sender saw. Default: the current one.
    #[arg(long)]
    fingerprint: Option<String>,
}

/// The doctor makes no more calls after this time.
const DOCTOR_TIMEOUT: Duration = Duration::from_mins(2);

#[expect(clippy::needless_pass_by_value, reason = "clap passes it by value")]
fn parse_verb(word: String) -> Result<CommandVerb, &'static str> {
    CommandVerb::from_word(&word).ok_or("no verb")
}

fn parse_platform(name: &str) -> Result<Platform, String> {
    let known: Vec<_> = Platform::ALL.iter().map(|platform| platform.name()).collect();
    Platform::from_name(name).ok_or_else(|| format!("expected one of {}", known.join(", ")))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run_command(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // An error may quote a file, and the name of one.
            eprintln!("peergate: {}", sanitize_lines(&logging::ErrorChain(error.as_ref()).to_string()));
            ExitCode::FAILURE
        }
    }
}

async fn run_command(command: Cli) -> Result<(), Error> {
    match command {
        Cli::Demo => until_signal(demo::run()).await?.unwrap_or_else(|| Err("the demo was stopped".into())),
        Cli::Playground { listen, scenario } => {
            until_signal(play(listen, scenario.as_deref())).await?.unwrap_or(Ok(()))
        }
        Cli::Simulate(arguments) => simulate(arguments).await,
        Cli::Event(arguments) => print_event(arguments).await,
        Cli::Register { platform, url } => print_text(&register::register_webhook(platform, &url).await?),
        Cli::Fake { name, options, listen } => {
            peergate::fake::serve_fake(&name, &options, listen_on(&listen).await?).await
        }
        Cli::Serve { listen, store } => {
            logging::start_without_routine();
            let signals = Signals::catch()?;
            let installation = Installation::open(&store).await?;
            installation.run(signals, Some(listen_on(&listen).await?)).await
        }
        Cli::List { all, source } => print_text(&audit::list_records(&source, all).await?),
        Cli::Show { id, source } => print_text(&audit::show_records(&source, &id).await?),
        Cli::Export { since, source } => print_text(&audit::export_history(&source, since).await?),
        Cli::Verify { against, source } => print_text(&audit::verify_records(&source, against.as_deref()).await?),
        Cli::Doctor { json, store, options } => {
            let deadline = Instant::now() + DOCTOR_TIMEOUT;
            let environment = match store {
                Some(store) => Ok(installation::environment_with_table(&store)?),
                None => Environment::from_process(),
            };
            let report = doctor::examine_deployment(environment, &options, deadline).await;
            print_text(&if json { format!("{}\n", report.to_json()) } else { report.to_text() })?;
            if report.is_healthy() {
                Ok(())
            } else {
                Err("the doctor found problems, or could not check everything".into())
            }
        }
        Cli::Inventory(args) => print_inventory(&args).await,
        Cli::Adopt(args) => print_text(&inventory::adopt_named(&args).await?),
        Cli::Redrive(args) => print_text(&redrive::redrive(&args).await?),
        Cli::Backup(args) => print_text(&backup::back_up(&args).await?),
        Cli::Restore(args) => print_text(&restore::restore(&args).await?),
        Cli::Policy(command) => {
            let report = run_policy_command(command).await?;
            print_text(&report.text)?;
            report.failure.map_or(Ok(()), |failure| Err(failure.into()))
        }
        Cli::Platforms => print_text(&platform_table()),
        Cli::Schema { kind } => print_text(&schema_text(kind)),
        Cli::Table { listen, store, name } => share_table(&listen, &store, &name).await,
        Cli::Watch { once: true, store } => {
            logging::start();
            Installation::open(&store).await?.run_one_tick().await
        }
        Cli::Watch { once: false, store } => {
            logging::start_without_routine();
            let signals = Signals::catch()?;
            Installation::open(&store).await?.run(signals, None).await
        }
    }
}

/// What is listed is printed, also if the command fails.
async fn print_inventory(args: &inventory::InventoryArgs) -> Result<(), Error> {
    let report = inventory::report_inventory(args).await?;
    print_text(&report.text)?;
    report.failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// Runs what has a sandbox until it ends, or until a signal. The sandbox then removes its files; a signal that is not caught
/// would leave them. `None` if there was a signal.
async fn until_signal<T>(task: impl Future<Output = T>) -> Result<Option<T>, Error> {
    let signals = Signals::catch()?;
    Ok(tokio::select! {
        ended = task => Some(ended),
        () = signals.wait_for_any() => None,
    })
}

async fn play(listen: std::net::SocketAddr, scenario: Option<&str>) -> Result<(), Error> {
    if !listen.ip().is_loopback() {
        return Err(format!("the playground listens on loopback only, e.g. on 127.0.0.1:0, not on {listen}").into());
    }
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let playground = Playground::start(listener, scenario).await?;
    print_text(&format!(
        "Open this address in a browser on this machine. Ctrl+C ends the playground.\n{}\n",
        playground.page_url()?
    ))?;
    playground.serve().await
}

async fn share_table(listen: &str, store: &Path, name: &str) -> Result<(), Error> {
    let table = EmbeddedTable::open(store)?;
    table.create(name).await?;
    let listener = listen_on(listen).await?;
    let keys = KeyPair::from_process().map_or_else(
        || {
            let keys = KeyPair::generate();
            let (id, secret) = (&keys.access_key_id, keys.secret_access_key.expose());
            print_text(&format!("export AWS_ACCESS_KEY_ID={id} AWS_SECRET_ACCESS_KEY={secret}\n")).map(|()| keys)
        },
        Ok,
    )?;
    Ok(serve_table(table, keys, listener).await?)
}

async fn simulate(arguments: SimulateArguments) -> Result<(), Error> {
    let SimulateArguments { listen, activation_ms, expiry_s, quota, latency_ms, request, accounts, well_known_keys } =
        arguments;
    let mut settings = SimulatorSettings {
        activation_delay: Duration::from_millis(activation_ms),
        expires_after: Duration::from_secs(expiry_s),
        calls_per_minute: (quota > 0).then_some(quota),
        latency: Duration::from_millis(latency_ms),
        numbered_ids: false,
        ..SimulatorSettings::default()
    };
    let makes_keys = accounts.is_none() && !well_known_keys;
    if let Some(path) = accounts {
        settings.accounts = read_accounts(&path)?;
    }
    let listener = listen_on(&listen).await?;
    if makes_keys {
        settings.accounts = settings.accounts.into_iter().map(SimulatedAccount::with_new_key).collect();
        for account in &settings.accounts {
            print_text(&format!("{}\n", serde_json::to_string(account)?))?;
        }
    }
    let simulator = Simulator::new(settings);
    if request {
        let id = simulator.request_peering(&[]).ok_or("a request needs two accounts")?;
        print_text(&format!("requested {id}\n"))?;
    }
    Ok(simulator.serve(listener).await?)
}

fn read_accounts(path: &Path) -> Result<Vec<SimulatedAccount>, Error> {
    let json = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(serde_json::from_slice(&json).map_err(|error| format!("{}: {error}", path.display()))?)
}

/// Prints to standard output. It is no error if the reader, e.g. `head`, has already ended.
fn print_text(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed.map_err(|error| format!("cannot print: {error}"))?),
    }
}

async fn listen_on(address: &str) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    print_text(&format!("listening on http://{}\n", listener.local_addr()?))?;
    Ok(listener)
}

/// Checks that there is an id of a connection, unless the event is about all of them.
fn check_instance_id(verb: CommandVerb, instance_id: &str) -> Result<(), String> {
    match (verb.takes_id(), instance_id) {
        (false, "") => Ok(()),
        (false, _) => Err(format!("{} is about all connections, so it takes no id", verb.word())),
        (true, "") => Err("name the connection that the event is about: pcc-…".into()),
        (true, id) => InstanceId::parse(id).map(|_| ()).map_err(|error| format!("{id:?} is {error}")),
    }
}

/// The target and the id that a person writes: pcc-… or TARGET/pcc-….
fn split_target(name: &str) -> (Option<&str>, &str) {
    name.split_once('/').map_or((None, name), |(target, id)| (Some(target), id))
}

async fn print_event(arguments: EventArguments) -> Result<(), Error> {
    let EventArguments { verb, instance_id, provider, client, actor, target, reason, fingerprint } = arguments;
    let (named, instance_id) = split_target(&instance_id);
    if let Err(problem) = check_instance_id(verb, instance_id) {
        Cli::command().error(UsageError::MissingRequiredArgument, problem).exit();
    }
    if let (Some(one), Some(other)) = (named, &target)
        && one != other
    {
        let problem = format!("two targets are named: {one} and {other}");
        Cli::command().error(UsageError::ArgumentConflict, problem).exit();
    }
    let (target, instance_id) = (named.map(ToOwned::to_owned).or(target), instance_id.to_owned());
    let default = |name: &str| match name {
        "AWS_REGION" | "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("unused".to_owned()),
        "PEERGATE_SECRETS" => Some("file:peergate.secrets.json".to_owned()),
        _ => None,
    };
    #[expect(clippy::disallowed_methods, reason = "the environment of the local tool, read once")]
    let environment = Environment::from_variables(|name| std::env::var(name).ok().or_else(|| default(name)))?;
    let config = Config::load(&environment.config)?;
    let SecretsSource::File(path) = &environment.secrets else {
        return Err("to sign events, PEERGATE_SECRETS must be file:PATH".into());
    };
    let secrets = SecretSet::load(path, &config)?;
    let can_carry = provider.can_carry_fingerprints()
        && matches!(verb, CommandVerb::Approve | CommandVerb::Reject | CommandVerb::DryRun);
    let fingerprint = match fingerprint {
        None if can_carry => event::read_fingerprint(&environment, &config, target.as_deref(), &instance_id)
            .await
            .inspect_err(|error| eprintln!("peergate: the event has no fingerprint: {error}"))
            .ok(),
        given => given,
    };
    let is_sender = |principal: &&Principal| {
        Platform::from_principal(principal) == Some(provider)
            && client.as_ref().is_none_or(|tenant| principal.realm().ends_with(&format!(":{tenant}")))
    };
    let known = config.policy.people.values().flat_map(|person| &person.principals).find(is_sender);
    let tenant = client
        .or_else(|| known.and_then(|principal| principal.realm().split_once(':')).map(|(_, tenant)| tenant.to_owned()));
    let actor = actor.or_else(|| known.map(|principal| principal.user().to_owned()));
    let actor = actor.ok_or_else(|| {
        let place = tenant.as_deref().map(|tenant| format!(" of {tenant}")).unwrap_or_default();
        format!("set --actor: no person in the configuration has an identity on {}{place}", provider.name())
    })?;
    let spec = EventSpec { action: verb.word().to_owned(), instance_id, target, reason, fingerprint, tenant, actor };
    let signed = event::sign_event(provider, &spec, &config, &secrets, clock::now())?;
    print_text(&format!("{}\n", serde_json::to_string_pretty(&event::function_url_event(&signed))?))
}
