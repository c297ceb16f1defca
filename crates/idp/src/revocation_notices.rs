//! Authorization servers are told when access has ended that this identity provider vouched for (Global
//! Token Revocation), and what they know of is decided about again when the policy or a person changes.

use super::{
    directory::{IdpDirectory, Living},
    logout_notices::next_of,
    state::Idp,
};
use passavant_authority::{
    answer::Failure,
    authority::{Look, RegisteredClient, Snapshot},
    client_authentication::AuthenticatedClient,
    deliveries::{Deliveries, Delivery},
    operations::told_after,
};
use passavant_outbound::Reach;
use passavant_proto::{
    event::{Detail, RequestEvent},
    identifier::Issuer,
    oauth::{
        access_token,
        global_token_revocation::{RevocationRequest, RevocationTokenClaims, SubId},
        metadata::Revocations,
    },
    oidc::authentication::Authentication,
    others_text::shown,
    policy::{Person, Question},
    time::Timestamp,
    xaa::id_jag,
};
use passavant_store::{AuditEvent, Grant, Reconsidered, RevocationNotices, StoreError};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// How long a node has the right to deliver notices, in seconds: longer than one attempt takes.
const CLAIMED: i64 = 20;
/// How long an authorization server has to answer, finding it included.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long after an attempt the next one follows, in seconds; the last one again and again.
const PAUSES: [i64; 7] = [1, 2, 10, 60, 300, 1800, 3600];
/// How long an authorization server is tried to be told, in seconds.
const GIVEN_UP: i64 = 24 * 3600;
/// How often it is looked for what has ended.
const TURN: Duration = Duration::from_millis(100);
/// How many people are remembered while all ID-JAGs are decided about again.
const REMEMBERED: usize = 10_000;
/// How long it is waited after the database failed.
const LATER: Duration = Duration::from_secs(3);
/// How long the metadata of an authorization server may take while an administrator waits.
const LOOK: Duration = Duration::from_secs(3);

/// The registered authorization server whose people sign in by way of this client, if it is one's: then
/// it knows of whoever does.
pub(super) fn server_of(client: &AuthenticatedClient, directory: &IdpDirectory) -> Option<String> {
    let issuers =
        client.record().redirect_uris.iter().filter_map(|uri| uri.strip_suffix("/callback"));
    issuers
        .filter_map(|issuer| directory.policy.server(issuer))
        .map(|server| server.issuer.to_string())
        .next()
}

impl Idp {
    /// Tells authorization servers, and decides again what has to be, until this is dropped.
    pub async fn tell_authorization_servers(&self) {
        tokio::join!(self.tell_on(), self.reconsider_on());
    }

    async fn tell_on(&self) {
        let mut under_way = Deliveries::new();
        loop {
            while let Some(told) = under_way.ended_already() {
                kept(told);
            }
            match self.tell_servers(&mut under_way).await {
                Ok(claimed) if claimed > 0 && !under_way.is_full() => {}
                Ok(_) => next_of(&mut under_way, TURN).await,
                Err(error) => {
                    not_now(&error);
                    sleep(LATER).await;
                }
            }
        }
    }

    async fn reconsider_on(&self) {
        loop {
            match self.reconsider_once().await {
                Ok(0) => sleep(TURN).await,
                Ok(_) => {}
                Err(error) => {
                    not_now(&error);
                    sleep(LATER).await;
                }
            }
        }
    }

    /// Decides again what has to be, then delivers what is due. Returns of how many people
    /// authorization servers were told.
    pub async fn tell_servers_once(&self) -> Result<usize, StoreError> {
        while self.reconsider_once().await? > 0 {}
        let (mut under_way, mut all) = (Deliveries::new(), 0);
        loop {
            let claimed = self.tell_servers(&mut under_way).await?;
            all += claimed;
            match under_way.ended().await {
                Some(told) => kept(told),
                None if claimed == 0 => return Ok(all),
                None => {}
            }
        }
    }

    /// Begins to deliver what is due, as far as there is room.
    async fn tell_servers(
        &self,
        under_way: &mut Deliveries<StoreError>,
    ) -> Result<usize, StoreError> {
        let authority = &self.0.authority;
        let now = authority.now();
        if under_way.is_full() {
            return Ok(0);
        }
        let mut count = 0;
        let parties = authority.store.due_revocations(now).await?;
        for party in under_way.in_turn(parties) {
            let room = under_way.room(&party);
            if room == 0 {
                continue;
            }
            let until = now.plus(CLAIMED);
            let due = authority.store.claim_revocations(&party, now, until, room).await?;
            count += due.len();
            for notices in due {
                let (idp, to) = (self.clone(), party.clone());
                under_way.begin(&party, async move { tell(&idp, &to, &notices).await });
            }
        }
        Ok(count)
    }

    /// Decides again about those whose turn it is. Returns how many.
    async fn reconsider_once(&self) -> Result<usize, StoreError> {
        let wanted = self.0.authority.store.to_reconsider().await?;
        for one in &wanted {
            self.reconsider(one).await?;
        }
        Ok(wanted.len())
    }

    /// Revokes the ID-JAGs of one person, or of everyone, that would not be issued now. Tokens that were
    /// issued for them end where that can be told.
    async fn reconsider(&self, one: &Reconsidered) -> Result<(), StoreError> {
        let authority = &self.0.authority;
        let store = &authority.store;
        let snapshot = authority.fresh().await?;
        let now = authority.now();
        let over = now.plus(-access_token::LONGEST_LIFETIME);
        let mut asked = Asked {
            idp: self,
            snapshot: &snapshot,
            clients: HashMap::new(),
            people: HashMap::new(),
            sessions: HashMap::new(),
        };
        let mut after = String::new();
        loop {
            let grants = store.live_id_jags(one.user_id.as_deref(), over, &after).await?;
            let Some(last) = grants.last() else { break };
            after.clone_from(&last.jti);
            if asked.people.len() > REMEMBERED {
                asked.people.clear();
                asked.sessions.clear();
            }
            let mut fallen = Vec::new();
            for grant in &grants {
                if !asked.stands(grant).await? {
                    fallen.push(grant.jti.clone());
                }
            }
            if !fallen.is_empty() {
                store.revoke_id_jags(&fallen, now).await?;
            }
        }
        store.reconsidered(one).await
    }
}

impl Idp {
    /// Which ends of access these authorization servers can be told of, as their metadata say now;
    /// `None` for one whose metadata cannot be read just now.
    pub async fn take_revocations(&self, issuers: Vec<String>) -> Vec<Option<Revocations>> {
        let mut asked = JoinSet::new();
        for (at, issuer) in issuers.iter().enumerate() {
            let (idp, issuer) = (self.clone(), Issuer::parse(issuer));
            asked.spawn(async move {
                let Ok(issuer) = issuer else { return (at, Some(Revocations::None)) };
                let relying_party = &idp.0.authority.context.relying_party;
                let metadata = timeout(LOOK, relying_party.authorization_server(&issuer)).await;
                let metadata = metadata.ok().and_then(Result::ok);
                (at, metadata.map(|metadata| metadata.takes_revocations()))
            });
        }
        let mut found = vec![None; issuers.len()];
        for (at, takes) in asked.join_all().await {
            found[at] = takes;
        }
        found
    }
}

/// The same question about many ID-JAGs. What was read once is not read again.
struct Asked<'a> {
    idp: &'a Idp,
    snapshot: &'a Snapshot<IdpDirectory>,
    clients: HashMap<String, Option<Arc<RegisteredClient>>>,
    people: HashMap<String, Option<Arc<Living>>>,
    sessions: HashMap<String, Option<Authentication>>,
}

impl Asked<'_> {
    /// Whether the policy would still issue an ID-JAG like this one, at the moment when it was issued: what
    /// is said of the sign-in's age was true then.
    async fn stands(&mut self, grant: &Grant) -> Result<bool, StoreError> {
        let authority = &self.idp.0.authority;
        let (store, directory) = (&authority.store, &self.snapshot.directory);
        if !self.people.contains_key(&grant.user_id) {
            let person = directory.person(store, &grant.user_id, Look::Now).await?;
            self.people.insert(grant.user_id.clone(), person);
        }
        if !self.clients.contains_key(&grant.client_id) {
            let client = match authority.client(directory, &grant.client_id, Look::Now).await {
                Ok(client) => client,
                Err(Failure::Broken(error)) => return Err(error),
                Err(_) => None,
            };
            self.clients.insert(grant.client_id.clone(), client);
        }
        if !self.sessions.contains_key(&grant.lineage) {
            let session = store.session_authentication(&grant.lineage).await?;
            self.sessions.insert(grant.lineage.clone(), session);
        }
        let person = self.people.get(&grant.user_id).and_then(Option::as_ref);
        let client = self.clients.get(&grant.client_id).and_then(Option::as_ref);
        let session = self.sessions.get(&grant.lineage).and_then(Option::as_ref);
        let (Some(person), Some(client), Some(session)) = (person, client, session) else {
            return Ok(false);
        };
        let Ok(audience) = Issuer::parse(&grant.party) else { return Ok(false) };
        Ok(permitted(self.snapshot, grant, (&person.user, client), session, &audience))
    }
}

fn permitted(
    snapshot: &Snapshot<IdpDirectory>,
    grant: &Grant,
    (user, client): (&passavant_store::User, &RegisteredClient),
    authentication: &Authentication,
    audience: &Issuer,
) -> bool {
    let opens = grant.opens.as_ref();
    let question = Question {
        person: Person { id: &user.id, groups: &user.groups },
        idp_client_id: client.idp_client_id(),
        document: client.document(),
        authentication,
        audience: audience.as_str(),
        resources: opens.map_or(&[], |opens| &opens.resources),
        scopes: opens.map(|opens| &opens.scopes).filter(|scopes| !scopes.is_empty()),
        now: grant.expires_at.plus(-id_jag::LIFETIME),
    };
    snapshot.directory.policy.still_permits(&question, opens.is_some())
}

/// An attempt whose end the database did not keep is made again when its claim has ended.
fn kept(told: Result<Delivery, StoreError>) {
    if let Err(error) = told {
        not_now(&error);
    }
}

fn not_now(error: &StoreError) {
    tracing::warn!(%error, "authorization servers cannot be told of ended access just now");
}

/// What became of an attempt.
enum Told {
    Yes,
    /// The server has no such endpoint, or cannot end what this is about: its tokens are over when they
    /// expire.
    Deaf,
    No(String),
}

/// Tells one authorization server of one person.
async fn tell(idp: &Idp, party: &str, notices: &RevocationNotices) -> Result<Delivery, StoreError> {
    let authority = &idp.0.authority;
    let store = &authority.store;
    let now = authority.now();
    let told = match Issuer::parse(party) {
        Err(_) => Told::Deaf,
        Ok(party) => match timeout(PATIENCE, ask(idp, &party, notices, now)).await {
            Ok(told) => told,
            Err(_) => Told::No(format!("no answer within {} seconds", PATIENCE.as_secs())),
        },
    };
    let event = AuditEvent::granted(RequestEvent::RevocationNotice, now)
        .person(&notices.user_id)
        .with(Detail::Audience, party)
        .with(
            Detail::Count,
            if notices.all_until.is_some() {
                "all".to_owned()
            } else {
                notices.id_jags.len().to_string()
            },
        );
    let failed = match told {
        Told::Yes => {
            told_after(now.since(notices.since));
            store.end_revocations(&notices.ids, Some(event)).await?;
            if notices.tries > 1 {
                // It listens again: what was put off need not wait. No claim ends so late.
                store.bring_revocations_forward(party, now, now.plus(CLAIMED)).await?;
            }
            return Ok(Delivery::Done);
        }
        Told::Deaf => {
            store.end_revocations(&notices.ids, None).await?;
            return Ok(Delivery::Done);
        }
        Told::No(failed) => failed,
    };
    tracing::warn!(
        audience = party,
        tries = notices.tries,
        failed,
        "an authorization server was not told that somebody's access has ended"
    );
    if now.since(notices.since) >= GIVEN_UP {
        let event = event.with(Detail::More, shown(&failed, 300));
        let event = event.refused("revocation_notice.given_up");
        // With all that have waited as long: one after the other they would not be given up for days.
        store.give_up_revocations(party, now.plus(-GIVEN_UP), event).await?;
        return Ok(Delivery::InVain);
    }
    let tries = usize::try_from(notices.tries.max(1) - 1).unwrap_or_default();
    let pause = PAUSES.get(tries).copied().unwrap_or(3600);
    store.put_off_revocations(&notices.ids, now.plus(pause)).await?;
    Ok(Delivery::InVain)
}

async fn ask(idp: &Idp, party: &Issuer, notices: &RevocationNotices, now: Timestamp) -> Told {
    let authority = &idp.0.authority;
    let relying_party = &authority.context.relying_party;
    let metadata = match relying_party.authorization_server(party).await {
        Ok(metadata) => metadata,
        Err(error) => return Told::No(error.to_string()),
    };
    let Some(endpoint) = metadata.global_token_revocation_endpoint.as_deref() else {
        return Told::Deaf;
    };
    // Others would end all that the person has there, for a sign-in of one program that has ended.
    let of_ours = metadata.takes_revocations() == Revocations::IdJags;
    if notices.all_until.is_none() && !of_ours {
        return Told::Deaf;
    }
    let request = RevocationRequest {
        subject: SubId::IssSub { iss: idp.issuer().to_string(), sub: notices.user_id.clone() },
        all: notices.all_until.is_some(),
        // Where not all that ended is named, everything until now ends.
        ended_at: notices.all_until.filter(|_| of_ours && notices.is_whole),
        id_jags: if of_ours { notices.id_jags.clone() } else { Vec::new() },
    };
    let algorithm = authority.snapshot().directory.policy.id_jag_signing_alg(party);
    let key = authority.signing_as(algorithm);
    let reach: Reach = metadata.reach_of(endpoint);
    // The second time as an earlier draft had it.
    for earlier in [false, true] {
        let jti = authority.context.entropy.id();
        let token = RevocationTokenClaims::new(idp.issuer(), endpoint, &jti, now).sign(&key);
        let body = request.to_body(earlier);
        match relying_party.post_revocation(endpoint, reach, &token, &body).await {
            // 404: nobody is known there by that name. One of ours says so; a proxy's says nothing. 200 is
            // what Auth0 answers.
            Ok((200 | 204, _)) => return Told::Yes,
            Ok((404, error)) if !of_ours || error.as_deref() == Some("not_found") => {
                return Told::Yes;
            }
            Ok((400, _)) if !earlier => {}
            Ok((status, _)) => return Told::No(format!("HTTP {status}")),
            Err(error) => return Told::No(error),
        }
    }
    Told::No("HTTP 400".to_owned())
}
