//! What goes on to the MCP server: of the caller's headers only those that are listed, and who calls.

use crate::{
    answers::BROKEN,
    callers::Held,
    gateway::{Ground, Route},
    media,
    settings::{ToolChanges, UpstreamTokenError, Who, sensitive},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use passavant_proto::{
    mcp::caller_assertion::{CallerClaims, LIFETIME},
    time::Timestamp,
};
use std::sync::PoisonError;

/// Names the caller to an adapter of this process.
pub const CALLER: HeaderName = HeaderName::from_static("passavant-caller");

/// An assertion is made anew when it has less than this left, in seconds.
const FRESH: i64 = 30;

/// Headers of a request that go on, beside the `Mcp-Param-…` that were held against the body and those an
/// administrator lists. Everything else stays here: a list of what identity headers look like would never be
/// whole. The body's type is written, not passed.
const PASSED: [HeaderName; 7] = [
    header::ACCEPT,
    header::USER_AGENT,
    header::ACCEPT_LANGUAGE,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("mcp-protocol-version"),
    HeaderName::from_static("mcp-method"),
    HeaderName::from_static("mcp-name"),
];
/// Trace context (W3C).
const TRACES: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// Why the MCP server cannot be told who calls.
#[derive(Debug)]
pub(crate) struct NoIdentity {
    pub(crate) status: StatusCode,
    pub(crate) code: i64,
    pub(crate) text: String,
    pub(crate) reason: &'static str,
}

/// What of a request goes on.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Its headers.
    pub(crate) headers: &'a HeaderMap,
    /// Those `Mcp-Param-…` that say what the body says.
    pub(crate) parameters: &'a [HeaderName],
    /// It has a body, which is JSON.
    pub(crate) json: bool,
}

/// The headers for the MCP server. `session` is its own session id.
pub(crate) async fn headers(
    ground: &Ground,
    route: &Route,
    held: &Held,
    asked: Asked<'_>,
    session: Option<&str>,
    now: Timestamp,
) -> Result<HeaderMap, NoIdentity> {
    let settings = &route.settings;
    let mut headers = HeaderMap::with_capacity(16);
    for (name, value) in asked.headers {
        // A caller's language must not decide how a tool looks to everybody.
        let varies =
            *name == header::ACCEPT_LANGUAGE && settings.tool_changes == ToolChanges::Block;
        let passes = (PASSED.contains(name) && !varies)
            || asked.parameters.contains(name)
            || TRACES.contains(&name.as_str())
            || settings.forward_headers.contains(name);
        if passes {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.remove(header::CONTENT_TYPE);
    if asked.json {
        headers.insert(header::CONTENT_TYPE, media::JSON);
    }
    let bad = || NoIdentity {
        status: StatusCode::BAD_GATEWAY,
        code: BROKEN,
        text: "The caller cannot be named to the MCP server.".to_owned(),
        reason: "upstream.identity",
    };
    if let Some(session) = session {
        let value = HeaderValue::from_str(session).map_err(|_| bad())?;
        headers.insert(HeaderName::from_static(crate::era::SESSION), value);
    }
    // What tells who calls is put in last: nothing of the caller's stands beside it.
    for plain in &settings.plain_headers {
        let caller = &held.caller;
        let text = match plain.value {
            Who::Subject => caller.subject().to_owned(),
            Who::Client => caller.client().to_owned(),
            Who::Scope => caller.scopes().to_string(),
            Who::Transaction => caller.transaction().unwrap_or_default().to_owned(),
        };
        let value = HeaderValue::from_str(&text).map_err(|_| bad())?;
        headers.insert(plain.name.clone(), value);
    }
    if let Some(assertion) = &settings.assertion {
        let value = assertion_of(ground, route, held, now).ok_or_else(bad)?;
        headers.insert(assertion.header.clone(), value);
    }
    if let Some(host) = &settings.upstream_host {
        headers.insert(header::HOST, host.clone());
    }
    if let Some((name, value)) = &settings.adapter {
        headers.insert(name.clone(), sensitive(value.expose()).ok_or_else(bad)?);
        // Sessions, processes and what they ask belong to one caller.
        headers.insert(CALLER, sensitive(&held.owner).ok_or_else(bad)?);
    }
    if let Some((name, value)) = &settings.credential {
        headers.insert(name.clone(), sensitive(value.expose()).ok_or_else(bad)?);
    }
    if settings.upstream_tokens.is_some() {
        let value = upstream_token(route, held, now).await?;
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

/// The signed assertion, made once for some time.
fn assertion_of(
    ground: &Ground,
    route: &Route,
    held: &Held,
    now: Timestamp,
) -> Option<HeaderValue> {
    let settings = route.settings.assertion.as_ref()?;
    let kept = held.assertion.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some((value, until)) = kept
        && now < until
    {
        return Some(value);
    }
    let caller = &held.caller;
    // Never good for longer than what it stands for.
    let expires = now.plus(LIFETIME).min(caller.expires());
    let claims = CallerClaims {
        iss: &route.resource,
        aud: &settings.audience,
        sub: caller.subject(),
        sub_issuer: caller.issuer(),
        client_id: caller.client(),
        scope: caller.scopes().to_string(),
        txn: caller.transaction(),
        exp: expires,
        iat: now,
        jti: ground.entropy.id(),
    };
    let value = sensitive(&format!("{}{}", settings.prefix, claims.sign(&ground.key)))?;
    let until = expires.plus(-FRESH);
    let mut kept = held.assertion.lock().unwrap_or_else(PoisonError::into_inner);
    *kept = Some((value.clone(), until));
    Some(value)
}

/// The MCP server's own token for this caller; all who come meanwhile wait for one.
async fn upstream_token(
    route: &Route,
    held: &Held,
    now: Timestamp,
) -> Result<HeaderValue, NoIdentity> {
    let mut kept = held.upstream_token.lock().await;
    if let Some((value, until)) = kept.as_ref()
        && now < *until
    {
        return Ok(value.clone());
    }
    let broken = |text: String| NoIdentity {
        status: StatusCode::BAD_GATEWAY,
        code: BROKEN,
        text,
        reason: "upstream.token",
    };
    let Some(obtain) = &route.settings.upstream_tokens else {
        return Err(broken("No token can be had for the MCP server.".to_owned()));
    };
    let got =
        obtain(held.caller.clone(), held.token.clone()).await.map_err(|error| match error {
            UpstreamTokenError::Refused(text) => NoIdentity {
                status: StatusCode::FORBIDDEN,
                code: crate::answers::REFUSED,
                text,
                reason: "upstream.token_refused",
            },
            UpstreamTokenError::Unavailable(text) => broken(text),
        })?;
    let value = sensitive(&format!("Bearer {}", got.token.expose()))
        .ok_or_else(|| broken("The token for the MCP server cannot be sent.".to_owned()))?;
    // Bounded by the caller's own token: when the login ends, this ends.
    let until = got.expires.min(held.caller.expires()).plus(-FRESH);
    *kept = Some((value.clone(), until));
    Ok(value)
}
