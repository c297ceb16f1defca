//! Deliveries that are under way to other parties, shared out among them: one that is silent costs the
//! others no more than its share.

use std::{
    collections::{HashMap, HashSet},
    future::Future,
};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

/// How many are under way at once, on one node.
const AT_ONCE: usize = 256;
/// How many of them to one party that answers.
const SHARE: usize = 8;
/// The last ones are for parties that have none under way: whoever has one waits for it then.
const FOR_THE_FIRST: usize = 64;
/// How many of them to all parties together of which it is not known that they answer.
const OF_THE_UNPROVEN: usize = AT_ONCE - FOR_THE_FIRST;

/// How an attempt ended, for whoever shares them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The party took it, or there was nothing to send.
    Done,
    /// The party did not take it.
    InVain,
}

/// Deliveries under way. They end when this is dropped.
#[derive(Default)]
pub struct Deliveries<E> {
    tasks: JoinSet<Result<Delivery, E>>,
    parties: HashMap<Id, String>,
    under_way: HashMap<String, usize>,
    /// Parties that took the last one.
    answering: HashSet<String>,
    /// How many were begun, and which of them each party's last one was.
    begun: u64,
    last: HashMap<String, u64>,
}

impl<E: Send + 'static> Deliveries<E> {
    /// None is under way, and nobody is known to answer.
    pub fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            parties: HashMap::new(),
            under_way: HashMap::new(),
            answering: HashSet::new(),
            begun: 0,
            last: HashMap::new(),
        }
    }

    /// Whether another one could begin at all.
    pub fn is_full(&self) -> bool {
        self.tasks.len() >= AT_ONCE
    }

    fn to(&self, party: &str) -> usize {
        self.under_way.get(party).copied().unwrap_or_default()
    }

    /// The order in which parties have their turn: first who has the fewest under way, then who waited
    /// the longest.
    pub fn in_turn(&self, mut parties: Vec<String>) -> Vec<String> {
        parties.sort_by_cached_key(|party| (self.to(party), self.last.get(party).copied()));
        parties
    }

    /// How many more may begin to a party. To one that did not take the last one, or was not asked yet, one
    /// at a time goes.
    pub fn room(&self, party: &str) -> usize {
        let (left, to_it) = (AT_ONCE.saturating_sub(self.tasks.len()), self.to(party));
        if self.answering.contains(party) {
            let more = SHARE.saturating_sub(to_it).min(left.saturating_sub(FOR_THE_FIRST));
            return if to_it == 0 { more.max(1).min(left) } else { more };
        }
        let unproven: usize = self
            .under_way
            .iter()
            .filter(|(other, _)| !self.answering.contains(*other))
            .map(|(_, count)| count)
            .sum();
        usize::from(left > 0 && to_it == 0 && unproven < OF_THE_UNPROVEN)
    }

    /// Begins one to a party.
    pub fn begin(
        &mut self,
        party: &str,
        delivery: impl Future<Output = Result<Delivery, E>> + Send + 'static,
    ) {
        let task: AbortHandle = self.tasks.spawn(delivery);
        self.parties.insert(task.id(), party.to_owned());
        *self.under_way.entry(party.to_owned()).or_default() += 1;
        self.begun += 1;
        self.last.insert(party.to_owned(), self.begun);
    }

    /// One that has ended, if there is one.
    pub fn ended_already(&mut self) -> Option<Result<Delivery, E>> {
        loop {
            let ended = self.tasks.try_join_next_with_id()?;
            if let Some(result) = self.end(ended) {
                return Some(result);
            }
        }
    }

    /// The next one that ends: `None` if none is under way.
    pub async fn ended(&mut self) -> Option<Result<Delivery, E>> {
        loop {
            let ended = self.tasks.join_next_with_id().await?;
            if let Some(result) = self.end(ended) {
                return Some(result);
            }
        }
    }

    /// One that panicked was logged by the runtime, and counts as in vain.
    fn end(
        &mut self,
        ended: Result<(Id, Result<Delivery, E>), JoinError>,
    ) -> Option<Result<Delivery, E>> {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Some(result)),
            Err(error) => (error.id(), None),
        };
        let party = self.parties.remove(&id)?;
        if let Some(count) = self.under_way.get_mut(&party) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(&party);
            }
        }
        match &result {
            Some(Ok(Delivery::Done)) => {
                self.answering.insert(party);
            }
            Some(Ok(Delivery::InVain)) | None => {
                self.answering.remove(&party);
            }
            // Our own database's fault says nothing about the party.
            Some(Err(_)) => {}
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    /// One that ends so at once.
    async fn ends(deliveries: &mut Deliveries<()>, party: &str, how: Delivery) {
        deliveries.begin(party, async move { Ok(how) });
        while deliveries.to(party) > 0 {
            if deliveries.ended_already().is_none() {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn a_party_has_its_share_once_it_has_answered() {
        let mut deliveries = Deliveries::<()>::new();
        assert_eq!(deliveries.room("new"), 1);
        deliveries.begin("new", pending());
        assert_eq!(deliveries.room("new"), 0);
        ends(&mut deliveries, "answers", Delivery::Done).await;
        for left in (0..SHARE).rev() {
            assert_eq!(deliveries.room("answers"), left + 1);
            deliveries.begin("answers", pending());
        }
        assert_eq!(deliveries.room("answers"), 0);
        ends(&mut deliveries, "silent", Delivery::Done).await;
        ends(&mut deliveries, "silent", Delivery::InVain).await;
        assert_eq!(deliveries.room("silent"), 1);
    }

    #[tokio::test]
    async fn however_many_are_slow_or_hang_each_other_one_has_a_turn() {
        let mut deliveries = Deliveries::<()>::new();
        // Slow ones with a backlog take what they may.
        for at in 0..64 {
            let party = format!("slow {at}");
            ends(&mut deliveries, &party, Delivery::Done).await;
            while deliveries.room(&party) > 0 {
                deliveries.begin(&party, pending());
            }
        }
        assert!(deliveries.tasks.len() < AT_ONCE);
        assert_eq!(deliveries.room("another"), 1, "one that was never asked");
        ends(&mut deliveries, "answers", Delivery::Done).await;
        assert_eq!(deliveries.room("answers"), 1);
        // Hanging ones.
        let mut deliveries = Deliveries::<()>::new();
        ends(&mut deliveries, "answers", Delivery::Done).await;
        let mut begun = 0;
        for at in 0..2 * AT_ONCE {
            let party = format!("hangs {at}");
            if deliveries.room(&party) > 0 {
                deliveries.begin(&party, pending());
                begun += 1;
            }
        }
        assert_eq!(begun, OF_THE_UNPROVEN);
        assert!(deliveries.room("answers") > 0);
    }

    #[tokio::test]
    async fn who_waited_the_longest_comes_first() {
        let mut deliveries = Deliveries::<()>::new();
        ends(&mut deliveries, "a", Delivery::Done).await;
        ends(&mut deliveries, "b", Delivery::Done).await;
        deliveries.begin("c", pending());
        let all = ["c", "b", "a", "d"].map(str::to_owned).to_vec();
        assert_eq!(deliveries.in_turn(all), ["d", "a", "b", "c"]);
    }

    #[tokio::test]
    async fn one_that_panics_counts_as_in_vain() {
        let mut deliveries = Deliveries::<()>::new();
        ends(&mut deliveries, "breaks", Delivery::Done).await;
        deliveries.begin("breaks", async { panic!("on purpose") });
        assert_eq!(deliveries.ended().await, None);
        assert_eq!(deliveries.room("breaks"), 1);
    }
}
