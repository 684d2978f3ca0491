//! The store of gapless: it writes down.
//!
//! The journal and the records, in memory for tests and in SQLite for an installation. Both keep to one [`contract`].
#![forbid(unsafe_code)]

pub mod archive;
pub mod contract;
mod faulty;
mod lock;
mod memory;
mod record;
mod sqlite;

pub use faulty::FaultyStore;
pub use lock::StateLock;
pub use memory::MemoryStore;
pub use sqlite::{DATABASE_FILE, SqliteStore};
