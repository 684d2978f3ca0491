//! The key of a step: a digest of everything that it is made of.

use gapless_core::digest::Digest;
use sha2::{Digest as _, Sha256};

/// Collects inputs, each with its name and length, so that no two different lists give the same key.
pub(crate) struct Inputs(Sha256);

impl Inputs {
    /// For one kind of step, in one version of how that step is done.
    pub(crate) fn new(step: &str, version: u32) -> Self {
        let mut inputs = Self(Sha256::new());
        inputs.add("step", step.as_bytes());
        inputs.add("version", &version.to_be_bytes());
        inputs
    }

    /// Adds an input.
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) {
        for part in [name.as_bytes(), content] {
            self.0.update((part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
    }

    /// The key.
    pub(crate) fn key(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_border_between_inputs_counts() {
        let key = |pairs: &[(&str, &str)]| {
            let mut inputs = Inputs::new("test", 1);
            pairs.iter().for_each(|(name, content)| inputs.add(name, content.as_bytes()));
            inputs.key()
        };
        assert_ne!(key(&[("a", "bc")]), key(&[("ab", "c")]));
        assert_ne!(key(&[("a", "b"), ("c", "d")]), key(&[("a", "bcd")]));
        assert_eq!(key(&[("a", "b")]), key(&[("a", "b")]));
    }
}
