//! Applications are told of sessions that have ended (OpenID Connect Back-Channel Logout 1.0, section 2.5).

use super::{directory::IdpDirectory, state::Idp};
use passavant_authority::{
    authority::{Directory, Snapshot},
    client_authentication::AuthenticatedClient,
};
use passavant_outbound::Reach;
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::client::Client,
    oidc::logout_token::LogoutTokenClaims,
    others_text::shown,
    time::Timestamp,
};
use passavant_store::{AuditEvent, LogoutNotice, StoreError};
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::timeout};

/// How long a node has the right to deliver a notice, in seconds: longer than one attempt takes.
const CLAIMED: i64 = 60;
/// How long an application has to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long after an attempt the next one follows, in seconds; the last one again and again.
const PAUSES: [i64; 6] = [2, 10, 60, 300, 1800, 3600];
/// How long an application is tried to be told, in seconds.
const GIVEN_UP: i64 = 24 * 3600;
/// How many attempts are under way at once, on one node.
const AT_ONCE: usize = 64;
/// How often it is looked for sessions that have ended.
const TURN: Duration = Duration::from_millis(500);

/// What whoever issues tokens of a session records: the session, and the client that is to be told when it
/// ends.
pub(super) fn tells(client: &AuthenticatedClient, session: &str) -> Option<(String, String)> {
    let record = client.record();
    let wanted = record.backchannel_logout_uri.is_some();
    wanted.then(|| (session.to_owned(), record.id.clone()))
}

impl Idp {
    /// Tells applications, until this is dropped. What was tried in vain comes after what was not tried yet.
    pub async fn tell_applications(&self) {
        let mut under_way = JoinSet::new();
        loop {
            while let Some(told) = under_way.try_join_next() {
                kept(told);
            }
            match self.tell_some(&mut under_way).await {
                // There may be more.
                Ok(claimed) if claimed > 0 && under_way.len() < AT_ONCE => {}
                Ok(_) => tokio::time::sleep(TURN).await,
                Err(error) => {
                    not_now(&error);
                    tokio::time::sleep(TURN * 10).await;
                }
            }
        }
    }

    /// Delivers what is due now. Returns how many notices that were.
    pub async fn tell_once(&self) -> Result<usize, StoreError> {
        let mut under_way = JoinSet::new();
        let claimed = self.tell_some(&mut under_way).await?;
        while let Some(told) = under_way.join_next().await {
            kept(told);
        }
        Ok(claimed)
    }

    /// Begins to deliver what is due, as far as there is room.
    async fn tell_some(&self, under_way: &mut Attempts) -> Result<usize, StoreError> {
        let authority = &self.0.authority;
        let now = authority.now();
        let room = AT_ONCE.saturating_sub(under_way.len());
        if room == 0 {
            return Ok(0);
        }
        let due = authority.store.claim_logout_notices(now, now.plus(CLAIMED), room).await?;
        if due.is_empty() {
            return Ok(0);
        }
        let count = due.len();
        let snapshot = authority.fresh().await?;
        for notice in due {
            let (idp, snapshot) = (self.clone(), Arc::clone(&snapshot));
            under_way.spawn(async move { tell(&idp, &snapshot, &notice).await });
        }
        Ok(count)
    }
}

type Attempts = JoinSet<Result<(), StoreError>>;

/// An attempt whose end the database did not keep is made again when its claim has ended.
fn kept(told: Result<Result<(), StoreError>, tokio::task::JoinError>) {
    if let Ok(Err(error)) = told {
        not_now(&error);
    }
}

fn not_now(error: &StoreError) {
    tracing::warn!(%error, "applications cannot be told of ended sessions just now");
}

/// Tells one application of one session.
async fn tell(
    idp: &Idp,
    snapshot: &Snapshot<IdpDirectory>,
    notice: &LogoutNotice,
) -> Result<(), StoreError> {
    let authority = &idp.0.authority;
    let store = &authority.store;
    let client = snapshot.directory.client(&notice.client_id);
    let client = client.map(|client| &client.record).filter(|client| !client.disabled);
    let Some((client, uri)) =
        client.and_then(|held| Some((held, held.backchannel_logout_uri.as_deref()?)))
    else {
        return store.end_logout_notice(&notice.id, None).await;
    };
    let now = authority.now();
    let event = AuditEvent::granted(RequestEvent::LogoutNotice, now)
        .person(&notice.user_id)
        .client(&notice.client_id)
        .with(Detail::Session, notice.sid.as_str());
    let answered = ask(idp, client, uri, notice, now).await;
    let failed = match answered {
        Ok(()) => return store.end_logout_notice(&notice.id, Some(event)).await,
        Err(failed) => failed,
    };
    tracing::warn!(
        client = notice.client_id,
        tries = notice.tries,
        failed,
        "an application was not told that a session has ended"
    );
    if now.since(notice.ended_at) >= GIVEN_UP {
        let event = event.with(Detail::More, shown(&failed, 300)).refused("logout_notice.given_up");
        return store.end_logout_notice(&notice.id, Some(event)).await;
    }
    let tries = usize::try_from(notice.tries.max(1) - 1).unwrap_or_default();
    let pause = PAUSES.get(tries).copied().unwrap_or(3600);
    store.put_off_logout_notice(&notice.id, now.plus(pause)).await
}

async fn ask(
    idp: &Idp,
    client: &Client,
    uri: &str,
    notice: &LogoutNotice,
    now: Timestamp,
) -> Result<(), String> {
    let authority = &idp.0.authority;
    let claims = LogoutTokenClaims::new(
        idp.issuer(),
        (&notice.user_id, &notice.sid),
        (client.id.as_str(), &notice.id),
        now,
    );
    let token = claims.sign(&authority.signing_as(client.id_token_signed_response_alg));
    let relying_party = &authority.context.relying_party;
    let sent = relying_party.post_logout_token(uri, Reach::of_trusted_url(uri), &token);
    match timeout(PATIENCE, sent).await {
        Err(_) => Err(format!("no answer within {} seconds", PATIENCE.as_secs())),
        Ok(Err(error)) => Err(error),
        // Section 2.8: 200; 204 is what some frameworks make of an empty answer.
        Ok(Ok(200 | 204)) => Ok(()),
        Ok(Ok(status)) => Err(format!("HTTP {status}")),
    }
}
