//! A headless browser: signs in at the IdP as a person does, over HTTP, so that the walk uses the
//! real code flow.

use anyhow::{Context, Result, bail};
use passavant_outbound::Outbound;
use passavant_proto::secret::Secret;
use url::{Url, form_urlencoded};

/// Opens `url`, fills in the sign-in form, and follows the redirect back to the client.
pub(crate) async fn sign_in(
    outbound: &Outbound,
    url: &str,
    username: &str,
    password: &Secret,
) -> Result<()> {
    let http = outbound.streaming(url)?;
    let page = http.get(url).send().await?;
    let cookies: Vec<String> = page
        .headers()
        .get_all("set-cookie")
        .iter()
        .filter_map(|value| value.to_str().ok()?.split(';').next().map(str::to_owned))
        .collect();
    let html = page.text().await?;
    let action = attribute(&html, "<form method=\"post\" action=\"").context("no sign-in form")?;
    let csrf = attribute(&html, "name=\"csrf\" value=\"").context("no form token")?;
    let target = Url::parse(url)?.join(&unescape(action))?;
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("csrf", csrf)
        .append_pair("username", username)
        .append_pair("password", password.expose())
        .finish();
    let answer = http
        .post(target.clone())
        .header("origin", target.origin().ascii_serialization())
        .header("cookie", cookies.join("; "))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body)
        .send()
        .await?;
    let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
    let Some(location) = location else {
        bail!("the sign-in was not accepted (HTTP {})", answer.status().as_u16());
    };
    outbound.streaming(location)?.get(location).send().await?;
    Ok(())
}

fn attribute<'a>(html: &'a str, before: &str) -> Option<&'a str> {
    let (_, rest) = html.split_once(before)?;
    rest.split_once('"').map(|(value, _)| value)
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}
