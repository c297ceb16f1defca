//! A complete MCP server behind Passavant's resource layer.
//!
//! ```text
//! cargo run -p passavant-examples -- http://127.0.0.1:7403/mcp http://127.0.0.1:7402
//! ```
//!
//! The first argument is the MCP server's own URL (its resource identifier), the second the issuer
//! of the authorization server whose tokens it takes.

use axum::{Router, http::request::Parts};
use passavant_resource::{Caller, Clock, Guard, Outbound, Timestamp};
use rmcp::{
    ErrorData, ServerHandler,
    handler::server::{tool::Extension, wrapper::Parameters},
    tool, tool_handler, tool_router,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

#[derive(Deserialize, JsonSchema)]
struct Line {
    /// What to add to the log
    text: String,
}

/// A log that people's agents read and write.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

#[tool_router]
impl Log {
    /// Reads the log.
    #[tool(name = "log_read")]
    async fn read(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Adds a line to the log, signed with who wrote it.
    #[tool(name = "log_write")]
    async fn write(
        &self,
        Parameters(line): Parameters<Line>,
        Extension(parts): Extension<Parts>,
    ) -> Result<String, ErrorData> {
        // The guard has put the verified caller there; without a caller the request fails.
        let caller = parts.extensions.get::<Caller>();
        let caller = caller.ok_or_else(|| ErrorData::internal_error("no caller", None))?;
        let line = format!("{}: {}", caller.subject(), line.text);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
        Ok(line)
    }
}

#[tool_handler(name = "log")]
impl ServerHandler for Log {}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(resource), Some(issuer)) = (arguments.next(), arguments.next()) else {
        return Err("usage: protected-server RESOURCE-URL AUTHORIZATION-SERVER-ISSUER".into());
    };
    let log = Log::default();
    let mcp = StreamableHttpService::new(
        move || Ok(log.clone()),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default().disable_allowed_hosts(),
    );

    let guard = Guard::new(&resource, &issuer, Outbound::new(&[])?, clock())
        .map_err(|error| error.to_string())?
        .scopes(["log.read", "log.write"])
        .require(["log.read"])
        .tool("log_write", ["log.write"]);
    let app = Router::new().route_service("/mcp", mcp).layer(guard.clone()).merge(guard.metadata());

    let address = resource.split('/').nth(2).ok_or("the resource is not a URL")?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{resource} listens; its tokens come from {issuer}");
    axum::serve(listener, app).await?;
    Ok(())
}

#[allow(clippy::disallowed_methods)] // a program of its own reads its own clock
fn clock() -> Clock {
    Clock::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    })
}
