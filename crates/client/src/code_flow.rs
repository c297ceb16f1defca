//! The authorization code flow of a program on a person's computer: PKCE, a loopback listener that
//! accepts one response (RFC 8252), and the browser tab that delivered it. Sign-in, enrolment and
//! consent all use it.

use crate::error::Error;
use futures::{StreamExt, stream::FuturesUnordered};
use passavant_proto::{
    oauth::form::Form,
    oauth::pkce::CodeChallenge,
    secret::{Secret, equal_in_constant_time},
    time::Entropy,
};
use std::{net::Ipv4Addr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// How long the person may take, in seconds.
const PATIENCE: u64 = 300;
/// Connections that are read concurrently.
const CONNECTIONS: usize = 64;

/// A listener on this machine that waits for a browser.
pub struct Loopback {
    listener: TcpListener,
    host: String,
    path: String,
}

/// Lines that the person may paste: the URL at which a browser on another computer ended.
pub type Pasted = tokio::sync::mpsc::Receiver<Secret>;

/// The one callback of a client that was registered manually.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// `localhost` or `127.0.0.1`, as registered.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Loopback {
    /// Listens on `port` of 127.0.0.1; 0 means any free port.
    pub async fn listen(port: u16) -> Result<Self, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let host = listener.local_addr()?.to_string();
        Ok(Self { listener, host, path: "/callback".to_owned() })
    }

    /// Listens at the callback of a registration.
    pub(crate) async fn listen_at(callback: &Callback) -> Result<Self, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, callback.port)).await?;
        let host = format!("{}:{}", callback.host, callback.port);
        Ok(Self { listener, host, path: "/callback".to_owned() })
    }

    /// The redirect URI of this listener.
    pub fn redirect_uri(&self) -> String {
        format!("http://{}{}", self.host, self.path)
    }

    pub(crate) fn set_path(&mut self, path: &str) {
        path.clone_into(&mut self.path);
    }
}

/// The parameters of an authorization request.
pub(crate) struct Ask<'a> {
    pub(crate) endpoint: &'a str,
    pub(crate) issuer: &'a str,
    /// Whether the issuer announces `iss` in its authorization responses (RFC 9207).
    pub(crate) answers_with_issuer: bool,
    pub(crate) client_id: &'a str,
    pub(crate) scope: &'a str,
    /// Further parameters: `resource`, `login_hint`, `prompt` and others.
    pub(crate) more: &'a [(&'a str, &'a str)],
}

/// An authorization request that waits for the browser.
pub(crate) struct CodeFlow {
    loopback: Loopback,
    pub(crate) url: String,
    pub(crate) nonce: String,
    verifier: Secret,
    state: Secret,
    issuer: String,
    answers_with_issuer: bool,
}

impl CodeFlow {
    pub(crate) fn begin(loopback: Loopback, entropy: &Entropy, ask: &Ask<'_>) -> Self {
        let (state, nonce) = (entropy.secret(), entropy.id());
        let verifier = entropy.secret();
        let challenge = CodeChallenge::of(verifier.expose());
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", ask.client_id)
            .append_pair("redirect_uri", &loopback.redirect_uri())
            .append_pair("state", state.expose())
            .append_pair("code_challenge", challenge.as_str())
            .append_pair("code_challenge_method", "S256");
        if !ask.scope.is_empty() {
            query.append_pair("scope", ask.scope);
        }
        if ask.scope.split(' ').any(|scope| scope == "openid") {
            query.append_pair("nonce", &nonce);
        }
        query.extend_pairs(ask.more);
        let separator = if ask.endpoint.contains('?') { '&' } else { '?' };
        Self {
            url: format!("{}{separator}{}", ask.endpoint, query.finish()),
            loopback,
            nonce,
            verifier,
            state,
            issuer: ask.issuer.to_owned(),
            answers_with_issuer: ask.answers_with_issuer,
        }
    }

    pub(crate) fn redirect_uri(&self) -> String {
        self.loopback.redirect_uri()
    }

    /// The parameters that redeem a code, with the `redirect_uri` of this flow.
    pub(crate) fn redemption<'a>(
        &'a self,
        code: &'a str,
        redirect_uri: &'a str,
    ) -> [(&'a str, &'a str); 4] {
        [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", self.verifier.expose()),
        ]
    }

    /// Returns the listener, for another request in the same browser tab.
    pub(crate) fn into_loopback(self) -> Loopback {
        self.loopback
    }

    /// Waits for the browser, five minutes at most, or for the person to paste the URL at which it
    /// ended. Returns the code, and the tab that waits for a page.
    pub(crate) async fn answer(
        &self,
        pasted: Option<&mut Pasted>,
    ) -> Result<(Secret, WaitingTab), Error> {
        let waiting = async {
            tokio::select! {
                answer = self.callback() => answer,
                code = self.pasted(pasted) => code.map(|code| (code, WaitingTab(None))),
            }
        };
        timeout(Duration::from_secs(PATIENCE), waiting)
            .await
            .map_err(|_| Error::Callback("nobody signed in within five minutes".to_owned()))?
    }

    /// Reads pasted lines until one is the response to this request. It is checked like a response
    /// from a browser.
    async fn pasted(&self, pasted: Option<&mut Pasted>) -> Result<Secret, Error> {
        if let Some(pasted) = pasted {
            while let Some(line) = pasted.recv().await {
                let line = line.expose().trim();
                let query = line.split_once('?').map_or(line, |(_, query)| query);
                let query = query.split('#').next().unwrap_or_default();
                // Only the URL at which the browser ended contains a response. Other lines, such as
                // the URL at which the sign-in began, are ignored.
                let answers = Form::parse(query.as_bytes())
                    .is_ok_and(|form| form.mentions("code") || form.mentions("error"));
                if !answers {
                    continue;
                }
                match self.read_answer(query) {
                    Ok(code) => return Ok(code),
                    Err(NotAnswer::Failed(error)) => return Err(error),
                    Err(NotAnswer::Other) => {}
                }
            }
        }
        // Nothing can be pasted any more.
        std::future::pending().await
    }

    /// Serves requests until one is the response to this request. All others get an error page and
    /// have no effect, since any page and any program can send them; the first genuine response
    /// ends the wait.
    async fn callback(&self) -> Result<(Secret, WaitingTab), Error> {
        let answers = format!("{}?", self.loopback.path);
        let mut reading = FuturesUnordered::new();
        loop {
            // Connections are read concurrently, because browsers open some on which they send
            // nothing.
            let (tab, target) = tokio::select! {
                accepted = self.loopback.listener.accept() => {
                    let (stream, _) = accepted?;
                    if reading.len() < CONNECTIONS {
                        reading.push(read_target(stream, &self.loopback.host));
                    }
                    continue;
                }
                Some(read) = reading.next() => read,
            };
            let Some(target) = target else {
                tab.answer("400 Bad Request", "", "This is not a sign-in answer.").await;
                continue;
            };
            let Some(query) = target.strip_prefix(answers.as_str()) else {
                tab.answer("404 Not Found", "", "Nothing is here.").await;
                continue;
            };
            return match self.read_answer(query) {
                Ok(code) => Ok((code, tab)),
                Err(NotAnswer::Other) => {
                    let text = "This is not the answer to the sign-in that is under way.";
                    tab.answer("400 Bad Request", "", text).await;
                    continue;
                }
                Err(NotAnswer::Failed(error)) => {
                    tab.failed().await;
                    Err(error)
                }
            };
        }
    }

    /// Checks `state` and `iss` before anything else (RFC 9700 4.7, RFC 9207 2.4).
    fn read_answer(&self, query: &str) -> Result<Secret, NotAnswer> {
        let bad = |text: &str| NotAnswer::Failed(Error::Callback(text.to_owned()));
        let form = Form::parse(query.as_bytes()).map_err(|_| NotAnswer::Other)?;
        let state = form.optional("state").unwrap_or_default();
        if !equal_in_constant_time(state, self.state.expose()) {
            return Err(NotAnswer::Other);
        }
        match form.optional("iss") {
            Some(issuer) if issuer != self.issuer => {
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
            return Err(bad(&format!("{} says {error}", self.issuer)));
        }
        form.optional("code").map(Secret::new).ok_or_else(|| bad("there is no `code`"))
    }
}

/// Why a request to the listener contains no code.
enum NotAnswer {
    /// It is not the response to this request: it has no effect.
    Other,
    /// It is the response, and is an error or malformed.
    Failed(Error),
}

/// The browser tab that delivered the response, and that shows the result. There is none if the
/// person pasted the response.
pub struct WaitingTab(Option<TcpStream>);

impl WaitingTab {
    /// Shows the result to the person.
    pub(crate) async fn ends<T>(self, outcome: Result<T, Error>) -> Result<T, Error> {
        match outcome {
            Ok(_) => {
                let text =
                    "You are signed in. Close this window, and go back to what you were doing.";
                self.answer("200 OK", "", text).await;
            }
            Err(_) => self.failed().await,
        }
        outcome
    }

    pub(crate) async fn failed(self) {
        let text = "The sign-in failed. The program that asked for it says why.";
        self.answer("400 Bad Request", "", text).await;
    }

    /// Whether there is a tab that can be redirected.
    pub fn is_here(&self) -> bool {
        self.0.is_some()
    }

    /// Redirects the browser to the next step.
    pub(crate) async fn go_on(self, url: &str) {
        // The URL was made here: a verified endpoint with an encoded query.
        self.answer("303 See Other", &format!("location: {url}\r\n"), "One moment …").await;
    }

    async fn answer(self, status: &str, header: &str, text: &str) {
        let Some(mut stream) = self.0 else { return };
        let body = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>Passavant</title>\
             <meta name=viewport content='width=device-width, initial-scale=1'>\
             <style>{STYLE}</style><main><h1>Passavant</h1><p>{text}</p></main></html>"
        );
        let answer = format!(
            "HTTP/1.1 {status}\r\n{header}content-type: text/html; charset=utf-8\r\n\
             content-length: {}\r\ncache-control: no-store\r\nconnection: close\r\n\
             x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n\
             content-security-policy: default-src 'none'; style-src 'unsafe-inline'\r\n\r\n{body}",
            body.len()
        );
        // The browser may be closed; the sign-in does not depend on this page.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

/// The last page of a sign-in looks like its first one.
const STYLE: &str = ":root{color-scheme:light dark;--ink:#1b1f27;--line:#8a93a3;--page:#f4f5f7;--card:#fff}\
    @media (prefers-color-scheme:dark){:root{--ink:#eceff4;--line:#6b7484;--page:#12151b;--card:#1b2029}}\
    *{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);\
    font:1rem/1.5 system-ui,sans-serif;min-height:100vh;display:grid;place-items:center;padding:1rem}\
    main{background:var(--card);border:1px solid var(--line);border-radius:.75rem;padding:1.75rem;\
    width:100%;max-width:26rem}h1{font-size:1.35rem;margin:0}p{margin:.5rem 0 0}";

/// The target of a GET for this host, read with limits.
async fn read_target(mut stream: TcpStream, host: &str) -> (WaitingTab, Option<String>) {
    let read = timeout(Duration::from_secs(5), target_of(&mut stream, host)).await;
    let target = read.ok().and_then(Result::ok).flatten();
    (WaitingTab(Some(stream)), target)
}

async fn target_of(stream: &mut TcpStream, host: &str) -> std::io::Result<Option<String>> {
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
