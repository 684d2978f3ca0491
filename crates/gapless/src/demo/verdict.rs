//! What the demo claims, and whether it held: each claim with the evidence that was looked at.

/// A claim that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What should be so.
    pub claim: String,
    /// Whether it is so.
    pub holds: bool,
    /// What was seen.
    pub evidence: String,
}

impl Proof {
    /// A claim with what was seen of it.
    pub fn new(claim: impl Into<String>, holds: bool, evidence: impl Into<String>) -> Self {
        Self { claim: claim.into(), holds, evidence: evidence.into() }
    }

    /// The claim and its evidence in one line.
    pub fn line(&self) -> String {
        if self.evidence.is_empty() { self.claim.clone() } else { format!("{}: {}", self.claim, self.evidence) }
    }
}

/// Whether every claim holds. Nothing claimed is nothing proven.
pub fn all_hold(proofs: &[Proof]) -> bool {
    !proofs.is_empty() && proofs.iter().all(|proof| proof.holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_claim_breaks_all() {
        let good = Proof::new("a", true, "");
        assert!(all_hold(std::slice::from_ref(&good)));
        assert!(!all_hold(&[good, Proof::new("b", false, "seen otherwise")]));
        assert!(!all_hold(&[]));
    }
}
