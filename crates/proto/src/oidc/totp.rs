//! One-time passwords by time (RFC 6238, with RFC 4226): six digits, thirty seconds, SHA-1, as every
//! authenticator application has them.

use crate::secret::equal_in_constant_time;
use aws_lc_rs::hmac;

/// How long a code lasts, in seconds.
pub const STEP: i64 = 30;

/// A seed: 160 bits (RFC 4226, section 4).
pub type Seed = [u8; 20];

/// The code of one step, as an authenticator application shows it.
pub fn code(seed: &Seed, step: i64) -> String {
    // RFC 6238 prescribes it; an HMAC does not rest on collision resistance.
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, seed);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let bytes = tag.as_ref();
    // RFC 4226, section 5.3: twenty bytes, and the offset is at most 15.
    let at = usize::from(bytes[19] & 15);
    let number = u32::from_be_bytes([bytes[at] & 127, bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    format!("{:06}", number % 1_000_000)
}

/// The step that `typed` is the code of: the present one, or one beside it, since clocks differ; later
/// than `used`, the last one that was accepted, so that no code serves twice (RFC 6238, section 5.2).
pub fn step_of(seed: &Seed, typed: &str, now: i64, used: i64) -> Option<i64> {
    let typed: String = typed.chars().filter(|c| !c.is_whitespace()).collect();
    let this = now.div_euclid(STEP);
    // All are compared, right or wrong.
    let right = [this - 1, this, this + 1]
        .map(|step| (step, equal_in_constant_time(&code(seed, step), &typed)));
    right.into_iter().find(|(step, right)| *right && *step > used).map(|(step, _)| step)
}

/// The seed as a person types it: base32 without padding (RFC 4648, section 6).
pub fn base32(seed: &[u8]) -> String {
    let bits: Vec<u8> =
        seed.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let letter = |five: &[u8]| {
        let number = five.iter().fold(0_u8, |number, bit| number << 1 | bit) << (5 - five.len());
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(number)])
    };
    bits.chunks(5).map(letter).collect()
}

/// What an authenticator application reads from a QR code.
pub fn uri(seed: &Seed, issuer: &str, account: &str) -> String {
    let encoded = |text: &str| {
        let text = text.replace(':', " ");
        percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let (issuer, account, secret) = (encoded(issuer), encoded(account), base32(seed));
    format!(
        "otpauth://totp/{issuer}:{account}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits=6&period={STEP}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &Seed = b"12345678901234567890";

    /// RFC 6238, appendix B, the last six digits.
    #[test]
    fn codes_are_those_of_the_standard() {
        for (at, expected) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(code(SEED, at / STEP), expected);
            assert_eq!(step_of(SEED, expected, at, 0), Some(at / STEP));
        }
    }

    #[test]
    fn a_code_is_good_in_its_step_and_those_beside_it_and_once() {
        let now = 1_111_111_111;
        let step = now / STEP;
        let typed = "050 471";
        assert_eq!(step_of(SEED, typed, now, 0), Some(step));
        assert_eq!(step_of(SEED, typed, now + STEP, 0), Some(step));
        assert_eq!(step_of(SEED, typed, now - STEP, 0), Some(step));
        assert_eq!(step_of(SEED, typed, now + 2 * STEP, 0), None);
        assert_eq!(step_of(SEED, typed, now - 2 * STEP, 0), None);
        assert_eq!(step_of(SEED, typed, now, step), None, "it was used");
        for wrong in ["", "050472", "50471", "0504710", "٠٥٠٤٧١"] {
            assert_eq!(step_of(SEED, wrong, now, 0), None);
        }
    }

    #[test]
    fn seeds_are_written_as_applications_read_them() {
        assert_eq!(base32(b"foobar"), "MZXW6YTBOI");
        assert_eq!(base32(SEED), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert_eq!(
            uri(SEED, "Acme & Co: x", "erin@acme.example"),
            "otpauth://totp/Acme%20%26%20Co%20%20x:erin%40acme%2Eexample?\
             secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Acme%20%26%20Co%20%20x&algorithm=SHA1&digits=6&period=30"
        );
    }
}
