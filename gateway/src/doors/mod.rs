//! The doors: routes and what they mean. Routers are tables, so that a test can compare them with
//! the OpenAPI document.

mod admin;
mod answer;
mod factor;
mod files;
mod form;
mod listing;
mod openapi;
mod page;
mod query;
mod seed;
mod status;
mod transfer;

#[cfg(test)]
mod tests;

use axum::routing::MethodRouter;
use dfs_runtime::request::Routes;

use crate::config::GatewayConfig;
use crate::gateway::{Gateway, GatewayParts, SharedGateway};

/// A path of axum's router and its methods.
type Route = (&'static str, MethodRouter<SharedGateway>);

/// The routers of one process.
#[derive(Debug)]
pub struct Doors {
    /// Files and read-only status: for everybody.
    pub public: Routes,
    /// What the tracker's own port serves besides. Needs the cluster token wherever there is one.
    pub admin: Routes,
    /// To be run when nothing is served any more.
    pub release: Release,
}

/// What a gateway that ends still holds at the tracker.
#[derive(Debug)]
pub struct Release(SharedGateway);

impl Release {
    /// Gives it up; ends within seconds also where the tracker does not answer.
    pub async fn run(self) {
        self.0.pool.give_up().await;
    }
}

/// Makes the doors and starts the lease renewal, which ends with `parts.shutdown`. Call it once
/// per process, inside a Tokio runtime. Wrap what it returns with
/// [`dfs_runtime::request::RequestEdge::wrap`].
pub fn doors(parts: GatewayParts, config: GatewayConfig) -> Result<Doors, prometheus::Error> {
    let gateway = Gateway::start(parts, config)?;
    Ok(Doors {
        public: Routes::mount(public_routes(&gateway.config), gateway.clone()),
        admin: Routes::mount(admin::routes(), gateway.clone()),
        release: Release(gateway),
    })
}

fn public_routes(config: &GatewayConfig) -> Vec<Route> {
    let mut routes = seed::routes();
    routes.extend(files::routes());
    routes.extend(status::routes());
    routes.extend(page::routes());
    routes.extend(openapi::routes(&config.document));
    routes
}
