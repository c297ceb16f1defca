//! Whether a person is still there, at the upstream where they signed in.

use super::{Credential, callback::link_label, completed, registration, session_label, told};
use crate::{directory::IdpDirectory, state::Idp};
use passavant_authority::{answer::Failure, authority::Snapshot};
use passavant_outbound::{Returned, SignInError};
use passavant_proto::{
    event::{Detail, RequestEvent},
    oidc::upstream::OpenIdUpstream,
    others_text::shown,
    refusal::Refusal,
    secret::Secret,
    time::{SKEW, Timestamp},
};
use passavant_store::{AuditEvent, Checked, DueSession};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long one request has the right to ask an upstream about a session, in seconds. Afterwards
/// another one may: longer than all steps take together where the clocks of nodes differ, so that no
/// refresh token is sent twice.
const TRYING: i64 = 90;
/// How long an upstream has for a refresh.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long it has for its keys and for `UserInfo`.
const MORE: Duration = Duration::from_secs(10);
/// An upstream that did not answer is not asked about the same session for this long, in seconds.
const RETRY: i64 = 30;
/// How often a request looks whether another one has heard from the upstream.
const TURN: Duration = Duration::from_millis(100);
/// How many times it looks.
const TURNS: u32 = 100;
/// How long the next refresh token is tried to be stored while the database is away.
const STORING: Duration = Duration::from_secs(12);

/// Checks that the person of a session is still there, at the upstream where they signed in, if that
/// was last known too long ago. A session whose person is gone there ends.
pub(crate) async fn still_there(
    idp: &Idp,
    snapshot: &Snapshot<IdpDirectory>,
    sid: &str,
) -> Result<(), Failure> {
    if !snapshot.directory.has_upstreams() {
        return Ok(());
    }
    let state = &idp.0;
    let authority = &state.authority;
    let mut turns = 0;
    loop {
        let now = authority.now();
        let before = now.plus(-state.settings.upstream_check);
        let due = authority.store.due_session(sid, (before, now.plus(SKEW))).await?;
        let Some(due) = due else { return Ok(()) };
        // A time that no right clock would have written counts for nothing.
        let waits =
            |until: Timestamp, longest: i64| until > now && until.since(now) <= longest + SKEW;
        if waits(due.retry_at, RETRY) {
            return tolerated(idp, &due, now);
        }
        if !waits(due.trying_until, TRYING) {
            let until = now.plus(TRYING);
            if let Some(mine) = authority.store.claim_check(sid, &due, until).await? {
                // A client that goes away must not lose the upstream's next refresh token.
                let (idp, sid) = (idp.clone(), sid.to_owned());
                let asked = state.checks.spawn(async move { ask(&idp, &sid, &mine).await });
                return asked.await.unwrap_or(Err(Refusal::UpstreamUnreachable.into()));
            }
        }
        // Another request, maybe at another node, is asking.
        turns += 1;
        if turns > TURNS {
            return tolerated(idp, &due, now);
        }
        tokio::time::sleep(TURN).await;
    }
}

/// Whether a session may go on although its upstream does not answer.
fn tolerated(idp: &Idp, due: &DueSession, now: Timestamp) -> Result<(), Failure> {
    let settings = &idp.0.settings;
    let longest = settings.upstream_check + settings.upstream_grace;
    // A time that is ahead of us says nothing.
    if (-SKEW..=longest).contains(&now.since(due.checked_at)) {
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

async fn ask(idp: &Idp, sid: &str, mine: &DueSession) -> Result<(), Failure> {
    let authority = &idp.0.authority;
    let snapshot = authority.fresh().await?;
    let Some(upstream) = snapshot.directory.upstream(&mine.upstream) else {
        if snapshot.directory.is_unreadable_upstream(&mine.upstream) {
            // A later version may have written it: nobody is signed out for that.
            tracing::warn!(upstream = mine.upstream, "the record of an upstream cannot be read");
            return unanswered(idp, sid, mine).await;
        }
        let what = "the upstream is switched off or gone";
        return end(idp, sid, mine, ("upstream_check.off", None, what)).await;
    };
    let issuer = upstream.issuer();
    let issuer = Some(issuer.as_str());
    let Some(upstream) = upstream.open_id() else {
        let what = "it was set up anew, and gives no refresh tokens any more";
        return end(idp, sid, mine, ("upstream_check.off", issuer, what)).await;
    };
    let asked_at = authority.now();
    let returned = match refreshed(idp, sid, mine, upstream).await {
        Ok(returned) => returned,
        Err(Unasked::Refused(error)) if ENDED.contains(&error.as_str()) => {
            return end(idp, sid, mine, ("upstream_check.ended", issuer, &error)).await;
        }
        Err(Unasked::Refused(error)) => {
            let why = "the upstream refuses us, not a person: check our registration there";
            tracing::warn!(upstream = upstream.name, error, why);
            return unanswered(idp, sid, mine).await;
        }
        Err(Unasked::Unreachable(error)) => {
            tracing::warn!(upstream = upstream.name, error, "the upstream does not answer");
            return unanswered(idp, sid, mine).await;
        }
    };
    let person = returned.claims.as_ref().map(|claims| upstream.identify(claims, &returned.issuer));
    let said = match person {
        None => None,
        Some(Ok(person)) => {
            let links = authority.store.person_links(Some(&mine.user_id), None).await?;
            if !links.iter().any(|held| held.link == person.link) {
                let what = "it answered about another person";
                return end(idp, sid, mine, ("upstream_check.other_person", issuer, what)).await;
            }
            // A refreshed ID token may say less than the first one: what it leaves out stays.
            let said = told(upstream.record, &person, person.groups.clone(), asked_at);
            Some((person.link, said))
        }
        Some(Err(why)) => {
            let what = why.to_string();
            return end(idp, sid, mine, ("upstream_check.unidentified", issuer, &what)).await;
        }
    };
    let said = said.as_ref().map(|(link, said)| (link, said));
    let now = authority.now();
    match authority.store.keep_checked((sid, mine), upstream.record, said, now).await? {
        Checked::Kept => Ok(()),
        Checked::Gone => Err(Refusal::SubjectNotLive.into()),
        // It was there a moment ago, by whatever record: the next request asks again.
        Checked::Overtaken => tolerated(idp, mine, now),
    }
}

/// Records that nothing is known about the person.
async fn unanswered(idp: &Idp, sid: &str, mine: &DueSession) -> Result<(), Failure> {
    let authority = &idp.0.authority;
    let now = authority.now();
    authority.store.check_failed(sid, mine, now.plus(RETRY)).await?;
    tolerated(idp, mine, now)
}

/// Why nothing is known about the person.
enum Unasked {
    /// The upstream's error code.
    Refused(String),
    Unreachable(String),
}

impl From<SignInError> for Unasked {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Refused { error, .. } => Self::Refused(error.error),
            error => Self::Unreachable(error.to_string()),
        }
    }
}

async fn refreshed(
    idp: &Idp,
    sid: &str,
    mine: &DueSession,
    upstream: OpenIdUpstream<'_>,
) -> Result<Returned, Unasked> {
    let context = &idp.0.authority.context;
    let opened = context.sealing.open_text(&session_label(sid), &mine.sealed);
    let token = opened.map_err(Unasked::Unreachable)?;
    let credential = Credential::of(idp, upstream.record).map_err(Unasked::Unreachable)?;
    let registration = registration(idp, upstream);
    let relying_party = &context.relying_party;
    let proof = credential.proof();
    let answer = timeout(PATIENCE, relying_party.refresh(&registration, &proof, &token)).await;
    let answer = answer.unwrap_or_else(|_| Err(late(PATIENCE)))?;
    // The token that was sent may be used up: the next one is stored before anything can fail.
    if let Some(next) = answer.refresh_token() {
        keep(idp, sid, mine, &next).await?;
    }
    let returned = timeout(MORE, relying_party.refreshed(&registration, answer)).await;
    let returned = returned.unwrap_or_else(|_| Err(late(MORE)))?;
    let (issuer, claims) = (returned.issuer.clone(), returned.claims.clone());
    // Without UserInfo, what the ID token says is what is known.
    let signed = Returned { claims, issuer, refresh_token: None, access_token: None };
    Ok(match timeout(MORE, completed(idp, upstream, returned)).await {
        Ok(Ok(completed)) => completed,
        Ok(Err(_)) | Err(_) => signed,
    })
}

fn late(time: Duration) -> SignInError {
    SignInError::BadAnswer(format!("no whole answer within {} seconds", time.as_secs()))
}

/// Stores the next refresh token, also if the database is away for a moment.
async fn keep(idp: &Idp, sid: &str, mine: &DueSession, next: &Secret) -> Result<(), Unasked> {
    let authority = &idp.0.authority;
    let sealing = &authority.context.sealing;
    let sealed = sealing.seal(&session_label(sid), next.expose().as_bytes());
    let sealed = sealed.map_err(Unasked::Unreachable)?;
    let started = Instant::now();
    loop {
        match authority.store.keep_token(sid, mine, &sealed).await {
            Ok(true) => return Ok(()),
            Ok(false) => {
                return Err(Unasked::Unreachable("the session changed meanwhile".to_owned()));
            }
            Err(error) if started.elapsed() >= STORING => {
                return Err(Unasked::Unreachable(error.to_string()));
            }
            Err(_) => {}
        }
        tokio::time::sleep(TURN * 4).await;
    }
}

async fn end(
    idp: &Idp,
    sid: &str,
    mine: &DueSession,
    (reason, issuer, more): (&'static str, Option<&str>, &str),
) -> Result<(), Failure> {
    let authority = &idp.0.authority;
    let now = authority.now();
    let mut event = AuditEvent::granted(RequestEvent::UpstreamCheck, now)
        .person(&mine.user_id)
        .with(Detail::Session, sid)
        .with(Detail::More, shown(more, 300));
    if let Some(issuer) = issuer {
        event = event.with(Detail::Issuer, issuer);
    }
    // Only a refusal by the upstream says that the token is of no use.
    let spent = if reason == "upstream_check.ended" { spent(idp, sid, mine).await? } else { None };
    let (what, event) = ((sid, mine), event.refused(reason));
    if authority.store.end_upstream_session(what, spent.as_deref(), event, now).await? {
        return Err(Refusal::SubjectNotLive.into());
    }
    // Somebody else is asking, or has asked.
    tolerated(idp, mine, now)
}

/// The token that is kept with the person's link, sealed, if it is the one of this session.
async fn spent(idp: &Idp, sid: &str, mine: &DueSession) -> Result<Option<String>, Failure> {
    let authority = &idp.0.authority;
    let sealing = &authority.context.sealing;
    let Ok(refused) = sealing.open_text(&session_label(sid), &mine.sealed) else {
        return Ok(None);
    };
    let links = authority.store.person_links(Some(&mine.user_id), Some(&mine.upstream)).await?;
    for held in links {
        let sealed = authority.store.link_token(&held.link).await?;
        let kept = sealing.open_text(&link_label(&held.link), &sealed);
        if kept.is_ok_and(|kept| kept.expose() == refused.expose()) {
            return Ok(Some(sealed));
        }
    }
    Ok(None)
}
