//! Signals of others about people who sign in by way of an upstream, and our own to those who listen.

use crate::{directory::IdpDirectory, state::Idp};
use passavant_proto::{
    event::Detail, others_text::shown, ssf::Transmitter, time::Timestamp, xaa::trust::SubjectLink,
};
use passavant_signals::{Heard, Named, Receives, Transmits};
use passavant_store::{AccessEnded, AuditEvent, LoggedOut, SaidOnce, StoreError};

impl Transmits for Idp {}

impl Idp {
    /// Tells those who listen to signals, until this is dropped.
    pub async fn tell_listeners(&self) {
        passavant_signals::tell(self).await;
    }

    /// Delivers what is due to them now. Returns how many of them had something.
    pub async fn tell_listeners_once(&self) -> Result<usize, StoreError> {
        passavant_signals::tell_once(self).await
    }
}

impl Receives for Idp {
    fn transmitter<'a>(records: &'a IdpDirectory, name: &str) -> Option<&'a Transmitter> {
        records.transmitter(name).map(|(transmitter, _)| transmitter)
    }

    async fn end(
        &self,
        records: &IdpDirectory,
        heard: Heard<'_>,
        said: &SaidOnce,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<AccessEnded, StoreError> {
        let store = &self.0.authority.store;
        let unknown = async |event: AuditEvent| {
            store.note(event.refused("signal.unknown"), now).await.map(|_| AccessEnded::Unknown)
        };
        let Some((_, upstream)) = records.transmitter(&heard.transmitter.name) else {
            return unknown(event).await;
        };
        let issuer = upstream.issuer();
        let of = |subject: &str| SubjectLink {
            issuer: issuer.clone(),
            tenant: None,
            subject: subject.to_owned(),
        };
        let link = match heard.named(issuer.as_str()) {
            Some(Named::Subject(subject)) => Some(of(subject)),
            Some(Named::Email(email)) => store.person_by_email(&upstream.name, email).await?,
            None => None,
        };
        if link.is_none() && heard.person.is_some() {
            return unknown(event).await;
        }
        let event = match &link {
            Some(link) => event.with(Detail::Subject, shown(&link.subject, 256)),
            None => event,
        };
        let of = LoggedOut {
            upstream: &upstream.name,
            session: heard.session,
            link: link.as_ref(),
            until: Some(heard.until),
        };
        store.log_out(of, said, event, now).await
    }
}
