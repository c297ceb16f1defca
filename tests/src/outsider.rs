//! People and clients without cross-app access: a browser, and the RAS that redirects it to the
//! IdP.

use crate::world::{Ask, CALLBACK, PASSWORD, Reply, World};
use passavant_proto::{
    jose::jwk::Algorithm,
    oauth::client::{Client, ClientAuthentication, ClientKeys},
    oauth::pkce::CodeChallenge,
    policy::Connection,
};
use passavant_store::Record;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use url::Url;

/// A public client at the RAS that an administrator registered.
pub const DESKTOP: &str = "desktop";

/// A browser: one cookie jar for all ports of a host, as in real browsers.
#[derive(Clone, Default)]
pub struct Browser {
    jar: BTreeMap<String, String>,
}

impl Browser {
    /// The cookies, as a header.
    pub fn cookies(&self) -> String {
        self.jar
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("; ")
    }

    fn keep(&mut self, reply: &Reply) {
        for cookie in reply.headers.get_all("set-cookie") {
            let (name, rest) = cookie.to_str().unwrap().split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if value.is_empty() {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// One request.
    pub async fn ask(&mut self, world: &World, mut ask: Ask) -> Reply {
        if !self.jar.is_empty() {
            ask = ask.header("cookie", &self.cookies());
        }
        let reply = world.send(&ask).await;
        self.keep(&reply);
        reply
    }

    /// One page.
    pub async fn get(&mut self, world: &World, url: &str) -> Reply {
        let ask =
            Ask { url: url.to_owned(), form: Vec::new(), headers: Vec::new(), method: Method::GET };
        self.ask(world, ask).await
    }

    /// Follows redirects between RAS and IdP, and signs in where it is asked to. Returns the last
    /// URL and its response.
    pub async fn go(&mut self, world: &World, url: &str, username: &str) -> (String, Reply) {
        let mut at = url.to_owned();
        for _ in 0..12 {
            let ours = [world.ras.origin(), world.idp.origin()];
            if !ours.iter().any(|origin| at.starts_with(origin)) {
                let empty = Reply {
                    status: 0,
                    headers: reqwest::header::HeaderMap::default(),
                    json: Value::Null,
                    text: String::new(),
                };
                return (at, empty);
            }
            let mut reply = self.get(world, &at).await;
            if reply.status == 200 && reply.text.contains("name=\"password\"") {
                let cookies = self.cookies();
                let mut form = world.sign_in_form(&at, &reply.text, &cookies, username, PASSWORD);
                form.headers.retain(|(name, _)| name != "cookie");
                reply = self.ask(world, form).await;
            }
            if reply.status != 303 {
                return (at, reply);
            }
            let next = Url::parse(&at).unwrap().join(reply.header("location")).unwrap();
            at = next.to_string();
        }
        panic!("it goes in circles: {at}");
    }

    /// A person's answer to the consent page.
    pub fn answer(&self, world: &World, url: &str, page: &Reply, answer: &str) -> Ask {
        let field = |name: &str| {
            let (_, rest) = page.text.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
            rest.split('"').next().unwrap().to_owned()
        };
        Ask {
            url: url.to_owned(),
            form: vec![
                ("ticket".to_owned(), field("ticket")),
                ("csrf".to_owned(), field("csrf")),
                ("answer".to_owned(), answer.to_owned()),
            ],
            headers: vec![("origin".to_owned(), world.ras.origin().to_owned())],
            method: Method::POST,
        }
    }

    /// All steps to a code for `client`.
    pub async fn code(&mut self, world: &World, url: &str, username: &str) -> String {
        let (at, page) = self.go(world, url, username).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let ask = self.answer(world, &at, &page, "allow");
        let reply = self.ask(world, ask).await;
        assert_eq!(reply.status, 303, "{}", reply.text);
        let back = Url::parse(reply.header("location")).unwrap();
        let parameter = |name: &str| {
            back.query_pairs().find(|(held, _)| held == name).map(|(_, value)| value.into_owned())
        };
        assert_eq!(
            parameter("iss").as_deref(),
            Some(world.ras.as_str()),
            "the answer names its issuer"
        );
        assert_eq!(parameter("state").as_deref(), Some("s"));
        parameter("code").unwrap()
    }
}

/// The PKCE verifier of every request here.
pub const VERIFIER: &str = "a-verifier-of-some-forty-three-characters-xx";

impl World {
    /// Enables the interactive path: the RAS becomes a relying party of the IdP, and gets a public
    /// client.
    pub async fn let_outsiders_in(&self) {
        let jwks = json!({"keys": [self.ras_key.jwk()]});
        let relying_party = Client {
            id: "ras-rp".to_owned(),
            name: "Canvas sign-in".to_owned(),
            authentication: ClientAuthentication::PrivateKeyJwt {
                keys: ClientKeys::Inline(jwks),
                algorithm: Algorithm::ES256,
            },
            redirect_uris: vec![self.ras.endpoint("/callback")],
            ..Client::default()
        };
        self.put(&self.idp_store, &relying_party).await;
        let desktop = Client {
            id: DESKTOP.to_owned(),
            name: "Desktop <b>agent</b>".to_owned(),
            authentication: ClientAuthentication::Public,
            redirect_uris: vec![CALLBACK.to_owned(), "https://app.example/cb".to_owned()],
            ..Client::default()
        };
        self.put(&self.ras_store, &desktop).await;
        self.set_sign_in(&json!({"client_id": "ras-rp"})).await;
    }

    /// Enables or disables the interactive path for the IdP's people.
    pub async fn set_sign_in(&self, sign_in: &Value) {
        let body = json!({"id": self.idp, "sign_in": sign_in});
        let path = "/ras/ras/trusted-issuers/sign-in";
        let reply = self.administer(Method::POST, path, Some(body)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }

    /// An authorization request at the RAS.
    pub fn outsider_url(&self, changes: &[(&str, &str)]) -> String {
        let challenge = CodeChallenge::of(VERIFIER);
        let mut form = vec![
            ("response_type", "code"),
            ("client_id", DESKTOP),
            ("redirect_uri", CALLBACK),
            ("scope", "read write"),
            ("state", "s"),
            ("resource", self.canvas.as_str()),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ];
        for (name, value) in changes {
            form.retain(|(held, _)| held != name);
            if !value.is_empty() {
                form.push((name, value));
            }
        }
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        format!("{}?{query}", self.ras.endpoint("/authorize"))
    }

    /// The redemption of a code at the RAS.
    pub fn redeem_code(&self, code: &str) -> Ask {
        let ask = self.ask(
            &self.ras,
            "/token",
            &[
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", CALLBACK),
                ("code_verifier", VERIFIER),
                ("client_id", DESKTOP),
            ],
        );
        ask.no_header("authorization")
    }

    /// The refresh grant at the RAS.
    pub fn refresh_at_ras(&self, token: &str) -> Ask {
        let form =
            [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", DESKTOP)];
        self.ask(&self.ras, "/token", &form).no_header("authorization")
    }

    /// Deletes all connections, so that only the interactive path is left.
    pub async fn without_connections(&self) {
        for connection in self.idp_store.all::<Connection>().await.unwrap() {
            let event = passavant_store::AuditEvent::granted(
                passavant_proto::event::Event::Admin(
                    passavant_proto::event::Act::Create,
                    "fixture",
                ),
                self.now(),
            );
            self.idp_store.delete::<Connection>(&connection.id(), event).await.unwrap();
        }
    }
}
