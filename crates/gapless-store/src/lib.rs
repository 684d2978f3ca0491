//! The journal and the records.
