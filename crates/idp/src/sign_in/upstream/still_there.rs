//! Whether a person is still there, at the upstream where they signed in.

use super::{Credential, completed, registration, session_label, told};
use crate::{directory::IdpDirectory, state::Idp};
use passavant_authority::{answer::Failure, authority::Snapshot};
use passavant_outbound::{Returned, SignInError};
use passavant_proto::{
    event::{Detail, RequestEvent},
    oidc::upstream::UpstreamProvider,
    others_text::shown,
    refusal::Refusal,
    time::Timestamp,
};
use passavant_store::{AuditEvent, DueSession};
use std::time::Duration;

/// How long one request may take to ask an upstream about a session, in seconds. Afterwards another
/// one may.
const TRYING: i64 = 20;
/// An upstream that did not answer is not asked about the same session for this long, in seconds.
const RETRY: i64 = 30;
/// How often a request looks whether another one has heard from the upstream.
const TURN: Duration = Duration::from_millis(100);
/// How many times it looks.
const TURNS: u32 = 100;

/// Checks that the person of a session is still there, at the upstream where they signed in, if that
/// was last known too long ago. A session whose person is gone there ends.
pub(crate) async fn still_there(
    idp: &Idp,
    snapshot: &Snapshot<IdpDirectory>,
    sid: &str,
) -> Result<(), Failure> {
    if snapshot.directory.upstreams().next().is_none() {
        return Ok(());
    }
    let state = &idp.0;
    let authority = &state.authority;
    for _ in 0..TURNS {
        let now = authority.now();
        let before = now.plus(-state.settings.upstream_check);
        let Some(due) = authority.store.due_session(sid, before).await? else { return Ok(()) };
        if due.retry_at > now {
            return tolerated(idp, &due, now);
        }
        let until = now.plus(TRYING);
        if due.trying_until <= now && authority.store.claim_check(sid, &due, (now, until)).await? {
            // A client that goes away must not lose the upstream's next refresh token.
            let (idp, sid) = (idp.clone(), sid.to_owned());
            let asked = tokio::spawn(async move { ask(&idp, &sid, &due).await });
            return asked.await.unwrap_or(Err(Refusal::UpstreamUnreachable.into()));
        }
        // Another request, maybe at another node, is asking.
        tokio::time::sleep(TURN).await;
    }
    Err(Refusal::UpstreamUnreachable.into())
}

/// Whether a session may go on although its upstream does not answer.
fn tolerated(idp: &Idp, due: &DueSession, now: Timestamp) -> Result<(), Failure> {
    let settings = &idp.0.settings;
    let longest = settings.upstream_check + settings.upstream_grace;
    if now.since(due.checked_at) <= longest {
        return Ok(());
    }
    Err(Refusal::UpstreamUnreachable.into())
}

/// The errors that say that the person has to sign in again, or may not: anything else is not about
/// the person.
const ENDED: [&str; 5] = [
    "invalid_grant",
    "interaction_required",
    "login_required",
    "consent_required",
    "access_denied",
];

async fn ask(idp: &Idp, sid: &str, due: &DueSession) -> Result<(), Failure> {
    let authority = &idp.0.authority;
    let snapshot = authority.fresh().await?;
    let Some(upstream) = snapshot.directory.upstream(&due.upstream) else {
        return end(
            idp,
            sid,
            due,
            ("upstream_check.off", None, "the upstream is switched off or gone"),
        )
        .await;
    };
    let issuer = Some(upstream.issuer.as_str());
    let answer = refreshed(idp, sid, due, upstream).await;
    let now = authority.now();
    let returned = match answer {
        Ok(returned) => returned,
        Err(Unasked::Refused(error)) if ENDED.contains(&error.as_str()) => {
            return end(idp, sid, due, ("upstream_check.ended", issuer, &error)).await;
        }
        Err(why) => {
            match why {
                Unasked::Refused(error) => tracing::warn!(
                    upstream = upstream.name,
                    error,
                    "the upstream refuses us, not a person: check our registration there"
                ),
                Unasked::Unreachable(error) => {
                    tracing::warn!(upstream = upstream.name, error, "the upstream does not answer");
                }
            }
            authority.store.check_failed(sid, now.plus(RETRY)).await?;
            return tolerated(idp, due, now);
        }
    };
    let person = returned.claims.as_ref().map(|claims| upstream.identify(claims, &returned.issuer));
    let told = match person {
        None => None,
        Some(Ok(person)) => {
            let links = authority.store.person_links(Some(&due.user_id), None).await?;
            if !links.iter().any(|held| held.link == person.link) {
                let what = "it answered about another person";
                return end(idp, sid, due, ("upstream_check.other_person", issuer, what)).await;
            }
            // A refreshed ID token may say less than the first one: what it leaves out stays.
            Some(told(upstream, &person, person.groups.clone()))
        }
        Some(Err(why)) => {
            return end(idp, sid, due, ("upstream_check.unidentified", issuer, &why.to_string()))
                .await;
        }
    };
    let sealing = &authority.context.sealing;
    let sealed = match &returned.refresh_token {
        None => None,
        Some(token) => {
            let sealed = sealing.seal(&session_label(sid), token.expose().as_bytes());
            Some(sealed.map_err(|error| {
                tracing::error!(error, "the refresh token of an upstream cannot be sealed");
                Failure::from(Refusal::UpstreamUnreachable)
            })?)
        }
    };
    let who = (due.user_id.as_str(), told.as_ref());
    if authority.store.keep_checked(sid, who, sealed.as_deref(), now).await? {
        return Ok(());
    }
    Err(Refusal::SubjectNotLive.into())
}

/// Why nothing is known about the person.
enum Unasked {
    /// The upstream's error code.
    Refused(String),
    Unreachable(String),
}

async fn refreshed(
    idp: &Idp,
    sid: &str,
    due: &DueSession,
    upstream: &UpstreamProvider,
) -> Result<Returned, Unasked> {
    let context = &idp.0.authority.context;
    let opened = context.sealing.open_text(&session_label(sid), &due.sealed);
    let token = opened.map_err(Unasked::Unreachable)?;
    let credential = Credential::of(idp, upstream).map_err(Unasked::Unreachable)?;
    let registration = registration(idp, upstream);
    let relying_party = &context.relying_party;
    let returned = relying_party.refresh(&registration, &credential.proof(), &token).await;
    let returned = returned.map_err(|error| match error {
        SignInError::Refused { error, .. } => Unasked::Refused(error.error),
        error => Unasked::Unreachable(error.to_string()),
    })?;
    let (refresh_token, issuer) = (returned.refresh_token.clone(), returned.issuer.clone());
    // The refresh token may be used up: the next one is not lost for want of UserInfo, and nothing
    // is known then but that the person is still there.
    let completed = completed(idp, upstream, returned).await;
    Ok(completed.unwrap_or(Returned { claims: None, issuer, refresh_token, access_token: None }))
}

async fn end(
    idp: &Idp,
    sid: &str,
    due: &DueSession,
    (reason, issuer, more): (&'static str, Option<&str>, &str),
) -> Result<(), Failure> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let mut event = AuditEvent::granted(RequestEvent::UpstreamCheck, now)
        .person(&due.user_id)
        .with(Detail::Session, sid)
        .with(Detail::More, shown(more, 300));
    if let Some(issuer) = issuer {
        event = event.with(Detail::Issuer, issuer);
    }
    let what = (sid, due.upstream.as_str());
    authority.store.end_upstream_session(what, event.refused(reason), now).await?;
    Err(Refusal::SubjectNotLive.into())
}
