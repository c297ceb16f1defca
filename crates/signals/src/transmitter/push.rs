//! Delivery to those whom events are posted to (RFC 8935): one after the other, in their order.

use super::{Transmits, admitted::authority::listening, render};
use passavant_authority::{
    authority::{Authority, Directory},
    deliveries::{Deliveries, Delivery},
    operations::told_after,
};
use passavant_outbound::Reach;
use passavant_proto::{
    event::{Detail, RequestEvent},
    identifier::{Issuer, is_loopback},
    oauth::client::Client,
    others_text::shown,
    secret::Secret,
    ssf::{EventType, Told},
    time::Timestamp,
};
use passavant_store::{AuditEvent, SealedAt, Signal, SignalStream, StoreError};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use url::Url;

/// How long a node holds a stream, in seconds: longer than it delivers at a stretch.
const HELD: i64 = 20;
/// How long it begins deliveries at a stretch.
const STRETCH: Duration = Duration::from_secs(5);
/// How long it is waited for a client that may not listen just now, in seconds.
const WHILE_OFF: i64 = 60;
/// How long after an attempt the next one follows, in seconds; the last one again and again.
const PAUSES: [i64; 7] = [1, 2, 10, 60, 300, 1800, 3600];
/// How often an event is posted again that the listener refuses by a reason.
const REFUSED: i64 = 3;
/// How long it is tried before a stream is paused, in seconds.
const GIVEN_UP: i64 = 24 * 3600;
/// How long events wait for a listener at most, in seconds.
const KEPT: i64 = 7 * 86_400;
/// How often it is looked for events.
const TURN: Duration = Duration::from_millis(100);
/// How often it is looked for events that have waited too long.
const TIDIED: Duration = Duration::from_mins(10);
/// How long it is waited after the database failed.
const LATER: Duration = Duration::from_secs(3);

/// How far a listener's URL may reach. It was not the administrator who chose it: a private network can be
/// reached only where they registered a URL of the same origin for this client.
pub(super) fn reach_of(url: &str, issuer: &Issuer, client: &Client) -> Reach {
    let origin = |text: &str| Url::parse(text).ok().map(|url| url.origin());
    let theirs = origin(url);
    let registered = client
        .redirect_uris
        .iter()
        .chain(&client.post_logout_redirect_uris)
        .chain(&client.backchannel_logout_uri)
        .any(|known| theirs.is_some() && origin(known) == theirs);
    let is_here = Url::parse(url).is_ok_and(|url| is_loopback(&url));
    let we_are_here = Reach::of_trusted_url(issuer.as_str()) == Reach::Loopback;
    // A redirect URI of a loopback address means the machine of whoever signs in, not ours.
    let allowed = if is_here { we_are_here } else { registered };
    if allowed { Reach::of_trusted_url(url) } else { Reach::Public }
}

/// Tells those who listen, until this is dropped.
pub async fn tell<S: Transmits>(of: &S) {
    let mut under_way = Deliveries::new();
    let mut tidied: Option<Instant> = None;
    loop {
        while let Some(told) = under_way.ended_already() {
            kept(told);
        }
        if tidied.is_none_or(|at| at.elapsed() >= TIDIED) {
            tidied = Some(Instant::now());
            if let Err(error) = tidy(of).await {
                not_now(&error);
            }
        }
        match tell_some(of, &mut under_way).await {
            Ok(begun) if begun > 0 && !under_way.is_full() => {}
            Ok(_) => tokio::select! {
                Some(told) = under_way.ended() => kept(told),
                () = sleep(TURN) => {}
            },
            Err(error) => {
                not_now(&error);
                sleep(LATER).await;
            }
        }
    }
}

/// Delivers what is due now. Returns how many streams had something.
pub async fn tell_once<S: Transmits>(of: &S) -> Result<usize, StoreError> {
    let (mut under_way, mut all) = (Deliveries::new(), 0);
    loop {
        let begun = tell_some(of, &mut under_way).await?;
        all += begun;
        match under_way.ended().await {
            Some(told) => kept(told),
            None if begun == 0 => return Ok(all),
            None => {}
        }
    }
}

async fn tell_some<S: Transmits>(
    of: &S,
    under_way: &mut Deliveries<StoreError>,
) -> Result<usize, StoreError> {
    let authority = of.authority();
    let now = authority.now();
    if under_way.is_full() {
        return Ok(0);
    }
    let due = authority.store.due_streams(now).await?;
    let mut begun = 0;
    for id in under_way.in_turn(due.iter().map(|stream| stream.id.clone()).collect()) {
        if under_way.room(&id) == 0 {
            continue;
        }
        let held = authority.store.hold_stream(&id, now, now.plus(HELD)).await?;
        let Some(stream) = held else { continue };
        let of = of.clone();
        under_way.begin(&id, async move { deliver(&of, stream).await });
        begun += 1;
    }
    Ok(begun)
}

fn kept(told: Result<Delivery, StoreError>) {
    if let Err(error) = told {
        not_now(&error);
    }
}

fn not_now(error: &StoreError) {
    tracing::warn!(%error, "listeners cannot be told of people just now");
}

/// Drops what has waited too long.
async fn tidy<S: Transmits>(of: &S) -> Result<(), StoreError> {
    let authority = of.authority();
    let now = authority.now();
    let event = |stream: &SignalStream| {
        AuditEvent::granted(RequestEvent::SignalTold, now)
            .client(&stream.client_id)
            .refused("signal.dropped")
    };
    authority.store.drop_old_signals(now.plus(-KEPT), event).await.map(|_| ())
}

/// Delivers what waits for a stream that this node holds: one event after the other. Stream and client are
/// read again before each, so that what was changed counts for the next one.
async fn deliver<S: Transmits>(of: &S, mut stream: SignalStream) -> Result<Delivery, StoreError> {
    let authority = of.authority();
    let store = &authority.store;
    let began = Instant::now();
    loop {
        let now = authority.now();
        let snapshot = authority.fresh().await?;
        let client = listening(&snapshot, &stream.client_id);
        let held = store.stream_of(&stream.client_id).await?;
        let Some(held) = held.filter(|held| held.id == stream.id && held.holds == stream.holds)
        else {
            // Deleted, changed, or held by another node: it is theirs.
            return Ok(Delivery::Done);
        };
        stream = held;
        let (Some(client), Some(url)) = (client, stream.endpoint_url.clone()) else {
            // What waits is kept as long as for any other; that nobody listens is no failure.
            let not_yet = (Timestamp(0), 0, "the client may not listen");
            store.put_stream_off(&stream, not_yet, now.plus(WHILE_OFF)).await?;
            return Ok(Delivery::InVain);
        };
        let signals = store.signals(&stream.id, 1).await?;
        let Some(signal) = signals.first().filter(|_| began.elapsed() <= STRETCH) else {
            store.let_stream_go(&stream).await?;
            return Ok(Delivery::Done);
        };
        let to = Listener {
            reach: reach_of(&url, &authority.issuer, &client.record),
            header: match header_of(authority, &stream) {
                Ok(header) => header,
                Err(failed) => return vain(authority, &stream, None, &failed).await,
            },
            url,
        };
        let told = client.record.signals.unwrap_or(Told::ItsPeople);
        let jti = std::slice::from_ref(&signal.jti);
        let Some(token) = render::token(authority, told, &stream, signal) else {
            store.end_signals(&stream.id, jti, &[]).await?;
            continue;
        };
        match post(authority, &to, &token).await {
            Ok(()) => {
                if !signal.user_id.is_empty() {
                    told_after(now.since(signal.made_at));
                }
                store.end_signals(&stream.id, jti, &[event_of(&stream, signal, now)]).await?;
            }
            // What it reads and does not take, time and again, keeps nothing else from it.
            Err(NotTaken::Refused(why)) if stream.tries >= REFUSED => {
                let event = event_of(&stream, signal, now)
                    .with(Detail::More, shown(&why, 300))
                    .refused("signal.not_taken");
                store.end_signals(&stream.id, jti, &[event]).await?;
            }
            Err(NotTaken::Refused(why) | NotTaken::No(why)) => {
                if is_given_up(&stream, now) {
                    say_paused(authority, &to, &stream).await;
                }
                return vain(authority, &stream, Some(signal), &why).await;
            }
        }
        if stream.tries > 0 || stream.failing_since.0 > 0 {
            store.stream_works(&stream).await?;
        }
    }
}

fn event_of(stream: &SignalStream, signal: &Signal, now: Timestamp) -> AuditEvent {
    let event = AuditEvent::granted(RequestEvent::SignalTold, now)
        .client(&stream.client_id)
        .with(Detail::Signal, signal.event.as_str())
        .with(Detail::Jti, signal.jti.as_str());
    if signal.user_id.is_empty() { event } else { event.person(&signal.user_id) }
}

/// Why an event was not taken.
enum NotTaken {
    /// The listener has read it, and says what is wrong with it.
    Refused(String),
    No(String),
}

struct Listener {
    url: String,
    reach: Reach,
    header: Option<Secret>,
}

fn header_of<D: Directory>(
    authority: &Authority<D>,
    stream: &SignalStream,
) -> Result<Option<Secret>, String> {
    let Some(sealed) = &stream.sealed else { return Ok(None) };
    let label = SealedAt::Stream(stream.id.clone()).label();
    authority.context.sealing.open_text(&label, sealed).map(Some)
}

async fn post<D: Directory>(
    authority: &Authority<D>,
    to: &Listener,
    token: &str,
) -> Result<(), NotTaken> {
    let relying_party = &authority.context.relying_party;
    let header = to.header.as_ref().map(Secret::expose);
    match relying_party.post_security_event(&to.url, to.reach, header, token).await {
        Err(error) => Err(NotTaken::No(error)),
        // RFC 8935, section 2.2; what some frameworks make of it.
        Ok((200 | 202 | 204, _)) => Ok(()),
        Ok((400, Some(error))) => {
            Err(NotTaken::Refused(format!("HTTP 400 {}", shown(&error, 200))))
        }
        Ok((status, Some(error))) => {
            Err(NotTaken::No(format!("HTTP {status} {}", shown(&error, 200))))
        }
        Ok((status, None)) => Err(NotTaken::No(format!("HTTP {status}"))),
    }
}

/// Whether a listener has taken nothing for so long that its stream is paused.
fn is_given_up(stream: &SignalStream, now: Timestamp) -> bool {
    stream.failing_since.0 > 0 && now.since(stream.failing_since) >= GIVEN_UP
}

/// The listener did not take an event: it is tried again later, and after a day the stream is paused.
async fn vain<D: Directory>(
    authority: &Authority<D>,
    stream: &SignalStream,
    signal: Option<&Signal>,
    failed: &str,
) -> Result<Delivery, StoreError> {
    let now = authority.now();
    let store = &authority.store;
    tracing::warn!(client = stream.client_id, failed, "a listener did not take a signal");
    if is_given_up(stream, now) {
        let event = AuditEvent::granted(RequestEvent::SignalStream, now)
            .client(&stream.client_id)
            .with(Detail::More, shown(failed, 300));
        let event = match signal {
            Some(signal) => event.with(Detail::Signal, signal.event.as_str()),
            None => event,
        };
        let reason = format!("nothing was taken for a day: {}", shown(failed, 300));
        store.pause_stream(stream, &reason, event.refused("signal.paused")).await?;
        return Ok(Delivery::InVain);
    }
    let tries = usize::try_from(stream.tries).unwrap_or_default();
    let pause = PAUSES.get(tries).copied().unwrap_or(3600);
    let since = if stream.failing_since.0 > 0 { stream.failing_since } else { now };
    let failed = shown(failed, 300);
    let why = (since, stream.tries + 1, failed.as_str());
    store.put_stream_off(stream, why, now.plus(pause)).await?;
    Ok(Delivery::InVain)
}

/// Says once that the stream is paused (SSF 1.0, section 8.1.5), whether or not it is heard.
async fn say_paused<D: Directory>(authority: &Authority<D>, to: &Listener, stream: &SignalStream) {
    let now = authority.now();
    let signal = Signal {
        jti: authority.context.entropy.id(),
        event: EventType::StreamUpdated.word().to_owned(),
        user_id: String::new(),
        facts: json!({"status": "paused", "reason": "nothing was taken for a day"}).to_string(),
        known: true,
        made_at: now,
    };
    if let Some(token) = render::token(authority, Told::ItsPeople, stream, &signal) {
        let _ = post(authority, to, &token).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_reaches_what_an_administrator_registered_and_never_our_own_machine() {
        let client = Client {
            redirect_uris: vec![
                "http://127.0.0.1:7000/cb".to_owned(),
                "https://soc.internal:8443/cb".to_owned(),
            ],
            ..Client::default()
        };
        let (there, here) = ("https://idp.example", "http://127.0.0.1:1");
        for (issuer, url, reach) in [
            (there, "http://127.0.0.1:7000/x", Reach::Public),
            (there, "http://localhost/x", Reach::Public),
            (there, "https://soc.internal:8443/x", Reach::Private),
            (there, "https://soc.internal/x", Reach::Public),
            (there, "https://soc.example/x", Reach::Public),
            (there, "nothing", Reach::Public),
            (here, "http://127.0.0.1:7000/x", Reach::Loopback),
        ] {
            let issuer = Issuer::parse(issuer).map_err(|error| error.to_string());
            assert_eq!(issuer.map(|issuer| reach_of(url, &issuer, &client)), Ok(reach), "{url}");
        }
    }
}
