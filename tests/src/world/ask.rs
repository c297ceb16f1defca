//! Requests as any program would send them, and their responses.

use super::{AGENT, AGENT_AT_RAS, World};
use crate::forge::Key;
use passavant_admin::client::segment;
use passavant_proto::identifier::Issuer;
use reqwest::Method;
use reqwest::header;
use serde_json::Value;
use serde_json::json;

/// A response, read completely.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: header::HeaderMap,
    /// Body as JSON, or null.
    pub json: Value,
    /// Body as text.
    pub text: String,
}

impl Reply {
    /// A string member of the body.
    pub fn str(&self, name: &str) -> &str {
        self.json.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A header; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// A form request, which tests change in one respect.
#[derive(Clone)]
pub struct Ask {
    /// The URL.
    pub url: String,
    /// Parameters in order.
    pub form: Vec<(String, String)>,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
    /// HTTP method.
    pub method: Method,
}

impl Ask {
    /// Sets a parameter, replacing an existing one.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.form.retain(|(held, _)| held != name);
        self.form.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a parameter, even if it exists already.
    #[must_use]
    pub fn add(mut self, name: &str, value: &str) -> Self {
        self.form.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes a parameter.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.form.retain(|(held, _)| held != name);
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes a header.
    #[must_use]
    pub fn no_header(mut self, name: &str) -> Self {
        self.headers.retain(|(held, _)| !held.eq_ignore_ascii_case(name));
        self
    }

    /// Authenticates with Basic.
    #[must_use]
    pub fn basic(self, id: &str, secret: &str) -> Self {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let value = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
        self.no_header("authorization").header("authorization", &value)
    }
}

/// Ids that are URLs are percent-encoded in paths. For readability, tests write the path with only
/// the act at its end, and the record as `id` or `name` in the body.
fn in_path(method: Method, path: &str, body: Option<Value>) -> (Method, String, Option<Value>) {
    let Some((collection, act)) = path.rsplit_once('/') else {
        return (method, path.to_owned(), body);
    };
    // `/idp/clients`, `/ras/NAME/clients`: these name no record.
    let of_all =
        collection.split('/').count() == if collection.starts_with("/idp") { 3 } else { 4 };
    let named = body.as_ref().and_then(|body| {
        ["id", "name", "kid"]
            .into_iter()
            .find_map(|name| Some((name, body.get(name)?.as_str()?.to_owned())))
    });
    let patched = |mut body: Value, member: Option<&str>| {
        if let (Some(members), Some(member)) = (body.as_object_mut(), member) {
            members.remove(member);
        }
        Some(body)
    };
    match (act, named, body) {
        ("groups", None, Some(body)) if collection.contains("/users/") => {
            (Method::PATCH, collection.to_owned(), Some(body))
        }
        ("change" | "sign-in", Some((member, id)), Some(body)) => {
            let path = format!("{collection}/{}", segment(&id));
            (Method::PATCH, path, patched(body, Some(member)))
        }
        ("delete" | "remove", Some((_, id)), _) => {
            (Method::DELETE, format!("{collection}/{}", segment(&id)), None)
        }
        ("links", Some((_, id)), _) => {
            (Method::GET, format!("{collection}/{}/links", segment(&id)), None)
        }
        ("disable" | "enable" | "renew" | "secret", Some((member, id)), Some(body)) if of_all => {
            let body = patched(body, Some(member));
            (Method::POST, format!("{collection}/{}/{act}", segment(&id)), body)
        }
        (_, _, body) => (method, path.to_owned(), body),
    }
}

impl World {
    /// Sends a form request.
    pub async fn send(&self, ask: &Ask) -> Reply {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(ask.form.iter().map(|(a, b)| (a.as_str(), b.as_str())))
            .finish();
        self.send_body(ask, form.into_bytes()).await
    }

    /// Sends a request with any body.
    pub async fn send_body(&self, ask: &Ask, body: Vec<u8>) -> Reply {
        let mut request = self.http.request(ask.method.clone(), &ask.url).body(body);
        if !ask.headers.iter().any(|(name, _)| name == "content-type") {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let headers = answer.headers().clone();
        let text = answer.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or_default();
        Reply { status, headers, json, text }
    }

    /// A request of the main client, authenticated with Basic.
    pub fn ask(&self, server: &Issuer, path: &str, form: &[(&str, &str)]) -> Ask {
        let id = if *server == self.idp { AGENT } else { AGENT_AT_RAS };
        let form = form.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let url = server.endpoint(path);
        Ask { url, form, headers: Vec::new(), method: Method::POST }.basic(id, self.secret.expose())
    }

    /// The usual token exchange: erin's ID token for canvas.
    pub fn exchange(&self, id_token: &str) -> Ask {
        self.ask(
            &self.idp,
            "/token",
            &[
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("requested_token_type", "urn:ietf:params:oauth:token-type:id-jag"),
                ("audience", self.ras.as_str()),
                ("resource", &self.canvas),
                ("scope", "read write"),
                ("subject_token_type", "urn:ietf:params:oauth:token-type:id_token"),
                ("subject_token", id_token),
            ],
        )
    }

    /// The usual redemption.
    pub fn redeem(&self, id_jag: &str) -> Ask {
        self.ask(
            &self.ras,
            "/token",
            &[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", id_jag)],
        )
    }

    /// The usual tool call.
    pub async fn call(&self, url: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let ask = Ask {
            url: url.to_owned(),
            form: Vec::new(),
            headers: headers
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .chain([("content-type".to_owned(), "application/json".to_owned())])
                .collect(),
            method: Method::POST,
        };
        self.send_body(&ask, body.to_string().into_bytes()).await
    }

    /// Claims of an ID-JAG as the IdP would sign it for erin and canvas.
    pub fn id_jag_claims(&self) -> Value {
        let now = self.now().0;
        json!({"iss": self.idp, "sub": "erin-id", "aud": self.ras, "client_id": AGENT_AT_RAS,
               "jti": self.id(), "iat": now, "exp": now + 120, "resource": self.canvas,
               "scope": "read write"})
    }

    /// An ID-JAG with these claims, signed by the IdP's own key.
    pub fn id_jag(&self, claims: &Value) -> String {
        let header = self.idp_key.header("oauth-id-jag+jwt").to_string();
        self.idp_key.sign(&header, claims.to_string().as_bytes())
    }

    /// Claims of an assertion of the `private_key_jwt` client at the IdP.
    pub fn assertion_claims(&self) -> Value {
        let now = self.now().0;
        json!({"iss": "agent-jwt", "sub": "agent-jwt", "aud": self.idp, "jti": self.id(),
               "iat": now, "exp": now + 60})
    }

    /// An exchange by the `private_key_jwt` client with this assertion; the subject token is one of
    /// `agent-jwt`.
    pub fn exchange_with_assertion(&self, id_token: &str, assertion: &str) -> Ask {
        self.exchange(id_token)
            .no_header("authorization")
            .add("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
            .add("client_assertion", assertion)
    }

    /// Claims of a DPoP proof for a POST to `url`.
    pub fn dpop_claims(&self, url: &str) -> Value {
        json!({"htm": "POST", "htu": url, "jti": self.id(), "iat": self.now().0})
    }

    /// A DPoP proof by `key`.
    pub fn dpop(&self, key: &Key, claims: &Value) -> String {
        let mut jwk = key.jwk();
        for name in ["kid", "use", "alg"] {
            jwk.as_object_mut().unwrap().remove(name);
        }
        let header = json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": jwk}).to_string();
        key.sign(&header, claims.to_string().as_bytes())
    }

    /// Calls the administration API with the secret of the config.
    pub async fn administer(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.administer_as(self.admin_secret.expose(), method, path, body).await
    }

    /// Calls it with another token.
    pub async fn administer_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Reply {
        let (method, path, body) = in_path(method, path, body);
        let path = path.as_str();
        let bearer = format!("Bearer {token}");
        let ask = Ask {
            url: format!("{}{path}", self.admin),
            form: Vec::new(),
            headers: vec![
                ("authorization".to_owned(), bearer),
                ("content-type".to_owned(), "application/json".to_owned()),
            ],
            method,
        };
        self.send_body(&ask, body.map(|b| b.to_string().into_bytes()).unwrap_or_default()).await
    }
}
