//! Tokens for the transport of the Rust MCP SDK: a valid one for each request, one silent retry
//! after 401, a step-up to the union of scopes after 403 `insufficient_scope`.

use crate::{client::Client, discovery::McpServer, error::Error, vault::Access};
use futures::stream::BoxStream;
use http::{HeaderName, HeaderValue};
use passavant_proto::oauth::challenge::Challenge;
use rmcp::{
    model::ClientJsonRpcMessage,
    transport::{
        StreamableHttpClientTransport,
        streamable_http_client::{
            SseError, StreamableHttpClient, StreamableHttpClientTransportConfig,
            StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
        },
    },
};
use sse_stream::Sse;
use std::{collections::HashMap, io, sync::Arc};

/// An HTTP client that adds this person's tokens for one MCP server.
#[derive(Clone)]
pub struct Authorized {
    http: reqwest::Client,
    client: Client,
    url: Arc<str>,
}

type Failure = StreamableHttpError<reqwest::Error>;
type Headers = HashMap<HeaderName, HeaderValue>;

impl Client {
    /// A transport to `server` for `rmcp::ServiceExt::serve`.
    #[allow(clippy::needless_pass_by_value)] // whoever found the server hands it over
    pub fn transport(
        &self,
        server: McpServer,
    ) -> Result<StreamableHttpClientTransport<Authorized>, Error> {
        self.transport_to(&server.url)
    }

    /// Like [`Self::transport`], by URL: the server is discovered only if there is no valid token
    /// for it.
    pub fn transport_to(
        &self,
        url: &str,
    ) -> Result<StreamableHttpClientTransport<Authorized>, Error> {
        let http = self.outbound().streaming(url)?;
        let config = StreamableHttpClientTransportConfig::with_uri(url.to_owned());
        let authorized = Authorized { http, client: self.clone(), url: url.into() };
        Ok(StreamableHttpClientTransport::with_client(authorized, config))
    }
}

fn failed(error: Error) -> Failure {
    Failure::Io(io::Error::other(error))
}

impl Authorized {
    /// Sends with a token, three attempts at most, so that a server that always refuses cannot
    /// cause a loop.
    async fn send<T, F, Fut>(&self, method: &str, headers: &Headers, send: F) -> Result<T, Failure>
    where
        F: Fn(Headers) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let mut access = self.client.access(&self.url).await.map_err(failed)?;
        let mut nonces = 0;
        let mut tries = 0;
        while tries < 2 {
            match send(self.presenting(method, headers, &access)).await {
                Err(StreamableHttpError::AuthRequired(refusal))
                    if nonces == 0 && wants_nonce(&refusal.www_authenticate_header) =>
                {
                    nonces += 1;
                    self.fetch_nonce(&access).await?;
                    continue;
                }
                Err(StreamableHttpError::AuthRequired(_)) => {
                    access = self.client.replace_access(&access).await.map_err(failed)?;
                }
                Err(StreamableHttpError::InsufficientScope(refusal)) => {
                    let header = refusal.www_authenticate_header.as_str();
                    let challenges = Challenge::parse_all([header]);
                    let Some(challenge) =
                        challenges.iter().find(|c| c.get("error") == Some("insufficient_scope"))
                    else {
                        return Err(StreamableHttpError::InsufficientScope(refusal));
                    };
                    access = self.client.widen_access(&access, challenge).await.map_err(failed)?;
                }
                outcome => return outcome,
            }
            tries += 1;
        }
        send(self.presenting(method, headers, &access)).await
    }

    /// The headers of one request, with those that present the token.
    fn presenting(&self, method: &str, headers: &Headers, access: &Access) -> Headers {
        let presented = self.client.authorization(method, &self.url, access);
        let mut headers = headers.clone();
        headers.extend(presented.into_iter().filter_map(|(name, value)| Some((name?, value))));
        headers
    }

    /// Gets the server's DPoP nonce: the SDK hides the headers of its responses.
    async fn fetch_nonce(&self, access: &Access) -> Result<(), Failure> {
        let client = &self.client;
        let presented = client.authorization("POST", &self.url, access);
        let presented: Vec<(&str, &str)> = presented
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        let ping = serde_json::json!({"jsonrpc": "2.0", "id": 0, "method": "ping"});
        let reach = passavant_outbound::Reach::of_trusted_url(&self.url);
        let sent =
            client.outbound().json_with("POST", &self.url, reach, None, Some(&ping), &presented);
        let answer = sent.await.map_err(|error| failed(error.into()))?;
        client.take_nonce(&self.url, &answer.headers);
        Ok(())
    }
}

/// Whether a challenge asks for a nonce in the DPoP proof (RFC 9449 section 9).
fn wants_nonce(header: &str) -> bool {
    Challenge::parse_all([header]).iter().any(|c| c.get("error") == Some("use_dpop_nonce"))
}

impl StreamableHttpClient for Authorized {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session, token, headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _token: Option<String>,
        headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        self.send("POST", &headers, |headers| {
            self.http.post_message_with_response_limits(
                uri.clone(),
                message.clone(),
                session.clone(),
                None,
                headers,
                limits,
            )
        })
        .await
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        _token: Option<String>,
        headers: Headers,
    ) -> Result<(), Failure> {
        self.send("DELETE", &headers, |headers| {
            self.http.delete_session(uri.clone(), session.clone(), None, headers)
        })
        .await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        _token: Option<String>,
        headers: Headers,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        self.send("GET", &headers, |headers| {
            let (session, last) = (session.clone(), last_event.clone());
            self.http.get_stream(uri.clone(), session, last, None, headers)
        })
        .await
    }
}
