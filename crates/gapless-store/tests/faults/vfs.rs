//! SQLite's way to a [`Disk`]: a VFS (<https://sqlite.org/vfs.html>), the default one of this test program.
//!
//! The only module with `unsafe`: SQLite calls it through C. It holds no rule of its own; each call is passed on to the disk whose folder the file is in.

#![allow(unsafe_code)]

use crate::disk::{Disk, Refused, Shared};
use rusqlite::ffi;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// The disks, by the folder that each stands for.
static DISKS: Mutex<BTreeMap<PathBuf, Disk>> = Mutex::new(BTreeMap::new());

fn disks() -> MutexGuard<'static, BTreeMap<PathBuf, Disk>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, SQLite finds this disk in this folder. Every other folder it finds empty and closed.
pub fn mount(folder: &Path, disk: Disk) {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(register);
    disks().insert(folder.to_path_buf(), disk);
}

pub fn unmount(folder: &Path) {
    disks().remove(folder);
}

fn disk_of(path: &str) -> Option<Disk> {
    disks().get(Path::new(path).parent()?).cloned()
}

/// What SQLite holds of an open file. It gives the memory, of the size that the VFS asked for.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    open: *mut Open,
}

struct Open {
    disk: Disk,
    boot: u64,
    path: String,
    shared: Option<Shared>,
}

fn register() {
    // SAFETY: SQLite's own VFS is never unregistered, and ours lives as long as the program.
    unsafe {
        let system = ffi::sqlite3_vfs_find(std::ptr::null());
        assert!(!system.is_null(), "SQLite has no VFS of its own");
        let vfs = Box::leak(Box::new(*system));
        vfs.iVersion = 1;
        vfs.szOsFile = c_int::try_from(size_of::<File>()).expect("a small size");
        vfs.pNext = std::ptr::null_mut();
        vfs.zName = c"gapless-faults".as_ptr();
        vfs.xOpen = Some(open);
        vfs.xDelete = Some(delete);
        vfs.xAccess = Some(access);
        vfs.xFullPathname = Some(full_pathname);
        assert_eq!(ffi::sqlite3_vfs_register(vfs, 1), ffi::SQLITE_OK);
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shared_map),
    xShmLock: Some(shared_lock),
    xShmBarrier: Some(shared_barrier),
    xShmUnmap: Some(shared_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// SAFETY (for all below): SQLite passes the files that `open` filled, until `close`, from one thread at a time, and pointers to as many bytes as it says.
unsafe fn of<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Open {
    unsafe { &mut *(*file.cast::<File>()).open }
}

unsafe fn text<'a>(name: *const c_char) -> Option<&'a str> {
    if name.is_null() { None } else { unsafe { CStr::from_ptr(name) }.to_str().ok() }
}

fn told(result: Result<(), Refused>, broken: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(Refused::Full) => ffi::SQLITE_FULL,
        Err(Refused::Broken) => broken,
    }
}

fn place(number: ffi::sqlite3_int64) -> usize {
    usize::try_from(number).expect("no negative place")
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    unsafe {
        (*file).pMethods = std::ptr::null();
        let Some((path, disk)) = text(name).and_then(|path| Some((path, disk_of(path)?))) else { return ffi::SQLITE_CANTOPEN };
        if !disk.exists(path) && (flags & ffi::SQLITE_OPEN_CREATE == 0 || disk.create(path).is_err()) {
            return ffi::SQLITE_CANTOPEN;
        }
        let open = Open { boot: disk.boot(), disk, path: path.to_string(), shared: None };
        (*file.cast::<File>()).open = Box::into_raw(Box::new(open));
        (*file).pMethods = &raw const METHODS;
        if !out.is_null() {
            *out = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    unsafe { drop(Box::from_raw((*file.cast::<File>()).open)) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    let Some((path, disk)) = unsafe { text(name) }.and_then(|path| Some((path, disk_of(path)?))) else { return ffi::SQLITE_IOERR_DELETE };
    if !disk.exists(path) {
        return ffi::SQLITE_IOERR_DELETE_NOENT;
    }
    told(disk.delete(path, sync != 0), ffi::SQLITE_IOERR_DELETE)
}

unsafe extern "C" fn access(_vfs: *mut ffi::sqlite3_vfs, name: *const c_char, _flags: c_int, out: *mut c_int) -> c_int {
    unsafe {
        *out = c_int::from(text(name).is_some_and(|path| disk_of(path).is_some_and(|disk| disk.exists(path))));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(_vfs: *mut ffi::sqlite3_vfs, name: *const c_char, room: c_int, out: *mut c_char) -> c_int {
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if bytes.len() > place(room.into()) {
        return ffi::SQLITE_CANTOPEN;
    }
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, into: *mut c_void, amount: c_int, offset: ffi::sqlite3_int64) -> c_int {
    let (file, into) = unsafe { (of(file), std::slice::from_raw_parts_mut(into.cast::<u8>(), place(amount.into()))) };
    match file.disk.read(file.boot, &file.path, place(offset), into) {
        Ok(length) if length == into.len() => ffi::SQLITE_OK,
        Ok(length) => {
            into[length..].fill(0);
            ffi::SQLITE_IOERR_SHORT_READ
        }
        Err(_) => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, amount: c_int, offset: ffi::sqlite3_int64) -> c_int {
    let (file, bytes) = unsafe { (of(file), std::slice::from_raw_parts(from.cast::<u8>(), place(amount.into()))) };
    told(file.disk.write(file.boot, &file.path, place(offset), bytes), ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    let file = unsafe { of(file) };
    told(file.disk.truncate(file.boot, &file.path, place(size)), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    let file = unsafe { of(file) };
    // The system's VFS knows no full disk here: each failure is one of the device.
    match file.disk.sync(file.boot, &file.path) {
        Ok(()) => ffi::SQLITE_OK,
        Err(_) => ffi::SQLITE_IOERR_FSYNC,
    }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut ffi::sqlite3_int64) -> c_int {
    unsafe {
        let file = of(file);
        *out = file.disk.size(&file.path).try_into().expect("a small file");
    }
    ffi::SQLITE_OK
}

/// Each database of these tests has one opener.
unsafe extern "C" fn lock(_file: *mut ffi::sqlite3_file, _kind: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_file: *mut ffi::sqlite3_file, _what: c_int, _argument: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    4096
}

/// What the system's VFS says of Linux: a write that is torn changes nothing but what it was to write.
unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shared_map(file: *mut ffi::sqlite3_file, region: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) -> c_int {
    let file = unsafe { of(file) };
    let shared = file.shared.get_or_insert_with(|| file.disk.shared(&file.path)).clone();
    let mut regions = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let region = place(region.into());
    while regions.len() <= region {
        if extend == 0 {
            unsafe { *out = std::ptr::null_mut() };
            return ffi::SQLITE_OK;
        }
        if file.disk.take_room(file.boot).is_err() {
            return ffi::SQLITE_IOERR_SHMSIZE;
        }
        regions.push(vec![0; place(size.into()) / size_of::<u64>()].into_boxed_slice());
    }
    // The box stays where it is while the list grows, and is kept by `file.shared` until `shared_unmap`.
    unsafe { *out = regions[region].as_mut_ptr().cast() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn shared_lock(_file: *mut ffi::sqlite3_file, _offset: c_int, _amount: c_int, _flags: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn shared_barrier(_file: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

unsafe extern "C" fn shared_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    let file = unsafe { of(file) };
    file.shared = None;
    if delete != 0 {
        file.disk.forget_shared(&file.path);
    }
    ffi::SQLITE_OK
}
