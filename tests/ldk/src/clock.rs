//! The wall clock, moved at will: LDK's expiries are days long, and tests are not.
//!
//! Rust's standard library asks libc's `clock_gettime`. A function of that name in the program
//! itself comes before the one in libc, so `SystemTime::now()` everywhere in the process, LDK
//! included, sees the shifted time. All other clocks stay as they are: timeouts go on working.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

static OFFSET_SECONDS: AtomicI64 = AtomicI64::new(0);

/// Stands before libc's function of this name: the kernel's answer, with the realtime clock shifted.
///
/// # Safety
///
/// As for libc's: `time` points to a `timespec` that may be written.
#[no_mangle]
pub unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    let status = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as libc::c_int;
    if status == 0 && clock == libc::CLOCK_REALTIME {
        // SAFETY: the kernel has just written to it.
        unsafe { (*time).tv_sec += OFFSET_SECONDS.load(Ordering::SeqCst) };
    }
    status
}

/// Puts the wall clock so many seconds before the right time (behind it when negative).
pub fn set(offset: i64) {
    OFFSET_SECONDS.store(offset, Ordering::SeqCst);
}

/// Seconds since 1970 as the whole process sees them.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// How far it is off.
pub fn offset() -> i64 {
    OFFSET_SECONDS.load(Ordering::SeqCst)
}
