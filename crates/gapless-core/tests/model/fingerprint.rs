//! 128-bit fingerprints of states.
//!
//! The visited set stores nothing else of a state. Two lanes of 64 bits with independent keys, each word folded in by a full 64 × 64 multiplication. Taken as random, n states
//! collide with a probability of at most n² / 2^129: for 100 million states less than 2 in 10^23.

use std::hash::{Hash, Hasher};

const KEYS: [u64; 4] = [0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0xd6e8_feb8_6659_fd93];

/// The fingerprint of a state, or of anything else that is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(pub [u32; 4]);

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.0[0]) << 32 | u64::from(self.0[1]));
    }
}

struct Lanes(u64, u64);

impl Lanes {
    fn word(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word, KEYS[0]).wrapping_add(KEYS[2]);
        self.1 = fold(self.1 ^ word.rotate_left(32), KEYS[1]).wrapping_add(KEYS[3]) ^ self.0.rotate_left(17);
    }
}

fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product >> 64) as u64 ^ product as u64 ^ left.rotate_left(23)
}

impl Hasher for Lanes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.word(chunk.try_into().map_or(0, u64::from_le_bytes));
        }
        let mut last = [0; 8];
        let rest = chunks.remainder();
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    fn write_u8(&mut self, word: u8) {
        self.word(word.into());
    }

    fn write_u16(&mut self, word: u16) {
        self.word(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.word(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.word(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.word(word as u64);
    }
}

/// The fingerprint of a value.
pub fn fingerprint(value: &impl Hash) -> Fingerprint {
    let mut lanes = Lanes(KEYS[2], KEYS[3]);
    value.hash(&mut lanes);
    lanes.word(KEYS[0]);
    let (first, second) = (lanes.0, lanes.1);
    Fingerprint([(first >> 32) as u32, first as u32, (second >> 32) as u32, second as u32])
}

/// Takes the bits of a fingerprint as they are: they are as good as random already.
#[derive(Clone, Copy, Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.0 ^= u64::from(word).wrapping_mul(KEYS[0]);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 ^= word;
    }
}

/// Builds [`AsItIs`].
pub type Identity = std::hash::BuildHasherDefault<AsItIs>;
