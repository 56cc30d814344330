//! Tells a platform where its requests go.

use url::Url;

use super::{Error, serve};
use crate::app::App;
use crate::chat::platform::Platform;
use crate::clock;
use crate::config::Config;

/// Has `platform` send its requests to the webhook at `url`. Returns what to tell.
///
/// # Errors
/// What is not configured, or what the platform said.
pub async fn register_webhook(platform: Platform, url: &Url) -> Result<String, Error> {
    let environment = serve::local_environment()?;
    let app = App::new(&environment, Config::load(&environment.config)?)?;
    let secrets = app.secrets.current(clock::now()).await?;
    let mut url = url.clone();
    url.path_segments_mut().map_err(|()| "the URL cannot be one of a webhook")?.pop_if_empty().push(platform.realm());
    Ok(format!("{}\n", platform.register_webhook(app.chat_context(&secrets), &url).await?))
}
