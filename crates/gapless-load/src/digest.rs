//! Lower-case hexadecimal SHA-256, the form in which bodies carry digests.

use sha2::{Digest, Sha256};

/// Characters of a SHA-256 in hexadecimal.
pub const HEX_LENGTH: usize = 64;

/// Ends `hasher` and writes its value as lower-case hexadecimal.
pub fn finish_hex(hasher: Sha256) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(HEX_LENGTH);
    for byte in hasher.finalize() {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_digest_of_abc() {
        let text = finish_hex(Sha256::new_with_prefix(b"abc"));
        assert_eq!(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
