//! Fresh private keys, from the system's randomness.

use anyhow::{Result, anyhow};
use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair},
};
use passavant_proto::jose::jwk::Algorithm;
use zeroize::Zeroizing;

/// A fresh PKCS#8 key.
pub fn generate(algorithm: Algorithm) -> Result<Zeroizing<Vec<u8>>> {
    let random = SystemRandom::new();
    let failed = || anyhow!("a signing key cannot be made");
    if algorithm == Algorithm::RS256 {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| failed())?;
        let document = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair);
        return Ok(Zeroizing::new(document.map_err(|_| failed())?.as_ref().to_vec()));
    }
    let document = match algorithm {
        Algorithm::EdDSA => Ed25519KeyPair::generate_pkcs8v1(&random),
        _ => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random),
    };
    let document = document.map_err(|_| failed())?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}
