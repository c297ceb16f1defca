//! Why an outbound request got no response, in words that name no internal address.

use passavant_proto::others_text::shown;
use url::Url;

/// Why an outbound request got no response. The texts name no internal address.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The URL is not one that may be requested.
    #[error("`{0}` is not an https URL (http is accepted on this machine only)")]
    Url(String),
    /// The host's address is out of reach for this request.
    #[error("{0} is on a network this request may not reach")]
    Reach(String),
    /// There was no connection, no TLS, or no response in time.
    #[error("{host} did not answer: {cause}")]
    Unreachable {
        /// The host (and port) of the request.
        host: String,
        /// The transport's error.
        cause: String,
    },
    /// The response is larger than allowed.
    #[error("the answer of {0} is larger than {1} bytes")]
    TooLarge(String, usize),
    /// The response has a content coding that was not requested and is not supported.
    #[error(
        "the answer of {0} has the Content-Encoding `{1}`, which was not asked for\n\
         hint: the server, or a proxy in front of it, has to respect Accept-Encoding"
    )]
    Encoding(String, String),
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be set up: {0}")]
    Setup(String),
}

pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or("the host");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// An error and its causes, without the URL, whose query may be confidential.
pub fn text(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    if error.is_timeout() {
        causes.push("no answer in time".to_owned());
    }
    if causes.iter().any(|cause| cause.contains("InvalidContentType")) {
        return "the server there does not speak TLS; is it an http URL?".to_owned();
    }
    if let Some(what) = causes.iter().rev().find_map(|cause| certificate_trouble(cause)) {
        return what;
    }
    if causes.iter().any(|cause| cause.contains("onnection refused")) {
        return "the connection was refused\n\
                hint: is the server running, and are host and port right?"
            .to_owned();
    }
    if causes.iter().any(|cause| cause.contains("failed to lookup address")) {
        return "its host name cannot be resolved\n\
                hint: is it spelled right, and is this computer online?"
            .to_owned();
    }
    // The last one is the cause of all the others.
    causes.pop().unwrap_or_else(|| "the request failed".to_owned())
}

/// What is wrong with a certificate, and what to do about it.
fn certificate_trouble(cause: &str) -> Option<String> {
    let why = cause.split_once("invalid peer certificate: ").map(|(_, why)| why)?;
    let what = if why.contains("UnknownIssuer") || why.contains("UnknownRevocationStatus") {
        "its certificate is signed by an authority that is not known here\nhint: if that is your company's own, name its \
         certificate (PEM) with --extra-roots FILE or PASSAVANT_EXTRA_ROOTS; a server, with `extra_roots` under [outbound]"
    } else if why.contains("Expired") {
        "its certificate has expired\nhint: its operator has to renew it; or the clock of this computer is wrong"
    } else if why.contains("NotValidYet") {
        "its certificate is not valid yet\nhint: is the clock of this computer right?"
    } else if why.contains("NotValidForName") {
        "its certificate is for another name\nhint: use the name that is in the certificate, or tell its operator"
    } else {
        return Some(format!("its certificate is refused: {}", shown(why, 200)));
    };
    Some(what.to_owned())
}
