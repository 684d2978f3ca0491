//! The installation's key: made once, kept where only root reads it.

use super::canonical;
use ed25519_dalek::Signer;
use gapless_wire::receipt::{Receipt, SignedReceipt};
use rustix::rand::{GetRandomFlags, getrandom};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The key's file in the folder of keys: 64 hexadecimal digits, the secret of RFC 8032.
const SECRET: &str = "receipt.key";

/// The public half beside it, for people to hand on: 64 hexadecimal digits.
const PUBLIC: &str = "receipt.pub";

/// Signs receipts.
pub struct SigningKey(ed25519_dalek::SigningKey);

/// Why there is no key.
#[derive(Debug)]
pub struct KeyError {
    path: PathBuf,
    reason: String,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the key {} cannot be used: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for KeyError {}

impl SigningKey {
    /// The key in this folder; made when there is none.
    ///
    /// # Errors
    /// When it cannot be read or made, or is no key: a damaged key is never replaced, because old receipts name it.
    pub fn open(folder: &Path) -> Result<SigningKey, KeyError> {
        let path = folder.join(SECRET);
        let failed = |reason: String| KeyError { path: path.clone(), reason };
        match fs::read_to_string(&path) {
            Ok(text) => {
                let secret = bytes_of::<32>(text.trim())
                    .ok_or_else(|| failed("it is not 64 hexadecimal digits; restore it from a backup".into()))?;
                Ok(Self(ed25519_dalek::SigningKey::from_bytes(&secret)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(folder).map_err(|error| failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn make(folder: &Path) -> io::Result<SigningKey> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut secret = [0; 32];
        let mut filled = 0;
        while filled < secret.len() {
            filled += getrandom(&mut secret[filled..], GetRandomFlags::empty())?;
        }
        let key = Self(ed25519_dalek::SigningKey::from_bytes(&secret));
        write_durably(folder, PUBLIC, 0o644, &key.public())?;
        write_durably(folder, SECRET, 0o600, &digits(&secret))?;
        Ok(key)
    }

    /// The public key, 64 hexadecimal digits.
    #[must_use]
    pub fn public(&self) -> String {
        digits(self.0.verifying_key().as_bytes())
    }

    /// The receipt with its signature.
    ///
    /// # Errors
    /// When the receipt cannot be written as JSON.
    pub fn sign(&self, receipt: Receipt) -> Result<SignedReceipt, serde_json::Error> {
        let payload = canonical::text(&serde_json::to_value(&receipt)?);
        let signature = self.0.sign(payload.as_bytes());
        Ok(SignedReceipt { receipt, key: self.public(), signature: digits(&signature.to_bytes()) })
    }
}

fn write_durably(folder: &Path, name: &str, mode: u32, text: &str) -> io::Result<()> {
    let (path, unfinished) = (folder.join(name), folder.join(format!("{name}.new")));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    fs::File::open(folder)?.sync_all()
}

fn digits(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that hexadecimal digits stand for.
pub(super) fn bytes_of<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.len() != N * 2 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
