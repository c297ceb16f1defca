//! A pooled connection to one MCP server behind a gateway: bytes are forwarded unchanged. The rules
//! for every outbound request apply here, too: reach, no redirects, no proxies.

use crate::{
    http::Outbound,
    reach::{Reach, checked},
    trouble::OutboundError,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use rustls_platform_verifier::Verifier;
use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tower::Service;

/// Idle connections are closed after this time, which is shorter than what servers commonly use, so
/// that no request meets a connection that is being closed.
const IDLE: Duration = Duration::from_secs(4);
/// Longest head of a response, in bytes.
const LONGEST_HEAD: usize = 64 * 1024;

/// One MCP server. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    client: Client<HttpsConnector<HttpConnector<GuardedNames>>, Full<Bytes>>,
    uri: Uri,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// There was no connection: the request was not sent.
    #[error("no connection: {0}")]
    Connect(String),
    /// The connection broke, or the response is not HTTP.
    #[error("no answer: {0}")]
    Broken(String),
}

impl Outbound {
    /// The MCP server at `url`, which the administrator wrote.
    pub fn upstream(&self, url: &str) -> Result<Upstream, OutboundError> {
        let reach = Reach::of_trusted_url(url);
        let setup = |error: String| OutboundError::Setup(error);
        let parsed = checked(url, reach)?;
        let uri = parsed.as_str().parse::<Uri>().map_err(|e| setup(e.to_string()))?;
        let names = GuardedNames { reach, outbound: self.clone() };
        let mut connector = HttpConnector::new_with_resolver(names);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls().map_err(|e| setup(e.to_string()))?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1024)
            .http1_max_buf_size(LONGEST_HEAD)
            .http1_max_headers(100)
            .build(connector);
        Ok(Upstream { client, uri })
    }

    fn tls(&self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = Vec::new();
        for pem in &self.0.pems {
            // They were parsed when the client was made.
            roots.extend(CertificateDer::pem_slice_iter(pem).filter_map(Result::ok));
        }
        let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider))?;
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth())
    }
}

impl Upstream {
    /// Sends a request, and returns when the head of its response has arrived. Dropping the future,
    /// or the response's body before its end, closes the connection, which the server sees as a
    /// cancellation.
    pub async fn send(
        &self,
        method: Method,
        headers: HeaderMap<HeaderValue>,
        body: Bytes,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        self.client.request(request).await.map_err(|error| {
            let cause = cause_of(&error);
            if error.is_connect() {
                UpstreamError::Connect(cause)
            } else {
                UpstreamError::Broken(cause)
            }
        })
    }
}

/// The last cause: those before it only say that there is one.
fn cause_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Resolves a name, and rejects it if any of its addresses is out of reach.
#[derive(Clone)]
struct GuardedNames {
    reach: Reach,
    outbound: Outbound,
}

impl Service<Name> for GuardedNames {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.outbound.0.names.resolve(name.as_str().to_owned());
        let reach = self.reach;
        Box::pin(async move {
            let found = found.await?;
            if found.is_empty() || !found.iter().all(|address| reach.allows(*address)) {
                return Err(io::Error::other("the address may not be reached from here"));
            }
            let addresses: Vec<_> = found.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(addresses.into_iter())
        })
    }
}
