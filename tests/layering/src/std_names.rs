//! Names of methods that say nothing about whose they are: types of the standard library, tokio and bytes have them, too.

/// Whether a method of this name is anybody's.
pub(crate) fn is_common(name: &str) -> bool {
    COMMON.split_ascii_whitespace().any(|common| common == name)
}

const COMMON: &str = "
abort abs accept acquire acquire_owned add addr all and_then any append args as_bytes as_deref as_mut as_ref
as_slice as_str await back begin bind borrow borrow_and_update borrow_mut bytes call capacity chain changed
chars clear clone cloned close closed cmp code collect column compare_exchange connect contains contains_key
copied count deref downcast downgrade drain drop duration elapsed end entry enumerate eq err exists expect
extend fetch_add fetch_sub fill filter filter_map find finish first flags flat_map flatten flush fmt fold
for_each format from front get get_mut get_or_init has_changed hash id index insert insert_all inspect
instant interval into into_inner into_iter is_dir is_empty is_err is_file is_none is_ok is_ok_and is_some
is_some_and iter iter_mut join key keys kill kind last leak len line lines listen load lock map map_err
map_or map_or_else max max_by max_by_key message min min_by min_by_key name new next notified notify_one
notify_waiters now nth number ok ok_or ok_or_else open or or_default or_else or_insert or_insert_with parse
path peek peer_addr poll pop pop_back pop_front port position push push_back push_front push_str put_slice
read read_exact ready recv release remaining remove replace reserve reset resize resolve retain rev run send
send_replace set shutdown skip sleep sort sort_by_key spawn split split_off split_to start starts_with
status stop store sub subscribe success sum swap swap_remove take tick timeout to_owned to_string to_vec
trim truncate try_acquire try_from try_into try_lock try_read try_recv try_send try_write unwrap unwrap_or
unwrap_or_default unwrap_or_else update upgrade values values_mut wait wake windows with write write_all
write_vectored yield_now zip
";
