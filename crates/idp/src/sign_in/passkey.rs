//! Passkeys (Web Authentication): made and verified by `webauthn-rs`, always with user verification,
//! always discoverable, so that nobody names anybody before they prove themselves. What has to come
//! back is sealed into the form, for this browser alone; nothing is stored before.

use crate::state::Idp;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use passavant_proto::{identifier::Issuer, secret::sha256, time::Timestamp};
use passavant_store::{Passkey, StoreError, UsedJti, User};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;
use webauthn_rs::prelude::{
    CredentialID, DiscoverableAuthentication, Passkey as Held, PasskeyRegistration,
    PublicKeyCredential, RegisterPublicKeyCredential, Uuid, Webauthn, WebauthnBuilder,
    WebauthnError,
};

/// How long a challenge may wait in a page, in seconds.
const LIFETIME: i64 = 600;

/// The longest answer of an authenticator, in bytes.
const LONGEST: usize = 16 * 1024;

/// Where used challenges are kept.
const NAMESPACE: &str = "passkey challenge";

/// Why a passkey proves nothing.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The challenge waited too long, was another browser's, or was used.
    Stale,
    /// The answer is not one of an authenticator.
    Malformed,
    /// The page was framed by another site.
    CrossOrigin,
    /// It cannot be used without a user name.
    NotDiscoverable,
    /// Nobody has it, or it names another person.
    Unknown,
    /// It was used before this use with a higher count: there may be a copy.
    Copied,
    /// The library's word.
    Library(WebauthnError),
    Broken(StoreError),
}

impl Refused {
    /// The reason in the audit trail.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Copied => "sign_in.passkey_copied",
            Self::Stale => "sign_in.passkey_stale",
            _ => "sign_in.passkey",
        }
    }

    pub(crate) fn more(&self) -> String {
        match self {
            Self::Library(error) => format!("{error:?}"),
            Self::CrossOrigin => "from within another site's page".to_owned(),
            Self::NotDiscoverable => "it is not discoverable".to_owned(),
            Self::Malformed => "malformed".to_owned(),
            Self::Unknown => "unknown, or another person's".to_owned(),
            Self::Copied => "its count went back".to_owned(),
            Self::Stale => "the challenge is over".to_owned(),
            Self::Broken(_) => String::new(),
        }
    }
}

impl From<WebauthnError> for Refused {
    fn from(error: WebauthnError) -> Self {
        match error {
            WebauthnError::CredentialPossibleCompromise => Self::Copied,
            error => Self::Library(error),
        }
    }
}

impl From<serde_json::Error> for Refused {
    fn from(_: serde_json::Error) -> Self {
        Self::Malformed
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Broken(error)
    }
}

/// The relying party that an issuer is; `None` if its host is an address: browsers make passkeys for
/// names alone.
pub(crate) fn relying_party(issuer: &Issuer, name: &str) -> Option<Webauthn> {
    let origin = Url::parse(issuer.origin()).ok()?;
    let host = origin.domain()?.to_owned();
    WebauthnBuilder::new(&host, &origin).ok()?.rp_name(name).build().ok()
}

/// What has to come back with an answer.
#[derive(Serialize, Deserialize)]
struct Challenge<S> {
    expires_at: i64,
    state: S,
}

/// A form's options for the browser, and what has to come back.
pub(crate) struct Asked {
    pub(crate) options: String,
    pub(crate) state: String,
}

fn sealed<S: Serialize>(idp: &Idp, label: &str, state: S) -> Option<String> {
    let authority = &idp.0.authority;
    let expires_at = authority.now().plus(LIFETIME).0;
    let text = serde_json::to_vec(&Challenge { expires_at, state }).ok()?;
    authority.context.sealing.seal_passing(label, &text).ok()
}

/// What was sealed, and the mark that its challenge was used.
fn opened<S: for<'de> Deserialize<'de>>(
    idp: &Idp,
    label: &str,
    sealed: &str,
) -> Result<(S, UsedJti), Refused> {
    let authority = &idp.0.authority;
    let text = authority.context.sealing.open_passing(label, sealed).map_err(|_| Refused::Stale)?;
    let challenge: Challenge<S> = serde_json::from_slice(&text)?;
    if challenge.expires_at <= authority.now().0 {
        return Err(Refused::Stale);
    }
    let once = UsedJti {
        namespace: NAMESPACE.to_owned(),
        jti: sha256(&text),
        forget_after: Timestamp(challenge.expires_at).plus(3600),
    };
    Ok((challenge.state, once))
}

/// What is sealed is bound to the cookie of the browser that it was sent to.
fn label(purpose: &str, bound_to: &str) -> String {
    format!("passkey {purpose} {}", sha256(bound_to.as_bytes()))
}

/// A challenge for whoever signs in with this browser.
pub(crate) fn ask_to_sign_in(idp: &Idp, cookie: &str) -> Option<Asked> {
    let library = idp.0.passkeys.as_ref()?;
    let (options, state) = library.start_discoverable_authentication().ok()?;
    let mut options = serde_json::to_value(&options).ok()?["publicKey"].take();
    options.as_object_mut()?.remove("extensions");
    let state = sealed(idp, &label("sign-in", cookie), state)?;
    Some(Asked { options: options.to_string(), state })
}

/// A passkey that proves who somebody is: as it was, its document after this use, and the mark of the
/// challenge.
pub(crate) struct Proof {
    pub(crate) user: User,
    pub(crate) passkey: Passkey,
    pub(crate) document: String,
    pub(crate) once: UsedJti,
}

/// Verifies the answer of an authenticator at a sign-in.
pub(crate) async fn verify(
    idp: &Idp,
    cookie: &str,
    state: &str,
    answer: &str,
) -> Result<Proof, Refused> {
    let library = idp.0.passkeys.as_ref().ok_or(Refused::Unknown)?;
    if answer.len() > LONGEST {
        return Err(Refused::Malformed);
    }
    let (state, once): (DiscoverableAuthentication, _) =
        opened(idp, &label("sign-in", cookie), state)?;
    let answer: PublicKeyCredential = serde_json::from_str(answer)?;
    not_framed(&answer.response.client_data_json)?;
    let (handle, id) = library.identify_discoverable_authentication(&answer)?;
    let store = &idp.0.authority.store;
    let passkey = store.passkey(&URL_SAFE_NO_PAD.encode(id)).await?.ok_or(Refused::Unknown)?;
    let theirs = store.passkey_handle(&passkey.user_id, None).await?;
    if theirs.as_deref() != Some(&*URL_SAFE_NO_PAD.encode(handle.as_bytes())) {
        return Err(Refused::Unknown);
    }
    let user = store.usable::<User>(&passkey.user_id).await?;
    let user = user.filter(|user| !user.is_off()).ok_or(Refused::Unknown)?;
    let mut held: Held = serde_json::from_str(&passkey.document)?;
    // User verification was asked for, and is checked here.
    let result = library.finish_discoverable_authentication_v2(&answer, state, &held)?;
    held.update_credential(&result);
    let document = serde_json::to_string(&held)?;
    Ok(Proof { user, passkey, document, once })
}

/// Refuses what was asked for from within another site's page (Web Authentication, section 7.2).
fn not_framed(client_data: &[u8]) -> Result<(), Refused> {
    let client: Value = serde_json::from_slice(client_data)?;
    if client["crossOrigin"] == json!(true) || client.get("topOrigin").is_some() {
        return Err(Refused::CrossOrigin);
    }
    Ok(())
}

/// A challenge for a person who adds a passkey.
pub(crate) async fn ask_to_add(
    idp: &Idp,
    cookie: &str,
    user: &User,
) -> Result<Option<Asked>, StoreError> {
    let Some(library) = &idp.0.passkeys else { return Ok(None) };
    let authority = &idp.0.authority;
    let store = &authority.store;
    let mut new = [0; 16];
    authority.context.entropy.fill(&mut new);
    let new = URL_SAFE_NO_PAD.encode(new);
    let handle = store.passkey_handle(&user.id, Some(&new)).await?.unwrap_or(new);
    let handle =
        URL_SAFE_NO_PAD.decode(handle).ok().and_then(|bytes| Uuid::from_slice(&bytes).ok());
    let held = store.passkeys(&user.id).await?;
    let held: Vec<CredentialID> = held
        .iter()
        .filter_map(|held| serde_json::from_str::<Held>(&held.document).ok())
        .map(|held| held.cred_id().clone())
        .collect();
    let called = user.display_name.as_deref().unwrap_or(&user.username);
    let asked = handle.and_then(|handle| {
        let started =
            library.start_passkey_registration(handle, &user.username, called, Some(held)).ok()?;
        let (options, state) = started;
        let mut options = serde_json::to_value(&options).ok()?["publicKey"].take();
        // One that needs no user name: the library asks for it to be avoided.
        options["authenticatorSelection"]["residentKey"] = json!("required");
        options["authenticatorSelection"]["requireResidentKey"] = json!(true);
        options["extensions"] = json!({"credProps": true});
        let state = sealed(idp, &label(&format!("for {}", user.id), cookie), state)?;
        Some(Asked { options: options.to_string(), state })
    });
    Ok(asked)
}

/// Verifies the answer of an authenticator that made a passkey: its credential id, its document, and
/// the mark of the challenge.
pub(crate) fn verify_new(
    idp: &Idp,
    cookie: &str,
    user: &User,
    state: &str,
    answer: &str,
) -> Result<(String, String, UsedJti), Refused> {
    let library = idp.0.passkeys.as_ref().ok_or(Refused::Unknown)?;
    if answer.len() > LONGEST {
        return Err(Refused::Malformed);
    }
    let (state, once): (PasskeyRegistration, _) =
        opened(idp, &label(&format!("for {}", user.id), cookie), state)?;
    let answer: RegisterPublicKeyCredential = serde_json::from_str(answer)?;
    if answer.extensions.cred_props.as_ref().and_then(|props| props.rk) == Some(false) {
        return Err(Refused::NotDiscoverable);
    }
    not_framed(&answer.response.client_data_json)?;
    let held = library.finish_passkey_registration(&answer, &state)?;
    let id = URL_SAFE_NO_PAD.encode(held.cred_id());
    Ok((id, serde_json::to_string(&held)?, once))
}
