//! Sign-in through the browser: authorization code with PKCE, answered on a loopback listener (RFC
//! 8252).

use crate::{
    error::{Error, Leg},
    jwks::{KeySource, RemoteKeys},
    obtain::Client,
    outbound::Reach,
    vault::Session,
};
use carnet_proto::{
    form::Form,
    id_token::{self, SignIn, SignedIn},
    jwk::Algorithm,
    pkce::CodeChallenge,
    secret::{Secret, equal_in_constant_time},
};
use serde::Deserialize;
use std::{net::Ipv4Addr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// How long the person has, in seconds.
const PATIENCE: u64 = 300;

/// How to sign in.
#[derive(Clone, Debug, Default)]
pub struct SignInOptions {
    /// Port of the loopback listener; 0 for any that is free.
    pub port: u16,
    /// User name to start with.
    pub login_hint: Option<String>,
    /// Sign in afresh even where the browser has a session.
    pub fresh: bool,
}

/// A sign-in that waits for the browser.
pub struct PendingSignIn {
    client: Client,
    listener: TcpListener,
    url: String,
    redirect_uri: String,
    host: String,
    state: Secret,
    nonce: String,
    verifier: Secret,
    answers_with_issuer: bool,
}

#[derive(Deserialize)]
struct CodeAnswer {
    access_token: String,
    id_token: String,
    #[serde(default)]
    refresh_token: Option<String>,
}

impl Client {
    /// Begins a sign-in: opens the listener, and makes the URL that the browser has to open.
    pub async fn begin_sign_in(&self, options: &SignInOptions) -> Result<PendingSignIn, Error> {
        let metadata = self.idp_metadata().await?;
        let idp = &self.settings().idp;
        let endpoint = metadata.authorization_endpoint.ok_or_else(|| {
            Error::Discovery(format!("the metadata of {idp} has no authorization_endpoint"))
        })?;
        if !metadata.code_challenge_methods_supported.iter().any(|m| m == "S256") {
            return Err(Error::Discovery(format!(
                "{idp} does not offer PKCE with S256 (code_challenge_methods_supported), which is \
                 required"
            )));
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
        let host = listener.local_addr()?.to_string();
        let redirect_uri = format!("http://{host}/callback");
        let (state, nonce) = (self.0.entropy.secret(), self.0.entropy.id());
        let verifier = self.0.entropy.secret();
        let challenge = CodeChallenge::of(verifier.expose());
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings().idp_client.client_id)
            .append_pair("redirect_uri", &redirect_uri)
            .append_pair("scope", "openid profile email offline_access")
            .append_pair("state", state.expose())
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", challenge.as_str())
            .append_pair("code_challenge_method", "S256");
        if let Some(hint) = &options.login_hint {
            query.append_pair("login_hint", hint);
        }
        if options.fresh {
            query.append_pair("prompt", "login");
        }
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        let url = format!("{endpoint}{separator}{}", query.finish());
        Ok(PendingSignIn {
            client: self.clone(),
            listener,
            url,
            redirect_uri,
            host,
            state,
            nonce,
            verifier,
            answers_with_issuer: metadata.authorization_response_iss_parameter_supported,
        })
    }

    /// Verifies an ID token with the IdP's published keys.
    pub(crate) async fn verify_id_token(
        &self,
        token: &str,
        nonce: Option<&str>,
        access_token: Option<&str>,
    ) -> Result<SignedIn, Error> {
        let idp = &self.settings().idp;
        let metadata = self.idp_metadata().await?;
        let refused = |error| Error::IdToken { issuer: idp.to_string(), error };
        let (header, _) = carnet_proto::jws::peek(token).map_err(refused)?;
        let named = header.optional_str("alg").ok().flatten();
        // The algorithm is the IdP's to announce; the token may only agree.
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|a| {
                named == Some(a.name())
                    && metadata.id_token_signing_alg_values_supported.iter().any(|m| m == a.name())
            })
            .ok_or(refused(carnet_proto::jws::JwtError::Algorithm(Algorithm::ES256)))?;
        let keys = RemoteKeys::new(self.0.outbound.clone(), self.0.clock.clone());
        let source = KeySource {
            owner: idp.to_string(),
            jwks_uri: metadata.jwks_uri,
            algorithm,
            reach: Reach::of_trusted_url(idp.as_str()),
        };
        let kid = header.optional_str("kid").ok().flatten();
        let keys = keys.keys(&source, kid).await.map_err(|e| Error::Discovery(e.to_string()))?;
        let client = &self.settings().idp_client.client_id;
        let expected = SignIn { issuer: idp, client, nonce, access_token };
        id_token::verify_sign_in(token, &keys, expected, self.0.clock.now()).map_err(refused)
    }
}

impl PendingSignIn {
    /// The URL for the browser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits for the browser to come back (five minutes at most), redeems the code, verifies the ID
    /// token and keeps the sign-in.
    pub async fn finish(self) -> Result<Session, Error> {
        let waiting = timeout(Duration::from_secs(PATIENCE), self.callback());
        let code = waiting
            .await
            .map_err(|_| Error::Callback("nobody signed in within five minutes".to_owned()))??;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", self.redirect_uri.as_str()),
            ("code_verifier", self.verifier.expose()),
        ];
        let answer = self.client.ask_idp(Leg::SignIn, &form).await?;
        let answer: CodeAnswer = answer.json().map_err(|e| Error::BadAnswer {
            leg: Leg::SignIn,
            what: format!("not a token answer with an ID token: {e}"),
        })?;
        let signed_in = self
            .client
            .verify_id_token(&answer.id_token, Some(&self.nonce), Some(&answer.access_token))
            .await?;
        let session = Session {
            issuer: self.client.settings().idp.to_string(),
            idp_client_id: self.client.settings().idp_client.client_id.clone(),
            name: signed_in.name,
            id_token: answer.id_token,
            id_token_expires: signed_in.expires.0,
            refresh_token: answer.refresh_token,
            renewed_at: self.client.0.clock.now().0,
        };
        let _lock = self.client.0.vault.lock().await?;
        self.client.0.vault.store(Some(&session)).await?;
        Ok(session)
    }

    /// Serves requests until one is the answer to this sign-in. Others get an error page and change
    /// nothing; the listener ends with the first that counts.
    async fn callback(&self) -> Result<Secret, Error> {
        loop {
            let (mut stream, _) = self.listener.accept().await?;
            let Ok(Ok(Some(target))) =
                timeout(Duration::from_secs(5), read_target(&mut stream, &self.host)).await
            else {
                answer(&mut stream, "400 Bad Request", "This is not a sign-in answer.").await;
                continue;
            };
            let Some(query) = target.strip_prefix("/callback?") else {
                answer(&mut stream, "404 Not Found", "Nothing is here.").await;
                continue;
            };
            let outcome = self.read_answer(query);
            match &outcome {
                Ok(_) => {
                    let text = "You are signed in. You can close this window.";
                    answer(&mut stream, "200 OK", text).await;
                }
                Err(_) => {
                    let text = "The sign-in failed. The program that asked for it says why.";
                    answer(&mut stream, "400 Bad Request", text).await;
                }
            }
            return outcome;
        }
    }

    /// Checks `state` and `iss` before anything else is looked at (RFC 9700 4.7, RFC 9207 2.4).
    fn read_answer(&self, query: &str) -> Result<Secret, Error> {
        let bad = |text: &str| Error::Callback(text.to_owned());
        let form = Form::parse(query.as_bytes())
            .map_err(|_| bad("the answer has a parameter twice or cannot be read"))?;
        let state = form.optional("state").unwrap_or_default();
        if !equal_in_constant_time(state, self.state.expose()) {
            return Err(bad("`state` is not the one of this sign-in"));
        }
        match form.optional("iss") {
            Some(issuer) if issuer != self.client.settings().idp.as_str() => {
                return Err(bad("`iss` is another issuer than the one asked (RFC 9207)"));
            }
            None if self.answers_with_issuer => {
                return Err(bad("`iss` is missing, though the issuer announces it (RFC 9207)"));
            }
            _ => {}
        }
        if let Some(error) = form.optional("error") {
            let plain = |c: &char| c.is_ascii_graphic();
            let error: String = error.chars().filter(plain).take(60).collect();
            return Err(Error::Callback(format!("the identity provider says {error}")));
        }
        form.optional("code").map(Secret::new).ok_or_else(|| bad("there is no `code`"))
    }
}

/// The target of a GET for this very host, read with limits.
async fn read_target(stream: &mut TcpStream, host: &str) -> std::io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut chunk = [0; 2048];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let read = stream.read(&mut chunk).await?;
        if read == 0 || head.len() > 16 * 1024 {
            return Ok(None);
        }
        head.extend_from_slice(&chunk[..read]);
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.split("\r\n");
    let mut request = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (request.next(), request.next());
    let mut hosts = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim())
    });
    let ours = hosts.next() == Some(host) && hosts.next().is_none();
    Ok(target.filter(|_| ours && method == Some("GET")).map(str::to_owned))
}

async fn answer(stream: &mut TcpStream, status: &str, text: &str) {
    let body = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Carnet</title>\
         <style>:root{{color-scheme:light dark}}body{{font:1.1rem system-ui;margin:3rem}}</style>\
         <main><h1>Carnet</h1><p>{text}</p></main></html>"
    );
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nconnection: close\r\nx-content-type-options: nosniff\r\n\
         content-security-policy: default-src 'none'; style-src 'unsafe-inline'\r\n\r\n{body}",
        body.len()
    );
    // The browser may be gone; the sign-in does not depend on this page.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}
