//! Accounts of this server's own: passkeys, one-time passwords, recovery, and what a person does with
//! their account.

use crate::administration::with_key;
use passavant_admin::types::{
    ClientChange, Clients, Connections, NewPersonLink, NewRecoveryLink, RecoveryLinkView, Users,
};
use passavant_proto::{
    event::RequestEvent,
    jose::jwk::Algorithm,
    oidc::totp,
    secret::Secret,
    ssf::{EventType, StreamStatus},
    time::Timestamp,
};
use passavant_store::{AuditEvent, AuditFilter, Installation, SignalStream};
use passavant_tests::{
    authenticator::{Authenticator, UP},
    forge::Parts,
    outsider::Browser,
    upstream::FakeUpstream,
    world::{AGENT, Ask, CALLBACK, PASSWORD, Reply, Wishes, World},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

async fn company() -> World {
    World::with(Wishes { named: true, ..Wishes::default() }).await
}

/// The value of the first field of this name after `from`.
fn field(page: &str, name: &str) -> String {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).expect(name);
    unescaped(rest.split('"').next().unwrap())
}

fn unescaped(text: &str) -> String {
    text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// The form that asks for a passkey: its options, and its part of the page.
fn passkey_form(page: &str) -> (Value, String) {
    let (_, form) = page.split_once("data-options=\"").expect("a form for a passkey");
    let options = unescaped(form.split('"').next().unwrap());
    (serde_json::from_str(&options).unwrap(), form.to_owned())
}

fn post(world: &World, url: &str, fields: &[(&str, &str)]) -> Ask {
    let form = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Ask { url: url.to_owned(), form: form.collect(), headers: Vec::new(), method: Method::POST }
        .header("origin", world.idp.origin())
}

/// The session cookie of a browser, if it has one.
fn is_signed_in(browser: &Browser) -> bool {
    browser.cookies().contains("passavant-session=")
}

struct Person<'a> {
    world: &'a World,
    browser: Browser,
}

impl Person<'_> {
    fn new(world: &World) -> Person<'_> {
        Person { world, browser: Browser::default() }
    }

    fn account(&self) -> String {
        self.world.idp.endpoint("/account")
    }

    async fn get(&mut self, url: &str) -> Reply {
        self.browser.get(self.world, url).await
    }

    async fn post(&mut self, url: &str, fields: &[(&str, &str)]) -> Reply {
        let ask = post(self.world, url, fields);
        self.browser.ask(self.world, ask).await
    }

    /// Signs in with a password at a page: what it shows then.
    async fn password(&mut self, url: &str, username: &str) -> Reply {
        self.this_password(url, username, PASSWORD).await
    }

    async fn this_password(&mut self, url: &str, username: &str, password: &str) -> Reply {
        let page = self.get(url).await;
        let csrf = field(&page.text, "csrf");
        let fields = [("csrf", &*csrf), ("username", username), ("password", password)];
        self.post(url, &fields).await
    }

    /// Sets another password on the account.
    async fn set_password(&mut self, new: &str, repeated: &str) -> Reply {
        self.act("set_password", &[("new_password", new), ("repeated", repeated)]).await
    }

    /// Signs in with a passkey at a page.
    async fn passkey(&mut self, url: &str, key: &mut Authenticator) -> Reply {
        let page = self.get(url).await;
        let (options, form) = passkey_form(&page.text);
        let answer = key.sign(&options);
        self.answer(url, &form, &answer).await
    }

    async fn answer(&mut self, url: &str, form: &str, answer: &str) -> Reply {
        let (csrf, state) = (field(form, "csrf"), field(form, "state"));
        self.post(url, &[("csrf", &csrf), ("state", &state), ("passkey", answer)]).await
    }

    /// Adds a passkey to the account of whoever is signed in.
    async fn add_passkey(&mut self, key: &mut Authenticator) -> Reply {
        let made = self.make_passkey(key).await;
        self.send_passkey(&made).await
    }

    /// Opens the page and has a passkey made: what the form sends.
    async fn make_passkey(&mut self, key: &mut Authenticator) -> [String; 3] {
        let account = self.account();
        let page = self.get(&account).await;
        let (options, form) = passkey_form(&page.text);
        assert_eq!(options["authenticatorSelection"]["residentKey"], "required");
        assert_eq!(options["authenticatorSelection"]["userVerification"], "required");
        [field(&form, "csrf"), field(&form, "state"), key.make(&options)]
    }

    async fn send_passkey(&mut self, [csrf, state, made]: &[String; 3]) -> Reply {
        let account = self.account();
        let fields = [
            ("act", "add_passkey"),
            ("csrf", csrf),
            ("state", state),
            ("passkey", made),
            ("name", "laptop"),
        ];
        self.post(&account, &fields).await
    }

    async fn act(&mut self, act: &str, more: &[(&str, &str)]) -> Reply {
        let account = self.account();
        let page = self.get(&account).await;
        let csrf = field(&page.text, "csrf");
        let mut fields = vec![("act", act), ("csrf", &*csrf)];
        fields.extend(more);
        self.post(&account, &fields).await
    }

    /// Sets up one-time passwords: the seed, and the recovery codes.
    async fn set_up_totp(&mut self) -> (totp::Seed, Vec<String>) {
        let page = self.act("begin_totp", &[]).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let (_, letters) = page.text.split_once("Letters: ").unwrap();
        let letters: String = letters.split('<').next().unwrap().split(' ').collect();
        let seed = seed_of(&letters);
        let (csrf, sealed) = (field(&page.text, "csrf"), field(&page.text, "seed"));
        let code = code(&seed, self.world.now().0);
        let account = self.account();
        let fields =
            [("act", "confirm_totp"), ("csrf", &*csrf), ("seed", &*sealed), ("code", &*code)];
        let done = self.post(&account, &fields).await;
        assert_eq!(done.status, 200, "{}", done.text);
        let (_, list) = done.text.split_once("<ul class=\"codes\">").expect("recovery codes");
        let codes = list.split("<li>").skip(1).map(|one| one.split('<').next().unwrap().to_owned());
        (seed, codes.collect())
    }
}

fn seed_of(letters: &str) -> totp::Seed {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits: Vec<u8> = letters
        .chars()
        .flat_map(|c| {
            let number = u8::try_from(alphabet.find(c).unwrap()).unwrap();
            (0..5).rev().map(move |at| number >> at & 1)
        })
        .collect();
    let bytes = bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |n, bit| n << 1 | bit));
    bytes.collect::<Vec<u8>>().try_into().unwrap()
}

/// The code at a moment.
fn code(seed: &totp::Seed, now: i64) -> String {
    totp::code(seed, now.div_euclid(totp::STEP))
}

/// The code behind the `#` of a one-time link.
fn code_of(made: &RecoveryLinkView) -> String {
    made.link.as_deref().unwrap().split_once('#').unwrap().1.to_owned()
}

async fn reasons(world: &World) -> Vec<String> {
    let filter = AuditFilter { limit: 200, ..AuditFilter::default() };
    let rows = world.idp_store.audit(&filter).await.unwrap();
    rows.into_iter().filter_map(|row| row.details.get("reason").cloned()).collect()
}

/// Redeems the code of a sign-in.
async fn tokens(world: &World, reply: &Reply, verifier: &str) -> Value {
    let at = reply.header("location");
    assert!(at.starts_with(CALLBACK), "{at} {}", reply.text);
    let back: BTreeMap<String, String> =
        url::Url::parse(at).unwrap().query_pairs().into_owned().collect();
    let form = [
        ("grant_type", "authorization_code"),
        ("code", back["code"].as_str()),
        ("redirect_uri", CALLBACK),
        ("code_verifier", verifier),
    ];
    let reply = world.send(&world.ask(&world.idp, "/token", &form)).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json
}

fn claims(tokens: &Value) -> Value {
    Parts::of(tokens["id_token"].as_str().unwrap()).claims
}

everywhere!(
    two_changes_at_once_leave_a_way_in_and_add_no_weak_one,
    others_answers_keep_nobody_from_their_passkey,
    a_link_is_told_once_and_kept_nowhere,
    another_password_takes_a_fresh_sign_in_and_ends_all_of_them,
    a_passkey_is_added_signs_in_and_is_what_a_connection_may_ask_for,
    what_is_no_answer_to_this_challenge_signs_nobody_in,
    a_sign_in_page_says_nothing_of_who_has_passkeys,
    a_code_follows_the_password_once_it_is_set_up,
    codes_are_not_guessed_and_a_known_browser_is_not_kept_out,
    how_somebody_signs_in_is_changed_by_a_fresh_sign_in_that_is_as_strong,
    an_administrators_link_lets_one_person_in_once,
    what_was_enrolled_by_a_password_ends_with_it_whichever_way_it_ends,
    who_signs_in_at_an_upstream_changes_that_there,
    an_account_shows_what_is_a_persons_own_and_ends_it,
    an_id_token_says_when_the_sign_in_ends_and_a_refresh_moves_nothing,
    whoever_listens_is_told_of_ways_to_sign_in_and_of_stronger_sign_ins
);

mod cases {
    use super::*;

    pub(super) async fn a_passkey_is_added_signs_in_and_is_what_a_connection_may_ask_for() {
        let world = company().await;
        let mut erin = Person::new(&world);
        let account = erin.account();
        let signed_in = erin.password(&account, "erin").await;
        assert_eq!((signed_in.status, signed_in.header("location")), (303, account.as_str()));
        let mut key = Authenticator::new(world.idp.origin());
        let added = erin.add_passkey(&mut key).await;
        assert!(added.text.contains("The passkey is added"), "{}", added.text);
        assert!(
            !added.text.contains("erin-id") || !key.handle.contains("erin"),
            "a handle names nobody"
        );
        // A connection may ask for it.
        let change = json!({"conditions": {"acr_values": ["phr"]}});
        let change = serde_json::from_value(change).unwrap();
        world.idp_admin().change::<Connections>("agent-canvas", &change, None).await.unwrap();
        let weak = world.sign_in().await;
        let refused = world.send(&world.exchange(&weak.id_token)).await;
        assert_eq!(refused.str("error"), "insufficient_user_authentication", "{}", refused.text);
        assert_eq!(refused.str("acr_values"), "phr");
        // The client signs the person in once more, asking for it, and goes on: no user name is typed.
        let (url, verifier) = world.authorize_url(AGENT, "&acr_values=phr");
        let mut fresh = Person::new(&world);
        let reply = fresh.passkey(&url, &mut key).await;
        let strong = tokens(&world, &reply, &verifier).await;
        let held = claims(&strong);
        assert_eq!((held["acr"].as_str(), held["sub"].as_str()), (Some("phr"), Some("erin-id")));
        assert_eq!(held["amr"], json!(["swk", "user", "mfa"]));
        assert_eq!(held["auth_time"], world.now().0);
        let granted = world.send(&world.exchange(strong["id_token"].as_str().unwrap())).await;
        assert_eq!(granted.status, 200, "{}", granted.text);
        // A browser that is signed in by password is asked again where more is wished for.
        let (url, _) = world.authorize_url(AGENT, "&acr_values=phr");
        let mut by_password = Person::new(&world);
        by_password.password(&account, "erin").await;
        let asked = by_password.get(&url).await;
        assert_eq!(
            asked.status,
            200,
            "a stronger sign-in is offered: {}",
            asked.header("location")
        );
        let more = by_password.passkey(&url, &mut key).await;
        assert!(more.header("location").starts_with(CALLBACK));
        // One with a passkey does where a password or two factors are asked for.
        let (url, verifier) = world.authorize_url(AGENT, "&acr_values=urn:passavant:acr:mfa");
        let reply = fresh.get(&url).await;
        assert_eq!(claims(&tokens(&world, &reply, &verifier).await)["acr"], "phr");
        let filter = AuditFilter {
            event: Some("credential.added".to_owned()),
            limit: 9,
            ..AuditFilter::default()
        };
        assert_eq!(
            world.idp_store.audit(&filter).await.unwrap()[0].details["detail"],
            "passkey laptop"
        );
    }

    pub(super) async fn what_is_no_answer_to_this_challenge_signs_nobody_in() {
        let world = company().await;
        let account = world.idp.endpoint("/account");
        let mut erin = Person::new(&world);
        erin.password(&account, "erin").await;
        let mut key = Authenticator::new(world.idp.origin());
        erin.add_passkey(&mut key).await;
        let mut max = Person::new(&world);
        max.password(&account, "max").await;
        let mut other = Authenticator::new(world.idp.origin());
        max.add_passkey(&mut other).await;
        let rp_id = key.rp_id.clone();
        let spoil: [(&str, &dyn Fn(&mut Authenticator)); 9] = [
            ("not verified", &|key| key.flags = UP),
            ("not present", &|key| key.flags = 4),
            ("another origin", &|key| key.origin = "https://evil.example".into()),
            ("another port", &|key| key.origin = "http://localhost:1".into()),
            ("another name", &|key| key.rp_id = "evil.example".into()),
            ("framed", &|key| key.more = json!({"crossOrigin": true})),
            ("framed by name", &|key| key.more = json!({"topOrigin": "https://evil.example"})),
            ("another type", &|key| key.kind = "webauthn.create".into()),
            ("another challenge", &|key| {
                key.more = json!({"challenge": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"});
            }),
        ];
        for (what, spoil) in spoil {
            spoil(&mut key);
            let mut visitor = Person::new(&world);
            let reply = visitor.passkey(&account, &mut key).await;
            assert_eq!(reply.status, 401, "{what}: {}", reply.text);
            assert!(!is_signed_in(&visitor.browser), "{what}");
            assert!(reply.text.contains("That passkey did not work here"), "{what}");
            (key.flags, key.more, key.kind) = (5, json!({}), String::new());
            (key.origin, key.rp_id) = (world.idp.origin().to_owned(), rp_id.clone());
        }
        // Another person's handle, another person's credential, none at all.
        let (own, handle) = (key.handle.clone(), other.handle.clone());
        key.handle.clone_from(&handle);
        assert_eq!(Person::new(&world).passkey(&account, &mut key).await.status, 401);
        key.handle = own;
        let id = std::mem::replace(&mut key.id, other.id.clone());
        assert_eq!(Person::new(&world).passkey(&account, &mut key).await.status, 401);
        key.id = id;
        let mut unknown = Authenticator::new(world.idp.origin());
        unknown.handle.clone_from(&key.handle);
        assert_eq!(Person::new(&world).passkey(&account, &mut unknown).await.status, 401);
        // The answer serves once, in the browser that was asked, within ten minutes.
        let mut visitor = Person::new(&world);
        let page = visitor.get(&account).await;
        let (options, form) = passkey_form(&page.text);
        let answer = key.sign(&options);
        let mut stranger = Person::new(&world);
        let theirs = stranger.get(&account).await;
        let (csrf, state) = (field(&theirs.text, "csrf"), field(&form, "state"));
        let stolen = stranger
            .post(&account, &[("csrf", &csrf), ("state", &state), ("passkey", &answer)])
            .await;
        assert_eq!(stolen.status, 401, "another browser's challenge");
        assert!(!is_signed_in(&stranger.browser));
        let mut again = Person { world: &world, browser: visitor.browser.clone() };
        let right = visitor.answer(&account, &form, &answer).await;
        assert_eq!(right.status, 303, "{}", right.text);
        let twice = again.answer(&account, &form, &answer).await;
        assert_eq!(twice.status, 401, "{}", twice.text);
        let mut late = Person::new(&world);
        let page = late.get(&account).await;
        let (options, form) = passkey_form(&page.text);
        let answer = key.sign(&options);
        world.pass(601);
        assert_eq!(late.answer(&account, &form, &answer).await.status, 401);
        // A count that goes back: there may be a copy.
        key.counter = 0;
        assert_eq!(Person::new(&world).passkey(&account, &mut key).await.status, 401);
        assert_eq!(reasons(&world).await[0], "sign_in.passkey_copied");
        // What is no answer at all.
        for junk in ["", "{}", "[]", "null", "{\"id\":1}", &"x".repeat(20_000)] {
            let mut visitor = Person::new(&world);
            let page = visitor.get(&account).await;
            let (_, form) = passkey_form(&page.text);
            let reply = visitor.answer(&account, &form, junk).await;
            assert!(matches!(reply.status, 400 | 401), "{junk}: {}", reply.text);
        }
        // Switched off: no longer.
        key.counter = 1000;
        assert_eq!(Person::new(&world).passkey(&account, &mut key).await.status, 303);
        world.idp_admin().switch::<Users>("erin", false).await.unwrap();
        assert_eq!(Person::new(&world).passkey(&account, &mut key).await.status, 401);
    }

    pub(super) async fn a_sign_in_page_says_nothing_of_who_has_passkeys() {
        let world = company().await;
        let account = world.idp.endpoint("/account");
        let mut erin = Person::new(&world);
        erin.password(&account, "erin").await;
        erin.add_passkey(&mut Authenticator::new(world.idp.origin())).await;
        let mut told = Vec::new();
        for name in ["erin", "max", "nobody"] {
            let mut visitor = Person::new(&world);
            let page = visitor.get(&account).await;
            let (options, _) = passkey_form(&page.text);
            assert_eq!(options["allowCredentials"], json!([]));
            assert_eq!(options["userVerification"], "required");
            assert_eq!(options["rpId"], "localhost");
            let csrf = field(&page.text, "csrf");
            let wrong = visitor
                .post(
                    &account,
                    &[("csrf", &csrf), ("username", name), ("password", "wrong password 12")],
                )
                .await;
            assert_eq!(wrong.status, 401);
            let (head, _) = wrong.text.split_once("<form").unwrap();
            told.push(head.to_owned());
        }
        assert!(told.windows(2).all(|two| two[0] == two[1]));
        // The script is ours, by its address, and nothing else runs.
        let page = Person::new(&world).get(&account).await;
        let policy = page.header("content-security-policy");
        assert!(
            policy.contains(&format!("script-src {}", world.idp.endpoint("/passkey.js"))),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"));
        let script = Person::new(&world).get(&world.idp.endpoint("/passkey.js")).await;
        assert_eq!(script.status, 200);
        assert!(script.header("content-type").starts_with("text/javascript"));
    }

    pub(super) async fn a_code_follows_the_password_once_it_is_set_up() {
        let world = company().await;
        let account = world.idp.endpoint("/account");
        let mut erin = Person::new(&world);
        erin.password(&account, "erin").await;
        let (seed, codes) = erin.set_up_totp().await;
        assert_eq!(codes.len(), 10);
        assert!(codes.iter().all(|code| code.len() == 23));
        // The password alone opens nothing.
        let (url, verifier) = world.authorize_url(AGENT, "");
        let mut visitor = Person::new(&world);
        let second = visitor.password(&url, "erin").await;
        assert_eq!(second.status, 200);
        assert!(second.text.contains("Your password is right"));
        assert!(!is_signed_in(&visitor.browser));
        let (csrf, sealed) = (field(&second.text, "csrf"), field(&second.text, "second"));
        // The code that confirmed it is used.
        let now = world.now().0;
        let used = code(&seed, now);
        let reply =
            visitor.post(&url, &[("csrf", &csrf), ("second", &sealed), ("code", &used)]).await;
        assert_eq!(reply.status, 401, "{}", reply.text);
        assert_eq!(reasons(&world).await[0], "sign_in.second_factor");
        world.pass(30);
        let right = code(&seed, now + 30);
        // Nobody skips the first step: what was sealed is another browser's, or somebody else's.
        let mut stranger = Person::new(&world);
        let page = stranger.get(&url).await;
        let theirs = field(&page.text, "csrf");
        for (csrf, sealed) in [(&theirs, sealed.as_str()), (&theirs, "AAAA"), (&theirs, "")] {
            let fields = [("csrf", csrf.as_str()), ("second", sealed), ("code", right.as_str())];
            let skipped = stranger.post(&url, &fields).await;
            assert_eq!(skipped.status, 401, "{}", skipped.text);
            assert!(!is_signed_in(&stranger.browser));
        }
        let spaced = format!("{} {}", &right[..3], &right[3..]);
        let reply =
            visitor.post(&url, &[("csrf", &csrf), ("second", &sealed), ("code", &spaced)]).await;
        let held = claims(&tokens(&world, &reply, &verifier).await);
        assert_eq!(held["acr"], "urn:passavant:acr:mfa");
        assert_eq!(held["amr"], json!(["pwd", "otp", "mfa"]));
        // A recovery code serves once, however it is typed.
        let recovery = codes[3].replace('-', " ").to_lowercase();
        for expected in [303, 401] {
            let mut visitor = Person::new(&world);
            let second = visitor.password(&account, "erin").await;
            let (csrf, sealed) = (field(&second.text, "csrf"), field(&second.text, "second"));
            let fields = [("csrf", &*csrf), ("second", &*sealed), ("code", &*recovery)];
            let reply = visitor.post(&account, &fields).await;
            assert_eq!(reply.status, expected, "{}", reply.text);
        }
        // Five minutes for the second step, and not a password that was changed meanwhile.
        let mut slow = Person::new(&world);
        let second = slow.password(&account, "erin").await;
        let (csrf, sealed) = (field(&second.text, "csrf"), field(&second.text, "second"));
        world.pass(301);
        let late = code(&seed, world.now().0);
        let reply =
            slow.post(&account, &[("csrf", &csrf), ("second", &sealed), ("code", &late)]).await;
        assert_eq!(reply.status, 401);
        assert!(reply.text.contains("That took too long"));
    }

    pub(super) async fn codes_are_not_guessed_and_a_known_browser_is_not_kept_out() {
        let world = company().await;
        let account = world.idp.endpoint("/account");
        let mut erin = Person::new(&world);
        erin.password(&account, "erin").await;
        let (seed, codes) = erin.set_up_totp().await;
        let known = erin.browser.clone();
        let mut guesser = Person::new(&world);
        let second = guesser.password(&account, "erin").await;
        let (csrf, sealed) = (field(&second.text, "csrf"), field(&second.text, "second"));
        let (mut looked_at, mut waited) = (0, 0);
        for n in 0..200 {
            let guess = format!("{n:06}");
            let fields = [("csrf", &*csrf), ("second", &*sealed), ("code", &*guess)];
            let reply = guesser.post(&account, &fields).await;
            match reply.status {
                401 => looked_at += 1,
                429 => waited += 1,
                other => panic!("{other}: {}", reply.text),
            }
        }
        assert!(looked_at <= 10 && waited >= 190, "{looked_at} guesses were looked at");
        // Nor is whoever has a recovery code, in whichever browser.
        let mut elsewhere = Person::new(&world);
        let second = elsewhere.password(&account, "erin").await;
        let (csrf, sealed) = (field(&second.text, "csrf"), field(&second.text, "second"));
        let fields = [("csrf", &*csrf), ("second", &*sealed), ("code", &*codes[0])];
        let reply = elsewhere.post(&account, &fields).await;
        assert_eq!(reply.status, 303, "{}", reply.text);
        // The person, in the browser that they signed in from before, goes on.
        world.pass(30);
        let mut at_home = Person { world: &world, browser: known };
        at_home.get(&world.idp.endpoint("/logout")).await;
        let (url, _) = world.authorize_url(AGENT, "&prompt=login");
        let second = at_home.password(&url, "erin").await;
        let (csrf, sealed) = (field(&second.text, "csrf"), field(&second.text, "second"));
        let right = code(&seed, world.now().0);
        let reply =
            at_home.post(&url, &[("csrf", &csrf), ("second", &sealed), ("code", &right)]).await;
        assert_eq!(reply.status, 303, "{}", reply.text);
        assert_eq!(codes.len(), 10);
    }

    pub(super) async fn how_somebody_signs_in_is_changed_by_a_fresh_sign_in_that_is_as_strong() {
        let world = company().await;
        let account = world.idp.endpoint("/account");
        let mut erin = Person::new(&world);
        erin.password(&account, "erin").await;
        let mut key = Authenticator::new(world.idp.origin());
        assert_eq!(erin.add_passkey(&mut key).await.status, 200);
        // A password takes no passkey away, and adds none beside it.
        let page = erin.get(&account).await;
        let id = field(page.text.split_once("remove_passkey").unwrap().1, "id");
        let refused = erin.act("remove_passkey", &[("id", &id)]).await;
        assert_eq!(refused.status, 403, "{}", refused.text);
        assert!(refused.text.contains("sign in again now"));
        // No device is asked to make one that would not be added.
        assert!(!page.text.contains("data-passkey=\"create\""), "{}", page.text);
        assert!(erin.act("again", &[]).await.text.contains("sign in again now"));
        let mut strong = Person::new(&world);
        strong.passkey(&account, &mut key).await;
        // Nor does a strong one of a while ago.
        let mut later = Person { world: &world, browser: strong.browser.clone() };
        let mut another = Authenticator::new(world.idp.origin());
        assert_eq!(strong.add_passkey(&mut another).await.status, 200);
        world.pass(301);
        assert_eq!(later.act("begin_totp", &[]).await.status, 403);
        assert_eq!(later.act("remove_passkey", &[("id", &id)]).await.status, 403);
        // The same credential is nobody's second one.
        let mut max = Person::new(&world);
        max.password(&account, "max").await;
        let taken = max.add_passkey(&mut key).await;
        assert!(taken.text.contains("in use already"), "{}", taken.text);
        // A form of another person's page, or of another site, does nothing.
        let foreign = post(&world, &account, &[("act", "sign_out_everywhere"), ("csrf", "AAAA")]);
        assert_eq!(max.browser.clone().ask(&world, foreign).await.status, 403);
        let cross = post(&world, &account, &[("act", "sign_out_everywhere")])
            .no_header("origin")
            .header("origin", "https://evil.example");
        assert_eq!(max.browser.clone().ask(&world, cross).await.status, 403);
        // Who has no password keeps the last passkey.
        let new = json!({"username": "nora"});
        let nora =
            world.idp_admin().add::<Users>(&serde_json::from_value(new).unwrap()).await.unwrap();
        let link =
            world.idp_admin().recovery_link(&nora.id, &NewRecoveryLink::default()).await.unwrap();
        let mut nora = Person::new(&world);
        let recover = world.idp.endpoint("/recover");
        let code = code_of(&link);
        assert_eq!(nora.post(&recover, &[("code", &code)]).await.status, 303);
        let mut hers = Authenticator::new(world.idp.origin());
        assert_eq!(nora.add_passkey(&mut hers).await.status, 200);
        let page = nora.get(&account).await;
        let id = field(page.text.split_once("remove_passkey").unwrap().1, "id");
        let last = nora.act("remove_passkey", &[("id", &id)]).await;
        assert_eq!(last.status, 409, "{}", last.text);
        assert!(!page.text.contains("Authenticator application"), "codes go with a password");
    }

    pub(super) async fn whoever_listens_is_told_of_ways_to_sign_in_and_of_stronger_sign_ins() {
        let world = company().await;
        let account = world.idp.endpoint("/account");
        let stream = SignalStream {
            id: "s".to_owned(),
            client_id: AGENT.to_owned(),
            events: EventType::TOLD.to_vec(),
            endpoint_url: None,
            sealed: None,
            description: String::new(),
            status: StreamStatus::Enabled,
            reason: String::new(),
            created_at: world.now(),
            tries: 0,
            failing_since: Timestamp(0),
            failure: String::new(),
            version: 0,
            holds: 0,
        };
        let event = AuditEvent::granted(RequestEvent::SignalStream, world.now());
        assert!(!world.idp_store.create_stream(&stream, event.clone()).await.unwrap());
        let listening: ClientChange =
            serde_json::from_value(json!({"signals": "its_people"})).unwrap();
        world.idp_admin().change::<Clients>(AGENT, &listening, None).await.unwrap();
        assert!(world.idp_store.create_stream(&stream, event).await.unwrap());
        // What was written since the last look: the event and what it says.
        let written = async || {
            let all = world.idp_store.signals("s", 50).await.unwrap();
            let jtis: Vec<String> = all.iter().map(|signal| signal.jti.clone()).collect();
            world.idp_store.end_signals("s", &jtis, &[]).await.unwrap();
            assert!(all.iter().all(|signal| signal.user_id == "erin-id"));
            let facts = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
            let told = all.iter().map(|signal| (signal.event.clone(), facts(&signal.facts)));
            told.collect::<Vec<_>>()
        };
        let credential = |kind: &str, change: &str| {
            let facts = json!({"credential_type": kind, "change_type": change});
            ("credential-change".to_owned(), facts)
        };
        let mut erin = Person::new(&world);
        erin.password(&account, "erin").await;
        let mut key = Authenticator::new(world.idp.origin());
        assert_eq!(erin.add_passkey(&mut key).await.status, 200);
        assert_eq!(written().await, [credential("fido2-platform", "create")]);
        // The same person in the same browser, by something stronger; not the other way round.
        let (url, _) = world.authorize_url(AGENT, "&prompt=login");
        assert_eq!(erin.passkey(&url, &mut key).await.status, 303);
        let told = written().await;
        assert_eq!((told.len(), told[0].0.as_str()), (1, "assurance-level-change"));
        let facts = &told[0].1;
        assert_eq!(facts["change_direction"], "increase");
        assert_eq!(facts["previous_level"], "urn:passavant:acr:password");
        assert_eq!(facts["current_level"], "phr");
        erin.set_up_totp().await;
        assert_eq!(written().await, [credential("app", "create")]);
        let page = erin.get(&account).await;
        let id = field(page.text.split_once("remove_passkey").unwrap().1, "id");
        assert_eq!(erin.act("remove_passkey", &[("id", &id)]).await.status, 200);
        assert_eq!(written().await, [credential("fido2-platform", "delete")]);
        let removed = erin.act("remove_totp", &[]).await;
        assert!(removed.text.contains("are removed"), "{}", removed.text);
        assert_eq!(written().await, [credential("app", "delete")]);
        let new = "another long sentence of hers";
        assert!(erin.set_password(new, new).await.status < 400);
        let told = written().await;
        assert_eq!(told[0], credential("password", "update"));
        let (url, _) = world.authorize_url(AGENT, "&prompt=login");
        erin.this_password(&url, "erin", new).await;
        assert!(written().await.iter().all(|(event, _)| event != "assurance-level-change"));
    }

    pub(super) async fn an_administrators_link_lets_one_person_in_once() {
        let world = company().await;
        let account = world.idp.endpoint("/account");
        let recover = world.idp.endpoint("/recover");
        let idp = world.idp_admin();
        let before = world.sign_in().await;
        let mut erin = Person::new(&world);
        erin.password(&account, "erin").await;
        let (_, codes) = erin.set_up_totp().await;
        let new = NewRecoveryLink::default();
        let first = idp.recovery_link("erin", &new).await.unwrap();
        let link = idp.recovery_link("erin", &new).await.unwrap();
        assert!(link.link.as_deref().unwrap().starts_with(&format!("{recover}#")), "{link:?}");
        // An earlier one ends, a wrong one is nothing.
        for wrong in [&*code_of(&first), "AAAA", ""] {
            let reply = Person::new(&world).post(&recover, &[("code", wrong)]).await;
            assert_eq!(reply.status, 401);
            assert_eq!(reasons(&world).await[0], "sign_in.recovery");
        }
        let mut back = Person::new(&world);
        let reply = back.post(&recover, &[("code", &code_of(&link))]).await;
        assert_eq!((reply.status, reply.header("location")), (303, account.as_str()));
        let again = Person::new(&world).post(&recover, &[("code", &code_of(&link))]).await;
        assert_eq!(again.status, 401, "it serves once");
        // What others may hold has ended.
        let form =
            [("grant_type", "refresh_token"), ("refresh_token", before.refresh_token.as_str())];
        let renewed = world.send(&world.ask(&world.idp, "/token", &form)).await;
        assert_eq!(renewed.str("error"), "invalid_grant");
        let page = erin.get(&account).await;
        assert!(page.text.contains("Sign in to Acme"), "the other browser is signed out");
        // It reaches no class: what asks for a password or more is not opened by it.
        let (url, _) = world.authorize_url(AGENT, "&claims=%7B%22id_token%22%3A%7B%22acr%22%3A%7B%22essential%22%3Atrue%2C%22value%22%3A%22pwd%22%7D%7D%7D");
        let asked = back.get(&url).await;
        assert!(!asked.header("location").contains("code="), "{}", asked.header("location"));
        // It takes the factor away that was lost.
        let removed = back.act("remove_totp", &[]).await;
        assert!(removed.text.contains("are removed"), "{}", removed.text);
        assert_eq!(erin.password(&account, "erin").await.status, 303, "the password does again");
        assert_eq!(codes.len(), 10);
        // A link ends by itself, and with the person.
        let link = idp.recovery_link("erin", &new).await.unwrap();
        world.pass(24 * 3600);
        assert_eq!(
            Person::new(&world).post(&recover, &[("code", &code_of(&link))]).await.status,
            401
        );
        let link = idp.recovery_link("erin", &new).await.unwrap();
        idp.switch::<Users>("erin", false).await.unwrap();
        assert_eq!(
            Person::new(&world).post(&recover, &[("code", &code_of(&link))]).await.status,
            401
        );
        // Nor is it one again when they are switched on, get a password, or sign out everywhere.
        idp.switch::<Users>("erin", true).await.unwrap();
        assert_eq!(
            Person::new(&world).post(&recover, &[("code", &code_of(&link))]).await.status,
            401
        );
        let link = idp.recovery_link("erin", &new).await.unwrap();
        idp.set_password("erin", &Secret::new(PASSWORD)).await.unwrap();
        assert_eq!(
            Person::new(&world).post(&recover, &[("code", &code_of(&link))]).await.status,
            401
        );
        let link = idp.recovery_link("erin", &new).await.unwrap();
        erin.password(&account, "erin").await;
        erin.act("sign_out_everywhere", &[]).await;
        assert_eq!(
            Person::new(&world).post(&recover, &[("code", &code_of(&link))]).await.status,
            401
        );
        // A stolen device: everything ends when the link is made.
        let mut max = Person::new(&world);
        max.password(&account, "max").await;
        let mut key = Authenticator::new(world.idp.origin());
        max.add_passkey(&mut key).await;
        let forget = NewRecoveryLink { forget_factors: true, ..NewRecoveryLink::default() };
        idp.recovery_link("max", &forget).await.unwrap();
        // The password that a thief may know opens nothing in the meantime.
        assert_eq!(Person::new(&world).password(&account, "max").await.status, 401);
        assert_eq!(Person::new(&world).passkey(&account, &mut key).await.status, 401);
        assert!(max.get(&account).await.text.contains("Sign in to Acme"));
        let wrong = idp.recovery_link("max", &NewRecoveryLink { hours: Some(169), ..forget }).await;
        assert!(format!("{wrong:?}").contains("168"));
    }

    pub(super) async fn who_signs_in_at_an_upstream_changes_that_there() {
        let world = company().await;
        let fake = FakeUpstream::start(&world, "").await;
        world.add_upstream("corp", &fake, json!({"just_in_time": false})).await;
        let idp = world.idp_admin();
        let link =
            NewPersonLink { user: "max".to_owned(), subject: "max-there".to_owned(), tenant: None };
        // What they had here ends with the link: nobody could take it away any more.
        let mut before = Person::new(&world);
        let at = before.account();
        before.password(&at, "max").await;
        let mut key = Authenticator::new(world.idp.origin());
        assert_eq!(before.add_passkey(&mut key).await.status, 200);
        let early = idp.recovery_link("max", &NewRecoveryLink::default()).await.unwrap();
        idp.link_person("corp", &link).await.unwrap();
        assert_eq!(Person::new(&world).passkey(&at, &mut key).await.status, 401);
        let recover = world.idp.endpoint("/recover");
        let reply = Person::new(&world).post(&recover, &[("code", &code_of(&early))]).await;
        assert_eq!(reply.status, 401);
        let refused = idp.recovery_link("max", &NewRecoveryLink::default()).await.unwrap_err();
        assert!(format!("{refused:?}").contains("at an upstream"), "{refused:?}");
        let mut max = Person::new(&world);
        let account = max.account();
        let page = max.get(&format!("{account}?upstream=")).await;
        let csrf = field(&page.text, "csrf");
        let signed = max
            .post(&account, &[("csrf", &csrf), ("username", "max"), ("password", PASSWORD)])
            .await;
        assert_eq!(signed.status, 303, "{}", signed.text);
        let page = max.get(&account).await;
        assert!(
            page.text.contains("is decided there")
                && !page.text.contains("data-passkey=\"create\"")
        );
        for act in ["begin_totp", "add_passkey", "remove_passkey", "set_password"] {
            assert_eq!(max.act(act, &[]).await.status, 409);
        }
    }

    pub(super) async fn an_account_shows_what_is_a_persons_own_and_ends_it() {
        let world = company().await;
        let account = world.idp.endpoint("/account");
        let tokens = world.sign_in().await;
        world.send(&world.exchange(&tokens.id_token)).await;
        let mut erin = Person::new(&world);
        let head = erin.get(&account).await;
        assert!(head.text.contains("to see your account"));
        erin.password(&account, "erin").await;
        let page = erin.get(&account).await;
        assert_eq!(page.status, 200);
        for said in [
            "ERIN",
            "class pwd",
            "Lately in your name",
            "an ID-JAG was asked for",
            "somebody signed in",
        ] {
            assert!(page.text.contains(said), "{said}: {}", page.text);
        }
        assert!(!page.text.contains("MAX"), "nobody else's");
        let out = erin.act("sign_out_everywhere", &[]).await;
        assert_eq!(out.status, 303);
        assert!(erin.get(&account).await.text.contains("to see your account"));
        let form =
            [("grant_type", "refresh_token"), ("refresh_token", tokens.refresh_token.as_str())];
        let renewed = world.send(&world.ask(&world.idp, "/token", &form)).await;
        assert_eq!(renewed.str("error"), "invalid_grant");
    }

    pub(super) async fn an_id_token_says_when_the_sign_in_ends_and_a_refresh_moves_nothing() {
        let world = World::new().await;
        let first = world.sign_in().await;
        let claims = Parts::of(&first.id_token).claims;
        assert_eq!(claims["session_expiry"], world.now().0 + 12 * 3600);
        world.pass(3600);
        let form =
            [("grant_type", "refresh_token"), ("refresh_token", first.refresh_token.as_str())];
        let renewed = world.send(&world.ask(&world.idp, "/token", &form)).await;
        let again = Parts::of(renewed.str("id_token")).claims;
        assert_eq!(again["session_expiry"], claims["session_expiry"]);
        assert_eq!(again["auth_time"], claims["auth_time"]);
        for claim in ["acr", "amr", "auth_time", "sid"] {
            assert!(claims.get(claim).is_some(), "{claim}");
        }
        assert!(claims["aud"].is_string());
    }

    #[allow(clippy::similar_names)]
    pub(super) async fn two_changes_at_once_leave_a_way_in_and_add_no_weak_one() {
        let world = company().await;
        let account = world.idp.endpoint("/account");
        let recover = world.idp.endpoint("/recover");
        // Two password sign-ins that add at once: one of them is the first, the other too weak.
        for round in 0..4 {
            let name = format!("weak{round}");
            let new = json!({"username": name, "password": PASSWORD});
            let new = serde_json::from_value(new).unwrap();
            world.idp_admin().add::<Users>(&new).await.unwrap();
            let (mut one, mut two) = (Person::new(&world), Person::new(&world));
            one.password(&account, &name).await;
            two.password(&account, &name).await;
            let mut keys = [(); 2].map(|()| Authenticator::new(world.idp.origin()));
            let [first, second] = &mut keys;
            // Both have the page open before either sends: afterwards the other has no form any more.
            let (first, second) = (one.make_passkey(first).await, two.make_passkey(second).await);
            let (a, b) = tokio::join!(one.send_passkey(&first), two.send_passkey(&second));
            let added = [&a, &b].iter().filter(|reply| reply.text.contains("is added")).count();
            assert_eq!(added, 1, "{} {}", a.status, b.status);
        }
        // Two removals at once of somebody who has nothing else: one way stays.
        for round in 0..4 {
            let new = json!({"username": format!("nora{round}")});
            let new = serde_json::from_value(new).unwrap();
            let nora = world.idp_admin().add::<Users>(&new).await.unwrap();
            let link = world.idp_admin().recovery_link(&nora.id, &NewRecoveryLink::default()).await;
            let mut person = Person::new(&world);
            person.post(&recover, &[("code", &code_of(&link.unwrap()))]).await;
            let mut keys = [(); 2].map(|()| Authenticator::new(world.idp.origin()));
            for key in &mut keys {
                assert_eq!(person.add_passkey(key).await.status, 200);
            }
            let page = person.get(&account).await.text;
            let ids: Vec<String> =
                page.split("remove_passkey").skip(1).map(|rest| field(rest, "id")).collect();
            let csrf = field(&page, "csrf");
            let remove = |id: String| {
                let fields = [("act", "remove_passkey"), ("csrf", &*csrf), ("id", &*id)];
                let ask =
                    post(&world, &account, &fields).header("cookie", &person.browser.cookies());
                let world = &world;
                async move { world.send(&ask).await.status }
            };
            let (a, b) = tokio::join!(remove(ids[0].clone()), remove(ids[1].clone()));
            let mut statuses = [a, b];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 409]);
        }
    }

    pub(super) async fn others_answers_keep_nobody_from_their_passkey() {
        let wishes = Wishes {
            named: true,
            behind_proxy: true,
            failures_per_minute: Some(10),
            ..Wishes::default()
        };
        let world = World::with(wishes).await;
        let account = world.idp.endpoint("/account");
        let mut erin = Person::new(&world);
        erin.password(&account, "erin").await;
        let mut key = Authenticator::new(world.idp.origin());
        erin.add_passkey(&mut key).await;
        // Somebody who knows its id sends the beginning of a right answer, over and over.
        let mut stranger = Person::new(&world);
        let page = stranger.get(&account).await;
        let (options, form) = passkey_form(&page.text);
        let right = key.sign(&options);
        let (csrf, state) = (field(&form, "csrf"), field(&form, "state"));
        let junk = format!("{}x", &right[..right.len() / 2]);
        let mut last = 0;
        for _ in 0..30 {
            let fields = [("csrf", &*csrf), ("state", &*state), ("passkey", &*junk)];
            let ask = post(&world, &account, &fields).header("x-forwarded-for", "192.0.2.7");
            last = stranger.browser.clone().ask(&world, ask).await.status;
        }
        assert_eq!(last, 429, "the sender is counted");
        // From there and from anywhere the owner goes on.
        assert_eq!(Person::new(&world).passkey(&account, &mut key).await.status, 303);
        let mut near = Person::new(&world);
        let page = near.get(&account).await;
        let (options, form) = passkey_form(&page.text);
        let answer = key.sign(&options);
        let (csrf, state) = (field(&form, "csrf"), field(&form, "state"));
        let fields = [("csrf", &*csrf), ("state", &*state), ("passkey", &*answer)];
        let ask = post(&world, &account, &fields).header("x-forwarded-for", "192.0.2.7");
        assert_eq!(near.browser.ask(&world, ask).await.status, 303);
    }

    pub(super) async fn a_link_is_told_once_and_kept_nowhere() {
        let world = company().await;
        let ask = || with_key(&world, Method::POST, "/idp/users/erin/recovery-link", "{}", "k-1");
        let first = ask().await;
        assert_eq!(first.status, 200, "{}", first.text);
        assert!(first.str("link").contains('#'));
        let again = ask().await;
        assert_eq!(again.status, 200);
        assert!(again.json.get("link").is_none(), "{}", again.text);
        assert!(again.json.get("expires_at").is_some());
        // Whatever an answer shows once is on the list of what is not kept.
        let document = passavant_admin::document_text();
        let document: Value = serde_json::from_str(&document).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let mut once = std::collections::BTreeSet::new();
        for (name, schema) in schemas.iter().filter(|(name, _)| name.ends_with("View")) {
            for (member, value) in schema["properties"].as_object().into_iter().flatten() {
                let about = value["description"].as_str().unwrap_or_default();
                if about.contains("once") {
                    once.insert(member.clone());
                    assert!(
                        ["client_secret", "token", "link"].contains(&member.as_str()),
                        "{name}.{member} is shown once: `SHOWN_ONCE` has to name it"
                    );
                }
            }
        }
        assert!(once.contains("link") && once.contains("token"), "{once:?}");
    }

    pub(super) async fn another_password_takes_a_fresh_sign_in_and_ends_all_of_them() {
        const NEW: &str = "a longer sentence of mine";
        const LATER: &str = "yet another sentence of mine";
        let world = company().await;
        let before = world.sign_in().await;
        let mut erin = Person::new(&world);
        let account = erin.account();
        erin.password(&account, "erin").await;
        let mut elsewhere = Person::new(&world);
        elsewhere.password(&account, "erin").await;
        let mut max = Person::new(&world);
        max.password(&account, "max").await;
        // What cannot be one is said, and changes nothing.
        let long = "x".repeat(1025);
        for (new, repeated, told) in [
            (NEW, LATER, "are not the same"),
            (NEW, "", "are not the same"),
            ("", "", "at least 12 characters"),
            ("elevenchars", "elevenchars", "at least 12 characters"),
            (&long, &long, "at most 1024 bytes"),
        ] {
            let refused = erin.set_password(new, repeated).await;
            assert_eq!(refused.status, 400, "{}", refused.text);
            assert!(refused.text.contains(told), "{told}: {}", refused.text);
            assert!(!refused.text.contains(NEW) && !refused.text.contains(LATER));
        }
        assert_eq!(Person::new(&world).password(&account, "erin").await.status, 303);
        // Nor without the page's proof, or by a sign-in of a while ago.
        let form =
            [("act", "set_password"), ("csrf", "AAAA"), ("new_password", NEW), ("repeated", NEW)];
        assert_eq!(erin.post(&account, &form).await.status, 403);
        let mut old = Person { world: &world, browser: erin.browser.clone() };
        world.pass(301);
        let refused = old.set_password(NEW, NEW).await;
        assert_eq!(refused.status, 403, "{}", refused.text);
        assert!(refused.text.contains("sign in again now"));
        assert!(!old.get(&account).await.text.contains("new_password"));
        let mut erin = Person::new(&world);
        erin.password(&account, "erin").await;
        let done = erin.set_password(NEW, NEW).await;
        assert!(done.text.contains("The password is set"), "{}", done.text);
        assert!(done.text.contains("Sign in to Acme"), "{}", done.text);
        // Every sign-in of before has ended, and what came of it; other people's stand.
        for browser in [&mut erin, &mut elsewhere] {
            assert!(browser.get(&account).await.text.contains("Sign in to Acme"));
        }
        let form =
            [("grant_type", "refresh_token"), ("refresh_token", before.refresh_token.as_str())];
        let renewed = world.send(&world.ask(&world.idp, "/token", &form)).await;
        assert_eq!(renewed.str("error"), "invalid_grant");
        assert!(!max.get(&account).await.text.contains("Sign in to Acme"));
        assert_eq!(Person::new(&world).password(&account, "erin").await.status, 401);
        assert_eq!(erin.this_password(&account, "erin", NEW).await.status, 303);
        let filter = AuditFilter {
            event: Some("credential.added".to_owned()),
            limit: 9,
            ..AuditFilter::default()
        };
        let trail = world.idp_store.audit(&filter).await.unwrap();
        assert_eq!((trail.len(), trail[0].details["detail"].as_str()), (1, "password"));
        // Where a code follows, the password alone replaces no password.
        let mut weak = Person { world: &world, browser: max.browser.clone() };
        let mut max = Person::new(&world);
        max.password(&account, "max").await;
        let mut weak_and_fresh = Person::new(&world);
        weak_and_fresh.password(&account, "max").await;
        max.set_up_totp().await;
        for weak in [&mut weak, &mut weak_and_fresh] {
            assert_eq!(weak.set_password(LATER, LATER).await.status, 403);
        }
        // Who got in by a link sets one: what was stolen had ended with it.
        let forget = NewRecoveryLink { forget_factors: true, ..NewRecoveryLink::default() };
        let link = world.idp_admin().recovery_link("max", &forget).await.unwrap();
        let mut back = Person::new(&world);
        let recover = world.idp.endpoint("/recover");
        assert_eq!(back.post(&recover, &[("code", &code_of(&link))]).await.status, 303);
        assert!(back.get(&account).await.text.contains("you sign in without one"));
        assert_eq!(back.set_password(LATER, LATER).await.status, 200);
        assert_eq!(Person::new(&world).this_password(&account, "max", LATER).await.status, 303);
    }

    /// Whichever way a password ends, what somebody may have enrolled by it ends with it.
    pub(super) async fn what_was_enrolled_by_a_password_ends_with_it_whichever_way_it_ends() {
        const NEW: &str = "a longer sentence of mine";
        let world = company().await;
        let account = world.idp.endpoint("/account");
        let enrol = async |id: &str| {
            let now = world.now();
            let installation = Installation {
                id: id.to_owned(),
                user_id: "erin-id".to_owned(),
                device: "laptop".to_owned(),
                public_jwk: json!({"kty": "EC"}),
                algorithm: Algorithm::ES256,
                enrolled_at: now,
                used_at: now,
            };
            let event = AuditEvent::granted(RequestEvent::Enrol, now);
            let sessions = world.idp_store.sessions(Some("erin-id"), now).await.unwrap();
            let session = sessions[0].sid.as_str();
            assert!(world.idp_store.enrol(&installation, session, event).await.unwrap());
        };
        let stands = async |id: &str| world.idp_store.installation(id).await.unwrap().is_some();
        let mut erin = Person::new(&world);
        erin.password(&account, "erin").await;
        // By themselves.
        enrol("own").await;
        assert!(stands("own").await);
        assert_eq!(erin.set_password(NEW, NEW).await.status, 200);
        assert!(!stands("own").await);
        // By an administrator.
        assert_eq!(erin.this_password(&account, "erin", NEW).await.status, 303);
        enrol("administrator").await;
        let password = Secret::new(PASSWORD);
        world.idp_admin().set_password("erin", &password).await.unwrap();
        assert!(!stands("administrator").await);
        // By a link after a theft; a link alone ends none, for whoever only lost a phone.
        assert_eq!(erin.password(&account, "erin").await.status, 303);
        enrol("link").await;
        let link = NewRecoveryLink::default();
        world.idp_admin().recovery_link("erin", &link).await.unwrap();
        assert!(stands("link").await);
        let link = NewRecoveryLink { forget_factors: true, ..link };
        world.idp_admin().recovery_link("erin", &link).await.unwrap();
        assert!(!stands("link").await);
    }
}
