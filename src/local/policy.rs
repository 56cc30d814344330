//! `peergate policy`: which rule decides about a request and why, and tests of the rules. They read the rules only, and
//! call nobody.

mod case;
mod explain;

use std::path::{Path, PathBuf};

use clap::Subcommand;

pub(super) use explain::{describe_deciding, describe_outcome};

use super::audit::RecordSource;
use super::{Error, installation};
use crate::chat::message::sanitize_line;
use crate::config::Config;

/// What to do with the rules in peergate.toml.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Says which rule decides about a request, fact by fact, and why each other rule does not.
    Explain {
        /// The request: pcc-… or TARGET/pcc-… of a record; a file of TOML with the facts of a request; or a file of JSON
        /// with the answer of `GetVpcPeerConnectionAttribute`.
        #[arg(long)]
        request: String,
        /// The target, if the request is a file that does not name it and there are several.
        #[arg(long)]
        target: Option<String>,
        /// Where the record is.
        #[command(flatten)]
        source: RecordSource,
    },
    /// Tests the rules: each case of the file is a request, and what the rules must say about it. Fails if one differs.
    Test {
        /// The file of TOML with the cases.
        file: PathBuf,
    },
}

/// What a command prints.
#[derive(Debug)]
pub struct PolicyReport {
    /// The text.
    pub text: String,
    /// Why the command fails, after the text. `None` if it succeeds.
    pub failure: Option<String>,
}

/// Carries out a command.
///
/// # Errors
/// What cannot be read.
pub async fn run_policy_command(command: PolicyCommand) -> Result<PolicyReport, Error> {
    match command {
        PolicyCommand::Explain { request, target, source } => {
            let config = Config::load(&source.environment()?.config)?;
            let text = explain::explain_request(&config, &request, target.as_deref(), &source).await?;
            Ok(PolicyReport { text, failure: None })
        }
        PolicyCommand::Test { file } => {
            let config = Config::load(&installation::local_environment()?.config)?;
            case::test_policy(&config, &read_file(&file)?, &file)
        }
    }
}

fn read_file(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", shown_path(path)).into())
}

/// A path as text. Whoever proposes a change of the rules names its files.
fn shown_path(path: &Path) -> String {
    sanitize_line(&path.display().to_string())
}
