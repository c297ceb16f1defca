//! A headless browser: signs in at the IdP as a person does, over HTTP, so that the walk uses the
//! real code flow.

use anyhow::{Context, Result, bail};
use passavant_outbound::Outbound;
use passavant_proto::secret::Secret;
use std::collections::BTreeMap;
use url::{Url, form_urlencoded};

/// Pages that it opens at most for one sign-in.
const LONGEST: usize = 12;

/// Opens `url`, follows the button of the company's own sign-in if there is one, fills in the form,
/// and follows the redirects back to the client.
pub(crate) async fn sign_in(
    outbound: &Outbound,
    url: &str,
    username: &str,
    password: &Secret,
) -> Result<()> {
    // By host: browsers send a cookie to all ports of one.
    let mut cookies: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut at = Url::parse(url)?;
    let mut form: Option<String> = None;
    for _ in 0..LONGEST {
        let http = outbound.streaming(at.as_str())?;
        let host = at.host_str().unwrap_or_default().to_owned();
        let held = cookies.entry(host.clone()).or_default();
        let header: Vec<String> =
            held.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = match form.take() {
            Some(body) => http
                .post(at.clone())
                .header("origin", at.origin().ascii_serialization())
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body),
            None => http.get(at.clone()),
        };
        let answer = request.header("cookie", header.join("; ")).send().await?;
        for cookie in answer.headers().get_all("set-cookie") {
            let pair = cookie.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            let Some((name, value)) = pair.split_once('=') else { continue };
            if value.is_empty() {
                held.remove(name);
            } else {
                held.insert(name.to_owned(), value.to_owned());
            }
        }
        let status = answer.status().as_u16();
        let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
        if let Some(location) = location {
            at = at.join(location)?;
            if at.query_pairs().any(|(name, _)| name == "code") && at.path() == "/callback" {
                outbound.streaming(at.as_str())?.get(at).send().await?;
                return Ok(());
            }
            continue;
        }
        if status != 200 {
            bail!("the sign-in was not accepted (HTTP {status})");
        }
        let html = answer.text().await?;
        if let Some(button) = attribute(&html, "<a class=\"button\" href=\"") {
            at = at.join(&unescape(button))?;
            continue;
        }
        let action =
            attribute(&html, "<form method=\"post\" action=\"").context("no sign-in form")?;
        let csrf = attribute(&html, "name=\"csrf\" value=\"").context("no form token")?;
        form = Some(
            form_urlencoded::Serializer::new(String::new())
                .append_pair("csrf", csrf)
                .append_pair("username", username)
                .append_pair("password", password.expose())
                .finish(),
        );
        at = at.join(&unescape(action))?;
    }
    bail!("the sign-in goes in circles at {}", at.path())
}

fn attribute<'a>(html: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = html.split_once(before)?;
    rest.split_once('"').map(|(value, _)| value)
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}
