//! `peergate register`: tells a platform the URL of the webhook.

use url::Url;

use super::{Error, installation};
use crate::app::App;
use crate::chat::platform::Platform;
use crate::clock;
use crate::config::Config;

/// Makes `platform` send its requests to the webhook at `url`. Returns the text to print.
///
/// # Errors
/// When the platform is not configured, or it refuses.
pub async fn register_webhook(platform: Platform, url: &Url) -> Result<String, Error> {
    let environment = installation::local_environment()?;
    let app = App::new(&environment, Config::load(&environment.config)?)?;
    let secrets = app.secrets.current(clock::now()).await?;
    let mut url = url.clone();
    url.path_segments_mut().map_err(|()| "the URL cannot be that of a webhook")?.pop_if_empty().push(platform.realm());
    Ok(format!("{}\n", platform.register_webhook(app.chat_context(&secrets), &url).await?))
}
