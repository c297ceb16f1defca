//! The operations on shared signals.

use super::{Acting, Administration, Answer, Op, Table};
use crate::{
    acts::{
        context::Need::{Change, CutOff, Read},
        signals::{self, Hears},
    },
    servers::IdpAdmin,
    types::{Listed, StreamView, TransmitterView, Transmitters},
};
use axum::{
    Json,
    extract::Path,
    http::{Method, StatusCode},
};

impl<A: Administration + Hears> Table<A> {
    /// Others whose signals count here.
    pub(super) fn transmitters(self) -> Self {
        self.switched::<Transmitters>("transmitter of shared signals").op(
            Op::new(
                Method::POST,
                "/transmitters/{id}/token",
                Change,
                "Give a transmitter another token to push with; the one before opens nothing any more",
            )
            .answer::<TransmitterView>(),
            renew::<A>,
        )
    }
}

impl Table<IdpAdmin> {
    /// Those who listen to ours.
    pub(super) fn streams(self) -> Self {
        self.op(
            Op::new(
                Method::GET,
                "/streams",
                Read,
                "List the streams of clients that listen to signals, and what waits for them",
            )
            .list::<StreamView>(),
            list,
        )
        .op(
            Op::new(
                Method::DELETE,
                "/streams/{client}",
                CutOff,
                "Delete the stream of a client, with all that waits for it",
            ),
            delete,
        )
    }
}

async fn renew<A: Administration + Hears>(
    acting: Acting<A>,
    Path(id): Path<String>,
) -> Answer<TransmitterView> {
    signals::renew_token(&acting.of, &acting.context, &id).await.map(Json)
}

async fn list(acting: Acting<IdpAdmin>) -> Answer<Listed<StreamView>> {
    signals::streams(&acting.context).await.map(Json)
}

async fn delete(
    acting: Acting<IdpAdmin>,
    Path(client): Path<String>,
) -> Result<StatusCode, super::ActError> {
    signals::delete_stream(&acting.context, &client).await?;
    Ok(StatusCode::NO_CONTENT)
}
