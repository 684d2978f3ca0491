//! The demo's acts, a file each.

pub mod broken;
pub mod crash;
pub mod image;
pub mod load;
pub mod naive;
pub mod receipts;
pub mod release;
pub mod rollback;
pub mod version;
