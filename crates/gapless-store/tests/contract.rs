//! Both stores keep to what every store keeps to.

use gapless_store::contract;
use gapless_store::{MemoryStore, SqliteStore, StateLock};

macro_rules! contract {
    ($($check:ident),* $(,)?) => {
        mod memory {
            $(#[test]
            fn $check() {
                super::contract::$check(&super::MemoryStore::new());
            })*
        }

        mod sqlite {
            $(#[test]
            fn $check() {
                let folder = tempfile::tempdir().expect("a folder");
                let lock = super::StateLock::acquire(folder.path()).expect("the lock");
                super::contract::$check(&super::SqliteStore::open(lock).expect("a store"));
            })*
        }
    };
}

contract!(
    records_come_back_as_they_were_written,
    artifacts_are_numbered_by_name_and_kind,
    artifacts_published_at_once_have_no_gap,
    declarations_are_kept_by_content,
    receipts_are_replaced,
    values_are_replaced,
    revocations_hold_until_they_are_lifted,
    a_journal_is_read_from_any_place_on,
    the_latest_state_is_kept,
);
