//! The code that a device shows and a person types (RFC 8628 section 6.1): eight consonants, about
//! 34 bits. They form no words, and no two of them are easily confused.

use crate::{secret::Secret, time::Entropy};

const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const LENGTH: usize = 8;

/// A code of eight letters, each equally likely.
pub fn generate(entropy: &Entropy) -> Secret {
    let mut code = String::with_capacity(LENGTH);
    while code.len() < LENGTH {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes);
        // 240 is the largest multiple of 20 in a byte: values above it would favour some letters.
        let fair = bytes.iter().filter(|byte| **byte < 240);
        let letters = fair.map(|byte| char::from(LETTERS[usize::from(byte % 20)]));
        code.extend(letters.take(LENGTH - code.len()));
    }
    Secret::new(code)
}

/// The code for display, in two groups.
pub fn shown(code: &Secret) -> String {
    let code = code.expose();
    match code.split_at_checked(LENGTH / 2) {
        Some((first, second)) => format!("{first}-{second}"),
        None => code.to_owned(),
    }
}

/// The code that a person typed, whatever case and separators they used; `None` if it cannot be a
/// code.
pub fn typed(text: &str) -> Option<Secret> {
    if text.len() > 64 {
        return None;
    }
    let letters = text.chars().filter(char::is_ascii_alphanumeric);
    let code: String = letters.map(|letter| letter.to_ascii_uppercase()).collect();
    let fits = code.len() == LENGTH && code.bytes().all(|byte| LETTERS.contains(&byte));
    fits.then(|| Secret::new(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU8, Ordering};

    #[test]
    fn a_code_is_read_as_it_is_shown_and_as_people_type_it() {
        let next = AtomicU8::new(0);
        let entropy = Entropy::new(move |bytes| {
            for byte in bytes {
                *byte = next.fetch_add(37, Ordering::Relaxed);
            }
        });
        for _ in 0..200 {
            let code = generate(&entropy);
            assert_eq!(code.expose().len(), LENGTH);
            let shown = shown(&code);
            for text in [
                shown.clone(),
                shown.to_lowercase(),
                shown.replace('-', " "),
                format!(" {shown}. "),
            ] {
                assert_eq!(typed(&text), Some(code.clone()), "{text}");
            }
        }
        for text in ["", "BCDF", "BCDF-GHJA", "BCDF-GHJKL", "BCDF-GHJ\u{212a}", &"B".repeat(100)] {
            assert_eq!(typed(text), None, "{text}");
        }
    }
}
