//! The invariants I1 to I6, as functions over what was decided and what was seen.
