//! Sign-ins through the pages that a browser gets.

use super::{AGENT, Ask, CALLBACK, PASSWORD, World};
use reqwest::Method;
use reqwest::header;

/// Tokens of a sign-in.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// ID token.
    pub id_token: String,
    /// Access token for userinfo.
    pub access_token: String,
    /// Refresh token.
    pub refresh_token: String,
}

/// The cookies that a response sets, as a `Cookie` header.
pub fn cookies(headers: &header::HeaderMap) -> String {
    headers
        .get_all("set-cookie")
        .iter()
        .filter_map(|value| value.to_str().ok()?.split(';').next())
        .filter(|pair| !pair.ends_with('='))
        .collect::<Vec<_>>()
        .join("; ")
}

impl World {
    /// Signs erin in for the main client.
    pub async fn sign_in(&self) -> Tokens {
        self.sign_in_as("erin", AGENT).await
    }

    /// Signs a person in for a client, over HTTP, like a browser.
    pub async fn sign_in_as(&self, username: &str, client: &str) -> Tokens {
        let (code, verifier) = self.code(username, client, "").await;
        let mut ask = self.ask(
            &self.idp,
            "/token",
            &[
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("redirect_uri", CALLBACK),
                ("code_verifier", &verifier),
            ],
        );
        if client == "agent-jwt" {
            let header = self.client_key.header("JWT").to_string();
            let claims = self.assertion_claims().to_string();
            let assertion = self.client_key.sign(&header, claims.as_bytes());
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
            ask = ask
                .no_header("authorization")
                .add("client_assertion_type", kind)
                .add("client_assertion", &assertion);
        } else if client == "public" {
            ask = ask.no_header("authorization").add("client_id", client);
        } else {
            ask = ask.basic(client, self.secret.expose());
        }
        let reply = self.send(&ask).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        Tokens {
            id_token: reply.str("id_token").to_owned(),
            access_token: reply.str("access_token").to_owned(),
            refresh_token: reply.str("refresh_token").to_owned(),
        }
    }

    /// The authorization URL of a client, with additional parameters, and its verifier.
    pub fn authorize_url(&self, client: &str, more: &str) -> (String, String) {
        let verifier = self.entropy.secret().expose().to_owned();
        let challenge = passavant_proto::oauth::pkce::CodeChallenge::of(&verifier);
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", client)
            .append_pair("redirect_uri", CALLBACK)
            .append_pair("scope", "openid profile email offline_access")
            .append_pair("state", "the-state")
            .append_pair("nonce", "the-nonce")
            .append_pair("code_challenge", challenge.as_str())
            .append_pair("code_challenge_method", "S256")
            .finish();
        (format!("{}?{query}{more}", self.idp.endpoint("/authorize")), verifier)
    }

    /// An authorization code and its verifier.
    pub async fn code(&self, username: &str, client: &str, more: &str) -> (String, String) {
        let (url, verifier) = self.authorize_url(client, more);
        let (location, _) = self.browse(&url, username, PASSWORD).await;
        let location = url::Url::parse(&location).unwrap();
        let parameter = |name: &str| {
            location.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned())
        };
        assert_eq!(parameter("state").as_deref(), Some("the-state"));
        assert_eq!(parameter("iss").as_deref(), Some(self.idp.as_str()));
        (parameter("code").unwrap(), verifier)
    }

    /// Opens a sign-in URL and submits the form. Returns the redirect, and the session cookie.
    pub async fn browse(&self, url: &str, username: &str, password: &str) -> (String, String) {
        let page = self.http.get(url).send().await.unwrap();
        assert_eq!(page.status(), 200);
        let cookie = cookies(page.headers());
        let html = page.text().await.unwrap();
        let ask = self.sign_in_form(url, &html, &cookie, username, password);
        let reply = self.send(&ask).await;
        assert_eq!(reply.status, 303, "{}", reply.text);
        (reply.header("location").to_owned(), cookies(&reply.headers))
    }

    /// The sign-in form, filled in.
    pub fn sign_in_form(
        &self,
        url: &str,
        html: &str,
        cookie: &str,
        username: &str,
        password: &str,
    ) -> Ask {
        let (_, rest) = html.split_once("name=\"csrf\" value=\"").unwrap();
        let csrf = rest.split('"').next().unwrap();
        Ask {
            url: url.to_owned(),
            form: vec![
                ("csrf".to_owned(), csrf.to_owned()),
                ("username".to_owned(), username.to_owned()),
                ("password".to_owned(), password.to_owned()),
            ],
            headers: vec![
                ("cookie".to_owned(), cookie.to_owned()),
                ("origin".to_owned(), self.idp.origin().to_owned()),
            ],
            method: Method::POST,
        }
    }

    /// All steps to an access token for canvas.
    pub async fn access_token(&self) -> String {
        let tokens = self.sign_in().await;
        let id_jag = self.send(&self.exchange(&tokens.id_token)).await;
        let token = self.send(&self.redeem(id_jag.str("access_token"))).await;
        assert_eq!(token.status, 200, "{}", token.text);
        token.str("access_token").to_owned()
    }

    /// An access token for `boards` that is not bound to a key, obtained with an ID-JAG made here.
    pub async fn access_token_unbound(&self) -> String {
        let mut claims = self.id_jag_claims();
        claims["resource"] = self.boards.clone().into();
        let token = self.send(&self.redeem(&self.id_jag(&claims))).await;
        assert_eq!(token.status, 200, "{}", token.text);
        token.str("access_token").to_owned()
    }
}
