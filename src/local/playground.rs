//! The playground: the whole life of a request on one page, through the real functions, on loopback. It is for trying, and
//! never a console for production: it starts a sandbox of its own, and connects to nothing else.

mod copy;
mod guard;
mod journal;
mod page;
mod record;
mod redact;
mod routes;
mod rules;
mod scenario;
mod scene;
mod snapshot;
mod world;

use std::sync::Arc;

use tokio::net::TcpListener;
use url::Url;

use super::Error;
use crate::fake::alicloud::gateway;
use world::World;

/// A running playground.
#[derive(Debug)]
pub struct Playground {
    world: Arc<World>,
    listener: TcpListener,
    url: Url,
}

impl Playground {
    /// Starts a sandbox. `scenario` is a share text, which the page shows; it does not start by itself.
    ///
    /// # Errors
    /// When the sandbox cannot start, or the share text is none.
    pub async fn start(listener: TcpListener, scenario: Option<&str>) -> Result<Self, Error> {
        let url = gateway::listener_url(&listener)?;
        let world = World::start(url.clone(), scenario).await?;
        Ok(Self { world, listener, url })
    }

    /// The address of the page. Whoever has it can use the playground.
    ///
    /// # Errors
    /// When it is no URL.
    pub fn page_url(&self) -> Result<Url, Error> {
        Ok(self.url.join(&format!("{}/", self.world.token()))?)
    }

    /// Serves the page and the webhook until the task ends.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self) -> Result<(), Error> {
        Ok(axum::serve(self.listener, routes::router(self.world)).await?)
    }
}
