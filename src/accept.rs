//! The procedure that both functions share: bring a decided connection one step further, and say what happened.
//!
//! Never decides anything itself, and never calls for a connection that is not the one that was decided on.

use jiff::Timestamp;

use crate::alicloud::{self, Alicloud, Class, Credentials};
use crate::app::App;
use crate::approval::{Approval, Event, Problem, State};
use crate::peering::{Connection, InstanceId, Status};
use crate::secrets::{self, AccessKey, Secret};

/// Why Alibaba Cloud could not be asked, or would not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target is not in the configuration (any more).
    #[error("the target is not in the configuration")]
    UnknownTarget,
    /// We have no credentials to ask with.
    #[error(transparent)]
    Secrets(#[from] secrets::Error),
    /// It failed.
    #[error(transparent)]
    Api(#[from] alicloud::Error),
}

impl Error {
    /// As records and people see it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (code, request_id) = match self {
            Self::UnknownTarget => ("UnknownTarget", None),
            Self::Secrets(_) => ("SecretsUnavailable", None),
            Self::Api(error) => (error.code(), error.request_id()),
        };
        Problem { code: code.to_owned(), request_id: request_id.map(ToOwned::to_owned) }
    }

    /// What it asks us to do.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::UnknownTarget | Self::Secrets(_) => Class::Retry,
            Self::Api(error) => error.class(),
        }
    }

    /// A failed try, as an event.
    fn deferred(&self) -> Event {
        let retry_after = match self {
            Self::Api(error) => error.retry_after(),
            Self::UnknownTarget | Self::Secrets(_) => None,
        };
        Event::Deferred { problem: self.problem(), retry_after }
    }
}

/// Reads the connection and brings it one step further.
pub async fn advance(app: &App, approval: &Approval, now: Timestamp) -> Event {
    match read(app, &approval.id.target, &approval.id.instance_id, now).await {
        Ok(connection) => carry_out(app, approval, &connection, now).await,
        Err(error) => match error.class() {
            Class::Missing => Event::Missing,
            Class::Credentials => Event::CredentialsRefused(error.problem()),
            Class::Retry | Class::ReadStatus | Class::Permanent | Class::DryRunPassed => error.deferred(),
        },
    }
}

/// Brings a connection that was read just now one step further: the decided call is made only if it still waits for it.
pub async fn carry_out(app: &App, approval: &Approval, connection: &Connection, now: Timestamp) -> Event {
    let (target, instance_id) = (&approval.id.target, &approval.id.instance_id);
    let token = approval.client_token.as_str();
    let seen = || Event::Seen(Box::new(connection.clone()));
    if connection.status != Status::Accepting {
        return seen();
    }
    let answer = match approval.state {
        State::Approved if connection.fingerprint() != approval.fingerprint => {
            return Event::Changed(Box::new(connection.clone()));
        }
        State::Approved => {
            let call = async |caller: Caller| caller.api.accept(caller.credentials(), instance_id, token, false).await;
            call_api(app, target, now, call).await.map(|request_id| Event::Accepted { request_id })
        }
        State::Rejecting => {
            let call = async |caller: Caller| caller.api.reject(caller.credentials(), instance_id, token).await;
            call_api(app, target, now, call).await.map(|request_id| Event::Rejected { request_id })
        }
        State::Pending
        | State::Activating
        | State::Activated
        | State::Rejected
        | State::Expired
        | State::Deleted
        | State::Failed { .. } => return seen(),
    };
    match answer {
        Ok(event) => event,
        Err(error) => match error.class() {
            Class::Retry | Class::DryRunPassed => error.deferred(),
            Class::Missing | Class::Permanent => Event::Failed(error.problem()),
            Class::Credentials => Event::CredentialsRefused(error.problem()),
            Class::ReadStatus => match read(app, target, instance_id, now).await {
                Ok(connection) if connection.status != Status::Accepting => Event::Seen(Box::new(connection)),
                Ok(_) | Err(_) => error.deferred(),
            },
        },
    }
}

/// The line about a step: what happened to which connection. Refused credentials are somebody's to mend.
pub fn log(approval: &Approval, event: &Event) {
    let (target, peering) = (&approval.id.target, approval.id.instance_id.as_str());
    let (state, problem) = (approval.state.name(), approval.last_problem.as_ref());
    let code = problem.map(|problem| &problem.code);
    let request_id = problem.and_then(|problem| problem.request_id.as_ref());
    macro_rules! line {
        ($level:ident, $outcome:literal) => {
            tracing::$level!(
                outcome = $outcome,
                target,
                peering.id = peering,
                peering.state = state,
                alicloud.code = code,
                alicloud.request_id = request_id,
                "a step was taken"
            )
        };
    }
    match (event, &approval.state) {
        (Event::CredentialsRefused(_), _) => line!(error, "credentials_refused"),
        (_, State::Failed { .. }) => line!(error, "failed"),
        (Event::Deferred { .. }, _) => line!(warn, "deferred"),
        (
            Event::Accepted { .. }
            | Event::Rejected { .. }
            | Event::Seen(_)
            | Event::Missing
            | Event::Changed(_)
            | Event::Failed(_)
            | Event::Delivered { .. }
            | Event::Undelivered { .. },
            _,
        ) => line!(info, "advanced"),
    }
}

/// Reads a connection. A connection to the API that broke while the function was frozen is no reason to fail: it is
/// tried once more.
pub async fn read(app: &App, target: &str, instance_id: &InstanceId, now: Timestamp) -> Result<Connection, Error> {
    let call = async |caller: Caller| caller.api.get(caller.credentials(), instance_id).await;
    match call_api(app, target, now, call).await {
        Err(Error::Api(alicloud::Error::Transport(error))) if !error.is_timeout() => {
            call_api(app, target, now, call).await
        }
        answer => answer,
    }
}

/// Asks whether a connection could be accepted, without accepting it. Passed, if `Ok`.
pub async fn dry_run(
    app: &App,
    target: &str,
    instance_id: &InstanceId,
    client_token: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let call = async |caller: Caller| caller.api.accept(caller.credentials(), instance_id, client_token, true).await;
    match call_api(app, target, now, call).await {
        Ok(_) => Ok(()),
        Err(error) if error.class() == Class::DryRunPassed => Ok(()),
        Err(error) => Err(error),
    }
}

/// An API and the key to call it with.
struct Caller {
    api: Alicloud,
    key: AccessKey,
}

impl Caller {
    fn credentials(&self) -> Credentials<'_> {
        Credentials {
            access_key_id: self.key.access_key_id.expose(),
            access_key_secret: self.key.access_key_secret.expose(),
            security_token: self.key.security_token.as_ref().map(Secret::expose),
        }
    }
}

/// Makes a call; when the access key is refused, fetches the secrets anew and, if the key changed, tries once more.
async fn call_api<T, F: Future<Output = Result<T, alicloud::Error>>>(
    app: &App,
    target: &str,
    now: Timestamp,
    call: impl Fn(Caller) -> F,
) -> Result<T, Error> {
    let api = app.alicloud.get(target).ok_or(Error::UnknownTarget)?;
    let caller = |key: &AccessKey| Caller { api: api.clone(), key: key.clone() };
    let secrets = app.secrets.current(now).await?;
    let key = secrets.targets.get(target).ok_or(Error::UnknownTarget)?;
    let refused = match call(caller(key)).await {
        Err(error) if error.class() == Class::Credentials => error,
        answer => return Ok(answer?),
    };
    let fresh = app.secrets.refetch(&secrets, now).await;
    match fresh.as_ref().and_then(|fresh| fresh.targets.get(target)) {
        Some(new) if new != key => Ok(call(caller(new)).await?),
        Some(_) | None => Err(refused.into()),
    }
}
