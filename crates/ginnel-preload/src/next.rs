//! The next definition of a symbol: the C library's own function, for what is not in a namespace.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A function of the C library that this one hides.
pub(crate) struct Next {
    name: &'static CStr,
    found: AtomicPtr<libc::c_void>,
}

impl Next {
    pub(crate) const fn new(name: &'static CStr) -> Next {
        Next { name, found: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Its address.
    #[inline]
    pub(crate) fn get(&self) -> *mut libc::c_void {
        let found = self.found.load(Ordering::Acquire);
        if found.is_null() { self.look_up() } else { found }
    }

    #[cold]
    fn look_up(&self) -> *mut libc::c_void {
        // SAFETY: the name ends with a zero byte.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        if found.is_null() {
            missing(self.name);
        }
        self.found.store(found, Ordering::Release);
        found
    }
}

/// A program that calls it cannot go on, and cannot have been linked with this C library.
fn missing(name: &CStr) -> ! {
    crate::home::complain(format_args!("the C library has no {}", name.to_string_lossy()));
    std::process::abort()
}

/// `next!(msgget(key: key_t, flags: c_int) -> c_int)` is the call of the C library's `msgget`.
macro_rules! next {
    ($name:ident ( $($argument:ident : $type:ty),* ) -> $out:ty) => {{
        static NEXT: $crate::next::Next = $crate::next::Next::new(
            match std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!(),
            });
        // SAFETY: the function of this name has this type; its caller has promised what it asks for.
        unsafe {
            let function = std::mem::transmute::<*mut libc::c_void, unsafe extern "C-unwind" fn($($type),*) -> $out>(NEXT.get());
            function($($argument),*)
        }
    }};
}

pub(crate) use next;
