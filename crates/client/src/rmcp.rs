//! Tokens for the transport of the Rust MCP SDK: a valid one for each request, one silent retry
//! after 401, a step-up to the union of scopes after 403 `insufficient_scope`.

use crate::{client::Client, discovery::McpServer, error::Error};
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
    async fn send<T, F, Fut>(&self, send: F) -> Result<T, Failure>
    where
        F: Fn(Option<String>) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let mut access = self.client.access(&self.url).await.map_err(failed)?;
        for _ in 0..2 {
            match send(Some(access.token.clone())).await {
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
        }
        send(Some(access.token)).await
    }
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
        self.send(|token| {
            self.http.post_message_with_response_limits(
                uri.clone(),
                message.clone(),
                session.clone(),
                token,
                headers.clone(),
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
        self.send(|token| {
            self.http.delete_session(uri.clone(), session.clone(), token, headers.clone())
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
        self.send(|token| {
            let (session, last) = (session.clone(), last_event.clone());
            self.http.get_stream(uri.clone(), session, last, token, headers.clone())
        })
        .await
    }
}
