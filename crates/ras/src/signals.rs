//! Signals of others about people of a trusted issuer.

use super::{directory::RasDirectory, state::Ras};
use passavant_proto::{
    event::Detail,
    others_text::shown,
    ssf::Transmitter,
    time::Timestamp,
    xaa::{id_jag, trust::SubjectLink},
};
use passavant_signals::{Heard, Named, Receives};
use passavant_store::{AccessEnded, AuditEvent, EndedAccess, SaidOnce, StoreError};

impl Receives for Ras {
    fn transmitter<'a>(records: &'a RasDirectory, name: &str) -> Option<&'a Transmitter> {
        records.transmitter(name).map(|(transmitter, _)| transmitter)
    }

    async fn end(
        &self,
        records: &RasDirectory,
        heard: Heard<'_>,
        said: &SaidOnce,
        event: AuditEvent,
        now: Timestamp,
    ) -> Result<AccessEnded, StoreError> {
        let store = &self.0.authority.store;
        let unknown = async |event: AuditEvent| {
            store.note(event.refused("signal.unknown"), now).await.map(|_| AccessEnded::Unknown)
        };
        let Some((transmitter, trusted)) = records.transmitter(&heard.transmitter.name) else {
            return unknown(event).await;
        };
        // Which of a person's grants came from one session is not known here: all of them end, and the
        // others' clients get new ones.
        let subject = match heard.named(trusted.issuer.as_str()) {
            Some(Named::Subject(subject)) => Some(subject.to_owned()),
            Some(Named::Email(email)) => {
                let linked = store.linked_by_email(trusted.issuer.as_str(), email).await?;
                linked.map(|link| link.subject)
            }
            None => None,
        };
        let Some(subject) = subject else { return unknown(event).await };
        let event = event.with(Detail::Subject, shown(&subject, 256));
        let link = SubjectLink {
            issuer: trusted.issuer.clone().into(),
            tenant: trusted.tenant.clone(),
            subject,
        };
        // The clock of another party than the issuer says nothing about when the issuer issued something.
        let own = transmitter.issuer == trusted.issuer;
        let ended = EndedAccess {
            link: &link,
            all: true,
            id_jags: &[],
            until: if own { heard.until } else { now },
            later_stands: own,
            forget_after: now.plus(id_jag::LONGEST_LIFETIME),
        };
        let _turn = self.turn_of(trusted.issuer.as_str()).await;
        let done = store.end_subject(&ended, said, event, now).await;
        self.0.feed.wake();
        done
    }
}
