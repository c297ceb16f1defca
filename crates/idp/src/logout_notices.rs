//! Applications are told of sessions that have ended (OpenID Connect Back-Channel Logout 1.0, section 2.5).

use super::{directory::IdpDirectory, state::Idp};
use passavant_authority::{
    authority::{Directory, Snapshot},
    client_authentication::AuthenticatedClient,
    deliveries::{Deliveries, Delivery},
};
use passavant_outbound::Reach;
use passavant_proto::{
    event::{Detail, RequestEvent},
    oauth::client::Client,
    oidc::logout_token::LogoutTokenClaims,
    others_text::shown,
    time::Timestamp,
};
use passavant_store::{AuditEvent, Entry, LogoutNotice, StoreError};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long a node has the right to deliver a notice, in seconds: longer than one attempt takes.
const CLAIMED: i64 = 20;
/// How long an application has to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long after an attempt the next one follows, in seconds; the last one again and again.
const PAUSES: [i64; 6] = [2, 10, 60, 300, 1800, 3600];
/// How long it is waited for an application that is switched off, in seconds.
const WHILE_OFF: i64 = 60;
/// How long an application is tried to be told, in seconds.
const GIVEN_UP: i64 = 24 * 3600;
/// How often it is looked for sessions that have ended.
const TURN: Duration = Duration::from_millis(500);

/// What whoever issues tokens of a person's session to a client records: that the client is to be told when
/// the session ends, and that it knows the person, if it listens to signals.
pub(super) fn tells(
    operation: &mut Entry,
    client: &AuthenticatedClient,
    (session, user_id): (&str, &str),
) {
    let record = client.record();
    let with_client = |what: &str| (what.to_owned(), record.id.clone());
    operation.tells = record.backchannel_logout_uri.is_some().then(|| with_client(session));
    operation.signed_in_to = record.signals.is_some().then(|| with_client(user_id));
}

impl Idp {
    /// Tells applications, until this is dropped. What was tried in vain comes after what was not tried
    /// yet, and one that does not answer keeps no other one waiting.
    pub async fn tell_applications(&self) {
        let mut under_way = Deliveries::new();
        loop {
            while let Some(told) = under_way.ended_already() {
                kept(told);
            }
            match self.tell_some(&mut under_way).await {
                // There may be more.
                Ok(claimed) if claimed > 0 && !under_way.is_full() => {}
                Ok(_) => next_of(&mut under_way, TURN).await,
                Err(error) => {
                    not_now(&error);
                    tokio::time::sleep(TURN * 10).await;
                }
            }
        }
    }

    /// Delivers what is due now. Returns how many notices that were.
    pub async fn tell_once(&self) -> Result<usize, StoreError> {
        let (mut under_way, mut all) = (Deliveries::new(), 0);
        loop {
            let claimed = self.tell_some(&mut under_way).await?;
            all += claimed;
            match under_way.ended().await {
                Some(told) => kept(told),
                None if claimed == 0 => return Ok(all),
                None => {}
            }
        }
    }

    /// Begins to deliver what is due, as far as there is room.
    async fn tell_some(&self, under_way: &mut Deliveries<StoreError>) -> Result<usize, StoreError> {
        let authority = &self.0.authority;
        let now = authority.now();
        if under_way.is_full() {
            return Ok(0);
        }
        let applications = authority.store.due_logout_notices(now).await?;
        if applications.is_empty() {
            return Ok(0);
        }
        let snapshot = authority.fresh().await?;
        let mut count = 0;
        for client in under_way.in_turn(applications) {
            let room = under_way.room(&client);
            if room == 0 {
                continue;
            }
            let until = now.plus(CLAIMED);
            let due = authority.store.claim_logout_notices(&client, now, until, room).await?;
            count += due.len();
            for notice in due {
                let (idp, snapshot) = (self.clone(), Arc::clone(&snapshot));
                under_way.begin(&client, async move { tell(&idp, &snapshot, &notice).await });
            }
        }
        Ok(count)
    }
}

/// Waits until one has ended, or for so long.
pub(super) async fn next_of(under_way: &mut Deliveries<StoreError>, most: Duration) {
    tokio::select! {
        Some(told) = under_way.ended() => kept(told),
        () = tokio::time::sleep(most) => {}
    }
}

/// An attempt whose end the database did not keep is made again when its claim has ended.
fn kept(told: Result<Delivery, StoreError>) {
    if let Err(error) = told {
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
) -> Result<Delivery, StoreError> {
    let authority = &idp.0.authority;
    let store = &authority.store;
    let now = authority.now();
    let event = AuditEvent::granted(RequestEvent::LogoutNotice, now)
        .person(&notice.user_id)
        .client(&notice.client_id)
        .with(Detail::Session, notice.sid.as_str());
    let later = async |pause: i64| {
        store.put_off_logout_notice(&notice.id, now.plus(pause)).await.map(|()| Delivery::InVain)
    };
    let held = snapshot.directory.client(&notice.client_id).map(|client| &client.record);
    // One that is switched off, or that another node may be able to read, may be told later.
    let is_there = match held {
        Some(client) => client.disabled,
        None => !matches!(store.by_id::<Client>(&notice.client_id).await, Ok(None)),
    };
    let waits = now.since(notice.ended_at) < GIVEN_UP;
    let uri = held
        .filter(|client| !client.disabled)
        .and_then(|client| client.backchannel_logout_uri.as_deref());
    let (Some(client), Some(uri)) = (held, uri) else {
        if is_there && waits {
            return later(WHILE_OFF).await;
        }
        let event = event.refused("logout_notice.no_address");
        store.end_logout_notice(&notice.id, Some(event)).await?;
        return Ok(Delivery::Done);
    };
    let answered = ask(idp, client, uri, notice, now).await;
    let failed = match answered {
        Ok(()) => {
            store.end_logout_notice(&notice.id, Some(event)).await?;
            return Ok(Delivery::Done);
        }
        Err(failed) => failed,
    };
    tracing::warn!(
        client = notice.client_id,
        tries = notice.tries,
        failed,
        "an application was not told that a session has ended"
    );
    if !waits {
        // With all that have waited as long: one after the other they would not be given up for days.
        let event = event.with(Detail::More, shown(&failed, 300)).refused("logout_notice.given_up");
        store.give_up_logout_notices(&notice.client_id, now.plus(-GIVEN_UP), event).await?;
        return Ok(Delivery::InVain);
    }
    let tries = usize::try_from(notice.tries.max(1) - 1).unwrap_or_default();
    let pause = PAUSES.get(tries).copied().unwrap_or(3600);
    later(pause).await
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
