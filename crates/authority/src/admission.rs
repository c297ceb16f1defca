//! Rate limits: the one place that every route asks whether a request may proceed.
//!
//! A cell (one unit of a rate) is taken before the work it pays for, and given back if the caller
//! turned out to be entitled to that work. A client that proves its identity is counted by that
//! identity alone, so failures of others never block a correct credential. A sender that proves
//! nothing is counted by address, for each row, fetch or page it costs, whether it succeeds or not.

use passavant_proto::event::Detail;
use passavant_store::AuditEvent;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Maximum number of keys that are tracked. Beyond it, those with the most cells left are
/// forgotten.
const MOST: usize = 50_000;

/// Try again in this many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy(pub u64);

/// Rate limiter by key: so many cells per minute, all of which may be taken at once.
#[derive(Debug)]
pub struct Cells {
    per_minute: f64,
    held: Mutex<HashMap<String, Cell>>,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    left: f64,
    at: Instant,
}

impl Cells {
    pub fn new(per_minute: NonZeroU32) -> Self {
        Self { per_minute: f64::from(per_minute.get()), held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Cell>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refilled(&self, cell: Cell, now: Instant) -> f64 {
        let since = now.saturating_duration_since(cell.at).as_secs_f64();
        (cell.left + since * self.per_minute / 60.0).min(self.per_minute)
    }

    /// Takes a cell of `key`, or returns how long to wait for one.
    pub fn take(&self, key: &str) -> Result<(), Busy> {
        self.take_at(key, Instant::now())
    }

    fn take_at(&self, key: &str, now: Instant) -> Result<(), Busy> {
        let mut held = self.held();
        if held.len() >= MOST && !held.contains_key(key) {
            // A key with all its cells left loses nothing by being forgotten.
            held.retain(|_, cell| self.refilled(*cell, now) < self.per_minute);
            if held.len() >= MOST {
                held.retain(|_, cell| self.refilled(*cell, now) < self.per_minute / 2.0);
            }
            if held.len() >= MOST {
                held.clear();
            }
        }
        let full = Cell { left: self.per_minute, at: now };
        let cell = held.entry(key.to_owned()).or_insert(full);
        let left = self.refilled(*cell, now);
        if left < 1.0 {
            *cell = Cell { left, at: now };
            let wait = (1.0 - left) * 60.0 / self.per_minute;
            return Err(Busy(Duration::from_secs_f64(wait).as_secs() + 1));
        }
        *cell = Cell { left: left - 1.0, at: now };
        Ok(())
    }

    /// Gives a cell back, because the caller was entitled to the work.
    pub fn give_back(&self, key: &str) {
        if let Some(cell) = self.held().get_mut(key) {
            cell.left = (cell.left + 1.0).min(self.per_minute);
        }
    }
}

/// The limits.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Requests of one address that prove nothing and cost something, per minute: failed sign-ins,
    /// failed client authentications, unknown codes and tokens, fetches of metadata documents.
    pub failures: NonZeroU32,
    /// ID-JAGs or tokens for one person through one client, per minute.
    pub grants: NonZeroU32,
    /// Introspections by one client, per minute.
    pub introspections: NonZeroU32,
}

impl Default for Rates {
    fn default() -> Self {
        let number = |n: u32| NonZeroU32::MIN.saturating_add(n - 1);
        Self { failures: number(30), grants: number(300), introspections: number(60_000) }
    }
}

/// Pushed requests of one address per minute, by clients that prove nothing: such a request is
/// legitimate but costs a row.
const PUSHES: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);
/// Registrations of one address per minute.
const REGISTRATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
/// New accounts and links of one issuer per minute.
const LINKS: NonZeroU32 = NonZeroU32::MIN.saturating_add(599);

/// The sender of a request, as far as it is proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Unproven: only the address is known.
    Unproven(String),
    /// This client.
    Proven(String),
}

impl Sender {
    /// Adds to the audit event of a refusal what is known about the sender. Of a sender that proved
    /// nothing that is the address alone.
    pub fn noted_in(&self, event: AuditEvent) -> AuditEvent {
        match self {
            Self::Unproven(address) => event.with(Detail::Address, address.as_str()),
            Self::Proven(_) => event,
        }
    }
}

/// The rate limiters of one authorization server.
#[derive(Debug)]
pub struct Admission {
    unproven: Cells,
    pushes: Cells,
    refusals: Cells,
    grants: Cells,
    introspections: Cells,
    registrations: Cells,
    links: Cells,
    devices: Cells,
    sign_ins: Mutex<HashMap<String, SignIns>>,
    rates: Rates,
}

/// Cells that were taken before it was known whether the caller is entitled to the work.
pub struct Taken<'a> {
    cells: &'a Cells,
    key: String,
}

impl Taken<'_> {
    /// The caller was entitled to it.
    pub fn give_back(self) {
        self.cells.give_back(&self.key);
    }
}

impl Admission {
    pub fn new(rates: Rates) -> Self {
        Self {
            unproven: Cells::new(rates.failures),
            pushes: Cells::new(PUSHES),
            refusals: Cells::new(rates.grants),
            grants: Cells::new(rates.grants),
            introspections: Cells::new(rates.introspections),
            registrations: Cells::new(REGISTRATIONS),
            links: Cells::new(LINKS),
            devices: Cells::new(rates.failures),
            sign_ins: Mutex::default(),
            rates,
        }
    }

    /// Call before work for a sender that proved nothing: a row, a fetch, or a redirect that begins
    /// something.
    pub fn unproven(&self, address: &str) -> Result<Taken<'_>, Busy> {
        self.unproven.take(address)?;
        Ok(Taken { cells: &self.unproven, key: address.to_owned() })
    }

    /// Call before a refusal is recorded.
    pub fn refusal(&self, sender: &Sender) -> Result<(), Busy> {
        match sender {
            Sender::Unproven(address) => self.unproven.take(address),
            Sender::Proven(client) => self.refusals.take(client),
        }
    }

    /// Call before a pushed request of a public client is stored.
    pub fn push(&self, address: &str) -> Result<(), Busy> {
        self.pushes.take(address)
    }

    /// Call before a grant is decided for a person through a client.
    pub fn grant(&self, client: &str, person: &str) -> Result<(), Busy> {
        self.grants.take(&format!("{} {client} {person}", client.len()))
    }

    /// Call before a token is looked up for a client.
    pub fn introspection(&self, client: &str) -> Result<(), Busy> {
        self.introspections.take(client)
    }

    /// Call before a registration is parsed.
    pub fn registration(&self, address: &str) -> Result<(), Busy> {
        self.registrations.take(address)
    }

    /// Call before a person of an issuer is linked.
    pub fn link(&self, issuer: &str) -> Result<(), Busy> {
        self.links.take(issuer)
    }

    fn sign_ins(&self) -> MutexGuard<'_, HashMap<String, SignIns>> {
        self.sign_ins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call before a password is checked. A browser in which this person has signed in before
    /// (`known`) has its own limit, so that nobody else can lock the person out. All other browsers
    /// are counted by address and by person.
    pub fn sign_in(
        &self,
        address: &str,
        person: &str,
        known: Option<&str>,
    ) -> Result<Attempt<'_>, Busy> {
        if let Some(device) = known {
            let key = format!("{person} {device}");
            self.devices.take(&key)?;
            let taken = vec![Taken { cells: &self.devices, key }];
            return Ok(Attempt { admission: self, person: None, taken });
        }
        let mut taken = Vec::new();
        for key in [format!("sign-in {address}"), format!("person {person}")] {
            if let Err(busy) = self.unproven.take(&key) {
                // No work was done for these cells.
                taken.into_iter().for_each(Taken::give_back);
                return Err(busy);
            }
            taken.push(Taken { cells: &self.unproven, key });
        }
        let now = Instant::now();
        let mut all = self.sign_ins();
        if all.len() >= MOST {
            all.retain(|_, held| held.under_way > 0 || held.is_recent(now));
        }
        let held = all.entry(person.to_owned()).or_insert_with(|| SignIns::new(now));
        let wait = held.not_before.saturating_duration_since(now);
        if held.under_way >= AT_ONCE || !wait.is_zero() {
            drop(all);
            taken.into_iter().for_each(Taken::give_back);
            return Err(if wait.is_zero() { UNDER_WAY } else { Busy(wait.as_secs() + 1) });
        }
        held.under_way += 1;
        drop(all);
        Ok(Attempt { admission: self, person: Some(person.to_owned()), taken })
    }
}

/// Concurrent password checks of one person, from browsers that are not known.
const AT_ONCE: u32 = 2;
/// The maximum number of checks is in progress: nothing has failed, and a moment later there is
/// room.
pub const UNDER_WAY: Busy = Busy(0);
/// Longest pause between two attempts for one person, after many consecutive failures. A hundred
/// attempts a day are of no use to an attacker (NIST SP 800-63B, 5.2.2).
const LONGEST_PAUSE: Duration = Duration::from_mins(15);

#[derive(Debug)]
struct SignIns {
    /// Consecutive failures.
    failures: u32,
    not_before: Instant,
    under_way: u32,
}

impl SignIns {
    fn new(now: Instant) -> Self {
        Self { failures: 0, not_before: now, under_way: 0 }
    }

    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.not_before) < Duration::from_hours(24)
    }
}

/// One check of a password.
pub struct Attempt<'a> {
    admission: &'a Admission,
    person: Option<String>,
    taken: Vec<Taken<'a>>,
}

impl Attempt<'_> {
    /// The password was right: the failures counted for this person are forgotten.
    pub fn right(mut self) {
        std::mem::take(&mut self.taken).into_iter().for_each(Taken::give_back);
        if let Some(person) = &self.person
            && let Some(held) = self.admission.sign_ins().get_mut(person)
        {
            held.failures = 0;
        }
    }

    /// The password was not checked.
    pub fn undone(mut self) {
        std::mem::take(&mut self.taken).into_iter().for_each(Taken::give_back);
    }

    /// The password was wrong. After as many consecutive failures as the limit per minute, each
    /// further one doubles the pause.
    pub fn wrong(self) {
        let Some(person) = &self.person else { return };
        let now = Instant::now();
        if let Some(held) = self.admission.sign_ins().get_mut(person) {
            held.failures = held.failures.saturating_add(1);
            let beyond = held.failures.saturating_sub(self.admission.rates.failures.get());
            if beyond > 0 {
                let pause = Duration::from_secs(1_u64 << beyond.min(20));
                held.not_before = now + pause.min(LONGEST_PAUSE);
            } else {
                held.not_before = now;
            }
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(person) = &self.person
            && let Some(held) = self.admission.sign_ins().get_mut(person)
        {
            held.under_way = held.under_way.saturating_sub(1);
        }
    }
}

/// The key of an address: of IPv6 the /64, because one customer holds a whole one.
pub fn address_key(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// A sender whose identity is not known yet, and the rate limiters that its cost is taken from.
#[derive(Clone, Copy)]
pub struct Visitor<'a> {
    pub admission: &'a Admission,
    pub address: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(failures: u32) -> Rates {
        Rates { failures: NonZeroU32::new(failures).unwrap(), ..Rates::default() }
    }

    #[test]
    fn a_key_has_so_many_cells_a_minute_and_other_keys_theirs() {
        let cells = Cells::new(NonZeroU32::new(3).unwrap());
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(cells.take_at("a", start), Ok(()));
        }
        assert_eq!(cells.take_at("a", start), Err(Busy(21)));
        assert_eq!(cells.take_at("b", start), Ok(()));
        assert_eq!(cells.take_at("a", start + Duration::from_secs(20)), Ok(()));
        assert!(cells.take_at("a", start + Duration::from_secs(20)).is_err());
        cells.give_back("a");
        assert_eq!(cells.take_at("a", start + Duration::from_secs(20)), Ok(()));
        let later = start + Duration::from_hours(1);
        for _ in 0..3 {
            assert_eq!(cells.take_at("a", later), Ok(()));
        }
        assert!(cells.take_at("a", later).is_err(), "an hour does not save up more");
    }

    #[test]
    fn made_up_keys_take_bounded_space() {
        let cells = Cells::new(NonZeroU32::new(3).unwrap());
        for n in 0..2 * MOST {
            let _ = cells.take(&n.to_string());
        }
        assert!(cells.held().len() <= MOST);
    }

    #[test]
    fn passwords_are_counted_before_they_are_checked() {
        let admission = Admission::new(rates(5));
        let under_way: Vec<_> =
            (0..100).filter_map(|_| admission.sign_in("a", "erin", None).ok()).collect();
        assert_eq!(under_way.len(), 2, "two at a time");
        under_way.into_iter().for_each(Attempt::wrong);
        let mut checked = 2;
        for _ in 0..100 {
            if let Ok(attempt) = admission.sign_in("a", "erin", None) {
                checked += 1;
                attempt.wrong();
            }
        }
        assert_eq!(checked, 5);
        // Attempts from other addresses use up the person's own cells too.
        assert!(admission.sign_in("b", "erin", None).is_err());
        assert!(admission.sign_in("b", "max", None).is_ok(), "nobody else waits");
        // A known browser is still admitted, and has a limit of its own.
        for _ in 0..5 {
            admission.sign_in("a", "erin", Some("laptop")).unwrap().wrong();
        }
        assert!(admission.sign_in("a", "erin", Some("laptop")).is_err());
        assert!(admission.sign_in("a", "erin", Some("phone")).is_ok());
    }

    #[test]
    fn many_failures_in_a_row_make_pauses_that_grow_and_a_right_one_ends_them() {
        let admission = Admission::new(rates(5));
        let pause = |admission: &Admission| {
            let held = admission.sign_ins();
            held["erin"].not_before.saturating_duration_since(Instant::now()).as_secs()
        };
        let fail = |count: u32| {
            for _ in 0..count {
                let attempt = Attempt {
                    admission: &admission,
                    person: Some("erin".to_owned()),
                    taken: Vec::new(),
                };
                attempt.wrong();
            }
        };
        admission.sign_in("a", "erin", None).unwrap().undone();
        fail(5);
        assert_eq!(pause(&admission), 0);
        fail(3);
        assert!((6..=8).contains(&pause(&admission)), "{}", pause(&admission));
        fail(100);
        assert!(pause(&admission) <= LONGEST_PAUSE.as_secs());
        assert!(admission.sign_in("b", "erin", None).is_err());
        let right =
            Attempt { admission: &admission, person: Some("erin".to_owned()), taken: Vec::new() };
        right.right();
        assert_eq!(admission.sign_ins()["erin"].failures, 0);
    }

    #[test]
    fn an_address_is_one_however_it_is_written() {
        let key = |text: &str| address_key(text.parse().unwrap());
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    }
}
