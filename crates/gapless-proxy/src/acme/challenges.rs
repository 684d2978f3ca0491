//! Proofs that a name is ours, as files that the holder writes and every worker answers with.

use super::folder::{self, FILE_MODE_NOTE};
use crate::error::ProxyError;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where an authority asks: RFC 8555, section 8.3.
const PREFIX: &str = "/.well-known/acme-challenge/";
/// A token has at least 128 bits, which are so many characters of base64url: RFC 8555, section 8.3.
const TOKEN_SHORTEST: usize = 22;
/// No token in use is longer than 43 characters; this keeps the name of its file far below the system's 255 bytes.
const TOKEN_LONGEST: usize = 128;
/// A token, a dot, and a thumbprint of 43 characters (RFC 8555, section 8.1), in bytes.
const PROOF_LIMIT: u64 = 256;
/// So many stand there at once at most: one for each name of the largest certificate, for there is one order at a time, and some.
const CHALLENGE_LIMIT: usize = 256;

/// The proofs of all processes that share a state folder.
#[derive(Clone, Debug)]
pub(crate) struct Challenges {
    folder: PathBuf,
}

/// A proof that can be asked for until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Left behind it harms nothing, and the next start clears it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Challenges {
    /// The proofs in `<state>/acme/challenges/`. Touches no file.
    pub(crate) fn new(state: &Path) -> Self {
        Self { folder: folder::challenges(state) }
    }

    /// What to answer to a request of plain HTTP for this path (without query): status 200, `Content-Type: application/octet-stream`, and exactly this body.
    /// `None` when nothing was ordered that asks for it: then the request is like any other. Reads at most one small file, and none for a path of other
    /// form, so it can stand in front of every request;
    /// it has to stand in front of a redirect to `https`, which proves nothing while there is no certificate.
    pub(crate) fn answer(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(PREFIX).filter(|token| is_token(token))?;
        let mut proof = String::new();
        File::open(self.folder.join(token)).ok()?.take(PROOF_LIMIT).read_to_string(&mut proof).ok()?;
        proves(&proof, token).then_some(proof)
    }

    /// Answers for this token with this key authorization (RFC 8555, section 8.1) from now on, in all processes.
    ///
    /// # Errors
    /// When the authority's token is none, when too many stand there, or when the disk refuses.
    pub(super) fn put(&self, token: &str, proof: &str) -> Result<Held, ProxyError> {
        if !is_token(token) || !proves(proof, token) || proof.len() as u64 > PROOF_LIMIT {
            // It becomes the name of a file.
            return Err(ProxyError::new("the authority gave a token that is not one of RFC 8555, section 8.3")
                .hint("look whether the directory is that of a certificate authority"));
        }
        if self.count() >= CHALLENGE_LIMIT {
            return Err(ProxyError::new(format!("{} holds {CHALLENGE_LIMIT} challenges already", self.folder.display()))
                .hint("an order has one for each name: remove the files, nothing else uses them"));
        }
        let path = self.folder.join(token);
        folder::replace(&path, proof.as_bytes())
            .map_err(|error| ProxyError::path("write the challenge", &path, &error).hint(FILE_MODE_NOTE))?;
        Ok(Held { path })
    }

    /// Drops all: those of an order that was killed are asked for by nobody.
    pub(super) fn clear(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            drop(Held { path: entry.path() });
        }
    }

    fn count(&self) -> usize {
        fs::read_dir(&self.folder).map_or(0, Iterator::count)
    }
}

/// Only characters of base64url (RFC 4648, section 5), of which no path can be made.
fn is_token(text: &str) -> bool {
    (TOKEN_SHORTEST..=TOKEN_LONGEST).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn proves(proof: &str, token: &str) -> bool {
    proof.strip_prefix(token).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_token)
}
