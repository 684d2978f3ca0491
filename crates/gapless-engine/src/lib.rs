//! The loop that remembers and acts.
